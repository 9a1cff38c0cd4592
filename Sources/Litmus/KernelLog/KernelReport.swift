// SPDX-License-Identifier: MIT
extension KernelReport.Kind {
    /// The kind of a line that begins a report; nil for any other line.
    ///
    /// - Parameter line: a message of the kernel's log, without its time stamp.
    init?(header line: Substring) {
        func follows(_ prefix: String) -> Substring? {
            line.hasPrefix(prefix) ? line.dropFirst(prefix.count) : nil
        }
        if let rest = follows("WARNING: ") {
            if Self.lockdepPhrases.contains(where: rest.contains) {
                self = .lockdep
            } else if rest.hasPrefix("CPU: ")
                || (rest.hasPrefix("at ") || rest.contains(" at ")) && rest.contains("CPU#")
            {
                self = .warning
            } else {
                return nil
            }
        } else if line.hasPrefix("BUG: KASAN: ") {
            self = .kasan
        } else if line.hasPrefix("BUG: soft lockup") || line.hasPrefix("watchdog: BUG: soft lockup")
            || line.hasPrefix("BUG: workqueue lockup")
            || line.contains("rcu") && line.contains("detected")
                && line.contains("stall")
        {
            self = .stall
        } else if Self.oopsPrefixes.contains(where: line.hasPrefix) {
            self = .oops
        } else if line.hasPrefix("BUG: ") {
            self = .bug
        } else if line.hasPrefix("UBSAN: ") {
            self = .ubsan
        } else if line.hasPrefix("INFO: task "), line.contains(" blocked for more than ") {
            self = .hungTask
        } else if line.hasPrefix("Kernel panic - not syncing") {
            self = .panic
        } else {
            return nil
        }
    }

    private static let oopsPrefixes = [
        "BUG: kernel NULL pointer dereference", "BUG: unable to handle", "BUG: stack guard page was hit",
        "BUG: TASK stack guard page was hit", "kernel BUG at ", "Oops: ", "general protection fault",
        "invalid opcode: ", "double fault: ", "divide error: ",
    ]

    private static let lockdepPhrases = [
        "possible circular locking", "possible recursive locking", "possible irq lock inversion",
        "lock order detected", "inconsistent lock state", "bad unlock balance", "held lock freed",
        "lock held when returning to user space", "suspicious RCU usage", "Nested lock was not taken",
        "bad contention detected", "still has locks held",
    ]

    /// Whether the report ends with its stack. Others have more behind it, up to a line with `end trace`.
    fileprivate var endsWithStack: Bool {
        switch self {
        case .bug, .lockdep, .hungTask, .stall: true
        case .warning, .oops, .kasan, .ubsan, .panic: false
        }
    }
}

/// Finds reports in the lines of a kernel's log.
public struct KernelReportParser: Sendable {
    /// The report under way.
    private var kind: KernelReport.Kind?
    private var lines: [String] = []
    /// Lines since `[ cut here ]`, before the header.
    private var before: [String]?

    /// A parser that has read nothing.
    public init() {}

    /// Whether a report has begun and not ended.
    public var isInReport: Bool { kind != nil }

    /// Reads one message.
    ///
    /// - Parameter line: without its time stamp.
    /// - Returns: the report that ends with this line, or ended before it.
    public mutating func add(_ line: Substring) -> KernelReport? {
        if line.contains("[ cut here ]") {
            let ended = finish()
            before = [String(line)]
            return ended
        }
        guard let kind else {
            before?.append(String(line))
            guard let new = KernelReport.Kind(header: line) else {
                // After "cut here" comes a message of WARN(), of a few lines at most.
                if let count = before?.count, count > 8 { before = nil }
                return nil
            }
            kind = new
            lines = before ?? [String(line)]
            before = nil
            return nil
        }
        if lines.count < KernelReport.mostLines { lines.append(String(line)) }
        let isEnd =
            line.contains("---[ end ") || kind.endsWithStack && line.contains("</TASK>")
            || kind == .kasan && line.hasPrefix("=====")
        return isEnd ? finish() : nil
    }

    /// Ends the report under way, at the end of a log or where other lines begin.
    ///
    /// - Returns: the report; nil if there is none.
    public mutating func finish() -> KernelReport? {
        defer { (kind, lines, before) = (nil, [], nil) }
        guard let kind else { return nil }
        return KernelReport(
            kind: kind, function: Self.function(in: lines), lines: lines,
            headline: lines.first { KernelReport.Kind(header: $0[...]) == kind } ?? lines.first
                ?? kind.rawValue)
    }

    /// The first function in the lines that is not one of ``helpers``.
    private static func function(in lines: [String]) -> String? {
        for line in lines {
            // Words like "name+0x1f/0x40"; a stack's frame after "? " is a guess.
            let words = line.split(separator: " ")
            for (index, word) in words.enumerated() where index == 0 || words[index - 1] != "?" {
                guard let plus = word.firstRange(of: "+0x"), word[plus.upperBound...].contains("/0x") else {
                    continue
                }
                // "RIP: 0010:name+0x1f/0x40" has a segment before the name.
                let name = word[..<plus.lowerBound].split(separator: ":").last.map(String.init) ?? ""
                if !name.isEmpty, !helpers.contains(where: name.hasPrefix) { return name }
            }
        }
        return nil
    }

    /// Beginnings of the names of functions that check, lock, print or handle exceptions. The bug is in their caller.
    private static let helpers = [
        "dump_stack", "show_stack", "sched_show_task", "print_", "kasan_", "__kasan_", "__asan_", "ubsan_",
        "__ubsan_",
        "__might_", "__warn", "report_bug", "handle_bug", "exc_", "asm_", "sysvec_", "do_error_trap", "panic",
        "check_panic", "die", "oops_", "page_fault_oops", "refcount_warn", "__list_", "debug_", "lock_",
        "__lock_",
        "validate_chain", "check_", "mark_lock", "lockdep_", "__schedule", "schedule", "io_schedule", "down_",
        "__down_",
        "up_", "__up_", "rwsem_", "mutex_", "__mutex_", "_raw_", "__raw_", "queued_", "do_raw_", "memcpy",
        "memset",
        "__mem", "bad_page", "rcu_", "__rcu", "copy_from_user", "copy_to_user", "_copy_",
    ]
}
