// SPDX-License-Identifier: MIT
import MiniVMM
import SoftKVM

/// A kind of step from which tests are generated.
enum Move: String, CaseIterable, Sendable {
    case hostRead, hostWrite, hostFill, hostCheck
    case guestRead, guestWrite, guestFill, guestCheck, again, convertOnFault
    case fork, childRead, childWrite
    case convert, convertOddly, convertFrom, ask, askForGuest, hypercall
    case map, unmap, advise, present
    case punch, allocate, fileCall, peek
    // Direct I/O is omitted, because the device determines how long it holds a page.
    case hold, holdLong, release
    case create, close, bind, unbind, preFault, zapped, capability
    /// A step that only SNP and TDX VMs have.
    case confidential

    /// The name for people.
    var name: String {
        switch self {
        case .hostRead: "host read"
        case .hostWrite: "host write"
        case .hostFill: "host fill"
        case .hostCheck: "host check"
        case .guestRead: "vcpu read"
        case .guestWrite: "vcpu write"
        case .guestFill: "vcpu fill"
        case .guestCheck: "vcpu check"
        case .convertOnFault: "vcpu access converting"
        case .childRead: "child read"
        case .childWrite: "child write"
        case .convertOddly: "convert, bad arguments"
        case .convertFrom: "convert, struct in other memory"
        case .ask: "convert with contents"
        case .askForGuest: "convert of guest memory"
        case .advise: "madvise"
        case .fileCall: "syscall"
        case .hold: "hold by vmsplice"
        case .holdLong: "hold by io_uring"
        case .preFault: "prefault"
        case .capability: "extension"
        case .confidential: "steps of SNP and TDX"
        default: rawValue
        }
    }

    /// The relative frequency.
    var weight: UInt64 {
        switch self {
        case .convert: 24
        case .confidential: 40
        case .convertOddly, .guestRead, .guestWrite, .hostRead, .hostWrite, .convertOnFault: 8
        case .hold, .release, .hypercall, .ask, .askForGuest: 6
        case .hostCheck, .guestCheck, .punch, .childRead, .unmap, .zapped: 4
        case .capability: 1
        default: 3
        }
    }

    /// The move that creates the object this one needs, if the initial machine has none.
    var subject: Move? {
        switch self {
        case .unmap: .map
        case .release: .hold
        case .childRead, .childWrite: .fork
        // Not the machine's own file if there is another one, so that it can be closed.
        case .close: .create
        default: nil
        }
    }

    var isRead: Bool { [.hostRead, .guestRead, .childRead, .convertOnFault].contains(self) }

    /// Whether it is an access of a vCPU that exits with a memory fault on a page of the other state.
    var isPlainGuestAccess: Bool { [.guestRead, .guestWrite].contains(self) }

    /// Whether the model of SNP and TDX VMs has it.
    var isOfConfidentialVM: Bool {
        switch self {
        case .hostRead, .hostWrite, .hostFill, .hostCheck, .guestRead, .guestWrite, .guestFill, .guestCheck,
            .again,
            .convertOnFault, .convert, .ask, .hypercall, .map, .unmap, .punch, .hold, .release:
            true
        default: false
        }
    }

    /// Whether it is allowed in a parallel block.
    var isAtomic: Bool {
        switch self {
        case .hostCheck, .guestFill, .guestCheck, .again, .fork, .zapped, .confidential: false
        default: true
        }
    }

