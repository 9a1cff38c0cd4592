// SPDX-License-Identifier: MIT
import ConversionModel
import Glibc
import MiniVMM
import Synchronization
import SystemPackage

/// State shared by all objects of one ``SoftKVM``: the lock, the rules of the interface as a value, the memory of
/// the files, and the clock.
///
/// One lock guards everything below. A kernel has finer locks; one lock keeps the model easy to read, and
/// contention is low.
final class Model: @unchecked Sendable {
    let configuration: SoftKVM.Configuration
    private let lock = Lock()
    /// The rules, and all state except bytes. Guarded by the lock.
    var kernel: KernelModel
    /// The memory of each file. Guarded by the lock.
    private var memories: [FileID: FileMemory] = [:]
    /// Bytes of pages that were punched out of their file while held, by hold and by offset in the file. Guarded by
    /// the lock.
    private var detached: [HoldID: [UInt64: [UInt8]]] = [:]
    /// Guarded by the lock.
    private var vms: [VMID: Weak<SoftVM>] = [:]
    private var mappings: [MappingID: Weak<SoftHostMapping>] = [:]
    /// Descriptors by number, including closed ones. Guarded by the lock.
    private var descriptors: [Int32: Weak<SoftGuestMemfd>] = [:]
    /// Nanoseconds since the model was created. Guarded by the lock.
    var clock: UInt64 = 0
    /// Generates bytes for undefined contents. Guarded by the lock.
    private var generator: SplitMix64
    /// The vCPU that ran last. Guarded by the lock.
    var lastRunner: ObjectIdentifier?
    /// Whether any call failed with an errno of the host rather than one of the model. Guarded by the lock.
    private(set) var hostHasFailed = false

    /// Duration of one system call on the virtual clock.
    static let callNanoseconds: UInt64 = 1000

    /// - Parameter contents: with ``KernelModel/Contents/inside`` there is no guest memory and no engine. All
    ///   objects are then only numbers in ``kernel``, which can be replaced by another state that was reached from
    ///   the same start.
    init(_ configuration: SoftKVM.Configuration, contents: KernelModel.Contents) {
        self.configuration = configuration
        kernel = KernelModel(configuration.rules, contents: contents)
        generator = SplitMix64(seed: configuration.seed)
    }

    /// One system call: holds the lock and advances the clock.
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

    /// A system call that is answered by ``kernel``.
    @inline(__always)
    func callModel<R>(_ body: (inout KernelModel) throws(ErrorNumber) -> R) throws(Errno) -> R {
        try call { () throws(Errno) in
            do throws(ErrorNumber) { return try body(&kernel) } catch { throw Errno(error) }
        }
    }

    /// Reads or changes the model under the lock. This is not a system call: the clock does not advance.
    @inline(__always)
    func withLock<R, E: Error>(_ body: () throws(E) -> R) throws(E) -> R {
        lock.acquire()
        defer {
            applyEffects()
            lock.release()
        }
        return try body()
    }

    /// Whether the bytes are kept in ``kernel``.
    var keepsBytes: Bool { kernel.contents == .inside }

    /// Allocates memory or a descriptor on the host for a call that the model allows, and records a failure. The
    /// lock is held.
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

    /// Applies the effects of calls on the model to the bytes and to the engines. The lock is held.
    func applyEffects() {
        for effect in kernel.takeEffects() {
            switch effect {
            case .discarded(let file, let range): memories[file]?.discard(range)
            case .overwritten(let file, let range, .zeros): memories[file]?.overwrite(range) { 0 }
            case .overwritten(let file, let range, .noise):
                memories[file]?.overwrite(range) { generator.next() }
            case .encrypted(let file, let range):
                memories[file]?.apply(cipher(of: file), to: range, decrypting: false)
            case .decrypted(let file, let range):
                memories[file]?.apply(cipher(of: file), to: range, decrypting: true)
            case .detached(let hold, let file, let page):
                detached[hold, default: [:]][page] = memories[file]?.page(at: page)
            case .removed(let file): memories[file] = nil
            case .zapped(let vm, let gpas, let keepsAccess):
                vms[vm]?.object?.zap(gpas, keepingAccess: keepsAccess)
            case .codeChanged(let vm, let gpas): vms[vm]?.object?.codeChanged(gpas)
            case .guestPages(let vm, let gpas, let state): vms[vm]?.object?.note(gpas, state)
            }
        }
    }

    /// Bytes of a page that belongs to an SNP guest, as the host sees them: a little-endian number of at most 8 bytes in one page.
    func ciphertext(_ backing: KernelModel.Backing, at gpa: UInt64, count: Int) -> UInt64 {
        guard let memory = memories[backing.file] else { return 0 }
        let start = backing.fileOffset + (gpa - backing.pages.start)
        var word: UInt64 = 0
        for place in (start..<start + UInt64(count)).reversed() {
            let words = unsafe memory.bytes(at: place & ~15).assumingMemoryBound(to: UInt64.self)
            let block = unsafe cipher(of: backing.file).encrypt((words[0], words[1]), at: place / 16)
            let half = place % 16 < 8 ? block.0 : block.1
            word = word << 8 | (half >> (place % 8 * 8) & 0xff)
        }
        return word
    }

    private func cipher(of file: FileID) -> PageCipher {
        PageCipher(key: configuration.seed ^ UInt64(kernel.size(of: file)))
    }

    /// A page of a hold as it was when it was punched out; nil if it was not.
    func detachedPage(_ hold: HoldID, _ page: UInt64) -> [UInt8]? { detached[hold]?[page] }

    func detachedPages(_ hold: HoldID) -> [UInt64: [UInt8]] { detached[hold] ?? [:] }

    func setDetachedPage(_ hold: HoldID, _ page: UInt64, _ bytes: [UInt8]) {
        detached[hold, default: [:]][page] = bytes
    }

    /// Removes and returns the bytes of a hold, for another hold or to drop them.
    func takeDetachedPages(_ hold: HoldID) -> [UInt64: [UInt8]] { detached.removeValue(forKey: hold) ?? [:] }

    // MARK: objects by number

    func add(_ vm: SoftVM) { vms[vm.number] = Weak(vm) }
    func remove(_ vm: VMID) { vms[vm] = nil }

    func add(_ memfd: SoftGuestMemfd) {
        if !keepsBytes { descriptors[memfd.descriptor] = Weak(memfd) }
    }

    /// The open descriptor with this number in the process.
    func descriptor(_ number: Int32, _ kernel: KernelModel) -> DescriptorID? {
        if kernel.contents == .inside { return kernel.openDescriptor(number) }
        guard let memfd = descriptors[number]?.object, kernel.isOpen(memfd.number) else { return nil }
        return memfd.number
    }

    func add(_ mapping: SoftHostMapping) {
        if !keepsBytes { mappings[mapping.number] = Weak(mapping) }
    }
    func remove(_ mapping: MappingID) { mappings[mapping] = nil }
    func mapping(_ number: MappingID) -> SoftHostMapping? {
        keepsBytes ? SoftHostMapping(self, number, nil, nil) : mappings[number]?.object
    }
}

/// A weak reference.
struct Weak<Object: AnyObject> {
    private(set) weak var object: Object?
    init(_ object: Object) { self.object = object }
}

/// A recursive lock, because an object that is deinitialised while the lock is held may take it, too.
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
