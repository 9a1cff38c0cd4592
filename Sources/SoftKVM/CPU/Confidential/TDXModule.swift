// SPDX-License-Identifier: MIT
import CKVMShim
import ConversionModel
import MiniVMM
import SystemPackage

/// A request of a TDX guest (TDG.VP.VMCALL) that waits for the monitor.
enum TDXRequest {
    case portOut
    case portIn(size: Int)
    case mmio(size: Int, isWrite: Bool)
    case halt
    case mapGPA(MapGPA)
}

/// A MapGPA while it goes on: KVM exits once for 2 MiB.
struct MapGPA {
    static let chunk: UInt64 = 2 << 20

    /// Guest-physical, without the shared bit.
    var next: UInt64
    let end: UInt64
    let isPrivate: Bool

    var size: UInt64 { min(Self.chunk, end - next) }
}

// TDCALL: the leaves of the TDX module for a guest. On every other CPU it is #UD.
extension SoftVCPU {
    private enum Status {
        static let operandInvalid: UInt64 = 0xc000_0100 << 32
        static let alreadyAccepted: UInt64 = 0x0000_0b0a << 32
        static let sizeMismatch: UInt64 = 0xc000_0b0b << 32
        static let noInformation: UInt64 = 0xc000_0704 << 32
    }

    /// R10 of the answer to a request.
    private enum Answer {
        static let done: UInt64 = 0
        static let retry: UInt64 = 1
        static let invalid: UInt64 = 1 << 63
        static let alignment: UInt64 = 1 << 63 | 2
        static let unsupported: UInt64 = 1 << 63 | 3
    }

    func callModule(_ instruction: PrivilegedInstruction) -> Step {
        guard vm.type == .tdx else { return invalidOpcode() }
        guard currentRing == 0 else { return generalProtection() }
        let (rip, length) = (registersNow.rip, instruction.length)
        func done(_ status: UInt64) -> Step {
            registersNow.rax = status
            registersNow.rip = rip &+ length
            return .proceed
        }
        // Bits 16 to 23 are the version, which is 0; the rest is reserved. An unknown leaf names operand 0, which is RAX.
        guard registersNow.rax <= 0xffff else { return done(Status.operandInvalid) }
        switch registersNow.rax {
        case 0: return requestOfHypervisor(rip, length)
        case 1:
            let noVE: UInt64 = 1 << 28
            registersNow.rcx = 48
            registersNow.rdx = vm.model.kernel.raisesVE(vm.number) ? 0 : noVE
            registersNow.r8 = UInt64(KernelModel.vcpuLimit) << 32 | 1
            registersNow.r9 = UInt64(id)
            registersNow.r10 = 0
            registersNow.r11 = 0
            return done(0)
        case 3:
            guard let information = virtualization else { return done(Status.noInformation) }
            virtualization = nil
            registersNow.rcx = information.reason
            registersNow.rdx = information.qualification
            registersNow.r8 = information.linear
            registersNow.r9 = information.gpa
            registersNow.r10 = information.length
            return done(0)
        case 6: return acceptPage(rip, length)
        default: return done(Status.operandInvalid)
        }
    }

    /// TDG.MEM.PAGE.ACCEPT: RCX = the address, with the level in bits 0 to 2.
    private func acceptPage(_ rip: UInt64, _ length: UInt64) -> Step {
        let operand = registersNow.rcx
        let (level, address) = (operand & 7, operand & ~0xfff)
        let own = vm.encryptionBit?.mask ?? 0
        var status: UInt64 = 0
        if operand & 0xff8 != 0 || operand >> 52 != 0 || address & own != 0 || level > 1 {
            status = Status.operandInvalid | 1
        } else {
            let answer = vm.model.kernel.accept(vm.number, address, level == 1 ? .large : .small)
            vm.model.applyEffects()
            switch answer {
            case .done: break
            case .unchanged: status = Status.alreadyAccepted | level
            case .invalid: status = Status.operandInvalid | 1
            case .sizeMismatch: status = Status.sizeMismatch | 1
            // The TD exits, and the instruction runs again.
            case .stopped(let access): return stopped(access, 0, address, isWrite: true)
            }
        }
        registersNow.rax = status
        registersNow.rip = rip &+ length
        return .proceed
    }

    // MARK: TDG.VP.VMCALL

