// SPDX-License-Identifier: MIT
import MiniVMM

/// The known arguments of `KVM_SET_USER_MEMORY_REGION2`. An unknown argument is nil.
struct SlotArguments: Sendable, Equatable {
    /// The fields of the struct. The raw value is the kernel's name.
    enum Field: String, Sendable, CaseIterable {
        case slot, flags
        case address = "guest_phys_addr"
        case size = "memory_size"
        case userspace = "userspace_addr"
        case fileOffset = "guest_memfd_offset"

        /// Other spellings, as QEMU has them.
        init?(key: String) {
            switch key {
            case "gpa", "start", "guest_physical_address": self = .address
            case "size": self = .size
            case "ua", "uaddr": self = .userspace
            case "gmem_offset": self = .fileOffset
            default: self.init(rawValue: key)
            }
        }
    }

    static let keys = Field.allCases.map(\.rawValue)

    private var fields: [Field: UInt64] = [:]

    subscript(_ field: Field) -> UInt64? {
        get { fields[field] }
        set { fields[field] = newValue }
    }

    var isEmpty: Bool { fields.isEmpty }

    /// Sets the argument `key=value`.
    ///
    /// - Returns: nil if it was set, else why it was refused.
    mutating func take(_ key: String, _ value: String) -> String? {
        guard let field = Field(key: NearWords.folded(key)) else {
            return "a memslot has no field \(key)\(Words.suggestion(for: key, among: Self.keys)) "
                + "Its fields are \(Self.keys.joined(separator: ", "))."
        }
        guard let number = Words.number(value) else {
            return "\(key)=\(value) is not a number of at most 64 bits"
        }
        fields[field] = number
        return nil
    }

    /// For people: `slot 0, flags 0x4`.
    var text: String {
        Field.allCases.compactMap { field in
            self[field].map { "\(field.rawValue) \(field == .slot ? String($0) : Words.hex($0))" }
        }.joined(separator: ", ")
    }

    private static let knownFlags: UInt64 = 7

    /// The reasons for EINVAL in these arguments, in the order of the kernel's checks.
    var problems: [String] {
        var found: [String] = []
        if let flags = self[.flags] {
            if flags & ~Self.knownFlags != 0 {
                found.append("flags has an unknown bit: LOG_DIRTY_PAGES is 1, READONLY 2, GUEST_MEMFD 4.")
            }
            if flags & 4 != 0, flags & 1 != 0 {
                found.append("flags has LOG_DIRTY_PAGES (1), which the kernel refuses for a guest_memfd.")
            }
            if flags & 4 != 0, flags & 2 != 0 {
                found.append("flags has READONLY (2), which the kernel refuses for a guest_memfd.")
            }
        }
        for field in [Field.size, .address, .userspace, .fileOffset] {
            if let value = self[field], value % pageSize != 0 {
                found.append("\(field.rawValue) \(Words.hex(value)) is not a multiple of 4096.")
            }
        }
        for field in [Field.address, .fileOffset] {
            if let start = self[field], let size = self[.size], start.addingReportingOverflow(size).overflow {
                found.append(
                    "\(field.rawValue) \(Words.hex(start)) + memory_size \(Words.hex(size)) overflows 64 bits."
                )
            }
        }
        if let slot = self[.slot], slot >> 16 != 0 {
            found.append(
                "slot \(slot) is in address space \(slot >> 16). A VM with private memory has only address space 0; address space 1 "
                    + "is for SMM.")
        }
        if self[.size] == 0, found.isEmpty {
            found.append("memory_size is 0, which deletes a slot, and there is no such slot.")
        }
        return found
    }

    /// The possible causes of EINVAL when the known arguments are valid; nil if none is known.
    var hint: String? {
        guard !isEmpty, problems.isEmpty else { return nil }
        return "These arguments are valid, so the cause is something that they do not show: "
            + ((self[.flags] ?? 0) & 4 != 0
                ? "the slot exists already (a slot with a guest_memfd can only be deleted), the range lies outside the file, the "
                    + "descriptor is not a guest_memfd of this VM, or the VM type does not support guest_memfd."
                : "the slot exists already with another size or userspace_addr, the slot number is too large, or userspace_addr is not an "
                    + "address of user space.")
    }
}
