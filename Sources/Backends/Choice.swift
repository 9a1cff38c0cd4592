// SPDX-License-Identifier: MIT
import MiniVMM
import SoftKVM
import SystemPackage

extension Backend {
    /// Opens this backend, without trying whether it can convert.
    ///
    /// - Throws: ``BackendError``, if the device or the software CPU is missing.
    public func open(_ needs: BackendNeeds = BackendNeeds()) throws(BackendError) -> ChosenKernel {
        let kernel: any KVMInterface
        switch self {
        case .linux: kernel = try Self.linux(needs).kernel(needs)
        case .perVMAttributes: kernel = PerVMAttributesKVM(over: try Self.linux(needs)).kernel(needs)
        case .memslotTrap: kernel = MemslotTrapKVM(over: try Self.linux(needs))
        case .soft: kernel = try Self.soft(needs, passedOver: [])
        }
        return ChosenKernel(kernel: kernel, backend: self, reason: .requested)
    }

    /// Opens the first backend that a scratch VM shows to convert.
    ///
    /// - Throws: ``BackendError``, if there is none, or if the host has too little of something for a scratch VM: that
    ///   says nothing about its kernel.
    public static func automatic(_ needs: BackendNeeds = BackendNeeds()) throws(BackendError) -> ChosenKernel
    {
        var passedOver: [Rejection] = []
        func chosen(_ kernel: any KVMInterface, _ backend: Backend) -> ChosenKernel {
            ChosenKernel(kernel: kernel, backend: backend, reason: .automatic(passedOver: passedOver))
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
            return chosen(linux.kernel(needs), .linux)
        }
        passedOver.append(.cannotConvert(.linux, failure))

        let perVM = PerVMAttributesKVM(over: linux)
        if let failure = try conversionFailure(perVM, passedOver) {
            passedOver.append(.cannotConvert(.perVMAttributes, failure))
        } else if needs.preservation {
            passedOver.append(.losesContents(.perVMAttributes))
        } else {
            return chosen(perVM.kernel(needs), .perVMAttributes)
        }

        let trap = MemslotTrapKVM(over: linux)
        guard let failure = try conversionFailure(trap, passedOver) else { return chosen(trap, .memslotTrap) }
        passedOver.append(.cannotConvert(.memslotTrap, failure))
        return chosen(try soft(needs, passedOver: passedOver), .soft)
    }

    private static func conversionFailure(
        _ kernel: any KVMInterface, _ passedOver: [Rejection]
    ) throws(BackendError) -> CallFailure? {
        guard let failure = KernelProbe(kernel).conversionFailure() else { return nil }
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
        let kernel = SoftKVM(needs.soft)
        switch kernel.engineStatus {
        case .available: return kernel
        case .missing(let message):
            throw BackendError(reason: .noEngine(message), passedOver: passedOver)
        case .unknown(let errno):
            throw BackendError(
                reason: .untried(CallFailure(call: "fork of the software CPU", errno: errno)),
                passedOver: passedOver)
        }
    }
}

extension KVMInterface {
    /// VMs of /dev/kvm have no shared bit: memslots make the aliases, and the kernel below still converts.
    fileprivate func kernel(_ needs: BackendNeeds) -> any KVMInterface {
        needs.aliases == .two ? AliasesKVM(over: self) : self
    }
}
