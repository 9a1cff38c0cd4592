// SPDX-License-Identifier: MIT
import MiniVMM
import SoftKVM
import SystemPackage
import Testing

@testable import Backends

/// Which backend `auto` chooses, and what it reports about the others.
@Suite("Backends", .timeLimit(.minutes(120)))
struct ChoiceTests {
    private static let nowhere: FilePath = "/nonexistent/kvm"

    @Test func `without a device SoftKVM is chosen, and the reason is the device's errno`() throws {
        let chosen = try BackendKind.automatic(BackendNeeds(device: Self.nowhere))
        #expect(chosen.kind == .soft && chosen.backend is SoftKVM)
        #expect(chosen.backend.identity.kind == .simulated)
        guard case .automatic(let passedOver) = chosen.reason, passedOver.count == 1,
            case .unavailable(let unavailable) = passedOver[0]
        else {
            Issue.record("\(chosen.reason)")
            return
        }
        #expect(unavailable.device == Self.nowhere && unavailable.errno == .noSuchFileOrDirectory)
    }

    @Test func `a requested kind is never replaced`() throws {
        for kind in BackendKind.allCases where kind != .soft {
            #expect(throws: BackendError.self) { try kind.open(BackendNeeds(device: Self.nowhere)) }
        }
        guard case .requested = try BackendKind.soft.open().reason else {
            Issue.record("the backend was requested")
            return
        }
    }

    /// On any machine, the chosen backend converts, and every backend closer to Linux 7.4 was passed over.
    @Test(arguments: [false, true]) func `the chosen backend has the needed features`(preservation: Bool)
        throws
    {
        let chosen = try BackendKind.automatic(BackendNeeds(preservation: preservation))
        #expect(BackendProbe(chosen.backend).conversionFailure() == nil)
        let vm = try chosen.backend.createVM(.softwareProtected, sharedBit: nil)
        #expect(!preservation || vm.contentPromise.canPreserve)
        guard case .automatic(let passedOver) = chosen.reason else {
            Issue.record("\(chosen.kind) was not requested")
            return
        }
        if case .unavailable = passedOver.first { return }
        #expect(passedOver.count == BackendKind.allCases.firstIndex(of: chosen.kind))
    }

    @Test func `with two aliases a VM accepts a shared bit`() throws {
        let chosen = try BackendKind.automatic(BackendNeeds(aliases: .two))
        _ = try chosen.backend.createVM(.softwareProtected, sharedBit: 38)
    }
}
