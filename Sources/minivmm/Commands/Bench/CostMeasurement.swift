// SPDX-License-Identifier: MIT
import CKVMShim
import Glibc
import MiniVMM

/// Measures every cost on this kernel. Used by one thread.
struct CostMeasurement {
    private let interface: ConversionInterface
    private let repetitions: Int
    private let overhead: UInt64
    private var ticks: TickClock
    private let progress: (String) -> Void
    /// Repetitions that do not count. The first accesses to a page move it between the kernel's LRU lists; in a call of 65,536
    /// pages that is too little to matter.
    private static func discarded(_ pages: UInt64) -> Int { pages < 1000 ? 3 : 1 }

    /// - Parameters:
    ///   - repetitions: of each measurement, after one that does not count.
    ///   - overhead: what the reading of the counter takes, in instructions.
    ///   - progress: gets the key of each cost before it is measured.
    /// - Throws: if a VM cannot be created or the kernel does not convert.
    init(repetitions: Int, overhead: UInt64, progress: @escaping (String) -> Void) throws(CostError) {
        self.repetitions = repetitions
        self.overhead = overhead
        self.progress = progress
        interface = try Self.machine().interface
        _ = ckvm_bind_to_cpu(Int32(ckvm_current_cpu()))
        ticks = TickClock()
    }

    /// The guest's memory is as large in each measurement.
    private static func machine() throws(CostError) -> CostMachine {
        try CostMachine(pages: Costs.sizes.max() ?? 1, isProtected: true)
    }

    /// - Throws: the first call that fails or has another answer than it must have.
    mutating func measure() throws(CostError) -> Costs {
        var costs: [Cost] = []
        for target in Operation.Target.allCases {
            for pages in Operation.Pages.before(target) {
                for size in Costs.sizes where size >= pages.leastPages {
                    costs.append(try conversion(target, pages, size))
                }
            }
        }
        for target in Operation.Target.allCases {
            for size in Costs.sizes { costs.append(try unchanged(target, size)) }
        }
        // Per-VM attributes do not look at references.
        if interface == .inPlace {
            for held in Operation.Held.allCases {
                for size in Costs.sizes { costs.append(try busy(held, size)) }
            }
        }
        costs.append(try guestLoop(.exit, .exits, CKVM_EXIT_IO))
        costs.append(try guestLoop(.hypercall, .hypercalls, CKVM_EXIT_HYPERCALL))
        costs += try fault()
        return Costs(
            backend: "LinuxKVM (\(LinuxKVM.runningKernel()))", interface: interface,
            repetitions: repetitions, overhead: overhead, tickPeriod: ticks.period,
            tickCost: middle(ticks.costs), costs: costs)
    }

    /// Repeats a measurement in a VM of its own, because page tables of the guest stay after its pages have been unmapped, and
    /// later calls walk them. The first repetitions do not count: they fill the kernel's caches.
    ///
    /// - Parameters:
    ///   - establish: runs once, in the new VM.
    ///   - prepare: runs before each repetition.
    private mutating func repeated(
        _ operation: Operation, _ pages: UInt64, expecting expected: Int64 = 0,
        establish: (CostMachine) throws(CostError) -> Void = { _ throws(CostError) in },
        prepare: (CostMachine) throws(CostError) -> Void,
        count: (CostMachine) -> (count: UInt64, answer: Int64),
        check: (CostMachine) throws(CostError) -> Void = { _ throws(CostError) in }
    ) throws(CostError) -> Cost {
        progress(Cost(operation: operation, pages: pages, samples: [0], ticks: 0).key)
        let machine = try Self.machine()
        try establish(machine)
        var samples: [UInt64] = []
        let discarded = Self.discarded(pages)
        for repetition in 0..<discarded + repetitions {
            try prepare(machine)
            ticks.settle()
            let (value, answer) = count(machine)
            try machine.expect(operation.key, expected, answer)
            try check(machine)
            if repetition >= discarded { samples.append(value - min(value, overhead)) }
        }
        return Cost(
            operation: operation, pages: pages, samples: samples, ticks: ticks.ticks(in: middle(samples)))
    }

    // MARK: conversions

    private mutating func conversion(
        _ target: Operation.Target, _ pages: Operation.Pages, _ size: UInt64
    ) throws(CostError) -> Cost {
        try repeated(
            .conversion(target, pages), size,
            establish: { machine throws(CostError) in try Self.establish(machine, 0..<size, pages) },
            prepare: { machine throws(CostError) in
                try Self.restore(machine, 0..<size, before: target, pages)
                machine.prepareConversion(0..<size, to: target)
            }, count: { $0.countConversion() })
    }

    private mutating func unchanged(
        _ target: Operation.Target, _ size: UInt64
    ) throws(CostError) -> Cost {
        try repeated(
            .unchanged(target), size,
            establish: { machine throws(CostError) in try Self.establish(machine, 0..<size, .present) },
            prepare: { machine throws(CostError) in
                try machine.convert(0..<size, to: target)
                machine.prepareConversion(0..<size, to: target)
            }, count: { $0.countConversion() })
    }

