// SPDX-License-Identifier: MIT
import MiniVMM
import SystemPackage

/// The meaning of an errno from a call other than the conversion call.
struct CallError: Sendable {
    /// The uAPI name, or the name of the system call.
    let call: String
    let errno: Errno
    let means: String
    let advice: String
}

enum CallErrors {
    private static let noDevice = Errno(rawValue: 19)

    /// The name in ``all`` for every system call that is given guest memory as its buffer.
    static let hostAccess = "a host's system call on guest memory"

    static let all: [CallError] = [
        CallError(
            call: "KVM_CREATE_VM", errno: .invalidArgument,
            means: "This kernel does not have the requested VM type.",
            advice:
                "Boot a kernel with CONFIG_KVM_SW_PROTECTED_VM for a VM with private memory, or use --backend memslot-trap or soft."
        ),
        CallError(
            call: "KVM_CREATE_GUEST_MEMFD", errno: .inappropriateIOCTLForDevice,
            means: "The kernel has no guest_memfd, which was added in Linux 6.8.",
            advice: "Use --backend soft, or a newer kernel."),
        CallError(
            call: "KVM_CREATE_GUEST_MEMFD", errno: .invalidArgument,
            means:
                "The size is not a multiple of the page size, or the kernel does not support a flag: MMAP and INIT_SHARED are newer "
                + "than guest_memfd itself, and INIT_SHARED on a VM with private memory needs in-place conversion.",
            advice: "Check KVM_CAP_GUEST_MEMFD_FLAGS (244) on the VM; minivmm probe tries every combination."),
        CallError(
            call: "KVM_CREATE_GUEST_MEMFD", errno: .noMemory,
            means: "The kernel had no memory for the file. No descriptor was created.",
            advice: "Free memory, and call again."),
        CallError(
            call: "KVM_SET_USER_MEMORY_REGION2", errno: .inappropriateIOCTLForDevice,
            means: "The kernel is older than Linux 6.8 and has only KVM_SET_USER_MEMORY_REGION.",
            advice: "Use --backend soft, or a newer kernel."),
        CallError(
            call: "KVM_SET_USER_MEMORY_REGION2", errno: .invalidArgument,
            means:
                "The kernel does not accept this memslot: it is not page aligned, its range wraps or lies outside the file, the "
                + "descriptor is not a guest_memfd of this VM, or it combines a guest_memfd with KVM_MEM_READONLY or dirty "
                + "logging. A memslot with a guest_memfd cannot be changed, only deleted.",
            advice:
                "Bind each page of the file to one slot, align everything to 4096 bytes, and set userspace_addr to the mapping of the "
                + "same file at the same offset."
        ),
        CallError(
            call: "KVM_SET_USER_MEMORY_REGION2", errno: .fileExists,
            means:
                "Another memslot has some of these guest-physical addresses, or some of these pages of the file.",
            advice: "Delete the other slot first: the same slot number with size 0."),
        CallError(
            call: "KVM_SET_USER_MEMORY_REGION2", errno: .badFileDescriptor,
            means: "guest_memfd is not an open file descriptor.",
            advice:
                "Pass the descriptor that KVM_CREATE_GUEST_MEMFD returned, and keep it open until the slot is set."
        ),
        CallError(
            call: "KVM_SET_USER_MEMORY_REGION2", errno: .noMemory,
            means: "The kernel had no memory for the memslot. All memslots are as before.",
            advice: "Free memory, and call again."),
        CallError(
            call: "KVM_SET_USER_MEMORY_REGION", errno: .invalidArgument,
            means:
                "The kernel does not accept this memslot: it is not page aligned, its range wraps, or a flag is not supported. The call "
                + "does not accept KVM_MEM_GUEST_MEMFD.",
            advice: "Use KVM_SET_USER_MEMORY_REGION2 for a guest_memfd, and align everything to 4096 bytes."),
        CallError(
            call: "KVM_SET_USER_MEMORY_REGION", errno: .fileExists,
            means: "Another memslot has some of these guest-physical addresses.",
            advice: "Delete the other slot first: the same slot number with size 0."),
        CallError(
            call: "KVM_SET_MEMORY_ATTRIBUTES", errno: .inappropriateIOCTLForDevice,
            means:
                "This kernel has no per-VM attributes: it is older than Linux 6.8, or converts in place instead. A module has one or "
                + "the other.",
            advice: "Use KVM_SET_MEMORY_ATTRIBUTES2 on the guest_memfd."),
        CallError(
            call: "KVM_SET_MEMORY_ATTRIBUTES", errno: .invalidArgument,
            means:
                "The VM has no private memory, the range is empty, wraps or is not page aligned, or attributes or flags has an "
                + "unsupported bit. A kernel that converts in place refuses PRIVATE here.",
            advice:
                "Create a software-protected VM, align the range to 4096 bytes, and pass 0 or 8 as attributes."
        ),
        CallError(
            call: "KVM_SET_MEMORY_ATTRIBUTES", errno: .noMemory,
            means: "The kernel had no memory to record the attributes.",
            advice: "Free memory, or convert in larger ranges."),
        CallError(
            call: "KVM_PRE_FAULT_MEMORY", errno: .noSuchFileOrDirectory,
            means: "The guest-physical address belongs to no memslot.",
            advice: "Set the memslot first; the address is without the shared bit."),
        CallError(
            call: "KVM_PRE_FAULT_MEMORY", errno: .resourceTemporarilyUnavailable,
            means: "A memslot was being deleted at the same time.",
            advice: "Call again for the rest: gpa and size in the struct have moved on."),
        CallError(
            call: "KVM_PRE_FAULT_MEMORY", errno: .badAddress,
            means:
                "The page could not be mapped: it was being converted, or the guest of this VM type cannot access it.",
            advice: "Call again once the conversion has finished."),
        CallError(
            call: "KVM_PRE_FAULT_MEMORY", errno: .noMemory,
            means:
                "The kernel had no memory for the first page or its tables. If only a later page fails, the call "
                + "returns 0.",
            advice: "Free memory, and call again for the rest: gpa and size in the struct have moved on."),
        CallError(
            call: "KVM_RUN", errno: .noMemory,
            means:
                "The kernel had no memory for a page of the guest or its tables. The guest has not noticed.",
            advice: "Free memory, and enter the guest again: the access is repeated."),
        CallError(
            call: "mmap", errno: noDevice,
            means: "The guest_memfd was created without the MMAP flag.",
            advice: "Create it with GUEST_MEMFD_FLAG_MMAP. Without the flag the host can never map its pages."
        ),
        CallError(
            call: "mmap", errno: .invalidArgument, means: "A guest_memfd can only be mapped with MAP_SHARED.",
            advice: "Map it with MAP_SHARED, at an offset that is a multiple of 4096."),
        CallError(
            call: "madvise", errno: .invalidArgument,
            means:
                "A guest_memfd does not support this advice, for example MADV_COLLAPSE; or the address is not page aligned.",
            advice: "Use MADV_DONTNEED to drop mappings, and fallocate with PUNCH_HOLE to free pages."),
        CallError(
            call: "read", errno: .invalidArgument,
            means: "A guest_memfd does not support read().",
            advice: "Map it and access its shared pages through the mapping."),
        CallError(
            call: "write", errno: .invalidArgument,
            means: "A guest_memfd does not support write().",
            advice: "Map it and access its shared pages through the mapping."),
        CallError(
            call: "fallocate", errno: .notSupportedOnSocket,
            means: "fallocate on a guest_memfd must keep the file's size.",
            advice: "Add FALLOC_FL_KEEP_SIZE."),
        CallError(
            call: "fallocate", errno: .invalidArgument,
            means: "offset or length is not a multiple of the page size.",
            advice: "Align both to 4096 bytes."),
        CallError(
            call: "ftruncate", errno: .invalidArgument, means: "The size of a guest_memfd cannot be changed.",
            advice: "Free pages with FALLOC_FL_PUNCH_HOLE instead."),
        CallError(
            call: hostAccess, errno: .badAddress,
            means:
                "The page is private, or beyond the end of the file. A plain memory access would have raised SIGBUS.",
            advice:
                "Convert the page to shared first, and check its state under the lock that protects the monitor's map."
        ),
        CallError(
            call: "/proc/self/mem", errno: .ioError,
            means:
                "The page is private, or beyond the end of the file. Access through this file returns EIO instead of EFAULT.",
            advice: "Convert the page to shared first."),
        CallError(
            call: "KVM_RUN", errno: .badAddress,
            means:
                "With exit reason 39 this is a memory fault on the page in memory_fault.gpa. With any other reason the kernel could not "
                + "reach memory that it needed and does not report where.",
            advice:
                "Clear exit_reason before each run and check it afterwards; minivmm explain exit 39 has more."
        ),
        CallError(
            call: "KVM_RUN", errno: .hardwarePoisoned,
            means: "The host memory behind the page has failed.",
            advice: "End the guest, or remove the page from it. A conversion does not help."),
        CallError(
            call: "KVM_RUN", errno: .interrupted,
            means: "A signal or immediate_exit ended the run: the vCPU was kicked.",
            advice: "Handle the reason for the kick, and run the vCPU again."),
        CallError(
            call: "KVM_RUN", errno: .ioError,
            means:
                "The kernel has marked the VM as dead after an error that it cannot recover from. On TDX, a guest that touches a private "
                + "page before accepting it has this effect if SEPT_VE_DISABLE is set.",
            advice: "Read the host kernel's log, and start the VM again."),
        CallError(
            call: "KVM_HC_MAP_GPA_RANGE", errno: .notSupportedOnSocket,
            means:
                "This is minivmm's answer to a guest that asked to preserve contents on a backend that cannot.",
            advice: "Request zero or unspecified contents, and copy the bytes yourself."),
        CallError(
            call: "KVM_ENABLE_CAP", errno: .invalidArgument,
            means: "The kernel does not support this capability on this VM.",
            advice: "Let the guest make its calls through the port; minivmm probes for this on its own."),
        CallError(
            call: "KVM_CREATE_VCPU", errno: .fileExists,
            means: "The VM already has a vCPU with this id.",
            advice: "Use each id once. A vCPU cannot be removed from a VM."),
    ]

