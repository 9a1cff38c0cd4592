// SPDX-License-Identifier: MIT
import ArgumentParser
import Backends
import Litmus
import SystemPackage

/// The options by which tests read the kernel's log, and announce themselves in it.
struct KernelLogOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "The log of the running kernel. A test fails if the kernel reports a bug of its own in it (a warning, an oops, KASAN, lockdep). A file in the format of /dev/kmsg, or none. (default: /dev/kmsg if it can be read, which needs root, and the backend is not SoftKVM; otherwise none)",
            valueName: "file"),
        completion: .file())
    var kernelLog: String?
    @Option(
        help: ArgumentHelp(
            "Write the text of each test to a file before it runs, such as /dev/kmsg, so that the test is known if the machine dies. With /dev/kmsg, boot with printk.devkmsg=on, or the kernel drops lines. (default: none)",
            valueName: "file"),
        completion: .file())
    var announce: String?

    /// - Throws: status 125 and a message, if a log that was asked for cannot be read.
    func openLog(for kind: BackendKind) throws -> KernelLog? {
        if kernelLog == "none" { return nil }
        guard let path = kernelLog else { return kind == .soft ? nil : try? KernelLog() }
        do throws(Errno) {
            return try KernelLog(FilePath(argument: path))
        } catch {
            throw stop("--kernel-log \(path): cannot be read: \(error)", Status.monitorFailed)
        }
    }

    /// - Throws: status 125 and a message, if the file cannot be opened.
    func openAnnouncer() throws -> Announcer? {
        guard let announce else { return nil }
        do throws(Errno) {
            return try Announcer(FilePath(argument: announce))
        } catch {
            throw stop("--announce \(announce): cannot be written: \(error)", Status.monitorFailed)
        }
    }
}

extension Announcer {
    /// - Throws: status 125 and a message, if a write failed.
    func check(_ path: String?) throws {
        guard let failure else { return }
        throw stop("--announce \(path ?? ""): cannot be written: \(failure)", Status.monitorFailed)
    }
}
