// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SystemPackage

/// Finds what a line of a log or of another program's output is about.
struct LogReader {
    let line: LogLine
    let version: InterfaceVersion

    /// The topics of the line with the numbers in it, most specific first; empty if the line is not recognised.
    var explanations: [Explanation] {
        if let event = traceEvent { return [event] }
        if let call = systemCall { return [call] }
        if let exit = exit { return [exit] }
        if let known = Messages.explanation(line) { return [known] }
        if let call = namedCall { return [call] }
        return names
    }

    // MARK: a trace of this program

    private static let actors = ["host", "vcpu", "child"]

    /// A line of `--trace`: text has the actor before the event's name, JSON has the key `event`.
    private var traceEvent: Explanation? {
        let words = line.tokens.compactMap(\.word)
        let name: EventName?
        if let key = line.value("event") {
            name = EventName(key)
        } else {
            name =
                zip(words, words.dropFirst()).first { actor, event in
                    Self.actors.contains {
                        actor.hasPrefix($0) && actor.dropFirst($0.count).allSatisfy(\.isNumber)
                    }
                        && EventName(event) != nil
                }.flatMap { EventName($0.1) }
        }
        guard let name else { return nil }
        var fields = EventFields(name)
        for field in EventSchema.of(name).fields {
            guard let value = line.value(NearWords.folded(field.key.spelling.description)) else { continue }
            fields.add(field.key, value)
        }
        var text = Explanation(.event, name.spelling.description, "\(name.spelling), an event of the trace")
        text.add(.means, EventTexts.why(fields))
        text.add(.see, "docs/trace.md has every field of this event")
        return text
    }

    // MARK: strace

    /// `ioctl(12, KVM_RUN, 0) = -1 EFAULT (Bad address)`, with a process id, a time or `<... ioctl resumed>` in front.
    private var systemCall: Explanation? {
        let tokens = line.tokens
        guard
            let end = tokens.indices.last(where: { index in
                tokens[index] == .mark(")") && index + 2 < tokens.count && tokens[index + 1] == .mark("=")
                    && tokens[index + 2].word != nil
            }), let result = tokens[end + 2].word,
            let start = tokens[..<end].indices.first(where: { index in
                tokens[index].word.map { CallErrno.systemCalls.contains($0) } == true
                    && (tokens[index + 1] == .mark("(") || tokens[index + 1] == .word("resumed"))
            }), let name = tokens[start].word
        else { return nil }
        let errno: Errno
        if let symbol = tokens.dropFirst(end + 3).first?.word, let known = Errno(symbol: symbol) {
            errno = known
        } else if !result.hasPrefix("-"), Words.number(result) != nil {
            errno = .success
        } else {
            return nil
        }
        guard name == "ioctl" else { return explain(name, errno) }
        return explain(ioctl(tokens[(start + 1)..<end]) ?? "ioctl", errno)
    }

    /// The request of an ioctl: a name, a number, or `_IOC(_IOC_READ|_IOC_WRITE, 0xae, 0xd2, 0x80)`.
    private func ioctl(_ tokens: ArraySlice<LogLine.Token>) -> String? {
        let words = tokens.compactMap(\.word)
        if let name = words.lazy.compactMap({ $0.hasPrefix("KVM_") ? CallErrno.canonicalName($0) : nil })
            .first
        {
            return name
        }
        if let index = words.firstIndex(of: "_IOC") {
            let direction: UInt64 =
                (words.contains("_IOC_WRITE") ? 1 : 0) | (words.contains("_IOC_READ") ? 2 : 0)
            let parts = words[index...].compactMap { Words.number($0) }
            guard parts.count >= 3, parts[0] < 256, parts[1] < 256, parts[2] < 1 << 14 else { return nil }
            return Calls.named(Words.hex(direction << 30 | parts[2] << 16 | parts[0] << 8 | parts[1]))?.name
        }
        return words.lazy.compactMap { word in
            word.hasPrefix("0x") ? Calls.named(word)?.name : nil
        }.first
    }

    // MARK: exits

    /// An exit of `KVM_RUN` with its fields.
    private var exit: Explanation? {
        guard let exit = exitText else { return nil }
        var arguments = ExitArguments()
        for field in exit.fields {
            arguments[field] = ([field.rawValue] + field.aliases).lazy.compactMap { line.number($0) }.first
        }
        if exit.hasData {
            for index in 0..<ExitArguments.maximumData { arguments.data[index] = line.number("data\(index)") }
        }
        unnamedFields(exit, &arguments)
        arguments.errno = errno
        return exit.explanation(arguments)
    }

