// SPDX-License-Identifier: MIT
import ArgumentParser
import Backends
import Explain
import Litmus
import MiniVMM

extension CallFailure {
    var text: String { "\(call): \(errno.name)" }

    var diagnosis: Diagnosis {
        MachineError.backend(call: call, errno: errno, attempted: "a scratch VM", hint: nil).diagnosis
    }
}

extension ChosenBackend {
    /// Why it is this one.
    var reasonText: String {
        let passedOver: [Rejection]
        switch reason {
        case .requested: return "chosen with --backend \(kind.rawValue)"
        case .hasModel(let type): return "chosen for its \(VMName(type).rawValue) VM"
        case .automatic(let rejections): passedOver = rejections
        }
        return switch kind {
        case .linux: "/dev/kvm converts in place"
        case .perVMAttributes: "\(passedOver.text), but has per-VM attributes"
        case .memslotTrap, .soft: passedOver.text
        }
    }

    /// One line for people.
    var line: String {
        if case .requested = reason { return "\(backend.identity), \(reasonText)" }
        return "\(backend.identity): \(reasonText)"
    }

    /// - Throws: status 4 if per-VM attributes were requested and the kernel has none.
    func requireAttributes() throws {
        guard kind == .perVMAttributes, let failure = BackendProbe(backend).conversionFailure() else {
            return
        }
        throw stop(
            "the kernel has no per-VM attributes (\(failure.text)), so everything is skipped", Status.skipped,
            failure.diagnosis)
    }
}

extension [Rejection] {
    /// One sentence of what was tried, without its period.
    var text: String {
        map { rejection in
            switch rejection {
            case .unavailable(let unavailable): unavailable.description
            case .cannotConvert(.linux, let failure):
                "/dev/kvm cannot convert in place (\(failure.text))"
            // Older kernels have none, which the call above said.
            case .cannotConvert(.perVMAttributes, _): ""
            case .cannotConvert(_, let failure): ", nor with memslots (\(failure.text))"
            case .losesContents:
                ", and its per-VM attributes do not preserve contents, which the guest needs"
            }
        }.joined()
    }
}

extension BackendError {
    var text: String {
        switch reason {
        case .unavailable(let unavailable): unavailable.description
        case .untried(let failure): "a scratch VM could not be tried (\(failure.text))"
        case .noEngine(let message): passedOver.isEmpty ? message : "\(passedOver.text); \(message)"
        }
    }

    /// The explanation of the error, with the action to take.
    var diagnosis: Diagnosis {
        switch reason {
        case .unavailable(let unavailable): unavailable.diagnosis
        case .untried(let failure): failure.diagnosis
        case .noEngine(let message): .engine(message)
        }
    }
}
