// SPDX-License-Identifier: MIT
import Backends
import CKVMShim
import Glibc
import MiniVMM
import SystemPackage

/// Measures how much memory a conversion needs, in place and with two copies: the pages behind each mapping, as
/// `mincore(2)` reports them.
extension TourStage {
    private static let size: UInt64 = 64 << 20

    /// Converts 64 MiB and keeps the contents, once in place and once by copying, and prints how much memory each needed.
    func measureTwoCopies() throws {
        let chosen = try options.open(aliases: .one, preservation: true)
        do throws(Errno) {
            try measureInPlace(chosen.backend)
            let real = perVMBackend()
            if let perVM = real.backend { try measurePerVM(perVM) } else { try measureStandIn(real.why) }
        } catch {
            notShown("the memory could not be allocated or measured (\(error.name))")
            nothingShown()
        }
    }

    private func measureInPlace(_ backend: any Backend) throws(Errno) {
        do throws(Errno) {
            guard try backend.createVM(.softwareProtected, sharedBit: nil).contentPromise.canPreserve else {
                return notShown("one copy, because \(backend.identity) does not preserve contents in place")
            }
        } catch .invalidArgument {
            return notShown("one copy, because \(backend.identity) has no VM type with private memory")
        }
        let used = try Self.inPlace(backend)
        Terminal.output.paragraph("in place, one file of \(backend.identity):", indent: 3)
        row("shared", used.before)
        row("after the conversion to private", used.after)
    }

    /// The backend that really has two memories, or why it is not used.
    private func perVMBackend() -> (backend: (any Backend)?, why: String) {
        guard options.backend != .soft else { return (nil, "SoftKVM was chosen with --backend soft") }
        let needs = BackendNeeds(soft: options.soft)
        let perVM: any Backend
        do throws(BackendError) {
            perVM = try BackendKind.perVMAttributes.open(needs).backend
        } catch {
            return (nil, error.text)
        }
        if let failure = BackendProbe(perVM).conversionFailure() {
            return (nil, failure.text)
        }
        return (perVM, "")
    }

    private func measureStandIn(_ why: String) throws(Errno) {
        let copies = try Self.twoCopies()
        Terminal.output.paragraph(
            "two copies, simulated with two blocks of shared memory in this process, because per-VM attributes are not "
                + "available (\(why)):", indent: 3)
        row("shared", copies.before)
        row("while the contents are copied", copies.during)
        row("after the old copy is freed", copies.after)
    }

    private func measurePerVM(_ backend: any Backend) throws(Errno) {
        let copies = try Self.perVM(backend)
        Terminal.output.paragraph(
            "two copies, on \(backend.identity), measured by the growth of the machine's page cache (/proc/meminfo), because "
                + "mincore cannot see private pages. No guest runs: the pages of the copy are allocated without copying.",
            indent: 3)
        row("shared", copies.before)
        row("while the contents are copied", copies.during)
        row("after the old copy is freed", copies.after)
    }

    private func row(_ what: String, _ bytes: UInt64) {
        let terminal = Terminal.output
        let amount = "\((bytes + (1 << 19)) >> 20) MiB"
        if terminal.width < 48 { return terminal.hanging("     ", "\(what): \(amount)", indent: 7, used: 5) }
        terminal.print("     " + what + String(repeating: " ", count: max(1, 34 - what.count)) + amount)
    }

    /// Shared pages in one half of a file, and the private pages of their copy in the other.
    private static func perVM(
        _ backend: any Backend
    ) throws(Errno) -> (before: UInt64, during: UInt64, after: UInt64) {
        let vm = try backend.createVM(.softwareProtected, sharedBit: nil)
        let start = try pageCache()
        func grown() throws(Errno) -> UInt64 {
            let now = try pageCache()
            return now > start ? now - start : 0
        }
        let file = try vm.createGuestMemfd(size: 2 * size, flags: [.mmap, .initShared])
        let mapping = try file.map(offset: 0, length: size)
        _ = try filled(file, mapping)
        let before = try grown()
        var request = ckvm_memory_attributes2()
        request.offset = size
        request.size = size
        request.attributes = CKVM_MEMORY_ATTRIBUTE_PRIVATE
        try file.setMemoryAttributes2(&request)
        try file.allocate(punchHole: false, offset: size, length: size)
        let during = try grown()
        try file.allocate(punchHole: true, offset: 0, length: size)
        let after = try grown()
        return (before, during, after)
    }

