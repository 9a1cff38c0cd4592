// SPDX-License-Identifier: MIT
import CKVMShim
import Glibc
import MiniVMM
import SystemPackage

/// The bytes of a guest_memfd, in a sparse memfd. Only pages that were accessed take memory.
///
/// Guarded by the model's lock.
@safe final class FileMemory: @unchecked Sendable {
    private let backing: OwnedDescriptor
    /// A mapping of the whole backing. The model reads and writes pages through it, and the engine runs on them.
    private let mapping: OwnedMapping
    /// Size of the backing, bytes.
    let size: UInt64

    /// Largest size of the backing. A file can be larger than an address space; the rest of it has no memory.
    static let maximumSize = KernelModel.backedBytes

    /// - Parameter size: size of the file, bytes.
    init(size: UInt64) throws(Errno) {
        self.size = min(size, Self.maximumSize)
        backing = OwnedDescriptor(owning: Int32(try value(unsafe ckvm_memfd_create("guest_memfd"))))
        guard ftruncate(backing.rawValue, Int(self.size)) == 0 else { throw Errno(rawValue: errno) }
        mapping = try OwnedMapping(backing, length: self.size, reserve: false)
    }

    var descriptor: Int32 { backing.rawValue }

    /// `mmap` of a part. Past the end of the file it only reserves address space.
    func map(offset: UInt64, length: UInt64) throws(Errno) -> OwnedMapping {
        try OwnedMapping(backing, offset: offset, length: length, reserve: false)
    }

    /// The address of the byte at an offset, which must be inside the backing. The following bytes of the file come
    /// after it.
    func bytes(at offset: UInt64) -> UnsafeMutableRawPointer { unsafe mapping.base + Int(offset) }

    func page(at offset: UInt64) -> [UInt8] {
        guard offset < size else { return [UInt8](repeating: 0, count: Int(pageSize)) }
        return unsafe [UInt8](UnsafeRawBufferPointer(start: bytes(at: offset), count: Int(pageSize)))
    }

    /// The pages read as zeros from now on.
    func discard(_ range: PageRange) {
        guard let part = PageRange(start: 0, size: size)?.intersection(range) else { return }
        let result = ckvm_fallocate(backing.rawValue, true, Int64(part.start), Int64(part.size))
        // If there is no memory for the bookkeeping of the hole, the pages are zeroed instead.
        if result != 0 { overwrite(part) { 0 } }
    }

    /// Turns the plaintext of the pages into ciphertext, or ciphertext into plaintext.
    func apply(_ cipher: PageCipher, to range: PageRange, decrypting: Bool) {
        guard let part = PageRange(start: 0, size: size)?.intersection(range) else { return }
        let words = unsafe bytes(at: part.start).assumingMemoryBound(to: UInt64.self)
        for block in 0..<part.size / 16 {
            let place = part.start / 16 + block
            let pair = unsafe (words[Int(block * 2)], words[Int(block * 2) + 1])
            let (low, high) = decrypting ? cipher.decrypt(pair, at: place) : cipher.encrypt(pair, at: place)
            unsafe words[Int(block * 2)] = low
            unsafe words[Int(block * 2) + 1] = high
        }
    }

    func overwrite(_ range: PageRange, with word: () -> UInt64) {
        guard let part = PageRange(start: 0, size: size)?.intersection(range) else { return }
        let words = unsafe bytes(at: part.start).assumingMemoryBound(to: UInt64.self)
        for index in 0..<Int(part.size / 8) { unsafe words[index] = word() }
    }
}
