// SPDX-License-Identifier: MIT
import MiniVMM
import SystemPackage

// Why a step cannot be done, on a kernel and on the model of one.
extension Stop {
    static func noFile(_ name: Name) -> Stop { .broken("there is no file `\(name)`: it could not be made") }

    static func noView(_ name: Name) -> Stop { .broken("there is no view `\(name)`: it could not be made") }

    static func noView(_ name: Name, of actor: Actor) -> Stop {
        .broken("\(actor) has no view `\(name)`: there was none when it was forked")
    }

    static func noChild(_ actor: Actor) -> Stop { .broken("\(actor) is not there: it could not be forked") }

    static func noHold(_ name: Name) -> Stop { .broken("there is no hold `\(name)`: it could not be had") }

    static func slotLeads(into name: Name) -> Stop {
        .skip("a memslot leads into the view `\(name)`: what is mapped there next would become the guest's")
    }

    static func severalMappings(_ name: Name) -> Stop {
        .skip("parts of `\(name)` differ, and before Linux 6.17 mremap moves one mapping")
    }

    static func guestMemory(_ name: Name) -> Stop {
        .skip("the view `\(name)` is a guest's memory: what its protection does is not modelled")
    }

    /// KVM sends SIGBUS to a monitor whose guest touches memory of its own that has failed.
    static let endsInSIGBUS = Stop.skip(
        "a memslot without a guest_memfd leads to a page whose memory has failed: KVM's answer is SIGBUS to minivmm"
    )

    static func slotNeedsAddress(_ extent: Extent) -> Stop {
        .broken("the slot needs an address: map \(extent) as `\(extent.name)`, or name a view")
    }

    static let dirtyIsOfEightPages = Stop.broken("`dirty` says of eight pages which were written")

    static func monitorCannotMap(_ name: Name, _ errno: Errno) -> Stop {
        .broken("the monitor cannot map `\(name)` (mmap: \(errno.name))")
    }

    static func noGuestConversion(_ conversion: Conversion) -> Stop {
        .broken("the monitor converts whole pages, with contents: `convert \(conversion)` is no such request")
    }

    static let threeReservedWords = Stop.skip("RFC v1 has three reserved words")

    static let noBackingMemory = Stop.skip("the software kernel has memory for the first TiB of a file")

    static func vcpuIsStuck(_ number: Int) -> Stop {
        .skip("vcpu\(number) stands before an access that it cannot finish")
    }

    static func noAccessToRepeat(_ number: Int) -> Stop {
        .broken("vcpu\(number) stands before no `read` or `write`")
    }

    static let guestStepTooLong = Stop.skip(
        "a vCPU touches at most \(Agent.mostBytes / pageSize) pages in a step")
}
