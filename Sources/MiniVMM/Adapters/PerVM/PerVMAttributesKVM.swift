// SPDX-License-Identifier: MIT
import CKVMShim
public import SystemPackage

/// The in-place interface on a kernel that keeps what is private by guest-physical address: Linux 6.8 to 7.3 with
/// `KVM_X86_SW_PROTECTED_VM` and `KVM_SET_MEMORY_ATTRIBUTES`.
///
/// Private memory is real here: the kernel itself sends private accesses to a guest_memfd that the host can
/// neither map nor read. Shared memory is a memfd at `userspace_addr`. A file of this interface is both, and a
/// conversion changes which of the two the guest's accesses go to.
///
/// What differs from a kernel that converts in place, because there are two memories:
/// * **Contents are lost** in both directions, and a page that changed state is zero: the memory that goes out of
///   use is given back. ``ContentPromise/lost`` says so, and the monitor refuses to preserve.
/// * No page is in use: this kernel counts no references, so a conversion to private is never `EAGAIN`. Whoever holds a
///   shared page (a pipe, a device) keeps the old one, which is the guest's no more.
/// * KVM's own accesses (to emulate an instruction, or to step over one where the CPU does not say how long it is) go to
///   the shared memory, whatever the page is. Code, stacks and page tables of a guest belong into shared pages here, and
///   a string instruction that exits moves no byte of a private page.
/// * The kernel tells the accesses apart by attribute alone: with a shared bit there is no such VM, and
///   ``AliasesKVM`` makes the aliases. An alias that is shut is a slot whose file has been closed.
/// * The host's mappings are of the shared memory. Private pages of them are made inaccessible (PROT_NONE), so that a
///   system call on one is `EFAULT`.
public final class PerVMAttributesKVM: Backend {
    /// `PerVMAttributesKVM`, an adapter, with the host of the kernel below.
    public let identity: BackendIdentity
    private let base: any Backend

    /// Makes no call. The VMs of `base` must be ``PerVMAttributes``, or ``createVM(_:sharedBit:)`` throws.
    public init(over base: any Backend) {
        self.base = base
        identity = BackendIdentity(name: "PerVMAttributesKVM", host: base.identity.host, kind: .adapter)
    }

    /// As in the kernel below.
    public var runsVCPUsInTurns: Bool { base.runsVCPUsInTurns }
    /// Nanoseconds on the clock of the kernel below.
    public func now() -> UInt64 { base.now() }
    /// Waits on the clock of the kernel below.
    public func sleep(for duration: Duration) { base.sleep(for: duration) }
    /// The table of the kernel below.
    ///
    /// - Throws: what the kernel below throws: `E2BIG` or `ENOMEM` on Linux.
    public func supportedCPUID() throws(Errno) -> CPUIDTable { try base.supportedCPUID() }

    /// For capabilities of guest_memfd and memory attributes the answer of a kernel that converts in place,
    /// for all others that of the kernel below.
    ///
    /// - Throws: the errno of the ioctl below. An unknown capability is no error.
    public func checkExtension(_ capability: Capability) throws(Errno) -> Int {
        if let answer = capability.inPlaceAnswer { return answer }
        return try base.checkExtension(capability)
    }

    /// A default VM is the kernel's own; a software-protected one converts by `KVM_SET_MEMORY_ATTRIBUTES`.
    ///
    /// - Throws: `EINVAL` for a shared bit, and where the kernel below has no such VM type; otherwise what
    ///   the kernel below throws.
    public func createVM(_ type: VMType, sharedBit: Int?) throws(Errno) -> any KVMVirtualMachine {
        guard type == .softwareProtected else { return try base.createVM(type, sharedBit: sharedBit) }
        guard sharedBit == nil, let vm = try base.createVM(type, sharedBit: nil) as? any PerVMAttributes
        else {
            throw .invalidArgument
        }
        return try PerVMVirtualMachine(over: vm)
    }
}

/// A vCPU of ``PerVMAttributesKVM``: the kernel's own. Keeps its VM alive, whose mappings the guest runs on.
final class PerVMVCPU: AdapterVCPU {
    let base: any KVMVCPU
    private let vm: PerVMVirtualMachine

    init(over base: any KVMVCPU, of vm: PerVMVirtualMachine) {
        self.base = base
        self.vm = vm
        runPage = base.runPage
    }

    let runPage: RunPage
    func run() throws(Errno) { try base.run() }
    func kick() { base.kick() }
}
