// SPDX-License-Identifier: MIT
import MiniVMM
import SoftKVM

@testable import Litmus

/// Generates random valid tests, each of which has a written form.
struct TestMaker {
    private var generator: Generator
    private var files: [Name] = []
    private var views: [Name] = []
    private var holds: [Name] = []
    /// Whether the guest has memory.
    private var hasRegions = false
    private var children: [Int] = []
    private var hasTwoAliases = false
    /// vCPUs whose last access has a fault policy that is not allowed in a block.
    private var zeroing: Set<Int> = []
    private var names = 0

    init(seed: UInt64) { generator = Generator(seed: seed) }

    mutating func next() -> LitmusTest {
        (files, views, holds, children, names, zeroing) = ([], [], [], [], 0, [])
        let letters = Array("abc XYZ #=>:.,!'".unicodeScalars)
        var test = LitmusTest(
            name: "t"
                + String(String.UnicodeScalarView((0..<below(30)).map { _ in letters[below(letters.count)] }))
        )
        test.hazards = many(3) {
            Hazard($0.flip() ? .historic : $0.flip() ? .vendor : .applied, number: UInt16($0.below(99)))
        }
        let needs =
            [Need.inPlace, .preservation, .references, .nodes(UInt32(below(65)))]
            + HoldKind.allCases.map(Need.holder)
        test.needs = many(3) { needs[$0.below(needs.count)] }
        if below(4) == 0 {
            test.settings.isInPlaceOff = flip()
            if flip() { test.settings.attributeRuns = below(9) }
            if flip() { test.settings.design = ContentDesign.allCases[below(6)] }
            if flip() { test.settings.keptDirection = state() }
        }
        test.vm = flip() ? .default : .softwareProtected
        hasTwoAliases = test.vm == .softwareProtected && flip()
        test.hasTwoAliases = hasTwoAliases
        for index in 0...below(3) {
            let name = index == 0 ? Name.ram : fresh()
            test.memory.append(
                Memory(name: name, pages: 1 + UInt64(below(99)), initial: state(), isUnbound: flip()))
            files.append(name)
            views.append(name)
        }
        hasRegions = !test.memory.regions.isEmpty
        for _ in 0...below(12) {
            if below(8) == 0 {
                var results: [Name] = []
                let steps = (0...below(3)).map { _ in
                    var step = self.step()
                    // Steps that are not allowed in a block.
                    switch step.action {
                    case .check(let extent, _), .fill(let extent, _):
                        step = Step(.host(1), .punch(extent.atHome))
                    case .every(let pattern, _): step = Step(.host(1), .punch(pattern.extent.atHome))
                    case .again where zeroing.contains(step.actor.number):
                        step = Step(.host(2), .read(place()))
                    case .read, .write:
                        if let onFault = step.onFault {
                            step.onFault = FaultConversion(
                                onFault.contents == .zero ? .preserve : onFault.contents)
                            zeroing.remove(step.actor.number)
                        }
                    case .fork, .zapped: step = Step(.host(1), .write(place(), 1))
                    case .convert(var conversion) where conversion.contents != nil:
                        if conversion.contents == .zero { conversion.contents = .preserve }
                        conversion.monitor = MonitorPolicy()
                        step.action = .convert(conversion)
                    default: break
                    }
                    if flip() {
                        results.append(fresh())
                        step.expectation = .named(results[results.count - 1])
                    }
                    return step
                }
                let clauses =
                    results.isEmpty
                    ? []
                    : many(3) { maker in
                        Clause(
                            Clause.Kind.allCases[maker.below(3)],
                            (0...maker.below(2)).map { _ in
                                Clause.Condition(
                                    result: results[maker.below(results.count)], outcome: maker.anyOutcome())
                            })
                    }
                var block = Parallel(steps: steps, clauses: clauses)
                if block.actors.count > 1, flip() {
                    block.preemption = Preemption(
                        of: block.actors[0], at: UInt64(below(5000)), by: block.actors[1],
                        second: flip() ? nil : .init(block.actors[0], after: UInt64(below(5000))))
                    block.preemption?.outcome = clauses.first?.conditions ?? []
                }
                test.body.append(.parallel(block))
            } else {
                test.body.append(.step(step()))
            }
        }
        return test
    }

    // MARK: parts

    private mutating func below(_ bound: Int) -> Int { generator.below(bound) }
    private mutating func flip() -> Bool { generator.below(2) == 0 }
    private mutating func state() -> PageState { flip() ? .shared : .private }

    private mutating func many<T>(_ most: Int, _ make: (inout TestMaker) -> T) -> [T] {
        (0..<below(most + 1)).map { _ in make(&self) }
    }

    private mutating func fresh() -> Name {
        names += 1
        return Name("n_\(names)") ?? .ram
    }

    /// A small number, one near a multiple of the page size, one near 2^64, or any.
    private mutating func word() -> UInt64 {
        switch below(5) {
        case 0: UInt64(below(20))
        case 1: UInt64(below(20)) * pageSize
        case 2: UInt64(below(20)) * pageSize + 1
        case 3: UInt64.max - UInt64(below(9000))
        default: generator.next()
        }
    }

