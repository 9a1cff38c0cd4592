// SPDX-License-Identifier: MIT
/// The errno of a failed system call, as Linux numbers it on x86-64.
public struct ErrorNumber: Error, Hashable, Sendable {
    /// Positive, as in `errno.h`.
    public let rawValue: Int32
    /// Accepts any number, including those without a constant below.
    public init(rawValue: Int32) { self.rawValue = rawValue }

    /// `ENOENT`
    public static let noSuchFileOrDirectory = ErrorNumber(rawValue: 2)
    /// `EIO`
    public static let ioError = ErrorNumber(rawValue: 5)
    /// `EBADF`
    public static let badFileDescriptor = ErrorNumber(rawValue: 9)
    /// `EAGAIN`
    public static let resourceTemporarilyUnavailable = ErrorNumber(rawValue: 11)
    /// `ENOMEM`
    public static let noMemory = ErrorNumber(rawValue: 12)
    /// `EACCES`
    public static let permissionDenied = ErrorNumber(rawValue: 13)
    /// `EFAULT`
    public static let badAddress = ErrorNumber(rawValue: 14)
    /// `EBUSY`
    public static let resourceBusy = ErrorNumber(rawValue: 16)
    /// `EEXIST`
    public static let fileExists = ErrorNumber(rawValue: 17)
    /// `ENODEV`
    public static let operationNotSupportedByDevice = ErrorNumber(rawValue: 19)
    /// `EINVAL`
    public static let invalidArgument = ErrorNumber(rawValue: 22)
    /// `ENOTTY`
    public static let inappropriateIOCTLForDevice = ErrorNumber(rawValue: 25)
    /// `EFBIG`
    public static let fileTooLarge = ErrorNumber(rawValue: 27)
    /// `EOPNOTSUPP`
    public static let notSupportedOnSocket = ErrorNumber(rawValue: 95)
    /// `ECANCELED`
    public static let canceled = ErrorNumber(rawValue: 125)
    /// `EHWPOISON`
    public static let hardwarePoisoned = ErrorNumber(rawValue: 133)
}
