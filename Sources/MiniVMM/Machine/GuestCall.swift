import CKVMShim
import SystemPackage

/// A call of the guest, by VMMCALL or by port, and what the monitor does for it.
///
/// Numbers, arguments and answers are those of guest/include/guest.h. Nothing that a guest passes can trap: every
/// sum is checked, and a malformed request is `-EINVAL`.
struct GuestCall {
    let number: UInt64
    /// RBX, RCX, RDX.
    let arguments: (UInt64, UInt64, UInt64)

    struct Answer {
        /// RAX: 0, a small number, or a negative errno.
        var result: Int64
        /// RCX, where the call returns a word.
        var word: UInt64?
        /// Let another vCPU run.
        var yields = false

        static let done = Answer(result: 0)
        static func failed(_ errno: Errno) -> Answer { Answer(result: -Int64(errno.rawValue)) }
    }

    /// More holds than this at a time are `-ENOMEM`: each takes a pipe of this process.
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
        case nil: return .failed(.noFunction)
        }
    }

    /// The pages from `arguments.0` on, `arguments.1` of them; nil if they are not pages of RAM.
    private func pages(of machine: Machine) -> PageRange? {
        let (size, overflow) = arguments.1.multipliedReportingOverflow(by: pageSize)
        guard !overflow, let range = PageRange(start: arguments.0, size: size),
            range.end <= machine.memory.size
        else { return nil }
        return range
    }

    // MARK: KVM_HC_MAP_GPA_RANGE

    private func convert(_ machine: Machine, _ actor: Actor, _ statistics: inout RunStatistics) -> Answer {
        guard let range = pages(of: machine), let policy = contentPolicy(machine) else {
            return .failed(.invalidArgument)
        }
        let target: PageState = arguments.2 & CKVM_MAP_GPA_RANGE_ENCRYPTED != 0 ? .private : .shared
        do throws(ConversionError) {
            let request = ConversionRequest(range: range, to: target, contents: policy)
            statistics.count(try machine.converter.convert(request, by: actor))
            return .done
        } catch {
            statistics.count(error)
            return .failed(error.errno)
        }
    }

    /// The contents policy in bits 8 and 9 of the attributes; nil if other unknown bits are set.
    private func contentPolicy(_ machine: Machine) -> ContentPolicy? {
        let attributes = arguments.2
        // The page size in bits 0 to 3 is a hint: 4 KiB, 2 MiB or 1 GiB.
        guard attributes & CKVM_MAP_GPA_RANGE_PAGE_SIZE_MASK <= 2 else { return nil }
        switch attributes & ~(CKVM_MAP_GPA_RANGE_PAGE_SIZE_MASK | CKVM_MAP_GPA_RANGE_ENCRYPTED) {
        case 0x000: return machine.configuration.contents
        case 0x100: return .preserve
        case 0x200: return .zero
        case 0x300: return .unspecified
        default: return nil
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
