// SPDX-License-Identifier: MIT
import CKVMShim
import Synchronization
import SystemPackage

/// References on pages that keep them from becoming private. Released by ``release()`` or by deinit.
public protocol PageHold: AnyObject, Sendable {
    /// Lets go; when it returns the kernel counts the references no more. Calling it again does nothing.
    func release()
}

/// Pages in a pipe: `vmsplice` took a reference on each, and draining the pipe drops it.
final class PipeHold: PageHold {
    private let ends: Mutex<Ends?>

    private struct Ends: ~Copyable {
        let reading: OwnedDescriptor
        let writing: OwnedDescriptor
    }

    init(address: UInt64, length: Int) throws(Errno) {
        let ends: Ends
        do {
            let pipe = try FileDescriptor.pipe()
            ends = Ends(
                reading: OwnedDescriptor(owning: pipe.readEnd.rawValue),
                writing: OwnedDescriptor(owning: pipe.writeEnd.rawValue))
        } catch {
            throw (error as? Errno) ?? .ioError
        }
        // What it could get is in the pipe; asked for the rest, the kernel says why there is no more.
        var taken = 0
        while taken < length {
            let more = try value(
                ckvm_vmsplice(ends.writing.rawValue, address + UInt64(taken), UInt64(length - taken)))
            guard more > 0 else { throw .resourceTemporarilyUnavailable }
            taken += more
        }
        self.ends = Mutex(consume ends)
    }

    /// Closing both ends drops the pipe's references.
    func release() { ends.withLock { $0 = nil } }
}
