// SPDX-License-Identifier: MIT
import MiniVMM

/// A message of QEMU or of the host kernel's log that names no call and no exit.
struct Messages: Sendable {
    /// The name of the topic.
    let name: String
    /// The line has one of these, words next to each other in lower case.
    let phrases: [String]
    let title: String
    let means: String
    let advice: String
    var see = ""

    static let all: [Messages] = [
        Messages(
            name: "non-guest-memfd", phrases: ["convert non guest_memfd backed memory region"],
            title: "Convert non guest_memfd backed memory region, a message of QEMU",
            means:
                "The guest asked to convert addresses whose memory has no guest_memfd: MMIO, ROM, or a memory region without private "
                + "memory.",
            advice:
                "Check the address. A conversion of MMIO to shared is harmless; RAM needs a memory backend with a guest_memfd."
        ),
        Messages(
            name: "kvm-not-accessible",
            phrases: ["could not access kvm kernel module", "failed to initialize kvm"],
            title: "QEMU cannot use /dev/kvm",
            means:
                "The device does not exist (no virtualisation, or no kvm module), or this user has no permission.",
            advice:
                "Load kvm_intel or kvm_amd, or join the group that owns /dev/kvm. MiniVMM's --backend soft needs no device."
        ),
        Messages(
            name: "kvm-disabled",
            phrases: [
                "disabled by bios", "no hardware support for", "svm not supported", "vmx not supported",
                "not supported by this cpu",
            ],
            title: "KVM is not available on this CPU, a message of the kernel",
            means:
                "The CPU or the firmware offers no virtualisation to this kernel; in a VM, the hypervisor does not pass it on.",
            advice:
                "Enable virtualisation in the firmware, or nested virtualisation in the hypervisor. --backend soft needs neither."
        ),
        Messages(
            name: "unhandled-msr",
            phrases: [
                "unhandled rdmsr", "unhandled wrmsr", "ignored rdmsr", "ignored wrmsr", "disabled perfctr",
            ],
            title: "unhandled rdmsr or wrmsr, a message of the kernel",
            means:
                "The guest read or wrote a model-specific register that KVM does not emulate. The guest gets #GP, or 0 with "
                + "kvm.ignore_msrs=1. It is not related to memory conversion.",
            advice: "Ignore it, unless the guest fails right afterwards."),
        Messages(
            name: "rmp-fault",
            phrases: [
                "rmp violation", "rmp entry", "rmp page fault", "rmp_page_fault", "rmp hardware error",
                "rmp fault",
            ],
            title: "an RMP fault, a message of the kernel (SEV-SNP)",
            means:
                "The host or a device accessed a page that the reverse map table (RMP) assigns to a guest. Such a page is private.",
            advice:
                "Find out which driver or device wrote there. Convert the page to shared before a device uses it.",
            see: "minivmm explain RMP"),
        Messages(
            name: "seamcall-failed", phrases: ["seamcall", "tdh_mem"],
            title: "a SEAMCALL failed, a message of the kernel (TDX)",
            means:
                "The kernel called the TDX module and got an error status. The upper 32 bits are the code: 80000200 operand busy, "
                + "80000201 a vCPU still runs in an older epoch, C0000B06 not blocked, C0000B08 not tracked, C0000B0D wrong state of the "
                + "entry.",
            advice:
                "Busy is transient: KVM retries. The other codes mean that steps of a conversion were made in the wrong order.",
            see: "minivmm explain secure EPT"),
        Messages(
            name: "memory-failure",
            phrases: ["memory failure", "hardware memory error", "uncorrected hardware memory"],
            title: "memory failure, a message of the kernel",
            means:
                "A page of the host's RAM has an uncorrectable error. A guest that touches it gets EHWPOISON with exit 39.",
            advice: "End the guest or remove the page from it. A conversion does not help."),
        Messages(
            name: "out-of-memory", phrases: ["out of memory", "oom kill", "invoked oom-killer"],
            title: "out of memory, a message of the kernel",
            means:
                "The kernel killed a process because memory ran out. Pages of a guest_memfd count, cannot be swapped, and stay allocated "
                + "until a hole is punched.",
            advice:
                "Give the guest less RAM. With per-VM attributes, discard the memory that goes out of use after each conversion.",
            see: "minivmm explain in-place conversion"),
        Messages(
            name: "kvm-bug", phrases: ["vm_dead", "vm bugged", "vm_bugged", "kvm_bug_on"],
            title: "KVM has marked a VM as dead, a message of the kernel",
            means:
                "KVM found a state that it cannot continue from. From then on every call on this VM fails with EIO.",
            advice: "Report it with the log lines before it, and start the VM again."),
    ]

    static func explanation(_ line: LogLine) -> Explanation? {
        all.first { known in known.phrases.contains { line.has($0) } }?.explanation
    }

    static func named(_ word: String) -> Explanation? {
        all.first { NearWords.folded($0.name) == NearWords.folded(word) }?.explanation
    }

    private var explanation: Explanation {
        var text = Explanation(.message, name, title, [(.means, means), (.advice, advice)])
        text.add(.see, see)
        return text
    }
}
