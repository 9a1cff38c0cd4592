// SPDX-License-Identifier: MIT
import ArgumentParser
import Backends
import MiniVMM
import SoftKVM

extension ABIProfile: ExpressibleByArgument {}

/// Which backend runs the guest, and how SoftKVM is configured.
struct BackendOptions: ParsableArguments {
    @Option(
        help: """
            Which backend runs the guest. auto picks the one closest to a real 7.4 kernel that works on this machine.
            """)
    var backend = BackendChoice.auto
    /// The name of `--backend` before version 1.1.
    @Option(name: .customLong("kernel"), help: .hidden)
    var formerBackend: BackendChoice?
    @Option(help: "Seed for the choices that SoftKVM makes, 0 to 2^64 - 1.")
    var seed: UInt64 = 0
    @Option(help: "Version of the interface that SoftKVM implements. (default: 7.4)")
    var abi: [ABIProfile] = []
    @Option(
        help: ArgumentHelp(
            "Make SoftKVM break one rule of the interface. Repeatable; `minivmm list faults` lists them. (default: none)",
            valueName: "fault"),
        completion: .plantedFault,
        transform: { name in
            guard let fault = PlantedFault(name: name) else {
                throw ValidationError(
                    "no fault is named \(name)\(NearWords.suggestion(for: name, among: PlantedFault.names)) "
                        + "`minivmm list faults` lists them.")
            }
            return fault
        })
    var plant: [PlantedFault] = []

    /// - Throws: `ValidationError` for two versions.
    func oneVersion() throws {
        if abi.count > 1 { throw ValidationError("this command takes one --abi.") }
    }

    mutating func validate() throws {
        if let formerBackend {
            if backend != .auto {
                throw ValidationError("--kernel is the former name of --backend: give one of the two.")
            }
            backend = formerBackend
        }
        guard backend != .soft else { return }
        for (option, isGiven) in [("--abi", !abi.isEmpty), ("--plant", !plant.isEmpty)] where isGiven {
            throw ValidationError("\(option) configures SoftKVM: add --backend soft.")
        }
    }

    /// The options that choose the same backend again.
    func text(_ kind: BackendKind) -> String {
        (["--backend \(kind.rawValue)"] + abi.map { "--abi \($0.rawValue)" }
            + plant.map { "--plant \($0.name)" })
            .joined(separator: " ")
    }

    /// The configuration of SoftKVM.
    var soft: SoftKVM.Configuration {
        SoftKVM.Configuration(seed: seed, abi: abi.last ?? .linux74, plantedFaults: Set(plant))
    }

    func open(
        aliases: Aliases, preservation: Bool, soft: SoftKVM.Configuration? = nil
    ) throws -> ChosenBackend {
        do throws(BackendError) {
            let soft = soft ?? self.soft
            return try backend.open(BackendNeeds(aliases: aliases, preservation: preservation, soft: soft))
        } catch {
            throw stop("--backend \(backend.rawValue): \(error.text)", Status.monitorFailed, error.diagnosis)
        }
    }
}
