// SPDX-License-Identifier: MIT
import MiniVMM
import SoftKVM
import SystemPackage
import Testing

@testable import Litmus

/// A host that runs out of a resource: no verdict on the kernel, and no reason to skip a test.
@Suite("A host without descriptors or memory")
struct HostFailureTests {
    private func source(_ body: String, _ head: String = "memory 1 pages shared") throws -> Source {
        try Source(parsing: "test \"x\"\n\(head)\n" + body)
    }

    private func failure(_ verdict: Verdict) -> HostFailure? {
        if case .hostFailed(let failure) = verdict { failure } else { nil }
    }

    @Test(arguments: [Errno.tooManyOpenFiles, .tooManyOpenFilesInSystem, .noMemory])
    func aVMThatCannotBeCreatedIsAHostFailure(_ errno: Errno) throws {
        for body in ["host read 0", "parallel\nhost read 0 => a\nhost1 read 0 => b\nend"] {
            for head in ["memory 1 pages shared", "needs references\nmemory 1 pages shared"] {
                let backend = StarvedKernel(SoftKVM(), errno)
                #expect(failure(Runner(backend, .init(runs: 5)).run(try source(body, head)))?.errno == errno)
            }
        }
        // Any other errno is a statement about the kernel.
        let verdict = Runner(StarvedKernel(SoftKVM(), .invalidArgument)).run(try source("host read 0"))
        guard case .skipped = verdict else { return #expect(Bool(false), "\(verdict)") }
    }

    @Test func anExplorationEndsWithIt() {
        let backend = StarvedKernel(SoftKVM(), .tooManyOpenFiles)
        let summary = Exploration(backend, .init(depth: 1, tests: 10, parallelTests: 0)).run()
        #expect(summary.hostFailure?.errno == .tooManyOpenFiles && summary.findings.isEmpty)
    }

    @Test func theAdviceNamesTheLimit() throws {
        let backend = StarvedKernel(SoftKVM(), .tooManyOpenFiles)
        let failure = try #require(failure(Runner(backend).run(try source("host read 0"))))
        #expect(
            failure.description
                == "the host ran out of a resource: KVM_CREATE_VM: Too many open files (EMFILE)")
        #expect(failure.advice.contains("ulimit -n"))
    }
}

/// A backend that cannot create a VM.
private final class StarvedKernel: ForwardingBackend, @unchecked Sendable {
    private let errno: Errno

    init(_ base: any Backend, _ errno: Errno) {
        self.errno = errno
        super.init(base)
    }

    override func createVM(_ type: VMType, sharedBit: Int?) throws(Errno) -> any KVMVirtualMachine {
        throw errno
    }
}
