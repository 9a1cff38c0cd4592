// SPDX-License-Identifier: MIT
import SystemPackage

@testable import MiniVMM

/// A converter over fake files, with a trace of its events.
final class ConverterBench {
    let backend: FakeBackend
    let files: [FakeFile]
    let memory: GuestMemory
    let holds = HoldRegistry()
    let converter: Converter

    /// - Parameter pages: the number of pages of each region.
    init(
        pages: [UInt64] = [16], initial: PageState = .shared, policy: RetryPolicy = RetryPolicy(),
        promise: ContentPromise = .preserved, chunk: UInt64 = Converter.defaultChunk,
        cancellation: Cancellation = Cancellation()
    ) throws {
        backend = FakeBackend(promise: promise)
        var regions: [MemoryRegion] = []
        var files: [FakeFile] = []
        var start: UInt64 = 0
        for count in pages {
            let size = count * pageSize
            let file = FakeFile(size: size, initial: initial, descriptor: 3)
            files.append(file)
            guard let gpa = PageRange(start: start, size: size) else { throw Errno.invalidArgument }
            regions.append(MemoryRegion(gpa: gpa, file: file, mapping: FakeMapping(file: file)))
            start += size
        }
        self.files = files
        memory = GuestMemory(regions: regions, initial: initial)
        converter = Converter(
            backend: backend, vm: backend.vm, memory: memory, holds: holds, policy: policy, chunk: chunk,
            trace: nil, cancellation: cancellation)
    }

    var file: FakeFile { files[0] }

    /// Converts pages [first, first + count).
    func convert(
        _ first: UInt64, _ count: UInt64, to target: PageState = .private,
        _ contents: ContentPolicy = .preserve
    ) -> Result<ConversionResult, ConversionError> {
        guard let range = PageRange(start: first * pageSize, size: count * pageSize) else {
            preconditionFailure("tests must use valid pages")
        }
        do throws(ConversionError) {
            return .success(
                try converter.convert(
                    ConversionRequest(range: range, to: target, contents: contents), by: .monitor))
        } catch {
            return .failure(error)
        }
    }

    /// Whether the shadow map matches the files, page by page.
    var shadowMatches: Bool {
        memory.regions.indices.allSatisfy { index in
            let region = memory.regions[index]
            let truth = files[index].truth
            return region.gpa.chunks(of: pageSize).allSatisfy {
                memory.state(at: $0.start) == truth.value(at: $0.start - region.gpa.start)
            }
        }
    }

    /// Numbers of the private pages of all regions.
    var privatePages: [UInt64] {
        (0..<memory.size / pageSize).filter { memory.state(at: $0 * pageSize) == .private }
    }
}

extension Result where Success == ConversionResult, Failure == ConversionError {
    var error: ConversionError? { if case .failure(let error) = self { error } else { nil } }
    var value: ConversionResult? { if case .success(let value) = self { value } else { nil } }
    /// The pages that changed, however the conversion ended.
    var converted: [ClosedRange<UInt64>] {
        let result: ConversionResult
        switch self {
        case .success(let value): result = value
        case .failure(let error): result = error.result
        }
        return result.converted.map { $0.start / pageSize...($0.end / pageSize - 1) }
    }
}
