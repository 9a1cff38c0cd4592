// SPDX-License-Identifier: MIT
import CKVMShim
import CUnicornShim
import MiniVMM

/// The descriptor of a code or data segment, as it is in the guest's GDT.
struct SegmentDescriptor {
    let rawValue: UInt64

    private func bit(_ number: UInt64) -> Bool { rawValue >> number & 1 != 0 }

    /// The bits 40 to 43.
    private var type: UInt8 { UInt8(truncatingIfNeeded: rawValue >> 40 & 0xf) }
    /// Not a system segment, such as a TSS.
    private var isSegment: Bool { bit(44) }
    var isPresent: Bool { bit(47) }
    var privilege: Int { Int(rawValue >> 45 & 3) }
    var isCode: Bool { isSegment && type & 8 != 0 }
    /// Code that runs in the ring of its caller.
    var isConforming: Bool { type & 4 != 0 }
    var isWritableData: Bool { isSegment && type & 0b1010 == 0b0010 }
    /// 64-bit code, whatever the bit for 32-bit code says.
    var isLong: Bool { bit(53) }
    var isBig: Bool { bit(54) }

    /// The segment register that a CPU has after it has loaded this descriptor.
    func loaded(as selector: UInt16) -> ckvm_segment {
        var segment = ckvm_segment()
        segment.base = rawValue >> 16 & 0xff_ffff | (rawValue >> 56) << 24
        let limit = UInt32(truncatingIfNeeded: rawValue & 0xffff | rawValue >> 32 & 0xf_0000)
        segment.limit = bit(55) ? limit << 12 | 0xfff : limit
        segment.selector = selector
        segment.type = type | 1  // accessed
        segment.s = isSegment ? 1 : 0
        segment.dpl = UInt8(truncatingIfNeeded: privilege)
        segment.present = isPresent ? 1 : 0
        segment.avl = bit(52) ? 1 : 0
        segment.l = isLong ? 1 : 0
        segment.db = isBig ? 1 : 0
        segment.g = bit(55) ? 1 : 0
        return segment
    }
}

/// Why a handler of the guest is not entered.
enum DeliveryFailure: Error {
    /// Another exception, raised by the guest's tables or its stack.
    case exception(CPUException)
    /// A table or the stack is not in memory that the CPU can access. The run ends.
    case inaccessible
}

/// The segment and the stack of a handler.
struct HandlerContext {
    var code: ckvm_segment
    /// The ring of the handler.
    let ring: Int

    init(_ descriptor: SegmentDescriptor, _ selector: UInt16, ring: Int) {
        self.ring = ring
        code = descriptor.loaded(as: selector & ~3 | UInt16(truncatingIfNeeded: ring & 3))
    }
}

// Handlers may be in an inner ring. These are the checks of the Intel SDM, volume 3, 7.12 and 7.14.
extension SoftVCPU {
    /// The handler's code segment, which a gate names by its selector.
    ///
    /// - Parameters:
    ///   - isLong: whether it has to be 64-bit code.
    ///   - external: bit 0 of an error code: the event that is delivered is not INT n.
    func handlerContext(
        _ selector: UInt16, isLong: Bool, external: UInt32
    ) throws(DeliveryFailure) -> HandlerContext {
        func refused(_ vector: UInt8) -> DeliveryFailure {
            .exception(CPUException(vector, errorCode: UInt32(selector & ~3) | external))
        }
        guard let descriptor = try descriptor(selector, external: external), descriptor.isCode,
            descriptor.privilege <= currentRing, !isLong || descriptor.isLong && !descriptor.isBig
        else { throw refused(CPUException.generalProtection) }
        guard descriptor.isPresent else { throw refused(CPUException.segmentNotPresent) }
        return HandlerContext(
            descriptor, selector, ring: descriptor.isConforming ? currentRing : descriptor.privilege)
    }

    /// The descriptor that a selector names; nil if it is null or beyond the GDT. An LDT is not supported: its selectors are
    /// beyond it.
    func descriptor(_ selector: UInt16, external: UInt32) throws(DeliveryFailure) -> SegmentDescriptor? {
        let offset = UInt64(selector & ~7)
        let isInLocalTable = selector & 4 != 0
        guard offset > 0, !isInLocalTable, offset + 7 <= UInt64(special.gdt.limit) else { return nil }
        return SegmentDescriptor(rawValue: try readNumber(special.gdt.base &+ offset, 8))
    }

    /// The stack segment of a handler in an inner ring of 32-bit code, from the TSS.
    func innerStackSegment(
        _ selector: UInt16, ring: Int, external: UInt32
    ) throws(DeliveryFailure) -> ckvm_segment {
        func refused(_ vector: UInt8) -> DeliveryFailure {
            .exception(CPUException(vector, errorCode: UInt32(selector & ~3) | external))
        }
        guard let descriptor = try descriptor(selector, external: external), descriptor.isWritableData,
            Int(selector & 3) == ring, descriptor.privilege == ring
        else { throw refused(CPUException.invalidTaskState) }
        guard descriptor.isPresent else { throw refused(CPUException.stackFault) }
        return descriptor.loaded(as: selector)
    }

