// SPDX-License-Identifier: MIT
import CUnicornShim
import Synchronization
public import SystemPackage

/// The engine's shared library. The launcher of CPU processes opens it; this process never does. Start-up does not
/// wait for it: ``search()`` does, which is first called when a vCPU runs or the status is queried.
struct EngineLibrary: Sendable {
    enum Search: Sendable {
        case found(name: String, version: String)
        /// None of these files exists and is an engine of version 2.
        case missing
        /// The launcher could not be started. The errno says which resource the host lacks.
        case failed(Errno)
    }

    /// Names for dlopen, in order of preference.
    let names: [String]

    /// Search results by names. A missing library is searched for again, because it may be installed meanwhile.
    private static let found = Mutex<[[String]: Search]>([:])

    /// Asks the launcher to open the library, without waiting.
    func open() {
        if let name = names.first { _ = unsafe cuc_launcher_start(name) }
    }

    /// Searches for the library. Waits for the launcher.
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
    /// The engine is not installed. The message says what to do.
    case missing(message: String)
    /// The search failed, because the host lacks a resource.
    case unknown(Errno)
}

extension EngineLibrary {
    var status: EngineStatus {
        switch search() {
        case .found(_, let version): .available(version: version)
        case .missing:
            .missing(
                message: "SoftKVM cannot run vCPUs: the Unicorn engine (\(names.joined(separator: ", "))) "
                    + "is not installed. Install it: apt-get install libunicorn2")
        case .failed(let errno): .unknown(errno)
        }
    }

    /// The host part of the backend's identity.
    var description: String {
        switch search() {
        case .found(_, let version): "Unicorn \(version)"
        case .missing: "cannot run vCPUs: libunicorn2 is not installed"
        case .failed(let errno): "cannot run vCPUs: starting the CPU launcher failed with \(errno.name)"
        }
    }
}
