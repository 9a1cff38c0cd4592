// SPDX-License-Identifier: MIT
import CKVMShim
public import SystemPackage

/// A failed system call on a scratch VM.
public struct CallFailure: Error, Sendable, Equatable {
    /// The uAPI name, with the arguments that matter: `KVM_CREATE_VM(KVM_X86_SW_PROTECTED_VM)`.
    public let call: String
    /// The errno of the call.
    public let errno: Errno

    /// `call` is printed verbatim.
    public init(call: String, errno: Errno) {
        self.call = call
        self.errno = errno
    }
}

/// Finds out on scratch VMs which features a backend supports. Capability numbers alone do not count.
public struct BackendProbe: Sendable {
    /// One question and its answer.
    public struct Finding: Sendable {
        /// The result, for programs.
        public enum Verdict: String, Sendable {
            /// The backend supports it.
            case yes
            /// The backend does not support it, or the question could not be asked because something else is missing.
            case no
            /// The answer is not one that a known version gives, or the probe's guest did not finish.
            case unknown
        }
        /// A short key for programs.
        public let key: String
        /// The question in words, for a table: `a software-protected VM (type 1)`.
        public let question: String
        /// The result; ``answer`` is the evidence for it.
        public let verdict: Verdict
        /// The backend's answer.
        public let answer: String
        /// The consequence for guests on this backend.
        public let meaning: String
    }

    private let backend: any Backend

    /// Makes no system call. Each question creates its own scratch VMs and leaves none behind.
    public init(_ backend: any Backend) { self.backend = backend }

    /// Converts one page of a scratch VM with a memslot of two pages to private and back.
    ///
    /// - Returns: nil if that works, otherwise the call that failed and its errno.
    public func conversionFailure() -> CallFailure? {
        var call = "KVM_CREATE_VM(KVM_X86_SW_PROTECTED_VM)"
        do throws(Errno) {
            let vm = try backend.createVM(.softwareProtected, sharedBit: nil)
            call = "KVM_CREATE_GUEST_MEMFD(MMAP | INIT_SHARED)"
            let file = try vm.createGuestMemfd(size: 2 * pageSize, flags: [.mmap, .initShared])
            call = "mmap"
            let mapping = try file.map(offset: 0, length: 2 * pageSize)
            call = "KVM_SET_USER_MEMORY_REGION2"
            var slot = ckvm_userspace_memory_region2()
            slot.flags = CKVM_MEM_GUEST_MEMFD
            slot.memory_size = 2 * pageSize
            slot.userspace_addr = mapping.address
            slot.guest_memfd = UInt32(bitPattern: file.descriptor)
            try vm.setUserMemoryRegion2(slot)
            call = "KVM_SET_MEMORY_ATTRIBUTES2"
            for attributes in [CKVM_MEMORY_ATTRIBUTE_PRIVATE, 0] {
                var request = ckvm_memory_attributes2()
                request.size = pageSize
                request.attributes = attributes
                try file.convertInPlace(&request)
            }
            withExtendedLifetime(mapping) {}
            return nil
        } catch {
            return CallFailure(call: call, errno: error)
        }
    }

    /// `KVM_SET_MEMORY_ATTRIBUTES2` with size 0: `EINVAL` where it exists, `ENOTTY` where it does not.
    private func conversionIoctl(_ vm: any KVMVirtualMachine) -> Finding {
        let key = "in-place-conversion"
        let question = "KVM_SET_MEMORY_ATTRIBUTES2 on a guest_memfd"
        do throws(Errno) {
            let file = try vm.createGuestMemfd(size: pageSize, flags: [])
            var request = ckvm_memory_attributes2()
            do throws(Errno) {
                try file.setMemoryAttributes2(&request)
            } catch {
                switch error {
                case .inappropriateIOCTLForDevice
                where (file as? any FirstPostedGuestMemfd)?.hasFirstCall == true:
                    return Finding(
                        key: key, question: question, verdict: .no, answer: "ENOTTY",
                        meaning:
                            "this is RFC v1: its call has another number, which is used instead")
                case .inappropriateIOCTLForDevice:
                    return Finding(
                        key: key, question: question, verdict: .no, answer: "ENOTTY",
                        meaning:
                            "this kernel cannot convert in place (Linux 7.4 can); an adapter emulates the call"
                    )
                case .invalidArgument:
                    if let failure = conversionFailure() {
                        return Finding(
                            key: key, question: question, verdict: .no,
                            answer: "\(failure.call): \(failure.errno.name)",
                            meaning: "the call exists, but converting a page to private and back failed")
                    }
                    return Finding(
                        key: key, question: question, verdict: .yes, answer: "converted a page and back",
                        meaning: "conversions use the kernel's own call")
                default: break
                }
                return Finding(
                    key: key, question: question, verdict: .unknown, answer: error.name,
                    meaning: "no known version gives this answer for size 0")
            }
            return Finding(
                key: key, question: question, verdict: .unknown, answer: "size 0 was accepted",
                meaning: "no known version accepts that: this number is probably another call")
        } catch {
            return Finding(
                key: key, question: question, verdict: .no, answer: "no guest_memfd: \(error.name)",
                meaning: "there is no memory to convert")
        }
    }

