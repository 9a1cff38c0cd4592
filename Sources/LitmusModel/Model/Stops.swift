// SPDX-License-Identifier: MIT
import ConversionModel

// Reasons why a step cannot be performed, on a backend or in the model.
extension Stop {
    package static func noFile(_ name: Name) -> Stop {
        .broken("there is no file `\(name)`: creating it failed")
    }

    package static func noView(_ name: Name) -> Stop {
        .broken("there is no view `\(name)`: creating it failed")
    }

    package static func noView(_ name: Name, of actor: Actor) -> Stop {
        .broken("\(actor) has no view `\(name)`: there was none when it was forked")
    }

    package static func noChild(_ actor: Actor) -> Stop {
        .broken("\(actor) does not exist: it could not be forked")
    }

    package static func noHold(_ name: Name) -> Stop {
        .broken("there is no hold `\(name)`: taking it failed")
    }

    package static func slotLeads(into name: Name) -> Stop {
        .skip("a memslot points into the view `\(name)`: the next mapping there would become guest memory")
    }

    package static func severalMappings(_ name: Name) -> Stop {
        .skip("`\(name)` consists of several mappings, and before Linux 6.17 mremap moves only one")
    }

    package static func guestMemory(_ name: Name) -> Stop {
        .skip("the view `\(name)` is guest memory, and the effect of its protection is not modelled")
    }

    /// KVM sends SIGBUS to a monitor whose guest touches failed memory of the monitor.
    package static let endsInSIGBUS = Stop.skip(
        "a memslot without a guest_memfd has a page whose memory has failed: KVM would send SIGBUS to minivmm"
    )

    package static func slotNeedsAddress(_ extent: Extent) -> Stop {
        .broken("the slot needs an address: map \(extent) as `\(extent.name)`, or name a view")
    }

    package static let dirtyIsOfEightPages = Stop.broken("`dirty` is for slots of at most eight pages")

    package static func monitorCannotMap(_ name: Name, _ errno: ErrorNumber) -> Stop {
        .broken("the monitor cannot map `\(name)` (mmap: \(errno.name))")
    }

    package static func noGuestConversion(_ conversion: Conversion) -> Stop {
        .broken(
            "`convert \(conversion)` must be whole pages with a content policy, so that the monitor converts"
        )
    }

    package static let threeReservedWords = Stop.skip("RFC v1 has three reserved words")

    package static let noBackingMemory = Stop.skip("SoftKVM has memory only for the first TiB of a file")

    package static func vcpuIsStuck(_ number: Int) -> Stop {
        .skip("vcpu\(number) has stopped at an access that it cannot complete")
    }

    package static func noAccessToRepeat(_ number: Int) -> Stop {
        .broken("vcpu\(number) has not stopped at a `read` or `write`")
    }

    package static let guestStepTooLong = Stop.skip(
        "a vCPU accesses at most \(GuestReach.mostBytes / pageSize) pages in a step")
}
