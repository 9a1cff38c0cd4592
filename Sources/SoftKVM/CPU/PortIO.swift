// SPDX-License-Identifier: MIT
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
    let port: UInt16
    /// Linear address of the element of a string instruction.
    let linear: UInt64
}

// IN, OUT and their string forms: one transfer per exit (`count` is 1).
extension SoftVCPU {
    func doPort(_ instruction: PrivilegedInstruction, _ engine: Engine) -> Step {
        guard case .port(let isOut, let size, let port, let isString) = instruction.operation else {
            return invalidOpcode()
        }
        let number = port ?? UInt16(truncatingIfNeeded: registersNow.rdx)
        do throws(DeliveryFailure) {
            guard try mayAccess(port: number, size) else { return generalProtection() }
        } catch {
            guard case .exception(let exception) = error else { return generalProtection() }
            return raise(exception)
        }
        if isString, instruction.isRepeated, registersNow.rcx & instruction.addressMask == 0 {
            stepOver(instruction.length)
            return .proceed
        }
        if isString, let failure = failedFetch() { return failure }
        let access = PortAccess(
            rip: registersNow.rip, instruction: instruction, isOut: isOut, size: size, isString: isString,
            port: number,
            linear: isString ? elementAddress(isOut, instruction) : 0)
        guard isString else { return transfer(access, registersNow.rax) }
        if isOut, let step = exitForMMIO(access, writing: nil) { return step }
        switch element(at: access.linear, size, isWrite: !isOut) {
        case .success(let bytes): return transfer(access, bytes.value)
        case .failure(let stop): return stop.step
        }
    }

    /// Whether the current ring may access `size` ports: it needs IOPL, or clear bits in the I/O permission bitmap of the TSS.
    private func mayAccess(port: UInt16, _ size: Int) throws(DeliveryFailure) -> Bool {
        let isVirtual8086 = registersNow.rflags & 1 << 17 != 0
        if currentRing <= Int(registersNow.rflags >> 12 & 3), !isVirtual8086 { return true }
        // The CPU reads two bytes of the bitmap, whose offset in the TSS is at 0x66.
        let limit = UInt64(special.tr.limit)
        guard limit >= 0x67 else { return false }
        let place = try readNumber(special.tr.base &+ 0x66, 2) + UInt64(port) / 8
        guard place + 1 <= limit else { return false }
        let bits = try readNumber(special.tr.base &+ place, 2) >> (UInt64(port) % 8)
        return bits & (1 << UInt64(size) - 1) == 0
    }

    /// Exits with `KVM_EXIT_IO`.
    private func transfer(_ access: PortAccess, _ value: UInt64) -> Step {
        var io = ckvm_run_io()
        io.direction = access.isOut ? CKVM_EXIT_IO_OUT : CKVM_EXIT_IO_IN
        io.size = UInt8(access.size)
        io.port = access.port
        io.count = 1
        io.data_offset = UInt64(Self.ioDataOffset)
        runPage.exitReason = CKVM_EXIT_IO
        runPage.io = io
        if access.isOut { ioData(access.size).value = value }
        pending = .port(access)
        return .exit
    }

    /// Exits with `KVM_EXIT_MMIO` if KVM's emulator cannot access the element of a string instruction; otherwise
    /// returns nil.
    ///
    /// - Parameter value: the value to write; nil for a read.
    private func exitForMMIO(_ access: PortAccess, writing value: UInt64?) -> Step? {
        let kind = AccessKind(isWrite: value != nil, isFetch: false, isUser: currentRing == 3)
        switch mmioForKVM(access.linear, kind) {
        case .memory: return nil
        case .stop(let step): return step
        case .ciphertext: return nil
        case .mmio(let gpa):
            runPage.exitReason = CKVM_EXIT_MMIO
            runPage.mmio = ckvm_run_mmio(gpa: gpa, size: access.size, writing: value)
            pending = .element(access)
            return .exit
        }
    }

    /// Continues after the monitor has performed the access to an element.
    func completeElement(_ access: PortAccess, _ engine: Engine) -> Step {
        if access.isOut { return transfer(access, runPage.mmio.word) }
        if !advance(access) { stepOver(access.instruction.length) }
        return .proceed
    }

    func complete(_ access: PortAccess, _ engine: Engine) -> Step {
        let instruction = access.instruction
        let value = ioData(access.size).value
        if access.isString {
            if !access.isOut {
                if let step = exitForMMIO(access, writing: value) { return step }
                switch element(at: access.linear, access.size, isWrite: true) {
                case .success(let bytes): bytes.value = value
                case .failure(let stop):
                    // The page was converted since the exit, so the element waits for it.
                    pending = .port(access)
                    return stop.step
                }
            }
            if advance(access) { return .proceed }
        } else if !access.isOut {
            switch access.size {
            case 1: registersNow.rax = registersNow.rax & ~0xff | value
            case 2: registersNow.rax = registersNow.rax & ~0xffff | value
            default: registersNow.rax = value
            }
        }
        stepOver(instruction.length)
        return .proceed
    }

