// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SoftKVM
import SystemPackage
import Testing

let privateAttribute = CKVM_MEMORY_ATTRIBUTE_PRIVATE

/// An ordinary conversion request.
func request(
    _ offset: UInt64, _ size: UInt64, _ attributes: UInt64 = privateAttribute
) -> ckvm_memory_attributes2 {
    var request = ckvm_memory_attributes2()
    request.offset = offset
    request.size = size
    request.attributes = attributes
    return request
}

/// The errno of a call; nil if it succeeds.
func errno(_ body: () throws(Errno) -> Void) -> Errno? {
    do {
        try body()
        return nil
    } catch {
        return error
    }
}

extension KVMGuestMemfd {
    /// Converts pages and returns the result.
    @discardableResult
    func convert(_ page: UInt64, _ count: UInt64, to state: PageState) -> (errno: Errno?, errorOffset: UInt64)
    {
        var attributes = request(page * pageSize, count * pageSize, state == .private ? privateAttribute : 0)
        attributes.error_offset = 0xdead
        let result = errno { () throws(Errno) in try setMemoryAttributes2(&attributes) }
        return (result, attributes.error_offset)
    }
}

extension HostMapping {
    func bytes(at offset: UInt64, _ count: Int) throws -> [UInt8] {
        var buffer = [UInt8](repeating: 0xee, count: count)
        let got = try buffer.withUnsafeMutableBytes { bytes in try read(at: offset, into: bytes) }
        return Array(buffer.prefix(got))
    }

    @discardableResult
    func put(_ bytes: [UInt8], at offset: UInt64) throws -> Int {
        try bytes.withUnsafeBytes { try write(at: offset, from: $0) }
    }

    func word(at offset: UInt64) throws -> UInt64 {
        try bytes(at: offset, 8).reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    func put(word: UInt64, at offset: UInt64) throws {
        try put((0..<8).map { UInt8(truncatingIfNeeded: word >> ($0 * 8)) }, at: offset)
    }
}

/// A VM with one file of `pages` pages, and a mapping of the whole file.
struct ModelVM {
    let kvm: SoftKVM
    let vm: SoftVM
    let file: SoftGuestMemfd
    let mapping: any HostMapping

    init(
        pages: UInt64 = 16, flags: GuestMemfdFlags = [.mmap, .initShared], type: VMType = .softwareProtected,
        sharedBit: Int? = nil, _ configuration: SoftKVM.Configuration = .init()
    ) throws {
        kvm = SoftKVM(configuration)
        vm = try #require(kvm.createVM(type, sharedBit: sharedBit) as? SoftVM)
        file = try #require(vm.createGuestMemfd(size: pages * pageSize, flags: flags) as? SoftGuestMemfd)
        mapping = try file.map(offset: 0, length: pages * pageSize)
    }

    func states() -> String {
        (0..<file.size / pageSize).map { page in
            let range = PageRange(start: page * pageSize, size: pageSize)
            return range.map { file.bytes(.private, in: $0) } == pageSize ? "P" : "s"
        }.joined()
    }
}

func slot(
    _ file: any KVMGuestMemfd, id: UInt32 = 0, gpa: UInt64 = 0, size: UInt64? = nil, offset: UInt64 = 0,
    flags: UInt32 = CKVM_MEM_GUEST_MEMFD
) -> ckvm_userspace_memory_region2 {
    var region = ckvm_userspace_memory_region2()
    region.slot = id
    region.flags = flags
    region.guest_phys_addr = gpa
    region.memory_size = size ?? file.size
    region.guest_memfd = UInt32(bitPattern: file.descriptor)
    region.guest_memfd_offset = offset
    return region
}

/// A VM with 4 MiB of RAM at 0 and vCPUs in 64-bit mode, with everything identity mapped by pages of 1 GiB.
struct Guest {
    static let code: UInt64 = 0x10000
    static let stack: UInt64 = 0x80000
    static let tables: UInt64 = 0x1000
    /// Code and data of ring 0, with the selectors 8 and 16.
    static let descriptors: UInt64 = 0x7000
    static let ram: UInt64 = 4 << 20
    static let sharedBit: UInt64 = 1 << 39

    let model: ModelVM
    let vcpus: [SoftVCPU]
    var vcpu: SoftVCPU { vcpus[0] }
    var ram: any HostMapping { model.mapping }

    /// - Parameters:
    /// - isPrivate: whether all RAM is converted to private before the first instruction.
    /// - hasUserspaceAddress: whether the memslot has the host mapping as `userspace_addr`.
    init(
        _ code: [UInt8], type: VMType = .softwareProtected, sharedBit: Int? = nil, isPrivate: Bool = false,
        hasUserspaceAddress: Bool = true, vcpus count: Int = 1,
        _ configuration: SoftKVM.Configuration = .init()
    ) throws {
        let model = try ModelVM(pages: Self.ram / pageSize, type: type, sharedBit: sharedBit, configuration)
        // KVM's own accesses go through the host mapping.
        var region = slot(model.file)
        if hasUserspaceAddress { region.userspace_addr = model.mapping.address }
        try model.vm.setUserMemoryRegion2(region)
        try model.mapping.put(code, at: Self.code)
        try model.mapping.put(word: 0x00af_9b00_0000_ffff, at: Self.descriptors + 8)
        try model.mapping.put(word: 0x00cf_9300_0000_ffff, at: Self.descriptors + 16)
        for half in 0..<UInt64(2) {
            let directory = Self.tables + 0x1000 * (half + 1)
            try model.mapping.put(word: directory | 3, at: Self.tables + half * 8)
            for gigabyte in 0..<UInt64(512) {
                let address = gigabyte << 30 | Self.alias(isShared: half == 1, of: type)
                try model.mapping.put(word: address | 0x83, at: directory + gigabyte * 8)
            }
        }
        if isPrivate { #expect(model.file.convert(0, Self.ram / pageSize, to: .private).errno == nil) }
        self.model = model
        vcpus = try (0..<count).map { id in
            let vcpu = try #require(model.vm.createVCPU(id: id) as? SoftVCPU)
            try vcpu.setCPUID(model.kvm.supportedCPUID())
            try vcpu.setSpecialRegisters(Self.longMode)
            var registers = ckvm_regs()
            registers.rip = Self.code
            registers.rsp = Self.stack
            registers.rdi = UInt64(id)
            registers.rflags = 2
            try vcpu.setRegisters(registers)
            return vcpu
        }
    }

    /// The bits of a page-table entry of the private or the shared alias, which begins at linear address 2^39.
    private static func alias(isShared: Bool, of type: VMType) -> UInt64 {
        switch type {
        case .default, .softwareProtected: isShared ? sharedBit : 0
        case .snp: isShared ? 0 : 1 << 51
        case .tdx: isShared ? 1 << 47 : 0
        }
    }

    static var longMode: ckvm_sregs {
        var special = ckvm_sregs()
        special.cr0 = 0x8000_0033
        special.cr3 = tables
        special.cr4 = 0x620
        special.efer = 0x500
        special.gdt.base = descriptors
        special.gdt.limit = 0x17
        special.cs.selector = 8
        special.cs.l = 1
        special.cs.present = 1
        special.cs.type = 11
        special.ss.present = 1
        return special
    }

    func change(_ body: (inout ckvm_regs) -> Void) throws {
        var registers = try vcpu.registers()
        body(&registers)
        try vcpu.setRegisters(registers)
    }
}

/// Whether the engine is installed. Tests that run a vCPU need it.
let hasEngine = if case .missing = SoftKVM().engineStatus { false } else { true }