    private func requestOfHypervisor(_ rip: UInt64, _ length: UInt64) -> Step {
        func answer(_ value: UInt64, _ result: UInt64? = nil) -> Step {
            registersNow.rax = 0
            registersNow.r10 = value
            if let result { registersNow.r11 = result }
            registersNow.rip = rip &+ length
            return .proceed
        }
        func wait(for request: TDXRequest) -> Step {
            pending = .module(rip: rip, length: length, request)
            return .exit
        }
        // Other values of R10 are hypercalls of KVM, of which a TD has none here.
        guard registersNow.r10 == 0 else { return answer(Answer.unsupported) }
        let (r12, r13, r14, r15) = (registersNow.r12, registersNow.r13, registersNow.r14, registersNow.r15)
        switch registersNow.r11 {
        case 0x10001:
            switch mapRequest(start: r12, size: r13) {
            case .failure(let refusal): return answer(refusal.value, r12)
            case .success(let map):
                exitForMap(map)
                return wait(for: .mapGPA(map))
            }
        case 0x10003:
            unsafe page.assumingMemoryBound(to: ckvm_run.self).pointee.system_event.type = Self.fatalEvent
            runPage.exitReason = CKVM_EXIT_SYSTEM_EVENT
            registersNow.rip = rip &+ length
            return .exit
        case 10:
            let answered = cpuid(r12, r13)
            registersNow.r12 = UInt64(answered.eax)
            registersNow.r13 = UInt64(answered.ebx)
            registersNow.r14 = UInt64(answered.ecx)
            registersNow.r15 = UInt64(answered.edx)
            return answer(Answer.done)
        case 12:
            runPage.exitReason = CKVM_EXIT_HLT
            return wait(for: .halt)
        case 30:
            guard [1, 2, 4].contains(r12), r13 <= 1, r14 <= 0xffff else { return answer(Answer.invalid) }
            exitForPort(size: Int(r12), isOut: r13 == 1, UInt16(truncatingIfNeeded: r14), r15)
            return wait(for: r13 == 1 ? .portOut : .portIn(size: Int(r12)))
        case 48:
            let own = vm.encryptionBit?.mask ?? 0
            guard [1, 2, 4, 8].contains(r12), r13 <= 1, r14 & own != 0 else { return answer(Answer.invalid) }
            runPage.exitReason = CKVM_EXIT_MMIO
            runPage.mmio = ckvm_run_mmio(gpa: r14 & ~own, size: Int(r12), writing: r13 == 1 ? r15 : nil)
            return wait(for: .mmio(size: Int(r12), isWrite: r13 == 1))
        default: return answer(Answer.unsupported)
        }
    }

    /// KVM_SYSTEM_EVENT_TDX_FATAL
    private static let fatalEvent: UInt32 = 7

    private struct Refusal: Error { let value: UInt64 }

    /// In KVM's order: the hypercall exit, the address, the alignment.
    private func mapRequest(start: UInt64, size: UInt64) -> Result<MapGPA, Refusal> {
        let own = vm.encryptionBit?.mask ?? 0
        guard vm.exitHypercalls & 1 << CKVM_HC_MAP_GPA_RANGE != 0 else {
            return .failure(Refusal(value: Answer.unsupported))
        }
        let (end, wraps) = start.addingReportingOverflow(size)
        guard !wraps, size > 0, end <= own << 1, start & own == (end - 1) & own else {
            return .failure(Refusal(value: Answer.invalid))
        }
        guard start % pageSize == 0, size % pageSize == 0 else {
            return .failure(Refusal(value: Answer.alignment))
        }
        let first = start & ~own
        return .success(MapGPA(next: first, end: first + size, isPrivate: start & own == 0))
    }

    private func exitForMap(_ map: MapGPA) {
        var hypercall = ckvm_run_hypercall()
        hypercall.nr = CKVM_HC_MAP_GPA_RANGE
        hypercall.args.0 = map.next
        hypercall.args.1 = map.size / pageSize
        hypercall.args.2 = map.isPrivate ? CKVM_MAP_GPA_RANGE_ENCRYPTED : 0
        hypercall.flags = 1  // KVM_EXIT_HYPERCALL_LONG_MODE
        runPage.exitReason = CKVM_EXIT_HYPERCALL
        runPage.hypercall = hypercall
    }

    private func exitForPort(size: Int, isOut: Bool, _ port: UInt16, _ value: UInt64) {
        var io = ckvm_run_io()
        io.direction = isOut ? CKVM_EXIT_IO_OUT : CKVM_EXIT_IO_IN
        io.size = UInt8(size)
        io.port = port
        io.count = 1
        io.data_offset = UInt64(Self.ioDataOffset)
        runPage.exitReason = CKVM_EXIT_IO
        runPage.io = io
        if isOut { unsafe page.storeBytes(of: value, toByteOffset: Self.ioDataOffset, as: UInt64.self) }
    }

    /// Continues after the monitor has done its part of a request.
    func complete(_ request: TDXRequest, rip: UInt64, length: UInt64) -> Step {
        var answer = Answer.done
        switch request {
        case .portOut, .halt: break
        case .portIn(let size):
            let value = unsafe page.loadUnaligned(fromByteOffset: Self.ioDataOffset, as: UInt64.self)
            registersNow.r11 = value & (1 << UInt64(size * 8) - 1)
        case .mmio(let size, let isWrite):
            let word = runPage.mmio.word
            if !isWrite { registersNow.r11 = size == 8 ? word : word & (1 << UInt64(size * 8) - 1) }
        case .mapGPA(var map):
            let shared = map.isPrivate ? 0 : vm.encryptionBit?.mask ?? 0
            do throws(ErrorNumber) {
                switch try vm.model.kernel.requestAnswer(runPage.hypercall.ret) {
                case .done:
                    map.next += map.size
                    guard map.next < map.end else { break }
                    exitForMap(map)
                    pending = .module(rip: rip, length: length, .mapGPA(map))
                    return .exit
                case .busy:
                    answer = Answer.retry
                    registersNow.r11 = map.next | shared
                case .refused:
                    answer = Answer.invalid
                    registersNow.r11 = map.next | shared
                }
            } catch {
                return .fail(Errno(error))
            }
        }
        registersNow.rax = 0
        registersNow.r10 = answer
        registersNow.rip = rip &+ length
        return .proceed
    }
}
