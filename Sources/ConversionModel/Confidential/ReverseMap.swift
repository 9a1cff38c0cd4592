// SPDX-License-Identifier: MIT
// SNP: the reverse map table (RMP), and the guest's PVALIDATE (docs/CONFIDENTIAL.md, section 2).

/// The entry of a host page in the reverse map table of SNP. A guest_memfd has pages of 4 KiB, and so has the table here.
public struct RMPEntry: Hashable, Sendable {
    /// The owner of a page. The states of pages that firmware is working on do not outlast a call.
    public enum State: Hashable, Sendable {
        /// Owned by the hypervisor, which can read and write it.
        case hypervisor
        /// Assigned to the guest, which has not validated it: its accesses raise #VC.
        case guestInvalid
        /// Assigned to the guest and validated.
        case guestValid
    }
    /// The owner.
    public let state: State
    /// The VM to which the page is assigned; meaningless for ``State/hypervisor``.
    let vm: VMID
    /// The guest-physical address for which it is assigned, less the offset in the file. So pages that are assigned in
    /// order have equal entries.
    let distance: UInt64

    /// Not assigned to any guest.
    public static var hypervisor: RMPEntry {
        RMPEntry(state: .hypervisor, vm: VMID(index: -1), distance: 0)
    }

    func isAssigned(to vm: VMID, distance: UInt64) -> Bool {
        state != .hypervisor && self.vm == vm && self.distance == distance
    }
}

/// The result of PVALIDATE, or of TDG.MEM.PAGE.ACCEPT.
public enum ValidationAnswer: Hashable, Sendable {
    /// The page has changed: EAX 0 and CF 0; status 0.
    case done
    /// The page was in that state before: EAX 0 and CF 1; status 0x00000B0A, a warning.
    case unchanged
    /// The operand is malformed: EAX 1; status 0xC0000100.
    case invalid
    /// 2 MiB were asked for, and the entry is 4 KiB: EAX 6; status 0xC0000B0B.
    case sizeMismatch
    /// The instruction did not complete. The vCPU has left the guest, or an exception was raised.
    case stopped(KernelModel.Access)
}

/// The size of the page in PVALIDATE and TDG.MEM.PAGE.ACCEPT.
public enum ValidationSize: Hashable, Sendable {
    /// 4 KiB.
    case small
    /// 2 MiB.
    case large
}

extension KernelModel {
    /// The entry of a page of a file in the reverse map table; nil if the file is not one of an SNP VM.
    public func reverseMapEntry(of file: FileID, at offset: UInt64) -> RMPEntry? {
        guard self[file].vmType == .snp else { return nil }
        return self[file].encrypted?.reverseMap.value(at: offset)
    }

    /// RMPUPDATE for the first private access to a page: assigns it to the VM, and so clears `validated`. Nothing happens
    /// if the page is assigned to the VM at this address already.
    mutating func assign(_ place: EncryptedPlace, to vm: VMID) {
        let distance = place.gpa &- place.offset
        guard let old = self[place.file].encrypted?.reverseMap.value(at: place.offset), let page = place.page
        else {
            return
        }
        if old.isAssigned(to: vm, distance: distance) { return }
        if plants(.reverseMapAddressUnchecked), old.state != .hypervisor, old.vm == vm { return }
        let keepsValidated = plants(.assignmentKeepsValidated) && old.state == .guestValid
        let new = RMPEntry(state: keepsValidated ? .guestValid : .guestInvalid, vm: vm, distance: distance)
        self[place.file].encrypted?.reverseMap.set(page, to: new)
        if old.state == .hypervisor, !plants(.guestReadsHostPlaintext) { note(.decrypted(place.file, page)) }
        noteGuestPage(vm, at: place.gpa)
    }

    /// RMPUPDATE that takes pages from their guest. Contents stay as they are: the host finds ciphertext.
    mutating func unassign(_ file: FileID, _ range: PageRange) {
        if let table = self[file].encrypted?.reverseMap, !plants(.plaintextShownToHost) {
            for run in table.runs(in: range) where run.value.state != .hypervisor {
                note(.encrypted(file, run.range))
            }
        }
        self[file].encrypted?.reverseMap.set(range, to: .hypervisor)
        if plants(.sharedPagesZeroed) { clearForHost(file, range) }
    }

    /// PVALIDATE of a page in ring 0 and VMPL 0. Contents stay as they are.
    ///
    /// - Parameters:
    ///   - address: guest-physical, of the page to which the operand leads.
    ///   - isValid: EDX: true validates the page, false rescinds it.
    public mutating func validate(
        _ vm: VMID, _ address: UInt64, _ isValid: Bool, _ size: ValidationSize = .small
    ) -> ValidationAnswer {
        if let error = runError(vm) { return .stopped(.error(error)) }
        if size == .large, address % (2 << 20) != 0 { return .invalid }
        switch place(vm, of: address) {
        case .failure(let access):
            if plants(.sharedPageValidates), case .fault = access { return .done }
            return .stopped(access)
        case .success(let place):
            assign(place, to: vm)
            noteMapped(place, vm)
            if size == .large, !plants(.largePageValidates) { return .sizeMismatch }
            guard let old = self[place.file].encrypted?.reverseMap.value(at: place.offset),
                let page = place.page
            else {
                return .invalid
            }
            if (old.state == .guestValid) == isValid {
                return plants(.revalidationUnnoticed) ? .done : .unchanged
            }
            if !isValid, plants(.rescindIgnored) { return .done }
            let new = RMPEntry(
                state: isValid ? .guestValid : .guestInvalid, vm: old.vm, distance: old.distance)
            self[place.file].encrypted?.reverseMap.set(page, to: new)
            noteGuestPage(vm, at: place.gpa)
            // The CPU checks the table again at the next access. So it needs no flush here, and the model has no stale TLBs.
            if !isValid { noteZapped(vm, place) }
            if plants(.validationZeroes) { zeroForGuest(place.file, page) }
            return .done
        }
    }
}
