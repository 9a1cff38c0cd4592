// SPDX-License-Identifier: MIT
/// Something that goes wrong around conversions.
public struct Hazard: Sendable {
    public let id: String
    /// The versions that have it; nil is all of them.
    let versions: Set<InterfaceVersion>?
    public let symptom: String
    public let trigger: String
    public let means: String
    public let cure: String
    /// Files in litmus/ that show it, without their ending; some of them where there are many.
    public let litmus: [String]

    init(
        _ id: String, _ symptom: String, trigger: String, means: String, cure: String,
        versions: Set<InterfaceVersion>? = nil, litmus: [String] = []
    ) {
        self.id = id
        self.symptom = symptom
        self.trigger = trigger
        self.means = means
        self.cure = cure
        self.versions = versions
        self.litmus = litmus
    }

    var number: Int { Int(id.dropFirst()) ?? 0 }

    /// Linux 7.4 does not have it.
    public var isHistoric: Bool { versions != nil }

    func isIn(_ version: InterfaceVersion) -> Bool { versions?.contains(version) ?? true }

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
                ? "none shows it yet"
                : litmus.joined(separator: ", ") + " (minivmm litmus litmus/NAME.litmus)")
        return text
    }

    private var versionsText: String {
        guard let versions else { return "every one, Linux 7.4 too" }
        return InterfaceVersion.allCases.filter(versions.contains).map(\.rawValue).joined(separator: ", ")
            + "; gone in Linux 7.4"
    }
}
