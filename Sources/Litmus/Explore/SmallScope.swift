// SPDX-License-Identifier: MIT
import MiniVMM
import SoftKVM

/// Everything that can be done to two pages in a few steps: a breadth-first search over the states of the model, which
/// tries every step of the alphabet from every state, reached on the shortest way.
///
/// It begins with two shared pages, two private pages, and one of each. If the kernel supports them, four other
/// machines are explored in the same way: a default VM (in one step, because nothing changes state on it), a VM with
/// two aliases, a VM with a page in each of two regions, and a file whose attributes can have few runs; and SNP and TDX
/// VMs. Steps with a second file are tried from the initial states only.
///
/// Steps without an effect on the state share one test for each state; a step with an effect has its own test. Each
/// test ends with checks of everything that can be seen of the pages, and with conversions in both directions, which
/// reveal remaining holders.
struct SmallScope {
    struct Size: Sendable, Equatable {
        /// Different machine states in which steps were tried.
        var states = 0
        /// Steps that were tried in them.
        var transitions = 0
    }

    private typealias Letter = (move: Move, step: Step)

    private let moves: Set<Move>
    /// The moves of a VM with two aliases; empty if the kernel has no such VM.
    private let aliasMoves: Set<Move>
    private let depth: Int
    private let machines: Set<SupportedMoves.Machine>
    private let configuration: SoftKVM.Configuration

    init(
        _ moves: Set<Move>, aliases aliasMoves: Set<Move> = [], on machines: Set<SupportedMoves.Machine> = [],
        depth: Int,
        _ configuration: SoftKVM.Configuration
    ) {
        self.moves = moves
        self.aliasMoves = aliasMoves
        self.depth = depth
        self.machines = machines
        self.configuration = configuration
    }

    /// A machine, the initial states of the search, and the steps to try.
    private struct Start {
        let machine: LitmusTest
        /// The steps that lead to the initial state.
        let beginnings: [[Step]]
        let alphabet: [Step]
        let looks: [Step]
        /// Steps that are tried only from the initial state.
        let endings: [[Step]]
        /// Steps that are tried from every state.
        let depth: Int
    }

