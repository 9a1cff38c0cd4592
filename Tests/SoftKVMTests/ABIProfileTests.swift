// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SoftKVM
import SystemPackage
import Testing

/// docs/ABI.md, section 3: the differences of each version of the interface, and that no other version has them.
struct ABIProfileTests {
    /// The result of the conversion call that this version has.
    private func answer(
        _ model: ModelVM, _ request: ckvm_memory_attributes2, errorOffset: UInt64 = 0
    ) -> (errno: Errno?, errorOffset: UInt64) {
        var request = request
        request.error_offset = errorOffset
        let first = errno { () throws(Errno) in try model.file.setMemoryAttributes2(&request) }
        guard first == .inappropriateIOCTLForDevice else { return (first, request.error_offset) }
        var old = ckvm_memory_attributes_rfc_v1()
        (old.offset, old.size, old.attributes) = (request.offset, request.size, request.attributes)
        (old.flags, old.error_offset) = (request.flags, request.error_offset)
        let second = errno { () throws(Errno) in try model.file.setMemoryAttributes(&old) }
        return (second, old.error_offset)
    }

    private func flagged(_ flags: UInt64, _ attributes: UInt64, _ count: UInt64 = 2)
        -> ckvm_memory_attributes2
    {
        var request = request(0, count * pageSize, attributes)
        request.flags = flags
        return request
    }

    private func backend(_ abi: ABIProfile) throws -> ModelVM { try ModelVM(.init(abi: abi)) }

    @Test(arguments: ABIProfile.allCases) func identityShowsTheVersion(abi: ABIProfile) {
        let host = SoftKVM(.init(abi: abi)).identity.host
        #expect(host.contains("ABI") == (abi != .linux74))
        #expect(abi == .linux74 || host.hasSuffix(", ABI \(abi.name)"))
    }

    @Test(arguments: ABIProfile.allCases) func row0ExistenceOfTheCall(abi: ABIProfile) throws {
        let model = try backend(abi)
        var today = request(0, pageSize)
        let new = errno { () throws(Errno) in try model.file.setMemoryAttributes2(&today) }
        #expect(new == (abi == .rfcV1 ? .inappropriateIOCTLForDevice : nil))
        var first = ckvm_memory_attributes_rfc_v1()
        (first.size, first.attributes) = (pageSize, privateAttribute)
        let old = errno { () throws(Errno) in try model.file.setMemoryAttributes(&first) }
        #expect(old == (abi == .rfcV1 ? nil : .inappropriateIOCTLForDevice))
        #expect(model.states().hasPrefix("Ps"))
        first.reserved.2 = 1
        let reserved = errno { () throws(Errno) in try model.file.setMemoryAttributes(&first) }
        #expect(reserved == (abi == .rfcV1 ? .invalidArgument : .inappropriateIOCTLForDevice))
    }

    @Test(arguments: ABIProfile.allCases) func row2Flags(abi: ABIProfile) throws {
        let hasModes = abi == .rfcV4 || abi == .rfcV5
        for flags in [3, 4, 1 << 63] as [UInt64] {
            for attributes in [0, privateAttribute] {
                #expect(try answer(backend(abi), flagged(flags, attributes)).errno == .invalidArgument)
            }
        }
        // ZERO to private is not offered. The check precedes all others, so the range may even be invalid.
        for wrong in [flagged(1, privateAttribute), flagged(1, privateAttribute, 0)] {
            let got = try answer(backend(abi), wrong, errorOffset: 0x77)
            #expect(got.errno == (hasModes ? .notSupportedOnSocket : .invalidArgument))
            #expect(got.errorOffset == (hasModes ? 0 : 0x77))
        }
        for good in [flagged(1, 0), flagged(2, 0), flagged(2, privateAttribute)] {
            #expect(try answer(backend(abi), good).errno == (hasModes ? nil : .invalidArgument))
        }
        // A VM without private memory offers no mode.
        let plain = try ModelVM(type: .default, .init(abi: abi))
        #expect(answer(plain, flagged(2, 0)).errno == (hasModes ? .notSupportedOnSocket : .invalidArgument))
        #expect(answer(plain, flagged(0, 0)).errno == .invalidArgument)
    }

