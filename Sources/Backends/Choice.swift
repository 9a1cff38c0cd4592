// SPDX-License-Identifier: MIT
import MiniVMM
import SoftKVM
import SystemPackage

extension BackendKind {
    /// Opens this backend, without trying whether it can convert.
    ///
    /// - Throws: ``BackendError`` if the device or the software CPU is missing.
    public func open(_ needs: BackendNeeds = BackendNeeds()) throws(BackendError) -> ChosenBackend {
        let backend: any Backend
        switch self {
        case .linux: backend = try Self.linux(needs).backend(needs)
        case .perVMAttributes: backend = PerVMAttributesKVM(over: try Self.linux(needs)).backend(needs)
        case .memslotTrap: backend = MemslotTrapKVM(over: try Self.linux(needs))
        case .soft: backend = try Self.soft(needs, passedOver: [])
        }
        return ChosenBackend(backend: backend, kind: self, reason: .requested)
    }

    /// Opens the first backend that converts on a scratch VM.
    ///
    /// - Throws: ``BackendError`` if no backend does, or if the host lacks resources for a scratch VM, which proves
    ///   nothing about its kernel.
    public static func automatic(_ needs: BackendNeeds = BackendNeeds()) throws(BackendError) -> ChosenBackend
    {
        var passedOver: [Rejection] = []
        func chosen(_ backend: any Backend, _ kind: BackendKind) -> ChosenBackend {
            ChosenBackend(backend: backend, kind: kind, reason: .automatic(passedOver: passedOver))
        }
        if needs.vmType.isConfidential {
            return ChosenBackend(
                backend: try soft(needs, passedOver: []), kind: .soft, reason: .hasModel(of: needs.vmType))
        }
        let linux: LinuxKVM
        do throws(BackendError) {
            linux = try Self.linux(needs)
        } catch {
            guard !error.isHostLimit, case .unavailable(let unavailable) = error.reason else { throw error }
            passedOver = [.unavailable(unavailable)]
            return chosen(try soft(needs, passedOver: passedOver), .soft)
        }
        guard let failure = try conversionFailure(linux, passedOver) else {
            return chosen(linux.backend(needs), .linux)
        }
        passedOver.append(.cannotConvert(.linux, failure))

        let perVM = PerVMAttributesKVM(over: linux)
        if let failure = try conversionFailure(perVM, passedOver) {
            passedOver.append(.cannotConvert(.perVMAttributes, failure))
        } else if needs.preservation {
            passedOver.append(.losesContents(.perVMAttributes))
        } else {
            return chosen(perVM.backend(needs), .perVMAttributes)
        }

        let trap = MemslotTrapKVM(over: linux)
        guard let failure = try conversionFailure(trap, passedOver) else { return chosen(trap, .memslotTrap) }
        passedOver.append(.cannotConvert(.memslotTrap, failure))
        return chosen(try soft(needs, passedOver: passedOver), .soft)
    }

    private static func conversionFailure(
        _ backend: any Backend, _ passedOver: [Rejection]
    ) throws(BackendError) -> CallFailure? {
        guard let failure = BackendProbe(backend).conversionFailure() else { return nil }
        guard !failure.errno.isHostLimit else {
            throw BackendError(reason: .untried(failure), passedOver: passedOver)
        }
        return failure
    }

    private static func linux(_ needs: BackendNeeds) throws(BackendError) -> LinuxKVM {
        do throws(KVMUnavailable) {
            return try LinuxKVM(device: needs.device)
        } catch {
            throw BackendError(reason: .unavailable(error), passedOver: [])
        }
    }

    private static func soft(
        _ needs: BackendNeeds, passedOver: [Rejection]
    ) throws(BackendError) -> SoftKVM {
        let backend = SoftKVM(needs.soft)
        switch backend.engineStatus {
        case .available: return backend
        case .missing(let message):
            throw BackendError(reason: .noEngine(message), passedOver: passedOver)
        case .unknown(let errno):
            throw BackendError(
                reason: .untried(CallFailure(call: "fork of the software CPU", errno: errno)),
                passedOver: passedOver)
        }
    }
}

extension Backend {
    /// VMs of /dev/kvm have no shared bit: memslots provide the aliases, and the base backend still converts.
    fileprivate func backend(_ needs: BackendNeeds) -> any Backend {
        needs.aliases == .two ? AliasesKVM(over: self) : self
    }
}
