// SPDX-License-Identifier: MIT
import ConversionModel
import Glibc
import MiniVMM
import Synchronization
import SystemPackage

/// What all objects of one ``SoftKVM`` share: the lock, the rules of the interface as a value, the memory of the files, and the
/// clock.
///
/// There is one lock, and everything below is guarded by it. A kernel has finer ones; a model is read more often
/// than it is waited for.
final class Model: @unchecked Sendable {
    let configuration: SoftKVM.Configuration
    private let lock = Lock()
    /// The rules, and all state but bytes. Guarded by the lock.
    var kernel: KernelModel
    /// The memory of each file. Guarded by the lock.
    private var memories: [FileID: FileMemory] = [:]
    /// Bytes of pages that were punched out of their file, of the holds that keep them. Guarded by the lock.
    private var detached: [HoldID: [UInt64: [UInt8]]] = [:]
    /// Guarded by the lock, too.
    private var vms: [VMID: Weak<SoftVM>] = [:]
    private var mappings: [MappingID: Weak<SoftHostMapping>] = [:]
    /// Descriptors by number, closed ones among them. Guarded by the lock.
    private var descriptors: [Int32: Weak<SoftGuestMemfd>] = [:]
    /// Nanoseconds since the model was made. Guarded by the lock.
    var clock: UInt64 = 0
    /// The source of bytes where contents are undefined. Guarded by the lock.
    private var generator: SplitMix64
    /// The vCPU that ran last. Guarded by the lock.
    var lastRunner: ObjectIdentifier?
    /// An answer was the host's own errno, not one of the model's. Guarded by the lock.
    private(set) var hostHasFailed = false

    /// What one system call takes on the virtual clock.
    static let callNanoseconds: UInt64 = 1000

    /// - Parameter contents: ``KernelModel/Contents/inside`` has no memory and no engine. All objects are then no more than
    ///   numbers in ``kernel``, which can be exchanged for another one that was reached from the same beginning.
    init(_ configuration: SoftKVM.Configuration, contents: KernelModel.Contents) {
        self.configuration = configuration
        kernel = KernelModel(configuration.rules, contents: contents)
        generator = SplitMix64(seed: configuration.seed)
    }

    /// One system call: under the lock, and the clock goes on.
    @inline(__always)
    func call<R, E: Error>(_ body: () throws(E) -> R) throws(E) -> R {
        lock.acquire()
        defer {
            applyEffects()
            lock.release()
        }
        clock &+= Self.callNanoseconds
        return try body()
    }

    /// A system call that the kernel model answers.
    @inline(__always)
    func ask<R>(_ body: (inout KernelModel) throws(ErrorNumber) -> R) throws(Errno) -> R {
        try call { () throws(Errno) in
            do throws(ErrorNumber) { return try body(&kernel) } catch { throw Errno(error) }
        }
    }

    /// Reads or changes the model without a system call.
    @inline(__always)
    func look<R, E: Error>(_ body: () throws(E) -> R) throws(E) -> R {
        lock.acquire()
        defer {
            applyEffects()
            lock.release()
        }
        return try body()
    }

    /// The model keeps the bytes itself.
    var isValue: Bool { kernel.contents == .inside }

    /// What the host has to give for a call that the model allows: memory or a descriptor. The lock is held.
    func host<R: ~Copyable>(_ body: () throws(Errno) -> R) throws(Errno) -> R {
        do throws(Errno) {
            return try body()
        } catch {
            hostHasFailed = true
            throw error
        }
    }

    // MARK: memory

    func add(_ memory: FileMemory, for file: FileID) { memories[file] = memory }
    func memory(of file: FileID) -> FileMemory? { memories[file] }

    /// Ascending.
    var memoriesByNumber: [(FileID, FileMemory)] {
        memories.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    }

    /// Does to the bytes, and to the engines, what calls have done to the model. The lock is held.
    func applyEffects() {
        for effect in kernel.takeEffects() {
            switch effect {
            case .discarded(let file, let range): memories[file]?.discard(range)
            case .overwritten(let file, let range, .zeros): memories[file]?.overwrite(range) { 0 }
            case .overwritten(let file, let range, .noise):
                memories[file]?.overwrite(range) { generator.next() }
            case .detached(let hold, let file, let page):
                detached[hold, default: [:]][page] = memories[file]?.page(at: page)
            case .removed(let file): memories[file] = nil
            case .zapped(let vm, let gpas, let keepsAccess):
                vms[vm]?.object?.zap(gpas, keepingAccess: keepsAccess)
            case .codeChanged(let vm, let gpas): vms[vm]?.object?.codeChanged(gpas)
            }
        }
    }

    /// The page of a hold as it was when it left the file; nil if it has not.
    func detachedPage(_ hold: HoldID, _ page: UInt64) -> [UInt8]? { detached[hold]?[page] }

    func detachedPages(_ hold: HoldID) -> [UInt64: [UInt8]] { detached[hold] ?? [:] }

    func setDetachedPage(_ hold: HoldID, _ page: UInt64, _ bytes: [UInt8]) {
        detached[hold, default: [:]][page] = bytes
    }

    /// The bytes that holds keep, when their pages are given to other holds or dropped.
    func takeDetachedPages(_ hold: HoldID) -> [UInt64: [UInt8]] { detached.removeValue(forKey: hold) ?? [:] }

    // MARK: objects by number

    func add(_ vm: SoftVM) { vms[vm.number] = Weak(vm) }
    func remove(_ vm: VMID) { vms[vm] = nil }

    func add(_ memfd: SoftGuestMemfd) {
        if !isValue { descriptors[memfd.descriptor] = Weak(memfd) }
    }

    /// The open descriptor with a number of the process.
    func descriptor(_ number: Int32, _ kernel: KernelModel) -> DescriptorID? {
        if kernel.contents == .inside { return kernel.openDescriptor(number) }
        guard let memfd = descriptors[number]?.object, kernel.isOpen(memfd.number) else { return nil }
        return memfd.number
    }

    func add(_ mapping: SoftHostMapping) {
        if !isValue { mappings[mapping.number] = Weak(mapping) }
    }
    func remove(_ mapping: MappingID) { mappings[mapping] = nil }
    func mapping(_ number: MappingID) -> SoftHostMapping? {
        isValue ? SoftHostMapping(self, number, nil, nil) : mappings[number]?.object
    }
}

extension Errno {
    package init(_ error: ErrorNumber) { self.init(rawValue: error.rawValue) }
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
