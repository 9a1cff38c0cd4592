// SPDX-License-Identifier: MIT
import CKVMShim
import ConversionModel
import MiniVMM
import SystemPackage

/// The guest-hypervisor communication block of SNP: a shared page, with the fields that this hypervisor uses. Every field is
/// read once, because the guest can change it at any time.
@safe struct GHCB {
    enum Field: Int {
        case rax = 0x1f8
        case rcx = 0x308
        case rdx = 0x310
        case rbx = 0x318
        case exitCode = 0x390
        case exitInfo1 = 0x398
        case exitInfo2 = 0x3a0
        case scratch = 0x3a8
    }

    /// Why a request is malformed: SW_EXITINFO2 of the answer, with SW_EXITINFO1 2.
    enum Malformed: UInt64, Error {
        case notRegistered = 1
        case usage = 2
        case scratchArea = 3
        case missingInput = 4
        case invalidInput = 5
        case invalidEvent = 6
    }

    /// The buffer inside the page, in which the scratch area must lie.
    static let buffer = 0x800..<0xff0
    private static let validBitmap = 0x3f0
    private static let usageAt = 0xffc

    /// Guest-physical address of the page.
    let gpa: UInt64
    private let page: UnsafeMutableRawPointer

    /// - Parameter page: the page in host memory, valid while the model's lock is held.
    init(gpa: UInt64, _ page: UnsafeMutableRawPointer) {
        self.gpa = gpa
        unsafe self.page = page
    }

    subscript(field: Field) -> UInt64 {
        get { unsafe page.loadUnaligned(fromByteOffset: field.rawValue, as: UInt64.self) }
        nonmutating set {
            unsafe page.storeBytes(of: newValue, toByteOffset: field.rawValue, as: UInt64.self)
            let bit = field.rawValue / 8
            let at = Self.validBitmap + bit / 8
            let old = unsafe page.load(fromByteOffset: at, as: UInt8.self)
            unsafe page.storeBytes(of: old | 1 << UInt8(bit % 8), toByteOffset: at, as: UInt8.self)
        }
    }

    /// - Throws: ``Malformed/missingInput`` if the guest has not marked a field as valid.
    func require(_ fields: Field...) throws(Malformed) {
        for field in fields {
            let bit = field.rawValue / 8
            let byte = unsafe page.load(fromByteOffset: Self.validBitmap + bit / 8, as: UInt8.self)
            guard byte & 1 << UInt8(bit % 8) != 0 else { throw .missingInput }
        }
    }

    var usage: UInt32 { unsafe page.loadUnaligned(fromByteOffset: Self.usageAt, as: UInt32.self) }

    /// Eight bytes of the buffer.
    func bufferWord(at offset: Int) -> UInt64 {
        unsafe page.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
    }
    func setBufferWord(at offset: Int, _ word: UInt64) {
        unsafe page.storeBytes(of: word, toByteOffset: offset, as: UInt64.self)
    }
    func setBufferBytes(at offset: Int, _ word: UInt64, count: Int) {
        for index in 0..<min(count, 8) {
            let byte = UInt8(truncatingIfNeeded: word >> UInt64(index * 8))
            unsafe page.storeBytes(of: byte, toByteOffset: offset + index, as: UInt8.self)
        }
    }
    func setBufferHalf(at offset: Int, _ half: UInt16) {
        unsafe page.storeBytes(of: half, toByteOffset: offset, as: UInt16.self)
    }

    /// Answers the request.
    func answer(_ info1: UInt64, _ info2: UInt64) {
        self[.exitInfo1] = info1
        self[.exitInfo2] = info2
    }
}

/// A request of an SNP guest that waits for the monitor.
enum GHCBRequest {
    /// An OUT, or an IN of this many bytes.
    case portOut
    case portIn(size: Int)
    /// An access to a device, of this many bytes, whose data is at this offset in the page.
    case mmio(offset: Int, size: Int, isWrite: Bool)
    /// A page state change by the GHCB page.
    case pageState(PageStateChange)
    /// A page state change of one page by the MSR.
    case pageStateOfMSR
    case halt
}

// VMGEXIT: requests by MSR C001_0130, or by the page that it names.
extension SoftVCPU {
    static let ghcbMSR: UInt32 = 0xc001_0130

    /// The value that KVM presets: the answer to a request for SEV information.
    static let initialGHCB: UInt64 = sevInformation

    /// Versions 2 to 2 of the protocol, and the C-bit's position.
    private static let sevInformation: UInt64 = 2 << 48 | 2 << 32 | 51 << 24 | 0x001

