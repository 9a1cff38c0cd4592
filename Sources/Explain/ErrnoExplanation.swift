// SPDX-License-Identifier: MIT
import MiniVMM
import SystemPackage

extension Errno {
    /// Success.
    static let success = Errno(rawValue: 0)

    /// From a symbol or a number, with or without a minus sign; from `0`, `ok` or `success` for success. Nil for any other word.
    init?(word: String) {
        if ["0", "ok", "success"].contains(word.lowercased()) {
            self = .success
            return
        }
        let folded = word.uppercased()
        // Linux has one number for both.
        if let match = Errno(symbol: folded == "ENOTSUP" ? "EOPNOTSUPP" : folded) {
            self = match
            return
        }
        let digits = word.hasPrefix("-") ? word.dropFirst() : word[...]
        guard let number = Words.number(digits), (1...4095).contains(number) else { return nil }
        self = Errno(rawValue: Int32(number))
    }

    /// `EAGAIN (11)`.
    var nameAndNumber: String {
        self == .success ? "0, success" : symbol.map { "\($0) (\(rawValue))" } ?? name
    }
    /// `EAGAIN`, or 0 for success.
    var word: String { self == .success ? "0" : name }
}

/// An errno, or a success, of the conversion call with its known arguments.
struct ErrnoExplanation {
    let errno: Errno
    let call: ConversionArguments
    let version: InterfaceVersion
    /// Whether the conversion call was named. If it was not, the errno may come from another call.
    var isNamed = false

    private var table: ValidationTable { ValidationTable(version) }

    var explanation: Explanation {
        var text = Explanation(
            .errno, errno.word,
            "\(errno.nameAndNumber) from the conversion call"
                + (version == .linux74 ? "" : ", \(version.name)"))
        text.add(
            .attempted,
            call.text.isEmpty
                ? "to convert a range of a guest_memfd (KVM_SET_MEMORY_ATTRIBUTES2)"
                : "to convert: \(call.text)")
        let all = table.possibilities(call)
        let matching = all.filter { ($0.errno ?? .success) == errno }
        let fitting = Self.fitting(errno, call, table)
        text.add(.answer, answer)
        if fitting.isEmpty {
            contradiction(matching, all, &text)
            otherVersions(&text)
        } else {
            describe(fitting, &text)
        }
        // Arguments of the conversion call name that call, too.
        if call.isEmpty, !isNamed { for other in CallErrors.elsewhere(errno) { text.add(.elsewhere, other) } }
        return text
    }

    /// The rows that return this errno and this error_offset.
    private static func fitting(
        _ errno: Errno, _ call: ConversionArguments, _ table: ValidationTable
    ) -> [ValidationTable.Possibility] {
        table.possibilities(call).filter { possibility in
            (possibility.errno ?? .success) == errno
                && call.errorOffset.map { table.fits($0, possibility.errorOffset, call) } ?? true
        }
    }

    /// Names the other versions that can return this errno for these arguments.
    private func otherVersions(_ text: inout Explanation) {
        let others = InterfaceVersion.allCases.filter { other in
            other != version && !Self.fitting(errno, call, ValidationTable(other)).isEmpty
        }
        guard !others.isEmpty else { return }
        text.add(
            .versions,
            others.map(\.rawValue).joined(separator: ", ")
                + " can return this (--abi \(others[0].rawValue) explains it)")
    }

    private var answer: String {
        guard let errorOffset = call.errorOffset else { return errno.nameAndNumber }
        var text = "\(errno.nameAndNumber), error_offset \(Words.hex(errorOffset))"
        if let offset = call.offset, let size = call.size, errorOffset >= offset, errorOffset - offset < size,
            errorOffset % pageSize == 0, size % pageSize == 0
        {
            text += ", page \((errorOffset - offset) / pageSize + 1) of \(size / pageSize)"
        }
        return text
    }

    /// Adds the row that follows from the arguments, or else every row that may be the answer.
    private func describe(_ fitting: [ValidationTable.Possibility], _ text: inout Explanation) {
        let certain = fitting.filter(\.follows)
        let named = fitting.filter { !$0.follows && call.errorOffset != nil && $0.isErrorOffset }
        // A cause that the arguments show is more likely than one that depends on unknown ones.
        let shown = certain.isEmpty ? (named.isEmpty ? fitting : named) : certain
        text.rows = shown.map(\.row).filter { $0 != .converted }.map(\.rawValue).removingRepetitions
        for means in shown.map(means).removingRepetitions { text.add(.means, means) }
        if let cut, errno == .success { text.add(.means, cut) }
        let tries = shown.map { (shown.count == 1 ? "" : $0.row.label + ": ") + advice($0) }
        for advice in tries.removingRepetitions { text.add(.advice, advice) }
        let others = fitting.filter { other in !shown.contains(other) }
        if !others.isEmpty {
            let labels = others.map { "\($0.why) (\($0.row.label))" }.removingRepetitions
            text.add(
                .unless,
                "the cause was something that the arguments do not show: " + labels.joined(separator: ", ")
                    + ".")
        }
        seeAlso(shown, &text)
    }

