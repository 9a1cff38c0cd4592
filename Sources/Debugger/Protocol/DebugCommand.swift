// SPDX-License-Identifier: MIT
/// A request of the debugger, decoded from a packet.
enum DebugCommand: Equatable, Sendable {
    /// `qSupported`, with what the client supports.
    case supported([String])
    case startNoAckMode
    /// `?`
    case stopReason
    case readRegisters
    case writeRegisters([UInt8])
    case readRegister(Int)
    case writeRegister(Int, [UInt8])
    case readMemory(address: UInt64, count: UInt64)
    case writeMemory(address: UInt64, [UInt8])
    case insert(Breakpoint)
    case remove(Breakpoint)
    /// `vCont`, `c`, `s` and their variants with a signal, which is ignored: a guest has no signals.
    case resume([(thread: ThreadChoice, isStep: Bool)], at: UInt64?)
    case resumeActions
    /// `Hg`
    case selectThread(ThreadChoice)
    /// `Hc`
    case selectResumed(ThreadChoice)
    case isAlive(Int)
    case currentThread
    case firstThreads
    case moreThreads
    case threadInformation(Int)
    case isAttached
    /// A part of `target.xml`.
    case description(offset: UInt64, count: UInt64)
    case hostInformation
    case symbols
    case monitor(String)
    case detach
    /// `k`, which has no answer, or `vKill`, which has one.
    case kill(isAnswered: Bool)
    /// A packet that this server does not know: the protocol's answer is an empty packet.
    case unknown
    /// A known packet whose fields make no sense.
    case malformed

    static func == (one: DebugCommand, other: DebugCommand) -> Bool { "\(one)" == "\(other)" }

    init(_ packet: [UInt8]) {
        var scanner = PacketScanner(packet)
        self = Self.decoded(&scanner) ?? .malformed
    }

    /// - Returns: nil for a known packet whose fields make no sense.
    private static func decoded(_ scanner: inout PacketScanner) -> DebugCommand? {
        guard let letter = scanner.next() else { return .unknown }
        switch Unicode.Scalar(letter) {
        case "?": return .stopReason
        case "g": return .readRegisters
        case "G": return Hex.bytes(scanner.remaining).map { .writeRegisters($0) }
        case "p": return scanner.number().flatMap { Int(exactly: $0) }.map { .readRegister($0) }
        case "P":
            guard let number = scanner.number().flatMap({ Int(exactly: $0) }), scanner.take("=") else {
                return nil
            }
            return Hex.bytes(scanner.remaining).map { .writeRegister(number, $0) }
        case "m": return range(&scanner).map { .readMemory(address: $0.address, count: $0.count) }
        case "M", "X":
            guard let range = range(&scanner), scanner.take(":"),
                let bytes = letter == UInt8(ascii: "X")
                    ? Array(scanner.remaining) : Hex.bytes(scanner.remaining),
                UInt64(bytes.count) == range.count
            else { return nil }
            return .writeMemory(address: range.address, bytes)
        case "Z", "z":
            guard let breakpoint = breakpoint(&scanner) else { return nil }
            guard let known = breakpoint else { return .unknown }
            return letter == UInt8(ascii: "Z") ? .insert(known) : .remove(known)
        case "c", "s", "C", "S": return resume(letter, &scanner)
        case "H":
            guard let use = scanner.next(), let thread = scanner.thread() else { return nil }
            return use == UInt8(ascii: "c") ? .selectResumed(thread) : .selectThread(thread)
        case "T":
            guard case .one(let thread)? = scanner.thread() else { return nil }
            return .isAlive(thread)
        case "D": return .detach
        case "k": return .kill(isAnswered: false)
        case "v": return verbose(&scanner)
        case "q", "Q": return query(letter, &scanner)
        default: return .unknown
        }
    }

    /// `addr,length`
    private static func range(_ scanner: inout PacketScanner) -> (address: UInt64, count: UInt64)? {
        guard let address = scanner.number(), scanner.take(","), let count = scanner.number() else {
            return nil
        }
        return (address, count)
    }

