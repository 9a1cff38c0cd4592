// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SoftKVM
import SystemPackage

/// A process forked from the host. It keeps the views that existed then, whatever happens to the host's.
protocol Child: AnyObject, Sendable {
    /// Like ``HostMapping/read(at:into:)``.
    func read(_ view: Name, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(Errno)
        -> Int
    func write(_ view: Name, at offset: UInt64, from buffer: UnsafeRawBufferPointer) throws(Errno) -> Int
    /// Accesses bytes of a view; nil if the child has no view of that name.
    func length(of view: Name) -> UInt64?
    /// The process; nil if the child is part of the model.
    var process: Int32? { get }
    /// The mapping itself, if the child is part of the model.
    func mapping(of view: Name) -> (any HostMapping)?
}

/// A real child. One request at a time: an actor has one thread.
final class ForkedChild: Child {
    private let views: [Name: (address: UInt64, length: UInt64)]
    private let socket: Int32
    private let pid: Int32

    /// - Throws: the errno of `fork` or `socketpair`.
    init(_ views: [Name: any HostMapping]) throws(Errno) {
        self.views = views.mapValues { ($0.address, $0.length) }
        var socket: Int32 = -1
        let pid = try value(unsafe ckvm_child_fork(&socket))
        self.socket = socket
        self.pid = Int32(truncatingIfNeeded: pid)
    }

    deinit { ckvm_child_end(socket, pid) }

    var process: Int32? { pid }
    func length(of view: Name) -> UInt64? { views[view]?.length }
    func mapping(of view: Name) -> (any HostMapping)? { nil }

    func read(_ view: Name, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(Errno)
        -> Int
    {
        guard let (address, _) = views[view], let base = buffer.baseAddress else { throw .invalidArgument }
        let count = UInt32(min(buffer.count, Int(CKVM_CHILD_CHUNK)))
        return try value(unsafe ckvm_child_read(socket, address + offset, base, count))
    }

    func write(_ view: Name, at offset: UInt64, from buffer: UnsafeRawBufferPointer) throws(Errno) -> Int {
        guard let (address, _) = views[view], let base = buffer.baseAddress else { throw .invalidArgument }
        let count = UInt32(min(buffer.count, Int(CKVM_CHILD_CHUNK)))
        return try value(unsafe ckvm_child_write(socket, address + offset, base, count))
    }
}

/// A child on SoftKVM, whose mappings are not memory of this process.
final class ModelChild: Child {
    private let views: [Name: any HostMapping]

    init(_ views: [Name: any HostMapping]) throws(Errno) {
        var own: [Name: any HostMapping] = [:]
        for (name, view) in views { own[name] = try (view as? SoftHostMapping)?.forked() ?? view }
        self.views = own
    }

    var process: Int32? { nil }
    func length(of view: Name) -> UInt64? { views[view]?.length }
    func mapping(of view: Name) -> (any HostMapping)? { views[view] }

    func read(_ view: Name, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(Errno)
        -> Int
    {
        guard let view = views[view] else { throw .invalidArgument }
        return try unsafe view.read(at: offset, into: buffer)
    }

    func write(_ view: Name, at offset: UInt64, from buffer: UnsafeRawBufferPointer) throws(Errno) -> Int {
        guard let view = views[view] else { throw .invalidArgument }
        return try unsafe view.write(at: offset, from: buffer)
    }
}
