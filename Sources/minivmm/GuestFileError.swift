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
    /// An option that a built-in guest does not take.
    case optionForFiles(String)
    case moduleUnreadable(Errno, path: String)
    /// Larger than the guest's RAM.
    case moduleTooLarge(String)
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
        case .optionForFiles(let option):
            "\(option) is for guests from a file; a built-in guest knows how it is loaded"
        case .moduleUnreadable(let errno, let path): "--module \(path): cannot be read: \(errno)"
        case .moduleTooLarge(let path): "--module \(path): the file is larger than the guest's RAM"
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
        case .optionForFiles:
            Diagnosis(
                attempted: "to apply the options of images", answer: "stopped before creating a VM",
                means: "The option says how a file is loaded, and no file was given.",
                advice: "Omit the option, or give the path of a file, such as ./hello.")
        case .moduleUnreadable, .moduleTooLarge:
            Diagnosis(
                attempted: "reading a module", answer: "stopped before creating a VM",
                means: "A module is copied into the guest's RAM before it starts.",
                advice: "Check the path and its permissions, or give the guest more RAM (--ram).")
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
