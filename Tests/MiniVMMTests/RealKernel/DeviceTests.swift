// SPDX-License-Identifier: MIT
import CKVMShim
import SystemPackage
import Testing

@testable import MiniVMM

@Suite("Unusable KVM devices")
struct DeviceTests {
    private func failure(_ device: FilePath) -> KVMUnavailable? {
        do throws(KVMUnavailable) {
            _ = try LinuxKVM(device: device)
            return nil
        } catch {
            return error
        }
    }

    @Test func isMissing() throws {
        let error = try #require(failure("/nonexistent/kvm"))
        #expect(error.reason == .open && error.errno == .noSuchFileOrDirectory)
        #expect(error.description.hasPrefix("/nonexistent/kvm: no such device"))
    }

    @Test(arguments: ["/dev/null", "/dev/zero"]) func isAnotherDevice(path: String) throws {
        let error = try #require(failure(FilePath(path)))
        #expect(error.reason == .notKVM && error.errno == .inappropriateIOCTLForDevice)
        #expect(error.description.contains("not a KVM device"))
    }

    @Test func isADirectory() throws {
        let error = try #require(failure("/dev"))
        #expect(error.reason == .open && error.errno == .isDirectory)
    }

    /// A real kernel that cannot convert this memory: the wrapper emulates nothing, and passes the refusal on.
    @Test(.enabled(if: TrapHost.kvm != nil, "needs /dev/kvm")) func refusalsOfTheKernelArePassedOn() throws {
        let backend = try #require(TrapHost.kvm)
        let vm = try backend.createVM(.default, sharedBit: nil)
        guard let file = try? vm.createGuestMemfd(size: 4096, flags: []) else { return }
        // A default VM converts nothing: the ioctl does not exist (before 7.4), or refuses this VM type.
        var request = ckvm_memory_attributes2()
        request.size = 4096
        request.attributes = CKVM_MEMORY_ATTRIBUTE_PRIVATE
        #expect {
            try file.setMemoryAttributes2(&request)
        } throws: { error in
            error as? Errno == .inappropriateIOCTLForDevice || error as? Errno == .invalidArgument
        }
        #expect(throws: Errno.invalidArgument) { _ = try backend.createVM(.default, sharedBit: 46) }
        #expect(throws: Errno.self) { _ = try vm.createGuestMemfd(size: 4095, flags: []) }
        #expect(throws: Errno.self) { _ = try file.map(offset: 0, length: 4096) }
    }

    /// The call of RFC v1 has another number on the same file, and no kernel has both.
    @Test(.enabled(if: TrapHost.kvm != nil, "needs /dev/kvm")) func atMostOneCallConverts() throws {
        let vm = try #require(TrapHost.kvm).createVM(.default, sharedBit: nil)
        guard let file = try? vm.createGuestMemfd(size: 4096, flags: []) else { return }
        let first = try #require(file as? any FirstPostedGuestMemfd)
        var request = ckvm_memory_attributes2()
        let hasCall: Bool
        do throws(Errno) {
            try file.setMemoryAttributes2(&request)
            hasCall = true
        } catch {
            hasCall = error != .inappropriateIOCTLForDevice
        }
        #expect(!(hasCall && first.hasFirstCall))
        // If neither exists, the errno is that of an unknown ioctl.
        guard !hasCall, !first.hasFirstCall else { return }
        #expect(throws: Errno.inappropriateIOCTLForDevice) { try file.convertInPlace(&request) }
    }
}
