// SPDX-License-Identifier: MIT
import ConversionModel

/// The position of an actor in its current step. Its next atomic piece is what a kernel does before another actor can
/// act.
///
/// The pieces are those of Linux 7.4:
/// * A conversion, a hole, `fallocate` and a vCPU's access are one piece each. A memory fault that asks for a
///   conversion makes three: the access, the conversion, and the access again.
/// * The host reaches a page through a page fault, which holds a reference from finding the page to mapping it, and
///   then through a reference on the mapped page. A conversion in between can remove the page, and the fault starts
///   again. So an access takes references on up to 16 pages, copies page by page, and drops the references page by
///   page. A hold takes its pages one by one; a hold that fails has held the pages before. `populate_read` and
///   `populate_write` fault page by page.
/// * References on several pages are dropped page by page. An unmapping does so after the pages have left the page
///   tables.
/// * KVM_PRE_FAULT_MEMORY reads the state of each page, and then maps the page. A vCPU reaches a memslot without a
///   guest_memfd as the host does.
/// * A memslot is invalid before it is deleted. A hypercall is one conversion for each memslot; a conversion of the
///   guest's memory is one for each region.
package struct Position: Sendable {
    /// The next or current step.
    package var step = 0
    /// Completed bytes of the step.
    package var done: UInt64 = 0
    package var phase = Phase.begin
    /// A page that a fault has found and not yet mapped.
    package var fault: HoldID?
    /// The references that the step holds.
    package var references: [HoldID] = []
    /// The answer that the step returns after it has dropped its references.
    package var answer: Observation?
    /// Whether the page that a vCPU is about to write is in the dirty log.
    package var isLogged = false
    /// The access that `again` repeats.
    package var repeated: Step?
    /// Pages counted so far.
    package var count: UInt64 = 0
    /// The conversions that the monitor has made for the step. They do not affect later pieces.
    package var conversions: [FileConversion] = []

    package enum Phase: Hashable {
        case begin
        /// This number of pages of the batch has been copied.
        case copying(Int)
        case releasing
        /// The memslot with this number is invalid.
        case deleting(UInt32)
        /// The state that a fault has read for the page.
        case asked(isPrivate: Bool)
        /// The page whose memory is to fail has been found, and the step no longer holds a reference on it.
        case failing
        /// A vCPU has exited with a memory fault, and the monitor is about to convert the page.
        case faulted(MemoryFault, FaultConversion)
        /// The conversion succeeded without an effect, so it is not repeated.
        case convertedWithoutEffect
    }

    package init(step: Int = 0) { self.step = step }

    /// Everything that affects later pieces of the step.
    package struct Key: Hashable {
        fileprivate let step: Int
        fileprivate let done: UInt64
        fileprivate let phase: Phase
        fileprivate let fault: KernelModel.HoldState?
        fileprivate let references: [KernelModel.HoldState]
        fileprivate let answer: Observation?
        fileprivate let isLogged: Bool
        fileprivate let repeated: Step?
        fileprivate let count: UInt64
    }

    package func key(in kernel: KernelModel) -> Key {
        Key(
            step: step, done: done, phase: phase, fault: fault.map { kernel.state(of: $0) },
            references: references.map { kernel.state(of: $0) }, answer: answer, isLogged: isLogged,
            repeated: repeated, count: count)
    }

    /// Whether the next piece waits for another actor.
    package func waits(before step: Step, _ machine: ModelMachine) -> Bool {
        guard let vm = machine.vms[machine.setup.main], machine.kernel.isChangingSlots(vm) else {
            return false
        }
        switch phase {
        case .deleting, .faulted: return false
        default: break
        }
        let step = repeated ?? step
        switch (step.action, step.actor) {
        // Changes of memslots, and of the files of memslots, take the VM's slots_lock.
        case (.bind, _), (.unbind, _), (.close, _), (.dirty, _), (.setAttributes, _): return true
        // A fault is retried until the memslot is gone.
        case (.read(let place), .vcpu), (.write(let place, _), .vcpu):
            return machine.kernel.isInvalid(vm, at: place.offset)
        default: return false
        }
    }

    /// Performs the next piece.
    ///
    /// - Returns: the answer of the step; nil if it has not ended.
    package mutating func advance(_ step: Step, _ machine: inout ModelMachine) throws(Stop) -> Observation? {
        switch step.action {
        case .read, .write, .fill:
            if case .vcpu = step.actor { return try guestAccess(step, &machine) }
            return try access(step, &machine)
        case .peek(let place):
            let seen = try access(Step(step.actor, .read(place)), &machine)
            if case .sigbus = seen?.outcome { return Observation(.errno(ErrorNumber.ioError.rawValue)) }
            return seen
        case .unmap(let view): return try unmap(Extent(view, offset: 0, size: .max), step, &machine)
        case .advise(let extent, .dontNeed): return try unmap(extent, step, &machine)
        case .advise(let extent, .populateRead), .advise(let extent, .populateWrite):
            return try populate(extent, step, &machine)
        case .advise(let extent, .hwPoison): return try fail(extent, step, &machine)
        case .hold(let extent, let kind, let name): return try hold(extent, kind, name, step, &machine)
        case .release(let name): return try release(name, step, &machine)
        case .unbind(let slot, let vm): return try delete(slot, vm, step, &machine)
        case .bind(let binding) where machine.moves(binding):
            return try delete(binding.slot, binding.vm, step, &machine)
        case .preFault(let extent): return try preFault(extent, step, &machine)
        case .hypercall(let extent, let attributes):
            return try hypercall(extent, attributes, step, &machine)
        case .present(let extent): return try present(extent, step, &machine)
        case .again: return try again(step, &machine)
        case .convert(let conversion) where conversion.extent.name == .guest:
            return try convertGuest(conversion, step, &machine)
        default: return try machine.perform(step)
        }
    }
}

extension ModelMachine {
    /// Whether the binding moves a memslot. The slot then leaves its old address before it appears at the new one.
    fileprivate func moves(_ binding: Binding) -> Bool {
        let slot = slots[SlotKey(vm: binding.vm ?? setup.main, number: binding.slot)]
        guard let slot, binding.flags & Binding.guestMemfd == 0 else { return false }
        return slot.gpa != binding.gpa && slot.extent.size == binding.extent.size
    }
}
