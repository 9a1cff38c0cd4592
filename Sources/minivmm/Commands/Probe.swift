// SPDX-License-Identifier: MIT
import ArgumentParser
import Backends
import Explain
import MiniVMM
import SoftKVM
import SystemPackage

struct Probe: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "probe",
        abstract: "Reports what each backend can do on this machine, and which one `auto` picks.",
        discussion: """
            Every answer comes from trying the feature on a scratch VM, not from capability numbers alone. Without an \
            argument all backends are probed.
            """)

    @OptionGroup var backendOptions: BackendOptions
    @Argument(help: "The backend to probe. (default: all)")
    var only: BackendChoice?
    @Flag(help: "Print one JSON object.")
    var json = false

    private var choice: BackendChoice { only ?? backendOptions.backend }

    func validate() throws {
        if let only, backendOptions.backend != .auto, only != backendOptions.backend {
            throw ValidationError(
                "\(only.rawValue) and --backend \(backendOptions.backend.rawValue): name one backend.")
        }
    }

    private struct Section {
        let title: String
        /// The value of `--backend`.
        let name: BackendKind
        let identity: BackendIdentity?
        var claims: [BackendProbe.CapabilityClaim] = []
        let findings: [BackendProbe.Finding]
        let absence: String?
        /// The explanation of the absence.
        var diagnosis: Diagnosis?
    }

    func run() throws {
        let all: [(BackendKind, () -> Section)] = [
            (.linux, linux), (.perVMAttributes, perVMAttributes), (.memslotTrap, trap), (.soft, soft),
        ]
        let sections = all.filter {
            choice.kind == nil || choice.kind == $0.0
        }.map {
            $0.1()
        }
        let chosen: Result<ChosenBackend, BackendError>
        do throws(BackendError) {
            chosen = .success(try choice.open(BackendNeeds(soft: backendOptions.soft)))
        } catch {
            chosen = .failure(error)
        }
        let preserving = try? choice.open(
            BackendNeeds(preservation: true, soft: backendOptions.soft))
        if json {
            printJSON(sections, chosen, preserving)
        } else {
            printText(sections, chosen, preserving)
        }
        // A feature that could not be tried because the host lacks resources is unknown.
        let answers = sections.flatMap { $0.findings.map(\.answer) + [$0.absence ?? ""] }
        if let limit = Errno.hostLimits.first(where: { limit in answers.contains { $0.contains(limit.name) } }
        ) {
            throw stop(
                "the host ran out of a resource while probing (\(limit.name)); answers that name it say nothing about a backend",
                Status.monitorFailed, .file("a scratch VM", limit, call: "probe"))
        }
        if case .failure(let error) = chosen {
            if error.isHostLimit { throw stop(error.text, Status.monitorFailed, error.diagnosis) }
            throw Status.skipped
        }
    }

    private func linux() -> Section {
        do throws(KVMUnavailable) {
            let backend = try LinuxKVM()
            let probe = BackendProbe(backend)
            var findings = probe.findings()
            if findings.contains(where: { $0.key == "in-place-conversion" && $0.verdict == .yes }) {
                findings += [
                    probe.guestRuns(), probe.contents(),
                    BackendProbe(AliasesKVM(over: backend)).twoAliases(), probe.hypercallInstruction(),
                ]
            }
            return Section(
                title: "/dev/kvm", name: .linux, identity: backend.identity, claims: probe.claims(),
                findings: findings, absence: nil)
        } catch {
            return Section(
                title: "/dev/kvm", name: .linux, identity: nil, findings: [], absence: error.description,
                diagnosis: error.diagnosis)
        }
    }

    private func perVMAttributes() -> Section {
        let title = "/dev/kvm, with its per-VM attributes"
        do throws(KVMUnavailable) {
            let backend = PerVMAttributesKVM(over: try LinuxKVM())
            let probe = BackendProbe(backend)
            if let failure = probe.conversionFailure() {
                return Section(
                    title: title, name: .perVMAttributes, identity: nil, findings: [],
                    absence: "a conversion on a scratch VM failed (\(failure.text))",
                    diagnosis: failure.diagnosis)
            }
            return Section(
                title: title, name: .perVMAttributes, identity: backend.identity,
                findings: [
                    probe.guestRuns(), probe.contents(),
                    BackendProbe(AliasesKVM(over: backend)).twoAliases(), probe.hypercallInstruction(),
                ], absence: nil)
        } catch {
            return Section(
                title: title, name: .perVMAttributes, identity: nil, findings: [], absence: error.description,
                diagnosis: error.diagnosis)
        }
    }

    private func trap() -> Section {
        let title = "/dev/kvm, with conversions emulated by memslots"
        do throws(KVMUnavailable) {
            let backend = MemslotTrapKVM(over: try LinuxKVM())
            let probe = BackendProbe(backend)
            let findings = [
                probe.guestRuns(), probe.contents(), probe.twoAliases(), probe.hypercallInstruction(),
            ]
            return Section(
                title: title, name: .memslotTrap, identity: backend.identity, findings: findings, absence: nil
            )
        } catch {
            return Section(
                title: title, name: .memslotTrap, identity: nil, findings: [], absence: error.description,
                diagnosis: error.diagnosis)
        }
    }

    private func soft() -> Section {
        let backend = SoftKVM(backendOptions.soft)
        let probe = BackendProbe(backend)
        let findings =
            probe.findings() + [
                probe.guestRuns(), probe.contents(), probe.twoAliases(), probe.hypercallInstruction(),
            ]
        return Section(
            title: "KVM in user space", name: .soft, identity: backend.identity, findings: findings,
            absence: nil)
    }

    /// - Parameter preserving: what `auto` picks for a guest whose contents must be preserved.
    private func printText(
        _ sections: [Section], _ chosen: Result<ChosenBackend, BackendError>, _ preserving: ChosenBackend?
    ) {
        let terminal = Terminal.output
        for section in sections {
            let who = section.identity.map { "  \($0)" } ?? ""
            terminal.print(terminal.styled(section.title, .bold) + terminal.styled(who, .dim))
            if let absence = section.absence { terminal.paragraph(absence, indent: 6) }
            if let diagnosis = section.diagnosis { terminal.print(diagnosis, indent: 6) }
            for claim in section.claims {
                let name = claim.capability.name ?? ""
                terminal.hanging(
                    "  ",
                    "\(claim.capability.rawValue) \(name) = \(claim.value): "
                        + terminal.styled(claim.meaning, .dim),
                    indent: 6)
            }
            for finding in section.findings {
                let mark =
                    switch finding.verdict {
                    case .yes: terminal.styled("yes", .good)
                    case .no: terminal.styled(" no", .bad)
                    case .unknown: terminal.styled("  ?", .held)
                    }
                terminal.hanging("  \(mark) ", "\(finding.question): \(finding.answer)", indent: 6)
                terminal.paragraph(finding.meaning, indent: 6)
            }
            terminal.print()
        }
        // If one backend was named, auto is not the question.
        guard choice == .auto else { return }
        switch chosen {
        case .success(let backend):
            terminal.hanging(
                terminal.styled("auto ", .bold), "picks --backend \(backend.kind.rawValue): \(backend.line)",
                indent: 5)
            if let preserving, preserving.kind != backend.kind {
                terminal.paragraph(
                    "and --backend \(preserving.kind.rawValue) for guests that need their contents preserved",
                    indent: 5)
            }
        case .failure(let error):
            terminal.hanging(
                terminal.styled("auto ", .bold), "finds no backend that can run guests: \(error.text)",
                indent: 5)
            terminal.print(error.diagnosis, indent: 5)
        }
    }

    private func printJSON(
        _ sections: [Section], _ chosen: Result<ChosenBackend, BackendError>, _ preserving: ChosenBackend?
    ) {
        let backends = sections.map { section -> JSON in
            .object(
                [
                    ("name", .string(section.name.rawValue)),
                    ("backend", section.identity.map { .string($0.name) } ?? .null),
                    ("host", section.identity.map { .string($0.host) } ?? .null),
                    ("absent", section.absence.map { .string($0) } ?? .null),
                    (
                        "capabilities",
                        .array(
                            section.claims.map { claim in
                                .object([
                                    ("number", .number(UInt64(claim.capability.rawValue))),
                                    ("name", .string(claim.capability.name ?? "")),
                                    ("value", .integer(Int64(claim.value))),
                                    ("meaning", .string(claim.meaning)),
                                ])
                            })
                    ),
                    (
                        "findings",
                        .array(
                            section.findings.map { finding in
                                .object([
                                    ("key", .string(finding.key)), ("question", .string(finding.question)),
                                    ("verdict", .string(finding.verdict.rawValue)),
                                    ("answer", .string(finding.answer)),
                                    ("meaning", .string(finding.meaning)),
                                ])
                            })
                    ),
                ] + section.diagnosis.json)
        }
        let auto: JSON
        switch chosen {
        case _ where choice != .auto: auto = .null
        case .success(let backend):
            auto = .object([
                ("name", .string(backend.kind.rawValue)), ("reason", .string(backend.reasonText)),
                ("preserving", preserving.map { .string($0.kind.rawValue) } ?? .null),
            ])
        case .failure(let error):
            auto = .object(
                [("name", .null), ("reason", .string(error.text))] + Optional(error.diagnosis).json)
        }
        Terminal.output.print(
            JSON.object([
                ("schema", .string("minivmm.probe/1")), ("auto", auto), ("backends", .array(backends)),
            ]).text)
    }
}
