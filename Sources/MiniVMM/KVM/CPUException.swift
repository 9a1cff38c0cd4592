// SPDX-License-Identifier: MIT
public import CKVMShim

/// An exception of an x86 CPU (Intel SDM volume 3, chapter 7; AMD APM volume 2, chapter 8).
public struct CPUException: Sendable, Hashable {
    /// 0 to 31.
    public let vector: UInt8
    /// Nil for a vector without one.
    public let errorCode: UInt32?
    /// CR2 of a page fault: the linear address of the access. Nil for every other vector.
    public let address: UInt64?

    /// - Parameters:
    ///   - errorCode: ignored for a vector without one; 0 if it is missing.
    ///   - address: ignored for every vector but ``pageFault``.
    public init(_ vector: UInt8, errorCode: UInt32? = nil, address: UInt64? = nil) {
        self.vector = vector & 31
        self.errorCode = Self.hasErrorCode(self.vector) ? errorCode ?? 0 : nil
        self.address = self.vector == Self.pageFault ? address : nil
    }

    /// #DE.
    public static let divideError: UInt8 = 0
    /// #BP.
    public static let breakpoint: UInt8 = 3
    /// #UD.
    public static let invalidOpcode: UInt8 = 6
    /// #DF.
    public static let doubleFault: UInt8 = 8
    /// #TS.
    public static let invalidTaskState: UInt8 = 10
    /// #NP.
    public static let segmentNotPresent: UInt8 = 11
    /// #SS.
    public static let stackFault: UInt8 = 12
    /// #GP.
    public static let generalProtection: UInt8 = 13
    /// #PF.
    public static let pageFault: UInt8 = 14
    /// #VE.
    public static let virtualization: UInt8 = 20
    /// #VC.
    public static let vmmCommunication: UInt8 = 29

    /// Whether the CPU pushes an error code for this vector.
    public static func hasErrorCode(_ vector: UInt8) -> Bool {
        [8, 10, 11, 12, 13, 14, 17, 21, 29, 30].contains(vector)
    }

    /// The error code of a page fault.
    public struct PageFaultCode: OptionSet, Sendable, Hashable {
        /// The error code, as the CPU pushes it.
        public let rawValue: UInt32
        /// Takes the error code as it is.
        public init(rawValue: UInt32) { self.rawValue = rawValue }

        /// The page is there, and the access is not allowed.
        public static let present = PageFaultCode(rawValue: 1)
        /// A write.
        public static let write = PageFaultCode(rawValue: 2)
        /// From ring 3.
        public static let user = PageFaultCode(rawValue: 4)
        /// A reserved bit is set in a page-table entry.
        public static let reserved = PageFaultCode(rawValue: 8)
        /// The fetch of an instruction.
        public static let fetch = PageFaultCode(rawValue: 16)
    }
}

/// An exception that ended a guest, with the bytes of the instruction that raised it.
public struct UnhandledException: Sendable, Hashable {
    /// Vector, error code and address.
    public let exception: CPUException
    /// The guest's bytes at the instruction, at most 15; empty if they cannot be read.
    public let code: [UInt8]
    /// The sixteen general registers, by their numbers in instruction encodings: RAX, RCX, RDX, RBX, RSP and so on.
    public let registers: [UInt64]
    /// CR3.
    public let pageTables: UInt64

    /// - Parameters:
    ///   - code: empty if it cannot be read.
    ///   - registers: at the instruction.
    ///   - pageTables: CR3.
    public init(_ exception: CPUException, code: [UInt8], _ registers: ckvm_regs, pageTables: UInt64) {
        self.exception = exception
        self.code = code
        self.registers = registers.inOrder
        self.pageTables = pageTables
    }
}

extension ckvm_regs {
    /// The general registers, by their numbers in instruction encodings.
    public var inOrder: [UInt64] {
        [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15]
    }
}

// MARK: text

extension CPUException: CustomStringConvertible {
    /// Mnemonic and name of each vector that has one.
    private static let names: [UInt8: (mnemonic: String, name: String)] = [
        0: ("#DE", "divide error"), 1: ("#DB", "debug exception"), 2: ("NMI", "non-maskable interrupt"),
        3: ("#BP", "breakpoint"), 4: ("#OF", "overflow"), 5: ("#BR", "bound range exceeded"),
        6: ("#UD", "invalid opcode"), 7: ("#NM", "no math coprocessor"), 8: ("#DF", "double fault"),
        10: ("#TS", "invalid TSS"), 11: ("#NP", "segment not present"), 12: ("#SS", "stack-segment fault"),
        13: ("#GP", "general protection fault"), 14: ("#PF", "page fault"),
        16: ("#MF", "x87 floating-point error"), 17: ("#AC", "alignment check"), 18: ("#MC", "machine check"),
        19: ("#XM", "SIMD floating-point exception"), 20: ("#VE", "virtualization exception"),
        21: ("#CP", "control protection exception"), 29: ("#VC", "VMM communication exception"),
        30: ("#SX", "security exception"),
    ]

    /// `#PF`; for a vector without a mnemonic `vector 22`.
    public var mnemonic: String { Self.names[vector]?.mnemonic ?? "vector \(vector)" }

    /// `page fault (#PF, vector 14), error code 0x2, at 0xdead000`.
    public var description: String {
        let name = Self.names[vector].map { "\($0.name) (\($0.mnemonic), vector \(vector))" }
        return (name ?? "exception \(vector)") + (errorCode.map { ", error code \(hex(UInt64($0)))" } ?? "")
            + (address.map { ", at \(hex($0))" } ?? "")
    }
}
