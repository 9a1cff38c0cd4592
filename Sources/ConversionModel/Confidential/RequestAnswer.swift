// SPDX-License-Identifier: MIT

/// The meaning of the monitor's answer to a page state change or MapGPA: `hypercall.ret`, which KVM reads at the next `KVM_RUN`.
public enum RequestAnswer: Hashable, Sendable {
    /// 0: the pages of this exit are done.
    case done
    /// `EAGAIN`: a TDX guest is told to call again. SNP has no such answer, so the request is refused.
    case busy
    /// `EINVAL`: the request is refused.
    case refused
}

extension KernelModel {
    /// Reads the monitor's answer to a request of an SNP or TDX guest. It is a positive errno, unlike that of a hypercall of
    /// other guests, whose RAX it becomes.
    ///
    /// - Throws: `EINVAL` for any other number: the guest is not entered (the series that kvm-x86 took in May 2026; Linux
    ///   6.16 refuses the request instead).
    public func requestAnswer(_ ret: UInt64) throws(ErrorNumber) -> RequestAnswer {
        switch ret {
        case 0: return .done
        case UInt64(ErrorNumber.resourceTemporarilyUnavailable.rawValue): return .busy
        case UInt64(ErrorNumber.invalidArgument.rawValue): return .refused
        default:
            guard plants(.wrongAnswerRefuses) else { throw .invalidArgument }
            return .refused
        }
    }
}
