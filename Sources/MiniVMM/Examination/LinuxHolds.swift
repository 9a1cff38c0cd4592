// SPDX-License-Identifier: MIT
import CKVMShim
import Synchronization
import SystemPackage

// Holders of page references other than a pipe.

extension LinuxHostMapping: HoldableMapping {
    /// Offset and length are in bytes. O_DIRECT needs `/dev/nullb0`; a pin by the test device needs root and
    /// `/sys/kernel/debug/gup_test`.
    ///
    /// - Throws: `EFAULT` for a page that the host cannot access or that is outside the mapping; `EAGAIN` if
    ///   `vmsplice` gets more pages than fit in a pipe; `EINVAL` if a device needs alignment; `ENOSYS` or
    ///   `EPERM` without io_uring; `ENOENT` or `EACCES` without the device; `EMFILE`, `ENFILE` or `ENOMEM` if
    ///   the host has no descriptor or memory left.
    public func hold(_ kind: HoldKind, at offset: UInt64, length: UInt64) throws(Errno) -> any PageHold {
        let address = try start(of: offset, length)
        return switch kind {
        case .vmsplice: try hold(at: offset, length: length)
        case .ioUring: try FixedBufferHold(address: address, length: length)
        case .directIO: try DirectIOHold(address: address, length: length)
        case .gupTest: try LongTermPinHold(address: address, length: length)
        }
    }
}

/// A fixed buffer of an io_uring: `IORING_REGISTER_BUFFERS` pins its pages for as long as it is registered.
final class FixedBufferHold: PageHold {
    private let ring: Mutex<OwnedDescriptor?>

    init(address: UInt64, length: UInt64) throws(Errno) {
        let ring = OwnedDescriptor(owning: Int32(try value(ckvm_io_uring_setup())))
        _ = try value(ckvm_io_uring_register_buffer(ring.rawValue, address, length))
        self.ring = Mutex(consume ring)
    }

    deinit { release() }

    /// Unregisters the buffer first, because a kernel thread frees a closed ring only later.
    func release() {
        ring.withLock { ring in
            if let number = ring?.rawValue { _ = ckvm_io_uring_unregister_buffers(number) }
            ring = nil
        }
    }
}

/// An `O_DIRECT` write of the pages that is in flight.
///
/// The device has to be slow: null_blk with `irqmode=2` completes a request `completion_nsec` after it arrives.
final class DirectIOHold: PageHold {
    /// The device that the pages are written to. It discards them.
    static let device: FilePath = "/dev/nullb0"
    private let request: Mutex<Request?>

    private struct Request: ~Copyable {
        let file: OwnedDescriptor
        let context: UInt64
    }

    init(address: UInt64, length: UInt64) throws(Errno) {
        let file = OwnedDescriptor(owning: Int32(try value(unsafe ckvm_open_direct(Self.device.string))))
        var context: UInt64 = 0
        _ = try value(
            unsafe ckvm_aio_write(file.rawValue, address, length, &context))
        request = Mutex(Request(file: file, context: context))
    }

    deinit { release() }

    func release() {
        request.withLock { request in
            if let context = request?.context { ckvm_aio_finish(context) }
            request = nil
        }
    }
}

/// A long-term pin by /sys/kernel/debug/gup_test. Requires root.
final class LongTermPinHold: PageHold {
    static let device: FilePath = "/sys/kernel/debug/gup_test"
    private let file: Mutex<OwnedDescriptor?>

    init(address: UInt64, length: UInt64) throws(Errno) {
        guard (address | length) % pageSize == 0 else { throw .invalidArgument }
        let file: OwnedDescriptor
        do {
            file = OwnedDescriptor(
                owning: try FileDescriptor.open(Self.device, .readWrite, options: .closeOnExec).rawValue)
        } catch {
            throw (error as? Errno) ?? .ioError
        }
        var request = ckvm_pin_longterm_test()
        request.addr = address
        request.size = length
        request.flags = CKVM_PIN_LONGTERM_TEST_FLAG_USE_WRITE
        try ioctl(file, CKVM_PIN_LONGTERM_TEST_START, &request)
        self.file = Mutex(consume file)
    }

    deinit { release() }

    func release() {
        file.withLock { file in
            if let number = file?.rawValue { _ = ckvm_ioctl_value(number, CKVM_PIN_LONGTERM_TEST_STOP, 0) }
            file = nil
        }
    }
}
