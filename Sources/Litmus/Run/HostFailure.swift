// SPDX-License-Identifier: MIT
import MiniVMM
public import SystemPackage

extension HostFailure {
    package init(_ call: String, _ errno: Errno, step: Int? = nil) {
        self.init(call, error: ErrorNumber(errno), step: step)
    }

    /// The errno of the call, such as `EMFILE` or `ENOMEM`.
    public var errno: Errno { Errno(error) }

    /// How to make more of the resource available.
    public var advice: String {
        let processes = "Raise the limit of processes and threads (`ulimit -u`)."
        let advice = errno.hostLimitAdvice ?? processes
        return errno == .tooManyOpenFiles ? advice + " 256 are enough for every test in litmus/." : advice
    }
}

extension HostFailure: CustomStringConvertible {
    /// The call and its errno, for people.
    public var description: String { "the host ran out of a resource: \(call): \(errno) (\(errno.name))" }
}

extension Stop {
    /// A failure that means that the kernel lacks something, unless the host ran out of a resource.
    static func absent(_ reason: String, _ call: String, _ errno: Errno) -> Stop {
        errno.isHostLimit ? .host(HostFailure(call, errno)) : .skip(reason)
    }

    /// A failure of a call that every kernel supports.
    static func broken(_ reason: String, _ call: String, _ errno: Errno) -> Stop {
        errno.isHostLimit ? .host(HostFailure(call, errno)) : .broken(reason)
    }
}

extension Source {
    /// An unexpected errno of a step that means that the host ran out of a resource.
    func hostFailure(_ seen: Observation, _ index: Int, _ step: Step, _ world: World) -> HostFailure? {
        guard case .errno(let number, _) = seen.outcome, case let errno = Errno(rawValue: number),
            errno.isHostLimit
        else { return nil }
        switch step.expectation {
        case .anyOf where step.accepts(seen): return nil
        // The model returns this errno by its own rules.
        case _ where errno == .noMemory && world.facts.soft?.hostHasFailed == false: return nil
        case .named where errno == .noMemory: return nil
        default: return HostFailure(step.text, errno, step: index)
        }
    }
}
