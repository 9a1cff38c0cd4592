// SPDX-License-Identifier: MIT
@_exported public import ConversionModel
public import MiniVMM
import Synchronization
public import SystemPackage

/// A KVM in user space: the in-place interface of Linux 7.4, or of an earlier version, as an executable model.
///
/// Only `KVM_RUN` needs a library: vCPUs run on the Unicorn engine, if it is installed. The same calls in the same
/// order with the same configuration give the same results, exits and clock, byte for byte, because nothing depends
/// on the host's time or random numbers.
///
/// Each vCPU's engine runs in a process of its own, which starts at the first `KVM_RUN`. A hostile guest can at
/// most crash that process (docs/hostile-guests.md). Without a running vCPU no process is started.
///
/// One lock guards everything. A run holds it until it ends, at most one time slice; other threads wait that long.
/// Only ``KVMVCPU/kick()`` does not take the lock.
///
/// A guest runs in real mode, protected mode or long mode, in one ring (set by `KVM_SET_SREGS`), without paging or with
/// 32-bit, PAE or 4-level paging without accessed and dirty bits, with SSE2 and 40 physical address bits. Limits of segments
/// are not checked. There is no interrupt controller. Exceptions are delivered in real mode; in other modes an exception in
/// the guest is `KVM_EXIT_SHUTDOWN`, as with an empty IDT.
public final class SoftKVM: Backend {
    /// The options of a ``SoftKVM``.
    public struct Configuration: Sendable {
        /// Seed for everything that the ABI leaves undefined.
        public var seed: UInt64
        /// Number of instructions after which ``KVMVCPU/run()`` ends with `EINTR`. An element of a repeated string
        /// instruction counts as one.
        public var timeSlice: Int
        /// The version of the interface.
        public var abi: ABIProfile
        /// The effect of conversions on contents; nil is that of ``abi``. Pages that change state are overwritten
        /// with bytes from the seed if it is undefined, so that no program works by luck, and with zeros if
        /// contents are lost.
        public var contentPromise: ContentPromise?
        /// A proposed design that decides whether contents are preserved; nil is the rule of ``abi``. Contents that
        /// need not be preserved are overwritten with bytes from the seed.
        public var contentDesign: ContentDesign?
        /// Rules of the interface that are broken on purpose. ``SoftKVM/identity`` lists them.
        public var plantedFaults: Set<PlantedFault>
        /// `kvm.gmem_in_place_conversion`. False models a kernel without the series.
        public var inPlaceConversion: Bool
        /// The number of runs of equal state that the attributes of one file can have; a conversion that needs more
        /// is `ENOMEM`.
        public var maximumAttributeRuns: Int
        /// Whether the CPU reports the address of the next instruction (NRIPS on AMD; every Intel CPU). If it does
        /// not, KVM must read the instruction to step over CPUID, RDMSR, WRMSR, a hypercall or a write to CR0, CR4
        /// or CR8, and fails if the code is private.
        public var nextRIPSaved: Bool
        /// Names of the engine's library for dlopen, in order of preference.
        public var engineLibraries: [String]

        /// By default Linux 7.4 with seed 0, time slices of 100,000 instructions and no faults. The shortest time
        /// slice is one instruction.
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

    /// The error of a call that would map or bind pages past the first TiB of a file, for which SoftKVM has no
    /// memory. Linux never returns it for these calls.
    public static let noBackingMemory = Errno(Rules.noBackingMemory)

    /// True: one lock guards everything, and it is held while the engine runs.
    public let runsVCPUsInTurns = true
    /// The options of this backend.
    public var configuration: Configuration { model.configuration }
    let model: Model
    private let library: EngineLibrary

    /// Creates a backend. Starts no process and opens no library.
    public convenience init(_ configuration: Configuration = Configuration()) {
        self.init(configuration, contents: .outside)
    }

    /// - Parameter contents: with ``ConversionModel/KernelModel/Contents/inside`` there is no guest memory and no
    ///   CPU, and ``value`` can be read and set. Objects are then only numbers in that value and are not removed
    ///   when they are deinitialised.
    package init(_ configuration: Configuration, contents: KernelModel.Contents) {
        model = Model(configuration, contents: contents)
        library = EngineLibrary(names: configuration.engineLibraries)
    }

