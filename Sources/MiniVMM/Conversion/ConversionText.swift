// SPDX-License-Identifier: MIT
public import ConversionModel
public import SystemPackage

extension ConversionError {
    /// The errno that a guest gets for this error.
    public var errno: Errno { Errno(error) }
}

extension ConversionError: CustomStringConvertible {
    /// One line: the request, the reason, and which ranges were converted nevertheless.
    public var description: String {
        let why =
            switch reason {
            case .refused(let refusal): "contents cannot be \(request.contents.participle): \(refusal)"
            case .outsideRAM(let size): "the range extends past the end of RAM (0x\(String(size, radix: 16)))"
            case .inUse(let pages):
                "in use after \(result.calls) calls, \(result.waited.wholeNanoseconds / 1_000_000) ms of waiting: "
                    + pages.map(\.description).joined(separator: " ")
                    + "; something holds these pages (io_uring buffers, vmsplice, VFIO, O_DIRECT)"
            case .backend(let error, let gpa):
                "the kernel answered \(Errno(error))" + (gpa.map { " at 0x\(String($0, radix: 16))" } ?? "")
            case .zeroing(let error, let gpa):
                "converted, but zeroing stopped at 0x\(String(gpa, radix: 16)): \(Errno(error))"
            case .cancelled: "cancelled, because the machine is shutting down"
            }
        let changed =
            result.converted.isEmpty
            ? "nothing was converted"
            : "converted: " + result.converted.map(\.description).joined(separator: " ")
        return "convert \(request): \(why) (\(changed))"
    }
}