    private mutating func busy(_ held: Operation.Held, _ size: UInt64) throws(CostError) -> Cost {
        let page = held == .first ? 0 : size - 1
        return try repeated(
            .busy(held), size, expecting: -Int64(EAGAIN),
            establish: { machine throws(CostError) in try Self.establish(machine, 0..<size, .mappedByHost) },
            prepare: { machine throws(CostError) in
                try Self.restore(machine, 0..<size, before: .private, .mappedByHost)
                try machine.hold(page)
                machine.prepareConversion(0..<size, to: .private)
            }, count: { $0.countConversion() },
            check: { machine throws(CostError) in
                machine.release()
                try machine.expect("page of error_offset", Int64(page), Int64(clamping: machine.errorPage))
            })
    }

    /// Makes the pages of a range present in a new VM, where this state needs it. New pages are referenced by the LRU's per-CPU
    /// batches until a conversion to private drains these.
    private static func establish(
        _ machine: CostMachine, _ range: Range<UInt64>, _ pages: Operation.Pages
    ) throws(CostError) {
        switch pages {
        case .neverTouched, .justWritten: return
        case .present, .mappedByHost, .mappedByGuest, .alternating, .mixed: break
        }
        try machine.allocate(range)
        try machine.convert(range, to: .private)
        guard pages == .mixed else { return }
        for page in range where page % 4 == 0 { try machine.free(page..<page + 1) }
    }

    /// Brings the range into the state before a conversion to `target`, whatever the repetition before has left.
    private static func restore(
        _ machine: CostMachine, _ range: Range<UInt64>, before target: Operation.Target,
        _ pages: Operation.Pages
    ) throws(CostError) {
        if pages == .justWritten { try machine.free(range) }
        try machine.convert(range, to: target == .private ? .shared : .private)
        switch pages {
        case .neverTouched, .present: break
        case .justWritten, .mappedByHost: machine.touch(range)
        case .mappedByGuest: try machine.mapInGuest(range)
        case .mixed:
            for page in range {
                switch page % 4 {
                case 2 where target == .private: machine.touch(page..<page + 1)
                case 3: try machine.mapInGuest(page..<page + 1)
                default: break
                }
            }
        case .alternating:
            for page in range where page % 2 == 1 { try machine.convert(page..<page + 1, to: target) }
        }
    }

    // MARK: guests

    /// One KVM_RUN of a loop, from one exit to the next.
    private mutating func guestLoop(
        _ guest: Operation.Guest, _ program: CostMachine.Program, _ exit: UInt32
    ) throws(CostError) -> Cost {
        try repeated(
            .guest(guest), 1,
            prepare: { machine throws(CostError) in
                try machine.start(program)
                for _ in 0..<2 { try Self.run(machine, guest, exit) }
            }, count: { $0.countRun() },
            check: { machine throws(CostError) in try machine.expectExit(guest.rawValue, exit) })
    }

    private static func run(
        _ machine: CostMachine, _ guest: Operation.Guest, _ exit: UInt32, answer expected: Int64 = 0
    ) throws(CostError) {
        let (_, answer) = machine.countRun()
        try machine.expect("KVM_RUN (\(guest.rawValue))", expected, answer)
        try machine.expectExit(guest.rawValue, exit)
    }

    /// The guest accesses a page of the other kind, the monitor converts the page, the guest goes on.
    ///
    /// With per-VM attributes this happens in one VM: a page of ordinary memory is private until the monitor converts it. In place,
    /// a software-protected guest accesses each page as what it is, so the exit is that of a default VM.
    private mutating func fault() throws(CostError) -> [Cost] {
        let isInPlace = interface == .inPlace
        let program: CostMachine.Program = isInPlace ? .readsMemory : .readsPlain
        let fault = -Int64(EFAULT)
        /// The page is private, and the guest is about to access it.
        func restart(_ machine: CostMachine) throws(CostError) {
            if isInPlace {
                try machine.allocate(0..<1)
                try machine.convert(0..<1, to: .private)
                machine.prepareConversion(0..<1, to: .shared)
            } else {
                try machine.makePlainPage(.private)
                machine.preparePlainConversion(to: .shared)
            }
            // A vCPU that has run and left.
            try machine.start(.exits)
            try Self.run(machine, .exit, CKVM_EXIT_IO)
            try machine.start(program)
        }
        let faulting = isInPlace ? try CostMachine(pages: 1, isProtected: false) : nil
        let exit = try repeated(
            .guest(.faultExit), 1, expecting: fault,
            prepare: { machine throws(CostError) in
                guard let faulting else { return try restart(machine) }
                try faulting.start(.exits)
                try Self.run(faulting, .exit, CKVM_EXIT_IO)
                try faulting.start(program)
            }, count: { (faulting ?? $0).countRun() },
            check: { machine throws(CostError) in
                try (faulting ?? machine).expectExit("memory fault", CKVM_EXIT_MEMORY_FAULT)
            })
        let conversion = try repeated(
            .guest(.faultConversion), 1,
            prepare: { machine throws(CostError) in
                try restart(machine)
                if !isInPlace { try Self.run(machine, .faultExit, CKVM_EXIT_MEMORY_FAULT, answer: fault) }
            }, count: { $0.countConversion() })
        let resume = try repeated(
            .guest(.faultResume), 1,
            prepare: { machine throws(CostError) in
                try restart(machine)
                if !isInPlace { try Self.run(machine, .faultExit, CKVM_EXIT_MEMORY_FAULT, answer: fault) }
                let (_, answer) = machine.countConversion()
                try machine.expect("conversion", 0, answer)
            }, count: { $0.countRun() },
            check: { machine throws(CostError) in try machine.expectExit("resumed", CKVM_EXIT_IO) })
        return [exit, conversion, resume]
    }
}
