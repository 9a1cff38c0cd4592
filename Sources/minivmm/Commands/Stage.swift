// SPDX-License-Identifier: MIT
import Backends
import Explain
import GuestPayloads
import Litmus
import MiniVMM
import SoftKVM
import SystemPackage

/// Runs guests for an audience. Shared by `demo` and `tour`.
struct Stage {
    let options: BackendOptions

    /// Opens the backend and prints its name. If there is a choice, it is one that preserves contents.
    func open(_ aliases: Aliases) throws -> ChosenBackend {
        let chosen = try options.open(aliases: aliases, preservation: true)
        say(chosen)
        return chosen
    }

    /// Prints which backend answers.
    func say(_ chosen: ChosenBackend) {
        Terminal.output.paragraph("on \(chosen.backend.identity)", indent: 3, style: .dim)
    }

    /// - Parameters:
    ///   - aloud: whether the guest's output is shown.
    ///   - preserving: whether the act needs preserved contents, even if the guest does not.
    func machine(
        _ payload: Payload, _ chosen: ChosenBackend, _ narrator: Narrator, aloud: Bool = true,
        preserving: Bool = false, _ change: (inout MachineConfiguration) -> Void = { _ in }
    ) throws(MachineError) -> Machine {
        var configuration = payload.machineConfiguration
        change(&configuration)
        if preserving { configuration.needsPreservation = true }
        configuration.hypercallInstruction = chosen.hypercallInstruction
        var onLine: (@Sendable (String) -> Void)?
        if aloud { onLine = { narrator.console($0) } }
        let image: BootImage
        do throws(ImageError) { image = try .flat(payload.image) } catch { throw .image(error) }
        return try Machine(
            backend: chosen.backend, configuration: configuration, image: image,
            console: Console(nil, onLine: onLine),
            trace: Trace(
                backend: chosen.backend, sinks: [narrator] + (narrator.gallery?.sinks(payload.name) ?? [])))
    }

    /// Runs a guest on the model of SNP or TDX.
    func confidential(
        _ name: String, _ type: VMType, _ host: Set<HostBehaviour>, _ narrator: Narrator
    ) throws -> Outcome? {
        guard let payload = Catalogue.named(name) else { return nil }
        let chosen: ChosenBackend
        do throws(BackendError) {
            chosen = try BackendKind.automatic(BackendNeeds(vmType: type, soft: options.soft))
        } catch {
            throw stop(error.text, Status.monitorFailed, error.diagnosis)
        }
        let model = type.modelNotice.map { ": \($0)" } ?? ""
        Terminal.output.paragraph("\(name) on \(chosen.backend.identity)\(model)", indent: 3, style: .dim)
        do throws(MachineError) {
            let machine = try machine(payload, chosen, narrator) { configuration in
                configuration.setType(type)
                configuration.host = host
            }
            return machine.run(timeout: Run.defaultTimeout, interrupts: try? SignalDescriptor())
        } catch {
            return .failed(error)
        }
    }

    func play(_ name: String, _ narrator: Narrator) throws -> Outcome? {
        guard let payload = Catalogue.named(name) else { return nil }
        return play(payload, try open(payload.aliases), narrator)
    }

    func play(_ payload: Payload, _ chosen: ChosenBackend, _ narrator: Narrator) -> Outcome {
        do throws(MachineError) {
            let interrupts = try? SignalDescriptor()
            return try machine(payload, chosen, narrator).run(
                timeout: Run.defaultTimeout, interrupts: interrupts)
        } catch {
            return .failed(error)
        }
    }

    func hostView(_ narrator: Narrator) throws -> Outcome? {
        guard let payload = Catalogue.named("hello") else { return nil }
        let chosen = try open(.one)
        let terminal = Terminal.output
        var explained = false
        func tell(_ what: String, _ body: () throws(HostAccessError) -> String) {
            do throws(HostAccessError) {
                terminal.hanging("  host   ", "\(what): " + terminal.styled(try body(), .good), indent: 9)
            } catch {
                terminal.hanging(
                    "  host   ",
                    "\(what): " + terminal.styled(error.errno.name, .bad)
                        + (error.state == .private ? ": the page is private" : ""), indent: 9)
                // Only the first error is explained.
                if !explained { terminal.print(error.diagnosis, indent: 9) }
                explained = true
            }
        }
        do throws(MachineError) {
            let machine = try machine(payload, chosen, narrator, aloud: false, preserving: true)
            let gpa = machine.layout.free.lowerBound
            let message = "hi, guest"
            func see() {
                tell("reads \(hex(gpa))") { () throws(HostAccessError) in
                    String(
                        decoding: try machine.memory.read(gpa: gpa, count: message.utf8.count), as: UTF8.self)
                }
            }
            tell("reads the image") { () throws(HostAccessError) in
                _ = try machine.memory.read(gpa: machine.layout.entry, count: 16)
                return "succeeds"
            }
            guard let page = PageRange(start: gpa, size: pageSize) else { return nil }
            do throws(ConversionError) {
                try machine.converter.convert(
                    ConversionRequest(range: page, to: .shared, contents: .preserve), by: .monitor)
                tell("writes \(hex(gpa))") { () throws(HostAccessError) in
                    try machine.memory.write(gpa: gpa, Array(message.utf8))
                    return message
                }
                see()
                try machine.converter.convert(
                    ConversionRequest(range: page, to: .private, contents: .preserve), by: .monitor)
                see()
                try machine.converter.convert(
                    ConversionRequest(range: page, to: .shared, contents: .preserve), by: .monitor)
                see()
            } catch {
                throw .conversion(error)
            }
            return machine.run(timeout: Run.defaultTimeout)
        } catch {
            return .failed(error)
        }
    }

    func contents(_ narrator: Narrator) throws -> Outcome? {
        guard let payload = Catalogue.named("contents") else { return nil }
        let outcome = play(payload, try open(payload.aliases), narrator)
        narrator.finish()
        guard outcome.exitStatus == 0 else { return outcome }
        let terminal = Terminal.output
        terminal.paragraph(
            "The same guest on SoftKVM with the second posted version of the interface (RFC v2). That version promised "
                + "nothing about contents, so a request to preserve them is refused.", indent: 3)
        var configuration = options.soft
        configuration.abi = .rfcV2
        let soft = SoftKVM(configuration)
        if case .missing(let message) = soft.engineStatus {
            terminal.paragraph("Not shown: \(message).", indent: 3)
            return outcome
        }
        let chosen = ChosenBackend(backend: soft, kind: .soft, reason: .requested)
        say(chosen)
        return play(payload, chosen, Narrator(terminal, limit: 4, gallery: narrator.gallery))
    }
}
