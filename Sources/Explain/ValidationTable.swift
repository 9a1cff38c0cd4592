// SPDX-License-Identifier: MIT
import MiniVMM
public import SystemPackage

/// The answers that a conversion call can give, as far as its known arguments determine them.
public struct ValidationTable: Sendable {
    /// The version of the interface whose rows and order apply.
    public let version: InterfaceVersion

    /// The table of a version; by default that of Linux 7.4.
    public init(_ version: InterfaceVersion = .linux74) { self.version = version }

    /// A row that may be the answer.
    public struct Possibility: Sendable, Equatable {
        /// The row of the table.
        public let row: ConversionRow
        /// The errno of the call; nil if it succeeds. It differs from ``ConversionRow/errno`` for a refused
        /// content flag, which is `EOPNOTSUPP`.
        public let errno: Errno?
        /// Whether the arguments make this row the answer, unless an earlier row is.
        public let follows: Bool
        /// The argument that makes this row the answer; or, if ``follows`` is false, what is not known.
        public let why: String
        /// The value that the kernel writes to `error_offset`; nil if it writes none.
        public let errorOffset: ErrorOffset?

        /// Whether the cause is a content mode that this VM type does not support in this direction.
        var isRefusedMode: Bool { row == .flags && errno == .notSupportedOnSocket }
        /// Whether the cause is an `error_offset` other than 0 on input.
        let isErrorOffset: Bool
    }

    /// The page that `error_offset` names after an error.
    public enum ErrorOffset: Sendable, Equatable {
        /// The start of the request.
        case start
        /// A page of the range. If the offset of the call is not known, any multiple of the page size fits.
        case pageInRange
    }

    /// The rows that may be the answer, in the kernel's order, up to and including the first that follows
    /// from the arguments.
    public func possibilities(_ call: ConversionArguments) -> [Possibility] {
        var found: [Possibility] = []
        for check in checks(call) {
            guard let verdict = check.verdict else { continue }
            found.append(
                Possibility(
                    row: check.row, errno: check.errno, follows: verdict.follows, why: verdict.why,
                    errorOffset: check.errorOffset, isErrorOffset: check.isErrorOffset))
            if verdict.follows { return found }
        }
        return found
    }

    /// Whether the row can have left this value in `error_offset`.
    func fits(_ errorOffset: UInt64, _ place: ErrorOffset?, _ call: ConversionArguments) -> Bool {
        switch place {
        case .start?: return call.offset.map { $0 == errorOffset } ?? (errorOffset % pageSize == 0)
        case .pageInRange?:
            guard errorOffset % pageSize == 0 else { return false }
            if let offset = call.offset, errorOffset < offset { return false }
            if let size = call.size, case (let end, false) = (call.offset ?? 0).addingReportingOverflow(size),
                call.offset != nil, errorOffset >= end
            {
                return false
            }
            return true
        case nil: return true
        }
    }

    // MARK: the rows

    private struct Verdict {
        let follows: Bool
        let why: String
        static func yes(_ why: String) -> Verdict { Verdict(follows: true, why: why) }
        static func maybe(_ why: String) -> Verdict { Verdict(follows: false, why: why) }
    }

    private struct Check {
        let row: ConversionRow
        var errno: Errno?
        var errorOffset: ErrorOffset?
        /// Whether the row checks `error_offset` on input.
        let isErrorOffset: Bool
        /// Nil if this row cannot be the answer.
        let verdict: Verdict?

        init(_ row: ConversionRow, _ verdict: Verdict?, isErrorOffset: Bool = false) {
            self.row = row
            self.isErrorOffset = isErrorOffset
            self.verdict = verdict
            errno = row.errno
            errorOffset =
                switch row {
                case .noMemory: .start
                case .inUse: .pageInRange
                default: nil
                }
        }
    }

    /// Each row, with what follows from the arguments, in the kernel's order.
    private func checks(_ call: ConversionArguments) -> [Check] {
        let size = call.size.map { version.truncatesSize ? $0 & ~(pageSize - 1) : $0 }
        var checks = [
            Check(.noSuchCall, .maybe("whether the kernel has the call")),
            Check(.unreadable, .maybe("whether the struct can be read")),
        ]
        checks += contentModes(call)
        checks.append(Check(.reserved, known(call.reserved, "reserved") { $0 != 0 }))
        // The kernel writes error_offset only with EAGAIN and ENOMEM. A value after EINVAL was there on input.
        if version.refusesErrorOffset {
            checks.append(
                Check(
                    .reserved,
                    call.errorOffset.map {
                        $0 == 0 ? nil : .maybe("error_offset \(Words.hex($0)) on input (hazard H1)")
                    }
                        ?? .maybe("error_offset on input"), isErrorOffset: true))
        }
        checks.append(
            Check(
                .vmType,
                call.hasPrivateMemory.map { $0 ? nil : .yes("a default VM") } ?? .maybe("the VM's type")))
        checks.append(Check(.attributes, known(call.attributes, "attributes") { $0 & ~8 != 0 }))
        checks.append(sizeCheck(call))
        if version.truncatesSize { checks.append(Check(.unchanged, cutToNothing(call))) }
        checks.append(alignmentCheck(call))
        checks.append(Check(.endOfFile, endOfFile(call, size)))
        checks.append(Check(.unchanged, unchanged(call)))
        checks.append(Check(.noMemory, .maybe("the kernel's memory")))
        if call.target != .shared || version.checksReferencesToShared {
            checks.append(Check(.inUse, .maybe("whether a page is in use")))
        }
        checks.append(Check(.unwritable, .maybe("whether the struct can be written")))
        checks.append(Check(.converted, .maybe("")))
        return checks
    }