    /// A number of `count` bytes in the TSS.
    func readTaskState(_ offset: UInt64, _ count: UInt64, external: UInt32) throws(DeliveryFailure) -> UInt64
    {
        guard offset + count - 1 <= UInt64(special.tr.limit) else {
            let selector = UInt32(special.tr.selector & ~3)
            throw .exception(CPUException(CPUException.invalidTaskState, errorCode: selector | external))
        }
        return try readNumber(special.tr.base &+ offset, count)
    }

    /// Whether an access of ring 3 is the CPU's own: it reads a descriptor, or marks it as accessed, whatever the ring.
    func isOfDescriptor(_ access: cuc_access) -> Bool {
        let offset = access.address &- special.gdt.base
        guard access.size >= 4, access.is_fetch == 0, offset <= UInt64(special.gdt.limit),
            let instruction = SegmentLoad(codeAtRIP(), bits: special.codeBits)
        else { return false }
        return access.is_write == 0 || !instruction.pushes
    }

    // MARK: the guest's memory

    /// Reads a little-endian number of at most eight bytes from a table, as a CPU does: with the rights of ring 0.
    func readNumber(_ linear: UInt64, _ count: UInt64) throws(DeliveryFailure) -> UInt64 {
        var word: UInt64 = 0
        for index in 0..<count {
            let byte = unsafe try byteAddress(linear &+ index, isWrite: false)
            word |= unsafe UInt64(byte.load(as: UInt8.self)) << (index * 8)
        }
        return word
    }

    /// Pushes a word of a frame with the rights of the handler's ring. Some of the bytes may have been written when this fails.
    func push(
        _ value: UInt64, _ count: UInt64, at linear: UInt64, ring: Int
    ) throws(DeliveryFailure) {
        for index in 0..<count {
            let byte = unsafe try byteAddress(linear &+ index, isWrite: true, isUser: ring == 3)
            unsafe byte.storeBytes(of: UInt8(truncatingIfNeeded: value >> (index * 8)), as: UInt8.self)
        }
    }

    private func byteAddress(
        _ linear: UInt64, isWrite: Bool, isUser: Bool = false
    ) throws(DeliveryFailure) -> UnsafeMutableRawPointer {
        let linear = special.isLongModeActive ? linear : linear & 0xffff_ffff
        let kind = AccessKind(isWrite: isWrite, isFetch: false, isUser: isUser)
        let leaf: GuestPage
        do {
            leaf = try vm.walk(linear, kind, special)
        } catch {
            throw DeliveryFailure(error, linear, kind)
        }
        let address = leaf.gpa + (linear - leaf.linear)
        guard case .memory(let backing) = vm.resolve(address, isWrite: isWrite), !backing.isCiphertext,
            !(isWrite && backing.isReadOnly), let bytes = unsafe vm.bytes(in: backing, at: address)
        else { throw .inaccessible }
        _ = vm.model.kernel.noteGuestTouch(vm.number, at: address, isWrite: isWrite)
        if isWrite { vm.model.kernel.noteGuestWrite(vm.number, at: address) }
        return unsafe bytes
    }
}

extension DeliveryFailure {
    fileprivate init(_ failure: WalkFailure, _ linear: UInt64, _ kind: AccessKind) {
        switch failure {
        case .nonCanonical:
            // A write is to the stack.
            self = .exception(
                CPUException(kind.isWrite ? CPUException.stackFault : CPUException.generalProtection))
        case .pageFault(var code):
            if kind.isWrite { code.insert(.write) }
            if kind.isUser { code.insert(.user) }
            self = .exception(
                CPUException(CPUException.pageFault, errorCode: code.rawValue, address: linear))
        case .fault, .raised, .failed: self = .inaccessible
        }
    }
}

/// An instruction that loads a segment register, or reads a descriptor without loading it.
private struct SegmentLoad {
    /// Whether it also writes to the stack.
    let pushes: Bool

    private static let prefixes: Set<UInt8> = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf2, 0xf3]

    /// - Returns: nil for any other instruction.
    init?(_ code: [UInt8], bits: Int) {
        var rest = code.drop { Self.prefixes.contains($0) }
        if bits == 64, let rex = rest.first, rex & 0xf0 == 0x40 { rest = rest.dropFirst() }
        guard let opcode = rest.first else { return nil }
        let second = rest.dropFirst().first ?? 0
        switch opcode {
        // MOV, the far returns, IRET and the far jump.
        case 0x8e, 0xca, 0xcb, 0xcf, 0xea: pushes = false
        // The far call.
        case 0x9a: pushes = true
        // POP, LES and LDS, which are other instructions in 64-bit code.
        case 0x07, 0x17, 0x1f, 0xc4, 0xc5: if bits == 64 { return nil } else { pushes = false }
        // The far call and jump through memory.
        case 0xff:
            guard second >> 3 & 7 == 3 || second >> 3 & 7 == 5 else { return nil }
            pushes = second >> 3 & 7 == 3
        // LAR, LSL, POP, LSS, LFS, LGS; VERR and VERW.
        case 0x0f:
            let operation = rest.dropFirst(2).first.map { $0 >> 3 & 7 }
            guard
                [0x02, 0x03, 0xa1, 0xa9, 0xb2, 0xb4, 0xb5].contains(second)
                    || second == 0 && (operation == 4 || operation == 5)
            else { return nil }
            pushes = false
        default: return nil
        }
    }
}
