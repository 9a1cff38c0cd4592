// SPDX-License-Identifier: MIT
import GuestImages
import GuestPayloads
import Testing

@Suite struct CatalogueTests {
    /// The names in the table that the linker has put together.
    private var assembled: [String] {
        (0..<guest_image_count()).compactMap { index in
            unsafe guest_image_name(index).map { unsafe String(cString: $0) }
        }
    }

    @Test func everyImageIsDescribedAndEveryDescriptionHasAnImage() {
        #expect(assembled.sorted() == (Catalogue.all.map(\.name) + ["agent"]).sorted())
        #expect(Catalogue.named("agent") == nil)
        #expect((16...4096).contains(LitmusAgent.image.count))
    }

    @Test func namesAreUnique() {
        #expect(Set(Catalogue.all.map(\.name)).count == Catalogue.all.count)
        #expect(Set(assembled).count == assembled.count)
    }

    @Test func theTableEnds() {
        let count = guest_image_count()
        #expect(unsafe guest_image_name(count) == nil)
        #expect(unsafe guest_image_start(count) == nil)
        #expect(guest_image_size(count) == 0)
    }

    /// A guest is entered at its first byte, so the image must start with its code and not with a routine or a string.
    @Test(arguments: Catalogue.all) func theImageStartsWithTheGuestsCode(_ payload: Payload) {
        let expected: [UInt8] =
            switch payload.name {
            case "crash": [0x0f, 0x0b]  // ud2
            case "hang": [0xeb, 0xfe]  // jmp to itself
            default: [0x49, 0x89, 0xff]  // mov %rdi, %r15: keep the boot information page
            }
        #expect(Array(payload.image.prefix(expected.count)) == expected)
    }

    @Test(arguments: Catalogue.all) func theImageFits(_ payload: Payload) {
        #expect(payload.image.count > 16)
        #expect(payload.image.count <= 64 << 10)
        #expect(payload.ramSize == 16 << 20)
        #expect((1...16).contains(payload.vcpus))
    }

    /// The image is complete: it contains the guest's name, which a failed check prints, after the code.
    @Test(arguments: Catalogue.all) func theImageCarriesItsName(_ payload: Payload) {
        let name = Array(payload.name.utf8) + [0]
        let found = payload.image.indices.contains { payload.image[$0...].starts(with: name) }
        #expect(found)
    }

    @Test(arguments: Catalogue.all) func descriptionsHaveTheRightLength(_ payload: Payload) {
        #expect(!payload.shows.isEmpty && payload.shows.count <= 72)
        #expect(!payload.shows.contains("\n") && !payload.detail.contains("\n"))
        #expect(payload.detail.count >= 80 && payload.detail.count <= 400)
    }

    @Test func endings() {
        let status = Dictionary(
            uniqueKeysWithValues: Catalogue.all.map { ($0.name, $0.ending.exitStatus) })
        #expect(status["hello"] == 0)
        #expect(status["crash"] == 126)
        #expect(status["fault-loop"] == 126)
        #expect(status["hang"] == 124)
        // Only a machine with two aliases has a wrong alias.
        #expect(Catalogue.all.allSatisfy { $0.faultPolicy == .convert || $0.aliases == .two })
    }

    /// A guest that uses another content policy cannot require preservation.
    @Test func needs() {
        #expect(Catalogue.all.allSatisfy { !$0.needsPreservation || $0.contents == .preserve })
        #expect(Catalogue.named("forget")?.contents == .zero)
        // Nobody can preserve contents for an SNP or TDX guest.
        let without = Catalogue.all.filter { !$0.needsPreservation && !$0.vmType.isConfidential }.map(\.name)
        #expect(without == ["hello", "forget", "contents", "hostile", "fault-loop", "crash", "hang"])
    }

    @Test func lookup() {
        #expect(Catalogue.named("smp")?.vcpus == 4)
        #expect(Catalogue.named("SMP") == nil)
        #expect(Catalogue.named("") == nil)
    }

    @Test func typos() {
        #expect(Catalogue.nearest(to: "helo") == ["hello"])
        #expect(Catalogue.nearest(to: "pingpong") == ["ping-pong"])
        #expect(Catalogue.nearest(to: "ipmlicit").first == "implicit")
        #expect(Catalogue.nearest(to: "fault") == ["fault-loop"])
        #expect(Catalogue.nearest(to: "SWEEP") == ["sweep"])
        #expect(Catalogue.nearest(to: "").isEmpty)
        #expect(Catalogue.nearest(to: "quite-something-else").isEmpty)
    }
}
