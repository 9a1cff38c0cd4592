// SPDX-License-Identifier: MIT
@_exported public import ConversionModel
public import MiniVMM
import Synchronization
public import SystemPackage

/// KVM in user space: the in-place interface of Linux 7.4, or of an earlier version, as an executable model.
///
/// Everything but `KVM_RUN` needs no library at all; vCPUs run on the Unicorn engine where it is installed. The
/// same calls in the same order with the same configuration give the same answers, exits and clock, byte for
/// byte: nothing asks the host for time or chance.
///
/// Each vCPU's engine runs in a process of its own, which begins with the first `KVM_RUN` and which a hostile guest can at
/// most crash: docs/hostile-guests.md. Everything that runs no vCPU starts none.
///
/// One lock guards it all, and a run holds it to its end, at most a time slice: other threads wait that long, and
/// only ``KVMVCPU/kick()`` does not.
///
/// What a guest finds: 64-bit mode, one ring at a time (the one that `KVM_SET_SREGS` says), 4-level paging
/// without accessed and dirty bits, SSE2, 40 physical address bits. No interrupt controller, and no
/// exception is delivered: one that the guest raises is `KVM_EXIT_SHUTDOWN`, as if its IDT were empty.
public final class SoftKVM: Backend {
    /// What this kernel is to be.
    public struct Configuration: Sendable {
        /// Seed of everything that is undefined by the ABI.
        public var seed: UInt64
        /// Instructions after which ``KVMVCPU/run()`` ends with `EINTR`; an element of a repeated string
        /// instruction is one.
        public var timeSlice: Int
        /// The version of the interface.
        public var abi: ABIProfile
        /// What a conversion does to contents; nil is what ``abi`` says. A conversion that changes a page overwrites it
        /// with bytes from the seed where it says undefined, so that nobody depends on luck, and with zeros where it says
        /// lost.
        public var contentPromise: ContentPromise?
        /// Another place where it is decided what becomes of contents; nil is what ``abi`` says. Contents that are not to be
        /// kept are overwritten with bytes from the seed.
        public var contentDesign: ContentDesign?
        /// Rules of the interface that are broken on purpose. ``SoftKVM/identity`` names them.
        public var plantedFaults: Set<PlantedFault>
        /// `kvm.gmem_in_place_conversion`; false is a kernel without the series.
        public var inPlaceConversion: Bool
        /// Runs of equal state that one file's attributes may have before a conversion that needs more is
        /// `ENOMEM`.
        public var maximumAttributeRuns: Int
        /// The CPU says where the next instruction is (NRIPS on AMD; every Intel CPU). Where it does not, KVM reads the instruction
        /// to step over CPUID, RDMSR, WRMSR, a hypercall or a write to CR0, CR4 or CR8, and cannot where that is private.
        public var nextRIPSaved: Bool
        /// What dlopen is asked for, in order.
        public var engineLibraries: [String]

        /// By default Linux 7.4 with seed 0, time slices of 100,000 instructions and no faults. A slice of
        /// less than one instruction is one.
        public init(
            seed: UInt64 = 0, timeSlice: Int = 100_000, abi: ABIProfile = .linux74,
            contentPromise: ContentPromise? = nil, contentDesign: ContentDesign? = nil,
            plantedFaults: Set<PlantedFault> = [],
            inPlaceConversion: Bool = true, maximumAttributeRuns: Int = .max, nextRIPSaved: Bool = true,
            engineLibraries: [String] = ["libunicorn.so.2", "libunicorn.so"]
        ) {
            self.seed = seed
            self.timeSlice = max(1, timeSlice)
            self.abi = abi
            self.contentPromise = contentPromise
            self.contentDesign = contentDesign
            self.plantedFaults = plantedFaults
            self.inPlaceConversion = inPlaceConversion
            self.maximumAttributeRuns = maximumAttributeRuns
            self.nextRIPSaved = nextRIPSaved
            self.engineLibraries = engineLibraries
        }
    }

    /// What is thrown where a kernel would map or bind a part of a file for which this one has no memory: pages behind the
    /// first TiB. No kernel answers so.
    public static let noMemoryBehind = Errno(Rules.noMemoryBehind)

    /// True: one lock guards everything, and the engine runs under it.
    public let runsVCPUsInTurns = true
    /// What this kernel is.
    public var configuration: Configuration { model.configuration }
    let model: Model
    private let library: EngineLibrary

    /// Starts no process and opens no library.
    public convenience init(_ configuration: Configuration = Configuration()) {
        self.init(configuration, contents: .outside)
    }

