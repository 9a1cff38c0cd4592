// SPDX-License-Identifier: MIT
import Litmus
import MiniVMM
import SystemPackage

// The outcomes of steps of the host and its children, as C expressions.
extension StepWriter {
    /// A part of a view, as address and length.
    mutating func place(_ extent: Extent) -> String {
        let start = offset(extent.offset)
        return (start == "0" ? view(extent.name) : "\(view(extent.name)) + \(start)")
            + ", \(CText.bytes(extent.size))"
    }

    /// A place of guest memory, as the guest addresses it.
    func address(_ name: Name, _ bytes: UInt64) -> String {
        let text = offset(bytes)
        guard test.hasTwoAliases, name == .shared else { return text }
        return text == "0" ? "SHARED_ALIAS" : "SHARED_ALIAS + \(text)"
    }

    func offset(_ bytes: UInt64) -> String { repeatedOffset ?? CText.bytes(bytes) }
    func range(_ extent: Extent) -> String { "\(offset(extent.offset)), \(CText.bytes(extent.size))" }

    /// The C expression of the step's outcome.
    mutating func expression(_ step: Step) throws(ExportProblem) -> String {
        switch step.actor {
        case .vcpu(let number): return try guest(step, number)
        case .child(let number):
            let child = "&" + child(number) + ", "
            switch step.action {
            case .read(let place): return "child_read(\(child)\(view(place.name)), \(offset(place.offset)))"
            case .write(let place, let byte):
                return
                    "child_write(\(child)\(view(place.name)), \(offset(place.offset)), \(CText.byte(byte)))"
            case .fill(let extent, let byte):
                return "child_fill(\(child)\(view(extent.name)), \(range(extent)), \(CText.byte(byte)))"
            case .check(let extent, let byte):
                return "child_check(\(child)\(view(extent.name)), \(range(extent)), \(CText.byte(byte)))"
            default: throw .step(step.text, reason: "a child only accesses memory")
            }
        case .host: return try host(step)
        }
    }

    mutating func host(_ step: Step) throws(ExportProblem) -> String {
        switch step.action {
        case .read(let place): return "read_byte(\(view(place.name)), \(offset(place.offset)))"
        case .write(let place, let byte):
            return "write_byte(\(view(place.name)), \(offset(place.offset)), \(CText.byte(byte)))"
        case .fill(let extent, let byte):
            return "fill(\(view(extent.name)), \(range(extent)), \(CText.byte(byte)))"
        case .check(let extent, let byte):
            return "check(\(view(extent.name)), \(range(extent)), \(CText.byte(byte)))"
        case .convert(let conversion): return try convert(step, conversion)
        case .map(let extent, let name):
            try checkView(name, of: step)
            canRestore = false
            views[name] = View(file: extent.name, offset: extent.offset, size: extent.size)
            let function = ending.contains(name) ? "map_alone" : "map_file"
            return "\(function)(\(file(extent.name)), \(range(extent)), &\(view(name)))"
        case .unmap(let name):
            canRestore = false
            guard let old = views.removeValue(forKey: name) ?? gone[name] else {
                throw .step(step.text, reason: "no earlier step maps this view")
            }
            gone[name] = old
            return "answer(munmap(\(view(name)), \(CText.bytes(old.size))))"
        case .remap(let name, let pages, let new):
            try checkView(new, of: step)
            canRestore = false
            guard let old = views.removeValue(forKey: name) ?? gone[name] else {
                throw .step(step.text, reason: "no earlier step maps this view")
            }
            gone[name] = old
            views[new] = View(file: old.file, offset: old.offset, size: pages &* pageSize)
            return
                "remap_view(\(view(name)), \(CText.bytes(old.size)), \(CText.bytes(pages &* pageSize)), &\(view(new)))"
        case .protect(let extent, let protection):
            canRestore = false
            return "answer(mprotect(\(place(extent)), \(CText.protection(protection))))"
        case .mbind(let extent, let policy, let flags):
            canRestore = false
            return available(
                step,
                "set_policy(\(view(extent.name)), \(range(extent)), \(CText.policy(policy)), \(flags.rawValue))"
            )
        case .migrate(let place, let node):
            canRestore = false
            return available(step, "move_page(\(view(place.name)), \(offset(place.offset)), \(node))")
        case .node(let place):
            return available(step, "move_page(\(view(place.name)), \(offset(place.offset)), -1)")
        case .advise(let extent, let advice):
            let arguments = "\(view(extent.name)), \(range(extent)), \(CText.advice(advice))"
            switch advice {
            case .hwPoison, .softOffline:
                canRestore = false
                return "fail_memory(\(arguments))"
            case .collapse: canRestore = false
            case .dontNeed, .remove, .populateRead, .populateWrite: break
            }
            return "answer(madvise(\(place(extent)), \(CText.advice(advice))))"
        case .allocate(let extent): return "allocate(\(file(extent.name)), \(range(extent)))"
        case .punch(let extent): return "punch_hole(\(file(extent.name)), \(range(extent)))"
        case .hold(let extent, let kind, let name):
            holders[name] = kind
            let call =
                "hold_by_\(kind.rawValue)(&\(hold(name, kind)), \(view(extent.name)), \(range(extent)))"
            let isExpected =
                kind == .vmsplice || Self.missingHolder.contains { step.expects(ErrorNumber($0)) }
            return isExpected ? call : "need_holder(\"\(kind.rawValue)\", \(call))"
        case .create(let new):
            canRestore = false
            sizes[new.name] = new.size
            return
                "create_file(\(vm(new.vm)), &\(file(new.name)), \(CText.bytes(new.size)), \(flags(new.flags)))"
        case .close(let name):
            canRestore = false
            return "answer(close(\(file(name))))"
        case .dup(let name, let copy):
            canRestore = false
            sizes[copy] = sizes[name]
            return "duplicate_file(\(file(name)), &\(file(copy)))"
        case .bind(let binding): return try bind(step, binding)
        case .unbind(let slot, let name):
            canRestore = false
            if test.hasTwoAliases {
                throw .step(
                    step.text, reason: "a program with two aliases cannot change the guest's memslots")
            }
            let call = "delete_slot(\(vm(name)), \(slot))"
            return hasHypercalls && isMain(name) ? "unbind_noted(\(slot), \(call))" : call
        case .dirty(let slot, let name): return "dirty_log(\(vm(name)), \(slot))"
        case .setAttributes(let extent, let attributes, let flags, let name):
            canRestore = false
            return
                "set_vm_attributes(\(vm(name)), \(range(extent)), \(CText.attributes(attributes)), \(flags))"
        case .syscall(let name, let call):
            canRestore = false
            return CText.call(call, file(name))
        case .peek(let place): return "peek(\(view(place.name)), \(offset(place.offset)))"
        case .zapped: return "zapped_pages(\(vm(nil)), pages)"
        case .present(let extent): return "present_pages(\(view(extent.name)), \(range(extent)))"
        case .extension(let number): return "as_byte(ioctl(\(vm(nil)), KVM_CHECK_EXTENSION, \(number)))"
        case .release, .fork, .hypercall, .again, .preFault, .clock, .every, .confidential:
            throw .step(step.text, reason: "\(step.actor) does not do that")
        }
    }

