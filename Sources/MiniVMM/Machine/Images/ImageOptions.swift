// SPDX-License-Identifier: MIT
/// Properties of an image that its file does not have, as the user gives them.
public struct ImageOptions: Sendable {
    /// A file that a boot protocol hands to the guest.
    public struct Module: Sendable {
        /// How errors name it.
        public let name: String
        /// Its contents.
        public let bytes: [UInt8]
        /// The string that goes with it.
        public let text: String

        /// A module with a string; the usual string is the path.
        public init(name: String, bytes: [UInt8], text: String) {
            self.name = name
            self.bytes = bytes
            self.text = text
        }
    }

    /// The mode of a flat image; nil for 64-bit mode.
    public var mode: CPUMode?
    /// Where a flat image is loaded; nil for the usual address of its mode.
    public var loadAddress: UInt64?
    /// Where a flat image is entered; nil for its first byte.
    public var entry: UInt64?
    /// The command line of a Multiboot or PVH guest; nil for none.
    public var commandLine: String?
    /// The modules of a Multiboot or PVH guest.
    public var modules: [Module] = []
    /// Registers at the entry.
    public var registers: [GuestRegister: UInt64] = [:]

    /// Nothing is said.
    public init(mode: CPUMode? = nil) { self.mode = mode }

    /// The first option that only a flat image can have.
    var flatOnly: String? {
        mode != nil ? "--mode" : loadAddress != nil ? "--load-address" : entry != nil ? "--entry" : nil
    }
    /// The first option that only a guest of a boot protocol can have.
    var protocolOnly: String? { commandLine != nil ? "--cmdline" : modules.isEmpty ? nil : "--module" }
}

/// A general register, or RFLAGS.
public enum GuestRegister: String, Sendable, CaseIterable {
    case rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15, rflags
}
