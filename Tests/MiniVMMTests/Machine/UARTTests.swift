// SPDX-License-Identifier: MIT
import Testing

@testable import MiniVMM

/// A 16550A as drivers use it. Registers are offsets from the first port.
struct UARTTests {
    @Test func `the divisor latch hides the data and interrupt registers`() {
        var uart = UART()
        #expect(uart.write(3, 0x80) == nil)
        #expect(uart.write(0, 0x01) == nil && uart.write(1, 0x02) == nil)
        #expect(uart.read(0) == 1 && uart.read(1) == 2)
        #expect(uart.write(3, 0x03) == nil)
        #expect(uart.write(0, 0x41) == 0x41)
        #expect(uart.read(1) == 0, "no interrupt was enabled")
    }

    @Test func `loopback returns what is sent, and the modem lines`() {
        var uart = UART()
        _ = uart.write(4, 0x1e)
        #expect(uart.write(0, 0xae) == nil, "nothing is sent on the line")
        #expect(uart.read(5) & 1 == 1)
        #expect(uart.read(0) == 0xae)
        #expect(uart.read(6) & 0xf0 == 0xd0, "RTS, OUT1 and OUT2 as CTS, RI and DCD")
        uart.receive(0x55)
        #expect(uart.read(5) & 1 == 0, "the line is not connected")
        _ = uart.write(4, 0x0f)
        #expect(uart.read(6) & 0xf0 == 0xb0)
        #expect(uart.write(0, 0x41) == 0x41)
    }

    @Test func `changes of modem lines are reported once`() {
        var uart = UART()
        _ = uart.write(4, 0x10)
        #expect(uart.read(6) == 0x0b, "CTS, DSR and DCD have fallen")
        #expect(uart.read(6) == 0)
        _ = uart.write(4, 0x14)
        #expect(uart.read(6) == 0x40, "RI counts when it falls")
        _ = uart.write(4, 0x10)
        #expect(uart.read(6) == 0x04)
    }

    @Test func `without a FIFO a second byte overruns the first`() {
        var uart = UART()
        #expect(uart.read(2) & 0xc0 == 0 && uart.room == 1)
        uart.receive(1)
        uart.receive(2)
        #expect(uart.read(5) == 0x63)
        #expect(uart.read(5) == 0x61, "the overrun is reported once")
        #expect(uart.read(0) == 2 && uart.read(5) == 0x60)
    }

    @Test func `the FIFO keeps sixteen bytes in order`() {
        var uart = UART()
        _ = uart.write(2, 0xc7)
        #expect(uart.read(2) & 0xc0 == 0xc0)
        for byte in 0..<20 as Range<UInt8> { uart.receive(byte) }
        #expect(uart.room == 0 && uart.read(5) & 2 != 0)
        #expect((0..<16).map { _ in uart.read(0) } == Array(0..<16))
        #expect(uart.read(5) == 0x60)
        uart.receive(9)
        _ = uart.write(2, 0x03)
        #expect(uart.read(5) == 0x60, "cleared")
    }

    @Test func `the interrupt with the highest priority is reported`() {
        var uart = UART()
        #expect(uart.read(2) == 1)
        _ = uart.write(1, 0xff)
        #expect(uart.read(1) == 0xf)
        #expect(uart.read(2) == 2)
        #expect(uart.read(2) == 1, "reading it clears the transmitter's")
        _ = uart.write(0, 0)
        #expect(uart.read(2) == 2)
        uart.receive(7)
        #expect(uart.interrupt == .dataReceived)
        uart.receive(8)
        #expect(uart.interrupt == .lineStatus)
        _ = uart.read(5)
        #expect(uart.interrupt == .dataReceived)
        _ = uart.read(0)
        #expect(uart.interrupt == .none)
        _ = uart.write(4, 0x10)
        #expect(uart.interrupt == .modemStatus)
    }

    @Test func `a driver that only transmits does not wait for input`() {
        var uart = UART()
        for byte in "text".utf8 {
            #expect(uart.read(5) & 0x20 != 0)
            _ = uart.write(0, byte)
        }
        #expect(!uart.wantsInput)
        _ = uart.read(5)
        _ = uart.read(5)
        #expect(uart.wantsInput)
        _ = uart.write(0, 0x41)
        _ = uart.read(5)
        #expect(!uart.wantsInput, "it transmits again")
        var other = UART()
        _ = other.write(1, 1)
        #expect(other.wantsInput)
        var third = UART()
        _ = third.read(0)
        #expect(third.wantsInput)
    }

    @Test func `every register takes and returns every byte`() {
        var uart = UART()
        for round in 0..<3 as Range<UInt8> {
            for register in 0..<9 as Range<UInt16> {
                for byte in 0...255 as ClosedRange<UInt8> {
                    _ = uart.write(register, byte &+ round)
                    _ = uart.read(register)
                    uart.receive(byte)
                }
            }
        }
        #expect(uart.read(7) == 255 &+ 2)
    }
}

/// Input of the console: from a source that is asked, and pushed from another thread.
struct ConsoleInputTests {
    private final class Source: ConsoleInput {
        let parts: Collected<ConsoleInputBytes>
        init(_ parts: [ConsoleInputBytes]) {
            self.parts = Collected()
            for part in parts { self.parts.add(part) }
        }
        let next = Collected<Int>()
        func next(atMost count: Int) -> ConsoleInputBytes {
            let index = next.all.count
            next.add(count)
            return index < parts.all.count ? parts.all[index] : .ended
        }
    }

    /// Polls the line status until a byte is there, at most `limit` times.
    private func read(_ console: Console, limit: Int = 4) -> UInt8? {
        for _ in 0..<limit where console.read(port: 0x3fd) & 1 != 0 { return console.read(port: 0x3f8) }
        return nil
    }

    @Test func `a polling guest gets the bytes in order, and nothing after the end`() {
        let source = Source([.bytes([1]), .later, .later, .bytes([2]), .ended])
        let console = Console(nil, input: source)
        #expect(read(console) == 1)
        #expect(read(console, limit: 8) == 2)
        #expect(read(console) == nil)
        let asked = source.next.all.count
        #expect(read(console) == nil)
        #expect(source.next.all.count == asked, "a source that has ended is not asked again")
    }

    @Test func `a guest that reads nothing takes nothing from the source`() {
        let source = Source([.bytes([1])])
        let console = Console(nil, input: source)
        for byte in "hello\n".utf8 {
            _ = console.read(port: 0x3fd)
            console.write(port: 0x3f8, byte)
        }
        #expect(source.next.all.isEmpty)
    }

    @Test func `pushed bytes wait until the FIFO has room`() {
        let console = Console(nil)
        console.receive(Array(1...40))
        #expect((1...40).allSatisfy { read(console) == UInt8($0) })
        console.receive([UInt8](repeating: 0, count: 100_000))
        #expect(read(console) == 0)
    }
}