    /// A step of this kind; nil if the test has no object for it.
    func step(in draft: inout Draft) -> Step? {
        let host = Actor.host(Int(draft.below(2)))
        let vcpu = Actor.vcpu(Int(draft.below(2)))
        switch self {
        case .hostRead: return draft.place(in: draft.views).map { Step(host, .read($0)) }
        case .hostWrite:
            let byte = draft.freshByte()
            return draft.place(in: draft.views).map { Step(host, .write($0, byte)) }
        case .hostFill:
            let byte = draft.freshByte()
            return draft.extent(in: draft.views).map { Step(host, .fill($0, byte)) }
        case .hostCheck:
            let byte = draft.oneIn(2) ? 0 : draft.freshByte()
            return draft.extent(in: draft.views).map { Step(host, .check($0, byte)) }
        case .guestRead: return Step(vcpu, .read(draft.guestPlace()))
        case .guestWrite: return Step(vcpu, .write(draft.guestPlace(), draft.freshByte()))
        case .guestFill: return Step(vcpu, .fill(draft.guestExtent(), draft.freshByte()))
        case .guestCheck: return Step(vcpu, .check(draft.guestExtent(), 0))
        case .again:
            // The last vCPU that made an access.
            return draft.test.guestHasTwoAliases ? draft.lastAccess.map { Step($0, .again) } : nil
        case .convertOnFault:
            // With one alias no access asks for a conversion.
            guard draft.test.guestHasTwoAliases else { return nil }
            let byte = draft.freshByte()
            let place = draft.guestPlace()
            var onFault = FaultConversion(draft.pick(ContentPolicy.allCases) ?? .preserve)
            onFault.monitor = Self.policy(in: &draft)
            return Step(vcpu, draft.oneIn(2) ? .read(place) : .write(place, byte), onFault: onFault)
        case .fork: return draft.freshChild().map { Step(.host(0), .fork(child: $0)) }
        case .childRead:
            guard let child = draft.pick(draft.children) else { return nil }
            return draft.place(in: child.views).map { Step(.child(child.number), .read($0)) }
        case .childWrite:
            guard let child = draft.pick(draft.children) else { return nil }
            let byte = draft.freshByte()
            return draft.place(in: child.views).map { Step(.child(child.number), .write($0, byte)) }
        case .convert, .ask, .convertOddly, .convertFrom:
            guard let file = draft.pick(draft.files) else { return nil }
            return Step(host, .convert(conversion(of: file, in: &draft)))
        case .askForGuest:
            var conversion = Conversion(draft.guestMemory(), to: draft.state())
            Self.ask(&conversion, in: &draft)
            return Step(host, .convert(conversion))
        case .hypercall:
            return Step(
                vcpu, .hypercall(draft.guestExtent(alias: false), attributes: Attributes.word(draft.state())))
        case .map:
            guard let file = draft.pick(draft.files) else { return nil }
            return Step(host, .map(draft.pages(of: file, isTouched: true), view: draft.freshName("v")))
        case .unmap:
            // Memslots point into the views of the header.
            let own = Set(draft.test.memory.map(\.name))
            return draft.pick(draft.views.filter { !own.contains($0.name) }).map {
                Step(host, .unmap($0.name))
            }
        case .advise:
            guard let advice = draft.pick([Advice.dontNeed, .remove, .populateRead, .populateWrite]),
                let extent = draft.extent(in: draft.views)
            else { return nil }
            return Step(host, .advise(extent, advice))
        case .present: return draft.extent(in: draft.views).map { Step(host, .present($0)) }
        case .punch, .allocate:
            guard let file = draft.pick(draft.files) else { return nil }
            var extent = draft.pages(of: file, isTouched: self == .allocate)
            if draft.oneIn(8) { extent.offset += 1 }
            if draft.oneIn(8) { extent.size += pageSize }
            return Step(host, self == .punch ? .punch(extent) : .allocate(extent))
        case .fileCall:
            guard let file = draft.pick(draft.files), let call = draft.pick(FileCall.allCases) else {
                return nil
            }
            return Step(host, .syscall(file.name, call))
        case .peek: return draft.place(in: draft.views).map { Step(host, .peek($0)) }
        case .hold, .holdLong:
            let kind: HoldKind = self == .hold ? .vmsplice : .ioUring
            let name = draft.freshName("h")
            return draft.extent(in: draft.views).map { Step(host, .hold($0, by: kind, hold: name)) }
        case .release: return draft.pick(draft.holds).map { Step(host, .release($0)) }
        case .create: return Step(host, .create(newFile(in: &draft)))
        case .close:
            return draft.files.count > 1 ? draft.pick(draft.files).map { Step(host, .close($0.name)) } : nil
        // Without a memslot KVM emulates the access. It cannot read the instruction if the code is private, as in a VM
        // with two aliases.
        case .bind where !draft.test.guestHasTwoAliases:
            return binding(in: &draft).map { Step(host, .bind($0)) }
        case .unbind where !draft.test.guestHasTwoAliases:
            return Step(host, .unbind(slot: UInt32(draft.below(3)), on: nil))
        case .bind, .unbind: return nil
        case .preFault: return Step(vcpu, .preFault(draft.guestExtent(alias: false)))
        case .zapped: return Step(host, .zapped)
        case .capability:
            guard
                let number = draft.pick([
                    Capability.guestMemfdMemoryAttributes, .guestMemfdFlags, .guestMemfd,
                ])
            else { return nil }
            return Step(host, .extension(UInt32(number.rawValue)))
        case .confidential: return confidentialStep(in: &draft, host, vcpu)
        }
    }

