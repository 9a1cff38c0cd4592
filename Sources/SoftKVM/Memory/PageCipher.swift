// SPDX-License-Identifier: MIT
/// The memory encryption of an SNP guest, as a stand-in for AES: each block of 16 bytes has its own permutation, so the same
/// plaintext has another ciphertext at another place, and a changed byte changes the whole block. It hides nothing from
/// anybody who tries.
struct PageCipher {
    /// Differs between VMs.
    let key: UInt64

    private static let rounds: [UInt64] = [
        0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d0, 0x082e_fa98_ec4e_6c89,
    ]

    /// A Feistel network (Luby and Rackoff), whose round function is one step of SplitMix64.
    func encrypt(_ block: (UInt64, UInt64), at place: UInt64) -> (UInt64, UInt64) {
        var (left, right) = block
        for round in Self.rounds { (left, right) = (right, left ^ mix(right, round, place)) }
        return (left, right)
    }

    func decrypt(_ block: (UInt64, UInt64), at place: UInt64) -> (UInt64, UInt64) {
        var (left, right) = block
        for round in Self.rounds.reversed() { (left, right) = (right ^ mix(left, round, place), left) }
        return (left, right)
    }

    private func mix(_ half: UInt64, _ round: UInt64, _ place: UInt64) -> UInt64 {
        var generator = SplitMix64(seed: half ^ round ^ (place &* 0x9e37_79b9_7f4a_7c15) ^ key)
        return generator.next()
    }
}
