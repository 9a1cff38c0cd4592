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
    let reason: String
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
                kernel: Self.withDoors(needs.doors, try Self.linux()), name: .linux, reason: "asked for")
        case .perVMAttributes:
            return ChosenKernel(
                kernel: Self.withDoors(needs.doors, PerVMAttributesKVM(over: try Self.linux())),
                name: .perVMAttributes, reason: "asked for")
        case .memslotTrap:
            return ChosenKernel(
                kernel: try Self.trap(over: try Self.linux()), name: .memslotTrap, reason: "asked for")
        case .soft: return ChosenKernel(kernel: try Self.soft(needs), name: .soft, reason: "asked for")
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
            return try soft(needs, instead: error)
        }
        let failure = KernelProbe(linux).conversionFailure()
        if let failure, failure.errno.isHostLimit { throw KernelError(failure) }
        guard let failure else {
            return ChosenKernel(
                kernel: Self.withDoors(needs.doors, linux), name: .linux,
                reason: "/dev/kvm converts in place")
        }
        var because = "/dev/kvm cannot convert in place (\(failure.call): \(failure.errno.name))"
        let perVM = PerVMAttributesKVM(over: linux)
        let perVMFailure = KernelProbe(perVM).conversionFailure()
        if let perVMFailure, perVMFailure.errno.isHostLimit { throw KernelError(perVMFailure) }
        if perVMFailure == nil {
            guard needs.preservation else {
                return ChosenKernel(
                    kernel: Self.withDoors(needs.doors, perVM), name: .perVMAttributes,
                    reason: "\(because), but has per-VM attributes")
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
            return ChosenKernel(kernel: trap, name: .memslotTrap, reason: because)
        } catch {
            if error.isHostLimit { throw error }
            return try soft(needs, instead: error)
        }
    }

    /// The last resort; if that fails too, both reasons are told.
    private static func soft(_ needs: KernelNeeds, instead error: KernelError) throws(KernelError)
        -> ChosenKernel
    {
        do throws(KernelError) {
            return ChosenKernel(kernel: try soft(needs), name: .soft, reason: error.description)
        } catch let missing {
            throw KernelError(
                description: "\(error.description); \(missing.description)", diagnosis: missing.diagnosis)
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

    private static func soft(_ needs: KernelNeeds) throws(KernelError) -> SoftKVM {
        let kernel = SoftKVM(needs.soft)
        if case .missing(let message) = kernel.engineStatus {
            throw KernelError(description: message, diagnosis: .engine(message))
        }
        return kernel
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
