// SPDX-License-Identifier: MIT
import CKVMShim
import MiniVMM
import SystemPackage

/// A stopped guest's memory by linear and guest-physical address, with what the guest's own access would find there.
package struct GuestView: Sendable {
    let machine: Machine

    package init(_ machine: Machine) { self.machine = machine }

    // MARK: linear addresses

    /// Translates a linear address with the guest's page tables: 4 or 5 levels in long mode, PAE, 32-bit, or no paging.
    ///
    /// - Returns: guest-physical, with the shared bit where the tables have it.
    package func translate(_ linear: UInt64, _ special: ckvm_sregs) throws(DebugError) -> UInt64 {
        guard special.cr0 & 1 << 31 != 0 else { return linear }
        let isLong = special.efer & 1 << 10 != 0
        let hasWideEntries = isLong || special.cr4 & 1 << 5 != 0
        guard isLong || linear >> 32 == 0 else { throw .notMapped(linear) }
        let top: Int = isLong ? (special.cr4 & 1 << 12 != 0 ? 57 : 48) : 32
        if isLong {
            let sign = Int64(bitPattern: linear) >> Int64(top - 1)
            guard sign == 0 || sign == -1 else { throw .notMapped(linear) }
        }
        let indexBits = hasWideEntries ? 9 : 10
        let addressMask: UInt64 = hasWideEntries ? 0x000f_ffff_ffff_f000 : 0xffff_f000
        var table = special.cr3 & (isLong ? addressMask : hasWideEntries ? 0xffff_ffe0 : 0xffff_f000)
        var shift = isLong ? top - 9 : hasWideEntries ? 30 : 22
        while true {
            let index =
                linear >> UInt64(shift)
                & (hasWideEntries && !isLong && shift == 30 ? 3 : 1 << UInt64(indexBits) - 1)
            let size = hasWideEntries ? 8 : 4
            let entry = try entry(at: table &+ index &* UInt64(size), size: size)
            guard entry & 1 != 0 else { throw .notMapped(linear) }
            // Bit 7 is reserved in the entries of PAE's first level and of the levels above 1 GiB pages.
            let mayBeLarge = shift <= (isLong ? 30 : hasWideEntries ? 21 : 22)
            if shift == 12 || mayBeLarge && entry & 1 << 7 != 0 {
                let within: UInt64 = 1 << UInt64(shift) - 1
                return entry & addressMask & ~within | linear & within
            }
            table = entry & addressMask
            shift -= indexBits
        }
    }

    private func entry(at address: UInt64, size: Int) throws(DebugError) -> UInt64 {
        try read(physical: address, count: size).reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    // MARK: guest-physical addresses

    /// Where a guest-physical access leads.
    package struct Place: Sendable {
        /// Without the shared bit.
        package let gpa: UInt64
        package let state: PageState
    }

    /// Finds the page of an address.
    ///
    /// - Throws: ``DebugError/noRAM(gpa:)``, and ``DebugError/wrongAlias(gpa:state:)`` if the guest's access would be a memory
    ///   fault.
    package func place(_ physical: UInt64) throws(DebugError) -> Place {
        let mask: UInt64 = machine.layout.sharedBit.map { 1 << UInt64($0) } ?? 0
        let gpa = physical & ~mask
        guard let state = machine.memory.state(at: gpa) else { throw .noRAM(gpa: physical) }
        guard mask == 0 || (physical & mask != 0) == (state == .shared) else {
            throw .wrongAlias(gpa: gpa, state: state == .shared ? .shared : .private)
        }
        return Place(gpa: gpa, state: state)
    }

    /// The page of an address without the shared bit, whatever its state.
    func place(gpa: UInt64) throws(DebugError) -> Place {
        guard let state = machine.memory.state(at: gpa) else { throw .noRAM(gpa: gpa) }
        return Place(gpa: gpa, state: state)
    }

    /// Reads bytes of one page.
    package func read(physical: UInt64, count: Int) throws(DebugError) -> [UInt8] {
        try read(at: place(physical), count: count)
    }

    /// Reads bytes of one page.
    package func read(at place: Place, count: Int) throws(DebugError) -> [UInt8] {
        if place.state == .shared {
            do throws(HostAccessError) {
                return try machine.memory.read(gpa: place.gpa, count: count)
            } catch {
                throw .unreadable(gpa: error.gpa, error.errno)
            }
        }
        var bytes = [UInt8](repeating: 0, count: count)
        try accessPrivate(place) { vm throws(Errno) in
            var failure: Errno?
            unsafe bytes.withUnsafeMutableBytes { buffer in
                do throws(Errno) {
                    unsafe try vm.readPrivate(gpa: place.gpa, into: buffer)
                } catch {
                    failure = error
                }
            }
            if let failure { throw failure }
        }
        return bytes
    }

    /// Writes bytes of one page.
    package func write(physical: UInt64, _ bytes: [UInt8]) throws(DebugError) {
        try write(at: place(physical), bytes)
    }

    /// Writes bytes of one page.
    package func write(at place: Place, _ bytes: [UInt8]) throws(DebugError) {
        if place.state == .shared {
            do throws(HostAccessError) {
                return try machine.memory.write(gpa: place.gpa, bytes)
            } catch {
                throw .unreadable(gpa: error.gpa, error.errno)
            }
        }
        try accessPrivate(place) { vm throws(Errno) in
            var failure: Errno?
            unsafe bytes.withUnsafeBytes { buffer in
                do throws(Errno) {
                    unsafe try vm.writePrivate(gpa: place.gpa, from: buffer)
                } catch {
                    failure = error
                }
            }
            if let failure { throw failure }
        }
    }

    /// Whether the monitor can write a byte of code. True if there is no code: writing it fails with the reason.
    func canPatch(_ address: UInt64, _ special: ckvm_sregs) -> Bool {
        do throws(DebugError) {
            let place = try place(translate(address, special))
            try write(at: place, read(at: place, count: 1))
            return true
        } catch .isPrivate {
            return false
        } catch {
            return true
        }
    }

    /// - Throws: ``DebugError/unwatchedPage(_:gpa:)`` if the bytes, or the page tables that lead to them, are private memory that
    ///   the monitor cannot read.
    func checkReadable(_ watched: Breakpoint, _ special: ckvm_sregs) throws(DebugError) {
        do throws(DebugError) {
            let physical = try translate(watched.address, special)
            _ = try read(physical: physical, count: Int(min(watched.size, 8)))
        } catch .isPrivate(let gpa) {
            throw .unwatchedPage(watched.address, gpa: gpa)
        } catch {
            // Not there yet: it is compared when it is.
        }
    }

    private func accessPrivate(
        _ place: Place, _ body: (any PrivateMemoryAccess) throws(Errno) -> Void
    ) throws(DebugError) {
        guard let vm = machine.vm as? any PrivateMemoryAccess else { throw .isPrivate(gpa: place.gpa) }
        do throws(Errno) {
            try body(vm)
        } catch .notSupported {
            throw .isPrivate(gpa: place.gpa)
        } catch {
            throw .unreadable(gpa: place.gpa, error)
        }
    }
}

extension GuestDebugger.BreakpointState {
    /// Compares the watched bytes with those at the last look, and keeps what is there now. The bytes of a page that cannot be
    /// read do not change.
    ///
    /// - Returns: the address of the first watchpoint whose bytes have changed.
    mutating func noteChange(seenBy vcpu: any KVMVCPU, _ machine: Machine) -> UInt64? {
        let watched = plan?.compared.filter(\.kind.isWatchpoint) ?? []
        guard !watched.isEmpty, let special = try? vcpu.specialRegisters() else { return nil }
        let view = GuestView(machine)
        var changed: UInt64?
        for breakpoint in watched {
            guard let physical = try? view.translate(breakpoint.address, special),
                let now = try? view.read(physical: physical, count: Int(min(breakpoint.size, 8)))
            else { continue }
            if let before = bytes[breakpoint], before != now { changed = changed ?? breakpoint.address }
            bytes[breakpoint] = now
        }
        return changed
    }
}