    private func known(_ value: UInt64?, _ name: String, _ isWrong: (UInt64) -> Bool) -> Verdict? {
        guard let value else { return .maybe(name) }
        return isWrong(value) ? .yes("\(name) \(Words.hex(value))") : nil
    }

    private func contentModes(_ call: ConversionArguments) -> [Check] {
        guard version.hasContentModes else { return [Check(.flags, known(call.flags, "flags") { $0 != 0 })] }
        guard let flags = call.flags else {
            return [Check(.flags, .maybe("flags")), refusedMode(.maybe("flags"))]
        }
        guard flags <= 2 else { return [Check(.flags, .yes("flags \(Words.hex(flags))"))] }
        guard flags != 0 else { return [] }
        let name = flags == 1 ? "ZERO" : "PRESERVE"
        guard call.hasPrivateMemory != false else { return [refusedMode(.yes("\(name) on a default VM"))] }
        guard call.hasPrivateMemory != nil else {
            return [refusedMode(.maybe("which modes the VM's type offers"))]
        }
        // On a software-protected VM; SNP and TDX offer less.
        if flags == 1, call.target != .shared {
            return [refusedMode(call.target == nil ? .maybe("ZERO, if to private") : .yes("ZERO to private"))]
        }
        return []
    }

    private func refusedMode(_ verdict: Verdict) -> Check {
        var check = Check(.flags, verdict)
        check.errno = .notSupportedOnSocket
        check.errorOffset = .start
        return check
    }

    private func sizeCheck(_ call: ConversionArguments) -> Check {
        let verdict: Verdict? =
            switch (call.offset, call.size) {
            case (_, 0?): .yes("size 0")
            case (let offset?, let size?):
                offset.addingReportingOverflow(size).overflow
                    ? .yes("\(Words.hex(offset)) + \(Words.hex(size)) overflows 64 bits") : nil
            case (_, nil): .maybe("size")
            case (nil, _?): .maybe("offset")
            }
        return Check(.size, verdict)
    }

    /// RFC v1 rounds a size of less than a page down to 0, and then does nothing.
    private func cutToNothing(_ call: ConversionArguments) -> Verdict? {
        guard let size = call.size else { return .maybe("whether the size is less than a page, hazard H24") }
        return size < pageSize
            ? .yes("size \(Words.hex(size)) is rounded down to 0, hazard H24") : nil
    }

    private func alignmentCheck(_ call: ConversionArguments) -> Check {
        if let offset = call.offset, offset % pageSize != 0 {
            return Check(.alignment, .yes("offset \(Words.hex(offset)) is not page aligned"))
        }
        if let size = call.size, size % pageSize != 0, !version.truncatesSize {
            return Check(.alignment, .yes("size \(Words.hex(size)) is not a multiple of 4096"))
        }
        guard call.offset != nil else { return Check(.alignment, .maybe("offset")) }
        return Check(.alignment, call.size == nil && !version.truncatesSize ? .maybe("size") : nil)
    }

    private func endOfFile(_ call: ConversionArguments, _ size: UInt64?) -> Verdict? {
        guard let file = call.fileSize else { return .maybe("the file's size") }
        if let offset = call.offset, offset >= file {
            return .yes("offset \(Words.hex(offset)) in a file of \(Words.hex(file)) bytes")
        }
        if let size, size > file {
            return .yes("size \(Words.hex(size)) of a file of \(Words.hex(file)) bytes")
        }
        guard let offset = call.offset, let size else { return .maybe("the end of the range") }
        let (end, overflow) = offset.addingReportingOverflow(size)
        return overflow || end > file
            ? .yes("the range ends at \(Words.hex(end)) and the file at \(Words.hex(file))") : nil
    }

    private func unchanged(_ call: ConversionArguments) -> Verdict? {
        guard let states = call.states, let target = call.target else {
            return .maybe("the range's states before the call")
        }
        return states.rawValue == target.rawValue
            ? .yes("the whole range is \(target.rawValue) already") : nil
    }
}
