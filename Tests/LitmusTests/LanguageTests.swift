// SPDX-License-Identifier: MIT
import Foundation
import MiniVMM
import Testing

@testable import Litmus

@Suite("The litmus language", .timeLimit(.minutes(120)))
struct LanguageTests {
    static let example = """
        test    "one page in use fails the whole request"   # and all is as before
        hazard  A6 A10
        needs   references
        needs   holder io_uring
        memory  4 pages shared
        memory  other 2 pages private unbound

        host    fill 0..3 0x41
        host    hold 2 by io_uring as h
        host    convert 0..3 private preserve   => EAGAIN at 2
        host1   read @0x10                      => 65 or SIGBUS
        host    release h
        host    convert @4096+1 attributes 0x10 flags 1 reserved 3 = 7 error_offset 9 struct readonly => EINVAL
        host    create f 3 pages mmap flags 0x10 on default => EINVAL
        host    bind slot 7 to other:0..1 at 16 address other:1 => ok
        parallel
        host    convert 0 private               => a
        host1   punch 0                         => b
        allowed a = ok, b = ok
        end
        """

    @Test func theOlderSpellingOfAliasesIsRead() throws {
        func test(_ word: String) throws -> LitmusTest {
            try Source(parsing: "test \"x\"\n\(word) two\nmemory 1 pages private\nvcpu0 read 0").test
        }
        #expect(try test("doors") == test("aliases") && test("aliases").hasTwoAliases)
        #expect(try test("doors").text.contains("aliases   two"))
        #expect(throws: SyntaxError.self) { _ = try test("aliases two\ndoors") }
    }

