/// References on pages that keep them from becoming private. Released by ``release()`` or by deinit.
public protocol PageHold: AnyObject, Sendable {
    /// Lets go; when it returns the kernel counts the references no more. Calling it again does nothing.
    func release()
}
