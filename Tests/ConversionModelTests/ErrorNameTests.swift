// SPDX-License-Identifier: MIT
import ConversionModel
import Glibc
import Testing

@Suite struct ErrorNameTests {
    /// `ENOMEM` and its like, which Glibc imports as numbers.
    @Test func symbolsAreThoseOfTheCLibrary() {
        for (symbol, number) in [
            ("EPERM", EPERM), ("ENOENT", ENOENT), ("EINTR", EINTR), ("EIO", EIO), ("EBADF", EBADF),
            ("EAGAIN", EAGAIN), ("ENOMEM", ENOMEM), ("EACCES", EACCES), ("EFAULT", EFAULT), ("EBUSY", EBUSY),
            ("EEXIST", EEXIST), ("ENODEV", ENODEV), ("EINVAL", EINVAL), ("EMFILE", EMFILE),
            ("ENOTTY", ENOTTY), ("EFBIG", EFBIG), ("ENOSPC", ENOSPC), ("EDEADLK", EDEADLK),
            ("ENOSYS", ENOSYS), ("EOVERFLOW", EOVERFLOW), ("EOPNOTSUPP", EOPNOTSUPP),
            ("ETIMEDOUT", ETIMEDOUT), ("ECANCELED", ECANCELED), ("ERFKILL", ERFKILL),
            ("EHWPOISON", EHWPOISON),
        ] {
            #expect(ErrorNumber(rawValue: number).name == symbol)
            #expect(ErrorNumber(symbol: symbol)?.rawValue == number)
        }
    }

    @Test(arguments: [0, -1, 41, 58, 134, .max, .min] as [Int32]) func otherNumbersHaveNone(number: Int32) {
        #expect(ErrorNumber(rawValue: number).symbol == nil)
        #expect(ErrorNumber(rawValue: number).name == "errno \(number)")
    }

    @Test func everySymbolLeadsBack() {
        #expect(ErrorNumber.named.count == 131)
        for error in ErrorNumber.named { #expect(ErrorNumber(symbol: error.name) == error) }
        #expect(ErrorNumber(symbol: "") == nil)
        #expect(ErrorNumber(symbol: "eagain") == nil)
    }
}
