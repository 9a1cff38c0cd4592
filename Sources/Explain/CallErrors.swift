// SPDX-License-Identifier: MIT
import MiniVMM
import SystemPackage

/// What the errno of a call means that is not the conversion call.
struct CallError: Sendable {
    /// The uAPI name, or that of the system call.
    let call: String
    let errno: Errno
    let means: String
    let advice: String
}

enum CallErrors {
    private static let noDevice = Errno(rawValue: 19)

    static let all: [CallError] = [
        CallError(
            call: "KVM_CREATE_VM", errno: .invalidArgument,
            means: "This kernel has no VM type with private memory.",
            advice: "Load a kernel with KVM_SW_PROTECTED_VM, or take --backend memslot-trap or soft."),
        CallError(
            call: "KVM_CREATE_GUEST_MEMFD", errno: .inappropriateIOCTLForDevice,
            means: "The kernel has no guest_memfd; it came with Linux 6.8.",
            advice: "Take --backend soft, or a newer kernel."),
        CallError(
            call: "KVM_CREATE_GUEST_MEMFD", errno: .invalidArgument,
            means:
                "The size is no whole number of pages, or the kernel does not know a flag: MMAP and INIT_SHARED are newer "
                + "than the file, and INIT_SHARED on a VM with private memory needs conversion in place.",
            advice: "Ask KVM_CAP_GUEST_MEMFD_FLAGS (244) on the VM; minivmm probe tries every combination."),
        CallError(
            call: "KVM_SET_USER_MEMORY_REGION2", errno: .invalidArgument,
            means:
                "The slot is not one that a guest_memfd can serve: not page aligned, outside the file, read-only or with "
                + "dirty logging.",
            advice:
                "Bind each page of the file to one slot, and give userspace_addr the mapping of the same offset."
        ),
        CallError(
            call: "KVM_SET_USER_MEMORY_REGION2", errno: .fileExists,
            means: "The slot's guest-physical addresses, or its pages of the file, belong to another slot.",
            advice: "Delete the other slot first (the same slot with size 0)."),
        CallError(
            call: "KVM_SET_MEMORY_ATTRIBUTES", errno: .inappropriateIOCTLForDevice,
            means:
                "This kernel keeps no attributes by address: it is older than Linux 6.8, or converts in place instead; "
                + "a module has one or the other.",
            advice: "Use KVM_SET_MEMORY_ATTRIBUTES2 on the guest_memfd."),
        CallError(
            call: "KVM_SET_MEMORY_ATTRIBUTES", errno: .invalidArgument,
            means: "The VM has no private memory, or the range is no whole pages.",
            advice: "Create a software-protected VM."),
        CallError(
            call: "mmap", errno: noDevice,
            means: "The guest_memfd was made without the MMAP flag.",
            advice: "Create it with GUEST_MEMFD_FLAG_MMAP; without it the host never sees its pages."),
        CallError(
            call: "mmap", errno: .invalidArgument, means: "A guest_memfd can be mapped with MAP_SHARED only.",
            advice: "Map it with MAP_SHARED."),
        CallError(
            call: "fallocate", errno: .notSupportedOnSocket,
            means: "fallocate on a guest_memfd must keep the file's size.",
            advice: "Add FALLOC_FL_KEEP_SIZE."),
        CallError(
            call: "fallocate", errno: .invalidArgument,
            means: "offset or length is no multiple of the page size.",
            advice: "Align both to 4096 bytes."),
        CallError(
            call: "ftruncate", errno: .invalidArgument, means: "A guest_memfd never changes its size.",
            advice: "Free pages with FALLOC_FL_PUNCH_HOLE instead."),
        CallError(
            call: "a host's system call on guest memory", errno: .badAddress,
            means: "The page is private, or lies behind the end of the file. A plain access would be SIGBUS.",
            advice: "Convert the page to shared first, and check its state under the lock of your own map."),
        CallError(
            call: "/proc/self/mem", errno: .ioError,
            means:
                "The page is private, or behind the end of the file: read this way it is EIO instead of EFAULT.",
            advice: "Convert the page to shared first."),
        CallError(
            call: "KVM_RUN", errno: .badAddress,
            means:
                "With exit reason 39 it is a memory fault, of the page that memory_fault.gpa names. Without, the kernel could "
                + "not reach memory that it needed and does not say where.",
            advice: "Clear exit_reason before each run and look at it after; minivmm explain exit 39 goes on."
        ),
        CallError(
            call: "KVM_RUN", errno: .hardwarePoisoned,
            means: "The host's memory behind the page has failed.",
            advice: "End the guest, or take the page away from it. Converting it does not help."),
        CallError(
            call: "KVM_RUN", errno: .interrupted, means: "A signal, or immediate_exit: the vCPU was kicked.",
            advice: "Do what the kick was for, and run it again."),
        CallError(
            call: "KVM_HC_MAP_GPA_RANGE", errno: .notSupportedOnSocket,
            means:
                "This is minivmm's own answer to a guest: contents that it asked to preserve cannot be preserved here.",
            advice: "Ask for zero or unspecified contents, and carry the bytes over."),
        CallError(
            call: "KVM_ENABLE_CAP", errno: .invalidArgument,
            means: "The kernel does not have this capability on this VM.",
            advice: "Let the guest ask through the port instead: minivmm finds out by probing."),
    ]

    static func of(_ call: String, _ errno: Errno) -> CallError? {
        all.first { $0.errno == errno && (call == $0.call || call.hasPrefix($0.call + "(")) }
    }

    /// What the errno means where another call gives it.
    static func elsewhere(_ errno: Errno) -> [String] {
        all.filter { $0.errno == errno }.map { "\($0.call): \($0.means)" }
    }

    /// Whether a call answers it, the conversion call or another one.
    static func answers(_ errno: Errno) -> Bool {
        ConversionRow.allCases.contains { $0.errno == errno } || all.contains { $0.errno == errno }
    }

    /// For an errno that no table has for this call: the C library's text, or what a kernel means by it.
    static func general(_ errno: Errno) -> (means: String, advice: String) {
        let text = "\(errno)."
        return switch errno {
        case .permissionDenied, .notPermitted: (text, "Use a user that may, or another place.")
        case .noSuchFileOrDirectory: (text, "Check the name.")
        case .noSpace: (text, "Free some, or write elsewhere.")
        case .resourceBusy: (text, "Wait for whoever uses it, or end them.")
        case .resourceTemporarilyUnavailable:
            ("Something is in use, or a limit is reached.", "Try again later.")
        case .brokenPipe:
            (
                "The reading process closed the pipe before the end of the output.",
                "Let the reader read all of it, or write to a file."
            )
        case .inappropriateIOCTLForDevice:
            (
                "This kernel does not have the call.",
                "minivmm probe says what it can do; --backend auto takes what works."
            )
        case .invalidArgument:
            (
                "The kernel does not take these arguments, or does not know a flag among them.",
                "minivmm probe says what this kernel can do; --backend soft takes everything that Linux 7.4 takes."
            )
        case .badAddress:
            ("The kernel could not reach the memory that was named.", "Check whether its page is private.")
        case .noMemory:
            (
                "The kernel had no memory for it, or a limit was reached.",
                (["Give the guest less RAM (--ram)."] + [errno.hostLimitAdvice].compactMap(\.self))
                    .joined(separator: " ")
            )
        default:
            (
                "The call is not documented to fail like this; the host is short of something or the kernel differs.",
                "Look at the kernel's log, and compare with --backend soft."
            )
        }
    }
}