    func isMain(_ name: VMName?) -> Bool { name == nil || name == VMName(test.vm) }

    static let missingHolder: [Errno] = [
        .noSuchFileOrDirectory, .noFunction, .notPermitted, .permissionDenied, .operationNotSupportedByDevice,
        .noSuchAddressOrDevice,
    ]

    /// A call that some kernels do not support, which skips the test.
    func available(_ step: Step, _ call: String) -> String {
        let missing: [Errno] = [.noFunction, .notPermitted, .notSupportedOnSocket]
        return missing.contains { step.expects(ErrorNumber($0)) } ? call : "need_call(\(call))"
    }

    func flags(_ flags: UInt64) -> String {
        switch flags {
        case 1: "GUEST_MEMFD_FLAG_MMAP"
        case 2: "GUEST_MEMFD_FLAG_INIT_SHARED"
        case 3: "GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED"
        default: CText.word(flags)
        }
    }

    mutating func bind(_ step: Step, _ binding: Binding) throws(ExportProblem) -> String {
        canRestore = false
        if test.hasTwoAliases {
            throw .step(step.text, reason: "a program with two aliases cannot change the guest's memslots")
        }
        let extent = binding.extent
        let address: String
        if let place = binding.address {
            address = pointer(view(place.name), place.offset)
        } else if let known = views[extent.name], known.file == extent.name, extent.offset >= known.offset,
            case let start = extent.offset - known.offset, start <= known.size,
            extent.size <= known.size - start
        {
            address = pointer(view(extent.name), start)
        } else {
            address = "NULL"
        }
        let flags =
            binding.flags == Binding.guestMemfd ? "KVM_MEM_GUEST_MEMFD" : CText.word(UInt64(binding.flags))
        let file = file(extent.name)
        let call =
            "bind_slot(\(vm(binding.vm)), \(binding.slot), \(flags), \(file), \(range(extent)), "
            + "\(CText.bytes(binding.gpa)), \(address))"
        guard hasHypercalls, isMain(binding.vm) else { return call }
        return "bind_noted(\(call), \(binding.slot), \(file), \(range(extent)), \(CText.bytes(binding.gpa)))"
    }

    func pointer(_ view: String, _ offset: UInt64) -> String {
        offset == 0 ? view : "\(view) + \(CText.bytes(offset))"
    }
}
