// SPDX-License-Identifier: MIT
public import ConversionModel
public import MiniVMM

/// References of a holder on the host to pages of a file.
public final class SoftPageHold: PageHold, @unchecked Sendable {
    let model: Model
    /// Nil if the model keeps the bytes.
    private let memory: FileMemory?
    /// The pages, by offset in the file.
    let pages: PageRange?
    /// The number of this hold in the model; nil once released. If the model keeps the bytes, the number stays,
    /// because another state of the model may still have the hold. Guarded by the model's lock.
    public private(set) var number: HoldID?

    /// Capacity of a pipe, in pages.
    public static let pipePages = KernelModel.pipePages

    init(_ model: Model, _ number: HoldID, _ memory: FileMemory?) {
        self.model = model
        self.number = number
        self.memory = memory
        pages = model.withLock { model.kernel.pages(of: number) }
    }

    deinit {
        if !model.keepsBytes { release() }
    }

    /// Drops the references. A second call does nothing. Bytes that only this hold kept are lost.
    public func release() {
        model.call {
            guard let number else { return }
            model.kernel.release(number)
            _ = model.takeDetachedPages(number)
            if !model.keepsBytes { self.number = nil }
        }
    }

    /// Reads bytes of the held pages, as a device with access to them would: from the file, or from a page as it
    /// was when it was punched out.
    ///
    /// - Parameter offset: bytes from the start of the first page. The range must be inside one page.
    /// - Returns: nil once released.
    public func read(at offset: UInt64, count: Int) -> [UInt8]? {
        model.call { bytes(at: offset, count) }
    }

    private func bytes(at offset: UInt64, _ count: Int) -> [UInt8]? {
        let start = Int(offset % pageSize)
        guard let number, let pages, offset < pages.size, count <= Int(pageSize) - start else { return nil }
        let page = pages.start + (offset - UInt64(start))
        guard let memory else {
            return (0..<count).map { model.kernel.byte(number, at: offset + UInt64($0)).value }
        }
        if let old = model.detachedPage(number, page) { return Array(old[start..<start + count]) }
        let bytes = unsafe memory.bytes(at: page) + start
        return unsafe [UInt8](UnsafeRawBufferPointer(start: bytes, count: count))
    }

    /// Writes bytes of one value to the held pages, in the same way as ``read(at:count:)``.
    public func fill(at offset: UInt64, count: Int, with byte: UInt8) {
        model.call {
            let start = Int(offset % pageSize)
            guard let number, let pages, offset < pages.size, count <= Int(pageSize) - start else { return }
            guard let memory else {
                return model.kernel.fill(number, at: offset, count: UInt64(count), with: byte)
            }
            let page = pages.start + (offset - UInt64(start))
            if var old = model.detachedPage(number, page) {
                for place in start..<start + count { old[place] = byte }
                return model.setDetachedPage(number, page, old)
            }
            unsafe (memory.bytes(at: page) + start).initializeMemory(
                as: UInt8.self, repeating: byte, count: count)
            if let range = PageRange(start: page, size: pageSize) {
                model.kernel.noteHostWrite(model.kernel.file(of: number), range)
            }
        }
    }

    /// The bytes of the `index`-th held page, as read from the pipe of a `vmsplice`: as they are now, or as they
    /// were when the page was punched out of the file (hazard A11). Nil once released.
    public func contents(ofPage index: Int) -> [UInt8]? {
        model.withLock { bytes(at: UInt64(index) * pageSize, Int(pageSize)) }
    }
}
