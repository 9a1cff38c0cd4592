// SPDX-License-Identifier: MIT
import CKVMShim

/// How breakpoints are realised: by the four debug registers, as INT3 in the code, or by single steps.
///
/// Hardware breakpoints and watchpoints get registers first. Software breakpoints get those that are left, because a
/// register works in private memory too, and the guest cannot see it. Further ones are INT3, if the monitor can write it. All
/// others are done by stepping through the guest, which is slow; and all of them, if the registers of a backend stop nothing,
/// because its INT3 may then be the guest's. A value; changes nothing.
struct BreakpointPlan {
    static let registerCount = 4
    /// By number of the debug register, DR0 to DR3.
    let registers: [Breakpoint]
    /// Software breakpoints that must be in the code.
    let inCode: [Breakpoint]
    /// Breakpoints and write watchpoints to compare with after each instruction.
    let compared: [Breakpoint]

    /// - Parameter canPatch: whether the monitor can write an INT3 at the address.
    /// - Throws: ``DebugError/noBreakpointLeft(_:)`` if more than four breakpoints need a register,
    ///   ``DebugError/unwatchedReads(_:)`` for watched reads if registers watch no data, and
    ///   ``DebugError/neverStops(_:)`` if there is neither a register nor a step.
    init(
        _ breakpoints: [Breakpoint], _ facts: DebugFacts = DebugFacts(),
        canPatch: (UInt64) -> Bool = { _ in true }
    ) throws(DebugError) {
        let software = breakpoints.filter { $0.kind == .software }
        let others = breakpoints.filter { $0.kind != .software }
        func isCompared(_ breakpoint: Breakpoint) -> Bool {
            !(breakpoint.kind.isWatchpoint ? facts.watchesData : facts.stopsAtAddresses)
        }
        let left = others.filter(isCompared)
        if let read = left.first(where: { $0.kind == .read || $0.kind == .access }) {
            throw .unwatchedReads(read.address)
        }
        let hardware = others.filter { !isCompared($0) }
        guard hardware.count <= Self.registerCount else {
            throw .noBreakpointLeft(breakpoints.last?.address ?? 0)
        }
        let free = facts.stopsAtAddresses ? Self.registerCount - hardware.count : 0
        registers = hardware + software.prefix(free)
        let further = software.dropFirst(free)
        let patched = facts.stopsAtAddresses ? further.filter { canPatch($0.address) } : []
        inCode = patched
        compared = left + further.filter { !patched.contains($0) }
        if !facts.steps, let first = compared.first { throw .neverStops(first.address) }
    }

    /// The argument of `KVM_SET_GUEST_DEBUG`.
    func request(isStep: Bool) -> ckvm_guest_debug {
        var request = ckvm_guest_debug()
        if isStep || !compared.isEmpty { request.control |= CKVM_GUESTDBG_SINGLESTEP }
        if !inCode.isEmpty { request.control |= CKVM_GUESTDBG_USE_SW_BP }
        if !registers.isEmpty { request.control |= CKVM_GUESTDBG_USE_HW_BP }
        if request.control != 0 { request.control |= CKVM_GUESTDBG_ENABLE }
        var addresses = registers.map(\.address)
        while addresses.count < Self.registerCount { addresses.append(0) }
        request.debugreg.0 = addresses[0]
        request.debugreg.1 = addresses[1]
        request.debugreg.2 = addresses[2]
        request.debugreg.3 = addresses[3]
        request.debugreg.7 = registers.enumerated().reduce(0x400) { control, entry in
            let (number, breakpoint) = (UInt64(entry.offset), entry.element)
            return control | 2 << (2 * number) | breakpoint.field << (16 + 4 * number)
        }
        return request
    }
}

extension Breakpoint {
    /// The R/W and LEN bits of DR7 (Intel SDM volume 3, 18.2.4). There is none for reads alone: a read watchpoint also stops
    /// at writes.
    fileprivate var field: UInt64 {
        let length: UInt64 =
            switch size {
            case 2: 1
            case 4: 3
            case 8: 2
            default: 0
            }
        return switch kind {
        case .software, .hardware: 0
        case .write: 1 | length << 2
        case .read, .access: 3 | length << 2
        }
    }

    /// Whether a debug register can watch it.
    var isPossible: Bool {
        !kind.isWatchpoint || [1, 2, 4, 8].contains(size) && address % max(size, 1) == 0
    }
}

extension ckvm_guest_debug {
    func isEqual(to other: ckvm_guest_debug) -> Bool {
        let (one, two) = (debugreg, other.debugreg)
        return control == other.control && one.0 == two.0 && one.1 == two.1 && one.2 == two.2
            && one.3 == two.3
            && one.7 == two.7
    }
}