    /// `type,addr,kind`; the kind of a breakpoint is its length. Conditions that may follow are ignored, because they
    /// are not offered.
    ///
    /// - Returns: nil inside if the type is unknown.
    private static func breakpoint(_ scanner: inout PacketScanner) -> Breakpoint?? {
        guard let type = scanner.next(), scanner.take(","), let range = range(&scanner) else { return nil }
        guard let kind = Breakpoint.Kind(packetType: type) else { return .some(nil) }
        return Breakpoint(kind: kind, address: range.address, size: range.count)
    }

    private static func resume(_ letter: UInt8, _ scanner: inout PacketScanner) -> DebugCommand? {
        let isStep = letter == UInt8(ascii: "s") || letter == UInt8(ascii: "S")
        if letter == UInt8(ascii: "C") || letter == UInt8(ascii: "S") {
            guard scanner.number() != nil else { return nil }
            guard scanner.isAtEnd || scanner.take(";") else { return nil }
        }
        guard !scanner.isAtEnd else { return .resume([(.any, isStep)], at: nil) }
        return scanner.number().map { .resume([(.any, isStep)], at: $0) }
    }

    private static func verbose(_ scanner: inout PacketScanner) -> DebugCommand? {
        if scanner.take("Cont?") { return .resumeActions }
        if scanner.take("Kill") { return .kill(isAnswered: true) }
        guard scanner.take("Cont") else { return .unknown }
        var actions: [(thread: ThreadChoice, isStep: Bool)] = []
        while scanner.take(";") {
            guard let action = scanner.next(), "csCS".utf8.contains(action) else { return nil }
            if action == UInt8(ascii: "C") || action == UInt8(ascii: "S") {
                guard scanner.number() != nil else { return nil }
            }
            var thread = ThreadChoice.all
            if scanner.take(":") {
                guard let named = scanner.thread() else { return nil }
                thread = named
            }
            actions.append((thread, "sS".utf8.contains(action)))
        }
        return actions.isEmpty || !scanner.isAtEnd ? nil : .resume(actions, at: nil)
    }

    private static func query(_ letter: UInt8, _ scanner: inout PacketScanner) -> DebugCommand? {
        if letter == UInt8(ascii: "Q") { return scanner.take("StartNoAckMode") ? .startNoAckMode : .unknown }
        if scanner.take("Supported") {
            _ = scanner.take(":")
            let features = scanner.remaining.split(separator: UInt8(ascii: ";"))
            return .supported(features.map { String(decoding: $0, as: UTF8.self) })
        }
        if scanner.take("Xfer:features:read:target.xml:") {
            return range(&scanner).map { .description(offset: $0.address, count: $0.count) }
        }
        if scanner.take("Rcmd,") {
            return Hex.bytes(scanner.remaining).map { .monitor(String(decoding: $0, as: UTF8.self)) }
        }
        if scanner.take("ThreadExtraInfo,") {
            guard case .one(let thread)? = scanner.thread() else { return nil }
            return .threadInformation(thread)
        }
        let words: [(String, DebugCommand)] = [
            ("fThreadInfo", .firstThreads), ("sThreadInfo", .moreThreads), ("Attached", .isAttached),
            ("HostInfo", .hostInformation), ("Symbol", .symbols),
        ]
        for (word, command) in words where scanner.take(word) { return command }
        return scanner.remaining.elementsEqual("C".utf8) ? .currentThread : .unknown
    }
}

/// A breakpoint or watchpoint that the debugger asks for.
package struct Breakpoint: Hashable, Sendable {
    /// The packets Z0 to Z4.
    package enum Kind: Sendable, CaseIterable {
        /// Anything that stops before the instruction.
        case software
        /// A debug register that stops before the instruction.
        case hardware
        /// Stops after an instruction that writes.
        case write
        /// Stops after an instruction that reads.
        case read
        /// Stops after an instruction that reads or writes.
        case access

        init?(packetType: UInt8) {
            guard let number = packetType.hexDigit, number < Self.allCases.count else { return nil }
            self = Self.allCases[Int(number)]
        }

        var isWatchpoint: Bool { self != .software && self != .hardware }
    }
    package let kind: Kind
    /// Linear address.
    package let address: UInt64
    /// Bytes that are watched; 1 for a breakpoint.
    package let size: UInt64

    package init(kind: Kind, address: UInt64, size: UInt64) {
        self.kind = kind
        self.address = address
        self.size = kind.isWatchpoint ? size : 1
    }
}
