import ArgumentParser
import Explain
import MiniVMM
import SoftKVM
import SystemPackage

/// `--kernel`.
enum KernelName: String, ExpressibleByArgument, CaseIterable {
    case auto
    case linux
    case perVMAttributes = "per-vm-attributes"
    case memslotTrap = "memslot-trap"
    case soft
}

/// A kernel, and why it is the one.
struct ChosenKernel {
    let kernel: any KVMInterface
    let name: KernelName
    /// Nil if it was asked for.
    let because: String?

    var reason: String { because ?? "asked for" }
}

/// No kernel can be had under the name asked for.
struct KernelError: Error, CustomStringConvertible {
    let description: String
    /// What it means, and what to do about it.
    let diagnosis: Diagnosis
    /// The host has no more of something: what the kernel can do is not known.
    var isHostLimit = false
}

extension KernelError {
    /// A call on a scratch VM that failed.
    init(_ failure: (call: String, errno: Errno)) {
        self.init(
            description: "a scratch VM could not be tried (\(failure.call): \(failure.errno.name))",
            diagnosis: MachineError.kernel(
                call: failure.call, errno: failure.errno, attempted: "a scratch VM", hint: nil
            ).diagnosis, isHostLimit: failure.errno.isHostLimit)
    }
}

/// What is asked of a kernel besides running guests.
struct KernelNeeds {
    var doors = Doors.one
    /// Conversions must be able to preserve contents.
    var preservation = false
    /// What the software kernel is to be.
    var soft = SoftKVM.Configuration()
}

extension KernelName {
    /// Opens the kernel; `auto` takes the most real one that a scratch VM shows to work.
    func open(_ needs: KernelNeeds) throws(KernelError) -> ChosenKernel {
        switch self {
        case .linux:
            return ChosenKernel(
                kernel: Self.withDoors(needs.doors, try Self.linux()), name: .linux, because: nil)
        case .perVMAttributes:
            return ChosenKernel(
                kernel: Self.withDoors(needs.doors, PerVMAttributesKVM(over: try Self.linux())),
                name: .perVMAttributes, because: nil)
        case .memslotTrap:
            return ChosenKernel(
                kernel: try Self.trap(over: try Self.linux()), name: .memslotTrap, because: nil)
        case .soft: return try Self.soft(needs, because: nil)
        case .auto: return try Self.automatic(needs)
        }
    }

    private static func automatic(_ needs: KernelNeeds) throws(KernelError) -> ChosenKernel {
        let linux: LinuxKVM
        do throws(KernelError) {
            linux = try Self.linux()
        } catch {
            // What the host has no more of says nothing about its kernel.
            if error.isHostLimit { throw error }
            return try soft(needs, because: error.description)
        }
        let failure = KernelProbe(linux).conversionFailure()
        if let failure, failure.errno.isHostLimit { throw KernelError(failure) }
        guard let failure else {
            return ChosenKernel(
                kernel: Self.withDoors(needs.doors, linux), name: .linux,
                because: "/dev/kvm converts in place")
        }
        var because = "/dev/kvm cannot convert in place (\(failure.call): \(failure.errno.name))"
        let perVM = PerVMAttributesKVM(over: linux)
        let perVMFailure = KernelProbe(perVM).conversionFailure()
        if let perVMFailure, perVMFailure.errno.isHostLimit { throw KernelError(perVMFailure) }
        if perVMFailure == nil {
            guard needs.preservation else {
                return ChosenKernel(
                    kernel: Self.withDoors(needs.doors, perVM), name: .perVMAttributes,
                    because: "\(because), but has per-VM attributes")
            }
            because += ", and its per-VM attributes do not preserve contents, which the guest needs"
        }
        do throws(KernelError) {
            let trap = try trap(over: linux)
            if let failure = KernelProbe(trap).conversionFailure() {
                if failure.errno.isHostLimit { throw KernelError(failure) }
                throw KernelError(
                    description: "\(because), nor with memslots (\(failure.call): \(failure.errno.name))",
                    diagnosis: MachineError.kernel(
                        call: failure.call, errno: failure.errno, attempted: "a scratch VM", hint: nil
                    ).diagnosis)
            }
            return ChosenKernel(kernel: trap, name: .memslotTrap, because: because)
        } catch {
            if error.isHostLimit { throw error }
            return try soft(needs, because: error.description)
        }
    }

    private static func linux() throws(KernelError) -> LinuxKVM {
        do throws(KVMUnavailable) {
            return try LinuxKVM()
        } catch {
            throw KernelError(
                description: error.description, diagnosis: error.diagnosis,
                isHostLimit: error.errno.isHostLimit)
        }
    }

    /// The VMs of /dev/kvm have no shared bit: memslots make the doors, the kernel below still converts.
    private static func withDoors(_ doors: Doors, _ kernel: any KVMInterface) -> any KVMInterface {
        doors == .two ? MemslotTrapKVM(doorsOver: kernel) : kernel
    }

    private static func trap(over linux: LinuxKVM) throws(KernelError) -> any KVMInterface {
        MemslotTrapKVM(over: linux)
    }

    /// The last resort, too: if that fails as well, both reasons are told.
    private static func soft(_ needs: KernelNeeds, because: String?) throws(KernelError) -> ChosenKernel {
        let kernel = SoftKVM(needs.soft)
        switch kernel.engineStatus {
        case .available: return ChosenKernel(kernel: kernel, name: .soft, because: because)
        case .missing(let message):
            throw KernelError(
                description: because.map { "\($0); \(message)" } ?? message, diagnosis: .engine(message))
        case .unknown(let errno): throw KernelError((call: "fork of the software CPU", errno: errno))
        }
    }
}

extension ChosenKernel {
    /// Whether guests may use VMMCALL. The kernels whose answer is known are not asked; the others are, on a
    /// scratch VM with a time limit, because on some the instruction never returns.
    var hypercallInstruction: Bool {
        switch name {
        case .soft: true
        // The port does the same everywhere, and finding out costs more than it gives.
        case .memslotTrap, .auto: false
        case .linux, .perVMAttributes: KernelProbe(kernel).hypercallInstruction().verdict == .yes
        }
    }

    /// For what is made of conversions: ends with status 4 where the kernel was asked for its attributes of VMs, and has none.
    func requireAttributes() throws {
        guard name == .perVMAttributes, let failure = KernelProbe(kernel).conversionFailure() else { return }
        let error = MachineError.kernel(
            call: failure.call, errno: failure.errno, attempted: "a scratch VM", hint: nil)
        throw stop(
            "this kernel has no per-VM attributes (\(failure.call): \(failure.errno.name)); all is skipped",
            Status.skipped, error.diagnosis)
    }

    /// One line for people.
    var line: String { "\(kernel.identity): \(reason)" }
}
