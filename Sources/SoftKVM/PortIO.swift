import CKVMShim
import CUnicornShim
import MiniVMM

/// A `KVM_EXIT_IO` that waits for its completion.
struct PortAccess {
    let rip: UInt64
    let instruction: PrivilegedInstruction
    let isOut: Bool
    /// Bytes.
    let size: Int
    let isString: Bool
    /// INS: where the element goes.
    let linear: UInt64
}

// IN, OUT and their string forms: one transfer an exit, `count` 1.
extension SoftVCPU {
    func doPort(_ instruction: PrivilegedInstruction, _ engine: Engine) -> Step {
        guard case .port(let isOut, let size, let port, let isString) = instruction.operation else {
            return shutdown()
        }
        // Ports are for IOPL; the permission bitmap of a TSS is not looked at.
        guard currentRing <= Int(registersNow.rflags >> 12 & 3) else { return shutdown() }
        let counterMask: UInt64 = instruction.hasShortAddresses ? 0xffff_ffff : .max
        if isString, instruction.isRepeated, registersNow.rcx & counterMask == 0 {
            registersNow.rip &+= instruction.length
            return .goOn
        }
        var linear: UInt64 = 0
        var value = registersNow.rax
        if isString {
            linear = elementAddress(isOut, instruction)
            switch unsafe element(at: linear, size, isWrite: !isOut) {
            case .success(let bytes): unsafe value = isOut ? Self.load(bytes, size) : 0
            case .failure(let stop): return stop.step
            }
        }
        var io = ckvm_run_io()
        io.direction = isOut ? CKVM_EXIT_IO_OUT : CKVM_EXIT_IO_IN
        io.size = UInt8(size)
        io.port = port ?? UInt16(truncatingIfNeeded: registersNow.rdx)
        io.count = 1
        io.data_offset = UInt64(Self.ioDataOffset)
        runPage.exitReason = CKVM_EXIT_IO
        runPage.io = io
        if isOut { unsafe Self.store(value, [ioData], size) }
        pending = .port(
            PortAccess(
                rip: registersNow.rip, instruction: instruction, isOut: isOut, size: size, isString: isString,
                linear: linear))
        return .exit
    }

    func complete(_ access: PortAccess, _ engine: Engine) -> Step {
        let instruction = access.instruction
        let value = unsafe Self.load([ioData], access.size)
        if access.isString {
            if !access.isOut {
                switch unsafe element(at: access.linear, access.size, isWrite: true) {
                case .success(let bytes):
                    unsafe Self.store(value, bytes, access.size)
                case .failure(let stop):
                    // Converted since the exit: the element waits for the page.
                    pending = .port(access)
                    return stop.step
                }
            }
            if advance(access) { return .goOn }
        } else if !access.isOut {
            switch access.size {
            case 1: registersNow.rax = registersNow.rax & ~0xff | value
            case 2: registersNow.rax = registersNow.rax & ~0xffff | value
            default: registersNow.rax = value
            }
        }
        registersNow.rip = access.rip &+ instruction.length
        return .goOn
    }

    /// Moves the registers of a string instruction on by an element; true if another one follows.
    private func advance(_ access: PortAccess) -> Bool {
        let isShort = access.instruction.hasShortAddresses
        let goesDown = registersNow.rflags & 1 << 10 != 0
        let step = goesDown ? 0 &- UInt64(access.size) : UInt64(access.size)
        func moved(_ value: UInt64, by step: UInt64) -> UInt64 {
            isShort ? (value &+ step) & 0xffff_ffff : value &+ step
        }
        if access.isOut {
            registersNow.rsi = moved(registersNow.rsi, by: step)
        } else {
            registersNow.rdi = moved(registersNow.rdi, by: step)
        }
        guard access.instruction.isRepeated else { return false }
        registersNow.rcx = moved(registersNow.rcx, by: .max)
        return registersNow.rcx != 0
    }

    private func elementAddress(_ isOut: Bool, _ instruction: PrivilegedInstruction) -> UInt64 {
        let register = isOut ? registersNow.rsi : registersNow.rdi
        let offset = instruction.hasShortAddresses ? register & 0xffff_ffff : register
        guard isOut, let segment = instruction.segment else { return offset }
        storeSpecial()
        return offset &+ (segment == 0x64 ? special.fs.base : special.gs.base)
    }

    private struct Stop: Error { let step: Step }

    /// The host addresses of an element's bytes, one for each page that it lies in. An element in MMIO is more than
    /// this emulation does.
    private func element(
        at linear: UInt64, _ size: Int, isWrite: Bool
    ) -> Result<[UnsafeMutableRawPointer], Stop> {
        let kind = AccessKind(isWrite: isWrite, isFetch: false, isUser: currentRing == 3)
        var access = cuc_access()
        access.address = linear
        access.size = UInt32(size)
        var pieces: [UnsafeMutableRawPointer] = unsafe []
        for part in access.parts {
            let leaf: GuestPage
            do {
                leaf = try vm.walk(part.address, kind, special)
            } catch {
                switch error {
                case .exception: return unsafe .failure(Stop(step: shutdown()))
                case .fault(let fault): return unsafe .failure(Stop(step: memoryFault(fault)))
                }
            }
            let address = leaf.gpa + (part.address - leaf.linear)
            switch vm.target(of: address, isWrite: isWrite) {
            case .mmio: return unsafe .failure(Stop(step: internalError()))
            case .fault(let fault): return unsafe .failure(Stop(step: memoryFault(fault)))
            case .memory(let slot, _):
                let offset = vm.withoutSharedBit(address) - slot.range.start
                slot.noteMapped(offset)
                if isWrite, let page = PageRange.covering(start: offset, size: 1) { slot.codeChanged(page) }
                unsafe pieces.append(slot.file.bytes(at: slot.fileOffset + offset))
            }
        }
        return unsafe .success(pieces)
    }

    private var ioData: UnsafeMutableRawPointer { unsafe page + Self.ioDataOffset }

    /// Little endian; the second piece begins on a page.
    private static func load(_ pieces: [UnsafeMutableRawPointer], _ size: Int) -> UInt64 {
        (0..<size).reversed().reduce(0) { value, index in
            unsafe value << 8 | UInt64(byte(pieces, index, size).load(as: UInt8.self))
        }
    }

    private static func store(_ value: UInt64, _ pieces: [UnsafeMutableRawPointer], _ size: Int) {
        for index in 0..<size {
            let byte = UInt8(truncatingIfNeeded: value >> (UInt64(index) * 8))
            unsafe Self.byte(pieces, index, size).storeBytes(of: byte, as: UInt8.self)
        }
    }

    private static func byte(
        _ pieces: [UnsafeMutableRawPointer], _ index: Int, _ size: Int
    ) -> UnsafeMutableRawPointer {
        let first = unsafe pieces[0]
        guard unsafe pieces.count > 1 else { return unsafe first + index }
        let inFirst = Int(pageSize) - Int(UInt(bitPattern: first) % UInt(pageSize))
        return unsafe index < inFirst ? first + index : pieces[1] + (index - inFirst)
    }
}
