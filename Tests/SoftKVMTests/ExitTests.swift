import CKVMShim
import MiniVMM
import SoftKVM
import SystemPackage
import Testing

@Suite(.enabled(if: hasEngine, "libunicorn2 is not installed"))
struct ExitTests {
    @Test func outLeavesWithItsByteAndResumesAfterIt() throws {
        let guest = try Guest([
            0x66, 0xba, 0xf8, 0x03,  // mov dx, 0x3f8
            0xb0, 0x41,  // mov al, 'A'
            0xee,  // out dx, al
            0x48, 0xff, 0xc3,  // inc rbx
            0xf4,  // hlt
        ])
        guard case .io(let io) = guest.vcpu.runToExit() else { return #expect(Bool(false)) }
        #expect(io.direction == CKVM_EXIT_IO_OUT)
        #expect((io.port, io.size, io.count) == (0x3f8, 1, 1))
        #expect(guest.vcpu.runPage.withIOData(io) { Array($0) } == [0x41])
        #expect(try guest.vcpu.registers().rip == Guest.code + 6)
        #expect(try guest.vcpu.registers().rbx == 0)
        guard case .halt = guest.vcpu.runToExit() else { return #expect(Bool(false)) }
        #expect(try guest.vcpu.registers().rbx == 1)
        #expect(try guest.vcpu.registers().rip == Guest.code + 11)
    }
}
