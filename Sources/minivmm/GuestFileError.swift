// SPDX-License-Identifier: MIT
import Explain
import SystemPackage

/// Why there is no image of a guest that was named.
enum GuestFileError: Error {
    /// No guest of the catalogue, and no file. The names that are near.
    case noSuchGuest(nearest: [String])
    case unreadable(Errno)
    /// More than four times the guest's RAM, or than 1 GiB.
    case tooLarge
}

extension GuestFileError: CustomStringConvertible {
    var description: String {
        switch self {
        case .noSuchGuest(let near):
            "neither a payload of the catalogue nor a file"
                + (near.isEmpty ? "" : "; did you mean \(near.joined(separator: " or "))?")
                + " (`minivmm list` names them)"
        case .unreadable(let errno): "cannot be read: \(errno)"
        case .tooLarge: "the file has more than four times the guest's RAM, or than 1 GiB"
        }
    }
}

extension GuestFileError {
    var diagnosis: Diagnosis {
        switch self {
        case .noSuchGuest, .unreadable:
            Diagnosis(
                attempted: "to read the guest's image", answer: "none: the kernel was not asked for a VM",
                means:
                    "There is no guest of this name, neither in the catalogue nor as a file that can be read.",
                advice:
                    "minivmm list names guests that are there; for a file, check its name and who may read it."
            )
        case .tooLarge:
            Diagnosis(
                attempted: "to read the guest's image", answer: "none: the kernel was not asked for a VM",
                means: "Debug information may make a file larger than its segments, but not without end.",
                advice: "Strip the file, or give the guest more RAM (--ram).")
        }
    }
}
