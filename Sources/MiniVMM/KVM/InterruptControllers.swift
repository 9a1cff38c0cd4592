// SPDX-License-Identifier: MIT
import CKVMShim
public import SystemPackage

/// A VM whose kernel emulates interrupt controllers: the PICs, an I/O APIC, a local APIC for each vCPU, and the timer PIT.
public protocol InterruptControllers: KVMVirtualMachine {
    /// `KVM_CREATE_IRQCHIP` and `KVM_CREATE_PIT2`, before the first vCPU. A vCPU other than the first then waits for INIT and
    /// SIPI, and HLT waits inside the kernel.
    ///
    /// - Throws: `EOPNOTSUPP` or `ENOTTY` if the kernel has none, `EEXIST` the second time, `EINVAL` after the first vCPU,
    ///   `ENOMEM`.
    func createInterruptControllers() throws(Errno)

    /// `KVM_IRQ_LINE`: drives an input of the PICs and of the I/O APIC.
    ///
    /// - Throws: `ENXIO` without controllers.
    func setInterruptLine(_ line: UInt32, _ isHigh: Bool) throws(Errno)
}

extension LinuxVM: InterruptControllers {
    /// Both calls.
    ///
    /// - Throws: `EEXIST` the second time, `EINVAL` after the first vCPU, `ENOMEM`.
    public func createInterruptControllers() throws(Errno) {
        try ioctl(vm, CKVM_CREATE_IRQCHIP)
        var pit = ckvm_pit_config()
        try ioctl(vm, CKVM_CREATE_PIT2, &pit)
    }

    /// `KVM_IRQ_LINE`.
    ///
    /// - Throws: `ENXIO` without controllers.
    public func setInterruptLine(_ line: UInt32, _ isHigh: Bool) throws(Errno) {
        var level = ckvm_irq_level(irq: line, level: isHigh ? 1 : 0)
        try ioctl(vm, CKVM_IRQ_LINE, &level)
    }
}

/// A VM of an adapter: its controllers are those of the base backend.
protocol AdapterVM: InterruptControllers {
    var base: any KVMVirtualMachine { get }
}

extension AdapterVM {
    private func controllers() throws(Errno) -> any InterruptControllers {
        guard let controllers = base as? any InterruptControllers else { throw .notSupported }
        return controllers
    }
    func createInterruptControllers() throws(Errno) { try controllers().createInterruptControllers() }
    func setInterruptLine(_ line: UInt32, _ isHigh: Bool) throws(Errno) {
        try controllers().setInterruptLine(line, isHigh)
    }
}