    private func means(_ possibility: ValidationTable.Possibility) -> String {
        let row = possibility.row
        if possibility.isRefusedMode {
            return
                "\(row.label): \(possibility.why): this VM type does not support that content mode in this direction. "
                + "Nothing has changed; error_offset is the start of the request."
        }
        if possibility.isErrorOffset {
            return
                "\(row.label): error_offset was not 0 on input, for example because the struct of a failed call was reused (hazard "
                + "H1). This version refuses that."
        }
        return "\(row.label): \(row.condition(in: version))"
            + (possibility.follows ? " (\(possibility.why))" : "") + ". " + row.means(in: version)
    }

    private func advice(_ possibility: ValidationTable.Possibility) -> String {
        if possibility.isRefusedMode {
            return
                "Use a supported mode: on a software-protected VM, PRESERVE in both directions and ZERO to shared only."
        }
        if possibility.isErrorOffset { return "Fill in a new struct for every attempt." }
        let advice = possibility.row.advice(in: version)
        return possibility.row == .inUse ? around().map { advice + " " + $0 } ?? advice : advice
    }

    /// RFC v1 silently rounds the size down to whole pages.
    private var cut: String? {
        guard version.truncatesSize, let size = call.size, size % pageSize != 0 else { return nil }
        return
            "This version silently rounded the size \(Words.hex(size)) down to \(Words.hex(size - size % pageSize)) (hazard H24)."
    }

    /// Adds related topics and the litmus tests that show the rows.
    private func seeAlso(_ shown: [ValidationTable.Possibility], _ text: inout Explanation) {
        let rows = shown.map(\.row).removingRepetitions
        if call.isEmpty, rows.count > 2 {
            text.add(
                .see,
                "give the call's arguments (\(ConversionArguments.keys.joined(separator: "= "))=) to narrow this down"
            )
        }
        let hazards = rows.flatMap { $0.hazards(in: version) }.removingRepetitions
        if !hazards.isEmpty {
            text.add(.see, (hazards.count == 1 ? "hazard " : "hazards ") + hazards.joined(separator: ", "))
        }
        // One test per row if there are several rows.
        let tests =
            shown.allSatisfy(\.isErrorOffset)
            ? Hazard.named("H1")?.litmus ?? [] : rows.flatMap { $0.litmus.prefix(rows.count == 1 ? 2 : 1) }
        if !tests.isEmpty { text.add(.litmus, tests.joined(separator: ", ")) }
    }

    /// The calls that convert all pages except the one in use.
    private func around() -> String? {
        guard let offset = call.offset, let size = call.size, let page = call.errorOffset, page >= offset,
            case (let end, false) = offset.addingReportingOverflow(size),
            case (let after, false) = page.addingReportingOverflow(pageSize), after <= end
        else { return nil }
        var calls: [String] = []
        if page > offset { calls.append("offset=\(Words.hex(offset)) size=\(Words.hex(page - offset))") }
        if after < end { calls.append("offset=\(Words.hex(after)) size=\(Words.hex(end - after))") }
        return calls.isEmpty ? nil : "To convert around it: \(calls.joined(separator: " and "))."
    }

    /// Explains that the errno does not fit the arguments.
    private func contradiction(
        _ matching: [ValidationTable.Possibility], _ all: [ValidationTable.Possibility],
        _ text: inout Explanation
    ) {
        if let errorOffset = call.errorOffset, !matching.isEmpty {
            text.rows = matching.map(\.row.rawValue)
            text.add(
                .means,
                "This contradicts the interface: with \(errno.word), \(matching[0].row.errorOffset) of the request, but "
                    + "\(Words.hex(errorOffset)) is not.")
            text.add(
                .advice,
                "Check the numbers. If they are right, the kernel has a bug, which minivmm litmus can show."
            )
            return
        }
        if let certain = all.first(where: \.follows) {
            let expected = certain.errno.map(\.name) ?? "success"
            text.add(
                .means,
                "This contradicts the interface: with these arguments \(certain.row.label) returns \(expected) (\(certain.why)), "
                    + "and no earlier row returns \(errno.word).")
            text.add(
                .advice,
                "Check the arguments. If they are right, the kernel has a bug, which minivmm litmus can show."
            )
            return
        }
        let possible = all.map { $0.errno?.name ?? "0" }.removingRepetitions
        text.add(
            .means,
            "No row of the call's validation table returns \(errno.word)"
                + (call.isEmpty ? "." : " for these arguments.") + " The call can return "
                + possible.joined(separator: ", ") + ".")
        text.add(
            .advice,
            "Check whether another call failed (call=NAME explains its errno); minivmm explain KVM_SET_MEMORY_ATTRIBUTES2 has the table."
        )
    }
}

extension Sequence where Element: Hashable {
    /// The elements in their order, without repetitions.
    var removingRepetitions: [Element] {
        var seen: Set<Element> = []
        return filter { seen.insert($0).inserted }
    }
}
