// SPDX-License-Identifier: MIT
import ConversionModel

// The outcomes that a step can have on some kernel.
extension Action {
    /// Whether a step of this actor can end this way on some kernel.
    package func canEnd(with outcome: StepOutcome, on actor: Actor) -> Bool {
        var isVCPU = false
        if case .vcpu = actor { isVCPU = true }
        if case .every(_, let action) = self {
            return action.canEndPattern(with: outcome, isVCPU: isVCPU, actor)
        }
        switch (self, outcome) {
        case (.confidential(let action), .status(let status, _)):
            return action.canEnd(with: status) || action.isOfGuest && (status == .vc || status == .ve)
        case (.confidential(let action), .fault): return action.isOfGuest
        case (.confidential, .errno): return true
        case (.hypercall, .status(let status, _)):
            return status == .refused || status == .retry || status == .invalid
        case (.read, .status(let status, _)), (.write, .status(let status, _)),
            (.fill, .status(let status, _)),
            (.check, .status(let status, _)):
            return isVCPU && (status == .vc || status == .ve)
        case (.read, .garbage): return true
        case (.read, .value), (.check, .differs), (.again, .value), (.peek, .value): return true
        case (.peek, .ok): return false
        case (.zapped, .value), (.present, .value), (.extension, .value), (.dirty, .value), (.node, .value):
            return true
        case (.zapped, .ok), (.present, .ok), (.extension, .ok), (.dirty, .ok), (.node, .ok): return false
        case (.read, .ok): return false
        case (.again, .fault), (.again, .mmio): return true
        case (_, .ok): return true
        case (.read, .sigbus(let place)), (.write, .sigbus(let place)): return !isVCPU && place == nil
        case (.fill, .sigbus), (.check, .sigbus): return !isVCPU
        case (.read, .fault), (.write, .fault), (.fill, .fault), (.check, .fault): return isVCPU
        case (.read, .mmio), (.write, .mmio), (.fill, .mmio), (.check, .mmio): return isVCPU
        case (.read, .errno(let number, let place)), (.write, .errno(let number, let place)),
            (.fill, .errno(let number, let place)), (.check, .errno(let number, let place)):
            // A vCPU names the page whose memory has failed.
            if isVCPU, number == ErrorNumber.hardwarePoisoned.rawValue { return true }
            return place == nil && (isVCPU || number != 14)
        case (.again, .errno): return true
        case (.convert, .errno), (.hypercall, .errno): return true
        case (_, .errno(_, let place)): return place == nil
        default: return false
        }
    }
}

extension Action {
    /// Whether a pattern of calls of this action can end this way. Its outcome names a page.
    fileprivate func canEndPattern(with outcome: StepOutcome, isVCPU: Bool, _ actor: Actor) -> Bool {
        switch (self, outcome) {
        case (.read, .differs): true
        case (_, .sigbus): isAccess && !isVCPU
        case (_, .errno(let number, _)): isVCPU || !isAccess || number != 14
        default: canEnd(with: outcome, on: actor)
        }
    }
}

extension Step {
    /// Whether the step can end this way on some kernel.
    package func canEnd(with outcome: StepOutcome) -> Bool {
        // The outcome may be that of the conversion for a memory fault.
        if onFault != nil, case .errno = outcome { return true }
        return action.canEnd(with: outcome, on: actor)
    }

    package func hint(_ outcome: StepOutcome) -> String {
        if case .errno(14, _) = outcome {
            return
                "an access that gets no page is `SIGBUS` in this language, even if a system call returns EFAULT"
        }
        return "`\(action)` cannot end with `\(outcome)`"
    }
}
