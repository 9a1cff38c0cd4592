// SPDX-License-Identifier: MIT
import ArgumentParser
import Backends
import MiniVMM
import SoftKVM

extension ABIProfile: ExpressibleByArgument {}

/// Which kernel, as options.
struct KernelOptions: ParsableArguments {
    @Option(help: "The kernel: auto takes the most real one that works here.")
    var kernel = KernelName.auto
    @Option(help: "Seed of the software kernel.")
    var seed: UInt64 = 0
    @Option(help: "The version of the interface that the software kernel has.")
    var abi: [ABIProfile] = []
    @Option(
        help: ArgumentHelp(
            "Have the software kernel break a rule; repeatable, `minivmm list --planted` names them.",
            valueName: "fault"),
        completion: .list(Self.faultNames),
        transform: { name in
            guard let fault = PlantedFault(name: name) else {
                throw ValidationError("no such fault; `minivmm list --planted` names them.")
            }
            return fault
        })
    var plant: [PlantedFault] = []
    /// Options are described more than once in a start.
    private static let faultNames = PlantedFault.allCases.map(\.name)

    /// A command that has no use for two versions at once says so.
    func oneVersion() throws {
        if abi.count > 1 { throw ValidationError("--abi: one version at a time.") }
    }

    func validate() throws {
        guard kernel != .soft else { return }
        for (option, isGiven) in [("--abi", !abi.isEmpty), ("--plant", !plant.isEmpty)] where isGiven {
            throw ValidationError("\(option) is for the software kernel: add --kernel soft.")
        }
    }

    /// The same kernel once more, on a command line.
    func text(_ backend: Backend) -> String {
        (["--kernel \(backend.rawValue)"] + abi.map { "--abi \($0.rawValue)" }
            + plant.map { "--plant \($0.name)" })
            .joined(separator: " ")
    }

    /// The configuration of the software kernel.
    var soft: SoftKVM.Configuration {
        SoftKVM.Configuration(seed: seed, abi: abi.last ?? .linux74, plantedFaults: Set(plant))
    }

    func open(
        aliases: Aliases, preservation: Bool, soft: SoftKVM.Configuration? = nil
    ) throws -> ChosenKernel {
        do throws(BackendError) {
            let soft = soft ?? self.soft
            return try kernel.open(BackendNeeds(aliases: aliases, preservation: preservation, soft: soft))
        } catch {
            throw stop("--kernel \(kernel.rawValue): \(error.text)", Status.monitorFailed, error.diagnosis)
        }
    }
}
