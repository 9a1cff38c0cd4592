// SPDX-License-Identifier: MIT
import MiniVMM
import SystemPackage

/// An errno, or a success, of a call that was named.
struct CallErrno {
    let call: String
    let errno: Errno
    var slot = SlotArguments()

    /// Calls that are given guest memory as a buffer. An EFAULT of one of these has the same meaning.
    private static let accesses: Set<String> = [
        "read", "write", "pread", "pwrite", "pread64", "pwrite64", "readv", "writev", "preadv", "pwritev",
        "preadv2",
        "pwritev2", "recv", "recvfrom", "recvmsg", "send", "sendto", "sendmsg", "splice", "vmsplice",
        "sendfile",
        "process_vm_readv", "process_vm_writev", "io_submit", "io_uring_register", "io_uring_enter",
        "copy_file_range",
        "getrandom",
    ]

    /// System calls by which a monitor reaches guest memory. ioctls are in ``Calls``.
    static let systemCalls: Set<String> = accesses.union([
        "ioctl", "mmap", "mmap2", "munmap", "mremap", "madvise", "process_madvise", "fallocate", "ftruncate",
        "ftruncate64", "openat", "open", "memfd_create", "mprotect", "fcntl", "lseek",
    ])

    /// The name that the tables have for a call: KVM_RUN for kvm_run, mmap for mmap2.
    static func canonicalName(_ word: String) -> String? {
        if let known = Calls.named(word), known.name.hasPrefix("KVM_") { return known.name }
        let folded = NearWords.folded(word)
        let short =
            ["mmap2": "mmap", "process_madvise": "madvise", "ftruncate64": "ftruncate"][folded] ?? folded
        if systemCalls.contains(short) { return short }
        return CallErrors.all.first {
            NearWords.folded($0.call) == folded || NearWords.folded($0.call) == "kvm_" + folded
        }?
        .call
    }

    /// The names that ``canonicalName(_:)`` accepts, for suggestions.
    static var names: [String] {
        (CallErrors.all.map(\.call).filter { !$0.contains(" ") }
            + Calls.all.map(\.name).filter { $0.hasPrefix("KVM_") })
            .removingRepetitions
    }

    private var known: CallError? {
        if let exact = CallErrors.of(call, errno) { return exact }
        return Self.accesses.contains(call) && errno == .badAddress
            ? CallErrors.of(CallErrors.hostAccess, errno) : nil
    }

    var explanation: Explanation {
        let topic = Calls.named(call)
        var text = Explanation(.errno, errno.word, "\(errno.nameAndNumber) from \(call)")
        let attempted = topic?.text(.attempted) ?? "to call \(call)"
        text.add(.attempted, attempted + (slot.isEmpty ? "" : ": " + slot.text))
        text.add(.answer, errno.nameAndNumber)
        if errno == .success {
            text.add(.means, "The call succeeded." + (topic?.text(.means).map { " " + $0 } ?? ""))
            text.add(.advice, "Nothing.")
        } else {
            let causes = errno == .invalidArgument ? slot.problems : []
            for cause in causes { text.add(.means, cause) }
            if causes.isEmpty {
                let general = known?.means ?? CallErrors.general(errno).means
                text.add(.means, (errno == .invalidArgument ? slot.hint : nil) ?? general)
            }
            if call == "ioctl" {
                text.add(
                    .means,
                    "The line does not show which request failed. If it says `resumed`, the request is in the line of the same "
                        + "process that ends in `<unfinished ...>`.")
            }
            text.add(.advice, known?.advice ?? CallErrors.general(errno).advice)
        }
        if let topic { text.add(.see, "minivmm explain \(topic.name)") }
        return text
    }
}
