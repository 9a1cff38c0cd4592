// SPDX-License-Identifier: MIT
public import SystemPackage

extension Errno {
    /// The host has no more of something: descriptors, or memory. It says nothing about what a kernel can do.
    public var isHostLimit: Bool {
        switch self {
        case .tooManyOpenFiles, .tooManyOpenFilesInSystem, .noMemory: true
        default: false
        }
    }

    /// The symbol, for those that this interface knows; else the number.
    public var name: String { symbol ?? "errno \(rawValue)" }

    /// The symbol, for those that this interface knows.
    public var symbol: String? {
        switch self {
        case .notPermitted: "EPERM"
        case .noSuchFileOrDirectory: "ENOENT"
        case .interrupted: "EINTR"
        case .ioError: "EIO"
        case .argListTooLong: "E2BIG"
        case .badFileDescriptor: "EBADF"
        case .resourceTemporarilyUnavailable: "EAGAIN"
        case .noMemory: "ENOMEM"
        case .tooManyOpenFiles: "EMFILE"
        case .tooManyOpenFilesInSystem: "ENFILE"
        case .canceled: "ECANCELED"
        case .permissionDenied: "EACCES"
        case .badAddress: "EFAULT"
        case .resourceBusy: "EBUSY"
        case .brokenPipe: "EPIPE"
        case .fileExists: "EEXIST"
        case Errno(rawValue: 19): "ENODEV"
        case .invalidArgument: "EINVAL"
        case .inappropriateIOCTLForDevice: "ENOTTY"
        case .noSpace: "ENOSPC"
        case .noFunction: "ENOSYS"
        case .notSupported: "EOPNOTSUPP"
        case .hardwarePoisoned: "EHWPOISON"
        default: nil
        }
    }
}
