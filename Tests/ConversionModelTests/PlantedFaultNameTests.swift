// SPDX-License-Identifier: MIT
import ConversionModel
import Testing

/// The names are written out, because Embedded Swift cannot find the names of cases.
@Suite struct PlantedFaultNameTests {
    @Test(arguments: PlantedFault.allCases) func aNameIsThatOfItsCase(_ fault: PlantedFault) {
        let name = "\(fault)".reduce(into: "") { name, letter in
            name += letter.isUppercase ? "-" + letter.lowercased() : String(letter)
        }
        #expect(fault.name == name)
        #expect(PlantedFault(name: name) == fault)
    }

    @Test func everyFaultHasOneName() { #expect(PlantedFault.names.count == PlantedFault.allCases.count) }
}