    private static let letters: [Letter] = {
        var letters: [(Move, Step)] = []
        func add(_ move: Move, _ actor: Actor, _ action: Action) {
            letters.append((move, Step(actor, action)))
        }
        let both = Extent(pages: 0...1)
        let host = Actor.host(0)
        let vcpu = Actor.vcpu(0)
        for extent in [Extent(pages: 0...0), Extent(pages: 1...1), both] {
            for state in PageState.allCases { add(.convert, host, .convert(Conversion(extent, to: state))) }
        }
        // The pages may have been unmapped by conversions without an effect.
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
        if let hold = Name("hb") {
            add(.hold, host, .hold(both, by: .vmsplice, hold: hold))
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
        // One invalid argument, in either direction.
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

    /// Accesses through both aliases, one of which matches the state of the page.
    private static let aliasLetters: [Letter] = {
        var letters: [Letter] = []
        for page in [0, 1] as [UInt32] {
            for alias in [Name.ram, .shared] {
                letters.append((.guestRead, Step(.vcpu(0), .read(Place(alias, page: page)))))
                letters.append((.guestWrite, Step(.vcpu(0), .write(Place(alias, page: page), 0x56))))
            }
            for state in PageState.allCases {
                let conversion = Conversion(Extent(pages: page...page), to: state)
                letters.append((.convert, Step(.host(0), .convert(conversion))))
            }
        }
        letters.append((.again, Step(.vcpu(0), .again)))
        // The monitor converts on the fault, with and without obstacles.
        for page in [0, 1] as [UInt32] {
            for alias in [Name.ram, .shared] {
                let place = Place(alias, page: page)
                letters.append(
                    (.convertOnFault, Step(.vcpu(0), .read(place), onFault: FaultConversion(.preserve))))
                letters.append(
                    (.convertOnFault, Step(.vcpu(0), .write(place, 0x57), onFault: FaultConversion(.zero))))
            }
            letters.append((.hostRead, Step(.host(0), .read(Place(page: page)))))
        }
        if let hold = Name("h0") {
            let page = Extent(pages: 0...0)
            letters.append((.hold, Step(.host(0), .hold(page, by: .vmsplice, hold: hold))))
            letters.append((.release, Step(.host(0), .release(hold))))
        }
        return letters
    }()

    /// The monitor's converter on a page of each of two regions, with and without obstacles.
    private static let regionLetters: [Letter] = {
        guard let other = Name("other"), let first = Name("h0"), let second = Name("h1") else { return [] }
        var letters: [Letter] = []
        let host = Actor.host(0)
        func ask(_ pages: ClosedRange<UInt32>, _ contents: ContentPolicy, bisects: Bool = false) {
            for state in PageState.allCases {
                var conversion = Conversion(Extent(.guest, pages: pages), to: state, contents: contents)
                conversion.monitor.bisects = bisects
                letters.append((.askForGuest, Step(host, .convert(conversion))))
            }
        }
        ask(0...0, .preserve)
        ask(1...1, .preserve)
        ask(0...1, .preserve)
        ask(0...1, .zero)
        ask(0...1, .unspecified, bisects: true)
        ask(0...2, .unspecified)
        for (name, hold, byte) in [(Name.ram, first, 0x41), (other, second, 0x42)] as [(Name, Name, UInt8)] {
            let page = Extent(name, pages: 0...0)
            letters.append((.hold, Step(host, .hold(page, by: .vmsplice, hold: hold))))
            letters.append((.release, Step(host, .release(hold))))
            letters.append((.hostWrite, Step(host, .write(Place(name, page: 0), byte))))
            letters.append((.hostRead, Step(host, .read(Place(name, page: 0)))))
        }
        for page in 0...1 as ClosedRange<UInt32> {
            letters.append((.guestRead, Step(.vcpu(0), .read(Place(page: page)))))
        }
        return letters
    }()

    /// Steps with a second file, with all flags and on other VMs.
    private static let fileEndings: [[Letter]] = {
        guard let file = Name("f"), let view = Name("v") else { return [] }
        let host = Actor.host(0)
        let page = Extent(file, offset: 0, size: pageSize)
        let creations: [NewFile] =
            ([0, 1, 2, 3, 4, 1 << 63].map { NewFile(file, size: pageSize, flags: $0, vm: nil) })
            + [VMName.default, .second].map { NewFile(file, size: pageSize, flags: 1, vm: $0) }
        return creations.map { new in
            [
                (.create, Step(host, .create(new))), (.map, Step(host, .map(page, view: view))),
                (.hostRead, Step(host, .read(Place(view, offset: 0)))),
                (.bind, Step(host, .bind(Binding(slot: 3, to: page, gpa: 16 * pageSize)))),
                (.bind, Step(host, .bind(Binding(slot: 4, to: page, gpa: 17 * pageSize)))),
                (.guestRead, Step(.vcpu(0), .read(Place(.ram, page: 16)))),
                (.convert, Step(host, .convert(Conversion(page, to: .shared)))),
                (.convert, Step(host, .convert(Conversion(page, to: .private)))),
                (.close, Step(host, .close(file))),
            ]
        } + [
            [Capability.guestMemfdMemoryAttributes, .guestMemfdFlags, .guestMemfd].map {
                (.capability, Step(host, .extension(UInt32($0.rawValue))))
            }
        ]
    }()

    /// Runs the search.
    ///
    /// - Parameter test: runs a test; false ends the search.
    /// - Returns: the states and steps that were tried.
    func explore(_ test: (LitmusTest) throws(Stop) -> Bool) throws(Stop) -> Size {
        var size = Size()
        guard depth > 0 else { return size }
        for start in starts where !start.alphabet.isEmpty {
            guard try explore(start, &size, test) else { break }
        }
        return size
    }

    private var starts: [Start] {
        let alphabet = steps(Self.letters)
        // Mapped pages are counted before any access.
        let looks = [.present, .zapped, .hostRead, .guestRead].flatMap { look in
            steps(Self.letters.filter { $0.move == look })
        }
        let conversions = PageState.allCases.map {
            Step(.host(0), .convert(Conversion(Extent(pages: 0...1), to: $0)))
        }
        let back =
            moves.contains(.convert)
            ? conversions.flatMap { [$0] + steps(Self.letters.filter { $0.move == .hostRead }) } : []
        var starts: [Start] = []
        for initial in PageState.allCases.reversed() {
            func add(
                _ depth: Int, from beginnings: [[Step]] = [[]], endings: [[Step]] = [],
                _ change: (inout LitmusTest) -> Void = { _ in }
            ) {
                var machine = LitmusTest(name: "small scope", memory: [Memory(pages: 2, initial: initial)])
                change(&machine)
                starts.append(
                    Start(
                        machine: machine, beginnings: beginnings, alphabet: alphabet, looks: looks + back,
                        endings: endings, depth: depth))
            }
            let other: PageState = initial == .shared ? .private : .shared
            let mixed = Step(.host(0), .convert(Conversion(Extent(pages: 1...1), to: other)))
            let endings = Self.fileEndings.map { steps($0) }.filter { !$0.isEmpty }
            add(depth, from: moves.contains(.convert) ? [[], [mixed]] : [[]], endings: endings)
            if machines.contains(.default) { add(min(1, depth)) { $0.vm = .default } }
            for runs in [1, 2] where machines.contains(.fewRuns) {
                add(depth) { $0.settings.attributeRuns = runs }
            }
            if moves.contains(.askForGuest), let name = Name("other") {
                let looks = [.hostRead, .guestRead].flatMap { look in
                    steps(Self.regionLetters.filter { $0.move == look })
                }
                let memories = [
                    Memory(pages: 1, initial: initial), Memory(name: name, pages: 1, initial: initial),
                ]
                starts.append(
                    Start(
                        machine: LitmusTest(name: "small scope", memory: memories), beginnings: [[]],
                        alphabet: steps(Self.regionLetters), looks: looks, endings: [], depth: depth))
            }
            guard machines.contains(.twoAliases) else { continue }
            var machine = LitmusTest(name: "small scope", memory: [Memory(pages: 2, initial: initial)])
            machine.hasTwoAliases = true
            let aliases = Self.aliasLetters.filter { aliasMoves.contains($0.move) }
            starts.append(
                Start(
                    machine: machine, beginnings: [[]], alphabet: aliases.map(\.step),
                    looks: aliases.filter { $0.move == .hostRead }.map(\.step), endings: [], depth: depth)
            )
        }
        return starts + (machines.contains(.snp) ? confidentialStarts(.snp) : [])
            + (machines.contains(.tdx) ? confidentialStarts(.tdx) : [])
    }

    /// Everything that the guest, the monitor and the hypervisor of an SNP or TDX VM can do to two pages, and the launch.
    private func confidentialStarts(_ type: VMType) -> [Start] {
        let (host, vcpu) = (Actor.host(0), Actor.vcpu(0))
        let both = Extent(pages: 0...1)
        func page(_ number: UInt32) -> Extent { Extent(pages: number...number) }
        func own(_ action: ConfidentialAction) -> Step {
            Step(action.isOfGuest ? vcpu : host, .confidential(action))
        }
        func taken(_ extent: Extent) -> Step {
            own(
                type == .tdx
                    ? .accept(extent, isLarge: false) : .validate(extent, isValid: true, isLarge: false))
        }
        func asked(_ extent: Extent, _ state: PageState) -> Step {
            Step(vcpu, .hypercall(extent, attributes: Attributes.word(state)))
        }
        func converted(_ state: PageState, _ contents: ContentPolicy) -> Step {
            Step(host, .convert(Conversion(page(0), to: state, contents: contents)))
        }
        var alphabet = [taken(page(0)), taken(both), asked(page(0), .private), asked(both, .shared)]
        for number in [0, 1] as [UInt32] {
            for alias in [Name.ram, .shared] {
                alphabet.append(Step(vcpu, .read(Place(alias, page: number))))
                alphabet.append(Step(vcpu, .write(Place(alias, page: number), 0x56)))
            }
            alphabet.append(Step(host, .write(Place(page: number), 0x41)))
        }
        for state in PageState.allCases {
            alphabet += [converted(state, .zero), converted(state, .preserve)]
        }
        alphabet.append(
            Step(vcpu, .write(Place(.shared, page: 0), 0x57), onFault: FaultConversion(.unspecified)))
        alphabet.append(Step(host, .punch(page(0))))
        alphabet += [
            own(.take(page(0))), own(.answer(1)), own(.remap(gpa: 0, to: Place(page: 1))),
            own(.remap(gpa: 0, to: Place(page: 0))),
        ]
        if type == .tdx {
            alphabet += [.accept(page(0), isLarge: true), .block(page(0)), .track, .remove(page(0))].map(own)
        } else {
            alphabet += [true, false].map { own(.validate(page(0), isValid: $0, isLarge: $0)) }
        }
        let reads = [0, 1].flatMap { number -> [Step] in
            [Step(host, .read(Place(page: number)))]
                + [Name.ram, .shared].map { Step(vcpu, .read(Place($0, page: number))) }
        }
        // Whatever the pages are, they become shared, and private again. The guest of a dead TD cannot ask for that.
        let shared = Step(host, .convert(Conversion(both, to: .shared, contents: .unspecified)))
        let looks =
            reads + [asked(both, .shared), shared] + reads + [
                asked(both, .private), taken(page(0)), taken(page(1)),
            ]
            + reads
        var starts: [Start] = []
        for initial in PageState.allCases {
            var machine = LitmusTest(name: "small scope", memory: [Memory(pages: 2, initial: initial)])
            machine.vm = type
            let used = [taken(both), Step(vcpu, .write(Place(page: 0), 0x58))]
            let beginnings =
                (initial == .private ? [[], used] : [[]]) + (type == .tdx ? [[own(.raiseVE)]] : [])
            starts.append(
                Start(
                    machine: machine, beginnings: beginnings, alphabet: alphabet, looks: looks, endings: [],
                    depth: depth))
        }
        var machine = LitmusTest(name: "small scope", memory: [Memory(pages: 2, initial: .shared)])
        machine.vm = type
        // A test with this step begins before the end of the launch.
        machine.body = [.step(own(.finalize))]
        let launch =
            [
                own(.launch(page(0))), own(.launch(both)), converted(.private, .preserve),
                converted(.private, .zero),
            ]
            + [Step(host, .write(Place(page: 0), 0x41)), Step(vcpu, .read(Place(page: 0)))]
        starts.append(
            Start(
                machine: machine, beginnings: [[]], alphabet: launch,
                looks: [own(.finalize), own(.launch(page(0)))] + looks, endings: [], depth: depth)
        )
        return starts
    }

    private func steps(_ letters: [Letter]) -> [Step] {
        letters.filter { moves.contains($0.move) }.map(\.step)
    }

    private func explore(
        _ start: Start, _ size: inout Size, _ test: (LitmusTest) throws(Stop) -> Bool
    ) throws(Stop) -> Bool {
        let machine = start.machine
        let beginning = try ModelMachine(
            ModelMachine.Setup(configuration.rules.configured(for: machine), machine))
        var known: Set<ModelMachine.Key> = []
        var queue: [(state: ScopeState, left: Int)] = []
        for path in start.beginnings {
            guard let state = ScopeState(path, from: beginning) else { continue }
            if known.insert(state.key).inserted { queue.append((state, start.depth)) }
        }
        for ending in start.endings {
            size.transitions += ending.count
            if try !test(Self.test(machine, ending)) { return false }
        }
        var next = 0
        while next < queue.count {
            let (here, left) = queue[next]
            let path = here.path
            next += 1
            size.states += 1
            var loops: [Step] = []
            for step in start.alphabet where Self.canFollow(path, step) {
                guard let after = here.after(step) else { continue }
                size.transitions += 1
                if after.key == here.key {
                    loops.append(step)
                    continue
                }
                // Tests that continue from this state begin with this step, and include the checks of the state.
                if known.insert(after.key).inserted, left > 1 {
                    queue.append((after, left - 1))
                } else if try !test(Self.test(machine, path + [step] + start.looks)) {
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

    /// A hold can be released only if it exists, and taken only if it does not.
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

    /// Holds that fail get names of their own.
    private static func distinct(_ steps: [Step]) -> [Step] {
        steps.enumerated().map { index, step in
            guard case .hold(let extent, let kind, _) = step.action, let name = Name("x\(index)") else {
                return step
            }
            return Step(step.actor, .hold(extent, by: kind, hold: name))
        }
    }
}

/// A state that the search has reached, and the steps that lead to it.
private struct ScopeState {
    let path: [Step]
    let machine: ModelMachine
    let key: ModelMachine.Key

    /// - Returns: nil if one of the steps cannot be performed.
    init?(_ path: [Step], from beginning: ModelMachine) {
        var machine = beginning
        for step in path {
            guard (try? machine.perform(step)) != nil else { return nil }
        }
        self.init(path: path, machine: machine)
    }

    private init(path: [Step], machine: ModelMachine) {
        self.path = path
        self.machine = machine
        key = machine.key
    }

    func after(_ step: Step) -> ScopeState? {
        var machine = machine
        guard (try? machine.perform(step)) != nil else { return nil }
        return ScopeState(path: path + [step], machine: machine)
    }
}