    /// All findings about system calls, in the order of the report.
    public func findings() -> [Finding] {
        var findings: [Finding] = []
        let vm: any KVMVirtualMachine
        do throws(Errno) {
            vm = try backend.createVM(.default, sharedBit: nil)
        } catch {
            return [
                Finding(
                    key: "create-vm", question: "KVM_CREATE_VM", verdict: .no, answer: error.name,
                    meaning: "guests cannot run here")
            ]
        }
        findings.append(
            Finding(
                key: "create-vm", question: "KVM_CREATE_VM", verdict: .yes, answer: "created a VM",
                meaning: "guests can be built"))
        findings.append(softwareProtected())
        findings.append(guestMemfd(vm))
        let protected = try? backend.createVM(.softwareProtected, sharedBit: nil)
        findings.append(conversionIoctl(protected ?? vm))
        findings.append(contentModes(protected ?? vm))
        findings.append(perVMAttributes())
        return findings
    }

    /// Whether the call has flags for the contents, found out with a scratch file.
    private func contentModes(_ vm: any KVMVirtualMachine) -> Finding {
        func finding(_ verdict: Finding.Verdict, _ answer: String, _ meaning: String) -> Finding {
            Finding(
                key: "content-modes", question: "content flags on that call (posted versions RFC v3 to v5)",
                verdict: verdict, answer: answer, meaning: meaning)
        }
        guard let scratch = try? vm.createGuestMemfd(size: pageSize, flags: []) else {
            return finding(.no, "no guest_memfd to try it on", "there is no memory to convert")
        }
        let promise = ContentPromise.discovered(on: scratch, otherwise: .lost)
        guard promise != .lost else {
            return finding(.no, "not supported", "what happens to contents depends on the VM type")
        }
        let kept = [("private", promise.toPrivate), ("shared", promise.toShared)].filter { $0.1.canPreserve }
        return finding(
            .yes,
            kept.isEmpty ? "ZERO" : "ZERO, and PRESERVE to " + kept.map(\.0).joined(separator: " and to "),
            "without a flag the contents are overwritten, so MiniVMM passes one to preserve or zero them")
    }

    private func softwareProtected() -> Finding {
        let key = "sw-protected-vm"
        let question = "a software-protected VM (type 1)"
        do throws(Errno) {
            _ = try backend.createVM(.softwareProtected, sharedBit: nil)
            return Finding(
                key: key, question: question, verdict: .yes, answer: "created one",
                meaning: "guests have private memory, without hardware protection")
        } catch {
            return Finding(
                key: key, question: question, verdict: .no, answer: error.name,
                meaning: "no VM type with private memory (KVM_SW_PROTECTED_VM is off in this kernel)")
        }
    }

    private func guestMemfd(_ vm: any KVMVirtualMachine) -> Finding {
        let key = "guest-memfd"
        let question = "guest_memfd on a default VM"
        var accepted: [String] = []
        for (flags, name): (GuestMemfdFlags, String) in [
            ([], "0"), (.mmap, "MMAP"), (.initShared, "INIT_SHARED"),
            ([.mmap, .initShared], "MMAP | INIT_SHARED"),
        ] where (try? vm.createGuestMemfd(size: pageSize, flags: flags)) != nil {
            accepted.append(name)
        }
        guard !accepted.isEmpty else {
            return Finding(
                key: key, question: question, verdict: .no, answer: "refused with all flags",
                meaning: "guest RAM will be an ordinary memfd")
        }
        let mappable =
            (try? vm.createGuestMemfd(size: pageSize, flags: [.mmap, .initShared]))
            .map { (try? $0.map(offset: 0, length: pageSize)) != nil } ?? false
        return Finding(
            key: key, question: question, verdict: mappable ? .yes : .no,
            answer: "flags accepted: " + accepted.joined(separator: ", "),
            meaning: mappable
                ? "the host can map guest RAM and fill it in place"
                : "the host cannot map it, so guest RAM will be an ordinary memfd")
    }

