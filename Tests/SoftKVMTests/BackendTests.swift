// SPDX-License-Identifier: MIT
import CKVMShim
import Foundation
import MiniVMM
import SoftKVM
import SystemPackage
import Testing

struct BackendTests {
    @Test func onlyRunningNeedsTheEngine() throws {
        let kvm = SoftKVM(.init(engineLibraries: ["libno-such-engine.so.9"]))
        guard case .missing(let message) = kvm.engineStatus else { return #expect(Bool(false)) }
        #expect(message.contains("apt-get install libunicorn2"))
        #expect(kvm.identity.host.contains("not installed"))
        let vm = try kvm.createVM(.softwareProtected, sharedBit: 39)
        let file = try vm.createGuestMemfd(size: 4 * pageSize, flags: [.mmap, .initShared])
        try vm.setUserMemoryRegion2(slot(file))
        #expect(file.convert(0, 2, to: .private).errno == nil)
        let vcpu = try vm.createVCPU(id: 0)
        try vcpu.setCPUID(kvm.supportedCPUID())
        var special = try vcpu.specialRegisters()
        special.cr3 = 0x5000
        try vcpu.setSpecialRegisters(special)
        #expect(try vcpu.specialRegisters().cr3 == 0x5000)
        var registers = try vcpu.registers()
        registers.rip = 0x1234
        try vcpu.setRegisters(registers)
        #expect(try vcpu.registers().rip == 0x1234)
        #expect(errno { () throws(Errno) in try vcpu.run() } == .notSupported)
    }

    @Test(.enabled(if: hasEngine)) func engineIsNotLoadedIntoTheMonitor() throws {
        let kvm = SoftKVM()
        guard case .available(let version) = kvm.engineStatus else { return #expect(Bool(false)) }
        #expect(kvm.identity.host == "Unicorn \(version)")
        #expect(version.hasPrefix("2."))
        #expect(try !String(contentsOfFile: "/proc/self/maps", encoding: .utf8).contains("unicorn"))
    }

    /// A name that is too long for a file, and a library that is not an engine.
    @Test(arguments: [String(repeating: "x", count: 500), "libc.so.6"])
    func invalidEngineLibrariesAreReported(name: String) {
        switch SoftKVM(.init(engineLibraries: [name])).engineStatus {
        case .missing, .unknown(.fileNameTooLong): break
        case let status: Issue.record("\(status)")
        }
    }

    @Test func capabilities() throws {
        let kvm = SoftKVM()
        let plain = try kvm.createVM(.default, sharedBit: nil)
        let protected = try kvm.createVM(.softwareProtected, sharedBit: nil)
        #expect(try plain.checkExtension(.guestMemfdMemoryAttributes) == 0)
        #expect(try protected.checkExtension(.guestMemfdMemoryAttributes) == 8)
        #expect(try kvm.checkExtension(.vmTypes) == 3)
        #expect(try protected.checkExtension(.memoryAttributes) == 0)
        #expect(try protected.checkExtension(Capability(rawValue: 9999)) == 0)
        #expect(plain.contentPromise == .undefined)
        #expect(
            errno { () throws(Errno) in try protected.enableCapability(.exitHypercall, argument: 1 << 11) }
                == .invalidArgument)
        #expect(
            errno { () throws(Errno) in try protected.enableCapability(.guestMemfd, argument: 0) }
                == .invalidArgument)
        #expect(
            errno { () throws(Errno) in try protected.enableCapability(.exitHypercall, argument: 1 << 12) }
                == nil)
        #expect(try kvm.supportedCPUID().physicalAddressBits == 40)
        #expect(try kvm.supportedCPUID().hasGigabytePages)
    }

    @Test func vcpuIDsAreUnique() throws {
        let vm = try SoftKVM().createVM(.default, sharedBit: nil)
        let first = try vm.createVCPU(id: 3)
        #expect(errno { () throws(Errno) in _ = try vm.createVCPU(id: 3) } == .fileExists)
        #expect(errno { () throws(Errno) in _ = try vm.createVCPU(id: -1) } == .invalidArgument)
        #expect(errno { () throws(Errno) in _ = try vm.createVCPU(id: 256) } == .invalidArgument)
        #expect(first.id == 3)
    }

    @Test func clockIsVirtualAndDeterministic() throws {
        func play() throws -> [UInt64] {
            let model = try ModelVM()
            var times = [model.kvm.now()]
            model.kvm.sleep(for: .milliseconds(5))
            times.append(model.kvm.now())
            _ = model.file.convert(0, 1, to: .private)
            times.append(model.kvm.now())
            model.kvm.sleep(for: .seconds(Int64.max))
            return times
        }
        let times = try play()
        #expect(times == (try play()))
        #expect(times[1] - times[0] == 5_000_020)
        #expect(times[2] - times[1] == 1020)
    }

    @Test func oppositeConversionsBothSucceed() async throws {
        // Hazard A33: the last conversion to take the lock wins.
        let model = try ModelVM(pages: 64)
        await withTaskGroup(of: Bool.self) { group in
            for state in PageState.allCases {
                group.addTask {
                    (0..<2000).allSatisfy { turn in
                        model.file.convert(UInt64(turn % 32), 32, to: state).errno == nil
                    }
                }
            }
            for await allSucceeded in group { #expect(allSucceeded) }
        }
        let all = try #require(PageRange(start: 0, size: 64 * pageSize))
        #expect(model.file.bytes(.private, in: all) + model.file.bytes(.shared, in: all) == all.size)
    }

    @Test(.enabled(if: hasEngine, "libunicorn2 is not installed"))
    func guestSurvivesConcurrentConversions() async throws {
        // inc qword [rdi]; dec rcx; jnz back to the first; hlt
        let guest = try Guest(
            [0x48, 0xff, 0x07, 0x48, 0xff, 0xc9, 0x75, 0xf8, 0xf4], sharedBit: 39, isPrivate: true,
            .init(timeSlice: 200))
        try guest.change { ($0.rdi, $0.rcx) = (0x30000, 20000) }
        let file = guest.model.file
        let host = Task.detached {
            for turn in 0..<300 { _ = file.convert(0x30, 1, to: turn % 2 == 0 ? .shared : .private) }
        }
        var end = ""
        repeat {
            end = guest.vcpu.exit()
            if end.hasPrefix("fault") { _ = file.convert(0x30, 1, to: .private) }
        } while end == "interrupted" || end == "fault 0x30000 4096 8 errno 14"
        await host.value
        #expect(end == "halt")
        _ = file.convert(0x30, 1, to: .shared)
        #expect(try guest.ram.word(at: 0x30000) == 20000)
    }
}