    /// A step that only SNP and TDX VMs have, on a page of the guest's memory or on several.
    private func confidentialStep(in draft: inout Draft, _ host: Actor, _ vcpu: Actor) -> Step? {
        let type = draft.test.vm
        guard type.isConfidential else { return nil }
        let extent = draft.guestExtent(alias: false)
        let page = Extent(offset: extent.offset, size: pageSize)
        // Validation is what everything else depends on.
        if !draft.oneIn(3) {
            let isLarge = draft.oneIn(12)
            return type == .tdx
                ? Step(vcpu, .confidential(.accept(extent, isLarge: isLarge)))
                : Step(vcpu, .confidential(.validate(extent, isValid: !draft.oneIn(4), isLarge: isLarge)))
        }
        let file = draft.pick(draft.files)
        // A lie, a wrong answer, EAGAIN and EINVAL.
        let answers: [UInt64] = [0, 1, 11, 22]
        var actions: [ConfidentialAction] = [.take(page)]
        if let answer = draft.pick(answers) { actions.append(.answer(answer)) }
        if let file {
            let place = Place(file.name, offset: draft.below(file.pages) * pageSize)
            actions += [
                .remap(gpa: page.offset, to: place), .remap(gpa: page.offset, to: Place(offset: page.offset)),
            ]
        }
        if type == .tdx { actions += [.block(page), .track, .remove(page), .raiseVE] }
        return draft.pick(actions).map { Step(host, .confidential($0)) }
    }

    /// A step that checks the effects of the last one.
    static func followUp(in draft: inout Draft) -> (move: Move, step: Step)? {
        guard let last = draft.lastStep else { return nil }
        let host = Actor.host(Int(draft.below(2)))
        switch (last.action, last.actor) {
        case (.convert(let conversion), _) where draft.oneIn(2):
            return look(at: conversion.extent, in: &draft, by: host)
        case (.hypercall(let extent, _), _) where draft.oneIn(2):
            return look(at: extent, in: &draft, by: host)
        case (.punch, _), (.advise, _), (.unbind, _):
            if draft.oneIn(3) { return (.zapped, Step(host, .zapped)) }
            guard draft.oneIn(3), let hold = draft.lastHold else { return nil }
            return (.convert, Step(host, .convert(Conversion(hold, to: draft.state()))))
        // Steps that are affected by a hold.
        case (.hold(let extent, _, _), _)
        where draft.test.guestHasTwoAliases && extent.name == .ram && draft.oneIn(3):
            let step = Step(
                .vcpu(Int(draft.below(2))), .read(Place(offset: extent.offset)),
                onFault: FaultConversion(.preserve))
            return (.convertOnFault, step)
        case (.hold(let extent, _, _), _):
            if draft.oneIn(6) {
                var conversion = Conversion(draft.guestMemory(), to: .private, contents: .unspecified)
                conversion.monitor.bisects = draft.oneIn(2)
                return (.askForGuest, Step(host, .convert(conversion)))
            }
            guard let file = draft.files.first(where: { $0.name == extent.name }) else { return nil }
            if draft.oneIn(4) { return (.punch, Step(host, .punch(extent))) }
            guard draft.oneIn(2) else { return nil }
            return (.convert, Step(host, .convert(Conversion(draft.pages(of: file), to: draft.state()))))
        case (.create(let new), _) where new.vm != nil && new.size > 0 && draft.oneIn(2):
            let extent = Extent(new.name, offset: 0, size: new.size)
            return (.bind, Step(host, .bind(Binding(slot: 3, to: extent, gpa: 16 * pageSize))))
        // The access through the other alias, and the same access again.
        case (.read(let place), .vcpu), (.write(let place, _), .vcpu):
            guard draft.test.guestHasTwoAliases,
                place.offset < (draft.test.memory.first?.pages ?? 0) * pageSize
            else { return nil }
            let page = UInt32(truncatingIfNeeded: place.offset / pageSize)
            let target: PageState = place.name == .shared ? .shared : .private
            return (.convert, Step(host, .convert(Conversion(Extent(pages: page...page), to: target))))
        default: return nil
        }
    }

