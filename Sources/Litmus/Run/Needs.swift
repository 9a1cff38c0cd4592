// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SoftKVM
import SystemPackage

/// Checks on scratch VMs whether a backend has what a test needs.
struct Needs {
    private let backend: any Backend
    private let type: VMType

    init(_ backend: any Backend, _ type: VMType) {
        self.backend = backend
        self.type = type
    }

    /// Why the need is not met; nil if it is met.
    func absence(of need: Need) throws(Stop) -> String? {
        do throws(Errno) {
            switch need {
            case .inPlace: return try inPlace()
            case .preservation where type.isConfidential:
                return "contents do not survive conversions of an SNP or TDX VM"
            case .preservation:
                let promise = try backend.createVM(type, sharedBit: nil).contentPromise
                return promise == .preserved ? nil : "contents do not survive conversions on this kernel"
            // A kernel that converts in place must count references; whether it does is for the tests to find out.
            case .references: return try inPlace() == nil ? nil : references()
            case .nodes(let count):
                let nodes = backend is SoftKVM ? SoftHostMapping.nodeCount : Self.nodeCount()
                return nodes >= count ? nil : "needs nodes \(count): this machine has \(nodes)"
            case .holder(let kind):
                _ = try scratch().view.hold(at: 0, length: pageSize, by: kind)
                return nil
            }
        } catch {
            if error.isHostLimit { throw .host(HostFailure("a scratch VM, for `needs \(need)`", error)) }
            return "needs \(need): \(error.name)"
        }
    }

    /// NUMA nodes with memory; 0 on a kernel without NUMA.
    private static func nodeCount() -> UInt32 {
        // For example `0-1,4`.
        let path = FilePath("/sys/devices/system/node/has_memory")
        guard let file = try? FileDescriptor.open(path, .readOnly, options: .closeOnExec) else { return 0 }
        defer { try? file.close() }
        var bytes = [UInt8](repeating: 0, count: 256)
        let count = unsafe bytes.withUnsafeMutableBytes { unsafe (try? file.read(into: $0)) ?? 0 }
        let text = String(decoding: bytes.prefix(count), as: UTF8.self)
        return text.split { $0 == "," || $0 == "\n" }.reduce(0) { nodes, part in
            let bounds = part.split(separator: "-").compactMap { UInt32($0) }
            guard let first = bounds.first, let last = bounds.last, first <= last, last < 1 << 16 else {
                return nodes
            }
            return nodes + last - first + 1
        }
    }

    /// An adapter answers only for its own VMs. On the kernel below, a call with size 0 on a default VM shows whether
    /// it converts in place.
    private func inPlace() throws(Errno) -> String? {
        guard backend.identity.kind != .adapter else {
            return "needs in-place: \(backend.identity.name) is an adapter"
        }
        let vm = try backend.createVM(.default, sharedBit: nil)
        let file = try vm.createGuestMemfd(size: pageSize, flags: [.mmap, .initShared])
        var request = ckvm_memory_attributes2()
        do throws(Errno) {
            try file.convertInPlace(&request)
            return "needs in-place: size 0 was accepted, so this ioctl number has another meaning here"
        } catch {
            if error.isHostLimit { throw error }
            return error == .invalidArgument
                ? nil : "needs in-place: this kernel does not convert in place (\(error.name))"
        }
    }

    private func references() throws(Errno) -> String? {
        let (file, view) = try scratch()
        let hold = try view.hold(at: 0, length: pageSize)
        defer { hold.release() }
        var request = ckvm_memory_attributes2()
        request.size = pageSize
        request.attributes = Attributes.private
        do throws(Errno) {
            try file.convertInPlace(&request)
            return "needs references: this backend does not count references on pages"
        } catch {
            guard error == .resourceTemporarilyUnavailable else { throw error }
            return nil
        }
    }

    private func scratch() throws(Errno) -> (file: any KVMGuestMemfd, view: any HostMapping) {
        let vm = try backend.createVM(.softwareProtected, sharedBit: nil)
        let file = try vm.createGuestMemfd(size: pageSize, flags: [.mmap, .initShared])
        return (file, try file.map(offset: 0, length: pageSize))
    }
}
