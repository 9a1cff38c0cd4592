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
        abstract: "Finds out what the kernels here can do, and which one `auto` takes.",
        discussion: """
            Everything is tried on scratch VMs; the number of a capability alone decides nothing. With --backend, only \
            that one is tried.
            """)

    @OptionGroup var backendOptions: BackendOptions
    @Flag(help: "Print one JSON object.")
    var json = false

    private struct Section {
        let title: String
        /// What `auto` would call it.
        let name: BackendKind
        let identity: BackendIdentity?
        var claims: [BackendProbe.CapabilityClaim] = []
        let findings: [BackendProbe.Finding]
        let absence: String?
        /// What the absence means.
        var diagnosis: Diagnosis?
    }

    func run() throws {
        let all: [(BackendKind, () -> Section)] = [
            (.linux, linux), (.perVMAttributes, perVMAttributes), (.memslotTrap, trap), (.soft, soft),
        ]
        let sections = all.filter {
            backendOptions.backend.kind == nil || backendOptions.backend.kind == $0.0
        }.map {
            $0.1()
        }
        let choice: Result<ChosenBackend, BackendError>
        do throws(BackendError) {
            choice = .success(try backendOptions.backend.open(BackendNeeds(soft: backendOptions.soft)))
        } catch {
            choice = .failure(error)
        }
        let preserving = try? backendOptions.backend.open(
            BackendNeeds(preservation: true, soft: backendOptions.soft))
        if json {
            printJSON(sections, choice, preserving)
        } else {
            printText(sections, choice, preserving)
        }
        // What could not be tried for want of something is not known.
        let answers = sections.flatMap { $0.findings.map(\.answer) + [$0.absence ?? ""] }
        if let limit = Errno.hostLimits.first(where: { limit in answers.contains { $0.contains(limit.name) } }
        ) {
            throw stop(
                "the host failed while it was probed (\(limit.name)): answers that name it say nothing about a kernel",
                Status.monitorFailed, .file("a scratch VM", limit, call: "probe"))
        }
        if case .failure(let error) = choice {
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
                    absence: "cannot convert a page on a scratch VM (\(failure.text))",
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
        let title = "/dev/kvm, with memslots carved for what it lacks"
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

    /// - Parameter preserving: what `auto` takes for a guest whose contents must be preserved.
    private func printText(
        _ sections: [Section], _ choice: Result<ChosenBackend, BackendError>, _ preserving: ChosenBackend?
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
        // Who asks about one kernel does not ask which one is taken.
        guard backendOptions.backend == .auto else { return }
        switch choice {
        case .success(let chosen):
            terminal.hanging(
                terminal.styled("auto ", .bold), "takes --backend \(chosen.kind.rawValue): \(chosen.line)",
                indent: 5)
            if let preserving, preserving.kind != chosen.kind {
                terminal.paragraph(
                    "and --backend \(preserving.kind.rawValue) for guests that need their contents preserved",
                    indent: 5)
            }
        case .failure(let error):
            terminal.hanging(
                terminal.styled("auto ", .bold), "finds no kernel that runs guests: \(error.text)", indent: 5)
            terminal.print(error.diagnosis, indent: 5)
        }
    }

    private func printJSON(
        _ sections: [Section], _ choice: Result<ChosenBackend, BackendError>, _ preserving: ChosenBackend?
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
        switch choice {
        case _ where backendOptions.backend != .auto: auto = .null
        case .success(let chosen):
            auto = .object([
                ("name", .string(chosen.kind.rawValue)), ("reason", .string(chosen.reasonText)),
                ("preserving", preserving.map { .string($0.kind.rawValue) } ?? .null),
            ])
        case .failure(let error):
            auto = .object(
                [("name", .null), ("reason", .string(error.text))] + Optional(error.diagnosis).json)
        }
        Terminal.output.print(
            JSON.object([
                ("schema", .string("minivmm.probe/1")), ("auto", auto), ("kernels", .array(backends)),
            ]).text)
    }
}
