// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import Synchronization
import SystemPackage

/// The parts of `KVM_SET_GUEST_DEBUG` that work on a backend. No capability reports them.
struct DebugFacts: Equatable, Sendable {
    /// Debug registers stop the guest at an address in ring 0.
    var stopsAtAddresses = true
    /// Debug registers stop the guest after a write, wherever they stop it at all.
    var watchesData = true
    /// Single steps stop the guest in ring 0.
    var steps = true
    /// Something stops the guest in ring 3. Otherwise even a step ends it there.
    var stopsInRing3 = true
}

extension DebugFacts {
    /// The bits of hits that tell of single steps.
    static let (step, stepInRing3): (UInt64, UInt64) = (1 << 4, 1 << 5)

    /// - Parameter hits: the breakpoints of ``DebugProbe`` that have stopped the guest, one bit each, and its steps.
    init(hits: UInt64) {
        func hasHit(_ number: UInt64) -> Bool { hits & 1 << number != 0 }
        stopsAtAddresses = hasHit(0)
        // Not tried where registers work: a step is needed to pass a breakpoint, so that KVM has both.
        steps = hasHit(0) || hits & Self.step != 0
        stopsInRing3 = hasHit(2) || hits & Self.stepInRing3 != 0
        watchesData = hasHit(1) && (hasHit(3) || !hasHit(2))
    }
}

/// Finds out by trial what `KVM_SET_GUEST_DEBUG` can do. A KVM that interprets ring 0 watches no data there, and kvm-pvm, which runs
/// ring 3 without the hardware's virtualization, stops nothing there. On QEMU's emulated AMD CPU VMRUN loads DR7 without
/// effect, and INT3 is not intercepted as an exception; single steps work.
final class DebugProbe: ExitObserver {
    /// The registers that have stopped the guest, one bit each.
    private let hits = Mutex<UInt64>(0)
    /// The last setting of the vCPU; nil before it is entered. KVM must be asked before each step.
    private let request = Mutex<ckvm_guest_debug?>(nil)

    private init() {}

    /// Writes to the stack in ring 0, makes the page tables accessible to ring 3, and writes to another stack there:
    ///
    ///         push %rax; pop %rax                           # in ring 0
    ///         mov %cr3, %rdi; mov $4096, %ecx
    ///     1:  cmpq $0, (%rdi); je 2f; orq $4, (%rdi)
    ///     2:  add $8, %rdi; dec %ecx; jnz 1b
    ///         mov %cr3, %rax; mov %rax, %cr3; lgdt gdtr(%rip)
    ///         lea -0x800(%rsp), %rax                        # the other stack
    ///         out %al, $0x80
    ///         push $0x23; push %rax; push $0x3002; push $0x1b; lea user(%rip), %rax; push %rax; iretq
    ///     user: push %rax; out %al, $0xf4                   # in ring 3, with IOPL 3
    ///     gdtr: .word 39; .quad gdt
    ///     gdt:  code and data of ring 0, code and data of ring 3
    private static let code: [UInt8] = [
        0x50, 0x58, 0x0f, 0x20, 0xdf, 0xb9, 0x00, 0x10, 0x00, 0x00, 0x48, 0x83, 0x3f, 0x00, 0x74, 0x04,
        0x48, 0x83, 0x0f, 0x04, 0x48, 0x83, 0xc7, 0x08, 0xff, 0xc9, 0x75, 0xee, 0x0f, 0x20, 0xd8, 0x0f,
        0x22, 0xd8, 0x0f, 0x01, 0x15, 0x21, 0x00, 0x00, 0x00, 0x48, 0x8d, 0x84, 0x24, 0x00, 0xf8, 0xff,
        0xff, 0xe6, 0x80, 0x6a, 0x23, 0x50, 0x68, 0x02, 0x30, 0x00, 0x00, 0x6a, 0x1b, 0x48, 0x8d, 0x05,
        0x03, 0x00, 0x00, 0x00, 0x50, 0x48, 0xcf, 0x50, 0xe6, 0xf4, 0x27, 0x00, 0x54, 0x00, 0x10, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0x00, 0x00,
        0x00, 0x9b, 0xaf, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0x93, 0xcf, 0x00, 0xff, 0xff, 0x00, 0x00,
        0x00, 0xfb, 0xaf, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0xf3, 0xcf, 0x00,
    ]
    /// Offset of `user`.
    private static let user: UInt64 = 0x47
    /// The port by which the guest says that few instructions are left.
    private static let port: UInt16 = 0x80
    /// Distance of the two stacks, bytes.
    private static let stackDistance: UInt64 = 0x800

