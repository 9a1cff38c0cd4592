// SPDX-License-Identifier: MIT
import SystemPackage
import Testing

@testable import MiniVMM

@Suite("The console")
struct ConsoleTests {
    private func write(_ console: Console, _ text: String, port: UInt16 = 0x3f8) {
        for byte in text.utf8 { console.write(port: port, byte) }
    }

    @Test func linesArePassedOnWhole() {
        let lines = Collected<String>()
        let console = Console(nil, keeps: true, onLine: { lines.add($0) })
        write(console, "one\n\ntw")
        write(console, "o\nrest", port: 0xe9)
        #expect(lines.all == ["one", "", "two"])
        console.flush()
        #expect(lines.all == ["one", "", "two", "rest"])
        console.flush()
        #expect(lines.all.count == 4, "flushed once")
        #expect(console.text == "one\n\ntwo\nrest")
    }

    @Test func aLineWithoutEndIsPassedOnInPieces() {
        let lines = Collected<String>()
        let console = Console(nil, onLine: { lines.add($0) })
        write(console, String(repeating: "x", count: 10_000))
        #expect(lines.all.map(\.count) == [4096, 4096])
        console.flush()
        #expect(lines.all.map(\.count) == [4096, 4096, 10_000 - 8192])
    }

    @Test func onlyTheFirstMegabyteIsKept() {
        let console = Console(nil, keeps: true)
        for _ in 0..<(1 << 20) + 5 { console.write(port: 0xe9, 65) }
        #expect(console.text.utf8.count == 1 << 20)
        let forgetful = Console(nil)
        write(forgetful, "x")
        #expect(forgetful.text == "")
    }

    @Test func invalidUTF8BecomesReplacementCharacters() {
        let lines = Collected<String>()
        let console = Console(nil, keeps: true, onLine: { lines.add($0) })
        for byte in [0xff, 0x41, 0x00, 0x0a] as [UInt8] { console.write(port: 0x3f8, byte) }
        #expect(lines.all == ["\u{fffd}A\0"])
        #expect(console.text == "\u{fffd}A\0\n")
    }

    @Test func outputIsWrittenAtTheEndOfALine() throws {
        let pipe = try FileDescriptor.pipe()
        let console = Console(pipe.writeEnd)
        write(console, "hello\nwor")
        #expect(try readSome(pipe.readEnd) == "hello\n")
        console.flush()
        #expect(try readSome(pipe.readEnd) == "wor")
        try pipe.readEnd.close()
        try pipe.writeEnd.close()
    }

    @Test func aWriteErrorIsKept() throws {
        // Opened for reading only: a write is EBADF, without a signal.
        let file = try FileDescriptor.open("/dev/null", .readOnly)
        let console = Console(file, keeps: true)
        write(console, "lost\nalso lost\n")
        #expect(console.failure == .badFileDescriptor)
        #expect(console.text == "lost\nalso lost\n")
        try file.close()
    }

    private func readSome(_ descriptor: FileDescriptor) throws -> String {
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = try bytes.withUnsafeMutableBytes { try descriptor.read(into: $0) }
        return String(decoding: bytes.prefix(count), as: UTF8.self)
    }
}
