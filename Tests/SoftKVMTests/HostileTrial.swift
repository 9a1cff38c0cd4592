// SPDX-License-Identifier: MIT
import CKVMShim
import Foundation
import MiniVMM
import SoftKVM
import SystemPackage
import Testing

/// Runs many guests on one vCPU, which is replaced when a guest has broken it.
struct Trial {
    let name: String
    private var guest: Guest
    private var runs = 0
    private var failures: [String: Int] = [:]
    private var exits: [String: Int] = [:]
    private var hung = 0
    private var peak = 0
    private let special: ckvm_sregs

    /// - Parameter special: the mode in which every guest starts.
    init(_ name: String, special: ckvm_sregs = Guest.longMode) throws {
        self.name = name
        self.special = special
        guest = try Self.newGuest()
    }

    private static func newGuest() throws -> Guest {
        try Guest([], SoftKVM.Configuration(timeSlice: 300))
    }

    mutating func run(everyNth stride: Int, _ codes: [[UInt8]]) throws {
        for index in Swift.stride(from: 0, to: codes.count, by: stride) {
            try run(codes[index]) { registers in
                for number in 0..<16 where number != 4 { registers.set(number, to: 0x20000) }
            }
        }
    }

    /// - Parameter prepare: sets all registers except RIP and RSP.
    mutating func run(_ code: [UInt8], _ prepare: (inout ckvm_regs) -> Void) throws {
        runs += 1
        // Guests can change their page tables, the bytes after the code, and segments.
        if runs % 25 == 0 { try renew() }
        var bytes = [UInt8](repeating: 0xf4, count: 64)
        bytes.replaceSubrange(0..<code.count, with: code)
        try guest.ram.put(bytes, at: Guest.code)
        var registers = ckvm_regs()
        prepare(&registers)
        registers.rip = Guest.code - special.cs.base
        registers.rsp = Guest.stack
        registers.rflags = 2
        try guest.vcpu.setSpecialRegisters(special)
        try guest.vcpu.setRegisters(registers)
        // A pending completion belongs to another RIP and is dropped.
        for _ in 0..<4 {
            switch guest.vcpu.runToExit() {
            case .io, .mmio: continue
            case .internalError:
                guard let failure = guest.vcpu.failure else { return count("KVM cannot execute it") }
                failures["\(failure.reason)", default: 0] += 1
                if case .hung = failure.reason { hung += 1 }
                count("the CPU failed")
                if failures.values.reduce(0, +) < 20 {
                    print("\(name): \(code.map { String($0, radix: 16) }.joined(separator: " ")): \(failure)")
                }
                return try renew()
            case .interrupted: return count("time slice")
            case .shutdown: return count("exception")
            case .halt: return count("halt")
            default: return count("other")
            }
        }
        count("device")
    }

    private mutating func count(_ exit: String) { exits[exit, default: 0] += 1 }

    private mutating func renew() throws {
        peak = max(peak, peakMemory(guest.vcpu.process) ?? 0)
        guest = try Self.newGuest()
    }

    /// Checks the results, and prints a row of the table.
    mutating func report(_ isPrinted: Bool) {
        peak = max(peak, peakMemory(guest.vcpu.process) ?? 0)
        // The address sanitizer needs memory of its own.
        let isSanitized = ProcessInfo.processInfo.environment["ASAN_OPTIONS"] != nil
        #expect(peak <= Int(Guest.ram) + (isSanitized ? 256 : 128) << 20, "\(peak) bytes")
        #expect(exits.values.reduce(0, +) == runs)
        if isPrinted {
            let kinds = exits.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }
            let all = failures.values.reduce(0, +)
            print(
                "| \(name) | \(runs) | \(kinds.joined(separator: ", ")) | \(hung) | \(all - hung) | "
                    + "\(peak >> 20) MiB |")
            for (reason, count) in failures.sorted(by: { $0.key < $1.key }) { print("  \(reason): \(count)") }
        }
    }
}

/// Peak memory of a process, bytes; nil if it has ended.
func peakMemory(_ process: Int32?) -> Int? {
    guard let process, let status = try? String(contentsOfFile: "/proc/\(process)/status", encoding: .utf8)
    else { return nil }
    let line = status.split(separator: "\n").first { $0.hasPrefix("VmHWM:") }
    return line?.split(whereSeparator: { !$0.isNumber }).first.flatMap { Int($0) }.map { $0 << 10 }
}

extension SplitMix64 {
    /// A random value, often a boundary value.
    mutating func interesting() -> UInt64 {
        let values: [UInt64] = [
            0, 1, 0x20000, 0x20ffc, Guest.ram - 4, Guest.ram, 0xffff_ffff_ffff_f000, .max,
            0xffff_ffff_ffff_fffc,
            0x8000_0000_0000_0000, 0x7fff_ffff_fffc, 0x10_0000_0000, 0x3f_ffff_fffe, Guest.code,
        ]
        let choice = next()
        return choice & 3 == 0 ? next() : values[Int((choice >> 2) % UInt64(values.count))]
    }
}

extension ckvm_regs {
    mutating func set(_ number: Int, to value: UInt64) {
        switch number {
        case 0: rax = value
        case 1: rcx = value
        case 2: rdx = value
        case 3: rbx = value
        case 5: rbp = value
        case 6: rsi = value
        case 7: rdi = value
        case 8: r8 = value
        case 9: r9 = value
        case 10: r10 = value
        case 11: r11 = value
        case 12: r12 = value
        case 13: r13 = value
        case 14: r14 = value
        default: r15 = value
        }
    }
}
