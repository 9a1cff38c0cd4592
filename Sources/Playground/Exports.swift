// SPDX-License-Identifier: MIT
#if arch(wasm32)
    // The functions that the page calls. A browser runs them in one thread.

    /// The bytes of the request, which the page writes.
    nonisolated(unsafe) private var input: UnsafeMutableBufferPointer<UInt8>?
    /// The bytes of the last answer.
    nonisolated(unsafe) private var output: UnsafeMutableBufferPointer<UInt8>?

    /// The largest request, bytes: a test of the largest size, and its options.
    private let largestRequest = 4 << 20

    /// The address of a buffer for a request of `size` bytes; 0 if that is too much.
    @_expose(wasm, "playground_buffer") @_cdecl("playground_buffer")
    public func playgroundBuffer(size: UInt32) -> UInt32 {
        unsafe input?.deallocate()
        unsafe input = nil
        guard size <= largestRequest else { return 0 }
        let buffer = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: max(1, Int(size)))
        unsafe input = buffer
        return unsafe address(of: buffer)
    }

    /// Answers the request in the first `size` bytes of the buffer.
    ///
    /// - Returns: the number of bytes of the answer at ``playgroundOutput()``.
    @_expose(wasm, "playground_answer") @_cdecl("playground_answer")
    public func playgroundAnswer(size: UInt32) -> UInt32 {
        var request = ""
        if let buffer = unsafe input, size <= buffer.count {
            request = unsafe String(
                decoding: UnsafeBufferPointer(rebasing: buffer[..<Int(size)]), as: UTF8.self)
        }
        let bytes = Array(answer(request).utf8)
        unsafe output?.deallocate()
        let buffer = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: max(1, bytes.count))
        _ = unsafe buffer.initialize(from: bytes)
        unsafe output = buffer
        return UInt32(bytes.count)
    }

    /// The address of the last answer, which stays there until the next one.
    @_expose(wasm, "playground_output") @_cdecl("playground_output")
    public func playgroundOutput() -> UInt32 {
        unsafe output.map { unsafe address(of: $0) } ?? 0
    }

    private func address(of buffer: UnsafeMutableBufferPointer<UInt8>) -> UInt32 {
        unsafe buffer.baseAddress.map { UInt32(UInt(bitPattern: $0)) } ?? 0
    }
#endif
