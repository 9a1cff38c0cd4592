// SPDX-License-Identifier: MIT
import CKVMShim
import SystemPackage
import Testing

@testable import MiniVMM

@Suite("Run loop: ports and the console")
struct RunLoopPortTests {
    private func answers(_ body: (FakeVCPU, @escaping @Sendable ([UInt8]) -> Void) -> Void) throws
        -> [[UInt8]]
    {
        let bench = try MachineBench()
        let seen = Collected<[UInt8]>()
        body(bench.vcpu) { seen.add($0) }
        #expect(bench.run().kind == "halted")
        return seen.all
    }

    @Test func bothConsolesWriteToTheSamePlace() throws {
        let bench = try MachineBench()
        bench.vcpu.out(0x3f8, Array("serial\n".utf8))
        for byte in "debug\n".utf8 { bench.vcpu.out(0xe9, [byte]) }
        _ = bench.run()
        #expect(bench.console.text == "serial\ndebug\n")
        #expect(bench.machine.statistics.portExits == 7)
    }

    /// A device is one byte wide.
    @Test func theLowestByteOfAWideTransferCounts() throws {
        let bench = try MachineBench()
        bench.vcpu.out(0x3f8, Array("aXXXbXXX".utf8), size: 4)
        bench.vcpu.out(0xe9, Array("cX".utf8), size: 2)
        _ = bench.run()
        #expect(bench.console.text == "abc")
    }

    @Test func theDivisorLatchIsNotTheTransmitter() throws {
        let bench = try MachineBench()
        bench.vcpu.out(0x3fb, [0x80])
        bench.vcpu.out(0x3f8, [1])  // divisor
        bench.vcpu.out(0x3f9, [0])
        bench.vcpu.out(0x3fb, [0x03])
        bench.vcpu.out(0x3f8, Array("ok".utf8))
        _ = bench.run()
        #expect(bench.console.text == "ok")
    }

    @Test func com1LooksReady() throws {
        let seen = try answers { vcpu, seen in
            vcpu.out(0x3fb, [0x1b])
            vcpu.out(0x3ff, [0x5a])
            for port in 0x3f8...0x3ff as ClosedRange<UInt16> { vcpu.input(port, seen) }
        }
        #expect(seen == [[0], [0], [1], [0x1b], [0], [0x60], [0xb0], [0x5a]])
    }

    @Test func theDebugPortCanBeDetected() throws {
        #expect(try answers { $0.input(0xe9, $1) } == [[0xe9]])
    }

    @Test func unusedPortsReadAllOnes() throws {
        let seen = try answers { vcpu, seen in
            for port in [0, 0x60, 0xe8, 0xf4, 0x3f7, 0x400, 0xcf8, 0xffff] as [UInt16] {
                vcpu.input(port, size: 4, seen)
            }
            vcpu.input(0x3fd, size: 4, count: 2, seen)
            vcpu.input(0x60, size: 2, count: 3, seen)
        }
        #expect(seen.prefix(8).allSatisfy { $0 == [0xff, 0xff, 0xff, 0xff] })
        #expect(seen[8] == [0x60, 0xff, 0xff, 0xff, 0x60, 0xff, 0xff, 0xff])
        #expect(seen[9] == [UInt8](repeating: 0xff, count: 6))
    }

    @Test func writesToUnusedPortsAreIgnored() throws {
        let bench = try MachineBench()
        for port in [0, 0x80, 0x3f7, 0x400, 0xffff] as [UInt16] {
            bench.vcpu.out(port, [1, 2, 3, 4], size: 4)
        }
        // A byte to the call port is not a call, nor are two.
        bench.vcpu.out(0xe8, [1])
        bench.vcpu.out(0xe8, [UInt8](repeating: 0, count: 8), size: 4)
        #expect(bench.run().kind == "halted")
        #expect(bench.console.text == "")
        #expect(bench.machine.statistics.hypercalls == 0)
    }

    /// Whatever a kernel reports as the data's offset, the result is an error and never a read outside the page.
    @Test func dataOutsideThePageIsRefused() throws {
        let corners: [(UInt8, UInt32, UInt64)] = [
            (1, 1, UInt64(FakeVCPU.length)), (4, 1, UInt64(FakeVCPU.length) - 3), (1, 4097, 4096),
            (4, .max, 4096), (255, .max, 0), (1, 1, .max), (1, 1, 1 << 63), (1, 0, .max),
        ]
        for (size, count, offset) in corners {
            for direction in [CKVM_EXIT_IO_IN, CKVM_EXIT_IO_OUT] {
                for port in [0x3f8, 0xf4, 0x80] as [UInt16] {
                    let bench = try MachineBench()
                    var io = ckvm_run_io()
                    io.direction = direction
                    io.size = size
                    io.port = port
                    io.count = count
                    io.data_offset = offset
                    bench.vcpu.raw(io)
                    let outcome = bench.run()
                    #expect(
                        outcome.exitStatus == 125 && outcome.description.contains("outside the kvm_run page"),
                        "\(io): \(outcome)")
                }
            }
        }
    }

    @Test func theLastByteOfThePageIsInside() throws {
        let bench = try MachineBench()
        var io = ckvm_run_io()
        io.direction = CKVM_EXIT_IO_OUT
        io.size = 1
        io.count = 1
        io.port = 0xf4
        io.data_offset = UInt64(FakeVCPU.length - 1)
        bench.vcpu.raw(io)
        #expect(bench.run().exitStatus == 0)
    }

    @Test func transfersOfNoSizeAreHarmless() throws {
        for port in [0x3f8, 0xf4, 0xe8, 0xe9] as [UInt16] {
            for direction in [CKVM_EXIT_IO_IN, CKVM_EXIT_IO_OUT, 2, 255] {
                let bench = try MachineBench()
                var io = ckvm_run_io()
                io.direction = direction
                io.port = port
                io.count = 7
                io.data_offset = 4096
                bench.vcpu.raw(io)
                #expect(bench.run().kind == "halted")
            }
        }
    }
}
