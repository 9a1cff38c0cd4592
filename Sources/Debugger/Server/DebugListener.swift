// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SystemPackage

/// Where the server listens: a Unix socket, or a TCP port of the loopback interface. Nothing else is accepted.
package enum DebugAddress: Equatable, Sendable {
    case socket(path: String)
    case port(UInt16)

    /// A number from 1 to 65535, with or without a colon before it, is a port; what looks like a host and a port is refused;
    /// anything else is a path.
    ///
    /// - Returns: nil for an empty text, port 0 or above 65535, or a host.
    package init?(_ text: String) {
        let number = text.hasPrefix(":") ? text.dropFirst() : text[...]
        if !number.isEmpty, number.utf8.allSatisfy({ (0x30...0x39).contains($0) }) {
            guard let port = UInt16(number), port > 0 else { return nil }
            self = .port(port)
        } else {
            guard !text.isEmpty, text.contains("/") || !text.contains(":") else { return nil }
            self = .socket(path: text)
        }
    }

    /// The command of GDB that connects to it.
    package var command: String {
        switch self {
        case .socket(let path): "target remote \(path)"
        case .port(let port): "target remote :\(port)"
        }
    }
}

/// A listening socket. A Unix socket's file is removed with it.
package final class DebugListener: Sendable {
    package let address: DebugAddress
    private let descriptor: OwnedDescriptor

    /// Listens. The socket's file has mode 0600; a file left by a server that has ended is replaced.
    ///
    /// - Throws: `EADDRINUSE` if the port or the path is taken, `ENAMETOOLONG` for a path of more than 107 bytes, and
    ///   the other errnos of `bind(2)`.
    package init(_ address: DebugAddress) throws(Errno) {
        self.address = address
        switch address {
        case .socket(let path):
            descriptor = OwnedDescriptor(owning: Int32(try value(unsafe ckvm_listen_unix(path))))
        case .port(let port):
            descriptor = OwnedDescriptor(owning: Int32(try value(ckvm_listen_loopback(port))))
        }
    }

    deinit {
        if case .socket(let path) = address { unsafe ckvm_unlink(path) }
    }

    var number: Int32 { descriptor.rawValue }

    /// - Throws: the errno of `accept4(2)`.
    func accept() throws(Errno) -> DebugConnection {
        DebugConnection(owning: Int32(try value(ckvm_accept(number))))
    }
}

/// A connection to a debugger. Belongs to the server's thread.
package final class DebugConnection: Sendable {
    private let descriptor: OwnedDescriptor

    package init(owning descriptor: Int32) { self.descriptor = OwnedDescriptor(owning: descriptor) }

    var number: Int32 { descriptor.rawValue }

    /// Whether the client has closed its end, even if there are bytes to read.
    var isHungUp: Bool { ckvm_is_hung_up(number) }

    /// - Returns: the bytes that are there; empty at the end of the connection or after an error.
    func receive() -> [UInt8] {
        let size = 4096
        return unsafe [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
            guard let base = buffer.baseAddress else { return }
            count = max(0, unsafe ckvm_receive(number, base, UInt64(size)))
        }
    }

    /// A client that takes nothing for this long is given up, nanoseconds.
    private static let patience: Int64 = 10_000_000_000

    /// Sends all of it. An error is not reported: the next ``receive()`` finds the connection closed.
    func send(_ bytes: [UInt8]) {
        unsafe bytes.withUnsafeBytes { buffer in
            guard let base = buffer.baseAddress else { return }
            let result = unsafe ckvm_send_all(number, base, UInt64(buffer.count), Self.patience)
            if result != 0 { ckvm_shutdown(number) }
        }
    }
}