    private var exitText: ExitText? {
        func named(_ number: UInt32) -> ExitText? { ExitText.all.first { $0.number == number } }
        let words = line.tokens.compactMap(\.word)
        if line.has("memory fault") || words.contains(where: { NearWords.folded($0) == "kvm_memory_fault" }) {
            return named(CKVM_EXIT_MEMORY_FAULT)
        }
        if line.has("entry failed") || line.value("hardware_entry_failure_reason") != nil {
            return named(CKVM_EXIT_FAIL_ENTRY)
        }
        if line.has("kvm internal error") || line.value("suberror") != nil {
            return named(CKVM_EXIT_INTERNAL_ERROR)
        }
        if line.has("kvm run exit system event") || words.contains("kvm_run_exit_system_event") {
            return named(CKVM_EXIT_SYSTEM_EVENT)
        }
        if line.has("unknown exit") || line.value("hardware_exit_reason") != nil {
            return named(CKVM_EXIT_UNKNOWN)
        }
        if line.has("triple fault") { return named(CKVM_EXIT_SHUTDOWN) }
        // Only with the prefix, or as Rust's names: HLT, IO or DEBUG alone may be anything.
        for word in words {
            if word.hasPrefix("KVM_EXIT_"), let exit = ExitText.named(word) { return exit }
            if ["MemoryFault", "FailEntry", "InternalError", "SystemEvent", "memory_fault", "fail_entry"]
                .contains(word)
            {
                return ExitText.named(word)
            }
        }
        if words.contains("VcpuExit") || words.contains("KVM_RUN") || line.has("vcpu exit") {
            if let exit = words.lazy.filter({ Words.number($0) == nil }).compactMap({ ExitText.named($0) })
                .first
            {
                return exit
            }
        }
        if let value = line.value("exit_reason") ?? (line.has("exit reason") ? line.value("reason") : nil) {
            return ExitText.named(value)
        }
        return nil
    }

    /// Numbers without a name: `FailEntry(2147483681, 0)`, `SystemEvent(1, [5])`, `hardware error 0x80000021`.
    private func unnamedFields(_ exit: ExitText, _ arguments: inout ExitArguments) {
        switch exit.number {
        case CKVM_EXIT_FAIL_ENTRY, CKVM_EXIT_UNKNOWN:
            guard arguments[.reason] == nil else { return }
            let place =
                line.position(of: "hardware error") ?? line.position(of: "hardware reason")
                ?? position("FailEntry")
            let numbers = place.map(line.numbers) ?? []
            arguments[.reason] = numbers.first
            // QEMU prints the reason of an unknown exit in hex without a prefix.
            if exit.number == CKVM_EXIT_FAIL_ENTRY, numbers.count > 1, position("FailEntry") != nil {
                arguments[.cpu] = numbers[1]
            }
        case CKVM_EXIT_SYSTEM_EVENT:
            guard arguments[.type] == nil, let place = position("SystemEvent") else { return }
            let numbers = line.numbers(from: place)
            arguments[.type] = numbers.first
            for (index, word) in numbers.dropFirst().prefix(ExitArguments.maximumData).enumerated() {
                arguments.data[index] = word
            }
        default: break
        }
    }

    /// The index behind the first of these words.
    private func position(_ word: String) -> Int? {
        line.tokens.firstIndex { $0.word == word }.map { $0 + 1 }
    }

    // MARK: errno

    /// The errno that the line has as a symbol, as the C library's text, or as a number.
    private var errno: Errno? {
        for token in line.tokens {
            if let word = token.word, word.first == "E", let known = Errno(symbol: word) { return known }
        }
        return ErrnoNames.find(in: line.text) ?? numberedErrno
    }

    /// `(os error 14)`, `Os { code: 14 }`, `errno 14`, `ret=-22`, `Error(14)`.
    private var numberedErrno: Errno? {
        func errno(_ value: UInt64?) -> Errno? {
            guard let value, (1...133).contains(value) else { return nil }
            return Errno(rawValue: Int32(value))
        }
        if let place = line.position(of: "os error") { return errno(line.numbers(from: place).first) }
        if line.value("code") != nil, position("Os") != nil { return errno(line.number("code")) }
        if let known = errno(line.number("errno")) { return known }
        if let place = position("Error"), line.tokens.indices.contains(place),
            line.tokens[place] == .mark("(")
        {
            return errno(line.numbers(from: place).first)
        }
        for pair in line.pairs
        where ["ret", "rc", "r", "err", "error", "errno", "result", "status"].contains(pair.key) {
            if pair.value.hasPrefix("-"), let known = errno(Words.number(pair.value.dropFirst())) {
                return known
            }
        }
        if let place = position("error"), line.tokens.indices.contains(place),
            let word = line.tokens[place].word,
            word.hasPrefix("-")
        {
            return errno(Words.number(word.dropFirst()))
        }
        return nil
    }

    // MARK: a call that is named

