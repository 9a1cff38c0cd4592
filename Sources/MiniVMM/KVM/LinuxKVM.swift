// SPDX-License-Identifier: MIT
import CKVMShim
import Glibc
public import SystemPackage

/// The running kernel, through /dev/kvm. Emulates nothing.
public final class LinuxKVM: Backend {
    /// `LinuxKVM`, with the running kernel as host (``runningKernel()``).
    public let identity: BackendIdentity
    /// False: every vCPU has a thread of its own.
    public let runsVCPUsInTurns = false
    private let system: OwnedDescriptor
    private let runPageLength: Int

    /// Opens the device and checks that it implements KVM's stable API.
    ///
    /// - Throws: ``KVMUnavailable`` if the device cannot be opened, is not KVM, has another API version than
    ///   12, or reports an impossible size of the `kvm_run` page.
    public init(device: FilePath = "/dev/kvm") throws(KVMUnavailable) {
        let opened: FileDescriptor
        do {
            opened = try FileDescriptor.open(device, .readWrite, options: .closeOnExec)
        } catch {
            throw KVMUnavailable(device: device, errno: (error as? Errno) ?? .ioError, reason: .open)
        }
        system = OwnedDescriptor(owning: opened.rawValue)
        do {
            let version = try ioctl(system, CKVM_GET_API_VERSION)
            guard version == 12 else {
                throw KVMUnavailable(device: device, errno: .notSupported, reason: .apiVersion(version))
            }
            runPageLength = try ioctl(system, CKVM_GET_VCPU_MMAP_SIZE)
            _ = try value(ckvm_install_kick_handler())
        } catch let error as KVMUnavailable {
            throw error
        } catch {
            throw KVMUnavailable(device: device, errno: (error as? Errno) ?? .ioError, reason: .notKVM)
        }
        guard runPageLength >= MemoryLayout<ckvm_run>.size, runPageLength <= 1 << 20 else {
            throw KVMUnavailable(
                device: device, errno: .invalidArgument, reason: .runPageLength(runPageLength))
        }
        identity = BackendIdentity(name: "LinuxKVM", host: LinuxKVM.runningKernel(), kind: .linux)
    }

    /// `Linux` and its release, from uname(2).
    public static func runningKernel() -> String {
        var name = utsname()
        guard unsafe uname(&name) == 0 else { return "Linux" }
        let release = unsafe withUnsafeBytes(of: &name.release) { bytes in
            unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
        return "Linux \(release)"
    }

    /// `KVM_CHECK_EXTENSION` on the system descriptor.
    ///
    /// - Returns: 0 for an unknown capability.
    /// - Throws: the errno of the ioctl. An unknown capability is not an error.
    public func checkExtension(_ capability: Capability) throws(Errno) -> Int {
        try ioctl(system, CKVM_CHECK_EXTENSION, value: UInt(capability.rawValue))
    }

    /// `KVM_GET_SUPPORTED_CPUID`.
    ///
    /// - Throws: `E2BIG` if the kernel has more than 256 entries, `ENOMEM`.
    public func supportedCPUID() throws(Errno) -> CPUIDTable {
        var table = ckvm_cpuid2()
        table.nent = UInt32(CKVM_CPUID_MAX_ENTRIES)
        try ioctl(system, CKVM_GET_SUPPORTED_CPUID, &table)
        let count = min(Int(table.nent), Int(CKVM_CPUID_MAX_ENTRIES))
        return CPUIDTable(
            entries: unsafe withUnsafeBytes(of: &table.entries) { bytes in
                unsafe Array(bytes.bindMemory(to: ckvm_cpuid_entry2.self).prefix(count))
            })
    }

    /// `KVM_CREATE_VM`. On a software-protected VM it also creates and closes a guest_memfd of one page, to
    /// find out what the kernel promises about contents.
    ///
    /// - Throws: `EINVAL` for a shared bit, which only a TDX VM has, and for a type that the kernel does not
    ///   support; `EMFILE`, `ENFILE` or `ENOMEM` if the host has no descriptor or memory left.
    public func createVM(_ type: VMType, sharedBit: Int?) throws(Errno) -> any KVMVirtualMachine {
        // Only a TDX VM has a shared bit.
        guard sharedBit == nil else { throw .invalidArgument }
        return try LinuxVM(system: system, type: type, runPageLength: runPageLength)
    }

    /// `CLOCK_MONOTONIC`, nanoseconds.
    public func now() -> UInt64 { monotonicNanoseconds() }

    /// `clock_nanosleep` on `CLOCK_MONOTONIC`. A signal does not shorten it.
    public func sleep(for duration: Duration) {
        let end = now().addingReportingOverflow(duration.wholeNanoseconds)
        let until = min(end.overflow ? .max : end.partialValue, UInt64(Int64.max))
        var deadline = timespec(tv_sec: Int(until / 1_000_000_000), tv_nsec: Int(until % 1_000_000_000))
        while unsafe clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &deadline, nil) == EINTR {}
    }
}

/// Why /dev/kvm cannot be used.
public struct KVMUnavailable: Error, Sendable, CustomStringConvertible {
    /// Which check failed.
    public enum Reason: Sendable, Equatable {
        /// The device could not be opened; `errno` tells why.
        case open
        /// One of the first ioctls failed with `errno`, or the kick signal's handler could not be
        /// installed.
        case notKVM
        /// `KVM_GET_API_VERSION` returned this instead of 12.
        case apiVersion(Int)
        /// `KVM_GET_VCPU_MMAP_SIZE` returned this, in bytes: less than `struct kvm_run`, or more than 1 MiB.
        case runPageLength(Int)
    }
    /// The path of the device.
    public let device: FilePath
    /// The errno of the call that failed; `EOPNOTSUPP` for ``Reason/apiVersion(_:)`` and `EINVAL` for
    /// ``Reason/runPageLength(_:)``.
    public let errno: Errno
    /// Which of the checks in ``LinuxKVM/init(device:)`` failed.
    public let reason: Reason

    /// One line: the path, what is wrong with it, and what to do about a missing device or permission.
    public var description: String {
        switch reason {
        case .open:
            switch errno {
            case .noSuchFileOrDirectory:
                "\(device): no such device: this machine has no KVM, or its module is not loaded"
            case .permissionDenied, .notPermitted:
                "\(device): \(errno): add yourself to the group that owns it (usually kvm), or be root"
            default: "\(device): \(errno)"
            }
        case .notKVM: "\(device): not a KVM device: \(errno) on the first ioctl"
        case .apiVersion(let version):
            "\(device): has KVM API version \(version); only version 12 is supported"
        case .runPageLength(let length):
            "\(device): reports a kvm_run page of \(length) bytes, which is impossible"
        }
    }
}
