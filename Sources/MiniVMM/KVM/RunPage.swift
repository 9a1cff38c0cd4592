// SPDX-License-Identifier: MIT
public import CKVMShim

/// The `kvm_run` page of a vCPU, with every access bounds-checked.
///
/// The kernel writes it during `KVM_RUN`; between runs it belongs to the thread that runs the vCPU. The one
/// field that another thread may write, `immediate_exit`, is accessed atomically.
@safe public struct RunPage: @unchecked Sendable {
    /// The memory. Valid as long as the vCPU that owns it.
    private let page: UnsafeMutablePointer<ckvm_run>
    /// Bytes of the mapping (`KVM_GET_VCPU_MMAP_SIZE`).
    private let length: Int

    /// - Parameter length: bytes, at least the size of `struct kvm_run`.
    public init(_ page: UnsafeMutablePointer<ckvm_run>, length: Int) {
        precondition(length >= MemoryLayout<ckvm_run>.size, "a kvm_run page holds struct kvm_run")
        unsafe self.page = page
        self.length = length
    }

    public var exitReason: UInt32 {
        get { unsafe page.pointee.exit_reason }
        nonmutating set { unsafe page.pointee.exit_reason = newValue }
    }
    public var io: ckvm_run_io {
        get { unsafe page.pointee.io }
        nonmutating set { unsafe page.pointee.io = newValue }
    }
    public var mmio: ckvm_run_mmio {
        get { unsafe page.pointee.mmio }
        nonmutating set { unsafe page.pointee.mmio = newValue }
    }
    public var hypercall: ckvm_run_hypercall {
        get { unsafe page.pointee.hypercall }
        nonmutating set { unsafe page.pointee.hypercall = newValue }
    }
    public var memoryFault: ckvm_run_memory_fault {
        get { unsafe page.pointee.memory_fault }
        nonmutating set { unsafe page.pointee.memory_fault = newValue }
    }
    public var internalError: ckvm_run_internal {
        get { unsafe page.pointee.internal }
        nonmutating set { unsafe page.pointee.internal = newValue }
    }
    public var systemEventType: UInt32 { unsafe page.pointee.system_event.type }
    public var failEntryReason: UInt64 { unsafe page.pointee.fail_entry.hardware_entry_failure_reason }

    public var immediateExit: Bool { unsafe ckvm_immediate_exit(page) != 0 }
    public func setImmediateExit() { unsafe ckvm_set_immediate_exit(page, 1) }
    public func clearImmediateExit() { unsafe ckvm_set_immediate_exit(page, 0) }

    /// The bytes of a `KVM_EXIT_IO`: `size * count` of them at `data_offset`.
    ///
    /// - Returns: nil if the kernel names bytes outside the page.
    public func withIOData<R>(_ io: ckvm_run_io, _ body: (UnsafeMutableRawBufferPointer) -> R) -> R? {
        let (count, overflow) = Int(io.size).multipliedReportingOverflow(by: Int(io.count))
        guard !overflow, io.data_offset <= UInt64(length), count <= length - Int(io.data_offset) else {
            return nil
        }
        let start = unsafe UnsafeMutableRawPointer(page) + Int(io.data_offset)
        return unsafe body(UnsafeMutableRawBufferPointer(start: start, count: count))
    }
}
