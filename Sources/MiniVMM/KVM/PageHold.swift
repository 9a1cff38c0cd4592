// SPDX-License-Identifier: MIT
import CKVMShim
import Synchronization
import SystemPackage

/// References on pages that keep them from becoming private. Released by ``release()`` or by deinit.
public protocol PageHold: AnyObject, Sendable {
    /// Releases the references; when it returns the kernel no longer counts them. Calling it again does nothing.
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
        // The pipe may have taken fewer pages; asking for the rest makes the kernel report why.
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