    /// Functions of QEMU and of Rust crates, and the calls that they make.
    private static let functions: [String: String] = [
        "kvm_set_user_memory_region": "KVM_SET_USER_MEMORY_REGION2",
        "kvm_set_user_memory": "KVM_SET_USER_MEMORY_REGION2",
        "kvm_set_phys_mem": "KVM_SET_USER_MEMORY_REGION2",
        "set_user_memory_region2": "KVM_SET_USER_MEMORY_REGION2",
        "set_user_memory_region": "KVM_SET_USER_MEMORY_REGION",
        "kvm_convert_memory": "KVM_SET_MEMORY_ATTRIBUTES",
        "kvm_set_memory_attributes": "KVM_SET_MEMORY_ATTRIBUTES",
        "set_memory_attributes": "KVM_SET_MEMORY_ATTRIBUTES",
        "set_memory_attributes2": "KVM_SET_MEMORY_ATTRIBUTES2",
        "kvm_create_guest_memfd": "KVM_CREATE_GUEST_MEMFD", "create_guest_memfd": "KVM_CREATE_GUEST_MEMFD",
        "kvm_cpu_exec": "KVM_RUN", "vcpu_run": "KVM_RUN", "kvm_run": "KVM_RUN", "create_vm": "KVM_CREATE_VM",
        "create_vcpu": "KVM_CREATE_VCPU", "enable_cap": "KVM_ENABLE_CAP",
    ]

    /// Phrases of QEMU's messages that name no call, and the calls that failed.
    private static let phrases: [(phrase: String, call: String)] = [
        ("kvm run failed", "KVM_RUN"), ("failed to set memory", "KVM_SET_MEMORY_ATTRIBUTES"),
        ("error creating kvm guest_memfd", "KVM_CREATE_GUEST_MEMFD"),
        ("error registering slot", "KVM_SET_USER_MEMORY_REGION2"),
        ("error unregistering slot", "KVM_SET_USER_MEMORY_REGION2"),
    ]

    private var callName: String? {
        for token in line.tokens {
            guard let word = token.word, word.hasPrefix("KVM_"), let name = CallErrno.canonicalName(word)
            else { continue }
            return name
        }
        for known in Self.phrases where line.has(known.phrase) { return known.call }
        return line.tokens.lazy.compactMap { $0.word.flatMap { Self.functions[NearWords.folded($0)] } }.first
    }

    private var namedCall: Explanation? {
        guard let call = callName else { return nil }
        guard let errno else { return Calls.named(call) }
        return explain(call, errno)
    }

    private func explain(_ call: String, _ errno: Errno) -> Explanation {
        // The older call never fails with EAGAIN; a monitor's function may make the newer one.
        let isConversion =
            call == "KVM_SET_MEMORY_ATTRIBUTES2"
            || call == "KVM_SET_MEMORY_ATTRIBUTES" && errno == .resourceTemporarilyUnavailable
        if isConversion {
            var arguments = ConversionArguments()
            // Fields of the line that the call does not have are ignored.
            for pair in line.pairs { _ = arguments.take(pair.key, LogLine.normal(pair.value)) }
            return ErrnoExplanation(errno: errno, call: arguments, version: version, isNamed: true)
                .explanation
        }
        let name = CallErrno.canonicalName(call) ?? call
        var text = CallErrno(call: name, errno: errno)
        if name.hasPrefix("KVM_SET_USER_MEMORY_REGION") {
            for pair in line.pairs { _ = text.slot.take(pair.key, LogLine.normal(pair.value)) }
        }
        return text.explanation
    }

    // MARK: nothing but names

    /// An errno without a call, or names of the interface.
    private var names: [Explanation] {
        if let errno { return [unnamed(errno)] }
        let words = line.tokens.compactMap(\.word).filter {
            $0.hasPrefix("KVM_") || $0.hasPrefix("GUEST_MEMFD_")
        }
        let topics = words.removingRepetitions.prefix(4).compactMap { word in
            CapabilityText.explanation(word) ?? Calls.named(word)
        }
        return topics.removingRepetitions
    }

    private func unnamed(_ errno: Errno) -> Explanation {
        var text = Explanation(.errno, errno.word, "\(errno.nameAndNumber): the line does not name the call")
        text.add(.answer, errno.nameAndNumber)
        text.add(.means, CallErrors.general(errno).means)
        let conditions = ConversionRow.allCases.filter { $0.errno == errno }.map(\.condition)
        if !conditions.isEmpty {
            text.add(.elsewhere, "KVM_SET_MEMORY_ATTRIBUTES2: \(conditions.joined(separator: "; or ")).")
        }
        for other in CallErrors.elsewhere(errno) { text.add(.elsewhere, other) }
        text.add(
            .advice,
            "Find out which call failed, for example with strace -f -e trace=ioctl,mmap,fallocate, and explain its line."
        )
        return text
    }
}

/// The C library's texts of errnos, to find them in lines.
private enum ErrnoNames {
    /// Longest first, so that `Bad file descriptor in bad state` is not `Bad file descriptor`.
    private static let texts: [(text: String, errno: Errno)] = Errno.named.map {
        ($0.description.lowercased(), $0)
    }
    .filter { $0.0.count > 6 }
    .sorted { ($0.0.count, $0.1.rawValue) > ($1.0.count, $1.1.rawValue) }

    static func find(in text: String) -> Errno? {
        let folded = text.lowercased()
        return texts.first { folded.contains($0.text) }?.errno
    }
}
