// SPDX-License-Identifier: MIT
import MiniVMM

/// A random test under construction: the names that its steps can use, and the random numbers.
struct Draft {
    struct File {
        let name: Name
        let pages: UInt64
    }
    struct View {
        let name: Name
        let size: UInt64
    }

    private var chance: SplitMix64
    private(set) var test: LitmusTest
    private(set) var files: [File] = []
    private(set) var views: [View] = []
    private(set) var holds: [Name] = []
    /// Children, with the views that existed when they were forked.
    private(set) var children: [(number: Int, views: [View])] = []
    private(set) var lastStep: Step?
    /// The vCPU that made the last access.
    private(set) var lastAccess: Actor?
    /// The pages of the last hold.
    private(set) var lastHold: Extent?
    private var names = 0
    private var forks = 0
    private var byte: UInt8 = 0x40
    /// Whether steps prefer pages near powers of two, and ranges are large.
    private let isLarge: Bool

    /// The largest number of pages that a step of a large test accesses or allocates.
    static let mostTouched: UInt64 = 1024

    /// Creates a small machine: one or two files of a few pages.
    init(seed: UInt64, _ machines: Set<SupportedMoves.Machine> = []) {
        chance = SplitMix64(seed: seed)
        test = LitmusTest(name: "random")
        isLarge = false
        if machines.contains(.default), oneIn(8) { test.vm = .default }
        if machines.contains(.twoAliases), test.vm == .softwareProtected, oneIn(6) {
            test.hasTwoAliases = true
        }
        if !machines.isDisjoint(with: [.snp, .tdx]), test.vm == .softwareProtected, !test.hasTwoAliases,
            oneIn(8)
        {
            test.vm = machines.contains(.tdx) && oneIn(2) ? .tdx : machines.contains(.snp) ? .snp : .tdx
        }
        if machines.contains(.fewRuns), !test.vm.isConfidential, oneIn(16) {
            test.settings.attributeRuns = 1 + Int(below(2))
        }
        add(Memory(pages: 1 + below(4), initial: state()))
        if oneIn(3), let name = Name("other") {
            add(Memory(name: name, pages: 1 + below(2), initial: state(), isUnbound: oneIn(3)))
        }
    }

    /// Creates a machine of few pages, so that concurrent steps use the same ones.
    ///
    /// - Parameters:
    ///   - initial: the state of the first memory; nil draws it.
    ///   - isDivided: adds a second memory of one page.
    init(
        seed: UInt64, pages: UInt64, initial: PageState? = nil, isDivided: Bool = false,
        hasTwoAliases: Bool = false
    ) {
        chance = SplitMix64(seed: seed)
        test = LitmusTest(name: "random")
        isLarge = false
        test.hasTwoAliases = hasTwoAliases
        add(Memory(pages: pages, initial: initial ?? state()))
        if isDivided, let name = Name("other") { add(Memory(name: name, pages: 1, initial: state())) }
    }

    /// Creates a machine without memory for a large test.
    init(largeWith seed: UInt64) {
        chance = SplitMix64(seed: seed)
        test = LitmusTest(name: "random")
        isLarge = true
    }

    mutating func add(_ memory: Memory) {
        test.memory.append(memory)
        files.append(File(name: memory.name, pages: memory.pages))
        views.append(View(name: memory.name, size: memory.pages * pageSize))
    }

    // MARK: the body

    mutating func append(_ step: Step) {
        note(step.action)
        lastStep = step
        if case .vcpu = step.actor, step.action.isAccess { lastAccess = step.actor }
        test.body.append(.step(step))
    }

    mutating func append(_ block: Parallel) {
        var block = block
        for index in block.steps.indices {
            // In a parallel block a conversion is one call for each file.
            if let onFault = block.steps[index].onFault {
                block.steps[index].onFault = FaultConversion(
                    onFault.contents == .zero ? .unspecified : onFault.contents)
            }
            guard case .convert(var conversion) = block.steps[index].action else { continue }
            conversion.monitor = MonitorPolicy()
            if conversion.contents == .zero { conversion.contents = .unspecified }
            block.steps[index].action = .convert(conversion)
        }
        for step in block.steps { note(step.action) }
        test.body.append(.parallel(block))
    }

    /// Removes or adds the names that a step changes.
    private mutating func note(_ action: Action) {
        switch action {
        case .create(let new): files.append(File(name: new.name, pages: new.size / pageSize))
        case .close(let name): files.removeAll { $0.name == name }
        case .map(let extent, let view): views.append(View(name: view, size: extent.size))
        case .unmap(let name): views.removeAll { $0.name == name }
        case .hold(let extent, _, let name):
            holds.append(name)
            lastHold = extent
        case .release(let name): holds.removeAll { $0 == name }
        case .fork(let number): children.append((number, views))
        default: break
        }
    }

