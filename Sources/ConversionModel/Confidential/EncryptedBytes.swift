// SPDX-License-Identifier: MIT
// Contents follow keys: a byte reads as it was written only with the key it was written with. Each page of a confidential VM
// has two contents, as the host's key and as the guest's key decrypt it. A write with one key changes what the other one
// finds, so no conversion needs a rule of its own.

extension KernelModel {
    /// The pages of a file of a confidential VM, beyond those of every guest_memfd.
    struct EncryptedPages: Hashable, Sendable {
        /// SNP: the reverse map table, by byte offset in the file.
        var reverseMap: RunMap<RMPEntry>
        /// The bytes as the guest's key decrypts them; ``File/bytes`` is the host's view. Memory that the guest has never
        /// written is garbled.
        var guestBytes = FileBytes(absent: .garbled)

        /// - Parameter size: bytes of the file.
        init(size: UInt64) { reverseMap = RunMap(size: size, initial: .hypervisor) }
    }

    /// The bytes of a file as a key decrypts them.
    func bytes(of file: FileID, with key: MemoryKey) -> FileBytes {
        if key == .guest, let encrypted = self[file].encrypted { return encrypted.guestBytes }
        return self[file].bytes
    }

    /// Writes `count` bytes of one value with a key.
    mutating func write(_ file: FileID, at offset: UInt64, count: UInt64, _ byte: UInt8, with key: MemoryKey)
    {
        guard count > 0, self[file].encrypted != nil else {
            return self[file].bytes.fill(.known(byte), from: offset, count: count)
        }
        switch key {
        case .host:
            self[file].bytes.fill(.known(byte), from: offset, count: count)
            let lines = lines(of: file, offset, count)
            self[file].encrypted?.guestBytes.fill(.garbled, from: lines.start, count: lines.count)
        case .guest:
            self[file].encrypted?.guestBytes.fill(.known(byte), from: offset, count: count)
            noteGuestContents(file, offset, count)
        }
    }

    /// The host's view of bytes that the guest has written: ciphertext on SNP. On TDX the memory controller returns zeros
    /// for a line of a TD.
    mutating func noteGuestContents(_ file: FileID, _ offset: UInt64, _ count: UInt64) {
        // A caller who keeps the bytes keeps them as the owner of the page sees them.
        guard contents == .inside else { return }
        let lines = lines(of: file, offset, count)
        if plants(.plaintextShownToHost), let guest = self[file].encrypted?.guestBytes {
            for place in lines.start..<lines.start + lines.count {
                self[file].bytes.set(guest.byte(at: place), at: place)
            }
            return
        }
        let seen: Byte = self[file].vmType == .tdx ? .known(0) : .garbled
        self[file].bytes.fill(seen, from: lines.start, count: lines.count)
    }

    /// The blocks that are encrypted as one: 16 bytes on SNP; on TDX the line of 64 bytes to which integrity applies.
    private func lines(of file: FileID, _ offset: UInt64, _ count: UInt64) -> (start: UInt64, count: UInt64) {
        let line: UInt64 = self[file].vmType == .tdx ? 64 : 16
        let start = offset & ~(line - 1)
        // The last byte is in a page, so the end of its line does not wrap.
        return (start, (offset + count - 1 | (line - 1)) + 1 - start)
    }

    /// The host finds zeros from now on.
    mutating func clearForHost(_ file: FileID, _ range: PageRange) {
        if contents == .inside { self[file].bytes.discard(range) }
        note(.overwritten(file, range, .zeros))
    }

    /// The guest reads zeros from now on, as if it had written them.
    mutating func zeroForGuest(_ file: FileID, _ page: PageRange) {
        if contents == .inside {
            self[file].encrypted?.guestBytes.fill(.known(0), from: page.start, count: page.size)
            noteGuestContents(file, page.start, page.size)
        }
        note(.overwritten(file, page, .zeros))
    }

    /// The pages are new: zeros for the host, and garbled for the guest.
    mutating func forgetGuestContents(_ file: FileID, _ range: PageRange) {
        guard contents == .inside else { return }
        self[file].encrypted?.guestBytes.discard(range)
    }
}
