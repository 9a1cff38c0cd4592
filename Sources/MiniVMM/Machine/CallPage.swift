// SPDX-License-Identifier: MIT
/// A guest call whose arguments are in a shared page, for guests whose registers the monitor cannot see (SNP and TDX). The guest
/// writes the number of the page to a port.
///
/// Words of the page: the call's number, RBX, RCX and RDX; and as the answer the result and RCX. guest/include/guest.h defines
/// them for guests.
struct CallPage {
    static let port: UInt16 = 0xea

    let call: GuestCall
    private let gpa: UInt64

    /// - Returns: nil if the monitor cannot read the page. The guest then finds no answer there.
    init?(number: UInt64, in memory: GuestMemory) {
        gpa = number << 12
        var words: [UInt64] = []
        for index in 0..<4 as Range<UInt64> {
            guard let word = try? memory.readWord(gpa: gpa + index * 8) else { return nil }
            words.append(word)
        }
        call = GuestCall(number: words[0], arguments: (words[1], words[2], words[3]))
    }

    func answer(_ answer: GuestCall.Answer, in memory: GuestMemory) {
        // A guest that has made the page private meanwhile gets no answer.
        try? memory.writeWord(gpa: gpa + 32, UInt64(bitPattern: answer.result))
        try? memory.writeWord(gpa: gpa + 40, answer.word ?? 0)
    }
}
