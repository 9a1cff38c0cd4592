// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SoftKVM
import SystemPackage

// Calls that some kernels do not support.
extension World {
    /// Skips the test if the errno means that the kernel does not support the call, or this user may not make it.
    func answerOfMachine(_ step: Step, _ errno: Errno?) throws(Stop) -> Observation {
        guard let errno, !step.expects(ErrorNumber(errno)) else { return answer(errno) }
        var isMissing = [.noFunction, .notPermitted, .notSupportedOnSocket].contains(errno)
        // The errno of madvise for unknown advice.
        if case .advise(let extent, _) = step.action, errno == .invalidArgument {
            isMissing = extent.offset % pageSize == 0
        }
        guard isMissing else { return answer(errno) }
        throw .skip(
            "this kernel does not support the step, or this user may not use it (\(step.action): \(errno.name))"
        )
    }

    func node(_ step: Step, _ place: Place) throws(Stop) -> Observation {
        let mapping = try placing(Extent(place.name, offset: place.offset, size: 1))
        do throws(Errno) {
            return Observation(count: UInt64(try mapping.node(at: place.offset)))
        } catch {
            return try answerOfMachine(step, error)
        }
    }

    func dirty(_ slot: UInt32, on name: VMName?) throws(Stop) -> Observation {
        guard let vm = try vm(name) as? any DirtyLogging else {
            throw .skip("\(backend.identity.name) is an adapter, which uses other memslots below")
        }
        let size = state.withLock { $0.slots[SlotKey(vm: name ?? main, number: slot)]?.extent.size } ?? 0
        guard size <= 8 * pageSize else { throw .dirtyIsOfEightPages }
        do throws(Errno) {
            return Observation(.value(UInt8(truncatingIfNeeded: try vm.dirtyLog(slot: slot))))
        } catch {
            return Observation(.errno(error.rawValue))
        }
    }

    func setAttributes(
        _ step: Step, _ extent: Extent, _ attributes: UInt64, _ flags: UInt64, on name: VMName?
    ) throws(Stop) -> Observation {
        guard let vm = try vm(name) as? any PerVMAttributes else {
            throw .skip(
                "\(backend.identity.name) is an adapter, which keeps the attributes of its VMs itself")
        }
        noteWear(.machine)
        do throws(Errno) {
            try vm.setMemoryAttributes(
                ckvm_memory_attributes(
                    address: extent.offset, size: extent.size, attributes: attributes, flags: flags))
            return Observation(.ok)
        } catch {
            return try step.answerOfSetAttributes(Observation(.errno(error.rawValue)))
        }
    }
}
