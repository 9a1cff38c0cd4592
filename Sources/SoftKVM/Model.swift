import Glibc
import MiniVMM
import Synchronization
import SystemPackage

/// What all objects of one ``SoftKVM`` share: the lock, the clock, the generator, and who has which number.
///
/// There is one lock, and everything below is guarded by it. A kernel has finer ones; a model is read more often
/// than it is waited for.
final class Model: @unchecked Sendable {
    let configuration: SoftKVM.Configuration
    let abi: ABIProfile
    let faults: PlantedFaults
    /// What the kernel says that conversions do to contents, and what they do.
    let contentPromise: ContentPromise
    let contentFate: ContentPromise
    private let lock = Lock()
    /// Nanoseconds since the model was made. Guarded by the lock.
    var clock: UInt64 = 0
    /// The source of bytes where contents are undefined. Guarded by the lock.
    var generator: SplitMix64
    /// Descriptors by number, closed ones among them. Guarded by the lock.
    private var descriptors: [Int32: Weak<SoftGuestMemfd>] = [:]
    /// All host mappings, for slots without a guest_memfd. Guarded by the lock.
    private var mappings: [Weak<SoftHostMapping>] = []
    /// How many VMs were made. Guarded by the lock.
    var vmsCreated: UInt64 = 0
    /// The vCPU that ran last. Guarded by the lock.
    var lastRunner: ObjectIdentifier?

    /// What one system call takes on the virtual clock.
    static let callNanoseconds: UInt64 = 1000

    init(_ configuration: SoftKVM.Configuration) {
        self.configuration = configuration
        abi = configuration.abi
        faults = PlantedFaults(configuration.plantedFaults)
        contentPromise = configuration.contentPromise ?? abi.contentPromise
        contentFate = faults.contents(contentPromise)
        generator = SplitMix64(seed: configuration.seed)
    }

    /// One system call: under the lock, and the clock goes on.
    @inline(__always)
    func call<R, E: Error>(_ body: () throws(E) -> R) throws(E) -> R {
        lock.acquire()
        defer { lock.release() }
        clock &+= Self.callNanoseconds
        return try body()
    }

    /// A look at the model that is no system call.
    @inline(__always)
    func look<R, E: Error>(_ body: () throws(E) -> R) throws(E) -> R {
        lock.acquire()
        defer { lock.release() }
        return try body()
    }

    func add(_ memfd: SoftGuestMemfd) { descriptors[memfd.descriptor] = Weak(memfd) }

    /// The file of a descriptor that is open.
    func file(_ descriptor: Int32) -> GuestFile? {
        guard let memfd = descriptors[descriptor]?.object, memfd.isOpen else { return nil }
        return memfd.file
    }

    func add(_ mapping: SoftHostMapping) {
        mappings.removeAll { $0.object == nil }
        mappings.append(Weak(mapping))
    }

    /// The host mapping that covers the whole range of host addresses.
    func mapping(covering address: UInt64, size: UInt64) -> SoftHostMapping? {
        for case let mapping? in mappings.lazy.map(\.object)
        where mapping.isMapped && mapping.address <= address && address - mapping.address <= mapping.length
            && size <= mapping.length - (address - mapping.address)
        {
            return mapping
        }
        return nil
    }
}

/// A reference that does not keep its object.
struct Weak<Object: AnyObject> {
    private(set) weak var object: Object?
    init(_ object: Object) { self.object = object }
}

/// A recursive lock: an object that dies while it is held may need it too.
@safe private final class Lock: @unchecked Sendable {
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>

    init() {
        unsafe mutex = .allocate(capacity: 1)
        unsafe mutex.initialize(to: pthread_mutex_t())
        var attributes = pthread_mutexattr_t()
        unsafe pthread_mutexattr_init(&attributes)
        unsafe pthread_mutexattr_settype(&attributes, CInt(PTHREAD_MUTEX_RECURSIVE))
        unsafe pthread_mutex_init(mutex, &attributes)
        unsafe pthread_mutexattr_destroy(&attributes)
    }

    deinit {
        unsafe pthread_mutex_destroy(mutex)
        unsafe mutex.deallocate()
    }

    @inline(__always) func acquire() { unsafe pthread_mutex_lock(mutex) }
    @inline(__always) func release() { unsafe pthread_mutex_unlock(mutex) }
}

/// Steele, Lea and Flood's SplitMix64: the same bytes for the same seed, everywhere.
package struct SplitMix64 {
    private var state: UInt64
    package init(seed: UInt64) { state = seed }

    package mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}
