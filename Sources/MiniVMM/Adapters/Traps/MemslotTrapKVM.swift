// SPDX-License-Identifier: MIT
import CKVMShim
import Synchronization
public import SystemPackage

/// The in-place interface on a kernel that knows no memory attributes at all.
///
/// It answers as a software-protected VM whose accesses are told apart by a shared bit, over a default VM of
/// the kernel below. Guest RAM is one real file; which of its pages a guest can reach through which alias is
/// decided by *which memslots exist*: a private page has one at its address, a shared page has one at its
/// address with the shared bit. An access through the wrong alias finds no slot, so the kernel makes it MMIO;
/// the adapter presents that as `KVM_EXIT_MEMORY_FAULT` and finishes the interrupted access on the next run.
/// The host's side is enforced by page protection on the mappings that are handed out, so that a system call
/// on a private page is a real `EFAULT`.
///
/// What differs from a kernel that has the ioctl, because MMIO is not a fault:
/// * At the fault of a *write* RIP is already behind the instruction (the kernel has retired it). The access
///   is finished whatever the caller does to the registers meanwhile.
/// * A finished access is a copy: not atomic, and a locked read-modify-write through the wrong alias is a read
///   and a write, between which another vCPU may come.
/// * A code page behind the wrong alias is found by walking the guest's page tables after the kernel gave up
///   (`KVM_EXIT_INTERNAL_ERROR`), a page-table page after it let the guest shut down; the instruction is then
///   executed again. Walked are 4 and 5 levels of long mode, and no paging. A guest with an IDT sees a #PF for
///   a page-table page instead (and so does any guest on a CPU that resets at a triple fault), and an access through the wrong alias by an instruction that KVM
///   cannot emulate (AVX) stays an internal error.
/// * The kernel below counts no references for us: a page is in use when a ``HostMapping/hold(at:length:)``
///   of this adapter's has it. Other pins are not seen. A failed conversion does not unmap the host's pages.
public final class MemslotTrapKVM: Backend {
    /// `MemslotTrapKVM`, an adapter; the host also says whether guest RAM is a guest_memfd or a memfd.
    public let identity: BackendIdentity
    private let base: any Backend
    private let backing: TrapBacking
    /// Memslots that carving may use; nil takes what the kernel has.
    private let slotLimit: Int?
    /// The kernel has `KVM_SET_USER_MEMORY_REGION2` (6.8).
    private let hasRegion2: Bool
    /// The VM on which the backing was tried: it becomes the first one, since a VM takes its time to make.
    private let spareVM: Mutex<(any KVMVirtualMachine)?>

    /// Creates a VM of `base` to find out whether the host can map a guest_memfd of a default VM; else guest
    /// RAM is a memfd. The first ``createVM(_:sharedBit:)`` uses that VM.
    public convenience init(over base: any Backend) {
        let hasRegion2 = (try? base.checkExtension(.userMemory2)) ?? 0 > 0
        let (backing, vm) = TrapBacking.best(on: base)
        self.init(over: base, backing: backing, hasRegion2: hasRegion2, spareVM: vm)
    }

    /// For tests: less than the kernel has.
    init(
        over base: any Backend, backing: TrapBacking, slotLimit: Int? = nil, hasRegion2: Bool = true,
        spareVM: (any KVMVirtualMachine)? = nil
    ) {
        self.spareVM = Mutex(spareVM)
        self.base = base
        self.backing = backing
        self.slotLimit = slotLimit
        self.hasRegion2 = hasRegion2
        identity = BackendIdentity(
            name: "MemslotTrapKVM", host: "\(base.identity.host), \(backing.rawValue)", kind: .adapter)
    }

    /// As in the kernel below.
    public var runsVCPUsInTurns: Bool { base.runsVCPUsInTurns }
    /// True: the kernel below has emulated the write as MMIO.
    public var retiresFaultingWrites: Bool { true }
    /// Nanoseconds on the clock of the kernel below.
    public func now() -> UInt64 { base.now() }
    /// Waits on the clock of the kernel below.
    public func sleep(for duration: Duration) { base.sleep(for: duration) }
    /// The table of the kernel below.
    ///
    /// - Throws: what the kernel below throws: `E2BIG` or `ENOMEM` on Linux.
    public func supportedCPUID() throws(Errno) -> CPUIDTable { try base.supportedCPUID() }

    /// For capabilities of guest_memfd and memory attributes the answer of a kernel that converts in place,
    /// for all others that of the kernel below. ``Capability/vmTypes`` has the software-protected VM in
    /// addition.
    ///
    /// - Throws: the errno of the ioctl below. An unknown capability is no error.
    public func checkExtension(_ capability: Capability) throws(Errno) -> Int {
        if capability == .vmTypes {
            return try base.checkExtension(capability) | 1 << Int(VMType.softwareProtected.rawValue)
        }
        if let answer = capability.inPlaceAnswer { return answer }
        return try base.checkExtension(capability)
    }

    /// A default VM is the kernel's own; a software-protected one is a default VM below, whose memslots
    /// follow its pages.
    ///
    /// - Throws: `EINVAL` for a shared bit on a default VM, below bit 13, or beyond the CPU's physical
    ///   addresses; otherwise what the kernel below throws.
    public func createVM(_ type: VMType, sharedBit: Int?) throws(Errno) -> any KVMVirtualMachine {
        guard type == .softwareProtected else { return try base.createVM(type, sharedBit: sharedBit) }
        var sharedMask: UInt64?
        if let sharedBit { sharedMask = try base.sharedMask(bit: sharedBit) }
        return try TrapVM(
            over: vmBelow(), backing: backing, slotLimit: slotLimit, hasRegion2: hasRegion2,
            sharedMask: sharedMask)
    }

    private func vmBelow() throws(Errno) -> any KVMVirtualMachine {
        let spare = spareVM.withLock { spare in
            defer { spare = nil }
            return spare
        }
        if let spare { return spare }
        return try base.createVM(.default, sharedBit: nil)
    }
}

/// What guest RAM is made of.
enum TrapBacking: String {
    case guestMemfd = "guest_memfd"
    case memfd

    /// A guest_memfd where the kernel lets the host map one on a default VM, found out by doing it: a number in
    /// a capability proves nothing.
    ///
    /// - Returns: the VM as well, on which nothing is left of that.
    static func best(on base: any Backend) -> (TrapBacking, (any KVMVirtualMachine)?) {
        guard let vm = try? base.createVM(.default, sharedBit: nil) else { return (.memfd, nil) }
        do throws(Errno) {
            let file = try vm.createGuestMemfd(size: pageSize, flags: [.mmap, .initShared])
            let view = try file.map(offset: 0, length: pageSize)
            var probe: UInt64 = 0
            let count = unsafe try withUnsafeMutableBytes(of: &probe) { bytes throws(Errno) in
                unsafe try view.read(at: 0, into: bytes)
            }
            return (count == 8 ? .guestMemfd : .memfd, vm)
        } catch {
            return (.memfd, vm)
        }
    }

    func create(on vm: any KVMVirtualMachine, size: UInt64) throws(Errno) -> any KVMGuestMemfd {
        switch self {
        case .guestMemfd: try vm.createGuestMemfd(size: size, flags: [.mmap, .initShared])
        case .memfd: try Memfd(size: size)
        }
    }
}
