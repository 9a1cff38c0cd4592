// SPDX-License-Identifier: MIT
import CKVMShim
import Synchronization
public import SystemPackage

/// The in-place interface on a kernel without memory attributes.
///
/// It presents a software-protected VM with a shared bit, on top of a default VM of the base backend. Guest RAM is one
/// real file. Which page a guest can reach through which alias depends on *which memslots exist*: a private page has
/// one at its address, a shared page has one at its address with the shared bit. An access through the wrong alias
/// finds no slot, so the kernel turns it into MMIO; the adapter presents that as `KVM_EXIT_MEMORY_FAULT` and finishes
/// the interrupted access on the next run. On the host side, page protection on the mappings that are handed out makes
/// a system call on a private page a real `EFAULT`.
///
/// Because MMIO is not a fault, it differs from a kernel that has the ioctl:
/// * At a *write* fault RIP is already past the instruction, which the kernel has retired. The access
///   is finished no matter what the caller does to the registers meanwhile.
/// * A finished access is a copy and not atomic. A locked read-modify-write through the wrong alias becomes a read
///   and a write, and another vCPU may access the memory between them.
/// * A code page behind the wrong alias is found by walking the guest's page tables after the kernel gave up
///   (`KVM_EXIT_INTERNAL_ERROR`), and a page-table page after the guest has shut down. The instruction is then
///   executed again. The walk supports 4 and 5 levels in long mode, and no paging. For a page-table page, a guest with
///   its own IDT sees a #PF instead; with the monitor's handlers (``Machine``) the access is executed again. An access through the
///   wrong alias by an instruction that KVM cannot emulate (AVX) stays an internal error.
/// * The base backend counts no references for the adapter: a page is in use only while a
///   ``HostMapping/hold(at:length:)`` of this adapter holds it. Other pins are not detected. A failed conversion does
///   not unmap the host's pages.
public final class MemslotTrapKVM: Backend {
    /// `MemslotTrapKVM`, an adapter. `host` also says whether guest RAM is a guest_memfd or a memfd.
    public let identity: BackendIdentity
    private let base: any Backend
    private let backing: TrapBacking
    /// Memslots that the adapter may use; nil uses as many as the base backend has.
    private let slotLimit: Int?
    /// The kernel has `KVM_SET_USER_MEMORY_REGION2` (6.8).
    private let hasRegion2: Bool
    /// The VM on which the backing was tried. It becomes the first VM, since creating one is slow.
    private let spareVM: Mutex<(any KVMVirtualMachine)?>

    /// Creates a VM of `base` to find out whether the host can map a guest_memfd of a default VM; if not, guest
    /// RAM is a memfd. The first ``createVM(_:sharedBit:)`` uses that VM.
    public convenience init(over base: any Backend) {
        let hasRegion2 = (try? base.checkExtension(.userMemory2)) ?? 0 > 0
        let (backing, vm) = TrapBacking.best(on: base)
        self.init(over: base, backing: backing, hasRegion2: hasRegion2, spareVM: vm)
    }

    /// For tests: limits the number of memslots.
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

    /// Same as the base backend.
    public var runsVCPUsInTurns: Bool { base.runsVCPUsInTurns }
    /// True: the kernel has emulated the write as MMIO.
    public var retiresFaultingWrites: Bool { true }
    /// Nanoseconds on the base backend's clock.
    public func now() -> UInt64 { base.now() }
    /// Waits on the base backend's clock.
    public func sleep(for duration: Duration) { base.sleep(for: duration) }
    /// The base backend's table.
    ///
    /// - Throws: what the base backend throws: `E2BIG` or `ENOMEM` on Linux.
    public func supportedCPUID() throws(Errno) -> CPUIDTable { try base.supportedCPUID() }

    /// For capabilities of guest_memfd and memory attributes, the answer of a kernel that converts in place;
    /// for all others, the base backend's answer. `Capability` includes the software-protected VM
    /// in addition.
    ///
    /// - Throws: the errno of the base backend. An unknown capability is not an error.
    public func checkExtension(_ capability: Capability) throws(Errno) -> Int {
        if capability == .vmTypes {
            return try base.checkExtension(capability) | 1 << Int(VMType.softwareProtected.rawValue)
        }
        if let answer = capability.inPlaceAnswer { return answer }
        return try base.checkExtension(capability)
    }

    /// A default VM is the base backend's own. A software-protected VM is a default VM whose memslots
    /// follow the page states.
    ///
    /// - Throws: `EINVAL` for a shared bit on a default VM, below bit 13, or beyond the CPU's physical
    ///   addresses; otherwise what the base backend throws.
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

/// The kind of file that guest RAM is in.
enum TrapBacking: String {
    case guestMemfd = "guest_memfd"
    case memfd

    /// A guest_memfd where the host can map one on a default VM, otherwise a memfd. This is tried out, because a
    /// capability's number proves nothing.
    ///
    /// - Returns: also the VM, on which the trial leaves nothing behind.
    static func best(on base: any Backend) -> (TrapBacking, (any KVMVirtualMachine)?) {
        guard let vm = try? base.createVM(.default, sharedBit: nil) else { return (.memfd, nil) }
        do throws(Errno) {
            let file = try vm.createGuestMemfd(size: pageSize, flags: [.mmap, .initShared])
            let mapping = try file.map(offset: 0, length: pageSize)
            var probe: UInt64 = 0
            let count = unsafe try withUnsafeMutableBytes(of: &probe) { bytes throws(Errno) in
                unsafe try mapping.read(at: 0, into: bytes)
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
