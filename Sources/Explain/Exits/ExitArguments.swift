// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SystemPackage

/// The known fields of `struct kvm_run` for an exit, and the errno of `KVM_RUN`. A field that was not given is nil.
struct ExitArguments: Sendable, Equatable {
    /// The fields that `explain` uses. The raw value is the key on the command line.
    enum Field: String, Sendable, CaseIterable {
        case gpa, size, flags
        case reason, cpu
        case suberror, type
        case number = "nr"
        case pages, attributes

        /// Other spellings, as structs, QEMU and Rust VMMs have them.
        var aliases: [String] {
            switch self {
            case .gpa:
                [
                    "guest_physical_address", "guest_phys_addr", "guest_addr", "fault_addr", "address",
                    "addr", "start",
                ]
            case .size: ["len", "length", "bytes", "memory_size"]
            case .flags: ["flag"]
            case .reason: ["hardware_entry_failure_reason", "hardware_exit_reason", "hardware_reason"]
            case .cpu: []
            case .suberror: ["sub_error", "suberr"]
            case .type: ["event_type", "system_event_type"]
            case .number: ["hypercall"]
            case .pages: ["npages", "page_count"]
            case .attributes: ["attrs"]
            }
        }

        init?(key: String) {
            let known = Self.allCases.first { $0.rawValue == key || $0.aliases.contains(key) }
            guard let known else { return nil }
            self = known
        }
    }

    private var fields: [Field: UInt64] = [:]
    /// `data[]` of an internal error or a system event, by index.
    var data: [Int: UInt64] = [:]
    var errno: Errno?

    /// Most words that an exit has in `data[]`.
    static let maximumData = 16

    subscript(_ field: Field) -> UInt64? {
        get { fields[field] }
        set { fields[field] = newValue }
    }

    /// Sets the argument `key=value` of an exit.
    ///
    /// - Returns: nil if it was set, else why it was refused.
    mutating func take(_ key: String, _ value: String, of exit: ExitText) -> String? {
        let folded = NearWords.folded(key)
        if folded == "errno" {
            guard let known = Errno(word: value) else { return "errno=\(value) is not an errno" }
            errno = known
            return nil
        }
        let isData = exit.hasData && (folded.hasPrefix("data") || folded == "ndata")
        guard isData || Field(key: folded).map(exit.fields.contains) == true else {
            return "\(exit.name) has no field \(key)\(Words.suggestion(for: key, among: exit.keys)) "
                + "Its fields are \(exit.keys.joined(separator: ", "))."
        }
        if isData, folded == "data" { return takeData(value, from: 0, key) }
        guard let number = Words.number(value) else {
            return "\(key)=\(value) is not a number of at most 64 bits"
        }
        if let field = Field(key: folded) {
            fields[field] = number
        } else if folded != "ndata" {
            guard let index = Self.index(of: folded) else {
                return "\(key)= is not a word of data: they are data0 to data\(Self.maximumData - 1)"
            }
            data[index] = number
        }
        return nil
    }

    private mutating func takeData(_ value: String, from first: Int, _ key: String) -> String? {
        let words = value.split(whereSeparator: { ",[] ".contains($0) })
        for (index, word) in words.enumerated() {
            guard index < Self.maximumData, let number = Words.number(word) else {
                return "\(key)=\(value) is not a list of at most \(Self.maximumData) numbers"
            }
            data[first + index] = number
        }
        return nil
    }

    /// `data3` and `data[3]`.
    static func index(of key: String) -> Int? {
        let digits = key.dropFirst(4).filter { $0 != "[" && $0 != "]" }
        guard key.hasPrefix("data"), let index = Int(digits), (0..<maximumData).contains(index) else {
            return nil
        }
        return index
    }
}
