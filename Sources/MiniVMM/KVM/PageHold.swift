/// References on pages that keep them from becoming private. Released by ``release()`` or by deinit.
public protocol PageHold: AnyObject, Sendable {
    /// Lets go; when it returns the kernel counts the references no more. Calling it again does nothing.
    func release()
}

/// Who takes references on guest pages, each in its own way.
public enum HoldKind: String, CaseIterable, Sendable {
    /// Pages in a pipe, until it is drained (`vmsplice(2)`).
    case vmsplice
    /// A fixed buffer of io_uring, a long-term pin until it is unregistered (`IORING_REGISTER_BUFFERS`).
    case ioUring = "io_uring"
    /// A write with `O_DIRECT` that the device has not completed. It cannot be taken back: letting go waits for it.
    case directIO = "o_direct"
    /// A long-term pin by the kernel's own test device (`PIN_LONGTERM_TEST_START`, CONFIG_GUP_TEST).
    case gupTest = "gup_test"
}
