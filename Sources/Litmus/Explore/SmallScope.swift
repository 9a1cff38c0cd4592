import MiniVMM
import SoftKVM

/// Everything that can be done to two pages in a few steps, once: breadth first over the states of the model, every step of
/// the alphabet from every state, on the shortest way to it.
///
/// It begins with two shared pages, two private ones, and one of each. Where the kernel has them, a default VM and a file whose
/// attributes can have few runs are gone through in the same way, the first in one step: on it nothing changes state.
///
/// What a step leaves as it was is tried in one test with the others of that state; one that changes something has a test of
/// its own, with a look at every page behind it.
struct SmallScope {
    struct Size: Sendable, Equatable {
        /// Different states of the machine in which steps were tried.
        var states = 0
        /// Steps that were tried in them.
        var transitions = 0
    }

    private let alphabet: [Step]
    private let looks: [Step]
    private let depth: Int
    private let machines: Set<Palette.Machine>
    private let configuration: SoftKVM.Configuration

    init(
        _ moves: Set<Move>, on machines: Set<Palette.Machine> = [], depth: Int,
        _ configuration: SoftKVM.Configuration
    ) {
        alphabet = Self.letters.filter { moves.contains($0.move) }.map(\.step)
        // What is mapped is counted before anybody touches it.
        looks = [.present, .zapped, .hostRead, .guestRead].flatMap { look in
            Self.letters.filter { $0.move == look && moves.contains(look) }.map(\.step)
        }
        self.depth = depth
        self.machines = machines
        self.configuration = configuration
    }

    private static let letters: [(move: Move, step: Step)] = {
        var letters: [(Move, Step)] = []
        func add(_ move: Move, _ role: Role, _ action: Action) { letters.append((move, Step(role, action))) }
        let both = Extent(pages: 0...1)
        let host = Role.host(0)
        let vcpu = Role.vcpu(0)
        for extent in [Extent(pages: 0...0), Extent(pages: 1...1), both] {
            for state in PageState.allCases { add(.convert, host, .convert(Conversion(extent, to: state))) }
        }
        // What the conversions that changed nothing have unmapped.
        add(.present, host, .present(both))
        add(.zapped, host, .zapped)
        for page in [0, 1] as [UInt32] {
            add(.hostRead, host, .read(Place(page: page)))
            add(.hostWrite, host, .write(Place(page: page), 0x41))
            add(.guestRead, vcpu, .read(Place(page: page)))
            add(.guestWrite, vcpu, .write(Place(page: page), 0x56))
            add(.punch, host, .punch(Extent(pages: page...page)))
            guard let hold = Name("h\(page)") else { continue }
            add(.hold, host, .hold(Extent(pages: page...page), by: .vmsplice, hold: hold))
            add(.release, host, .release(hold))
        }
        for advice in [Advice.dontNeed, .remove, .populateWrite] { add(.advise, host, .advise(both, advice)) }
        add(.allocate, host, .allocate(both))
        add(.punch, host, .punch(Extent(offset: 1, size: pageSize)))
        add(.hypercall, vcpu, .hypercall(both, attributes: Attributes.private))
        add(.hypercall, vcpu, .hypercall(both, attributes: 0))
        add(.unbind, host, .unbind(slot: 0, on: nil))
        add(.bind, host, .bind(Binding(slot: 0, to: both, gpa: 0)))
        add(.bind, host, .bind(Binding(slot: 1, to: Extent(pages: 1...1), gpa: 4 * pageSize)))
        add(.preFault, vcpu, .preFault(both))
        // One thing wrong, in either direction.
        for state in PageState.allCases {
            func oddly(_ change: (inout Conversion) -> Void) {
                var conversion = Conversion(both, to: state)
                change(&conversion)
                add(.convertOddly, host, .convert(conversion))
            }
            oddly { $0.flags = 1 }
            oddly { $0.reserved = [.init(index: 10, value: 1)] }
            oddly { $0.errorOffset = 1 }
            oddly { $0.attributes |= 1 }
            oddly { $0.extent.size = 0 }
            oddly { $0.extent.size = pageSize + 1 }
            oddly { $0.extent.offset = 1 }
            oddly { $0.extent.offset = pageSize }
            oddly { $0.extent.offset = 2 * pageSize }
            oddly {
                $0.extent.size = .max - pageSize + 1
                $0.extent.offset = pageSize
            }
            for structure in [Conversion.Structure.readOnly, .unmapped, .cut] {
                var conversion = Conversion(both, to: state)
                conversion.structure = structure
                add(.convertFrom, host, .convert(conversion))
            }
        }
        return letters
    }()

