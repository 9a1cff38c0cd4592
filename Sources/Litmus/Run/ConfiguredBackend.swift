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
        let settings = test.settings
        var configuration = self
        if settings.isInPlaceOff { configuration.inPlaceConversion = false }
        if let runs = settings.attributeRuns { configuration.maximumAttributeRuns = runs }
        // A design that was chosen on the command line has precedence.
        if let design = settings.design, configuration.contentDesign == nil {
            configuration.contentDesign = design
        }
        if let kept = settings.keptDirection {
            configuration.contentPromise = ContentPromise(
                toPrivate: kept == .private ? .preserved : .undefined,
                toShared: kept == .shared ? .preserved : .undefined)
        }
        return configuration
    }
}
