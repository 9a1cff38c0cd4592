// SPDX-License-Identifier: MIT
import CKVMShim
import Foundation
import SoftKVM
import SystemPackage
import Testing

@testable import Explain
@testable import MiniVMM

/// The files of this repository, for comparing tables with them.
enum Sources {
    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    static func text(_ path: String) throws -> String {
        try String(contentsOf: root.appendingPathComponent(path), encoding: .utf8)
    }
    /// The paths of all litmus tests in litmus/: `all-or-nothing.litmus`, `snp/bounce-buffer.litmus`.
    static func litmusFiles() throws -> [String] {
        try FileManager.default.subpathsOfDirectory(atPath: root.appendingPathComponent("litmus").path)
            .filter { $0.hasSuffix(".litmus") }
    }
}

struct HazardTests {
    /// The hazards of docs/ABI.md.
    @Test func everyHazardHasTexts() {
        let ids =
            [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 28, 29, 30, 33, 34].map { "A\($0)" }
            + ["H1", "H2", "H22", "H24"] + (1...37).map { "V\($0)" }
        #expect(Set(Hazard.all.map(\.id)) == Set(ids) && Hazard.all.count == ids.count)
        for hazard in Hazard.all {
            #expect(hazard.isHistoric == hazard.id.hasPrefix("H"))
            for text in [hazard.symptom, hazard.trigger, hazard.means, hazard.cure] { #expect(!text.isEmpty) }
        }
    }

    /// Each litmus test that a hazard lists has the hazard in its `hazard` line, and a hazard with such tests lists some.
    @Test func hazardsAndLitmusTestsAgree() throws {
        var shown: [String: Set<String>] = [:]
        for file in try Sources.litmusFiles() {
            for line in try Sources.text("litmus/\(file)").split(separator: "\n")
            where line.hasPrefix("hazard ") {
                for id in line.split(separator: " ").dropFirst() {
                    shown[String(id), default: []].insert(String(file.dropLast(7)))
                }
            }
        }
        #expect(!shown.isEmpty)
        for hazard in Hazard.all {
            let tests = shown[hazard.id] ?? []
            #expect(tests.isSuperset(of: hazard.litmus), "\(hazard.id)")
            #expect(hazard.litmus.isEmpty == tests.isEmpty, "\(hazard.id)")
        }
        for id in shown.keys { #expect(Hazard.named(id) != nil, "\(id)") }
    }

    /// The litmus tests that rows and content policies list exist; those of a row have its number in their names.
    @Test func listedLitmusTestsExist() throws {
        let files = Set(try Sources.litmusFiles())
        for row in ConversionRow.allCases where row != .converted {
            #expect(!row.litmus.isEmpty)
            for test in row.litmus {
                #expect(files.contains(test + ".litmus") && test.hasPrefix("row-\(row.rawValue)-"), "\(test)")
            }
            for version in InterfaceVersion.allCases {
                for id in row.hazards(in: version) { #expect(Hazard.named(id)?.isIn(version) == true) }
                for text in [row.means(in: version), row.advice(in: version)] {
                    #expect(text.hasSuffix(".") && !text.contains("  "), "\(text)")
                }
            }
        }
        for contents in Contents.all {
            for test in (contents.text(.litmus) ?? "").split(separator: ", ") {
                #expect(files.contains(test + ".litmus"), "\(test)")
            }
        }
    }

    /// Every hazard and topic that a text refers to exists.
    @Test func referencesInTextsExist() throws {
        for kind in Kind.allCases {
            for name in Library.names(kind) {
                guard case .found(let found) = Library.answer([kind.rawValue, name]) else { continue }
                for section in found.flatMap(\.sections) {
                    for id in section.text.matches(of: /\b[AH][0-9]+\b/) {
                        #expect(Hazard.named(String(id.output)) != nil, "\(id.output) in \(section.text)")
                    }
                    for topic in section.text.matches(of: /minivmm explain ((?:[a-zA-Z0-9_]+ )?[A-Z0-9_]+)\b/)
                    {
                        let words = topic.1.split(separator: " ").map(String.init)
                        guard case .found = Library.answer(words) else {
                            Issue.record("\(words) in \(section.text)")
                            continue
                        }
                    }
                }
            }
        }
    }

    /// Every synonym leads to a topic.
    @Test func synonymsLeadToTopics() {
        for (word, name) in Calls.synonyms {
            #expect(Calls.named(word) != nil && NearWords.folded(word) == word, "\(word): \(name)")
        }
    }

    /// The explained content policies are those of a request.
    @Test func everyContentPolicyIsExplained() {
        #expect(Contents.all.map(\.name) == ContentPolicy.allCases.map(\.rawValue))
    }
}

struct EventTests {
    @Test func everyEventOfTheTraceIsExplained() {
        for name in EventName.allCases {
            let explanation = EventTexts.explanation(name.spelling.description)
            #expect(explanation?.name == name.spelling.description)
        }
    }

    private static let page = PageRange(start: 0x20_0000, size: 4 * pageSize)

    @Test func everyEventHasAnExplanation() throws {
        let page = try #require(Self.page)
        let fault = MemoryFault(gpa: 0x20_0000, size: pageSize, flags: 0)
        let request = ConversionRequest(range: page, to: .private, contents: .preserve)
        var events: [(TraceEvent, String)] = [
            (.booted(image: page, entry: 0, vcpus: 1, ram: 1 << 24, sharedBit: 39), "bit 39"),
            (.imageLeftShared(end: 0x20_0000), "stays shared"), (.guestExited(status: 3), "0xf4"),
            (.portOut(port: 0xf4, size: 1, value: 0), "exit status"),
            (.portOut(port: 0x80, size: 1, value: 0), "No device"),
            (.portIn(port: 0x3fd, size: 1, value: 0x60), "console"),
            (.portIn(port: 0x60, size: 1, value: 0xff), "ones"),
            (.mmio(gpa: 1 << 40, size: 8, write: true), "No memslot"),
            (.memoryFault(fault, .badAddress, .convert), "needs page 512 shared, and it is private"),
            (.memoryFault(fault, .badAddress, .race), "runs the vCPU again"),
            (.memoryFault(fault, .badAddress, .reenter), "A34"),
            (.memoryFault(fault, .hardwarePoisoned, .fatal), "EHWPOISON"),
            (.hypercall(number: 12, 0, 4, 0x10, byInstruction: true, result: 0), "4 pages to private"),
            (.hypercall(number: 12, 0, 1, 0, byInstruction: false, result: -11), "EAGAIN"),
            (.hypercall(number: 12, 0, 1, 0, byInstruction: true, result: 1), "the monitor answered 1"),
            (.hypercall(number: 0x4d56_0005, 0, 1, 0, byInstruction: false, result: 1), "private"),
            (.hypercall(number: 9, 0, 1, 0, byInstruction: false, result: .min), "unknown number"),
            (.steppedOver(rip: 0), "RIP"), (.halted, "HLT"), (.kicked, "stops"),
            (.conversionStarted(request), "convert 4 pages to private"),
            (.attributesCall(offset: 0, size: pageSize, target: .shared, nil, 0), "Success"),
            (
                .attributesCall(
                    offset: 0, size: 2 * pageSize, target: .private, .resourceTemporarilyUnavailable, pageSize
                ),
                "0x1000"
            ),
            (
                .attributesCall(offset: 0, size: pageSize, target: .private, .inappropriateIOCTLForDevice, 0),
                "7.4"
            ),
            (.holdersAsked(gpa: 0, released: 1, refused: 0), "1 known holder released"),
            (.holdersAsked(gpa: 0, released: 0, refused: 2), "2 known holders refused"),
            (.waiting(gpa: 0, nanoseconds: 20_000, attempt: 1), "waits"),
            (.conversionFinished(request, ConversionResult(means: .zeroedByMonitor)), "zero"),
            (.held(page, yields: true), "on request"), (.releasedHolds(2), "released"),
            (.hostAccess(gpa: 0, .read, nil), "shared"),
        ]
        for reason in ErrorTests.reasons {
            events.append((.conversionFailed(ErrorTests.failure(reason)), ""))
        }
        for (event, words) in events {
            let fields = EventFields(event)
            let why = EventTexts.why(fields)
            #expect((words.isEmpty || why.contains(words)) && why.hasSuffix("."), "\(fields.name): \(why)")
        }
        #expect(EventTexts.why(EventFields(console: "hi", exits: 2)).contains("2 characters"))
    }
}

private let diagnosesFile = ProcessInfo.processInfo.environment["MINIVMM_WRITE_DIAGNOSES"]

struct ErrorTests {
    private static let page = PageRange(start: 0x20_0000, size: 4 * pageSize)

    static let reasons: [ConversionError.Reason] = [
        .refused(.noPromise(to: .private)), .refused(.twoPlaces(to: .shared)),
        .refused(.onlyGuestInitialises),
        .outsideRAM(size: 1 << 24),
        .inUse(page.map { [$0] } ?? []), .backend(.noMemory, gpa: 0x20_0000),
        .backend(.invalidArgument, gpa: nil),
        .backend(.inappropriateIOCTLForDevice, gpa: nil), .zeroing(.badAddress, gpa: 0x20_0000),
    ]

    /// A failed conversion with this reason.
    static func failure(_ reason: ConversionError.Reason) -> ConversionError {
        let range = page ?? PageRange.covering(start: 0, size: 1)
        let request = range.map { ConversionRequest(range: $0, to: .private, contents: .preserve) }
        guard let request else { preconditionFailure("the range of a test is valid") }
        return ConversionError(
            reason: reason, request: request, result: ConversionResult(means: .notRequested))
    }

    /// Checks that there are four lines, none of them empty, and that the sentences are complete.
    private func check(_ diagnosis: Diagnosis, _ location: SourceLocation = #_sourceLocation) {
        #expect(diagnosis.lines.map(\.label) == ["attempted", "answer", "means", "try"])
        for (label, text) in diagnosis.lines {
            #expect(!text.isEmpty, "\(label)", sourceLocation: location)
            #expect(!text.contains("  ") && !text.contains(".."), "\(text)", sourceLocation: location)
        }
        #expect(diagnosis.means.hasSuffix(".") && diagnosis.advice.hasSuffix("."), sourceLocation: location)
    }

    /// Every error that has a diagnosis, with each of its reasons.
    private static var everyDiagnosis: [Diagnosis] {
        var errors: [MachineError] = [
            .configuration(.regions(65)), .configuration(.sharedBitTooLow(31)), .image(.empty),
            .poisoned(vcpu: 0, gpa: 0x1000), .cancelled,
            .unknownFaultFlags(vcpu: 0, MemoryFault(gpa: 0x1000, size: pageSize, flags: 0x11)),
            .unexplainedFault(vcpu: 0, rip: 0x10_0000), .unexplainedFault(vcpu: 1, rip: nil),
            .unhandledExit(vcpu: 0, UnhandledExit(.unknown(99))), .wrongAnswer(vcpu: 0, 1),
            .softwareCPU(vcpu: 0, CPUFailure(.instruction(error: -1), rip: 0x10_0000, code: [0x0f, 0xff])),
        ]
        errors += Lack.allCases.map {
            .unsupported($0, BackendIdentity(name: "a kernel", host: "a host", kind: .linux))
        }
        for number in Int32(1)...133 {
            for call in ["KVM_CREATE_VM", "KVM_RUN", "mmap", "something"] {
                errors.append(
                    .backend(call: call, errno: Errno(rawValue: number), attempted: "a test", hint: "a hint"))
            }
        }
        errors += reasons.map { .conversion(failure($0)) }
        var all = errors.map(\.diagnosis) + errors.compactMap { Outcome.failed($0).diagnosis }
        for state in [PageState.private, .shared, nil] {
            for direction in [HostAccessError.Direction.read, .write] {
                all.append(
                    HostAccessError(gpa: 1, direction: direction, errno: .badAddress, state: state).diagnosis)
            }
        }
        for reason in [KVMUnavailable.Reason.open, .notKVM, .apiVersion(11), .runPageLength(8)] {
            for errno in [Errno.noSuchFileOrDirectory, .permissionDenied, .notPermitted, .noMemory] {
                all.append(KVMUnavailable(device: "/dev/kvm", errno: errno, reason: reason).diagnosis)
            }
        }
        return all
    }

    /// Every ending of a run that has a diagnosis.
    private static var everyEnding: [Outcome] {
        let fault = MemoryFault(gpa: 0x1000, size: pageSize, flags: 0)
        let causes: [Crash.Cause] = [
            .tripleFault(.unknown), .tripleFault(.reset),
            .tripleFault(
                .of(UnhandledException(CPUException(6), code: [0x0f, 0x0b], ckvm_regs(), pageTables: 0))),
            .noDevice(gpa: 1, size: 4, isWrite: true),
            .strayAccess(MemoryFault(gpa: 0x1000, size: 4096, flags: 8)), .deadVM, .terminated(6),
            .unreachableRAM(gpa: 1, size: 4, isWrite: false), .outsideRAM(fault, ramSize: 1 << 20),
            .emulation, .internalError(3), .firmwareCall(0x13, ax: 0x0201), .firmwareCall(6, ax: 0),
            .softwareCPU(CPUFailure(.instruction(error: -1), rip: 0x10_0000, code: [0x0f, 0xff])),
        ]
        return [.faultLoop(vcpu: 0, fault, faults: 2304, rip: 0, .undone), .timeLimit(.seconds(1)), .halted]
            + (causes + everyException).map {
                .crashed(vcpu: 0, Crash($0, at: VCPUPlace(rip: 0x10_0000, rsp: 0x8000)))
            }
    }

    /// Every vector, and every kind of page fault.
    private static var everyException: [Crash.Cause] {
        ((0..<32).map { CPUException($0, errorCode: 0) }
            + (0..<32).map { CPUException(14, errorCode: $0, address: 0x5000) }
            + [CPUException(13, errorCode: 0x182)])
            .map { .exception(UnhandledException($0, code: [0x90], ckvm_regs(), pageTables: 0x3000)) }
    }

    @Test func everyErrorHasFourLines() { for diagnosis in Self.everyDiagnosis { check(diagnosis) } }

    @Test func endingsWithADiagnosisHaveFourLines() throws {
        for outcome in Self.everyEnding { check(try #require(outcome.diagnosis)) }
        for outcome in [Outcome.exited(3), .quit, .interrupted(signal: 2)] {
            #expect(outcome.diagnosis == nil)
        }
    }

    /// For `make reworded`, which compares the diagnoses with those of a library whose messages are all reworded.
    @Test(.enabled(if: diagnosesFile != nil, "MINIVMM_WRITE_DIAGNOSES names no file"))
    func writesEveryDiagnosis() throws {
        let all = Self.everyDiagnosis + Self.everyEnding.compactMap(\.diagnosis)
        let lines = all.flatMap { $0.lines.map { "\($0.label): \($0.text)" } }
        let file = try #require(diagnosesFile)
        try lines.joined(separator: "\n").write(toFile: file, atomically: true, encoding: .utf8)
    }

    @Test func missingFeaturesOfABackendAreValues() throws {
        let backends: [(SoftKVM.Configuration, needsPreservation: Bool, Lack)] = [
            (.init(abi: .rfcV2), true, .preservation), (.init(contentPromise: .lost), true, .preservation),
            (.init(inPlaceConversion: false), false, .sharedGuestMemfd),
        ]
        for (configuration, needsPreservation, lack) in backends {
            var machine = MachineConfiguration()
            machine.needsPreservation = needsPreservation
            let image = try BootImage.flat([0xf4])
            do throws(MachineError) {
                _ = try Machine(
                    backend: SoftKVM(configuration), configuration: machine, image: image,
                    console: Console(nil))
                Issue.record("the machine was built: \(configuration)")
            } catch {
                guard case .unsupported(lack, let backend) = error else { throw error }
                #expect(backend.name == "SoftKVM" && error.diagnosis == lack.diagnosis)
            }
        }
    }

    /// Messages are for people: no code searches a message to find out what happened.
    @Test func noCodeReadsMessages() throws {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let reading: [Regex<Substring>] = [
            #/(?:description|message|reason|why|seen|expected)\)?\??\.(?:contains|has(?:Pre|Suf)fix|split|prefix|range)\b/#,
            #/"\\\((?:error|failure|outcome)\)"\.(?:contains|hasPrefix|split)/#,
        ]
        var files = 0
        for module in ["MiniVMM", "SoftKVM", "Litmus", "Explain", "Report", "minivmm"] {
            let folder = root.appendingPathComponent("Sources/\(module)")
            let list = try #require(
                FileManager.default.enumerator(at: folder, includingPropertiesForKeys: nil))
            for case let file as URL in list where file.pathExtension == "swift" {
                files += 1
                for (number, line) in try String(contentsOf: file, encoding: .utf8).split(
                    separator: "\n", omittingEmptySubsequences: false
                ).enumerated() where reading.contains(where: { line.contains($0) }) {
                    Issue.record("\(file.lastPathComponent):\(number + 1):\(line)")
                }
            }
        }
        #expect(files > 200)
    }
}