    /// `KVM_SET_MEMORY_ATTRIBUTES` on a page of a scratch VM, to private and back.
    private func perVMAttributes() -> Finding {
        func finding(_ verdict: Finding.Verdict, _ answer: String, _ meaning: String) -> Finding {
            Finding(
                key: "per-vm-attributes", question: "KVM_SET_MEMORY_ATTRIBUTES on a VM (Linux 6.8 to 7.3)",
                verdict: verdict, answer: answer, meaning: meaning)
        }
        let none = "not needed here: it could not preserve contents anyway"
        let vm: any KVMVirtualMachine
        do throws(Errno) { vm = try backend.createVM(.softwareProtected, sharedBit: nil) } catch {
            return finding(.no, "no VM to try it on: \(error.name)", none)
        }
        guard let vm = vm as? any PerVMAttributes else { return finding(.no, "not available", none) }
        do throws(Errno) {
            for attributes in [CKVM_MEMORY_ATTRIBUTE_PRIVATE, 0] {
                try vm.setMemoryAttributes(
                    ckvm_memory_attributes(address: 0, size: pageSize, attributes: attributes, flags: 0))
            }
            return finding(
                .yes, "made a page private and shared again",
                "private and shared memory are in two places; a conversion loses the contents")
        } catch {
            return finding(.no, error.name, none)
        }
    }

    /// The answer of `KVM_CHECK_EXTENSION` on a VM, and what it would mean. A claim; the findings are the evidence.
    public struct CapabilityClaim: Sendable {
        /// The capability in question.
        public let capability: Capability
        /// The result of `KVM_CHECK_EXTENSION`; 0 also if it failed.
        public let value: Int
        /// The meaning of ``value``, in words.
        public let meaning: String
    }

    private static let meanings: [(Capability, String)] = [
        (.memslots, "most memslots of a VM; limits how finely an adapter can split RAM"),
        (.userMemory2, "a memslot can name a guest_memfd (6.8)"),
        (.guestMemfd, "guest RAM can be in a guest_memfd (6.8)"),
        (.guestMemfdFlags, "its flags: 1 = the host may mmap it, 2 = it may start shared (6.18)"),
        (.vmTypes, "a bit for each VM type; bit 1 = software-protected, with private memory"),
        (.memoryFaultInfo, "KVM_EXIT_MEMORY_FAULT reports the page and the kind of access"),
        (
            .memoryAttributes,
            "attributes that a VM can set by address: 8 = private, in a second backing (6.8 to 7.3)"
        ),
        (.guestMemfdMemoryAttributes, "attributes that a guest_memfd can set in place: 8 = private (7.4)"),
        (.exitHypercall, "hypercalls that reach the monitor; bit 12 = KVM_HC_MAP_GPA_RANGE"),
        (.preFaultMemory, "pages can be mapped before the guest touches them"),
    ]

    /// The capabilities that matter here, asked on a default VM; those about private memory on a VM that has it, if the
    /// backend has such a VM. Empty if no VM can be created.
    public func claims() -> [CapabilityClaim] {
        guard let vm = try? backend.createVM(.default, sharedBit: nil) else { return [] }
        let protected = try? backend.createVM(.softwareProtected, sharedBit: nil)
        return Self.meanings.map { capability, meaning in
            let isOfPrivateMemory = [.memoryAttributes, .guestMemfdMemoryAttributes].contains(capability)
            let asked = isOfPrivateMemory ? protected ?? vm : vm
            return CapabilityClaim(
                capability: capability, value: (try? asked.checkExtension(capability)) ?? 0, meaning: meaning)
        }
    }

    // MARK: what a guest can do

    /// Time limit for a guest of a few instructions, enough for a busy machine.
    private static let guestLimit = Duration.seconds(20)

    /// Boots a few instructions and returns how they ended.
    ///
    /// - Parameter timeout: real time; on some kernels some instructions never finish.
    private func run(
        _ code: [UInt8], timeout: Duration, _ change: (inout MachineConfiguration) -> Void
    ) -> (Outcome, RunStatistics) {
        var configuration = MachineConfiguration()
        configuration.ramSize = 4 << 20
        change(&configuration)
        do throws(MachineError) {
            let image: BootImage
            do throws(ImageError) { image = try BootImage.flat(code) } catch { throw .image(error) }
            let machine = try Machine(
                backend: backend, configuration: configuration, image: image, console: Console(nil))
            return (machine.run(timeout: timeout), machine.statistics)
        } catch {
            return (.failed(error), RunStatistics())
        }
    }

