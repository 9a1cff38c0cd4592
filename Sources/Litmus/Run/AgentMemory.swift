// SPDX-License-Identifier: MIT
import CKVMShim
import GuestPayloads
import MiniVMM
import SoftKVM
import SystemPackage

/// The memory of the guest ``LitmusAgent``: its code, its page tables and the orders of its vCPUs, in a guest_memfd and a memslot of
/// their own far above the memory of tests, where no step can reach them.
///
/// Only orders are written after ``init(on:sharedBit:_:)``, each by the thread that runs its vCPU.
final class AgentMemory: Sendable {
    /// Code, three levels of page tables, then the orders. The first GiB is identity-mapped with pages of 2 MiB. With two
    /// aliases, the second GiB maps the shared alias.
    private static let size = orders + pageSize
    /// Offset of the page of orders. It is always shared, so that the monitor can write it.
    private static let orders = 5 * pageSize
    /// Bytes from one order to the next.
    private static let stride = MemoryLayout<LitmusAgent.OrderWords>.stride
    /// The distance from a guest-virtual address to that of the same byte in the shared alias.
    static let sharedAlias: UInt64 = 1 << 30
    /// Guest-physical. Tests use the addresses below.
    static let start = GuestReach.end
    private static let slot: UInt32 = 400
    /// The largest number of its pages in the second-stage tables.
    static let pages = size / pageSize

    private let vm: any KVMVirtualMachine
    private let file: any KVMGuestMemfd
    private let view: any HostMapping
    private let region: ckvm_userspace_memory_region2
    /// Guest-physical, for CR3.
    let tables: UInt64
    /// Guest-virtual address of the orders.
    private let linearOrders: UInt64

    /// - Parameter sharedBit: the shared bit of a VM with two aliases, whose guest pages are private.
    init(on vm: any KVMVirtualMachine, sharedBit: Int?, _ facts: BackendFacts) throws(Errno) {
        self.vm = vm
        let (file, isPlain) = try Self.file(on: vm, facts.backend)
        self.file = file
        view = try file.map(offset: 0, length: Self.size)
        let code = LitmusAgent.image
        guard !code.isEmpty, code.count <= Int(pageSize) else { throw .execFormatError }
        try Self.write(code, at: 0, view)
        let alias = sharedBit.map { UInt64(1) << UInt64($0) } ?? 0
        // Private like the rest of such a guest, if its bytes survive the conversion. Otherwise it stays shared and
        // is reached through the shared alias: to emulate an access without a memslot KVM has to read the code, and
        // it cannot read a private page. With few attribute runs (`kernel runs`) this conversion would fail, too.
        let hasMemory = facts.soft.map { $0.configuration.maximumAttributeRuns > 2 } ?? true
        let isPrivate = sharedBit != nil && vm.contentPromise.canPreserve && !facts.isLinux && hasMemory
        let ownAlias = isPrivate ? 0 : alias
        tables = (Self.start + pageSize) | ownAlias
        linearOrders = Self.start + Self.orders + (sharedBit == nil ? 0 : Self.sharedAlias)
        try Self.write([tables + pageSize | 3].littleEndianBytes, at: pageSize, view)
        let directories = [tables + 2 * pageSize | 3, tables + 3 * pageSize | 3]
        try Self.write(directories.littleEndianBytes, at: 2 * pageSize, view)
        // Present, writable, large page.
        let ownPage = Self.start >> 21
        let low = (0..<512).map { page in page << 21 | 0x83 | (page == ownPage ? ownAlias : 0) }
        try Self.write(low.littleEndianBytes, at: 3 * pageSize, view)
        let high = (0..<512).map { page in page << 21 | alias | 0x83 }
        try Self.write(high.littleEndianBytes, at: 4 * pageSize, view)
        if isPrivate {
            var request = ckvm_memory_attributes2()
            request.size = Self.orders
            request.attributes = Attributes.private
            request.flags = vm.contentPromise.toPrivate == .byFlag ? ContentMode.preserve.rawValue : 0
            try file.convertInPlace(&request)
        }
        var region = ckvm_userspace_memory_region2()
        region.slot = Self.slot
        region.guest_phys_addr = Self.start
        region.memory_size = Self.size
        region.userspace_addr = view.address
        if !isPlain {
            region.flags = Binding.guestMemfd
            region.guest_memfd = UInt32(bitPattern: file.descriptor)
        }
        self.region = region
        try vm.setUserMemoryRegion2(region)
    }

    /// A file that the host can write, and whether its memslot must be a plain mapping. A VM with private memory that
    /// does not convert in place cannot create a file with shared pages, so the mapping of a default VM's file is used.
    private static func file(
        on vm: any KVMVirtualMachine, _ backend: any Backend
    ) throws(Errno) -> (any KVMGuestMemfd, isPlain: Bool) {
        let flags: GuestMemfdFlags = [.mmap, .initShared]
        do throws(Errno) {
            return (try vm.createGuestMemfd(size: size, flags: flags), isPlain: false)
        } catch {
            guard error == .invalidArgument else { throw error }
            let other = try backend.createVM(.default, sharedBit: nil)
            return (try other.createGuestMemfd(size: size, flags: flags), isPlain: true)
        }
    }

    func deleteSlot() throws(Errno) {
        var region = ckvm_userspace_memory_region2()
        region.slot = Self.slot
        region.flags = self.region.flags
        try vm.setUserMemoryRegion2(region)
    }

    /// Removes the pages from the second-stage tables by recreating the memslot. No vCPU may be running.
    func unmapPages() throws(Errno) {
        try deleteSlot()
        try vm.setUserMemoryRegion2(region)
    }

    // MARK: orders

    /// The order of a vCPU. Valid as long as this object exists.
    ///
    /// - Throws: `EINVAL` for a number that has no place in the page.
    func order(of number: Int) throws(Errno) -> UnsafeMutablePointer<LitmusAgent.OrderWords> {
        let address = UInt(view.address + Self.orders) + UInt(number * Self.stride)
        guard number < Int(pageSize) / Self.stride,
            let order = unsafe UnsafeMutablePointer<LitmusAgent.OrderWords>(bitPattern: address)
        else { throw .invalidArgument }
        return unsafe order
    }

    /// The address at which the guest reads it.
    func linearOrder(of number: Int) -> UInt64 { linearOrders + UInt64(number * Self.stride) }

    // MARK: bytes

    private static func write(_ bytes: [UInt8], at offset: UInt64, _ view: any HostMapping) throws(Errno) {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 8)
        defer { unsafe buffer.deallocate() }
        unsafe buffer.copyBytes(from: bytes)
        let count = unsafe try view.write(at: offset, from: UnsafeRawBufferPointer(buffer))
        guard count == bytes.count else { throw .badAddress }
    }
}
