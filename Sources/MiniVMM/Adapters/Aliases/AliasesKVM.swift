// SPDX-License-Identifier: MIT
import CKVMShim
import Synchronization
public import SystemPackage

/// Private and shared aliases on a kernel that converts but whose VMs have no shared bit.
///
/// The kernel's own ioctl converts, with its checks and its errors, and memslots follow. The alias that does not match a
/// page's attribute is *shut*: its memslot is bound to a guest_memfd that has been closed since, and what the kernel
/// says of an access there is its own `KVM_EXIT_MEMORY_FAULT`. The instruction has done nothing and is executed again.
///
/// A kernel that cannot make such a slot (before Linux 6.18, without ``PerVMAttributesKVM`` between) refuses the regions
/// of such a VM.
public final class AliasesKVM: Backend {
    /// The kernel's that converts; the host says that there are memslots above it.
    public let identity: BackendIdentity
    private let base: any Backend
    /// Memslots that carving may use; nil takes what the kernel has.
    private let slotLimit: Int?

    /// Makes no call. `base` must convert in place, or be an adapter that does.
    public convenience init(over base: any Backend) { self.init(over: base, slotLimit: nil) }

    /// For tests: less than the kernel has.
    init(over base: any Backend, slotLimit: Int?) {
        self.base = base
        self.slotLimit = slotLimit
        identity = BackendIdentity(
            name: base.identity.name, host: "\(base.identity.host), two aliases by memslots",
            kind: base.identity.kind)
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
    /// The answer of the kernel below.
    ///
    /// - Returns: 0 for a capability that it does not know.
    /// - Throws: the errno of the ioctl. An unknown capability is no error.
    public func checkExtension(_ capability: Capability) throws(Errno) -> Int {
        try base.checkExtension(capability)
    }

    /// Without a shared bit the kernel's own VM.
    ///
    /// - Throws: `EINVAL` for a shared bit on a default VM, below bit 13, or beyond the CPU's physical
    ///   addresses; otherwise what the kernel below throws.
    public func createVM(_ type: VMType, sharedBit: Int?) throws(Errno) -> any KVMVirtualMachine {
        guard type == .softwareProtected, let sharedBit else {
            return try base.createVM(type, sharedBit: sharedBit)
        }
        let sharedMask = try base.sharedMask(bit: sharedBit)
        return try AliasVM(
            over: base.createVM(type, sharedBit: nil), slotLimit: slotLimit, sharedMask: sharedMask)
    }
}

/// A VM of ``AliasesKVM``, with a shared bit.
final class AliasVM: KVMVirtualMachine {
    private let carved: CarvedVM<AliasFile>
    private var base: any KVMVirtualMachine { carved.base }

    init(over base: any KVMVirtualMachine, slotLimit: Int?, sharedMask: UInt64) throws(Errno) {
        carved = try CarvedVM(base, slotLimit: slotLimit, hasRegion2: true, sharedMask: sharedMask)
    }

    var contentPromise: ContentPromise { base.contentPromise }

    func checkExtension(_ capability: Capability) throws(Errno) -> Int { try base.checkExtension(capability) }

    func enableCapability(_ capability: Capability, argument: UInt64) throws(Errno) {
        try base.enableCapability(capability, argument: argument)
    }

    func createVCPU(id: Int) throws(Errno) -> any KVMVCPU {
        AliasVCPU(over: try base.createVCPU(id: id), of: carved)
    }

    func createGuestMemfd(size: UInt64, flags: GuestMemfdFlags) throws(Errno) -> any KVMGuestMemfd {
        let bytes = try flags.newFile(size: size)
        let file = AliasFile(
            backing: try base.createGuestMemfd(size: size, flags: flags),
            attributes: AttributeMap(size: bytes.size, initial: flags.initialState))
        carved.memory.withLock { $0.files.append(file) }
        return AliasGuestMemfd(file, of: carved)
    }

    func setUserMemoryRegion2(_ region: ckvm_userspace_memory_region2) throws(Errno) {
        try carved.setUserMemoryRegion2(region)
    }
}

/// A vCPU of ``AliasesKVM``.
final class AliasVCPU: AdapterVCPU {
    private let gated: GatedVCPU
    private let vm: CarvedVM<AliasFile>

    init(over base: any KVMVCPU, of vm: CarvedVM<AliasFile>) {
        gated = GatedVCPU(base, behind: vm.gate)
        self.vm = vm
        runPage = base.runPage
    }

    var base: any KVMVCPU { gated.base }
    let runPage: RunPage
    func kick() { gated.kick() }

    func run() throws(Errno) {
        while true {
            let (errno, closings) = gated.run()
            if let errno {
                vm.nameAlias(of: runPage)
                throw errno
            }
            // The kernel could not emulate an instruction, and memslots have changed since: what was in the way may be
            // gone.
            guard runPage.exitReason == CKVM_EXIT_INTERNAL_ERROR,
                runPage.internalError.suberror == CKVM_INTERNAL_ERROR_EMULATION,
                vm.gate.closings != closings
            else { return }
        }
    }
}
