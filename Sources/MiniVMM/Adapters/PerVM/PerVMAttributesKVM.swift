// SPDX-License-Identifier: MIT
import CKVMShim
public import SystemPackage

/// The in-place interface on a kernel that records private memory by guest-physical address: Linux 6.8 to 7.3 with
/// `KVM_X86_SW_PROTECTED_VM` and `KVM_SET_MEMORY_ATTRIBUTES`.
///
/// Private memory is real here: the kernel itself sends private accesses to a guest_memfd that the host can
/// neither map nor read. Shared memory is a memfd at `userspace_addr`. A file of this adapter consists of both, and a
/// conversion changes which of the two the guest's accesses go to.
///
/// Because there are two memories, it differs from a kernel that converts in place:
/// * **Contents are lost** in both directions. A page that changed state is zero, because the memory that is no longer
///   used is freed. ``ContentPromise/lost`` tells the monitor, which refuses to preserve contents.
/// * No page is in use: this kernel counts no references, so a conversion to private never returns `EAGAIN`. A holder
///   of a shared page (a pipe, a device) keeps the old page, which no longer belongs to the guest.
/// * KVM's own accesses (to emulate an instruction, or to step over one where the CPU does not report its length) go to
///   the shared memory, whatever the page's state. The guest's code, stacks and page tables must be in shared pages,
///   and a string instruction that exits cannot transfer bytes of a private page.
/// * The kernel tells accesses apart by attribute alone, so a VM with a shared bit is refused.
///   ``AliasesKVM`` adds the aliases; there a shut alias is a slot whose file has been closed.
/// * The host's mappings are of the shared memory. Their private pages are made inaccessible (PROT_NONE), so that a
///   system call on one returns `EFAULT`.
public final class PerVMAttributesKVM: Backend {
    /// `PerVMAttributesKVM`, an adapter, with the base backend's host.
    public let identity: BackendIdentity
    private let base: any Backend

    /// Makes no system call. The VMs of `base` must be ``PerVMAttributes``, or ``createVM(_:sharedBit:)`` throws.
    public init(over base: any Backend) {
        self.base = base
        identity = BackendIdentity(name: "PerVMAttributesKVM", host: base.identity.host, kind: .adapter)
    }

    /// Same as the base backend.
    public var runsVCPUsInTurns: Bool { base.runsVCPUsInTurns }
    /// Nanoseconds on the base backend's clock.
    public func now() -> UInt64 { base.now() }
    /// Waits on the base backend's clock.
    public func sleep(for duration: Duration) { base.sleep(for: duration) }
    /// The base backend's table.
    ///
    /// - Throws: what the base backend throws: `E2BIG` or `ENOMEM` on Linux.
    public func supportedCPUID() throws(Errno) -> CPUIDTable { try base.supportedCPUID() }

    /// For capabilities of guest_memfd and memory attributes, the answer of a kernel that converts in place;
    /// for all others, the base backend's answer.
    ///
    /// - Throws: the errno of the base backend. An unknown capability is not an error.
    public func checkExtension(_ capability: Capability) throws(Errno) -> Int {
        if let answer = capability.inPlaceAnswer { return answer }
        return try base.checkExtension(capability)
    }

    /// A default VM is the base backend's own; a software-protected VM converts with `KVM_SET_MEMORY_ATTRIBUTES`.
    ///
    /// - Throws: `EINVAL` for a shared bit, and where the base backend has no such VM type; otherwise what
    ///   the base backend throws.
    public func createVM(_ type: VMType, sharedBit: Int?) throws(Errno) -> any KVMVirtualMachine {
        guard type == .softwareProtected else { return try base.createVM(type, sharedBit: sharedBit) }
        guard sharedBit == nil, let vm = try base.createVM(type, sharedBit: nil) as? any PerVMAttributes
        else {
            throw .invalidArgument
        }
        return try PerVMVirtualMachine(over: vm)
    }
}

/// A vCPU of ``PerVMAttributesKVM``, on top of the base backend's. Keeps its VM alive, whose mappings the guest uses.
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