    /// - Parameter contents: ``ConversionModel/KernelModel/Contents/inside`` is a kernel without memory and without a CPU, whose
    ///   ``value`` can be taken and set. Its objects do not end by themselves: they are numbers in that value.
    package init(_ configuration: Configuration, contents: KernelModel.Contents) {
        model = Model(configuration, contents: contents)
        library = EngineLibrary(names: configuration.engineLibraries)
    }

    /// The host refused memory or a descriptor for a call that the model allows, so that its errno was the answer.
    package var hostHasFailed: Bool { model.look { model.hostHasFailed } }

    package var keepsBytesItself: Bool { model.isValue }

    /// All of the kernel's state, of one that keeps its bytes in it.
    package var value: KernelModel {
        get { model.look { model.kernel } }
        set { model.look { model.kernel = newValue } }
    }

    // Objects for what such a value has.
    package func vm(_ number: VMID) -> SoftVM { model.look { SoftVM(model, number, library: library) } }
    package func memfd(_ number: DescriptorID) -> SoftGuestMemfd {
        model.look {
            SoftGuestMemfd(
                model, number, size: model.kernel.size(of: model.kernel.file(of: number)), nil)
        }
    }
    package func mapping(_ number: MappingID) -> SoftHostMapping {
        model.look { SoftHostMapping(model, number, nil, nil) }
    }

    /// Waits for the process that opens the engine, as ``engineStatus`` does.
    public var identity: BackendIdentity {
        BackendIdentity(
            name: "SoftKVM", host: library.description + configuration.peculiarities, kind: .simulated)
    }

    /// Whether vCPUs can run. Waits for the process that opens the engine.
    public var engineStatus: EngineStatus { library.status }

    /// What a software-protected VM would answer.
    ///
    /// - Returns: 0 for a capability that this kernel does not have.
    /// - Throws: nothing.
    public func checkExtension(_ capability: Capability) throws(Errno) -> Int {
        SoftVM.answer(capability, type: .softwareProtected, configuration: model.configuration)
    }

    /// The same on every host: an AMD CPU with SSE2, pages of 1 GiB and 40 physical address bits.
    ///
    /// - Throws: nothing.
    public func supportedCPUID() throws(Errno) -> CPUIDTable { .soft }

    /// `KVM_CREATE_VM`.
    ///
    /// - Parameter sharedBit: 12 to 39 on a software-protected VM; a default VM has no private memory to tell
    ///   apart.
    /// - Throws: `EINVAL` for any other shared bit.
    public func createVM(_ type: VMType, sharedBit: Int?) throws(Errno) -> any KVMVirtualMachine {
        try model.call { () throws(Errno) in
            let number: VMID
            do throws(ErrorNumber) {
                number = try model.kernel.createVM(type, sharedBit: sharedBit)
            } catch {
                throw Errno(error)
            }
            let vm = SoftVM(model, number, library: library)
            model.add(vm)
            return vm
        }
    }

    /// Forks the launcher of CPU processes, which opens the engine. If that fails, starting one says so.
    public func prepareToRun() {
        library.open()
    }

    /// The virtual clock: 1 ns for every instruction that a guest executed, 1000 ns for every call into the model,
    /// what was slept, and 20 ns for each look at the clock, so that polling it ends.
    public func now() -> UInt64 {
        model.look {
            model.clock &+= 20
            return model.clock
        }
    }

    /// Advances the virtual clock and returns at once.
    public func sleep(for duration: Duration) {
        model.look {
            let (later, overflow) = model.clock.addingReportingOverflow(duration.wholeNanoseconds)
            model.clock = overflow ? .max : later
        }
    }
}

extension SoftKVM.Configuration {
    /// The rules of the interface that this kernel has.
    package var rules: Rules {
        Rules(
            abi: abi, contentDesign: contentDesign, contentPromise: contentPromise,
            faults: PlantedFaults(plantedFaults), convertsInPlace: inPlaceConversion,
            maximumAttributeRuns: maximumAttributeRuns, mostMemory: FileMemory.most)
    }

    /// What the identity has to say: nothing simulated is shown as another thing than it is.
    fileprivate var peculiarities: String {
        let faults = plantedFaults.map(\.name).sorted().joined(separator: ", ")
        return (abi == .linux74 ? "" : ", ABI \(abi.name)")
            + (contentDesign.map { ", contents decided by \($0.rawValue)" } ?? "")
            + (faults.isEmpty ? "" : ", FAULTS PLANTED: \(faults)")
    }
}
