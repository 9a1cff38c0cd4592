// SPDX-License-Identifier: MIT
import CKVMShim
import CUnicornShim
import ConversionModel
import MiniVMM
import SystemPackage

// The parts of guest execution that the engine leaves to SoftKVM: memory that is not mapped yet, and privileged
// instructions.
extension SoftVCPU {
    /// The resolution of the part of an access that is in one page.
    enum Reach {
        case memory
        /// No memory: the guest-physical address of the first byte.
        case mmio(UInt64)
        /// SNP: the guest reads a private page as the host sees it. The bytes are in host memory as the guest sees them.
        case ciphertext(gpa: UInt64, KernelModel.Backing)
        case stop(Step)
    }

    /// Handles an access that no region allows: maps the memory if that is allowed, or exits.
    func serve(_ access: cuc_access, _ engine: Engine) -> Step {
        let kind = AccessKind(
            isWrite: access.is_write != 0, isFetch: access.is_fetch != 0,
            isUser: currentRing == 3 && !isOfDescriptor(access))
        var fragments: [MMIOFragment] = []
        var encrypted: [MMIOFragment] = []
        for part in access.parts {
            switch reach(part.address, kind, engine) {
            case .memory: continue
            case .stop(let step): return step
            case .ciphertext(let gpa, let backing):
                var fragment = MMIOFragment(part, gpa: gpa, isWrite: false)
                fragment.data = vm.model.ciphertext(backing, at: gpa, count: fragment.size)
                encrypted.append(fragment)
            case .mmio(let gpa):
                guard !kind.isFetch else { return internalError() }
                fragments.append(MMIOFragment(part, gpa: gpa, isWrite: kind.isWrite))
            }
        }
        if fragments.isEmpty, encrypted.isEmpty { return .proceed }
        return begin(fragments, knowing: encrypted, engine)
    }

    /// Maps the memory at one linear address, if there is memory and the access is allowed.
    ///
    /// - Parameter scratch: linear pages that hold answers of the monitor and must stay mapped.
    func reach(
        _ linear: UInt64, _ kind: AccessKind, _ engine: Engine, besides scratch: [UInt64] = []
    ) -> Reach {
        let leaf: GuestPage
        do {
            leaf = try vm.walk(linear, kind, special)
        } catch {
            return .stop(walkFailed(error, linear, kind))
        }
        let address = leaf.gpa + (linear - leaf.linear)
        switch vm.resolve(address, isWrite: kind.isWrite) {
        case .stopped(.mmio) where vm.encryptionBit == nil: return .mmio(vm.withoutSharedBit(address))
        case .stopped(let access): return .stop(stopped(access, linear, address, isWrite: kind.isWrite))
        case .memory(let backing) where backing.isReadOnly && kind.isWrite: return .mmio(address)
        case .memory(let backing) where backing.isCiphertext:
            return .ciphertext(gpa: vm.withoutSharedBit(address), backing)
        case .memory(let backing):
            guard
                let region = region(
                    around: linear, leaf, backing, isForUser: kind.isUser, besides: scratch)
            else { return .stop(internalError()) }
            let isMapped = engine.map(
                region, writable: leaf.writable && !backing.isReadOnly, executable: leaf.executable)
            // If mapping failed because the process is gone, the next run reports the reason.
            return isMapped || engine.failure == nil ? .memory : .stop(internalError())
        }
    }

    /// The exit or exception if a linear address does not resolve.
    func walkFailed(_ failure: WalkFailure, _ linear: UInt64, _ kind: AccessKind) -> Step {
        switch failure {
        case .nonCanonical: return generalProtection()
        case .pageFault(var code):
            if kind.isWrite { code.insert(.write) }
            if kind.isUser { code.insert(.user) }
            if kind.isFetch, special.efer & 1 << 11 != 0 { code.insert(.fetch) }
            special.cr2 = linear
            return raise(CPUException(CPUException.pageFault, errorCode: code.rawValue, address: linear))
        case .fault(let fault): return memoryFault(fault)
        case .raised(let exception, let gpa):
            return stopped(.exception(exception), linear, gpa, isWrite: kind.isWrite)
        case .failed(let error): return .fail(Errno(error))
        }
    }

