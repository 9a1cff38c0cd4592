// SPDX-License-Identifier: MIT
import Explain
import SystemPackage

/// Why the named guest has no image.
enum GuestFileError: Error {
    /// Neither a built-in guest nor a file; the most similar names.
    case noSuchGuest(nearest: [String])
    case unreadable(Errno, path: String)
    /// Larger than four times the guest's RAM, or than 1 GiB.
    case tooLarge
    /// A file of another kind, at this path.
    case notBootable(FileKind, path: String)
}

extension GuestFileError: CustomStringConvertible {
    var description: String {
        switch self {
        case .noSuchGuest(let near):
            "neither a built-in guest nor a file"
                + (near.isEmpty ? "" : "; did you mean \(near.joined(separator: " or "))?")
                + " (`minivmm list` names the built-in guests)"
        case .unreadable(let errno, let path):
            "cannot be read: \(errno)"
                + (errno == .noSuchFileOrDirectory ? DirectoryListing.suggestion(for: path) : "")
        case .tooLarge: "the file is larger than four times the guest's RAM, or than 1 GiB"
        case .notBootable(let kind, _): "this is \(kind.name), not a guest"
        }
    }
}

extension GuestFileError {
    var diagnosis: Diagnosis {
        switch self {
        case .noSuchGuest, .unreadable:
            Diagnosis(
                attempted: "reading the guest's image", answer: "stopped before creating a VM",
                means: "No built-in guest and no readable file has this name.",
                advice:
                    "`minivmm list` names the built-in guests. For a file, check its path and permissions."
            )
        case .tooLarge:
            Diagnosis(
                attempted: "reading the guest's image", answer: "stopped before creating a VM",
                means: "Debug information may make a file larger than its segments, but there is a limit.",
                advice: "Strip the file, or give the guest more RAM (--ram).")
        case .notBootable(let kind, let path):
            Diagnosis(
                attempted: "reading the guest's image", answer: "stopped before creating a VM",
                means: "The file's name or its contents show that it is \(kind.name).",
                advice: kind.advice(path))
        }
    }
}