    /// Bytes in the page cache of the whole machine; both kinds of file count towards it.
    private static func pageCache() throws(Errno) -> UInt64 {
        var bytes = [UInt8](repeating: 0, count: 4096)
        do {
            let file = try FileDescriptor.open(
                FilePath("/proc/meminfo"), .readOnly, options: .closeOnExec)
            defer { try? file.close() }
            let count = try unsafe bytes.withUnsafeMutableBytes { buffer in
                try unsafe file.read(into: buffer)
            }
            let line = String(decoding: bytes[..<count], as: UTF8.self).split(separator: "\n")
                .first { $0.hasPrefix("Cached:") }
            guard let number = line?.split(separator: " ").dropFirst().first.flatMap({ UInt64($0) }) else {
                throw Errno.noData
            }
            return number << 10
        } catch {
            throw error as? Errno ?? .ioError
        }
    }

    private static func inPlace(_ backend: any Backend) throws(Errno) -> (before: UInt64, after: UInt64) {
        let vm = try backend.createVM(.softwareProtected, sharedBit: nil)
        let file = try vm.createGuestMemfd(size: size, flags: [.mmap, .initShared])
        let mapping = try file.map(offset: 0, length: size)
        let (memory, whole) = try filled(file, mapping)
        let before = try existing(at: mapping.address)
        let converter = Converter(
            backend: backend, vm: vm, memory: memory, holds: HoldRegistry(), policy: RetryPolicy(), trace: nil
        )
        do throws(ConversionError) {
            try converter.convert(
                ConversionRequest(range: whole, to: .private, contents: .preserve), by: .monitor)
        } catch {
            throw error.errno
        }
        return (before, try existing(at: mapping.address))
    }

    /// Writes to every mapped page, so that the page exists.
    private static func filled(
        _ file: any KVMGuestMemfd, _ mapping: any HostMapping
    ) throws(Errno) -> (GuestMemory, PageRange) {
        guard let whole = PageRange(start: 0, size: size) else { throw .invalidArgument }
        let memory = GuestMemory(
            regions: [MemoryRegion(gpa: whole, file: file, mapping: mapping)], initial: .shared)
        let mebibyte = [UInt8](repeating: 0x41, count: 1 << 20)
        do throws(HostAccessError) {
            for gpa in stride(from: 0, to: size, by: 1 << 20) { try memory.write(gpa: gpa, mebibyte) }
        } catch {
            throw error.errno
        }
        return (memory, whole)
    }

    private static func twoCopies() throws(Errno) -> (before: UInt64, during: UInt64, after: UInt64) {
        let shared = try SharedMemory(size: size)
        let hidden = try SharedMemory(size: size)
        func both() throws(Errno) -> UInt64 {
            try existing(at: shared.address) + existing(at: hidden.address)
        }
        shared.fill(0x41)
        let before = try both()
        hidden.copy(from: shared)
        let during = try both()
        try shared.giveBack()
        return (before, during, try both())
    }

    /// The size in bytes of the pages that exist.
    private static func existing(at address: UInt64) throws(Errno) -> UInt64 {
        var pages = [UInt8](repeating: 0, count: Int(size / pageSize))
        let start = unsafe UnsafeMutableRawPointer(bitPattern: UInt(address))
        let result = unsafe pages.withUnsafeMutableBufferPointer { buffer in
            unsafe mincore(start, Int(size), buffer.baseAddress)
        }
        guard result == 0 else { throw Errno(rawValue: errno) }
        return UInt64(pages.count { $0 & 1 != 0 }) * pageSize
    }
}

/// Shared anonymous memory of this process.
@safe private final class SharedMemory {
    private let base: UnsafeMutableRawPointer
    private let size: Int

    init(size: UInt64) throws(Errno) {
        guard
            let base = unsafe mmap(
                nil, Int(size), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0),
            unsafe base != MAP_FAILED
        else { throw Errno(rawValue: errno) }
        unsafe self.base = base
        self.size = Int(size)
    }

    deinit { unsafe munmap(base, size) }

    var address: UInt64 { UInt64(UInt(bitPattern: unsafe base)) }

    func giveBack() throws(Errno) {
        guard unsafe madvise(base, size, MADV_REMOVE) == 0 else { throw Errno(rawValue: errno) }
    }

    func fill(_ byte: UInt8) { unsafe base.initializeMemory(as: UInt8.self, repeating: byte, count: size) }
    func copy(from other: SharedMemory) { unsafe base.copyMemory(from: other.base, byteCount: size) }
}