    @Test func textAndValueAgree() throws {
        let test = try Source(parsing: Self.example).test
        #expect(test.name == "one page in use fails the whole request")
        #expect(test.hazards == [Hazard(number: 6), Hazard(number: 10)])
        #expect(test.needs == [.references, .holder(.ioUring)])
        #expect(
            test.memory == [
                Memory(pages: 4, initial: .shared),
                Memory(name: try #require(Name("other")), pages: 2, initial: .private, isUnbound: true),
            ])
        let steps = test.steps
        #expect(steps[0] == Step(.host(0), .fill(Extent(pages: 0...3), 0x41)))
        #expect(
            steps[2]
                == Step(
                    .host(0), .convert(Conversion(Extent(pages: 0...3), to: .private, contents: .preserve)),
                    .anyOf([.errno(11, at: 0x2000)])))
        #expect(steps[3] == Step(.host(1), .read(Place(offset: 16)), .anyOf([.value(65), .sigbus()])))
        guard case .convert(let raw) = steps[5].action else {
            Issue.record("no conversion")
            return
        }
        #expect(
            raw.attributes == 0x10 && raw.flags == 1 && raw.errorOffset == 9 && raw.structure == .readOnly)
        #expect(raw.reserved == [Conversion.Word(index: 3, value: 7)])
        #expect(steps.count == 10)
        #expect(try Source(parsing: test.text).test == test)
    }

    @Test func namesOutliveTheirObjects() throws {
        let test = try Source(
            parsing: """
                test "x"
                memory 2 pages shared
                host map 0 as v
                host fork child
                host unmap v
                host read v:0 => SIGBUS
                child read v:0
                host mremap v to 0x2 pages as w => EFAULT
                host map 1 as v
                host create f 1 pages mmap
                host close f
                host close f => EBADF
                host create f 1 pages mmap
                host dup f as g
                host mbind 0..1 preferred 1 strict move => EIO or ok
                host vm_attributes 0 private flags 1 on default => EINVAL
                parallel
                host unmap v
                host1 madvise v:0 soft_offline => a
                end
                """
        ).test
        #expect(
            test.steps[5].action == .remap(try #require(Name("v")), pages: 2, view: try #require(Name("w"))))
        #expect(test.steps[12].action == .mbind(Extent(pages: 0...1), .preferred(1), [.strict, .move]))
        #expect(try Source(parsing: test.text).test == test)
        #expect(test.text.contains("host      vm_attributes 0 private flags 0x1 on default"))
    }

    /// The policy is written after the access and before the expectation.
    @Test func accessesHaveAFaultPolicy() throws {
        let test = try Source(
            parsing: """
                test "x"
                aliases two
                memory 2 pages private
                vcpu0 read shared:1 converting preserve
                vcpu1 write 1 0x41 converting zero attempts 2 => EAGAIN at 1 or ok
                vcpu1 again
                vcpu0 fill shared:0..1 7 converting unspecified bisect attempts 0x3 chunk 1
                parallel
                vcpu1 read 0 converting preserve => a
                allowed a = EAGAIN at 0
                end
                """
        ).test
        let steps = test.steps
        #expect(
            steps[0] == Step(.vcpu(0), .read(Place(.shared, page: 1)), onFault: FaultConversion(.preserve)))
        var policy = MonitorPolicy()
        policy.attempts = 2
        #expect(steps[1].onFault == FaultConversion(.zero, monitor: policy))
        #expect(steps[1].expectation == .anyOf([.errno(11, at: 4096), .ok]))
        #expect(steps[2].onFault == nil)
        #expect(steps[3].onFault?.description == "unspecified bisect attempts 3 chunk 1")
        #expect(
            steps[1].description
                == "vcpu1     write 1 0x41 converting zero attempts 2 => EAGAIN at 1 or ok")
        #expect(try Source(parsing: test.text).test == test)
    }

    @Test func textsAndLinesHaveASizeLimit() {
        let line = [UInt8](repeating: 0x20, count: Lexer.longestLine + 1)
        #expect(throws: SyntaxError.self) { _ = try Source(parsing: line) }
        let text = [UInt8](repeating: 0x0a, count: Source.largestText + 1)
        #expect(throws: SyntaxError.self) { _ = try Source(parsing: text) }
        let steps = "test \"x\"\nmemory 1 pages shared\n" + String(repeating: "host read 0\n", count: 10_001)
        #expect(throws: SyntaxError.self) { _ = try Source(parsing: steps) }
    }

    /// Whatever the parser rejects, a test built by a program reports as a problem, too.
    @Test func invalidValuesAreProblems() throws {
        let base = try Source(parsing: "test \"x\"\nmemory 2 pages shared\nhost convert 0 private zero").test
        #expect(base.firstProblem() == nil)
        var changed = base
        changed.needs = [.nodes(65)]
        #expect(changed.firstProblem() != nil)
        changed = base
        changed.settings.attributeRuns = -1
        #expect(changed.firstProblem() != nil)
        changed = base
        guard case .step(var step) = base.body[0], case .convert(var conversion) = step.action else {
            Issue.record("no conversion")
            return
        }
        conversion.monitor.chunk = LitmusTest.mostPages + 1
        step.action = .convert(conversion)
        changed.body = [.step(step)]
        #expect(changed.firstProblem() != nil)
        let block =
            "test \"x\"\nmemory 1 pages shared\nparallel\nhost read 0 => r\nhost1 read 0\nallowed r = 0x1\nend"
        var long = try Source(parsing: block).test
        guard case .parallel(var parallel) = long.body[0] else {
            Issue.record("no block")
            return
        }
        let condition = parallel.clauses[0].conditions[0]
        parallel.clauses[0] = Clause(.allowed, Array(repeating: condition, count: 200))
        long.body = [.parallel(parallel)]
        #expect(long.firstProblem() != nil)
    }

    @Test(arguments: ["0x-0", "0x+1", "0x", "1x", "0xg"])
    func signsAreNotDigits(_ number: String) {
        #expect(throws: SyntaxError.self) {
            _ = try Source(parsing: "test \"x\"\nmemory 1 pages shared\nhost write 0 \(number)")
        }
        #expect(throws: SyntaxError.self) {
            _ = try Source(parsing: "test \"x\"\nmemory 1 pages shared\nvcpu-0 read 0")
        }
    }

    @Test func printingAndParsingAreInverse() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("litmus round trips, seed \(seed)")
        var maker = TestMaker(seed: seed)
        for number in 0..<3000 {
            let test = maker.next()
            #expect(test.firstProblem() == nil, "seed \(seed), test \(number)")
            let text = test.text
            do {
                let read = try Source(parsing: text)
                guard read.test == test, read.test.text == text, read.places.count == test.steps.count else {
                    Issue.record("seed \(seed), test \(number) comes back different:\n\(text)")
                    return
                }
            } catch {
                Issue.record("seed \(seed), test \(number): \(error)\n\(text)")
                return
            }
        }
    }

    /// Every input is either rejected with a place inside the text, or is a test whose written form parses again.
    @Test func noInputBreaksTheParser() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("litmus fuzz, seed \(seed)")
        var generator = Generator(seed: seed)
        var maker = TestMaker(seed: seed)
        let words = [
            "host ", "=> ", "..", "@", "+", "\n", "\"", "0x", "18446744073709551615", "end\n", ":", "=",
        ]
        let texts = (0..<200).map { _ in Array(maker.next().text.utf8.prefix(160)) }
        var accepted = 0
        // Continuous integration tries a million inputs.
        let count = ProcessInfo.processInfo.environment["MINIVMM_FUZZ_INPUTS"].flatMap { Int($0) } ?? 50_000
        for number in 0..<count {
            var bytes: [UInt8]
            if number % 10 == 0 {
                bytes = (0..<generator.below(30)).map { _ in UInt8(truncatingIfNeeded: generator.next()) }
            } else {
                bytes = texts[generator.below(texts.count)]
                for _ in 0...generator.below(3) where !bytes.isEmpty {
                    let place = generator.below(bytes.count)
                    switch generator.below(4) {
                    case 0: bytes[place] = UInt8(truncatingIfNeeded: generator.next())
                    case 1: bytes.remove(at: place)
                    case 2: bytes.insert(contentsOf: words[generator.below(words.count)].utf8, at: place)
                    default: bytes[place] = bytes[generator.below(bytes.count)]
                    }
                }
            }
            do {
                let test = try Source(parsing: bytes).test
                accepted += 1
                let again = try Source(parsing: test.text).test
                if again != test { Issue.record("seed \(seed), input \(number):\n\(test.text)") }
            } catch {
                if error.line < 1 || error.column < 1 || error.line > bytes.count + 1
                    || error.column > bytes.count + 1
                {
                    Issue.record("seed \(seed), input \(number): \(error)")
                }
            }
        }
        #expect(accepted > count / 500, "too few of the texts make sense for this to say anything")
    }
}
