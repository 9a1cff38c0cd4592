// SPDX-License-Identifier: MIT
import Debugger
import Foundation
import Synchronization
import SystemPackage
import Testing

@testable import MiniVMM

/// A guest under the debugger's server, and a client that talks to it over a Unix socket.
final class DebuggedGuest {
    let machine: Machine
    let console: Console
    private let debugger: GuestDebugger
    private let directory: URL
    private let path: String
    private let outcomes = Collected<Outcome>()
    private var thread: HostThread?
    private(set) var client: DebugClient

    /// Where a flat image begins.
    static let code: UInt64 = 0x100000

    /// mov $5, %rax; push %rax; 1: dec %rax; jnz 1b; pop %rax; out %al, $0xf4: ends with status 5.
    static let countdown: [UInt8] = [
        0x48, 0xc7, 0xc0, 5, 0, 0, 0, 0x50, 0x48, 0xff, 0xc8, 0x75, 0xfb, 0x58, 0xe6, 0xf4,
    ]

    init(
        _ image: [UInt8] = countdown, on backend: BackendUnderTest,
        _ change: (inout MachineConfiguration) -> Void = { _ in }
    ) throws {
        var configuration = MachineConfiguration()
        configuration.ramSize = 4 << 20
        configuration.hypercallInstruction = backend.hypercallInstruction
        change(&configuration)
        console = Console(nil, keeps: true)
        debugger = try GuestDebugger()
        machine = try Machine(
            backend: backend.required(aliases: configuration.aliases), configuration: configuration,
            image: .flat(image), console: console, observer: debugger)
        directory = FileManager.default.temporaryDirectory.appendingPathComponent(
            "minivmm-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        path = directory.appendingPathComponent("gdb").path
        try debugger.start(machine, DebugListener(.socket(path: path)))
        client = try DebugClient(path)
        let (machine, debugger, outcomes) = (machine, debugger, outcomes)
        let started = HostThread {
            let outcome = machine.run(timeout: .seconds(600))
            debugger.finish(outcome)
            outcomes.add(outcome)
        }
        thread = started
    }

    deinit {
        // A test that has failed may leave the guest stopped.
        machine.stop(.interrupted(signal: 2))
        thread?.join()
        try? FileManager.default.removeItem(at: directory)
    }

    /// A further connection to the server.
    func connect() throws -> DebugClient { try DebugClient(path) }

    /// Closes the connection and opens a new one.
    func reconnect() throws {
        client.close()
        client = try connect()
    }

    /// Ends the guest, if it has not ended, and returns how.
    func kill() -> Outcome? {
        machine.stop(.interrupted(signal: 9))
        return end()
    }

    /// Waits for the end of the machine.
    func end() -> Outcome? {
        thread?.join()
        return outcomes.all.first
    }

    func ask(_ packet: String) throws -> String { try client.ask(packet) }

    /// The RIP of the selected thread.
    func rip() throws -> UInt64 { try client.register(16) }

    /// What `monitor WORDS` prints.
    func monitor(_ words: String) throws -> String {
        let digits = words.utf8.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
        return String(decoding: try DebugClient.bytes(ask("qRcmd," + digits)), as: UTF8.self)
    }

    /// Whether the monitor can read what the guest has in private memory here.
    var readsPrivate: Bool {
        guard let vm = machine.vm as? any PrivateMemoryAccess else { return false }
        var byte: UInt8 = 0
        return withUnsafeMutableBytes(of: &byte) { buffer in
            do throws(Errno) {
                try vm.readPrivate(gpa: machine.layout.tables.root, into: buffer)
                return true
            } catch {
                return error != .notSupported
            }
        }
    }
}

/// A client of the protocol, with acknowledgements.
final class DebugClient {
    private let socket: Int32
    private var reader = PacketReader()
    private var items: [PacketReader.Item] = []

    struct Closed: Error {}

    init(_ path: String) throws {
        socket = Glibc.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8.prefix($0.count - 1)) }
        let result = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(socket, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        try #require(result == 0)
        // A server that does not answer is a failure, not a hang.
        var limit = timeval(tv_sec: 300, tv_usec: 0)
        setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    }

    deinit { close() }

    private var isOpen = true
    func close() {
        if isOpen { Glibc.close(socket) }
        isOpen = false
    }

    func send(_ bytes: [UInt8]) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes {
                Glibc.send(socket, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else { return }
            rest = rest.dropFirst(count)
        }
    }

    func send(_ packet: String) { send(Packet.encoded(Array(packet.utf8))) }

    /// The next item that is no acknowledgement.
    func next() throws -> PacketReader.Item {
        while true {
            while !items.isEmpty {
                let item = items.removeFirst()
                if item == .acknowledged { continue }
                if case .packet = item { send([UInt8(ascii: "+")]) }
                return item
            }
            var buffer = [UInt8](repeating: 0, count: 4096)
            let count = recv(socket, &buffer, buffer.count, 0)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw Closed() }
            items = reader.take(buffer[..<count])
        }
    }

    /// The data of the next packet.
    func answer() throws -> String {
        guard case .packet(let data) = try next() else { throw Closed() }
        return String(decoding: data, as: UTF8.self)
    }

    func ask(_ packet: String) throws -> String {
        send(packet)
        return try answer()
    }

    func register(_ number: Int) throws -> UInt64 {
        try Self.bytes(ask("p" + String(number, radix: 16))).reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    static func bytes(_ digits: String) throws -> [UInt8] {
        try #require(Hex.bytes(digits.utf8), "\(digits)")
    }
}