    /// The largest region around an address that can be mapped at once: within one run of the second stage, one
    /// page of the guest's tables and one block of the engine.
    private func region(
        around linear: UInt64, _ leaf: GuestPage, _ backing: KernelModel.Backing, isForUser: Bool,
        besides scratch: [UInt64]
    ) -> Engine.Region? {
        // An aligned block of at most the size of the shared bit lies in one alias.
        let block = min(Engine.largestRegion, leaf.size, vm.sharedBit.map { 1 << $0 } ?? .max)
        let start = linear & ~(block - 1)
        let gpa = vm.withoutSharedBit(leaf.gpa + (start - leaf.linear))
        guard let all = PageRange(start: gpa, size: block), let part = all.intersection(backing.pages) else {
            return nil
        }
        // Offsets in the block cannot wrap, not even in the last block of the address space.
        let first = part.start - gpa
        let here = linear - start
        func offset(of page: UInt64) -> UInt64? { page >= start && page - start < block ? page - start : nil }
        let others = scratch.compactMap(offset)
        let low = others.filter { $0 < here }.map { $0 + pageSize }.reduce(first, max)
        let high = others.filter { $0 > here }.reduce(first + part.size, min)
        guard low < high, let memory = vm.model.memory(of: backing.file) else { return nil }
        return Engine.Region(
            linear: LinearRange(start: start + low, size: high - low), gpa: gpa + low, memory: memory,
            fileOffset: backing.fileOffset + (gpa + low - backing.pages.start), isForUser: isForUser)
    }

    // MARK: privileged instructions

    func doPrivileged(_ engine: Engine) -> Step {
        guard let instruction = PrivilegedInstruction(codeAtRIP(), bits: special.codeBits) else {
            return invalidOpcode()
        }
        switch instruction.operation {
        case .validatePage: return validatePage(instruction)
        case .adjustPage: return adjustPage(instruction)
        case .exitToHypervisor: return exitToHypervisor(instruction)
        case .callModule: return callModule(instruction)
        default: break
        }
        if let step = interceptedByGuest(instruction) { return step }
        if case .port = instruction.operation { return doPort(instruction, engine) }
        // VMCALL returns a result in every ring, and CPUID and RDTSC are not privileged.
        switch instruction.operation {
        case .hypercall: return hypercallInstruction(instruction)
        case .cpuid, .readTimeStamp: break
        default: guard currentRing == 0 else { return generalProtection() }
        }
        switch instruction.operation {
        case .cpuid, .readMSR, .writeMSR, .controlRegister(isWrite: true, number: 0, general: _),
            .controlRegister(isWrite: true, number: 4, general: _),
            .controlRegister(isWrite: true, number: 8, general: _):
            if let failure = failedStepOver() { return failure }
        default: break
        }
        switch instruction.operation {
        case .halt:
            stepOver(instruction.length)
            runPage.exitReason = CKVM_EXIT_HLT
            return .exit
        case .controlRegister(let isWrite, let number, let general):
            guard [0, 2, 3, 4, 8].contains(number) else { return invalidOpcode() }
            guard moveControlRegister(isWrite: isWrite, number: number, general: general, engine) else {
                return generalProtection()
            }
        case .debugRegister(let isWrite, let number, let general):
            guard let number = debugRegister(number) else { return invalidOpcode() }
            guard moveDebugRegister(isWrite: isWrite, number: number, general: general) else {
                return generalProtection()
            }
        case .machineStatus(let general):
            guard writeMachineStatus(registersNow[general], engine) else { return generalProtection() }
        case .swapGSBase:
            guard special.codeBits == 64 else { return invalidOpcode() }
            storeSpecial()
            (special.gs.base, kernelGSBase) = (kernelGSBase, special.gs.base)
            specialChanged = true
        case .readMSR:
            guard let value = readMSR(UInt32(truncatingIfNeeded: registersNow.rcx)) else {
                return generalProtection()
            }
            setPair(value)
        case .writeMSR:
            let value = registersNow.rdx << 32 | registersNow.rax & 0xffff_ffff
            guard writeMSR(UInt32(truncatingIfNeeded: registersNow.rcx), value, engine) else {
                return generalProtection()
            }
        case .readTimeStamp(let withProcessor):
            setPair(vm.model.clock)
            if withProcessor { registersNow.rcx = 0 }
        case .cpuid:
            let answer = cpuid(registersNow.rax, registersNow.rcx)
            registersNow.rax = UInt64(answer.eax)
            registersNow.rbx = UInt64(answer.ebx)
            registersNow.rcx = UInt64(answer.ecx)
            registersNow.rdx = UInt64(answer.edx)
        case .invalidatePage: engine.flush()
        case .port, .hypercall, .validatePage, .adjustPage, .exitToHypervisor, .callModule:
            return invalidOpcode()
        }
        stepOver(instruction.length)
        return .proceed
    }

    /// Advances RIP by an instruction of `length` bytes.
    func stepOver(_ length: UInt64) {
        registersNow.rip = (registersNow.rip &+ length) & special.codeMask
    }

