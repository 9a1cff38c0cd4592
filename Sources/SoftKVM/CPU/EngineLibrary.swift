// SPDX-License-Identifier: MIT
import CUnicornShim
import Synchronization
public import SystemPackage

/// The engine's shared library. The launcher of CPU processes has it open, this process never: a start does not wait for
/// it until a vCPU runs or somebody asks.
struct EngineLibrary: Sendable {
    enum Search: Sendable {
        case found(name: String, version: String)
        /// No file of these names is there, or none that is an engine of version 2.
        case missing
        /// The launcher could not be asked: what the host has no more of.
        case failed(Errno)
    }

    /// What dlopen is asked for, in order.
    let names: [String]

    /// What was found, by the names asked for. One that is missing may be installed meanwhile.
    private static let found = Mutex<[[String]: Search]>([:])

    /// Has the launcher open it, and does not wait for that.
    func open() {
        if let name = names.first { _ = unsafe cuc_launcher_start(name) }
    }

    /// Waits for the launcher.
    func search() -> Search {
        Self.found.withLock { found in
            if let search = found[names] { return search }
            for name in names {
                let version = unsafe cuc_library_version(name)
                if version < 0 { return .failed(Errno(rawValue: -version)) }
                if version == 0 { continue }
                let search = Search.found(
                    name: name, version: "\(version >> 16).\(version >> 8 & 0xff).\(version & 0xff)")
                found[names] = search
                return search
            }
            return .missing
        }
    }
}

/// Whether vCPUs can run.
public enum EngineStatus: Sendable, Equatable {
    /// The engine's version, `2.0.1`.
    case available(version: String)
    /// What to do about it.
    case missing(message: String)
    /// The host has no more of something that finding out takes.
    case unknown(Errno)
}

extension EngineLibrary {
    var status: EngineStatus {
        switch search() {
        case .found(_, let version): .available(version: version)
        case .missing:
            .missing(
                message: "SoftKVM has no CPU: the Unicorn engine (\(names.joined(separator: ", "))) is not "
                    + "installed: apt-get install libunicorn2")
        case .failed(let errno): .unknown(errno)
        }
    }

    /// Of the kernel's identity.
    var description: String {
        switch search() {
        case .found(_, let version): "Unicorn \(version)"
        case .missing: "no CPU: libunicorn2 is not installed"
        case .failed(let errno): "its CPU cannot be had: \(errno.name)"
        }
    }
}