    func exitToHypervisor(_ instruction: PrivilegedInstruction) -> Step {
        guard vm.type == .snp else { return hypercallInstruction(instruction) }
        guard currentRing == 0 else { return generalProtection() }
        let (rip, length) = (registersNow.rip, instruction.length)
        if ghcb & 0xfff != 0 { return requestByMSR(rip, length) }
        guard ghcb == registeredGHCB else { return .fail(.invalidArgument) }
        // A page that the host cannot map is ignored, as in KVM: the guest just goes on.
        guard let page = ghcbPage() else {
            registersNow.rip &+= length
            return .proceed
        }
        do throws(GHCB.Malformed) {
            guard let request = try request(page) else {
                registersNow.rip &+= length
                return .proceed
            }
            pending = .ghcb(rip: rip, length: length, request)
            return .exit
        } catch {
            page.answer(2, error.rawValue)
            registersNow.rip &+= length
            return .proceed
        }
    }

    /// The GHCB in host memory; nil if its page is private or has no memory.
    func ghcbPage() -> GHCB? {
        guard let bit = vm.sharedBit else { return nil }
        let address = ghcb & ~(pageSize - 1)
        guard address < 1 << UInt64(bit), case let shared = address | 1 << UInt64(bit),
            case .memory(let backing) = vm.resolve(shared, isWrite: true), !backing.isCiphertext,
            let bytes = unsafe vm.bytes(in: backing, at: shared)
        else { return nil }
        return unsafe GHCB(gpa: address, bytes)
    }

    /// - Returns: what the monitor has to do, which is in the run page; nil if the request is answered.
    private func request(_ page: GHCB) throws(GHCB.Malformed) -> GHCBRequest? {
        guard page.usage == 0 else { throw .usage }
        try page.require(.exitCode, .exitInfo1, .exitInfo2)
        let (info1, info2) = (page[.exitInfo1], page[.exitInfo2])
        switch page[.exitCode] {
        case VCReason.cpuid:
            try page.require(.rax, .rcx)
            let answer = cpuid(page[.rax], page[.rcx])
            page[.rax] = UInt64(answer.eax)
            page[.rbx] = UInt64(answer.ebx)
            page[.rcx] = UInt64(answer.ecx)
            page[.rdx] = UInt64(answer.edx)
        case VCReason.port: return try port(page, info1)
        case VCReason.halt:
            runPage.exitReason = CKVM_EXIT_HLT
            return .halt
        case 0x8000_0001, 0x8000_0002:
            return try mmio(page, gpa: info1, size: info2, page[.exitCode] == 0x8000_0002)
        case 0x8000_0010:
            try page.require(.scratch)
            var change = try PageStateChange(page, shrinks: vm.shrinksLists)
            guard let call = change.next(page) else {
                page.answer(0, change.status)
                return nil
            }
            exitForState(call)
            return .pageState(change)
        default: throw .invalidEvent
        }
        page.answer(0, 0)
        return nil
    }

    /// Bits of SW_EXITINFO1 of an IOIO intercept.
    private func port(_ page: GHCB, _ info: UInt64) throws(GHCB.Malformed) -> GHCBRequest {
        let (isIn, isString) = (info & 1 != 0, info & 4 != 0)
        let size = Int(info >> 4 & 7)
        // String transfers would need the buffer; no guest here makes them.
        guard !isString, [1, 2, 4].contains(size) else { throw .invalidInput }
        var io = ckvm_run_io()
        io.direction = isIn ? CKVM_EXIT_IO_IN : CKVM_EXIT_IO_OUT
        io.size = UInt8(size)
        io.port = UInt16(truncatingIfNeeded: info >> 16)
        io.count = 1
        io.data_offset = UInt64(Self.ioDataOffset)
        if !isIn { try page.require(.rax) }
        runPage.exitReason = CKVM_EXIT_IO
        runPage.io = io
        if !isIn {
            unsafe self.page.storeBytes(of: page[.rax], toByteOffset: Self.ioDataOffset, as: UInt64.self)
        }
        return isIn ? .portIn(size: size) : .portOut
    }

    private func mmio(
        _ page: GHCB, gpa: UInt64, size: UInt64, _ isWrite: Bool
    ) throws(GHCB.Malformed) -> GHCBRequest {
        try page.require(.scratch)
        guard [1, 2, 4, 8].contains(size) else { throw .invalidInput }
        let offset = try Self.bufferOffset(page, page[.scratch], Int(size))
        runPage.exitReason = CKVM_EXIT_MMIO
        runPage.mmio = ckvm_run_mmio(
            gpa: gpa, size: Int(size), writing: isWrite ? page.bufferWord(at: offset) : nil)
        return .mmio(offset: offset, size: Int(size), isWrite: isWrite)
    }

