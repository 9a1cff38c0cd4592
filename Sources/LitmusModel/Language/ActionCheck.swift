// SPDX-License-Identifier: MIT
import ConversionModel

// Checks of actions and of the names that they use.
extension Check {
    package mutating func action(_ action: Action, by actor: Actor) throws(TestProblem) {
        if action.extent?.name == .guest, action.single == action {
            guard case .convert(let conversion) = action else {
                throw fail("only `convert` accepts `guest:`; a vCPU's pages are always guest-physical")
            }
            try monitor(conversion)
            return try guest(conversion)
        }
        switch action {
        case .every(let pattern, let action): try self.pattern(pattern, action, by: actor)
        case .confidential(let action): try confidential(action)
        case .read(let place), .write(let place, _): try view(place.name, actor)
        case .fill(let extent, _), .check(let extent, _):
            try touch(extent)
            try view(extent.name, actor)
        case .hold(let extent, _, let hold):
            try touch(extent)
            try view(extent.name, actor)
            try newName(hold)
            try require(holds.insert(hold).inserted, "there is already a hold `\(hold)`")
        case .advise(let extent, _):
            _ = try end(of: extent)
            try view(extent.name, actor)
        case .convert(let conversion):
            try file(conversion.extent.name)
            try monitor(conversion)
            try require(
                conversion.reserved.allSatisfy { (0...10).contains($0.index) },
                "reserved words are numbered 0 to 10")
        case .allocate(let extent), .punch(let extent): try file(extent.name)
        case .map(let extent, let view):
            try file(extent.name)
            try require(extent.size <= LitmusTest.mostPages * pageSize, "a view has at most 1 TiB")
            try newView(view)
        case .unmap(let name):
            try view(name, actor)
            forget(name)
        case .remap(let name, let pages, let new):
            try view(name, actor)
            try require(pages <= LitmusTest.mostPages, "a view has at most 1 TiB")
            forget(name)
            try newView(new)
        case .protect(let extent, _), .mbind(let extent, _, _):
            _ = try end(of: extent)
            try view(extent.name, actor)
        case .node(let place), .migrate(let place, _): try view(place.name, actor)
        case .release(let hold):
            try require(holds.remove(hold) != nil, "there is no hold `\(hold)`")
        case .create(let new):
            try newFile(new.name)
        case .dup(let name, let copy):
            try file(name)
            try newFile(copy)
        case .close(let name):
            try file(name)
            files.remove(name)
            closed.insert(name)
        case .bind(let binding):
            try file(binding.extent.name)
            try require(binding.extent.size > 0, "a slot of 0 bytes: use `unbind`")
            if let address = binding.address { try view(address.name, actor) }
        case .unbind, .again, .zapped, .extension, .dirty: break
        case .setAttributes(let extent, _, _, _):
            try require(extent.name == .ram, "a VM's attributes are for guest-physical pages: omit the name")
        case .syscall(let name, _): try file(name)
        case .peek(let place): try view(place.name, actor)
        case .preFault where vm.isConfidential, .clock where vm.isConfidential:
            throw fail("the model of SNP and TDX does not have `\(action.word)`")
        case .preFault(let extent):
            try require(extent.name == .ram, "a vCPU uses guest-physical pages: omit the name")
        case .clock(let place):
            try require(place.name == .ram, "a vCPU uses guest-physical pages: omit the name")
        case .present(let extent):
            _ = try end(of: extent)
            try view(extent.name, actor)
        case .hypercall(let extent, let attributes):
            try require(extent.name == .ram, "a vCPU uses guest-physical pages: omit the name")
            try require(
                !vm.isConfidential || Attributes.state(attributes) != nil,
                "a page state change and MapGPA ask for `private` or `shared`: omit `attributes`")
        case .fork(let child):
            try require((0..<Actor.limit).contains(child), "actors have numbers below \(Actor.limit)")
            try require(children[child] == nil, "\(Actor.child(child)) has already been forked")
            children[child] = views
        }
    }

    /// A pattern: its calls, and their number.
    private mutating func pattern(_ pattern: Pattern, _ action: Action, by actor: Actor) throws(TestProblem) {
        try require(pattern.stride > 0, "`every` needs a number of pages of at least 1")
        guard let count = pattern.count else {
            throw fail("`every` is for whole pages, which \(pattern.extent) is not")
        }
        try require(
            action.moved(to: pattern.first) == action,
            "`every` is for \(Action.patternWords.map { "`\($0)`" }.joined(separator: ", "))")
        var most = action.isAccess ? Pattern.mostTouched : Pattern.mostCalls
        var what =
            action.isAccess
            ? "one step accesses at most \(most) pages (64 MiB)" : "one step makes at most \(most) calls"
        if case .vcpu = actor, !action.isAccess {
            most = Pattern.mostEntries
            what = "one step of a vCPU makes at most \(most) calls"
        }
        try require(
            count <= most,
            "`every \(pattern.stride) of \(pattern.extent)` is \(count) calls, and \(what): use a larger distance, "
                + "a smaller range, or several steps")
        try self.action(action, by: actor)
    }

