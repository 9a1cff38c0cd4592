// SPDX-License-Identifier: MIT
import MiniVMM

/// A capability of the interface.
struct CapabilityText: Sendable {
    let capability: Capability
    let means: String
    let advice: String

    static let all: [CapabilityText] = [
        CapabilityText(
            capability: .exitHypercall,
            means: "A bit for each hypercall that can leave to the monitor; bit 12 is KVM_HC_MAP_GPA_RANGE.",
            advice:
                "Enable it with KVM_ENABLE_CAP and the bits wanted, then a guest's request arrives as exit 3."
        ),
        CapabilityText(
            capability: .userMemory2,
            means: "KVM_SET_USER_MEMORY_REGION2 exists: a memslot can name a guest_memfd (Linux 6.8).",
            advice: "Bind the file with KVM_MEM_GUEST_MEMFD."),
        CapabilityText(
            capability: .memoryFaultInfo,
            means: "KVM_EXIT_MEMORY_FAULT says which page was meant, and which kind of access.",
            advice: "Expect exit 39 beside EFAULT and EHWPOISON."),
        CapabilityText(
            capability: .memoryAttributes,
            means:
                "Attributes that can be set by guest-physical address, with KVM_SET_MEMORY_ATTRIBUTES on the VM; 8 is private. "
                + "Private and shared memory are two places then, and contents do not survive. One module has this or "
                + "conversion in place, never both.",
            advice:
                "Use it where 252 is missing (--backend per-vm-attributes), and carry the contents over yourself."
        ),
        CapabilityText(
            capability: .guestMemfd,
            means: "KVM_CREATE_GUEST_MEMFD exists: guest RAM can live in a file that the host does not map.",
            advice: "Ask 244 for what flags it takes."),
        CapabilityText(
            capability: .vmTypes,
            means: "A bit for each VM type; bit 1 is a software-protected VM, which has private memory.",
            advice: "Create the VM with that type to have something to convert."),
        CapabilityText(
            capability: .preFaultMemory,
            means: "KVM_PRE_FAULT_MEMORY exists: pages can be mapped before the guest touches them.",
            advice: "Use it against the first access's fault; deleting a slot at the same time ends it."),
        CapabilityText(
            capability: .guestMemfdFlags,
            means:
                "Flags that KVM_CREATE_GUEST_MEMFD takes: 1 the host may map the file, 2 its pages start shared.",
            advice: "With both, a VMM writes the guest's image in place and converts it."),
        CapabilityText(
            capability: .guestMemfdMemoryAttributes,
            means:
                "Attributes that can be set on the guest_memfd itself, in place, with KVM_SET_MEMORY_ATTRIBUTES2; 8 is private. "
                + "This is the interface of Linux 7.4.",
            advice:
                "Confirm it by behaviour: posted versions had 246, 248, 249 and 250, which released kernels gave to other things. "
                + "With size 0 the call is EINVAL where it exists and ENOTTY where not."),
        CapabilityText(
            capability: .memslots, means: "How many memslots a VM may have.",
            advice: "States that are carved out of memslots cannot be finer than that."),
        CapabilityText(
            capability: .maxVCPUs, means: "How many vCPUs a VM may have.", advice: "Stay below it."),
    ]

    /// Numbers that posted versions of the series had, and that mean other things in released kernels.
    static let borrowed: Set<UInt32> = [246, 248, 249, 250]

    var name: String { capability.name ?? "" }

    var explanation: Explanation {
        var text = Explanation(
            .capability, name, "KVM_CAP_\(name) (\(capability.rawValue))",
            [
                (
                    .attempted,
                    "KVM_CHECK_EXTENSION, best on the VM: the system descriptor only says that some VM type could"
                ),
                (.answer, "0 is no; any other number is yes, often with bits in it"), (.means, means),
                (.advice, advice),
            ])
        text.add(.see, "minivmm probe asks this machine")
        return text
    }

    static func explanation(_ word: String) -> Explanation? {
        if let number = Words.number(word), let short = UInt32(exactly: number) {
            if let known = all.first(where: { $0.capability.rawValue == short }) { return known.explanation }
            guard borrowed.contains(short) else { return nil }
            return Explanation(
                .capability, "\(short)", "capability \(short)",
                [
                    (.attempted, "KVM_CHECK_EXTENSION"),
                    (.answer, "whatever a released kernel has under this number"),
                    (
                        .means,
                        "A posted version of conversion in place had this number; released kernels gave it to something "
                            + "unrelated. It says nothing about conversion."
                    ),
                    (.advice, "Ask 252, and confirm by behaviour."),
                ])
        }
        var name = NearWords.folded(word)
        if name.hasPrefix("kvm_cap_") { name = String(name.dropFirst(8)) }
        return all.first { $0.name.lowercased() == name }?.explanation
    }
}
