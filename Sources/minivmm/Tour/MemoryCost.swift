import Glibc
import MiniVMM
import SystemPackage

/// What memory costs in place, and in two copies: the pages that exist behind each mapping, whoever may touch them
/// (`mincore(2)`).
extension TourStage {
    private static let size: UInt64 = 64 << 20

    /// Converts 64 MiB with its bytes kept, once in one file and once between two, and prints what each took.
    func measureTwoCopies() throws {
        let terminal = Terminal.output
        let chosen = try kernel.open(doors: .one, preservation: true)
        do throws(Errno) {
            let inPlace = try Self.inPlace(chosen.kernel)
            terminal.paragraph("in place, one file of \(chosen.kernel.identity):", indent: 3)
            row("shared", inPlace.before)
            row("after the conversion to private", inPlace.after)
            let copies = try Self.twoCopies()
            terminal.paragraph(
                "two copies, two pieces of shared memory of this process that stand for the two memories of per-VM "
                    + "attributes:", indent: 3)
            row("shared", copies.before)
            row("while the bytes are carried over", copies.during)
            row("when the old copy is given back", copies.after)
        } catch {
            notShown("the memory cannot be had or measured here (\(error.name))")
        }
    }

    private func row(_ what: String, _ bytes: UInt64) {
        let text = what + String(repeating: " ", count: max(1, 34 - what.count))
        Terminal.output.print("     \(text)\(bytes >> 20) MiB")
    }

    private static func inPlace(_ kernel: any KVMInterface) throws(Errno) -> (before: UInt64, after: UInt64) {
        let vm = try kernel.createVM(.softwareProtected, sharedBit: nil)
        let file = try vm.createGuestMemfd(size: size, flags: [.mmap, .initShared])
        let mapping = try file.map(offset: 0, length: size)
        guard let whole = PageRange(start: 0, size: size) else { throw .invalidArgument }
        let memory = GuestMemory(
            regions: [MemoryRegion(gpa: whole, file: file, mapping: mapping)], initial: .shared)
        let mebibyte = [UInt8](repeating: 0x41, count: 1 << 20)
        do throws(HostAccessError) {
            for gpa in stride(from: 0, to: size, by: 1 << 20) { try memory.write(gpa: gpa, mebibyte) }
        } catch {
            throw error.errno
        }
        let before = try existing(at: mapping.address)
        let converter = Converter(
            kernel: kernel, vm: vm, memory: memory, holds: HoldRegistry(), policy: RetryPolicy(), trace: nil)
        do throws(ConversionError) {
            try converter.convert(
                ConversionRequest(range: whole, to: .private, contents: .preserve), by: .host)
        } catch {
            throw error.errno
        }
        return (before, try existing(at: mapping.address))
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

    /// Bytes of pages that exist.
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

/// Memory of this process that could be shared with another.
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