    /// The linear address of the instruction at RIP.
    var codeAddress: UInt64 {
        special.codeBits == 64 ? registersNow.rip : (special.cs.base &+ registersNow.rip) & 0xffff_ffff
    }

    /// The instructions that an SNP or TDX guest cannot execute: it gets #VC or #VE, and asks the hypervisor itself. Nil for all
    /// others.
    private func interceptedByGuest(_ instruction: PrivilegedInstruction) -> Step? {
        let reasons: (vc: UInt64, ve: UInt64)
        switch instruction.operation {
        case .port: reasons = (VCReason.port, 30)
        case .halt: reasons = (VCReason.halt, 12)
        case .hypercall: reasons = (VCReason.hypercall, 18)
        case .cpuid where vm.type == .snp: reasons = (VCReason.cpuid, 10)
        default: return nil
        }
        switch vm.type {
        case .snp: return raiseVC(reasons.vc)
        case .tdx: return raiseVE(VirtualizationInformation(reason: reasons.ve, length: instruction.length))
        case .default, .softwareProtected: return nil
        }
    }

    private func setPair(_ value: UInt64) {
        registersNow.rax = value & 0xffff_ffff
        registersNow.rdx = value >> 32
    }

    /// The bytes at RIP, up to the longest instruction. The engine has just fetched it, so they can be read.
    func codeAtRIP() -> [UInt8] {
        var fetch = cuc_access()
        fetch.address = codeAddress
        fetch.size = 15
        fetch.is_fetch = 1
        let kind = AccessKind(isWrite: false, isFetch: true, isUser: currentRing == 3)
        return fetch.parts.flatMap { part -> [UInt8] in
            guard let leaf = try? vm.walk(part.address, kind, special) else { return [] }
            let address = leaf.gpa + (part.address - leaf.linear)
            guard case .memory(let backing) = vm.resolve(address, isWrite: false),
                let bytes = unsafe vm.bytes(in: backing, at: address)
            else { return [] }
            return unsafe [UInt8](UnsafeRawBufferPointer(start: bytes, count: Int(part.size)))
        }
    }

    /// VMCALL and VMMCALL, as `kvm_emulate_hypercall` of KVM handles them.
    func hypercallInstruction(_ instruction: PrivilegedInstruction) -> Step {
        // Arguments have 64 bits only in 64-bit code.
        let isLong = special.codeBits == 64
        let mask: UInt64 = isLong ? .max : 0xffff_ffff
        let arguments = (
            gpa: registersNow.rbx & mask, pages: registersNow.rcx & mask, attributes: registersNow.rdx & mask
        )
        let number = registersNow.rax & mask
        func answer(_ value: Int64) -> Step {
            registersNow.rax = UInt64(bitPattern: value) & mask
            stepOver(instruction.length)
            return .proceed
        }
        guard currentRing == 0 else { return answer(KVMReturn.notPermitted) }
        guard number == CKVM_HC_MAP_GPA_RANGE, vm.exitHypercalls & 1 << number != 0 else {
            return answer(KVMReturn.noSuchCall)
        }
        let firstPage = arguments.gpa / pageSize
        let (_, wraps) = firstPage.addingReportingOverflow(arguments.pages)
        guard arguments.gpa % pageSize == 0, arguments.pages > 0, !wraps else {
            return answer(KVMReturn.invalidArgument)
        }
        var call = ckvm_run_hypercall()
        call.nr = number
        call.args.0 = arguments.gpa
        call.args.1 = arguments.pages
        call.args.2 = arguments.attributes
        call.flags = isLong ? 1 : 0  // KVM_EXIT_HYPERCALL_LONG_MODE
        runPage.exitReason = CKVM_EXIT_HYPERCALL
        runPage.hypercall = call
        pending = .hypercall(rip: registersNow.rip, length: instruction.length)
        return .exit
    }

    /// Results of hypercalls that KVM handles itself (linux/kvm_para.h).
    private enum KVMReturn {
        static let notPermitted: Int64 = -1
        static let invalidArgument: Int64 = -22
        static let noSuchCall: Int64 = -1000
    }
}

extension cuc_access {
    /// The access split at page boundaries, each part with its share of the value.
    var parts: [cuc_access] {
        let first = min(UInt64(size), pageSize - address % pageSize)
        guard first < UInt64(size) else { return [self] }
        var low = self
        low.size = UInt32(first)
        var high = self
        high.address = address &+ first
        high.size = size - UInt32(first)
        high.value = value >> (first * 8)
        return [low, high]
    }
}
