// SPDX-License-Identifier: MIT

/// How far a guest on SNP or TDX has taken a private page.
public enum GuestPageState: String, Sendable, Hashable {
    /// The guest has validated or accepted the page.
    case taken
    /// SNP: guest-invalid in the RMP. The guest has not validated the page.
    case unvalidated
    /// No host page belongs to the guest there: Hypervisor in the RMP, free in the secure EPT. The first touch, or ACCEPT,
    /// makes KVM assign one.
    case unassigned
    /// TDX: KVM has added the page, and the guest has not accepted it.
    case pending
    /// TDX: KVM has blocked the page, to remove it.
    case blocked
}

extension KernelModel {
    /// How far the guest has taken the private pages of a file: ranges in bytes of the file, ascending. A file of another
    /// type of VM has none.
    public func guestPages(_ vm: VMID, of file: FileID) -> [(range: PageRange, state: GuestPageState)] {
        guard let all = PageRange(start: 0, size: self[file].size) else { return [] }
        let own = self[file].attributes.runs(in: all).filter { $0.value == .private }.map { $0.range }
        if self[file].vmType == .snp, let table = self[file].encrypted?.reverseMap {
            return own.flatMap { range in
                table.runs(in: range).map { run in
                    switch run.value.state {
                    case .hypervisor: (run.range, .unassigned)
                    case .guestInvalid: (run.range, .unvalidated)
                    case .guestValid: (run.range, .taken)
                    }
                }
            }
        }
        guard let table = self[vm].confidential?.secureEPT, table.size > 0 else { return [] }
        return self[vm].slots.filter { $0.isGuestMemfd && $0.file == file }.flatMap { slot in
            own.flatMap { range -> [(range: PageRange, state: GuestPageState)] in
                guard let part = slot.inFile?.intersection(range),
                    let gpas = PageRange(
                        start: part.start &- slot.fileOffset &+ slot.range.start, size: part.size)
                else { return [] }
                return table.runs(in: gpas).compactMap { run in
                    guard
                        let inFile = PageRange(
                            start: run.range.start &- gpas.start &+ part.start, size: run.range.size)
                    else { return nil }
                    switch run.value {
                    case .free: return (inFile, .unassigned)
                    case .pending: return (inFile, .pending)
                    case .mapped: return (inFile, .taken)
                    case .blocked: return (inFile, .blocked)
                    }
                }
            }
        }.sorted { $0.range.start < $1.range.start }
    }

    /// How far the guest has taken a private page, wherever the host has moved it.
    private func guestPageState(_ vm: VMID, at gpa: UInt64) -> GuestPageState {
        if self[vm].type == .tdx {
            return switch secureEPTEntry(of: vm, at: gpa) {
            case .pending: .pending
            case .mapped: .taken
            case .blocked: .blocked
            case .free, nil: .unassigned
            }
        }
        guard let place = backing(vm, of: gpa),
            let entry = self[place.file].encrypted?.reverseMap.value(at: place.offset),
            entry.isAssigned(to: vm, distance: place.gpa &- place.offset)
        else { return .unassigned }
        return entry.state == .guestValid ? .taken : .unvalidated
    }

    /// Reports the state of a page that is private.
    mutating func noteGuestPage(_ vm: VMID, at gpa: UInt64) {
        guard contents == .outside, let page = PageRange(start: gpa, size: pageSize),
            let place = backing(vm, of: gpa),
            self[place.file].attributes.value(at: place.offset) == .private
        else { return }
        note(.guestPages(vm, page, guestPageState(vm, at: gpa)))
    }

    /// Reports the pages of a range that are in this state, and are private without belonging to the guest from now on.
    mutating func noteUnassigned(_ file: FileID, _ range: PageRange, whichAre state: PageState) {
        guard contents == .outside else { return }
        for run in self[file].attributes.runs(in: range) where run.value == state {
            forEachSlot(of: file, serving: run.range) { model, vm, slot, part in
                guard model[vm].slots[slot].isGuestMemfd,
                    let gpas = part.advanced(by: model[vm].slots[slot].range.start)
                else { return }
                model.note(.guestPages(vm, gpas, .unassigned))
            }
        }
    }
}