    @Test(arguments: ABIProfile.allCases) func row3ErrorOffsetOnInput(abi: ABIProfile) throws {
        let model = try backend(abi)
        let refuses = abi == .rfcV2 || abi == .rfcV4
        #expect(
            answer(model, request(0, pageSize), errorOffset: pageSize).errno
                == (refuses ? .invalidArgument : nil))
        // Hazard H1: a retry with the struct of a failed call.
        let hold = try model.mapping.hold(at: 3 * pageSize, length: 1)
        let failed = answer(model, request(0, 4 * pageSize))
        #expect(failed == (.resourceTemporarilyUnavailable, 3 * pageSize))
        hold.release()
        let retry = answer(model, request(0, 4 * pageSize), errorOffset: failed.errorOffset).errno
        #expect(retry == (refuses ? .invalidArgument : nil))
    }

    @Test(arguments: ABIProfile.allCases) func row7SizeThatIsNotWholePages(abi: ABIProfile) throws {
        let model = try backend(abi)
        let truncates = abi == .rfcV1
        #expect(answer(model, request(0, 2 * pageSize + 1)).errno == (truncates ? nil : .invalidArgument))
        #expect(model.states().hasPrefix(truncates ? "PPss" : "ssss"))
        #expect(answer(model, request(4 * pageSize, 1)).errno == (truncates ? nil : .invalidArgument))
        #expect(answer(model, request(1, pageSize)).errno == .invalidArgument)
        #expect(answer(model, request(0, 0)).errno == .invalidArgument)
        #expect(model.states().dropFirst(2).allSatisfy { $0 == "s" })
    }

    @Test(arguments: ABIProfile.allCases) func row11ReferencesToShared(abi: ABIProfile) throws {
        let model = try backend(abi)
        #expect(answer(model, request(0, 2 * pageSize)).errno == nil)
        let hold = try model.mapping.hold(at: 2 * pageSize, length: 1)
        let got = answer(model, request(0, 4 * pageSize, 0))
        #expect(got.errno == (abi == .rfcV1 ? .resourceTemporarilyUnavailable : nil))
        #expect(got.errorOffset == (abi == .rfcV1 ? 2 * pageSize : 0))
        #expect(model.states().hasPrefix(abi == .rfcV1 ? "PPss" : "ssss"))
        hold.release()
        #expect(answer(model, request(0, 4 * pageSize, 0)).errno == nil)
    }

    /// Hazard H2.
    @Test(.enabled(if: hasEngine, "libunicorn2 is not installed"), arguments: ABIProfile.allCases)
    func row11VCPUFaultHoldsAReference(abi: ABIProfile) throws {
        let guest = try Guest(
            [
                0x88, 0x07,  // mov [rdi], al
                0x48, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00,  // add rdi, 0x1000
                0xeb, 0xf5,  // jmp back to the first
            ], .init(timeSlice: 50, abi: abi))
        try guest.change { $0.rdi = 0x100000 }
        let holds = abi != .linux74
        let whole = request(0x100000, 0x200000)
        #expect(guest.vcpu.exit() == "interrupted")
        let first = answer(guest.model, whole)
        #expect(first.errno == (holds ? .resourceTemporarilyUnavailable : nil))
        // The page that the vCPU faulted in last. The next call succeeds.
        let last = try guest.vcpu.registers().rdi & ~0xfff
        #expect(!holds || [last, last - pageSize].contains(first.errorOffset))
        #expect(answer(guest.model, whole).errno == nil)
    }

    // MARK: contents

    /// The first bytes of two pages, the first of which was written, after a call on both.
    private func contents(
        _ abi: ABIProfile, from start: PageState, _ attributes: UInt64, _ flags: UInt64
    ) throws -> [[UInt8]] {
        let model = try backend(abi)
        try model.mapping.put([1, 2, 3, 4], at: 0)
        if start == .private {
            #expect(answer(model, flagged(hasModes(abi) ? 2 : 0, privateAttribute)).errno == nil)
        }
        #expect(answer(model, flagged(flags, attributes)).errno == nil)
        if attributes != 0 { #expect(answer(model, flagged(hasModes(abi) ? 2 : 0, 0)).errno == nil) }
        return [try model.mapping.bytes(at: 0, 4), try model.mapping.bytes(at: pageSize, 4)]
    }

    private func hasModes(_ abi: ABIProfile) -> Bool { abi == .rfcV4 || abi == .rfcV5 }
    private static let old: [UInt8] = [1, 2, 3, 4]
    private static let zeros: [UInt8] = [0, 0, 0, 0]

    @Test(arguments: [ABIProfile.rfcV4, .rfcV5]) func contentModes(abi: ABIProfile) throws {
        for state in PageState.allCases {
            // PRESERVE, in both directions and if nothing changes.
            #expect(try contents(abi, from: state, privateAttribute, 2) == [Self.old, Self.zeros])
            #expect(try contents(abi, from: state, 0, 2) == [Self.old, Self.zeros])
            // ZERO to shared.
            #expect(try contents(abi, from: state, 0, 1) == [Self.zeros, Self.zeros])
            // Without a flag allocated pages are overwritten with noise, even if nothing changes (hazard H22).
            for attributes in [0, privateAttribute] {
                let got = try contents(abi, from: state, attributes, 0)
                #expect(got[0] != Self.old && got[0] != Self.zeros && got[1] == Self.zeros)
            }
        }
    }

    @Test(arguments: [ABIProfile.rfcV1, .rfcV2, .linux74]) func contentsWithoutModes(abi: ABIProfile) throws {
        let preserves = abi == .linux74
        #expect(try (contents(abi, from: .private, 0, 0)[0] == Self.old) == preserves)
        #expect(try (contents(abi, from: .shared, privateAttribute, 0)[0] == Self.old) == preserves)
        // A call that changes nothing destroys nothing.
        #expect(try contents(abi, from: .shared, 0, 0)[0] == Self.old)
    }

    @Test(arguments: ABIProfile.allCases) func contentPromiseFollowsTheVersionAndIsDiscoverable(
        abi: ABIProfile
    ) throws {
        let promises: [ABIProfile: ContentPromise] = [
            .rfcV1: .undefined, .rfcV2: .undefined, .rfcV4: .byFlag, .rfcV5: .byFlag, .linux74: .preserved,
        ]
        let model = try backend(abi)
        #expect(model.vm.contentPromise == promises[abi])
        let scratch = try model.vm.createGuestMemfd(size: pageSize, flags: [])
        // Discovery from results alone finds content modes; without them it learns nothing.
        let found = ContentPromise.discovered(on: scratch, otherwise: .lost)
        #expect(found == (hasModes(abi) ? .byFlag : .lost))
        let told = SoftKVM(.init(abi: abi, contentPromise: .lost))
        #expect(try told.createVM(.softwareProtected, sharedBit: nil).contentPromise == .lost)
    }
}
