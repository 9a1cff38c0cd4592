import CKVMShim
import CUnicornShim
import MiniVMM

/// A vCPU's engine and what it can reach: its regions are this vCPU's TLB.
///
/// Used under the model's lock.
@safe final class Engine {
    /// Linear addresses that the engine reaches, and what they are.
    struct Region {
        let linear: PageRange
        let slot: Memslot
        /// Guest-physical address of its start, without the shared bit.
        let gpa: UInt64

        /// The offset in the slot that a linear address of the region stands for.
        func offset(of address: UInt64) -> UInt64 { gpa + (address - linear.start) - slot.range.start }
        /// The region's linear addresses that are in these guest-physical pages.
        func linear(of gpas: PageRange) -> PageRange? {
            PageRange(start: gpa, size: linear.size)?.intersection(gpas)?.offset(from: gpa)?
                .advanced(by: linear.start)
        }
    }

    let cpu: OpaquePointer
    private var regions: [Region] = []
    /// Pages that code was translated from: their linear addresses, by guest-physical address.
    private var codePages: [UInt64: Set<UInt64>] = [:]
    private let touches: UnsafeMutablePointer<cuc_touch>

    /// Largest region, bytes. Undoing one costs the engine about 20 µs and 0.1 µs a page (measured, 2.0.1).
    static let largestRegion: UInt64 = 256 << 10
    /// The engine slows down with more; the oldest then goes. Some of the shim's table is left for MMIO.
    private static let maximumRegions = Int(CUC_MAX_REGIONS) - 16

    /// - Parameter immediateExit: looked at before every instruction.
    init?(_ library: EngineLibrary, immediateExit: UnsafePointer<UInt8>) {
        guard let cpu = unsafe cuc_cpu_create(library.pointer, immediateExit) else { return nil }
        unsafe self.cpu = cpu
        unsafe touches = .allocate(capacity: Int(CUC_MAX_TOUCHES))
    }

    deinit {
        unsafe cuc_cpu_destroy(cpu)
        unsafe touches.deallocate()
    }

    var registers: ckvm_regs {
        get {
            var value = ckvm_regs()
            unsafe withUnsafeMutableBytes(of: &value) { bytes in
                if let words = unsafe bytes.bindMemory(to: UInt64.self).baseAddress {
                    unsafe cuc_read_registers(cpu, words)
                }
            }
            return value
        }
        set {
            unsafe withUnsafeBytes(of: newValue) { bytes in
                if let words = unsafe bytes.bindMemory(to: UInt64.self).baseAddress {
                    unsafe cuc_write_registers(cpu, words)
                }
            }
        }
    }

    // MARK: the TLB

    /// Lets the guest reach a run of pages.
    ///
    /// - Returns: false if the engine refuses.
    func map(_ region: Region, writable: Bool, executable: Bool) -> Bool {
        drop { $0.linear.intersection(region.linear) != nil }
        if regions.count >= Self.maximumRegions { remove(at: 0) }
        let host = unsafe region.slot.file.bytes(
            at: region.slot.fileOffset + region.offset(of: region.linear.start))
        guard
            unsafe cuc_map(
                cpu, region.linear.start, region.linear.size, writable, executable, host)
        else { return false }
        regions.append(region)
        return true
    }

    func region(at linear: UInt64) -> Region? { regions.last { $0.linear.contains(linear) } }

    /// Forgets all translations: CR3, INVLPG.
    func flush() { drop { _ in true } }

    func drop(where condition: (Region) -> Bool) {
        for index in regions.indices.reversed() where condition(regions[index]) { remove(at: index) }
    }

    private func remove(at index: Int) {
        let region = regions.remove(at: index)
        if let gpas = PageRange(start: region.gpa, size: region.linear.size) {
            forgetCode(at: gpas) { region.linear.contains($0) }
        }
        unsafe cuc_unmap(cpu, region.linear.start, region.linear.size)
    }

    /// The second stage has lost these guest-physical pages.
    func zap(_ gpas: PageRange, keepingAccess: Bool) {
        if keepingAccess {
            forgetCode(at: gpas)
        } else {
            drop { $0.linear(of: gpas) != nil }
        }
        forgetTouches()
    }

    // MARK: translated code

    /// The bytes of these guest-physical pages have changed behind the engine's back, or are no longer at
    /// these linear addresses.
    func forgetCode(at gpas: PageRange, where condition: (_ linear: UInt64) -> Bool = { _ in true }) {
        if gpas.pageCount == 1 {
            if codePages[gpas.start] != nil { forgetCode(atPage: gpas.start, condition) }
        } else {
            for page in codePages.keys.filter({ gpas.contains($0) }) { forgetCode(atPage: page, condition) }
        }
    }

    private func forgetCode(atPage gpa: UInt64, _ condition: (_ linear: UInt64) -> Bool) {
        let (stale, current) = (codePages[gpa] ?? []).split(by: condition)
        if stale.isEmpty { return }
        codePages[gpa] = current.isEmpty ? nil : current
        for linear in stale { unsafe cuc_forget_code(cpu, linear, pageSize) }
        // The next fetch from there is to be noted again.
        forgetTouches()
    }

    // MARK: touched pages

    /// From now on every page counts as not yet touched.
    func forgetTouches() { unsafe cuc_forget_touches(cpu) }

    /// Pages that were touched for the first time since.
    func takeTouches(_ body: (_ slot: Memslot, _ offset: UInt64, _ isWrite: Bool) -> Void) {
        let count = unsafe cuc_take_touches(cpu, touches)
        for index in 0..<Int(count) {
            let touch = unsafe touches[index]
            guard let region = region(at: touch.address) else { continue }
            let offset = region.offset(of: touch.address)
            if touch.kind == UInt32(CUC_TOUCH_FETCH) {
                codePages[region.slot.range.start + offset, default: []].insert(touch.address)
            }
            body(region.slot, offset, touch.kind == UInt32(CUC_TOUCH_WRITE))
        }
    }
}

extension Set {
    /// The elements for which the condition holds, and the others.
    fileprivate func split(by condition: (Element) -> Bool) -> (Set, Set) {
        let matching = filter(condition)
        return (matching, subtracting(matching))
    }
}