    /// The guest's memory has no descriptor, so a bare call on it is impossible.
    package func guest(_ conversion: Conversion) throws(TestProblem) {
        try require(!regions.isEmpty, "the guest has no memory: bind one with `memory`")
        if let name = replaced.sorted(by: { $0.description < $1.description }).first {
            throw fail("the guest's memory `\(name)` was closed, and its name now refers to another file")
        }
        try require(
            conversion.contents != nil,
            "the guest's memory may have several files: add a content policy (`preserve`, `zero` or "
                + "`unspecified`), so that the monitor converts")
        try require(
            conversion.isPlain && Attributes.state(conversion.attributes) != nil,
            "for `guest:` the monitor fills in the struct: omit `attributes`, `flags`, `reserved`, "
                + "`error_offset` and `struct`")
        try require(
            PageRange(start: conversion.extent.offset, size: conversion.extent.size) != nil,
            "the monitor converts whole pages, which `\(conversion.extent)` is not")
    }

    package func monitor(_ conversion: Conversion) throws(TestProblem) {
        try require(
            conversion.contents != nil || conversion.monitor == MonitorPolicy(),
            "`bisect`, `attempts` and `chunk` need a content policy (`preserve`, `zero` or `unspecified`) before them"
        )
        try limits(of: conversion.monitor)
    }

    package func converting(_ onFault: FaultConversion, _ step: Step) throws(TestProblem) {
        var isVCPU = false
        if case .vcpu = step.actor { isVCPU = true }
        try require(
            step.action != .again || !isVCPU,
            "`again` repeats an access with its own policy: add `converting` to that access")
        try require(
            isVCPU && step.action.isAccess,
            "`converting` is for a vCPU's `read`, `write`, `fill` and `check`, which can have memory faults")
        try limits(of: onFault.monitor)
    }

    package func limits(of monitor: MonitorPolicy) throws(TestProblem) {
        try require(
            (1...MonitorPolicy.mostAttempts).contains(monitor.attempts),
            "`attempts` must be 1 to \(MonitorPolicy.mostAttempts)")
        try require(
            monitor.chunk.map { (1...LitmusTest.mostPages).contains($0) } ?? true,
            "`chunk` must be 1 to \(LitmusTest.mostPages) pages")
    }

    package func end(of extent: Extent) throws(TestProblem) -> UInt64 {
        let (end, overflow) = extent.offset.addingReportingOverflow(extent.size)
        try require(!overflow && extent.size > 0, "a step needs at least one byte, below 2^64")
        return end
    }

    package func touch(_ extent: Extent) throws(TestProblem) {
        _ = try end(of: extent)
        try require(extent.size <= LitmusTest.mostTouched, "one step accesses at most 64 MiB")
    }

    package func file(_ name: Name) throws(TestProblem) {
        try require(files.contains(name) || closed.contains(name), "there is no file `\(name)`")
    }

    package func newName(_ name: Name) throws(TestProblem) {
        try require(name != .guest, "`guest` is the guest's memory: choose another name")
    }

    package mutating func newFile(_ name: Name) throws(TestProblem) {
        try newName(name)
        if regions.contains(name) { replaced.insert(name) }
        try require(files.insert(name).inserted, "there is already a file `\(name)`")
        closed.remove(name)
    }

    package mutating func newView(_ name: Name) throws(TestProblem) {
        try newName(name)
        try require(views.insert(name).inserted, "there is already a view `\(name)`")
        unmapped.remove(name)
    }

    package mutating func forget(_ view: Name) {
        views.remove(view)
        unmapped.insert(view)
    }

    package func view(_ name: Name, _ actor: Actor) throws(TestProblem) {
        if case .vcpu = actor {
            let isAlias = name == .ram || name == .shared && hasTwoAliases
            return try require(
                isAlias,
                "a vCPU uses guest-physical pages, not views (`shared:` needs `aliases two`, `vm snp` or `vm tdx`)"
            )
        }
        if case .child(let number) = actor, children[number]?.contains(name) == true { return }
        try require(views.contains(name) || unmapped.contains(name), "there is no view `\(name)`")
    }
}
