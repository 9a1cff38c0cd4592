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
            means: "A bit for each hypercall that can exit to the monitor; bit 12 is KVM_HC_MAP_GPA_RANGE.",
            advice:
                "Enable it with KVM_ENABLE_CAP and the bits that you need. A guest's request is then exit 3."
        ),
        CapabilityText(
            capability: .userMemory2,
            means:
                "The kernel has KVM_SET_USER_MEMORY_REGION2: a memslot can have a guest_memfd (Linux 6.8).",
            advice: "Bind the file with KVM_MEM_GUEST_MEMFD."),
        CapabilityText(
            capability: .memoryFaultInfo,
            means: "KVM_EXIT_MEMORY_FAULT reports the page and the kind of the access.",
            advice: "Expect exit 39 together with EFAULT and EHWPOISON."),
        CapabilityText(
            capability: .memoryAttributes,
            means:
                "The attributes that KVM_SET_MEMORY_ATTRIBUTES on the VM can set by guest-physical address; 8 is private. "
                + "Private and shared memory are then two places, and contents do not survive a conversion. A module has either this "
                + "or in-place conversion.",
            advice:
                "Use it if 252 is missing (--backend per-vm-attributes), and copy the contents yourself."
        ),
        CapabilityText(
            capability: .guestMemfd,
            means:
                "The kernel has KVM_CREATE_GUEST_MEMFD: guest RAM can be in a file that the host does not map.",
            advice: "Query 244 for the flags that it supports."),
        CapabilityText(
            capability: .vmTypes,
            means: "A bit for each VM type; bit 1 is a software-protected VM, which has private memory.",
            advice: "Create the VM with that type; a default VM has nothing to convert."),
        CapabilityText(
            capability: .preFaultMemory,
            means: "The kernel has KVM_PRE_FAULT_MEMORY: pages can be mapped before the guest accesses them.",
            advice:
                "Use it to avoid the fault of the first access. The call fails if a memslot is deleted at the same time."
        ),
        CapabilityText(
            capability: .guestMemfdFlags,
            means:
                "The flags that KVM_CREATE_GUEST_MEMFD supports: 1 the host may map the file, 2 its pages start shared.",
            advice: "With both, a VMM writes the guest's image in place and converts it."),
        CapabilityText(
            capability: .guestMemfdMemoryAttributes,
            means:
                "The attributes that KVM_SET_MEMORY_ATTRIBUTES2 can set on the guest_memfd itself, in place; 8 is private. This is the "
                + "interface of Linux 7.4.",
            advice:
                "Confirm it by behaviour: posted versions used 246, 248, 249 and 250, which released kernels gave to other features. "
                + "With size 0 the call fails with EINVAL if it exists and with ENOTTY if it does not."),
        CapabilityText(
            capability: .memslots, means: "The number of memslots that a VM may have.",
            advice:
                "An adapter that splits memslots (memslot-trap) can have at most so many ranges of alternating state."
        ),
        CapabilityText(
            capability: .maxVCPUs, means: "The number of vCPUs that a VM may have.",
            advice: "Create no more than that."),
    ]

    /// Numbers that posted versions of the series used, and that have other meanings in released kernels.
    static let reusedNumbers: Set<UInt32> = [246, 248, 249, 250]

    var name: String { capability.name ?? "" }

    var explanation: Explanation {
        var text = Explanation(
            .capability, name, "KVM_CAP_\(name) (\(capability.rawValue))",
            [
                (
                    .attempted,
                    "KVM_CHECK_EXTENSION, preferably on the VM: the system descriptor only reports what some VM type supports"
                ),
                (.answer, "0 for no; any other number for yes, often with bits"), (.means, means),
                (.advice, advice),
            ])
        text.add(.see, "minivmm probe queries this machine")
        return text
    }

    static func explanation(_ word: String) -> Explanation? {
        if let number = Words.number(word), let short = UInt32(exactly: number) {
            if let known = all.first(where: { $0.capability.rawValue == short }) { return known.explanation }
            guard reusedNumbers.contains(short) else { return nil }
            return Explanation(
                .capability, "\(short)", "capability \(short)",
                [
                    (.attempted, "KVM_CHECK_EXTENSION"),
                    (.answer, "depends on the feature that a released kernel has under this number"),
                    (
                        .means,
                        "A posted version of in-place conversion used this number; released kernels gave it to an unrelated feature. "
                            + "The answer proves nothing about conversion."
                    ),
                    (.advice, "Query 252, and confirm by behaviour."),
                ])
        }
        var name = NearWords.folded(word)
        if name.hasPrefix("kvm_cap_") { name = String(name.dropFirst(8)) }
        return all.first { $0.name.lowercased() == name }?.explanation
    }
}