    /// Runs a guest that only exits.
    public func guestRuns() -> Finding {
        // mov $42, %al; out %al, $0xf4
        let (outcome, _) = run([0xb0, 42, 0xe6, 0xf4], timeout: Self.guestLimit) { _ in }
        if case .exited(42) = outcome {
            return Finding(
                key: "guest", question: "a guest in 64-bit mode", verdict: .yes, answer: "ran and exited",
                meaning: "payloads run")
        }
        return Finding(
            key: "guest", question: "a guest in 64-bit mode", verdict: .no, answer: outcome.description,
            meaning: "payloads do not run on this kernel")
    }

    /// Runs a guest that writes a byte, converts its page to shared and checks whether the byte is still there.
    public func contents() -> Finding {
        // mov 0x38(%rdi), %rbx; movb $42, (%rbx); mov $1, %ecx; mov $0x300, %edx; mov $12, %eax; out %eax, $0xe8;
        // mov (%rbx), %al; out %al, $0xf4
        let code: [UInt8] = [
            0x48, 0x8b, 0x5f, 0x38, 0xc6, 0x03, 42, 0xb9, 1, 0, 0, 0, 0xba, 0, 3, 0, 0, 0xb8, 12, 0, 0, 0,
            0xe7,
            0xe8, 0x8a, 0x03, 0xe6, 0xf4,
        ]
        let key = "contents"
        let question = "contents after a conversion"
        let (outcome, _) = run(code, timeout: Self.guestLimit) { _ in }
        switch outcome {
        case .exited(42):
            return Finding(
                key: key, question: question, verdict: .yes, answer: "a byte was preserved",
                meaning: "guests that convert pages with data in them run")
        case .exited(let byte):
            return Finding(
                key: key, question: question, verdict: .no,
                answer: byte == 0 ? "a byte became zero" : "a byte changed",
                meaning: "only guests that copy their data themselves run")
        default:
            return Finding(
                key: key, question: question, verdict: .unknown, answer: outcome.description,
                meaning: "the probe's guest ended before it could check")
        }
    }

    /// Runs a guest that reads its own page through the shared alias.
    public func twoAliases() -> Finding {
        // mov 0x18(%rdi), %rbx; mov 0x38(%rdi), %rcx; mov (%rbx,%rcx), %al; out %al, $0xf4
        let code: [UInt8] = [0x48, 0x8b, 0x5f, 0x18, 0x48, 0x8b, 0x4f, 0x38, 0x8a, 0x04, 0x0b, 0xe6, 0xf4]
        let (outcome, statistics) = run(code, timeout: Self.guestLimit) {
            $0.aliases = .two
            $0.contents = .unspecified
        }
        if case .exited(0) = outcome, statistics.conversions == 1 {
            return Finding(
                key: "two-aliases", question: "two aliases (implicit conversion)", verdict: .yes,
                answer: "an access through the shared alias was a memory fault, and then completed",
                meaning: "guests that convert memory by touching it run")
        }
        return Finding(
            key: "two-aliases", question: "two aliases (implicit conversion)", verdict: .no,
            answer: outcome.description, meaning: "only guests that convert by hypercall run")
    }

    /// Runs a guest that converts by VMMCALL or VMCALL.
    ///
    /// - Parameter timeout: real time; without support the call may never return.
    public func hypercallInstruction(timeout: Duration = .seconds(1)) -> Finding {
        let key = "hypercall-instruction"
        let hasVMMCALL = (try? backend.supportedCPUID())?.hasVMMCALL ?? true
        let question = "KVM_HC_MAP_GPA_RANGE by \(hasVMMCALL ? "VMMCALL" : "VMCALL")"
        // mov 0x38(%rdi), %rbx; mov $1, %ecx; mov $0x300, %edx; mov $12, %eax; vmmcall or vmcall; out %al, $0xf4
        let code: [UInt8] = [
            0x48, 0x8b, 0x5f, 0x38, 0xb9, 1, 0, 0, 0, 0xba, 0, 3, 0, 0, 0xb8, 12, 0, 0, 0, 0x0f, 0x01,
            hasVMMCALL ? 0xd9 : 0xc1, 0xe6, 0xf4,
        ]
        let (outcome, statistics) = run(code, timeout: timeout) { $0.hypercallInstruction = true }
        switch outcome {
        case .exited(0) where statistics.hypercalls == 1:
            return Finding(
                key: key, question: question, verdict: .yes, answer: "KVM_EXIT_HYPERCALL",
                meaning: "guests convert with the instruction, as on any confidential-VM host")
        case .timeLimit:
            return Finding(
                key: key, question: question, verdict: .no, answer: "never returned",
                meaning: "guests call through port 0xe8 instead, with the same registers")
        default:
            return Finding(
                key: key, question: question, verdict: .no, answer: outcome.description,
                meaning: "guests call through port 0xe8 instead, with the same registers")
        }
    }
}
