// SPDX-License-Identifier: MIT
import SoftKVM
import Testing

@testable import Litmus

/// What the model knows about a test's needs is what the calls of SoftKVM answer.
@Suite struct RuleNeedsTests {
    @Test(arguments: ABIProfile.allCases) func needsAreMetAsOnSoftKVM(_ abi: ABIProfile) throws {
        let needs: [Need] = [
            .inPlace, .preservation, .references, .nodes(1), .nodes(3), .holder(.vmsplice), .holder(.gupTest),
        ]
        let promises: [ContentPromise?] = [nil, .preserved, .undefined, .lost]
        for (promise, isOn) in promises.flatMap({ [($0, true), ($0, false)] }) {
            let configuration = SoftKVM.Configuration(
                abi: abi, contentPromise: promise, inPlaceConversion: isOn)
            for (need, type) in needs.flatMap({ [($0, VMType.softwareProtected), ($0, .default)] }) {
                let byCalls = try Needs(SoftKVM(configuration), type).absence(of: need)
                #expect(configuration.rules.absence(of: need, on: type) == byCalls, "\(need) on \(type)")
            }
        }
    }
}
