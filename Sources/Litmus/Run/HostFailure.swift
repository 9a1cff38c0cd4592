// SPDX-License-Identifier: MIT
import MiniVMM
public import SystemPackage

/// The host ran out of a resource that a test needs. It is no verdict on the kernel, and no reason to skip
/// the test.
public struct HostFailure: Error, Sendable, Hashable {
    /// What failed: a system call, or a step as written.
    public let call: String
    /// The errno of that call, such as `EMFILE` or `ENOMEM`.
    public let errno: Errno
    /// The index of the step in ``LitmusTest/steps``; nil if a call failed outside of any step.
    public let step: Int?

    init(_ call: String, _ errno: Errno, step: Int? = nil) {
        self.call = call
        self.errno = errno
        self.step = step
    }

    /// How to make more of the resource available.
    public var advice: String {
        let processes = "Raise the limit of processes and threads, which `ulimit -u` shows."
        let advice = errno.hostLimitAdvice ?? processes
        return errno == .tooManyOpenFiles ? advice + " 256 are enough for any test of litmus/." : advice
    }
}

extension HostFailure: CustomStringConvertible {
    /// The call and its errno, for people.
    public var description: String { "the host failed: \(call): \(errno) (\(errno.name))" }
}

extension Stop {
    /// Something that this kernel does not have, unless it is the host that has no more of it.
    static func absent(_ reason: String, _ call: String, _ errno: Errno) -> Stop {
        errno.isHostLimit ? .host(HostFailure(call, errno)) : .skip(reason)
    }

    /// The same of something that every kernel has.
    static func broken(_ reason: String, _ call: String, _ errno: Errno) -> Stop {
        errno.isHostLimit ? .host(HostFailure(call, errno)) : .broken(reason)
    }
}

extension Source {
    /// A step that ended with an errno by which the host says that it has no more of something, where nobody expects that.
    func hostFailure(_ seen: Observation, _ index: Int, _ step: Step, _ world: World) -> HostFailure? {
        guard case .errno(let number, _) = seen.outcome, case let errno = Errno(rawValue: number),
            errno.isHostLimit
        else { return nil }
        switch step.expectation {
        case .anyOf where step.accepts(seen): return nil
        // The model has this answer of its own.
        case _ where errno == .noMemory && world.facts.soft?.hostHasFailed == false: return nil
        case .named where errno == .noMemory: return nil
        default: return HostFailure(step.text, errno, step: index)
        }
    }
}
