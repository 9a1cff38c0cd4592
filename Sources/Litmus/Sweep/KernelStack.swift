// SPDX-License-Identifier: MIT
import MiniVMM
import SystemPackage

/// The kernel stack of a thread of this process or of a child, `/proc/PID/task/TID/stack`. Needs root and CONFIG_STACKTRACE.
///
/// Any thread may read it.
final class KernelStack: Sendable {
    private let file: OwnedDescriptor

    /// - Returns: nil if the kernel does not show stacks to this process.
    convenience init?(thread: Int) { self.init(path: "/proc/self/task/\(thread)/stack") }

    /// - Returns: nil if the kernel does not show stacks to this process.
    convenience init?(process: Int32) { self.init(path: "/proc/\(process)/stack") }

    private init?(path: String) {
        guard let file = try? FileDescriptor.open(FilePath(path), .readOnly, options: .closeOnExec) else {
            return nil
        }
        self.file = OwnedDescriptor(owning: file.rawValue)
    }

    /// The stack as the kernel writes it, at most 4 KiB; empty if it cannot be read.
    func text() -> [UInt8] {
        let file = FileDescriptor(rawValue: file.rawValue)
        return unsafe [UInt8](unsafeUninitializedCapacity: 4096) { bytes, count in
            let whole = UnsafeMutableRawBufferPointer(bytes)
            count = (try? unsafe file.read(fromAbsoluteOffset: 0, into: whole)) ?? 0
        }
    }

    /// Whether a thread with this stack was in the kernel when it was preempted.
    static func isInKernel(_ text: [UInt8]) -> Bool { !functions(text).isEmpty }

    /// The functions on a stack, innermost first, without those of the interrupt that preempted the thread.
    ///
    /// It works on bytes, because strings would take longer.
    static func functions(_ text: [UInt8]) -> [String] {
        // [<0>] kvm_gmem_fault_user_mapping+0x4c/0x170
        let names = text.split(separator: UInt8(ascii: "\n")).compactMap { line -> ArraySlice<UInt8>? in
            guard line.starts(with: "[<".utf8), let end = line.firstIndex(of: UInt8(ascii: "]")) else {
                return nil
            }
            let name = line[(end + 1)...].drop { $0 == UInt8(ascii: " ") }.prefix { $0 != UInt8(ascii: "+") }
            return name.isEmpty ? nil : name
        }
        // The victim is still at the call that arms the timer, so it has not begun its steps.
        if names.contains(where: { name in timerCalls.contains { name.starts(with: $0) } }) { return [] }
        let start = names.lastIndex { name in interruptEntries.contains { name.starts(with: $0) } }
        return names[(start.map { $0 + 1 } ?? 0)...].map { String(decoding: $0, as: UTF8.self) }
    }

    /// The functions of timerfd_settime(2).
    private static let timerCalls = [
        "__x64_sys_timerfd_settime", "__do_sys_timerfd_settime", "__se_sys_timerfd_settime",
        "do_timerfd_settime",
    ].map { [UInt8]($0.utf8) }

    /// The innermost functions of the preempted code come after the last of these.
    private static let interruptEntries = [
        "asm_sysvec_", "asm_common_interrupt", "irqentry_exit", "preempt_schedule_irq",
        "dynamic_preempt_schedule", "preempt_schedule",
    ].map { [UInt8]($0.utf8) }
}