    // MARK: chance

    mutating func below(_ bound: UInt64) -> UInt64 { bound > 1 ? chance.next() % bound : 0 }
    mutating func oneIn(_ count: UInt64) -> Bool { below(count) == 0 }
    mutating func state() -> PageState { oneIn(2) ? .shared : .private }

    mutating func pick<T>(_ items: [T]) -> T? {
        items.isEmpty ? nil : items[Int(below(UInt64(items.count)))]
    }

    /// A different byte each time, so that a byte identifies its writer.
    mutating func freshByte() -> UInt8 {
        byte = byte < 0x7e ? byte + 1 : 0x41
        return byte
    }

    mutating func freshName(_ stem: String) -> Name {
        names += 1
        return Name("\(stem)\(names)") ?? .ram
    }

    mutating func freshChild() -> Int? {
        guard forks < 2 else { return nil }
        defer { forks += 1 }
        return forks
    }

    // MARK: places

    /// Mostly the first byte of a page, otherwise the second or the last.
    mutating func byteInPage() -> UInt64 { oneIn(5) ? oneIn(2) ? 1 : pageSize - 1 : 0 }

    mutating func place(in views: [View]) -> Place? {
        guard let view = pick(views.filter { $0.size > 0 }) else { return nil }
        let pages = max(1, view.size / pageSize)
        return Place(view.name, offset: min(view.size - 1, page(below: pages) * pageSize + byteInPage()))
    }

    /// A range inside a view, mostly of whole pages.
    mutating func extent(in views: [View]) -> Extent? {
        guard let view = pick(views.filter { $0.size > 0 }) else { return nil }
        let pages = max(1, view.size / pageSize)
        let first = page(below: pages)
        let count = count(upTo: isLarge ? min(pages - first, Self.mostTouched) : pages - first)
        var extent = Extent(view.name, offset: first * pageSize, size: count * pageSize)
        if oneIn(6) {
            extent.offset += byteInPage()
            extent.size = 1 + below(extent.size)
        }
        let end = min(view.size, extent.offset + extent.size)
        extent.size = end - extent.offset
        return extent.size > 0 ? extent : nil
    }

    /// A page: any, or in a large test mostly one near a power of two or an end.
    mutating func page(below pages: UInt64) -> UInt64 {
        guard isLarge, pages > 2, !oneIn(4) else { return below(pages) }
        if oneIn(3) { return oneIn(2) ? 0 : pages - 1 }
        // 2^k - 1, 2^k or 2^k + 1 pages before this one.
        let most = UInt64(63 - pages.leadingZeroBitCount)
        let power = UInt64(1) << (1 + below(most))
        return min(pages - 1, power - 1 + below(3))
    }

    /// A number of pages: any, or in a large test often all of them.
    private mutating func count(upTo most: UInt64) -> UInt64 {
        isLarge && oneIn(2) ? max(1, most) : 1 + below(max(1, most))
    }

    /// Whole pages inside a file.
    ///
    /// - Parameter isTouched: whether each page takes memory or time. A large test then has fewer of them.
    mutating func pages(of file: File, isTouched: Bool = false) -> Extent {
        let first = page(below: file.pages)
        let rest = max(1, file.pages - min(first, file.pages))
        let count = count(upTo: isLarge && isTouched ? min(rest, Self.mostTouched) : rest)
        return Extent(file.name, offset: first * pageSize, size: count * pageSize)
    }

    /// Pages that vCPUs can access.
    private var guestPages: UInt64 {
        test.memory.filter { !$0.isUnbound }.reduce(0) { $0 + $1.pages }
    }

    /// Pages of the guest's memory, sometimes one beyond its end.
    mutating func guestMemory() -> Extent {
        let pages = guestPages + (oneIn(12) ? 1 : 0)
        let first = below(max(1, pages))
        return Extent(.guest, offset: first * pageSize, size: (1 + below(max(1, pages - first))) * pageSize)
    }

    private mutating func alias() -> Name { test.guestHasTwoAliases && oneIn(2) ? .shared : .ram }

    mutating func guestPlace() -> Place {
        let pages = guestPages + (!test.guestHasTwoAliases && oneIn(10) ? 1 : 0)
        return Place(alias(), offset: below(max(1, pages)) * pageSize + byteInPage())
    }

    mutating func guestExtent(alias isAlias: Bool = true) -> Extent {
        let first = below(max(1, guestPages))
        let most = min(GuestReach.mostBytes / pageSize, max(1, guestPages - first))
        return Extent(
            isAlias ? alias() : .ram, offset: first * pageSize, size: (1 + below(most)) * pageSize)
    }
}
