// SPDX-License-Identifier: MIT
/// Which interface of the kernel converts.
enum ConversionInterface: String {
    case inPlace = "in-place"
    case perVM = "per-vm-attributes"
}

/// A measured operation: a conversion of pages in some state, or a piece of a vCPU's work.
enum Operation: Hashable {
    /// The state of the pages before a conversion.
    enum Pages: String, CaseIterable {
        case neverTouched = "never-touched"
        case justWritten = "just-written"
        case present
        case mappedByHost = "mapped-by-host"
        case mappedByGuest = "mapped-by-guest"
        case mixed
        case alternating

        /// The states in which a conversion to this side is measured. Private pages cannot be mapped by the host.
        static func before(_ target: Target) -> [Pages] {
            switch target {
            case .private:
                [.neverTouched, .justWritten, .present, .mappedByHost, .mappedByGuest, .mixed, .alternating]
            case .shared: [.neverTouched, .present, .mappedByGuest, .mixed, .alternating]
            }
        }

        /// States that differ from page to page need more than one.
        var leastPages: UInt64 {
            switch self {
            case .mixed, .alternating: 2
            default: 1
            }
        }
    }
    enum Target: String, CaseIterable { case `private`, shared }
    enum Held: String, CaseIterable { case first, last }
    /// One KVM_RUN, or a sequence that contains it.
    enum Guest: String, CaseIterable {
        case exit
        case hypercall
        case faultExit = "fault-exit"
        case faultConversion = "fault-conversion"
        case faultResume = "fault-resume"
    }

    case conversion(Target, Pages)
    /// The pages are in the wanted state already.
    case unchanged(Target)
    /// A page is held by a pipe.
    case busy(Held)
    case guest(Guest)

    /// The name in JSON, without the number of pages.
    var key: String {
        switch self {
        case .conversion(let target, let pages): "to-\(target.rawValue)/\(pages.rawValue)"
        case .unchanged(let target): "unchanged/\(target.rawValue)"
        case .busy(let held): "eagain/\(held.rawValue)"
        case .guest(let guest): "guest/\(guest.rawValue)"
        }
    }
}

/// The instructions of one operation.
struct Cost {
    let operation: Operation
    /// 4 KiB each; 1 for a guest's.
    let pages: UInt64
    /// Each repetition, without the reading of the counter. Not empty.
    let samples: [UInt64]
    /// Timer ticks inside the measurement.
    let ticks: UInt64

    var key: String {
        if case .guest = operation { operation.key } else { "\(operation.key)/\(pages)" }
    }
    var median: UInt64 { middle(samples) }
    var least: UInt64 { samples.min() ?? 0 }
    var most: UInt64 { samples.max() ?? 0 }
    var isExact: Bool { least == most }
}

/// All costs of one kernel.
struct Costs {
    let backend: String
    let interface: ConversionInterface
    let repetitions: Int
    /// Instructions of reading the counter, which are subtracted.
    let overhead: UInt64
    let tickPeriod: UInt64
    /// Median of the ticks seen.
    let tickCost: UInt64
    let costs: [Cost]

    /// Pages in one call.
    static let sizes: [UInt64] = [1, 8, 512, 65_536]

    func cost(_ operation: Operation, _ pages: UInt64) -> Cost? {
        costs.first { $0.operation == operation && $0.pages == pages }
    }

    /// The three steps of a memory fault together; nil if one is missing.
    var fault: UInt64? {
        let steps: [Operation.Guest] = [.faultExit, .faultConversion, .faultResume]
        let found = steps.compactMap { cost(.guest($0), 1)?.median }
        return found.count == steps.count ? found.reduce(0, +) : nil
    }
}
