// SPDX-License-Identifier: MIT
import CKVMShim
import CUnicornShim
import MiniVMM
import SystemPackage

// KVM_SET_GUEST_DEBUG. The engine checks the breakpoints before each instruction, so there is no need to change the guest's
// debug registers or its trap flag.
extension SoftVCPU {
    /// The flags that `KVM_SET_GUEST_DEBUG` accepts.
    static let debugControls =
        CKVM_GUESTDBG_ENABLE | CKVM_GUESTDBG_SINGLESTEP | CKVM_GUESTDBG_USE_SW_BP | CKVM_GUESTDBG_USE_HW_BP

    private static let breakpointVector: UInt32 = 3

    private func isOn(_ control: UInt32) -> Bool {
        debug.control & CKVM_GUESTDBG_ENABLE != 0 && debug.control & control != 0
    }

    var isSingleStepping: Bool { isOn(CKVM_GUESTDBG_SINGLESTEP) }

    /// The enabled ones of DR0 to DR3, as DR7 describes them.
    var breakpoints: [cuc_breakpoint] {
        guard isOn(CKVM_GUESTDBG_USE_HW_BP) else { return [] }
        let addresses = [debug.debugreg.0, debug.debugreg.1, debug.debugreg.2, debug.debugreg.3]
        let control = debug.debugreg.7
        return addresses.enumerated().map { number, address in
            let field = control >> (16 + 4 * UInt64(number))
            let isEnabled = control >> (2 * UInt64(number)) & 3 != 0
            let kind = UInt32(truncatingIfNeeded: field & 3)
            // The encoding of the length: 1, 2, 8, 4 bytes.
            let size: UInt32 = [1, 2, 8, 4][Int(field >> 2 & 3)]
            return cuc_breakpoint(
                address: address, size: isEnabled && kind != 2 ? size : 0,
                kind: kind)
        }
    }

    /// `KVM_EXIT_DEBUG` after a single step. The step may also have accessed watched memory.
    func stepped(_ hits: UInt32 = 0) -> Step { debugExit(vector: 1, dr6: 1 << 14 | UInt64(hits & 0xf)) }

    func reachedBreakpoints(_ hits: UInt32) -> Step { debugExit(vector: 1, dr6: UInt64(hits & 0xf)) }

    /// An exception or INT n, which the guest handles, except for INT3 with `KVM_GUESTDBG_USE_SW_BP`.
    func exception(_ vector: UInt32) -> Step {
        guard vector == Self.breakpointVector, isOn(CKVM_GUESTDBG_USE_SW_BP) else {
            return raiseFromEngine(vector)
        }
        return debugExit(vector: vector, dr6: 0)
    }

    private func debugExit(vector: UInt32, dr6: UInt64) -> Step {
        runPage.exitReason = CKVM_EXIT_DEBUG
        runPage.debug = ckvm_run_debug(
            exception: vector, pad: 0, pc: registersNow.rip, dr6: dr6 | 0xffff_0ff0, dr7: debug.debugreg.7)
        return .exit
    }
}

extension SoftVM: PrivateMemoryAccess {
    /// Reads a private page as the guest sees it.
    ///
    /// - Throws: `EFAULT` if a vCPU could not read it, or the bytes are in several pages; `EOPNOTSUPP` on an SNP or TDX VM.
    public func readPrivate(gpa: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(Errno) {
        try unsafe accessPrivate(gpa, buffer.count) { bytes in
            unsafe buffer.copyMemory(from: UnsafeRawBufferPointer(start: bytes, count: buffer.count))
        }
    }

    /// Writes a private page as another vCPU would.
    ///
    /// - Throws: `EFAULT` if a vCPU could not read it, or the bytes are in several pages; `EOPNOTSUPP` on an SNP or TDX VM.
    public func writePrivate(gpa: UInt64, from buffer: UnsafeRawBufferPointer) throws(Errno) {
        try unsafe accessPrivate(gpa, buffer.count) { bytes in
            if let source = buffer.baseAddress {
                unsafe bytes.copyMemory(from: source, byteCount: buffer.count)
            }
            model.kernel.noteGuestWrite(number, at: gpa)
            model.applyEffects()
        }
    }

    private func accessPrivate(
        _ gpa: UInt64, _ count: Int, _ body: (UnsafeMutableRawPointer) -> Void
    ) throws(Errno) {
        try model.call { () throws(Errno) in
            guard encryptionBit == nil else { throw .notSupported }
            guard count > 0, UInt64(count) <= pageSize - gpa % pageSize,
                let (file, offset, _) = model.kernel.guestByte(number, at: gpa),
                let bytes = unsafe model.memory(of: file)?.bytes(at: offset)
            else { throw .badAddress }
            unsafe body(bytes)
        }
    }
}
