// SPDX-License-Identifier: MIT
import Foundation
import Litmus
import SoftKVM
import Testing

@testable import Playground

/// The page gives the verdicts of the command, which performs the steps on SoftKVM.
@Suite struct LibraryTests {
    static let files: [URL] = {
        let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appending(path: "../../litmus").standardizedFileURL
        let all = FileManager.default.enumerator(at: folder, includingPropertiesForKeys: nil)
        let files =
            all?.compactMap { $0 as? URL }.filter {
                $0.pathExtension == "litmus" && !$0.path.contains("/scale/")
            } ?? []
        return files.sorted { $0.path < $1.path }
    }()

    @Test func theLibraryIsHere() { #expect(Self.files.count > 300) }

    @Test(arguments: files) func everyTestOfTheLibraryPasses(_ file: URL) throws {
        let text = try String(contentsOf: file, encoding: .utf8)
        let seen = answer("run\n\n" + text)
        let source = try Source(parsing: text)
        guard case .skipped(let reason) = Runner(SoftKVM()).run(source) else {
            #expect(seen.hasPrefix("{\"verdict\":\"passed\""), "\(seen.prefix(400))")
            return
        }
        #expect(seen.hasPrefix("{\"verdict\":\"skipped\",\"reason\":\"\(reason)"))
    }

    /// Each fault with some of the tests without vCPUs, and each such test with some fault.
    @Test(arguments: PlantedFault.allCases) func aPlantedFaultHasTheSameVerdict(_ fault: PlantedFault) throws
    {
        let number = Int(fault.rawValue)
        for (index, file) in Self.files.enumerated() where index % 31 == number % 31 {
            let text = try String(contentsOf: file, encoding: .utf8)
            let source = try Source(parsing: text)
            guard !source.test.steps.contains(where: { if case .vcpu = $0.actor { true } else { false } }),
                !source.test.vm.isConfidential
            else { continue }
            let word =
                switch Runner(SoftKVM(.init(plantedFaults: [fault]))).run(source) {
                case .passed: "passed"
                case .failed: "failed"
                case .skipped, .hostFailed: "skipped"
                }
            let seen = answer("run\nfault \(fault.name)\n\n" + text)
            #expect(
                seen.hasPrefix("{\"verdict\":\"\(word)\""), "\(file.lastPathComponent): \(seen.prefix(400))")
        }
    }
}
