// SPDX-License-Identifier: MIT
import CKVMShim
import Glibc
public import SystemPackage

// Counts of the pages that a kernel has mapped.

extension LinuxVM: SecondStageCounting {
    /// Reads `KVM_GET_STATS_FD`, which the first call opens and keeps.
    ///
    /// - Throws: `ENOTTY` where the kernel has no binary statistics (before 5.14), `ENOENT` where they have
    ///   no `pages_4k`, `EINVAL` or `EIO` if they are malformed, `EMFILE` or `ENFILE` without a descriptor.
    public func countPages4K() throws(Errno) -> UInt64 {
        try pages4K.withLock { known throws(Errno) in
            let statistic: BinaryStatistic
            if let known {
                statistic = known
            } else {
                let descriptor = try ioctl(vm, CKVM_GET_STATS_FD)
                statistic = try BinaryStatistic(owning: Int32(descriptor), "pages_4k")
                known = statistic
            }
            return try statistic.value()
        }
    }
}

extension LinuxHostMapping: ResidencyCounting {
    /// Reads `/proc/self/pagemap`: bit 63 of a page's word.
    ///
    /// - Throws: the errno of opening or reading the file, `EIO` if it ends early.
    public func residentPages(at offset: UInt64, length: UInt64) throws(Errno) -> UInt64 {
        guard let pages = PageRange.covering(start: address + offset, size: length) else { return 0 }
        do {
            let path = FilePath("/proc/self/pagemap")
            let file = try FileDescriptor.open(path, .readOnly, options: .closeOnExec)
            defer { try? file.close() }
            var count: UInt64 = 0
            // One word per page, read in batches.
            for part in pages.chunks(of: 512 * pageSize) {
                var words = [UInt64](repeating: 0, count: Int(part.size / pageSize))
                let wanted = words.count * 8
                let place = Int64(part.start / pageSize * 8)
                let got = unsafe try words.withUnsafeMutableBytes { bytes in
                    unsafe try file.read(fromAbsoluteOffset: place, into: bytes)
                }
                guard got == wanted else { throw Errno.ioError }
                count += words.reduce(0) { $0 + $1 >> 63 }
            }
            return count
        } catch {
            throw (error as? Errno) ?? .ioError
        }
    }
}

/// A value of `KVM_GET_STATS_FD`. Keeps the VM alive.
final class BinaryStatistic: Sendable {
    private let file: OwnedDescriptor
    /// The value's offset in the file.
    private let place: Int

    /// Looks up the offset of a statistic's first value.
    init(owning descriptor: Int32, _ name: String) throws(Errno) {
        file = OwnedDescriptor(owning: descriptor)
        place = try Self.place(of: name, descriptor)
    }

    func value() throws(Errno) -> UInt64 {
        let value = try Self.words(file.rawValue, at: place, 2)
        return UInt64(value[1]) << 32 | UInt64(value[0])
    }

    private static func place(of name: String, _ file: Int32) throws(Errno) -> Int {
        // struct kvm_stats_header: flags, name_size, num_desc, id_offset, desc_offset, data_offset.
        let header = try words(file, at: 0, 6)
        let (nameSize, count, start, data) = (Int(header[1]), Int(header[2]), Int(header[4]), Int(header[5]))
        guard (1...4096).contains(nameSize), count <= 10_000 else { throw .invalidArgument }
        for index in 0..<count {
            // struct kvm_stats_desc: flags, exponent and size, offset, bucket_size, name.
            let place = start + index * (16 + nameSize)
            let bytes = try self.bytes(file, at: place + 16, nameSize).prefix { $0 != 0 }
            guard String(decoding: bytes, as: UTF8.self) == name else { continue }
            return data + Int(try words(file, at: place + 8, 1)[0])
        }
        throw .noSuchFileOrDirectory
    }

    private static func words(_ file: Int32, at offset: Int, _ count: Int) throws(Errno) -> [UInt32] {
        let bytes = try bytes(file, at: offset, count * 4)
        return (0..<count).map { index in
            bytes[index * 4..<index * 4 + 4].reversed().reduce(0) { $0 << 8 | UInt32($1) }
        }
    }

    private static func bytes(_ file: Int32, at offset: Int, _ count: Int) throws(Errno) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        let got = unsafe bytes.withUnsafeMutableBytes { buffer in
            unsafe pread(file, buffer.baseAddress, count, offset)
        }
        guard got == count else { throw got < 0 ? Errno(rawValue: errno) : .ioError }
        return bytes
    }
}
