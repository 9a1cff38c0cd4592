// SPDX-License-Identifier: MIT
import Backends
import GuestPayloads
import MiniVMM

let chosen = try BackendKind.automatic(BackendNeeds(preservation: true))
print("backend: \(chosen.backend.identity)")
for guest in Catalogue.all where guest.name == "explicit" {
    let machine = try Machine(
        backend: chosen.backend, configuration: guest.machineConfiguration, image: .flat(guest.image),
        console: Console(.standardOutput))
    let outcome = machine.run(timeout: .seconds(10))
    print("\(outcome), \(machine.statistics.conversions) conversions")
}