    private mutating func extent(of names: [Name]) -> Extent {
        let name = names[below(names.count)]
        if flip() {
            let first = UInt32(below(50))
            return Extent(name, pages: first...(first + UInt32(below(5))))
        }
        return Extent(name, offset: word(), size: word())
    }

    private mutating func touched() -> Extent {
        Extent(views[below(views.count)], offset: UInt64(below(100_000)), size: 1 + UInt64(below(50_000)))
    }

    private mutating func place() -> Place { Place(views[below(views.count)], offset: word()) }

    private mutating func anyOutcome() -> StepOutcome {
        switch below(8) {
        case 0: .ok
        case 1: .errno(1 + Int32(below(200)))
        case 2: .errno(11, at: word())
        case 3: .value(UInt8(below(256)))
        case 4: .sigbus(at: flip() ? nil : word())
        case 5: .differs(at: word())
        case 6: .fault(state(), at: flip() ? nil : word())
        default: .mmio
        }
    }

    private mutating func vm() -> VMName? { flip() ? nil : VMName.allCases[below(3)] }

    /// An access by a vCPU.
    private mutating func access(_ expecting: ([StepOutcome]) -> Expectation) -> Step {
        let vcpu = below(4)
        var touched = self.touched()
        touched.name = hasTwoAliases && flip() ? .shared : .ram
        let place = Place(touched.name, offset: word())
        let byte = UInt8(below(256))
        let action = [
            Action.read(place), .write(place, byte), .fill(touched, byte), .check(touched, byte),
        ][below(4)]
        var step = Step(
            .vcpu(vcpu), action, expecting([.fault(state(), at: flip() ? nil : word()), .mmio]))
        if flip() {
            var onFault = FaultConversion(ContentPolicy.allCases[below(3)])
            onFault.monitor.bisects = flip()
            if flip() { onFault.monitor.attempts = 1 + below(MonitorPolicy.mostAttempts) }
            if flip() { onFault.monitor.chunk = 1 + UInt64(below(9)) }
            step.onFault = onFault
            if step.expectation != .unspecified {
                step.expectation = .anyOf([.errno(11, at: word()), .mmio])
            }
        }
        if step.onFault?.isOneCall ?? true { zeroing.remove(vcpu) } else { zeroing.insert(vcpu) }
        return step
    }

    /// A pattern of an action on a file.
    private mutating func pattern(_ actor: Actor, _ expectation: Expectation) -> Step {
        let file = files[below(files.count)]
        let first = UInt32(below(1000))
        let extent = Extent(file, pages: first...(first + UInt32(below(1000))))
        let stride = 1 + (flip() ? UInt64(below(9)) : word() >> 1)
        let conversion = Conversion(extent, to: state(), contents: flip() ? .preserve : nil)
        let action: Action = flip() ? .convert(conversion) : flip() ? .allocate(extent) : .punch(extent)
        return Step(actor, Action.every(stride, of: extent, action) ?? .punch(extent), expectation)
    }

