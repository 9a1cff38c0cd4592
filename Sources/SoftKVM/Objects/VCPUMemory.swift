// SPDX-License-Identifier: MIT
public import CKVMShim
public import MiniVMM
public import SystemPackage

extension SoftVCPU: ExaminableVCPU {
    /// `KVM_PRE_FAULT_MEMORY`. Pre-faults pages up to the first that fails, and advances `gpa` and `size` past
    /// them.
    ///
    /// - Throws: only if the first page fails: `ENOENT` without a memslot, `EAGAIN` while its slot is being
    ///   deleted, `EFAULT` or `EHWPOISON` for an inaccessible page. `EINVAL` for a range that is not whole pages,
    ///   or a word that must be 0.
    public func preFault(_ request: inout ckvm_pre_fault_memory) throws(Errno) {
        var (gpa, left) = (request.gpa, request.size)
        let padding = request.padding
        let isZero = request.flags | padding.0 | padding.1 | padding.2 | padding.3 | padding.4 == 0
        guard isZero, let range = PageRange(start: gpa, size: left) else { throw .invalidArgument }
        let failure = vm.model.call { () -> Errno? in
            for page in range.chunks(of: pageSize) {
                let isPrivate = vm.model.kernel.isFaultedAsPrivate(vm.number, at: page.start)
                if let failure = vm.model.kernel.preFaultPage(vm.number, at: page.start, asPrivate: isPrivate)
                {
                    return Errno(failure)
                }
                gpa = page.end
                left -= pageSize
            }
            return nil
        }
        // Partial progress is a success.
        if let failure, left == request.size { throw failure }
        (request.gpa, request.size) = (gpa, left)
    }

    /// Writes `MSR_KVM_SYSTEM_TIME_NEW`. The next ``run()`` writes the structure of 32 bytes if the host mapping
    /// has the page.
    ///
    /// - Throws: nothing.
    public func setClock(at gpa: UInt64) throws(Errno) { vm.model.call { clock = (gpa, isDue: true) } }

    /// Writes KVM's clock structure at the first guest entry after the MSR was written. The write goes through
    /// `userspace_addr` and needs the page in the host mapping. A failure is not reported (hazard A28).
    func writeClock() {
        guard let (gpa, isDue) = clock, isDue else { return }
        clock = (gpa, isDue: false)
        let structure: UInt64 = 32
        guard let (file, offset) = vm.model.kernel.reachForKVM(vm.number, at: gpa, size: structure),
            let bytes = unsafe vm.model.memory(of: file)?.bytes(at: offset)
        else { return }
        // struct pvclock_vcpu_time_info: an even version, then the time.
        let version = unsafe (bytes.loadUnaligned(as: UInt32.self) | 1) &+ 1
        unsafe bytes.storeBytes(of: version, as: UInt32.self)
        unsafe bytes.storeBytes(of: vm.model.clock, toByteOffset: 16, as: UInt64.self)
    }
}
