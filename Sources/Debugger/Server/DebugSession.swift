// SPDX-License-Identifier: MIT
/// The conversation with one debugger: answers its packets. A value without I/O, owned by the server's thread.
package struct DebugSession {
    /// The effects of a packet.
    package enum Answer: Equatable {
        case send([UInt8])
        /// The guest runs; the answer is the next stop.
        case running
        /// Send this; the client is gone then, and the guest goes on.
        case detach([UInt8])
        /// Send this, if there is an answer; then end the guest.
        case kill([UInt8]?)
    }

    private let target: any DebugTarget
    private var reader = PacketReader()
    /// Whether packets are confirmed with `+`.
    private var confirms = true
    /// The answer that has been sent last, for `-`.
    private var last: [UInt8] = []
    private var thread = 1
    private var resumed = ThreadChoice.all
    /// Whether the client waits for a stop.
    package private(set) var isRunning = false
    private var stop: StopReason?
    /// Features that the client has announced.
    private var features: Set<String> = []

    package init(_ target: any DebugTarget) { self.target = target }

    // MARK: bytes

    /// Takes bytes of the client.
    ///
    /// - Parameter send: sends bytes to the client.
    /// - Returns: how the session ended; nil if it goes on.
    package mutating func take(_ bytes: some Sequence<UInt8>, send: ([UInt8]) -> Void) -> Answer? {
        for item in reader.take(bytes) {
            switch item {
            case .acknowledged: continue
            case .rejected:
                if confirms, !last.isEmpty { send(last) }
            case .interrupt:
                if isRunning { target.interrupt() }
            case .damaged:
                if confirms { send([UInt8(ascii: "-")]) }
            case .tooLong:
                confirm(send)
                reply(failure(.malformed), send)
            case .packet(let data):
                // Ignored while the guest runs: in all-stop mode only an interruption is allowed then.
                if isRunning {
                    confirm(send)
                    continue
                }
                confirm(send)
                switch answer(DebugCommand(data)) {
                case .send(let data): reply(data, send)
                case .running: continue
                case .detach(let data):
                    reply(data, send)
                    return .detach(data)
                case .kill(let data):
                    if let data { reply(data, send) }
                    return .kill(data)
                }
            }
        }
        return nil
    }

    private func confirm(_ send: ([UInt8]) -> Void) {
        if confirms { send([UInt8(ascii: "+")]) }
    }

    private mutating func reply(_ data: [UInt8], _ send: ([UInt8]) -> Void) {
        last = Packet.encoded(data)
        send(last)
    }

    /// Tells a waiting client why the guest has stopped.
    package mutating func stopped(_ reason: StopReason, send: ([UInt8]) -> Void) {
        stop = reason
        thread = reason.thread
        guard isRunning else { return }
        isRunning = false
        reply(text(reason), send)
    }

    /// Tells a waiting client how the guest has ended: `W` with its status, or `X` with a signal.
    package mutating func ended(_ ending: DebugEnding, send: ([UInt8]) -> Void) {
        guard isRunning else { return }
        isRunning = false
        switch ending {
        case .exited(let status): reply(Array("W".utf8) + Hex.digits([status]), send)
        case .signalled(let signal): reply(Array("X".utf8) + Hex.digits([signal.rawValue]), send)
        }
    }

    // MARK: commands

    /// Answers one request.
    mutating func answer(_ command: DebugCommand) -> Answer {
        do throws(DebugError) {
            return try perform(command)
        } catch {
            return .send(failure(error))
        }
    }

    private mutating func perform(_ command: DebugCommand) throws(DebugError) -> Answer {
        switch command {
        case .supported(let theirs):
            features = Set(theirs)
            return text(
                "PacketSize=\(String(PacketReader.limit, radix: 16));qXfer:features:read+;vContSupported+;swbreak+;hwbreak+;QStartNoAckMode+"
                    + (features.contains("error-message+") ? ";error-message+" : ""))
        case .startNoAckMode:
            defer { confirms = false }
            return ok
        case .stopReason:
            return .send(text(stop ?? StopReason(thread: thread, signal: .trap)))
        case .readRegisters: return .send(try target.registers(of: thread).digits)
        case .writeRegisters(let bytes):
            let old = try target.registers(of: thread)
            var new = old
            guard new.setAll(bytes) else { throw .wrongLength }
            try target.setRegisters(of: thread, from: old, to: new)
            return ok
        case .readRegister(let number):
            guard Register.all.indices.contains(number) else { throw .noRegister(number) }
            return .send(Register.all[number].digits(try target.registers(of: thread)))
        case .writeRegister(let number, let bytes):
            guard Register.all.indices.contains(number), Register.all[number].isKnown else {
                throw .noRegister(number)
            }
            let old = try target.registers(of: thread)
            var new = old
            guard bytes.count == Register.all[number].form.size else { throw .wrongLength }
            guard Register.all[number].set(bytes, in: &new) else { throw .noRegister(number) }
            try target.setRegisters(of: thread, from: old, to: new)
            return ok
        case .readMemory(let address, let count):
            // Two digits for each byte.
            let most = UInt64(PacketReader.limit / 2)
            return .send(Hex.digits(try target.read(thread, at: address, count: Int(min(count, most)))))
        case .writeMemory(let address, let bytes):
            if !bytes.isEmpty { try target.write(thread, at: address, bytes) }
            return ok
        case .insert(let breakpoint):
            try target.insert(breakpoint, by: thread)
            return ok
        case .remove(let breakpoint):
            try target.remove(breakpoint)
            return ok
        case .resume(let actions, let address): return try resume(actions, at: address)
        case .resumeActions: return text("vCont;c;C;s;S")
        case .selectThread(let choice):
            if case .one(let one) = choice { thread = try existing(one) }
            return ok
        case .selectResumed(let choice):
            if case .one(let one) = choice { _ = try existing(one) }
            resumed = choice
            return ok
        case .isAlive(let one):
            _ = try existing(one)
            return ok
        case .monitor(let line):
            let words = line.split(separator: " ").map(String.init)
            return .send(Hex.digits(target.monitor(words, by: thread).utf8))
        case .detach:
            target.detach()
            return .detach(Array("OK".utf8))
        case .kill(let isAnswered): return .kill(isAnswered ? Array("OK".utf8) : nil)
        case .malformed: throw .malformed
        default: return query(command)
        }
    }

    /// Requests that change nothing and cannot fail.
    private func query(_ command: DebugCommand) -> Answer {
        switch command {
        case .currentThread: return text("QC" + String(thread, radix: 16))
        case .firstThreads:
            return text("m" + target.threads.map { String($0, radix: 16) }.joined(separator: ","))
        case .moreThreads: return text("l")
        case .threadInformation(let one):
            guard target.threads.contains(one) else { return .send(failure(.noThread(one))) }
            return .send(Hex.digits(target.information(about: one).utf8))
        // The guest was there before the debugger: GDB detaches when it quits, and does not kill.
        case .isAttached: return text("1")
        case .description(let offset, let count): return description(offset, count)
        case .hostInformation:
            let triple = String(decoding: Hex.digits("x86_64-unknown-none".utf8), as: UTF8.self)
            return text("triple:\(triple);endian:little;ptrsize:8;")
        case .symbols: return ok
        default: return .send([])
        }
    }

    private func description(_ offset: UInt64, _ count: UInt64) -> Answer {
        let xml = TargetDescription.xml
        let start = Int(min(offset, UInt64(xml.count)))
        let length = Int(min(count, UInt64(min(xml.count - start, PacketReader.limit / 2))))
        let isLast = start + length == xml.count
        return .send([UInt8(ascii: isLast ? "l" : "m")] + xml[start..<start + length])
    }

    private mutating func resume(
        _ actions: [(thread: ThreadChoice, isStep: Bool)], at address: UInt64?
    ) throws(DebugError) -> Answer {
        if let address {
            let old = try target.registers(of: thread)
            var new = old
            new.general.rip = address
            try target.setRegisters(of: thread, from: old, to: new)
        }
        var chosen: [Int: ResumeAction] = [:]
        // The leftmost action for a thread counts. `c` and `s` mean the thread of `Hc`; the others go on.
        for (choice, isStep) in actions {
            let action: ResumeAction = isStep ? .step : .run
            switch choice {
            case .one(let one): if chosen[try existing(one)] == nil { chosen[one] = action }
            case .all: for one in target.threads where chosen[one] == nil { chosen[one] = action }
            case .any:
                var stepped = thread
                if case .one(let one) = resumed { stepped = one }
                for one in target.threads where chosen[one] == nil {
                    chosen[one] = one == stepped ? action : .run
                }
            }
        }
        try target.resume(chosen)
        isRunning = true
        return .running
    }

    private func existing(_ thread: Int) throws(DebugError) -> Int {
        guard target.threads.contains(thread) else { throw .noThread(thread) }
        return thread
    }

    // MARK: answers

    private var ok: Answer { text("OK") }
    private func text(_ text: String) -> Answer { .send(Array(text.utf8)) }

    private func failure(_ error: DebugError) -> [UInt8] {
        if features.contains("error-message+") { return Array("E.\(error)".utf8) }
        return Array("E".utf8) + Hex.digits([error.number])
    }

    private func text(_ stop: StopReason) -> [UInt8] {
        var text = "thread:\(String(stop.thread, radix: 16));"
        switch stop.kind {
        case .plain: break
        case .softwareBreakpoint: if features.contains("swbreak+") { text += "swbreak:;" }
        case .hardwareBreakpoint: if features.contains("hwbreak+") { text += "hwbreak:;" }
        case .watchpoint(let kind, let address):
            let name = kind == .write ? "watch" : kind == .read ? "rwatch" : "awatch"
            text += "\(name):\(String(address, radix: 16));"
        }
        return Array("T".utf8) + Hex.digits([stop.signal.rawValue]) + Array(text.utf8)
    }
}

/// How the guest has ended.
package enum DebugEnding: Equatable, Sendable {
    case exited(UInt8)
    case signalled(DebugSignal)
}
