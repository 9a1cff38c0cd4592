// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM

/// Software breakpoints in the guest's code: the byte at each is INT3, and the debugger sees the one that was there.
///
/// Owned by the server's thread, and changed only while the guest stands still.
struct CodePatches {
    private struct Patch {
        let breakpoint: Breakpoint
        /// Guest-physical address without the shared bit: a conversion does not move the byte.
        let gpa: UInt64
        var original: UInt8
    }
    private var patches: [Patch] = []
    private static let int3: UInt8 = 0xcc

    /// Makes the patches those of `breakpoints`.
    ///
    /// - Throws: the first error in setting one; those before it stay.
    mutating func set(
        _ breakpoints: [Breakpoint], _ view: GuestView, _ special: ckvm_sregs
    ) throws(DebugError) {
        for patch in patches where !breakpoints.contains(patch.breakpoint) { restore(patch, view) }
        patches.removeAll { !breakpoints.contains($0.breakpoint) }
        for breakpoint in breakpoints where !patches.contains(where: { $0.breakpoint == breakpoint }) {
            let place = try view.place(view.translate(breakpoint.address, special))
            guard let byte = try view.read(at: place, count: 1).first else {
                throw .notMapped(breakpoint.address)
            }
            try view.write(at: place, [Self.int3])
            patches.append(Patch(breakpoint: breakpoint, gpa: place.gpa, original: byte))
        }
    }

    /// Nothing is restored where the guest or a conversion has overwritten the INT3.
    private func restore(_ patch: Patch, _ view: GuestView) {
        guard let place = try? view.place(gpa: patch.gpa),
            (try? view.read(at: place, count: 1)) == [Self.int3]
        else {
            return
        }
        try? view.write(at: place, [patch.original])
    }

    /// Whether the INT3 at a linear address is one of these.
    func contains(_ address: UInt64) -> Bool { patches.contains { $0.breakpoint.address == address } }

    /// Bytes as the guest would find them without breakpoints.
    func hidden(in bytes: [UInt8], at gpa: UInt64) -> [UInt8] {
        var bytes = bytes
        for patch in patches where patch.gpa >= gpa {
            let offset = patch.gpa - gpa
            if offset < UInt64(bytes.count), bytes[Int(offset)] == Self.int3 {
                bytes[Int(offset)] = patch.original
            }
        }
        return bytes
    }

    /// Bytes to write, with the breakpoints kept.
    mutating func kept(in bytes: [UInt8], at gpa: UInt64) -> [UInt8] {
        var bytes = bytes
        for index in patches.indices where patches[index].gpa >= gpa {
            let offset = patches[index].gpa - gpa
            guard offset < UInt64(bytes.count) else { continue }
            patches[index].original = bytes[Int(offset)]
            bytes[Int(offset)] = Self.int3
        }
        return bytes
    }
}