    /// Goes through it.
    ///
    /// - Parameter test: what is to be run; false ends it.
    /// - Returns: how much there was, as far as it was gone through.
    func explore(_ test: (LitmusTest) throws(Stop) -> Bool) throws(Stop) -> Size {
        var size = Size()
        guard depth > 0, !alphabet.isEmpty else { return size }
        for (machine, beginnings, depth) in starts {
            guard try explore(machine, from: beginnings, depth, &size, test) else { break }
        }
        return size
    }

    /// The machines, with the steps that lead to where it begins on each, and how many steps are tried from there.
    private var starts: [(machine: LitmusTest, beginnings: [[Step]], depth: Int)] {
        var starts: [(LitmusTest, [[Step]], Int)] = []
        for initial in PageState.allCases.reversed() {
            func machine(_ change: (inout LitmusTest) -> Void) -> LitmusTest {
                var test = LitmusTest(name: "small scope", memory: [Memory(pages: 2, initial: initial)])
                change(&test)
                return test
            }
            let other: PageState = initial == .shared ? .private : .shared
            let mixed = Step(.host(0), .convert(Conversion(Extent(pages: 1...1), to: other)))
            starts.append((machine { _ in }, alphabet.contains(mixed) ? [[], [mixed]] : [[]], depth))
            if machines.contains(.default) { starts.append((machine { $0.vm = .default }, [[]], min(1, depth))) }
            for runs in [1, 2] where machines.contains(.fewRuns) {
                starts.append((machine { $0.settings.attributeRuns = runs }, [[]], depth))
            }
        }
        return starts
    }

    private func explore(
        _ machine: LitmusTest, from beginnings: [[Step]], _ depth: Int, _ size: inout Size,
        _ test: (LitmusTest) throws(Stop) -> Bool
    ) throws(Stop) -> Bool {
        let model = ScopeModel(try KernelFacts(SoftKVM(configuration)).configured(for: machine), machine)
        defer { model.close() }
        var known: Set<[UInt8]> = []
        var queue: [(path: [Step], key: [UInt8], left: Int)] = []
        for path in beginnings {
            guard let key = try model.key(after: path) else { continue }
            if known.insert(key).inserted { queue.append((path, key, depth)) }
        }
        var next = 0
        while next < queue.count {
            let (path, key, left) = queue[next]
            next += 1
            size.states += 1
            var loops: [Step] = []
            for step in alphabet where Self.canFollow(path, step) {
                guard let after = try model.key(after: path + [step]) else { continue }
                size.transitions += 1
                if after == key {
                    loops.append(step)
                    continue
                }
                // What goes on from there begins with this step, and has the look at the state.
                if known.insert(after).inserted, left > 1 {
                    queue.append((path + [step], after, left - 1))
                } else if try !test(Self.test(machine, path + [step] + looks)) {
                    return false
                }
            }
            if try !test(Self.test(machine, path + Self.distinct(loops))) { return false }
        }
        return true
    }

    private static func test(_ machine: LitmusTest, _ steps: [Step]) -> LitmusTest {
        var test = machine
        test.body = steps.map(Entry.step)
        return test
    }

    /// A hold is there to be released, or not there to be taken.
    private static func canFollow(_ path: [Step], _ step: Step) -> Bool {
        func isHeld(_ name: Name) -> Bool {
            path.reduce(false) { held, step in
                switch step.action {
                case .hold(_, _, name): true
                case .release(name): false
                default: held
                }
            }
        }
        switch step.action {
        case .hold(_, _, let name): return !isHeld(name)
        case .release(let name): return isHeld(name)
        default: return true
        }
    }

    /// Holds that cannot be had, with names of their own.
    private static func distinct(_ steps: [Step]) -> [Step] {
        steps.enumerated().map { index, step in
            guard case .hold(let extent, let kind, _) = step.action, let name = Name("x\(index)") else {
                return step
            }
            return Step(step.role, .hold(extent, by: kind, hold: name))
        }
    }
}

/// The model, led to one state after the other.
private final class ScopeModel {
    private let facts: KernelFacts
    private let machine: LitmusTest
    private var world: World?

    init(_ facts: KernelFacts, _ machine: LitmusTest) {
        self.facts = facts
        self.machine = machine
    }

    func close() {
        world?.close()
        world = nil
    }

    /// What the machine is after these steps; nil if one of them cannot be done.
    func key(after path: [Step]) throws(Stop) -> [UInt8]? {
        if let world, !world.reset() { close() }
        let world: World
        if let here = self.world { world = here } else { world = try World(facts, machine, Patience()) }
        self.world = world
        do throws(Stop) {
            for step in path { _ = try world.perform(step) }
        } catch {
            close()
            return nil
        }
        var key: [UInt8] = []
        world.appendState(to: &key)
        return key
    }
}
