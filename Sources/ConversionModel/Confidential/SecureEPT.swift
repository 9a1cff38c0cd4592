// SPDX-License-Identifier: MIT
// TDX: the secure EPT, which the module changes for the host, and the guest's TDG.MEM.PAGE.ACCEPT (docs/CONFIDENTIAL.md,
// section 3).

/// The entry of a guest page in the secure EPT of a TD. KVM uses pages of 4 KiB.
public enum SecureEPTEntry: Hashable, Sendable {
    /// No page.
    case free
    /// TDH.MEM.PAGE.AUG has added a page that the guest has not accepted.
    case pending
    /// Accepted by the guest, or added before the TD was finalised.
    case mapped
    /// TDH.MEM.RANGE.BLOCK: no access. `isTracked`: TDH.MEM.TRACK has run since, so that no vCPU still uses the entry.
    case blocked(wasPending: Bool, isTracked: Bool)
}

/// The status with which the TDX module refuses a call of the host.
public enum TDXRefusal: Error, Hashable, Sendable {
    /// `0xC0000B06`: TDH.MEM.PAGE.REMOVE of a page that is not blocked.
    case notBlocked
    /// `0xC0000B08`: TDH.MEM.TRACK has not run since the page was blocked.
    case notTracked
    /// `0xC0000B0D`: the entry is not in a state in which the call is allowed.
    case wrongState
}

extension KernelModel {
    /// The entry of a guest-physical page; nil if the VM is not a TD.
    public func secureEPTEntry(of vm: VMID, at gpa: UInt64) -> SecureEPTEntry? {
        self[vm].confidential?.secureEPT.value(at: self[vm].withoutSharedBit(gpa) & ~(pageSize - 1))
    }

    mutating func set(_ vm: VMID, _ range: PageRange, to entry: SecureEPTEntry) {
        self[vm].confidential?.secureEPT.set(range, to: entry)
        if entry != .mapped { note(.zapped(vm, range, keepsAccess: false)) }
        switch entry {
        // Pages that KVM takes for a conversion are about to be shared; every other caller reports it.
        case .free: break
        case .pending: note(.guestPages(vm, range, .pending))
        case .mapped: note(.guestPages(vm, range, .taken))
        case .blocked: note(.guestPages(vm, range, .blocked))
        }
    }

    /// TDH.MEM.RANGE.BLOCK of the pages of a guest-physical range.
    ///
    /// - Throws: ``TDXRefusal/wrongState`` at the first page that is not there or is blocked; those before it are blocked.
    public mutating func block(_ vm: VMID, _ range: PageRange) throws(TDXRefusal) {
        guard let table = self[vm].confidential?.secureEPT else { return }
        for run in table.runs(in: range) {
            switch run.value {
            case .pending, .mapped:
                set(vm, run.range, to: .blocked(wasPending: run.value == .pending, isTracked: false))
            case .free, .blocked: throw .wrongState
            }
        }
    }

    /// TDH.MEM.TRACK, and an interrupt to each vCPU. No vCPU is inside the guest while the host makes a call here.
    public mutating func track(_ vm: VMID) {
        guard let table = self[vm].confidential?.secureEPT, let all = PageRange(start: 0, size: table.size)
        else {
            return
        }
        for run in table.runs(in: all) {
            if case .blocked(let wasPending, false) = run.value {
                set(vm, run.range, to: .blocked(wasPending: wasPending, isTracked: true))
            }
        }
    }

    /// TDH.MEM.PAGE.REMOVE of the pages of a guest-physical range. KVM then clears them through the host's mapping.
    ///
    /// - Throws: ``TDXRefusal`` at the first page that is not there, not blocked or not tracked; those before it are removed.
    public mutating func remove(_ vm: VMID, _ range: PageRange) throws(TDXRefusal) {
        guard let table = self[vm].confidential?.secureEPT else { return }
        for run in table.runs(in: range) {
            switch run.value {
            case .blocked(_, let isTracked):
                guard isTracked || plants(.removalNeedsNoTrack) else { throw .notTracked }
            case .free: throw .wrongState
            case .pending, .mapped:
                guard plants(.removalNeedsNoBlock) else { throw .notBlocked }
            }
            set(vm, run.range, to: .free)
            clear(vm, run.range)
            note(.guestPages(vm, run.range, .unassigned))
        }
    }

    /// KVM takes pages from a TD, for a conversion, a hole or a memslot that goes away: BLOCK, TRACK and REMOVE.
    mutating func takeBack(_ vm: VMID, _ range: PageRange) {
        guard let table = self[vm].confidential?.secureEPT else { return }
        for run in table.runs(in: range) where run.value != .free {
            clear(vm, run.range)
            if !plants(.conversionKeepsEntry) { set(vm, run.range, to: .free) }
        }
    }

    /// KVM writes zeros to pages that were in the secure EPT.
    private mutating func clear(_ vm: VMID, _ range: PageRange) {
        for page in range.chunks(of: pageSize) {
            guard let place = backing(vm, of: page.start), let inFile = place.page else { continue }
            if !plants(.removedPagesNotCleared) { clearForHost(place.file, inFile) }
            if !plants(.conversionKeepsEntry) { forgetGuestContents(place.file, inFile) }
        }
    }

    /// TDG.MEM.PAGE.ACCEPT of a page.
    ///
    /// - Parameter address: guest-physical, without the shared bit.
    public mutating func accept(_ vm: VMID, _ address: UInt64, _ size: ValidationSize = .small)
        -> ValidationAnswer
    {
        if let error = runError(vm) { return .stopped(.error(error)) }
        if size == .large, address % (2 << 20) != 0 { return .invalid }
        switch place(vm, of: address) {
        case .failure(let access): return .stopped(access)
        case .success(let place):
            if let error = augment(place, vm) { return .stopped(.error(error)) }
            guard let page = place.page, let gpas = PageRange(start: place.gpa, size: pageSize) else {
                return .invalid
            }
            if size == .large, !plants(.largePageValidates) { return .sizeMismatch }
            if secureEPTEntry(of: vm, at: place.gpa) == .mapped {
                if plants(.secondAcceptZeroes) { zeroForGuest(place.file, page) }
                return plants(.revalidationUnnoticed) ? .done : .unchanged
            }
            set(vm, gpas, to: .mapped)
            if !plants(.acceptKeepsContents) { zeroForGuest(place.file, page) }
            return .done
        }
    }

    /// A private access has found no page: KVM adds one (TDH.MEM.PAGE.AUG). The guest cannot use it yet.
    ///
    /// - Returns: the errno with which `KVM_RUN` fails, because the page is blocked.
    mutating func augment(_ place: EncryptedPlace, _ vm: VMID) -> ErrorNumber? {
        guard let gpas = PageRange(start: place.gpa, size: pageSize) else { return nil }
        switch secureEPTEntry(of: vm, at: place.gpa) {
        case .free:
            set(vm, gpas, to: plants(.pageAddedAccepted) ? .mapped : .pending)
            noteMapped(place, vm)
        // KVM has no page to add to a blocked entry, and takes the refusal for a bug of its own.
        case .blocked: return kill(vm)
        case .pending, .mapped, nil: break
        }
        return nil
    }
}
