// SPDX-License-Identifier: MIT
/// The cause of an event.
public enum Actor: Sendable, Hashable, CustomStringConvertible {
    /// The vCPU with this id, from 0.
    case vcpu(Int)
    /// A host thread by its number. 0 is the monitor; litmus tests have others.
    case host(Int)
    /// A process forked by the host, from 0; in litmus tests.
    case child(Int)

    /// The host thread that runs the machine.
    public static let monitor = Actor.host(0)

    /// `host`, `vcpu0`, `host1`, `child`, `child1`.
    public var description: String {
        switch self {
        case .vcpu(let id): "vcpu\(id)"
        case .host(let number): number == 0 ? "host" : "host\(number)"
        case .child(let number): number == 0 ? "child" : "child\(number)"
        }
    }
}
