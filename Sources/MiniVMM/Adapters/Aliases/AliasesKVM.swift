// SPDX-License-Identifier: MIT
import CKVMShim
import Synchronization
public import SystemPackage

/// Private and shared aliases on a kernel that supports conversion but whose VMs have no shared bit.
///
/// The kernel's own ioctl converts, with its checks and its errors, and the memslots are changed to match. The alias
/// that does not match a page's attribute is *shut*: its memslot is bound to a guest_memfd that has been closed, so the
/// kernel itself answers an access there with `KVM_EXIT_MEMORY_FAULT`. The instruction has had no effect and is
/// executed again.
///
/// A kernel that cannot create such a slot (before Linux 6.18, unless ``PerVMAttributesKVM`` is in between) refuses the
/// regions of such a VM.
public final class AliasesKVM: Backend {
    /// The identity of the converting backend; `host` adds that there are memslots on top.
    public let identity: BackendIdentity
    private let base: any Backend
    /// Memslots that the adapter may use; nil uses as many as the base backend has.
    private let slotLimit: Int?

    /// Makes no system call. `base` must convert in place, or be an adapter that does.
    public convenience init(over base: any Backend) { self.init(over: base, slotLimit: nil) }

    /// For tests: limits the number of memslots.
    init(over base: any Backend, slotLimit: Int?) {
        self.base = base
        self.slotLimit = slotLimit
        identity = BackendIdentity(
            name: base.identity.name, host: "\(base.identity.host), two aliases by memslots",
            kind: base.identity.kind)
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
    /// The base backend's answer.
    ///
    /// - Returns: 0 for an unknown capability.
    /// - Throws: the errno of the ioctl. An unknown capability is not an error.
    public func checkExtension(_ capability: Capability) throws(Errno) -> Int {
        try base.checkExtension(capability)
    }

    /// Without a shared bit, the base backend's own VM.
    ///
    /// - Throws: `EINVAL` for a shared bit on a default VM, below bit 13, or beyond the CPU's physical
    ///   addresses; otherwise what the base backend throws.
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
final class AliasVM: AdapterVM {
    private let carved: CarvedVM<AliasFile>
    var base: any KVMVirtualMachine { carved.base }

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
                vm.translateFault(in: runPage)
                throw errno
            }
            // The kernel could not emulate an instruction, but memslots have changed since the vCPU entered, so the
            // cause may be gone. Try again.
            guard runPage.exitReason == CKVM_EXIT_INTERNAL_ERROR,
                runPage.internalError.suberror == CKVM_INTERNAL_ERROR_EMULATION,
                vm.gate.closings != closings
            else { return }
        }
    }
}

extension AliasVM: PrivateMemoryAccess {
    private func accessible() throws(Errno) -> any PrivateMemoryAccess {
        guard let base = base as? any PrivateMemoryAccess else { throw .notSupported }
        return base
    }

    func readPrivate(gpa: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(Errno) {
        unsafe try accessible().readPrivate(gpa: gpa, into: buffer)
    }

    func writePrivate(gpa: UInt64, from buffer: UnsafeRawBufferPointer) throws(Errno) {
        unsafe try accessible().writePrivate(gpa: gpa, from: buffer)
    }
}
