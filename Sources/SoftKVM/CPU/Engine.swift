// SPDX-License-Identifier: MIT
import CKVMShim
import CUnicornShim
import MiniVMM
import SystemPackage

/// The engine of a vCPU and the regions mapped into it, which act as the vCPU's TLB. The engine runs in a process
/// of its own, which starts with this object and ends with it.
///
/// Guarded by the model's lock.
@safe final class Engine {
    /// A range of linear addresses that is mapped into the engine, and its memory.
    struct Region {
        let linear: LinearRange
        /// Guest-physical address of the start, without the shared bit.
        let gpa: UInt64
        let memory: FileMemory
        /// Byte offset of the start in the file.
        let fileOffset: UInt64
        /// Whether ring 3 may access it. Otherwise it was mapped for ring 0, which may do more.
        let isForUser: Bool

        /// The guest-physical address of a linear address in the region.
        func gpa(of address: UInt64) -> UInt64 { gpa + linear.offset(of: address) }
        func contains(gpas: PageRange) -> Bool {
            PageRange(start: gpa, size: linear.size)?.intersection(gpas) != nil
        }
    }

    let cpu: OpaquePointer
    /// Files of guest memory that the process has open, by identity, with their numbers in the process.
    private var files: [ObjectIdentifier: (file: Weak<FileMemory>, number: Int32)] = [:]
    private var regions: [Region] = []
    /// Pages from which code was translated: their linear addresses, by guest-physical address.
    private var codePages: [UInt64: Set<UInt64>] = [:]
    private var hasBreakpoints = false
    private var isUser = false
    /// Whether ring 3 runs while a region is mapped for ring 0 only.
    private(set) var lendsPrivilege = false
    private let touches: UnsafeMutablePointer<cuc_touch>

    /// Largest region, bytes. Unmapping a region takes about 20 µs plus 0.1 µs for each page (measured with Unicorn
    /// 2.0.1).
    static let largestRegion: UInt64 = 256 << 10
    /// The engine slows down with more regions. At this limit the oldest one is unmapped. The rest of the shim's
    /// table is left for MMIO.
    private static let maximumRegions = Int(CUC_MAX_REGIONS) - 16

