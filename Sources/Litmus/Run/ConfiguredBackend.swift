// SPDX-License-Identifier: MIT
import ConversionModel
import MiniVMM
import SoftKVM
import SystemPackage

extension BackendFacts {
    /// The backend configured as the test's header demands.
    func configured(for test: LitmusTest) throws(Stop) -> BackendFacts {
        let settings = test.settings
        if test.hasTwoAliases, settings.isEmpty, backend is LinuxKVM || backend is PerVMAttributesKVM {
            // The aliases of a kernel follow its conversions.
            guard try !isInPlaceOff() else {
                throw .skip("this kernel does not convert in place, so the monitor cannot make two aliases")
            }
            return withAliases
        }
        guard !settings.isEmpty else { return self }
        guard let soft else {
            let rest =
                settings.attributeRuns != nil || settings.design != nil || settings.keptDirection != nil
            if rest { throw .skip("only SoftKVM can be configured by `kernel`") }
            guard try isInPlaceOff() else { throw .skip("this kernel converts in place") }
            return self
        }
        return BackendFacts(SoftKVM(soft.configuration.configured(for: test)))
    }
}

extension SoftKVM.Configuration {
    /// The configuration with the settings of the test's header.
    func configured(for test: LitmusTest) -> SoftKVM.Configuration {
        let (old, new) = (rules, rules.configured(for: test))
        var configuration = self
        configuration.inPlaceConversion = new.convertsInPlace
        configuration.maximumAttributeRuns = new.maximumAttributeRuns
        configuration.contentDesign = new.contentDesign
        if new.contentPromise != old.contentPromise { configuration.contentPromise = new.contentPromise }
        return configuration
    }
}

extension SoftKVM.Configuration {
    /// Whether the rules are those of Linux 7.4, with nothing configured otherwise.
    var isModelOfLinux74: Bool {
        abi == .linux74 && contentPromise == nil && contentDesign == nil && plantedFaults.isEmpty
            && inPlaceConversion && maximumAttributeRuns == .max
    }
}
