import CKVMShim
import Glibc
public import SystemPackage

// What a kernel has mapped, counted.

extension LinuxVM: SecondStageCounting {
    public func countPages4K() throws(Errno) -> UInt64 {
        let descriptor = try ioctl(vm, CKVM_GET_STATS_FD)
        return try BinaryStatistics(owning: Int32(descriptor)).value(of: "pages_4k")
    }
}

extension LinuxHostMapping: ResidencyCounting {
    /// From `/proc/self/pagemap`: bit 63 of a page's word.
    public func residentPages(at offset: UInt64, length: UInt64) throws(Errno) -> UInt64 {
        guard let pages = PageRange.covering(start: address + offset, size: length) else { return 0 }
        do {
            let path = FilePath("/proc/self/pagemap")
            let file = try FileDescriptor.open(path, .readOnly, options: .closeOnExec)
            defer { try? file.close() }
            var count: UInt64 = 0
            for page in pages.chunks(of: pageSize) {
                var word: UInt64 = 0
                let place = Int64(page.start / pageSize * 8)
                let got = unsafe try withUnsafeMutableBytes(of: &word) { bytes in
                    unsafe try file.read(fromAbsoluteOffset: place, into: bytes)
                }
                guard got == 8 else { throw Errno.ioError }
                count += word >> 63
            }
            return count
        } catch {
            throw (error as? Errno) ?? .ioError
        }
    }
}

/// The layout of `KVM_GET_STATS_FD`.
struct BinaryStatistics: ~Copyable {
    private let file: OwnedDescriptor

    init(owning descriptor: Int32) { file = OwnedDescriptor(owning: descriptor) }

    /// The first value of a statistic.
    func value(of name: String) throws(Errno) -> UInt64 {
        // struct kvm_stats_header: flags, name_size, num_desc, id_offset, desc_offset, data_offset.
        let header = try words(at: 0, 6)
        let (nameSize, count, start, data) = (Int(header[1]), Int(header[2]), Int(header[4]), Int(header[5]))
        guard (1...4096).contains(nameSize), count <= 10_000 else { throw .invalidArgument }
        for index in 0..<count {
            // struct kvm_stats_desc: flags, exponent and size, offset, bucket_size, name.
            let place = start + index * (16 + nameSize)
            let bytes = try self.bytes(at: place + 16, nameSize).prefix { $0 != 0 }
            guard String(decoding: bytes, as: UTF8.self) == name else { continue }
            let offset = Int(try words(at: place + 8, 1)[0])
            let value = try words(at: data + offset, 2)
            return UInt64(value[1]) << 32 | UInt64(value[0])
        }
        throw .noSuchFileOrDirectory
    }

    private func words(at offset: Int, _ count: Int) throws(Errno) -> [UInt32] {
        let bytes = try bytes(at: offset, count * 4)
        return (0..<count).map { index in
            bytes[index * 4..<index * 4 + 4].reversed().reduce(0) { $0 << 8 | UInt32($1) }
        }
    }

    private func bytes(at offset: Int, _ count: Int) throws(Errno) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        let got = unsafe bytes.withUnsafeMutableBytes { buffer in
            unsafe pread(file.rawValue, buffer.baseAddress, count, offset)
        }
        guard got == count else { throw got < 0 ? Errno(rawValue: errno) : .ioError }
        return bytes
    }
}