    /// - Parameter library: file name of the engine's library.
    init(_ library: String) throws(CPUFailure) {
        var failure = cuc_failure()
        guard let cpu = unsafe cuc_cpu_create(library, &failure) else {
            throw CPUFailure(.notLaunched(Errno(rawValue: failure.number)), rip: 0, code: [])
        }
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

    /// Executes at most `limit` instructions from the RIP of ``registers``.
    ///
    /// - Parameter immediateExit: a nonzero value ends the run before the next instruction, within milliseconds.
    func run(limit: UInt64, immediateExit: UnsafePointer<UInt8>) -> (stop: cuc_stop, executed: UInt64) {
        let stop = unsafe cuc_run(cpu, limit, immediateExit)
        return unsafe (stop, cuc_executed(cpu))
    }

    /// The vector of an exception that ended the run.
    var exception: UInt32 { unsafe cuc_exception(cpu) }

    /// The breakpoints that ended the run, one bit each.
    func breakpointHits(after stop: cuc_stop) -> UInt32 {
        stop == CUC_STOP_BREAKPOINT ? unsafe cuc_breakpoint_hits(cpu) : 0
    }

    /// Sets the breakpoints of the following runs: at most ``CUC_MAX_BREAKPOINTS``.
    func set(_ breakpoints: [cuc_breakpoint]) {
        guard hasBreakpoints || !breakpoints.isEmpty else { return }
        hasBreakpoints = !breakpoints.isEmpty
        var all = breakpoints
        while all.count < Int(CUC_MAX_BREAKPOINTS) { all.append(cuc_breakpoint()) }
        unsafe all.withUnsafeBufferPointer { buffer in
            if let start = buffer.baseAddress { unsafe cuc_set_breakpoints(cpu, start) }
        }
    }

    /// Why the process, or the engine in it, has failed; nil if it has not.
    var failure: CPUFailure? { unsafe CPUFailure(cuc_failure(cpu)) }
    /// Identifier of the process that the engine runs in.
    var process: Int32 { unsafe cuc_process(cpu) }

    /// Sets 64-bit code and data segments, whatever segments the guest has loaded.
    func resetSegments() { unsafe cuc_reset_segments(cpu) }

    // MARK: the TLB

    /// Maps a region, so that the guest can access it.
    ///
    /// - Returns: false if the process is gone.
    func map(_ region: Region, writable: Bool, executable: Bool) -> Bool {
        drop { $0.linear.overlaps(region.linear) }
        if regions.count >= Self.maximumRegions { remove(at: 0) }
        guard let file = number(of: region.memory) else { return false }
        unsafe cuc_map(
            cpu, region.linear.start, region.linear.size, writable, executable, file, region.fileOffset)
        regions.append(region)
        lendsPrivilege = lendsPrivilege || isUser && !region.isForUser
        return true
    }

    /// Drops what ring 3 may not access when it begins to run.
    func enter(ring: Int) {
        let wasUser = isUser
        isUser = ring == 3
        if isUser, !wasUser { reclaimPrivilege() }
    }

    /// Drops the regions for ring 0.
    func reclaimPrivilege() {
        drop { !$0.isForUser }
        lendsPrivilege = false
    }

    /// The number of a file in the process. The first call for a file opens it there.
    ///
    /// - Returns: nil if the process is gone.
    private func number(of file: FileMemory) -> Int32? {
        if let known = files[ObjectIdentifier(file)], known.file.object === file { return known.number }
        if files.count == Int(CUC_MAX_FILES) || files.values.contains(where: { $0.file.object == nil }) {
            flush()
            unsafe cuc_close_files(cpu)
            files = [:]
        }
        let number = unsafe cuc_open_file(cpu, file.descriptor, file.size)
        guard number >= 0 else { return nil }
        files[ObjectIdentifier(file)] = (Weak(file), number)
        return number
    }

    func region(at linear: UInt64) -> Region? { regions.last { $0.linear.contains(linear) } }

    /// Drops all translations, as for CR3 and INVLPG.
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

    /// These guest-physical pages were removed from the second-stage tables.
    func zap(_ gpas: PageRange, keepingAccess: Bool) {
        if keepingAccess {
            forgetCode(at: gpas)
        } else {
            drop { $0.contains(gpas: gpas) }
        }
        forgetTouches()
    }

    // MARK: translated code

    /// Drops translated code of these guest-physical pages: their bytes were changed from outside, or they are no
    /// longer at these linear addresses.
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
        // The next fetch from there must be recorded again.
        forgetTouches()
    }

    // MARK: accessed pages

    /// Marks every page as not accessed.
    func forgetTouches() { unsafe cuc_forget_touches(cpu) }

    /// Calls `body` for the pages that were accessed for the first time since ``forgetTouches()``.
    func takeTouches(_ body: (_ gpa: UInt64, _ isWrite: Bool) -> Void) {
        let count = unsafe cuc_take_touches(cpu, touches)
        for index in 0..<Int(count) {
            let touch = unsafe touches[index]
            guard let region = region(at: touch.address) else { continue }
            let gpa = region.gpa(of: touch.address)
            if touch.kind == UInt32(CUC_TOUCH_FETCH) { codePages[gpa, default: []].insert(touch.address) }
            body(gpa, touch.kind == UInt32(CUC_TOUCH_WRITE))
        }
    }
}

/// A range of linear addresses. It can include the last page of the address space, so the end may not be
/// representable.
struct LinearRange {
    let start: UInt64
    /// Bytes, at least one page.
    let size: UInt64

    /// Bytes from the start; at least ``size`` for an address outside the range.
    func offset(of address: UInt64) -> UInt64 { address &- start }
    func contains(_ address: UInt64) -> Bool { offset(of: address) < size }
    func overlaps(_ other: LinearRange) -> Bool { contains(other.start) || other.contains(start) }
}

extension Set {
    /// The elements that meet the condition, and the others.
    fileprivate func split(by condition: (Element) -> Bool) -> (Set, Set) {
        let matching = filter(condition)
        return (matching, subtracting(matching))
    }
}
