// SPDX-License-Identifier: MIT
import Backends
import GuestPayloads
import MiniVMM

let chosen = try Backend.automatic(BackendNeeds(preservation: true))
print("kernel: \(chosen.kernel.identity)")
for guest in Catalogue.all where guest.name == "explicit" {
    let machine = try Machine(
        kernel: chosen.kernel, configuration: guest.machineConfiguration, image: .flat(guest.image),
        console: Console(.standardOutput))
    let outcome = machine.run(timeout: .seconds(10))
    print("\(outcome), \(machine.statistics.conversions) conversions")
}