    /// Whether the host lacked memory or a descriptor for a call that the model allows, so that the call failed
    /// with the host's errno.
    package var hostHasFailed: Bool { model.withLock { model.hostHasFailed } }

    /// The whole state. Meaningful only with ``ConversionModel/KernelModel/Contents/inside``.
    package var value: KernelModel {
        get { model.withLock { model.kernel } }
        set { model.withLock { model.kernel = newValue } }
    }

    // Objects for identifiers in ``value``.
    package func vm(_ number: VMID) -> SoftVM { model.withLock { SoftVM(model, number, library: library) } }
    package func memfd(_ number: DescriptorID) -> SoftGuestMemfd {
        model.withLock {
            SoftGuestMemfd(
                model, number, size: model.kernel.size(of: model.kernel.file(of: number)), nil)
        }
    }
    package func mapping(_ number: MappingID) -> SoftHostMapping {
        model.withLock { SoftHostMapping(model, number, nil, nil) }
    }

    /// Name and host of this backend. Waits for the process that opens the engine, as ``engineStatus`` does.
    public var identity: BackendIdentity {
        BackendIdentity(
            name: "SoftKVM", host: library.description + configuration.identitySuffix, kind: .simulated)
    }

    /// Whether vCPUs can run. Waits for the process that opens the engine.
    public var engineStatus: EngineStatus { library.status }

    /// The capabilities of a software-protected VM.
    ///
    /// - Returns: 0 for a capability that SoftKVM does not have.
    /// - Throws: nothing.
    public func checkExtension(_ capability: Capability) throws(Errno) -> Int {
        model.configuration.rules.checkExtension(capability, on: .softwareProtected)
    }

    /// The same table on every host: an AMD CPU with SSE2, pages of 1 GiB and 40 physical address bits.
    ///
    /// - Throws: nothing.
    public func supportedCPUID() throws(Errno) -> CPUIDTable { .soft }

    /// `KVM_CREATE_VM`.
    ///
    /// - Parameter sharedBit: nil, or 12 to 39 on a software-protected VM. A default VM has no private memory and
    ///   so no shared bit. An SNP or TDX VM must have one; its guest uses the C-bit (51) or the shared bit (47) in its page tables.
    /// - Throws: `EINVAL` for any other shared bit, and for an SNP or TDX VM without one or in another version of the interface
    ///   than Linux 7.4's.
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

    /// Forks the launcher of CPU processes, which opens the engine. A failure is reported when a vCPU starts.
    public func prepareToRun() {
        library.open()
    }

    /// The virtual clock, in ns: 1 ns for every instruction that a guest executes, 1000 ns for every call into the
    /// model, the time slept, and 20 ns for each reading of the clock, so that polling it makes progress.
    public func now() -> UInt64 {
        model.withLock {
            model.clock &+= 20
            return model.clock
        }
    }

    /// Advances the virtual clock and returns immediately.
    public func sleep(for duration: Duration) {
        model.withLock {
            let (later, overflow) = model.clock.addingReportingOverflow(duration.wholeNanoseconds)
            model.clock = overflow ? .max : later
        }
    }
}

extension SoftKVM.Configuration {
    /// The rules of the interface with these options.
    package var rules: Rules {
        Rules(
            abi: abi, contentDesign: contentDesign, contentPromise: contentPromise,
            faults: PlantedFaults(plantedFaults), convertsInPlace: inPlaceConversion,
            maximumAttributeRuns: maximumAttributeRuns, memoryLimit: FileMemory.maximumSize)
    }

    /// The part of the identity that names options, so that output never passes off a simulation as anything else.
    fileprivate var identitySuffix: String {
        let faults = plantedFaults.map(\.name).sorted().joined(separator: ", ")
        return (abi == .linux74 ? "" : ", ABI \(abi.name)")
            + (contentDesign.map { ", contents decided by \($0.rawValue)" } ?? "")
            + (faults.isEmpty ? "" : ", FAULTS PLANTED: \(faults)")
    }
}
