// SPDX-License-Identifier: MIT
public import ConversionModel
public import MiniVMM

/// References on pages of a file that somebody on the host has.
public final class SoftPageHold: PageHold, @unchecked Sendable {
    let model: Model
    /// Nil where the model keeps the bytes.
    private let memory: FileMemory?
    /// Where in the file the pages are.
    let pages: PageRange?
    /// Its number in the model; nil once released, but where the model keeps the bytes: there another state may still have it.
    /// Guarded by the model's lock.
    public private(set) var number: HoldID?

    /// Pages that a pipe takes before it is full.
    public static let pipePages = KernelModel.pipePages

    init(_ model: Model, _ number: HoldID, _ memory: FileMemory?) {
        self.model = model
        self.number = number
        self.memory = memory
        pages = model.look { model.kernel.pages(of: number) }
    }

    deinit {
        if !model.isValue { release() }
    }

    /// Drops the references; a second call does nothing. Bytes that only this hold had are gone.
    public func release() {
        model.call {
            guard let number else { return }
            model.kernel.release(number)
            _ = model.takeDetachedPages(number)
            giveAway()
        }
    }

    /// Copies what the holder has, as a device would that was given the pages: from the file, or from the page as it was
    /// when it was punched out.
    ///
    /// - Parameter offset: bytes from the start of the first page; what is asked for is inside one page.
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

    /// Writes one byte value to a part of what the holder has. The same rules.
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

    /// What comes out of the pipe, for instance: the bytes of the `index`-th page as they are now, or as they were when it was
    /// punched out of the file (hazard A11). Nil once released.
    public func contents(ofPage index: Int) -> [UInt8]? {
        model.look { bytes(at: UInt64(index) * pageSize, Int(pageSize)) }
    }

    /// The references are another's, or gone.
    private func giveAway() {
        if !model.isValue { number = nil }
    }
}
