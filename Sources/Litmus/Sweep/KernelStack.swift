// SPDX-License-Identifier: MIT
import MiniVMM
import SystemPackage

/// The kernel stack of a thread of this process, `/proc/self/task/TID/stack`. Needs root and CONFIG_STACKTRACE.
struct KernelStack: Sendable {
    private let file: FileDescriptor

    /// - Returns: nil if the kernel does not show stacks to this process.
    init?(thread: Int) {
        guard
            let file = try? FileDescriptor.open(
                FilePath("/proc/self/task/\(thread)/stack"), .readOnly, options: .closeOnExec)
        else { return nil }
        self.file = file
    }

    func close() { try? file.close() }

    /// Reads the stack into a buffer; the caller may run with realtime priority, so nothing is decoded here.
    ///
    /// - Returns: the number of bytes; 0 if the stack cannot be read.
    func read(into buffer: inout [UInt8]) -> Int {
        (try? unsafe buffer.withUnsafeMutableBytes { bytes in
            unsafe try file.read(fromAbsoluteOffset: 0, into: bytes)
        }) ?? 0
    }

    /// The functions on a stack, innermost first, without those of the interrupt that preempted the thread.
    static func functions(_ text: some Collection<UInt8>) -> [String] {
        let lines = String(decoding: text, as: UTF8.self).split(separator: "\n")
        // [<0>] kvm_gmem_fault_user_mapping+0x4c/0x170
        let names = lines.compactMap { line -> String? in
            guard line.hasPrefix("[<"), let end = line.firstIndex(of: "]") else { return nil }
            let name = line[line.index(after: end)...].prefix { $0 != "+" }.drop { $0 == " " }
            return name.isEmpty ? nil : String(name)
        }
        let start = names.lastIndex { name in interruptEntries.contains { name.hasPrefix($0) } }
        return Array(names[(start.map { $0 + 1 } ?? 0)...])
    }

    /// The innermost functions of the preempted code come after the last of these.
    private static let interruptEntries = [
        "asm_sysvec_", "asm_common_interrupt", "irqentry_exit", "preempt_schedule_irq",
        "dynamic_preempt_schedule",
        "preempt_schedule",
    ]
}