    private static func look(
        at extent: Extent, in draft: inout Draft, by host: Actor
    ) -> (move: Move, step: Step)? {
        guard let extent = draft.pick(draft.test.memory.regions.extents(extent)) else { return nil }
        let isInside = draft.views.contains { view in
            view.name == extent.name && extent.offset < view.size && extent.size <= view.size - extent.offset
                && extent.size > 0
        }
        switch draft.below(4) {
        case 0: return (.zapped, Step(host, .zapped))
        case 1 where isInside: return (.present, Step(host, .present(extent)))
        case 2 where isInside:
            return (.hostRead, Step(host, .read(Place(extent.name, offset: extent.offset))))
        default: return (.guestRead, Step(.vcpu(Int(draft.below(2))), .read(draft.guestPlace())))
        }
    }

    /// Makes it a request to the monitor's converter.
    private static func ask(_ conversion: inout Conversion, in draft: inout Draft) {
        conversion.contents = draft.pick(ContentPolicy.allCases)
        conversion.monitor = policy(in: &draft)
    }

    private static func policy(in draft: inout Draft) -> MonitorPolicy {
        var policy = MonitorPolicy()
        policy.bisects = draft.oneIn(3)
        if draft.oneIn(4) { policy.attempts = 2 }
        if draft.oneIn(4) { policy.chunk = 1 }
        return policy
    }

    private func conversion(of file: Draft.File, in draft: inout Draft) -> Conversion {
        // The monitor writes zeros, or makes a call for each chunk.
        var conversion = Conversion(draft.pages(of: file, isTouched: self == .ask), to: draft.state())
        if self == .ask { Self.ask(&conversion, in: &draft) }
        if self == .convertFrom { conversion.structure = draft.pick([.readOnly, .unmapped, .cut]) ?? .cut }
        guard self == .convertOddly else { return conversion }
        func word(_ draft: inout Draft) -> UInt64 { 1 << draft.below(64) }
        switch draft.below(10) {
        case 0: conversion.flags = word(&draft)
        case 1: conversion.reserved = [.init(index: Int(draft.below(11)), value: word(&draft))]
        case 2: conversion.errorOffset = word(&draft)
        case 3: conversion.attributes = word(&draft) | draft.below(2) * Attributes.private
        case 4: conversion.extent.size = 0
        case 5: conversion.extent.size = .max - draft.below(2) * (pageSize - 1)
        case 6: conversion.extent.offset += 1
        case 7: conversion.extent.size += 1
        case 8: conversion.extent.size += pageSize * (1 + draft.below(4))
        default: conversion.extent.offset = file.pages * pageSize
        }
        // Several arguments may be wrong, to test the order of the kernel's checks.
        if draft.oneIn(4) { conversion.flags = word(&draft) }
        return conversion
    }

    private func newFile(in draft: inout Draft) -> NewFile {
        var flags = draft.below(4)
        if draft.oneIn(6) { flags |= 1 << draft.below(64) }
        var file = NewFile(draft.freshName("f"), size: (1 + draft.below(3)) * pageSize, flags: flags)
        if draft.oneIn(8) { file.size = draft.below(2) * (pageSize + 1) }
        if draft.oneIn(4) { file.vm = draft.pick([.default, .second]) }
        return file
    }

    private func binding(in draft: inout Draft) -> Binding? {
        guard let file = draft.pick(draft.files), file.pages > 0 else { return nil }
        var binding = Binding(
            slot: UInt32(draft.below(3)), to: draft.pages(of: file, isTouched: true),
            gpa: (draft.below(4) + 4) * pageSize)
        if draft.oneIn(4) { binding.gpa = draft.below(6) * pageSize }
        if draft.oneIn(6) { binding.extent.size += pageSize }
        return binding
    }
}
