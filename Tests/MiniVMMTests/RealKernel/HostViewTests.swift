// SPDX-License-Identifier: MIT
import GuestPayloads
import SystemPackage
import Testing

@testable import MiniVMM

@Suite("Host accesses during conversions")
struct HostViewTests {
    private static func machine(on backend: BackendUnderTest) throws -> Machine {
        try Machine(
            backend: backend.required(), configuration: MachineConfiguration(),
            image: .flat(try #require(Catalogue.named("hang")).image), console: Console(nil))
    }

    /// A thread reads and writes a page through the host's mapping while another repeatedly converts it. Each
    /// access succeeds or is a typed EFAULT; there is no SIGBUS, and no byte is lost.
    @Test(arguments: BackendUnderTest.asked(of: [.inPlace, .trap, .software]))
    func survivesConversions(on backend: BackendUnderTest) throws {
        let machine = try Self.machine(on: backend)
        let memory = machine.memory
        let gpa = machine.layout.free.lowerBound
        let page = try #require(PageRange(start: gpa, size: pageSize))
        func convert(to state: PageState) throws {
            try machine.converter.convert(
                ConversionRequest(range: page, to: state, contents: .preserve), by: .monitor)
        }
        try convert(to: .shared)
        try memory.writeWord(gpa: gpa, 0)
        let outcomes = Collected<(done: Int, refused: Int, other: [HostAccessError])>()
        let threads = TrapThreads()
        threads.start {
            var result = (done: 0, refused: 0, other: [HostAccessError]())
            // The word counts the successful accesses: each reads it and writes it plus one.
            while result.done + result.refused < 20_000 {
                do throws(HostAccessError) {
                    let word = try memory.readWord(gpa: gpa)
                    if word != UInt64(result.done) { break }
                    try memory.writeWord(gpa: gpa, word + 1)
                    result.done += 1
                } catch {
                    if error.errno == .badAddress { result.refused += 1 } else { result.other.append(error) }
                }
            }
            outcomes.add(result)
        }
        for _ in 0..<300 {
            try convert(to: .private)
            try convert(to: .shared)
        }
        #expect(threads.join(seconds: 600))
        let result = try #require(outcomes.all.first)
        #expect(result.other.isEmpty, "\(result.other)")
        #expect(result.done + result.refused == 20_000, "an access is missing after \(result.done)")
        #expect(try memory.readWord(gpa: gpa) == UInt64(result.done))
    }

}
