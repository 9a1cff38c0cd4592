import Testing
@testable import MiniVMM
import SystemPackage

@Test func probeHere() throws {
    let linux = try LinuxKVM()
    let trap = MemslotTrapKVM(over: linux)
    let probe = KernelProbe(trap)
    for f in probe.findings() + [probe.guestRuns(), probe.twoDoors()] { print(f.key, f.verdict, f.answer) }
    for f in KernelProbe(linux).findings() { print(f.key, f.verdict, f.answer) }
    print(KernelProbe(trap).hypercallInstruction())
}