    static func of(_ call: String, _ errno: Errno) -> CallError? {
        all.first { $0.errno == errno && (call == $0.call || call.hasPrefix($0.call + "(")) }
    }

    /// The meaning of the errno when other calls return it, one text per call.
    static func elsewhere(_ errno: Errno) -> [String] {
        all.filter { $0.errno == errno }.map { "\($0.call): \($0.means)" }
    }

    /// Whether the conversion call or any call in ``all`` returns this errno.
    static func answers(_ errno: Errno) -> Bool {
        ConversionRow.allCases.contains { $0.errno == errno } || all.contains { $0.errno == errno }
    }

    /// For an errno that ``all`` does not list for this call: the C library's text, or what kernels generally mean by it.
    static func general(_ errno: Errno) -> (means: String, advice: String) {
        let text = "\(errno)."
        return switch errno {
        case .permissionDenied, .notPermitted:
            (text, "Run as a user with permission, or use another path.")
        case .noSuchFileOrDirectory: (text, "Check the name.")
        case .noSpace: (text, "Free some space, or write elsewhere.")
        case .resourceBusy: (text, "Wait for the process that uses it, or end that process.")
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
                "minivmm probe lists what it supports; --backend auto picks a backend that works."
            )
        case .invalidArgument:
            (
                "The kernel does not accept these arguments, or does not support a flag among them.",
                "minivmm probe lists what this kernel supports; --backend soft accepts everything that Linux 7.4 accepts."
            )
        case .badAddress:
            (
                "The kernel could not reach memory that the call was given.",
                "Check whether one of its pages is private."
            )
        case .noMemory:
            (
                "The kernel had no memory for it, or a limit was reached.",
                (["Give the guest less RAM (--ram)."] + [errno.hostLimitAdvice].compactMap(\.self))
                    .joined(separator: " ")
            )
        case .ioError:
            (
                "The kernel reports an input/output error. From a KVM call it often means that the VM is marked as dead.",
                "Read the host kernel's log."
            )
        default:
            (
                "The call is not documented to fail with this errno: the host has run out of something, or the kernel differs.",
                "Read the kernel's log, and compare with --backend soft."
            )
        }
    }
}