    private mutating func step() -> Step {
        let actor = Actor.host(below(3))
        let sometimes = flip()
        func expecting(_ outcomes: [StepOutcome]) -> Expectation {
            sometimes ? .anyOf(outcomes) : .unspecified
        }
        let refusal = StepOutcome.errno(22)
        switch below(36) {
        case 32, 33: return access(expecting)
        case 34, 35: return pattern(actor, expecting([refusal, .errno(11, at: word()), .ok]))
        case 24 where views.count > 1:
            let (old, new) = (views.removeLast(), fresh())
            views.append(new)
            return Step(actor, .remap(old, pages: UInt64(below(9)), view: new), expecting([refusal]))
        case 25:
            return Step(actor, .protect(touched(), Protection.allCases[below(3)]), expecting([.errno(12)]))
        case 26:
            let policies: [MemoryPolicy] = [
                .standard, .local, .bind(UInt32(below(3))), .preferred(UInt32.max),
            ]
            let flags: [PolicyFlags] = [[], .strict, .move, [.strict, .move]]
            return Step(
                actor, .mbind(touched(), policies[below(4)], flags[below(4)]), expecting([.errno(5), .ok]))
        case 27:
            return flip()
                ? Step(actor, .node(place()), expecting([.value(1), .errno(2)]))
                : Step(actor, .migrate(place(), node: UInt32(below(3))), expecting([.errno(16)]))
        case 28:
            let (file, copy) = (files[below(files.count)], fresh())
            files.append(copy)
            return Step(actor, .dup(file, file: copy), expecting([.errno(9)]))
        case 29: return Step(actor, .close(files[below(files.count)]), expecting([.errno(9), .ok]))
        case 30:
            return Step(actor, .dirty(slot: UInt32(below(9)), on: vm()), expecting([.value(5), .errno(2)]))
        case 31:
            return Step(
                actor,
                .setAttributes(
                    extent(of: [.ram]), attributes: word(), flags: flip() ? 0 : word(), on: vm()),
                expecting([.errno(25), refusal]))
        case 20: return Step(actor, .peek(place()), expecting([.errno(5), .value(3)]))
        case 21:
            let file = files[below(files.count)]
            return Step(actor, .syscall(file, FileCall.allCases[below(5)]), expecting([refusal]))
        case 22: return Step(.vcpu(1), .preFault(extent(of: [.ram])), expecting([.errno(2), .ok]))
        case 23: return Step(.vcpu(0), .clock(Place(offset: word())), expecting([refusal]))
        case 17:
            return Step(actor, flip() ? .zapped : .present(touched()), expecting([.value(UInt8(below(256)))]))
        case 18: return Step(actor, .extension(UInt32(below(300))), expecting([.value(8), refusal]))
        case 19:
            return Step(
                .vcpu(below(4)), .again, expecting([.fault(state(), at: flip() ? nil : word()), .value(1)]))
        case 0: return Step(actor, .read(place()), expecting([.value(UInt8(below(256))), .sigbus()]))
        case 1: return Step(actor, .write(place(), UInt8(below(256))), expecting([.ok]))
        case 2:
            return Step(actor, .fill(touched(), UInt8(below(256))), expecting([.sigbus(at: word()), .ok]))
        case 3: return Step(actor, .check(touched(), UInt8(below(256))), expecting([.differs(at: word())]))
        case 4, 5:
            var conversion = Conversion(
                extent(of: files), attributes: flip() ? Attributes.word(state()) : word())
            if flip() {
                conversion.contents = ContentPolicy.allCases[below(3)]
                conversion.monitor.bisects = flip()
                conversion.monitor.attempts = 1 + below(MonitorPolicy.mostAttempts)
                if flip() { conversion.monitor.chunk = 1 + UInt64(below(9)) }
            }
            if conversion.contents != nil, hasRegions, flip() {
                let first = UInt32(below(50))
                conversion.extent = Extent(.guest, pages: first...(first + UInt32(below(5))))
                conversion.attributes = Attributes.word(state())
                return Step(actor, .convert(conversion), expecting([.errno(11, at: word()), .ok, refusal]))
            }
            if below(4) == 0 { conversion.flags = word() }
            conversion.reserved = many(2) { Conversion.Word(index: $0.below(11), value: $0.word()) }
            if below(4) == 0 { conversion.errorOffset = word() }
            conversion.structure = Conversion.Structure.allCases[below(4)]
            return Step(actor, .convert(conversion), expecting([.errno(11, at: word()), .ok, refusal]))
        case 6:
            var part = extent(of: files)
            part.size = min(part.size, 1 << 40)
            let view = fresh()
            views.append(view)
            return Step(actor, .map(part, view: view), expecting([refusal]))
        case 7 where views.count > 1: return Step(actor, .unmap(views.removeLast()), expecting([.ok]))
        case 8: return Step(actor, .advise(touched(), Advice.allCases[below(7)]), expecting([refusal]))
        case 9: return Step(actor, .allocate(extent(of: files)), expecting([refusal, .errno(27)]))
        case 10: return Step(actor, .punch(extent(of: files)), expecting([refusal]))
        case 11:
            holds.append(fresh())
            return Step(
                actor, .hold(touched(), by: HoldKind.allCases[below(4)], hold: holds[holds.count - 1]),
                expecting([.errno(14)]))
        case 12 where !holds.isEmpty: return Step(actor, .release(holds.removeLast()), expecting([.ok]))
        case 13:
            let file = NewFile(fresh(), size: word(), flags: word(), vm: vm(), preserves: flip())
            files.append(file.name)
            return Step(actor, .create(file), expecting([refusal]))
        case 14:
            var binding = Binding(slot: UInt32(below(9)), to: extent(of: files), gpa: word(), vm: vm())
            binding.extent.size = max(1, binding.extent.size)
            if flip() { binding.flags = UInt32(below(64)) }
            if flip() { binding.address = place() }
            return Step(actor, .bind(binding), expecting([refusal, .errno(17)]))
        case 15:
            return Step(
                .vcpu(below(4)), .hypercall(extent(of: [.ram]), attributes: word()), expecting([refusal]))
        case 16 where children.count < 4:
            children.append(children.count)
            return Step(actor, .fork(child: children.count - 1), expecting([.ok]))
        default: return Step(actor, .unbind(slot: UInt32(below(9)), on: vm()), expecting([refusal]))
        }
    }
}

extension Actor {
    fileprivate var number: Int {
        switch self {
        case .host(let number), .vcpu(let number), .child(let number): number
        }
    }
}

extension Extent {
    /// The same bytes in the file that always exists.
    fileprivate var atHome: Extent { Extent(offset: offset, size: size) }
}

typealias Generator = SplitMix64

extension SplitMix64 {
    mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(bound)) }
}
