// SPDX-License-Identifier: MIT
import CKVMShim
package import SystemPackage

/// A guest call, by VMMCALL or by port, and the monitor's answer.
///
/// Numbers, arguments and answers are defined in guest/include/guest.h. No guest value can crash the monitor: every
/// sum is checked, and a malformed request is `-EINVAL`.
package struct GuestCall {
    /// RAX.
    package let number: UInt64
    /// RBX, RCX, RDX.
    package let arguments: (UInt64, UInt64, UInt64)

    package init(number: UInt64, arguments: (UInt64, UInt64, UInt64)) {
        self.number = number
        self.arguments = arguments
    }

    package struct Answer {
        /// RAX: 0, a small number, or a negative errno.
        package var result: Int64
        /// RCX, for calls that return a word, and the first page not converted if a conversion failed. KVM passes on only
        /// RAX if the guest made the call by instruction.
        package var word: UInt64?
        /// Whether another vCPU should run next.
        package var yields = false

        package static let done = Answer(result: 0)
        package static func failed(_ errno: Errno) -> Answer { Answer(result: -Int64(errno.rawValue)) }

        /// `hypercall.ret` for a request of an SNP or TDX guest, which is not the guest's RAX: KVM accepts 0, `EAGAIN` and
        /// `EINVAL`, and fails `KVM_RUN` with `EINVAL` for anything else.
        package var ofConfidentialGuest: Answer {
            guard result < 0 else { return self }
            let isBusy = result == -Int64(Errno.resourceTemporarilyUnavailable.rawValue)
            let errno = isBusy ? Errno.resourceTemporarilyUnavailable : .invalidArgument
            return Answer(result: Int64(errno.rawValue))
        }
    }

    /// The most holds at a time; more are `-ENOMEM`. Each needs a pipe of this process.
    private static let holdLimit = 64

    func perform(on machine: Machine, by actor: Actor, _ statistics: inout RunStatistics) -> Answer {
        switch GuestCallNumber(rawValue: number) {
        case .mapGPARange: return convert(machine, actor, &statistics)
        case .hold: return hold(machine, actor)
        case .release:
            let count = machine.converter.holds.releaseAll { range in
                machine.trace?.record(.released(range), by: actor)
            }
            machine.trace?.record(.releasedHolds(count), by: actor)
            return .done
        case .peek, .poke: return touch(machine, actor)
        case .state:
            guard let state = machine.memory.state(at: arguments.0) else { return .failed(.invalidArgument) }
            return Answer(result: state == .private ? 1 : 0)
        case .yield: return Answer(result: 0, yields: true)
        case .hostActs:
            do throws(Errno) {
                try machine.act(on: arguments.0, arguments.1)
                return .done
            } catch {
                return .failed(error)
            }
        case nil: return .failed(.noFunction)
        }
    }

    /// The range of `arguments.1` pages from `arguments.0`; nil if it is empty, unaligned or outside RAM.
    private func pages(of machine: Machine) -> PageRange? {
        let (size, overflow) = arguments.1.multipliedReportingOverflow(by: pageSize)
        guard !overflow, let range = PageRange(start: arguments.0, size: size),
            range.end <= machine.memory.size
        else { return nil }
        return range
    }

    // MARK: KVM_HC_MAP_GPA_RANGE

    private func convert(_ machine: Machine, _ actor: Actor, _ statistics: inout RunStatistics) -> Answer {
        guard let asked = MapRequest(arguments), asked.range.end <= machine.memory.size else {
            return .failed(.invalidArgument)
        }
        // A guest could not even speak if the host were hostile to the pages that it needs for that.
        if asked.range.start >= machine.layout.free.lowerBound {
            if machine.configuration.host.contains(.lie) { return .done }
            if machine.configuration.host.contains(.refuse) { return .failed(.invalidArgument) }
            if machine.configuration.host.contains(.wrongRet) { return Answer(result: 1) }
        }
        do throws(ConversionError) {
            let request = ConversionRequest(
                range: asked.range, to: asked.target,
                contents: asked.contents ?? machine.configuration.contents)
            statistics.count(try machine.converter.convert(request, by: actor))
            return .done
        } catch {
            statistics.count(error)
            var answer = Answer.failed(error.errno)
            answer.word = error.firstNotConverted
            return answer
        }
    }

    // MARK: services

    private func hold(_ machine: Machine, _ actor: Actor) -> Answer {
        guard let range = pages(of: machine), arguments.2 <= 1 else { return .failed(.invalidArgument) }
        guard let region = machine.memory.regions.first(where: { $0.gpa.contains(range) }) else {
            return .failed(.invalidArgument)
        }
        do throws(Errno) {
            let hold = try region.mapping.hold(at: range.start - region.gpa.start, length: range.size)
            let yields = arguments.2 == 0
            guard machine.converter.holds.add(hold, range: range, yields: yields, limit: Self.holdLimit)
            else {
                hold.release()
                return .failed(.noMemory)
            }
        } catch {
            return .failed(error)
        }
        machine.trace?.record(.held(range, yields: arguments.2 == 0), by: actor)
        return .done
    }

    private func touch(_ machine: Machine, _ actor: Actor) -> Answer {
        let gpa = arguments.0
        let (end, overflow) = gpa.addingReportingOverflow(8)
        guard !overflow, end <= machine.memory.size else { return .failed(.invalidArgument) }
        var answer = Answer.done
        var failure: HostAccessError?
        do throws(HostAccessError) {
            if number == GuestCallNumber.peek.rawValue {
                answer.word = try machine.memory.readWord(gpa: gpa)
            } else {
                try machine.memory.writeWord(gpa: gpa, arguments.1)
            }
        } catch {
            failure = error
            answer = .failed(error.errno)
        }
        machine.trace?.record(
            .hostAccess(gpa: gpa, number == GuestCallNumber.peek.rawValue ? .read : .write, failure),
            by: actor)
        return answer
    }
}
