// SPDX-License-Identifier: MIT
import CUnicornShim
import MiniVMM

extension CPUFailure {
    /// - Returns: nil if there is no failure.
    init?(_ failure: cuc_failure) {
        let reason: Reason
        switch failure.kind {
        case CUC_FAILURE_NONE: return nil
        case CUC_FAILURE_ENGINE: reason = .instruction(error: failure.number)
        case CUC_FAILURE_SIGNAL: reason = .signal(failure.number)
        case CUC_FAILURE_EXIT: reason = .exited(status: failure.number)
        case CUC_FAILURE_HANG: reason = .hung(seconds: Int(failure.number))
        case CUC_FAILURE_KICK: reason = .unresponsive
        case CUC_FAILURE_START: reason = .notStarted(status: failure.number)
        default: reason = .nonsense
        }
        let code = unsafe withUnsafeBytes(of: failure.code) {
            unsafe [UInt8]($0.prefix(Int(failure.code_size)))
        }
        self.init(reason, rip: failure.rip, code: code)
    }
}
