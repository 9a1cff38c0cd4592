// SPDX-License-Identifier: MIT
public import CKVMShim

/// The `kvm_run` page of a vCPU, with every access bounds-checked.
///
/// The kernel writes it during `KVM_RUN`; between runs it belongs to the thread that runs the vCPU. The one
/// field that another thread may write, `immediate_exit`, is accessed atomically.
@safe public struct RunPage: @unchecked Sendable {
    /// Valid as long as the vCPU that owns it.
    private let page: UnsafeMutablePointer<ckvm_run>
    /// Bytes of the mapping (`KVM_GET_VCPU_MMAP_SIZE`).
    private let length: Int

    /// - Parameter length: bytes, at least the size of `struct kvm_run`.
    public init(_ page: UnsafeMutablePointer<ckvm_run>, length: Int) {
        precondition(length >= MemoryLayout<ckvm_run>.size, "a kvm_run page holds struct kvm_run")
        unsafe self.page = page
        self.length = length
    }

    /// `kvm_run.exit_reason`: a `KVM_EXIT_*`.
    public var exitReason: UInt32 {
        get { unsafe page.pointee.exit_reason }
        nonmutating set { unsafe page.pointee.exit_reason = newValue }
    }
    /// `kvm_run.io`, valid with `KVM_EXIT_IO`. ``withIOData(_:_:)`` gives access to its bytes.
    public var io: ckvm_run_io {
        get { unsafe page.pointee.io }
        nonmutating set { unsafe page.pointee.io = newValue }
    }
    /// `kvm_run.mmio`, valid with `KVM_EXIT_MMIO`. For a read, the guest gets the contents of `data` at the next run.
    public var mmio: ckvm_run_mmio {
        get { unsafe page.pointee.mmio }
        nonmutating set { unsafe page.pointee.mmio = newValue }
    }
    /// `kvm_run.hypercall`, valid with `KVM_EXIT_HYPERCALL`. `ret` becomes the guest's RAX at the next run.
    public var hypercall: ckvm_run_hypercall {
        get { unsafe page.pointee.hypercall }
        nonmutating set { unsafe page.pointee.hypercall = newValue }
    }
    /// `kvm_run.memory_fault`, valid with `KVM_EXIT_MEMORY_FAULT`: address and size in bytes.
    public var memoryFault: ckvm_run_memory_fault {
        get { unsafe page.pointee.memory_fault }
        nonmutating set { unsafe page.pointee.memory_fault = newValue }
    }
    /// `kvm_run.internal`, valid with `KVM_EXIT_INTERNAL_ERROR`.
    public var internalError: ckvm_run_internal {
        get { unsafe page.pointee.internal }
        nonmutating set { unsafe page.pointee.internal = newValue }
    }
    /// `kvm_run.debug.arch`, valid with `KVM_EXIT_DEBUG`.
    public var debug: ckvm_run_debug {
        get { unsafe page.pointee.debug }
        nonmutating set { unsafe page.pointee.debug = newValue }
    }
    /// `kvm_run.system_event.type`, valid with `KVM_EXIT_SYSTEM_EVENT`.
    public var systemEventType: UInt32 { unsafe page.pointee.system_event.type }
    /// `kvm_run.fail_entry.hardware_entry_failure_reason`, valid with `KVM_EXIT_FAIL_ENTRY`.
    public var failEntryReason: UInt64 { unsafe page.pointee.fail_entry.hardware_entry_failure_reason }

    /// `kvm_run.immediate_exit`, loaded atomically: whether the next `KVM_RUN` ends immediately with `EINTR`.
    public var immediateExit: Bool { unsafe ckvm_immediate_exit(page) != 0 }
    /// Stores 1 atomically, from any thread.
    public func setImmediateExit() { unsafe ckvm_set_immediate_exit(page, 1) }
    /// Stores 0 atomically. For the thread that runs the vCPU, after it has seen the `EINTR`.
    public func clearImmediateExit() { unsafe ckvm_set_immediate_exit(page, 0) }

    /// The bytes of a `KVM_EXIT_IO`: `size * count` of them at `data_offset`.
    ///
    /// - Returns: nil if the range is outside the page.
    public func withIOData<R>(_ io: ckvm_run_io, _ body: (UnsafeMutableRawBufferPointer) -> R) -> R? {
        let (count, overflow) = Int(io.size).multipliedReportingOverflow(by: Int(io.count))
        guard !overflow, io.data_offset <= UInt64(length), count <= length - Int(io.data_offset) else {
            return nil
        }
        let start = unsafe UnsafeMutableRawPointer(page) + Int(io.data_offset)
        return unsafe body(UnsafeMutableRawBufferPointer(start: start, count: count))
    }
}
