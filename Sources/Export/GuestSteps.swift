// SPDX-License-Identifier: MIT
import Litmus
import MiniVMM
import SystemPackage

// The outcomes of steps of vCPUs, as C expressions.
extension StepWriter {
    /// The expression of an access whose memory faults the monitor handles, if the step says so.
    func following(_ step: Step, _ cpu: String, _ access: String) -> String {
        guard let onFault = step.onFault, test.hasTwoAliases else {
            return isRacing || step.onFault != nil ? "follow(\(cpu), \(access))" : access
        }
        return "follow_faults(\(cpu), \(access), \(Self.policy(onFault.contents, onFault.monitor)))"
    }

    /// The policy of the monitor's converter.
    static func policy(_ contents: ContentPolicy, _ monitor: MonitorPolicy) -> String {
        var fields = [".attempts = \(monitor.attempts)", ".chunk = \(CText.bytes(monitor.chunkBytes))"]
        if contents == .zero { fields.insert(".zeroes = true", at: 0) }
        if monitor.bisects { fields.append(".bisects = true") }
        return "&(struct policy){ \(fields.joined(separator: ", ")) }"
    }

    mutating func guest(_ step: Step, _ number: Int) throws(ExportProblem) -> String {
        let cpu = "&" + vcpu(number)
        switch step.action {
        case .read(let place):
            pending[number] = step
            return following(step, cpu, "guest_read(\(cpu), \(address(place.name, place.offset)))")
        case .write(let place, let byte):
            pending[number] = step
            let byte = CText.byte(byte)
            return following(
                step, cpu, "guest_write(\(cpu), \(address(place.name, place.offset)), \(byte))")
        case .fill(let extent, let byte):
            let range = "\(address(extent.name, extent.offset)), \(CText.bytes(extent.size))"
            return following(step, cpu, "guest_fill(\(cpu), \(range), \(CText.byte(byte)))")
        case .check(let extent, let byte):
            let range = "\(address(extent.name, extent.offset)), \(CText.bytes(extent.size))"
            return following(step, cpu, "guest_check(\(cpu), \(range), \(CText.byte(byte)))")
        case .again: return following(pending[number] ?? step, cpu, "repeat_access(\(cpu))")
        case .hypercall(let extent, let attributes):
            let word = Attributes.hypercallWord(attributes)
            if word & 0x300 == 0x200 { zeroesForGuest = true }
            let text =
                word == 0 ? "0" : word == 1 << 4 ? "KVM_MAP_GPA_RANGE_ENCRYPTED" : CText.word(word)
            return "guest_call(\(cpu), \(offset(extent.offset)), \(extent.size / pageSize), \(text))"
        case .preFault(let extent):
            return "prefault(\(cpu), \(range(extent)))"
        case .clock(let place):
            canRestore = false
            return "set_clock(\(cpu), \(offset(place.offset)))"
        default: throw .step(step.text, reason: "a vCPU does not do that")
        }
    }
}