    /// The offset in the page of `size` bytes of the scratch area, all of which must lie in the buffer.
    static func bufferOffset(_ page: GHCB, _ scratch: UInt64, _ size: Int) throws(GHCB.Malformed) -> Int {
        let offset = scratch &- page.gpa
        guard offset >= UInt64(GHCB.buffer.lowerBound), offset < UInt64(GHCB.buffer.upperBound),
            size <= GHCB.buffer.upperBound - Int(offset)
        else { throw .scratchArea }
        return Int(offset)
    }

    private func exitForState(_ call: PageStateChange.Call) {
        var hypercall = ckvm_run_hypercall()
        hypercall.nr = CKVM_HC_MAP_GPA_RANGE
        hypercall.args.0 = call.gpa
        hypercall.args.1 = call.pages
        hypercall.args.2 = (call.isPrivate ? CKVM_MAP_GPA_RANGE_ENCRYPTED : 0) | (call.isLarge ? 1 : 0)
        hypercall.flags = 1  // KVM_EXIT_HYPERCALL_LONG_MODE
        runPage.exitReason = CKVM_EXIT_HYPERCALL
        runPage.hypercall = hypercall
    }

    // MARK: by the MSR

    private func requestByMSR(_ rip: UInt64, _ length: UInt64) -> Step {
        let data = ghcb >> 12
        switch ghcb & 0xfff {
        case 0x002: ghcb = Self.sevInformation
        case 0x012:
            registeredGHCB = data << 12
            ghcb = data << 12 | 0x013
        case 0x014:
            let operation = data >> 40 & 0xf
            guard operation == 1 || operation == 2, vm.exitHypercalls & 1 << CKVM_HC_MAP_GPA_RANGE != 0 else {
                ghcb = Self.stateAnswer(isRefused: true)
                break
            }
            exitForState(
                PageStateChange.Call(
                    gpa: (data & (1 << 40 - 1)) << 12, pages: 1, isPrivate: operation == 1, isLarge: false))
            pending = .ghcb(rip: rip, length: length, .pageStateOfMSR)
            return .exit
        // SNP, without AP creation.
        case 0x080: ghcb = 1 << 12 | 0x081
        case 0x100:
            unsafe page.assumingMemoryBound(to: ckvm_run.self).pointee.system_event.type =
                Self.terminationEvent
            runPage.exitReason = CKVM_EXIT_SYSTEM_EVENT
            return .exit
        // The documents leave other requests open; KVM refuses them.
        default: return .fail(.invalidArgument)
        }
        registersNow.rip = rip &+ length
        return .proceed
    }

    /// KVM_SYSTEM_EVENT_SEV_TERM
    private static let terminationEvent: UInt32 = 6

    private static func stateAnswer(isRefused: Bool) -> UInt64 { 0x015 | (isRefused ? 1 << 63 : 0) }

    // MARK: completion

    /// Continues after the monitor has done its part of a request.
    func complete(_ request: GHCBRequest, rip: UInt64, length: UInt64) -> Step {
        var isDone = true
        switch request {
        case .pageState, .pageStateOfMSR:
            do throws(ErrorNumber) {
                isDone = try vm.model.kernel.requestAnswer(runPage.hypercall.ret) == .done
            } catch {
                return .fail(Errno(error))
            }
        default: break
        }
        if case .pageStateOfMSR = request {
            ghcb = Self.stateAnswer(isRefused: !isDone)
            registersNow.rip = rip &+ length
            return .proceed
        }
        // The guest may have made the page private meanwhile.
        guard let page = ghcbPage() else {
            registersNow.rip = rip &+ length
            return .proceed
        }
        switch request {
        case .portOut, .halt, .pageStateOfMSR: page.answer(0, 0)
        case .portIn(let size):
            let value = unsafe self.page.loadUnaligned(fromByteOffset: Self.ioDataOffset, as: UInt64.self)
            page[.rax] = value & (1 << UInt64(size * 8) - 1)
            page.answer(0, 0)
        case .mmio(let offset, let size, let isWrite):
            if !isWrite { page.setBufferBytes(at: offset, runPage.mmio.word, count: size) }
            page.answer(0, 0)
        case .pageState(var change):
            change.completed(page, isDone)
            if isDone, let call = change.next(page) {
                exitForState(call)
                pending = .ghcb(rip: rip, length: length, .pageState(change))
                return .exit
            }
            page.answer(0, change.status)
        }
        registersNow.rip = rip &+ length
        return .proceed
    }
}
