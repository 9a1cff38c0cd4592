// SPDX-License-Identifier: MIT
/// A row of a hazard table (docs/ABI.md, docs/CONFIDENTIAL.md): a way in which conversions go wrong.
public struct Hazard: Sendable {
    /// `A6`; `H22` for a hazard that only posted versions of the interface have; `V16` for one of SNP, TDX, pKVM or CCA.
    public let id: String
    /// The versions that have it; nil means all versions.
    let versions: Set<InterfaceVersion>?
    /// The symptom.
    public let symptom: String
    /// The cause.
    public let trigger: String
    /// Its cause.
    public let means: String
    /// How to avoid it.
    public let cure: String
    /// Names of files in litmus/ that show it, without `.litmus`. If there are many, only some are listed.
    public let litmus: [String]
    /// Why no litmus test shows it, and what does; nil if one does, or none has been written.
    public let untested: String?

    init(
        _ id: String, _ symptom: String, trigger: String, means: String, cure: String,
        versions: Set<InterfaceVersion>? = nil, litmus: [String] = [], untested: String? = nil
    ) {
        self.id = id
        self.symptom = symptom
        self.trigger = trigger
        self.means = means
        self.cure = cure
        self.versions = versions
        self.litmus = litmus
        self.untested = untested
    }

    var number: Int { Int(id.dropFirst()) ?? 0 }

    /// Whether only posted versions of the interface have it, and Linux 7.4 does not.
    public var isHistoric: Bool { versions != nil }

    func isIn(_ version: InterfaceVersion) -> Bool { versions?.contains(version) ?? true }

    /// The hazard with this ``id`` in upper or lower case; nil if there is none.
    public static func named(_ id: String) -> Hazard? {
        all.first { $0.id.lowercased() == id.lowercased() }
    }

    var explanation: Explanation {
        var text = Explanation(
            .hazard, id, "hazard \(id)",
            [(.symptom, symptom), (.trigger, trigger), (.means, means), (.advice, cure)])
        text.add(.versions, versionsText)
        text.add(
            .litmus,
            litmus.isEmpty
                ? untested.map { "no litmus test: \($0)" } ?? "no litmus test yet"
                : litmus.joined(separator: ", ") + " (minivmm litmus litmus/NAME.litmus)")
        return text
    }

    private var versionsText: String {
        if id.hasPrefix("V") { return "the hazard is not one of the interface, but of SNP, TDX, pKVM or CCA" }
        guard let versions else { return "all, including Linux 7.4" }
        return InterfaceVersion.allCases.filter(versions.contains).map(\.rawValue).joined(separator: ", ")
            + "; not in Linux 7.4"
    }
}
