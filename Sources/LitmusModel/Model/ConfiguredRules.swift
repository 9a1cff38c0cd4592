// SPDX-License-Identifier: MIT
public import ConversionModel

extension Rules {
    /// The rules with the settings of the test's header.
    public func configured(for test: LitmusTest) -> Rules {
        let settings = test.settings
        let promise = settings.keptDirection.map { kept in
            ContentPromise(
                toPrivate: kept == .private ? .preserved : .undefined,
                toShared: kept == .shared ? .preserved : .undefined)
        }
        return Rules(
            // A design that was chosen beside the test has precedence.
            abi: abi, contentDesign: contentDesign ?? settings.design,
            contentPromise: promise ?? contentPromise,
            faults: faults, convertsInPlace: convertsInPlace && !settings.isInPlaceOff,
            maximumAttributeRuns: settings.attributeRuns ?? maximumAttributeRuns, memoryLimit: memoryLimit)
    }
}