    /// Advances the registers of a string instruction by one element; true if another one follows.
    private func advance(_ access: PortAccess) -> Bool {
        let mask = access.instruction.addressMask
        let goesDown = registersNow.rflags & 1 << 10 != 0
        let step = goesDown ? 0 &- UInt64(access.size) : UInt64(access.size)
        // A write of 16 bits keeps the rest of the register, and one of 32 bits clears it.
        let kept: UInt64 = mask == 0xffff ? ~mask : 0
        func moved(_ value: UInt64, by step: UInt64) -> UInt64 { (value &+ step) & mask | value & kept }
        if access.isOut {
            registersNow.rsi = moved(registersNow.rsi, by: step)
        } else {
            registersNow.rdi = moved(registersNow.rdi, by: step)
        }
        guard access.instruction.isRepeated else { return false }
        registersNow.rcx = moved(registersNow.rcx, by: .max)
        return registersNow.rcx & mask != 0
    }

    private func elementAddress(_ isOut: Bool, _ instruction: PrivilegedInstruction) -> UInt64 {
        let register = isOut ? registersNow.rsi : registersNow.rdi
        let offset = register & instruction.addressMask
        // A prefix replaces DS. INS always uses ES.
        let base =
            switch isOut ? instruction.segment : 0x26 {
            case 0x26: special.es.base
            case 0x2e: special.cs.base
            case 0x36: special.ss.base
            case 0x64: special.fs.base
            case 0x65: special.gs.base
            default: special.ds.base
            }
        guard special.codeBits != 64 else {
            return offset &+ (isOut && instruction.segment != nil ? base : 0)
        }
        return (offset &+ base) & 0xffff_ffff
    }

    private struct Stop: Error { let step: Step }

    /// The memory of an element of a string instruction. An element in MMIO is not supported.
    private func element(at linear: UInt64, _ size: Int, isWrite: Bool) -> Result<ElementBytes, Stop> {
        let kind = AccessKind(isWrite: isWrite, isFetch: false, isUser: currentRing == 3)
        var access = cuc_access()
        access.address = linear
        access.size = UInt32(size)
        var bytes = ElementBytes()
        for part in access.parts {
            let leaf: GuestPage
            do {
                leaf = try vm.walk(part.address, kind, special)
            } catch {
                return .failure(Stop(step: walkFailed(error, part.address, kind)))
            }
            let address = leaf.gpa + (part.address - leaf.linear)
            switch vm.resolve(address, isWrite: isWrite) {
            case .stopped(.mmio): return .failure(Stop(step: internalError()))
            case .stopped(let access):
                return .failure(Stop(step: stopped(access, part.address, address, isWrite: isWrite)))
            case .memory(let backing) where backing.isReadOnly && isWrite || backing.isCiphertext:
                return .failure(Stop(step: internalError()))
            case .memory(let backing):
                _ = vm.model.kernel.noteGuestTouch(vm.number, at: address, isWrite: isWrite)
                if isWrite { vm.model.kernel.noteGuestWrite(vm.number, at: address) }
                guard let start = unsafe vm.bytes(in: backing, at: address) else {
                    return .failure(Stop(step: internalError()))
                }
                unsafe bytes.append(start, Int(part.size))
            }
        }
        return .success(bytes)
    }

    /// The data of a `KVM_EXIT_IO`, in the `kvm_run` page.
    private func ioData(_ size: Int) -> ElementBytes {
        var bytes = ElementBytes()
        unsafe bytes.append(page + Self.ioDataOffset, size)
        return bytes
    }
}

/// At most 4 bytes of host memory, in at most two pieces, as a little-endian number.
@safe private struct ElementBytes {
    private var pieces: [UnsafeMutableRawBufferPointer] = unsafe []

    mutating func append(_ start: UnsafeMutableRawPointer, _ count: Int) {
        unsafe pieces.append(UnsafeMutableRawBufferPointer(start: start, count: count))
    }

    var value: UInt64 {
        get { unsafe pieces.joined().reversed().reduce(0) { $0 << 8 | UInt64($1) } }
        nonmutating set {
            var rest = newValue
            for number in unsafe pieces.indices {
                let piece = unsafe pieces[number]
                for index in piece.indices {
                    unsafe piece[index] = UInt8(truncatingIfNeeded: rest)
                    rest >>= 8
                }
            }
        }
    }
}
