// SPDX-License-Identifier: MIT
import ArgumentParser
import MiniVMM
import SystemPackage

/// An address in decimal, or in hexadecimal with `0x`.
struct Address: ExpressibleByArgument {
    let value: UInt64

    init?(argument: String) {
        let isHex = argument.lowercased().hasPrefix("0x")
        guard let value = isHex ? UInt64(argument.dropFirst(2), radix: 16) : UInt64(argument) else {
            return nil
        }
        self.value = value
    }
}

/// `NAME=VALUE` of `--register`.
struct RegisterArgument: ExpressibleByArgument {
    let register: GuestRegister
    let value: UInt64

    init?(argument: String) {
        let parts = argument.split(separator: "=", maxSplits: 1).map(String.init)
        guard parts.count == 2, let value = Address(argument: parts[1])?.value else { return nil }
        var name = parts[0].lowercased()
        // EAX and AX are parts of RAX.
        if name.hasPrefix("e") { name = "r" + name.dropFirst() }
        guard let register = GuestRegister(rawValue: name) ?? GuestRegister(rawValue: "r" + name) else {
            return nil
        }
        self.register = register
        self.value = value
    }
}

extension CPUMode: ExpressibleByArgument {}

/// Properties of a guest that its file does not have.
struct ImageOptionGroup: ParsableArguments {
    @Option(
        help:
            "Mode in which a flat image or an ELF file without a boot protocol starts: real, protected (32-bit, without paging) or long (64-bit). (default: the file's; of a flat image long)"
    )
    var mode: CPUMode?
    @Option(
        help: ArgumentHelp(
            "Address at which a flat image is loaded. (default: 0x100000; in real mode 0x7c00)",
            valueName: "address"))
    var loadAddress: Address?
    @Option(
        help: ArgumentHelp(
            "Address at which a flat image is entered. (default: its first byte)", valueName: "address"))
    var entry: Address?
    @Option(
        help: ArgumentHelp("Command line of a Multiboot or PVH kernel. (default: none)", valueName: "text"))
    var cmdline: String?
    @Option(
        help: ArgumentHelp(
            "File to load as a module of a Multiboot or PVH kernel, with the module's string. Repeatable. (default: no modules; the string is the path)",
            valueName: "file[=text]"),
        completion: .file())
    var module: [String] = []
    @Option(
        help: ArgumentHelp(
            "Value of a general register or of rflags at the first instruction. Repeatable. (default: docs/guests.md has a table)",
            valueName: "name=value"))
    var register: [RegisterArgument] = []

    /// The first of these options that was given.
    var first: String? {
        let given = [
            ("--mode", mode != nil), ("--load-address", loadAddress != nil), ("--entry", entry != nil),
            ("--cmdline", cmdline != nil), ("--module", !module.isEmpty), ("--register", !register.isEmpty),
        ]
        return given.first { $0.1 }?.0
    }

    /// Reads the modules.
    ///
    /// - Parameter ramSize: bytes; a larger module cannot be loaded.
    /// - Returns: nil if cancelled.
    func read(ramSize: UInt64, _ cancellation: Cancellation) throws(GuestFileError) -> ImageOptions? {
        var options = ImageOptions(mode: mode)
        options.loadAddress = loadAddress?.value
        options.entry = entry?.value
        options.commandLine = cmdline
        for argument in module {
            guard let module = try Self.module(argument, ramSize, cancellation) else { return nil }
            options.modules.append(module)
        }
        for argument in register { options.registers[argument.register] = argument.value }
        return options
    }

    /// A path may contain `=`, so the longest path that exists counts.
    private static func module(
        _ argument: String, _ ramSize: UInt64, _ cancellation: Cancellation
    ) throws(GuestFileError) -> ImageOptions.Module? {
        var candidates = [(path: argument, text: argument)]
        for index in argument.indices.reversed() where argument[index] == "=" {
            candidates.append(
                (String(argument[..<index]), String(argument[argument.index(after: index)...])))
        }
        var failure = Errno.noSuchFileOrDirectory
        for (path, text) in candidates {
            do {
                let path = FilePath(argument: path)
                guard let bytes = try InputFile.read(path, most: ramSize, cancellation) else { return nil }
                guard UInt64(bytes.count) <= ramSize else { throw GuestFileError.moduleTooLarge(path.string) }
                return ImageOptions.Module(name: path.string, bytes: bytes, text: text)
            } catch let error as GuestFileError {
                throw error
            } catch {
                failure = error as? Errno ?? .ioError
            }
        }
        throw .moduleUnreadable(failure, path: candidates.last?.path ?? argument)
    }
}

extension BootImage {
    /// The member `image` of `run --json`.
    var json: JSON {
        .object([
            ("format", .string(format.name)), ("mode", .string(mode.rawValue)), ("entry", .number(entry)),
            ("description", .string(summary)),
        ])
    }
}

extension BootImage {
    /// A note on a crash that follows from the format and the backend.
    func note(on outcome: Outcome, _ backend: BackendIdentity.Kind) -> String? {
        guard case .crashed(_, let crash) = outcome, case .tripleFault = crash.cause, mode != .long,
            backend != .simulated
        else { return nil }
        return
            "The KVM of some kernels (PVM) has no 32-bit and no PAE paging: a guest that turns it on ends like this. --backend soft has it."
    }
}