    /// Runs that guest on the backend, with aliases like those of the guest that is debugged.
    static func facts(of backend: any Backend, like configuration: MachineConfiguration) -> DebugFacts {
        let probe = DebugProbe()
        var small = MachineConfiguration()
        small.aliases = configuration.aliases
        small.contents = configuration.contents
        small.hypercallInstruction = configuration.hypercallInstruction
        small.ramSize = 4 << 20
        guard let image = try? BootImage.flat(code),
            let machine = try? Machine(
                backend: backend, configuration: small, image: image, console: Console(nil), observer: probe)
        else {
            // Nothing is known. Steps are what every KVM has.
            return DebugFacts(hits: DebugFacts.step)
        }
        _ = machine.run(timeout: .seconds(60))
        return DebugFacts(hits: probe.hits.withLock { $0 })
    }

    /// The breakpoints: an address and a write in ring 0, then in ring 3.
    private func breakpoints(_ vcpu: any KVMVCPU) -> [Breakpoint] {
        guard let registers = try? vcpu.registers() else { return [] }
        let (first, stack) = (registers.rip, registers.rsp)
        return [
            Breakpoint(kind: .hardware, address: first, size: 1),
            Breakpoint(kind: .write, address: stack &- 8, size: 8),
            Breakpoint(kind: .hardware, address: first &+ Self.user, size: 1),
            Breakpoint(kind: .write, address: stack &- Self.stackDistance &- 8, size: 8),
        ]
    }

    func mayEnter(_ vcpu: any KVMVCPU, _ machine: Machine) -> Bool {
        request.withLock { request in
            if let request, request.control & CKVM_GUESTDBG_SINGLESTEP != 0 {
                try? vcpu.setGuestDebug(request)
            }
            guard request == nil else { return }
            request = (try? BreakpointPlan(breakpoints(vcpu)))?.request(isStep: false)
            if let request { try? vcpu.setGuestDebug(request) }
        }
        return true
    }

    func left(_ exit: Exit, _ vcpu: any KVMVCPU, _ machine: Machine) {
        if case .io(let io) = exit, io.port == Self.port { return stepIfNothingStops(vcpu) }
        guard case .debug(let debug) = exit else { return }
        if request.withLock({ $0?.control ?? 0 }) & CKVM_GUESTDBG_SINGLESTEP != 0 {
            let isUser = (try? vcpu.specialRegisters())?.cs.dpl == 3
            return hits.withLock { $0 |= isUser ? DebugFacts.stepInRing3 : DebugFacts.step }
        }
        hits.withLock { $0 |= debug.dr6 & 15 }
        // An address stops the guest until its breakpoint is gone.
        request.withLock { request in
            guard var changed = request else { return }
            for number in [0, 2] as [UInt64] where debug.dr6 & 1 << number != 0 {
                changed.debugreg.7 &= ~(3 << (2 * number))
            }
            try? vcpu.setGuestDebug(changed)
            request = changed
        }
    }

    /// Steps through the rest of the guest if the first breakpoint has not stopped it.
    private func stepIfNothingStops(_ vcpu: any KVMVCPU) {
        guard hits.withLock({ $0 }) & 1 == 0 else { return }
        request.withLock { request in
            var stepping = ckvm_guest_debug()
            stepping.control = CKVM_GUESTDBG_ENABLE | CKVM_GUESTDBG_SINGLESTEP
            // The vCPU goes on from this exit without a further question.
            try? vcpu.setGuestDebug(stepping)
            request = stepping
        }
    }
}
