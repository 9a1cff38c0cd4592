// SPDX-License-Identifier: MIT
import CKVMShim

/// The registers of a vCPU: `KVM_GET_REGS` and `KVM_GET_SREGS`.
package struct RegisterFile: Sendable {
    package var general: ckvm_regs
    package var special: ckvm_sregs

    package init(_ general: ckvm_regs, _ special: ckvm_sregs) {
        self.general = general
        self.special = special
    }
}

/// A register of the target description. Its number in packets is its place in ``all``.
struct Register: Sendable {
    /// How `target.xml` describes it.
    struct Form: Sendable {
        let feature: Feature
        let name: String
        /// A type of GDB's target descriptions.
        let type: String
        /// Bytes in a packet.
        let size: Int
    }
    enum Feature: String, CaseIterable, Sendable {
        case core = "org.gnu.gdb.i386.core"
        case segments = "org.gnu.gdb.i386.segments"
        case system = "org.minivmm.system"
    }

    let form: Form
    /// Nil for a register that this server cannot read.
    private let value: (@Sendable (RegisterFile) -> UInt64)?
    /// Nil for a register that cannot be changed.
    private let change: (@Sendable (inout RegisterFile, UInt64) -> Void)?

    /// Packet data: two digits a byte, little endian, or `x` for each digit that is not known.
    func digits(_ file: RegisterFile) -> [UInt8] {
        guard let value else { return Array(repeating: UInt8(ascii: "x"), count: 2 * form.size) }
        return Hex.littleEndian(value(file), size: form.size)
    }

    /// - Returns: false for a register that cannot be changed, unless it has the value already, and for a wrong number of
    ///   bytes.
    func set(_ bytes: some Collection<UInt8>, in file: inout RegisterFile) -> Bool {
        guard bytes.count == form.size, let value else { return false }
        let new = bytes.reversed().reduce(0 as UInt64) { $0 << 8 | UInt64($1) }
        guard let change else { return value(file) == new }
        change(&file, new)
        return true
    }

    /// Whether it can be read at all.
    var isKnown: Bool { value != nil }

    // MARK: the list

    private static func general(
        _ name: String, _ type: String, _ path: WritableKeyPath<ckvm_regs, UInt64> & Sendable
    )
        -> Register
    {
        Register(
            form: Form(feature: .core, name: name, type: type, size: type == "i386_eflags" ? 4 : 8),
            value: { $0.general[keyPath: path] }, change: { $0.general[keyPath: path] = $1 })
    }

    private static func selector(_ name: String, _ path: KeyPath<ckvm_sregs, ckvm_segment> & Sendable)
        -> Register
    {
        Register(
            form: Form(feature: .core, name: name, type: "int32", size: 4),
            value: { UInt64($0.special[keyPath: path].selector) }, change: nil)
    }

    private static func float(_ name: String, _ type: String, size: Int) -> Register {
        Register(form: Form(feature: .core, name: name, type: type, size: size), value: nil, change: nil)
    }

    private static func special(
        _ name: String, _ feature: Feature, _ path: WritableKeyPath<ckvm_sregs, UInt64> & Sendable
    ) -> Register {
        Register(
            form: Form(feature: feature, name: name, type: feature == .segments ? "int" : "int64", size: 8),
            value: { $0.special[keyPath: path] }, change: { $0.special[keyPath: path] = $1 })
    }

    private static let integers: [Register] = [
        general("rax", "int64", \.rax), general("rbx", "int64", \.rbx), general("rcx", "int64", \.rcx),
        general("rdx", "int64", \.rdx), general("rsi", "int64", \.rsi), general("rdi", "int64", \.rdi),
        general("rbp", "data_ptr", \.rbp), general("rsp", "data_ptr", \.rsp), general("r8", "int64", \.r8),
        general("r9", "int64", \.r9), general("r10", "int64", \.r10), general("r11", "int64", \.r11),
        general("r12", "int64", \.r12), general("r13", "int64", \.r13), general("r14", "int64", \.r14),
        general("r15", "int64", \.r15), general("rip", "code_ptr", \.rip),
        general("eflags", "i386_eflags", \.rflags),
    ]

    private static let selectors: [Register] = [
        selector("cs", \.cs), selector("ss", \.ss), selector("ds", \.ds), selector("es", \.es),
        selector("fs", \.fs), selector("gs", \.gs),
    ]

    /// GDB requires them in the core feature. KVM_GET_FPU is not used, so their values are not known.
    private static let floats: [Register] =
        (0..<8).map { float("st\($0)", "i387_ext", size: 10) }
        + ["fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop"].map {
            float($0, "int", size: 4)
        }

    private static let others: [Register] = [
        special("fs_base", .segments, \.fs.base), special("gs_base", .segments, \.gs.base),
        special("cr0", .system, \.cr0), special("cr2", .system, \.cr2), special("cr3", .system, \.cr3),
        special("cr4", .system, \.cr4), special("cr8", .system, \.cr8), special("efer", .system, \.efer),
    ]

    static let all: [Register] = integers + selectors + floats + others
}

extension RegisterFile {
    /// The answer to `g`.
    var digits: [UInt8] { Register.all.flatMap { $0.digits(self) } }

    /// Sets all registers from the data of `G`. Registers that cannot be changed keep their values.
    ///
    /// - Returns: false for a wrong number of bytes.
    mutating func setAll(_ bytes: [UInt8]) -> Bool {
        guard bytes.count == Register.all.reduce(0, { $0 + $1.form.size }) else { return false }
        var offset = 0
        for register in Register.all {
            _ = register.set(bytes[offset..<offset + register.form.size], in: &self)
            offset += register.form.size
        }
        return true
    }
}

/// The description of the target's registers for `qXfer:features:read`.
enum TargetDescription {
    static let xml: [UInt8] = Array(text.utf8)

    private static var text: String {
        var lines = [
            #"<?xml version="1.0"?>"#, #"<!DOCTYPE target SYSTEM "gdb-target.dtd">"#,
            #"<target version="1.0">"#,
            "<architecture>i386:x86-64</architecture>",
        ]
        for feature in Register.Feature.allCases {
            lines.append(#"<feature name="\#(feature.rawValue)">"#)
            if feature == .core { lines += flagsType }
            for register in Register.all.map(\.form) where register.feature == feature {
                let group = feature == .system ? #" group="system""# : ""
                lines.append(
                    #"<reg name="\#(register.name)" bitsize="\#(register.size * 8)" type="\#(register.type)"\#(group)/>"#
                )
            }
            lines.append("</feature>")
        }
        return (lines + ["</target>"]).joined(separator: "\n") + "\n"
    }

    /// The bits of EFLAGS, for GDB to name.
    private static var flagsType: [String] {
        let bits: [(String, Int)] = [
            ("CF", 0), ("", 1), ("PF", 2), ("AF", 4), ("ZF", 6), ("SF", 7), ("TF", 8), ("IF", 9), ("DF", 10),
            ("OF", 11), ("NT", 14), ("RF", 16), ("VM", 17), ("AC", 18), ("VIF", 19), ("VIP", 20), ("ID", 21),
        ]
        return [#"<flags id="i386_eflags" size="4">"#]
            + bits.map { #"<field name="\#($0.0)" start="\#($0.1)" end="\#($0.1)"/>"# } + ["</flags>"]
    }
}
