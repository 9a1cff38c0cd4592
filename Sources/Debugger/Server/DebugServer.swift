// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import Synchronization
import SystemPackage

/// Serves one debugger at a time, on a thread of its own. That thread alone talks to the client and calls the
/// ``DebugTarget``; other threads only wake it.
///
/// If the client disconnects without detaching, the guest stays as it is, as under QEMU: a stopped guest waits for the next
/// debugger, and a running one goes on until it reaches a breakpoint. A new client stops the guest.
package final class DebugServer: Sendable {
    private let listener: DebugListener
    private let target: any DebugTarget
    /// Readable when the guest may have stopped or ended.
    private let wake: EventDescriptor
    private let ending = Mutex<DebugEnding?>(nil)
    private let thread = Mutex<HostThread?>(nil)

    /// - Parameter wake: whoever stops the guest signals it.
    package init(_ listener: DebugListener, _ target: any DebugTarget, wake: EventDescriptor) {
        self.listener = listener
        self.target = target
        self.wake = wake
    }

    /// Starts the thread.
    ///
    /// - Throws: `EAGAIN` if the system cannot create another thread.
    package func start() throws(Errno) {
        guard let thread = HostThread({ [self] in serve() }) else { throw .resourceTemporarilyUnavailable }
        self.thread.withLock { $0 = thread }
    }

    /// Tells a waiting client how the guest has ended, closes the connection and joins the thread.
    package func finish(_ ending: DebugEnding) {
        self.ending.withLock { $0 = ending }
        wake.signal()
        thread.withLock { $0 }?.join()
    }

    // MARK: the thread

    private struct Client {
        let connection: DebugConnection
        var session: DebugSession
        /// Whether the guest has stopped for this client, so that its packets can be answered.
        var isReady = false
        /// It has detached. Its end of the connection is awaited, because closing this one first could lose the answer.
        var isLeaving = false
    }

    private func serve() {
        var client: Client?
        while true {
            // A client's bytes stay in the socket until the guest has stopped for it.
            let input = client?.isReady == true ? client?.connection.number ?? -1 : -1
            let ready = wait([wake.number, listener.number, input])
            if ready & 1 != 0 {
                wake.clear()
                if let ending = ending.withLock({ $0 }) {
                    if let connection = client?.connection {
                        client?.session.ended(ending, send: connection.send)
                    }
                    return
                }
                stop(&client)
            }
            if ready & 2 != 0, let connection = try? listener.accept() { connect(connection, &client) }
            if ready & 4 != 0 { receive(&client) }
        }
    }

    private func wait(_ descriptors: [Int32]) -> Int {
        unsafe descriptors.withUnsafeBufferPointer { buffer in
            guard let base = buffer.baseAddress else { return 0 }
            return max(0, unsafe ckvm_wait_readable(base, UInt32(buffer.count)))
        }
    }

    private func connect(_ connection: DebugConnection, _ client: inout Client?) {
        guard client == nil || client?.isLeaving == true || client?.connection.isHungUp == true else {
            connection.send(Packet.encoded(Array("E.another debugger is connected".utf8)))
            return
        }
        client = Client(connection: connection, session: DebugSession(target))
        target.interrupt()
        wake.signal()
    }

    private func stop(_ client: inout Client?) {
        guard client != nil, let reason = target.takeStop(), let connection = client?.connection else {
            return
        }
        var first = reason
        if client?.isReady == false {
            target.begin()
            // The state that a debugger expects when it connects.
            if reason.signal == .interrupt { first = StopReason(thread: reason.thread, signal: .trap) }
        }
        client?.session.stopped(first, send: connection.send)
        client?.isReady = true
    }

    private func receive(_ client: inout Client?) {
        guard let connection = client?.connection else { return }
        let bytes = connection.receive()
        guard !bytes.isEmpty else {
            client = nil
            return
        }
        guard client?.isLeaving == false else { return }
        switch client?.session.take(bytes, send: connection.send) {
        case .kill?: target.kill()
        case .detach?: break
        default: return
        }
        client?.isLeaving = true
    }
}
