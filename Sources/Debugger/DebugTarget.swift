// SPDX-License-Identifier: MIT
import SystemPackage

/// A stopped or running guest, as the server sees it. Threads are numbered from 1; thread N is vCPU N − 1.
///
/// Only the server's thread calls it. Everything except ``interrupt()``, ``kill()`` and ``takeStop()`` needs a stopped
/// guest.
package protocol DebugTarget: AnyObject, Sendable {
    var threads: ClosedRange<Int> { get }
    /// A client has connected, and the guest has stopped for it: removes the breakpoints that the last client has left.
    func begin()
    /// One line about a thread.
    func information(about thread: Int) -> String
    func registers(of thread: Int) throws(DebugError) -> RegisterFile
    /// Writes those of the two parts that have changed.
    func setRegisters(of thread: Int, from old: RegisterFile, to new: RegisterFile) throws(DebugError)
    /// Reads memory at a linear address of the thread, up to the first byte that cannot be read.
    ///
    /// - Returns: at least one byte, unless `count` is 0.
    func read(_ thread: Int, at address: UInt64, count: Int) throws(DebugError) -> [UInt8]
    /// Writes memory at a linear address of the thread. Bytes before the first one that cannot be written are written.
    func write(_ thread: Int, at address: UInt64, _ bytes: [UInt8]) throws(DebugError)
    /// Sets a breakpoint of all threads; its address is one of this thread. A breakpoint that is set already stays.
    func insert(_ breakpoint: Breakpoint, by thread: Int) throws(DebugError)
    /// Removes a breakpoint. One that is not set is no error.
    func remove(_ breakpoint: Breakpoint) throws(DebugError)
    /// Lets threads run until one of them has a reason to stop; then all stop.
    func resume(_ actions: [Int: ResumeAction]) throws(DebugError)
    /// Stops all threads. The stop is reported like any other.
    func interrupt()
    /// The reason of a stop that has not been reported, once all threads have stopped; else nil.
    func takeStop() -> StopReason?
    /// Does what `monitor WORDS` asks for.
    ///
    /// - Returns: lines for the user.
    func monitor(_ words: [String], by thread: Int) -> String
    /// Removes all breakpoints and lets the guest run without a debugger.
    func detach()
    /// Ends the guest.
    func kill()
}

/// The action of a thread when the guest goes on. A thread without an action stays where it is.
package enum ResumeAction: Sendable {
    case run
    /// One instruction, or one iteration of a string instruction.
    case step
}

/// Why the guest has stopped.
package struct StopReason: Equatable, Sendable {
    package enum Kind: Equatable, Sendable {
        /// Nothing more to say: a step, an interruption, or a crash.
        case plain
        case softwareBreakpoint
        case hardwareBreakpoint
        /// A watchpoint of this kind, and its address.
        case watchpoint(Breakpoint.Kind, UInt64)
    }
    package let thread: Int
    package let signal: DebugSignal
    package let kind: Kind

    package init(thread: Int, signal: DebugSignal, kind: Kind = .plain) {
        self.thread = thread
        self.signal = signal
        self.kind = kind
    }
}

/// Signals by GDB's numbers, which are Linux's for all of these.
package enum DebugSignal: UInt8, Sendable {
    case hangup = 1
    case interrupt = 2
    case illegalInstruction = 4
    case trap = 5
    case abort = 6
    case arithmetic = 8
    case kill = 9
    case segmentationFault = 11
    case alarm = 14
    case terminate = 15
}

/// Why a request of the debugger was refused.
package enum DebugError: Error, Equatable, Sendable {
    case noThread(Int)
    /// A number that no register has, or one that cannot be read or written.
    case noRegister(Int)
    /// The data of `G` or `P` has the wrong length.
    case wrongLength
    case malformed
    /// The guest's page tables do not map the linear address.
    case notMapped(UInt64)
    /// The page tables, or the guest, lead to an address without RAM.
    case noRAM(gpa: UInt64)
    /// The guest's own access would be a memory fault: the page is not in the state that this alias needs.
    case wrongAlias(gpa: UInt64, state: PageName)
    /// The page is private, and this backend gives the monitor no access to it.
    case isPrivate(gpa: UInt64)
    /// The host cannot access the page.
    case unreadable(gpa: UInt64, Errno)
    /// All four debug registers are in use, and the code cannot be changed.
    case noBreakpointLeft(UInt64)
    /// A watchpoint must be 1, 2, 4 or 8 bytes, at a multiple of its size.
    case unwatchable(UInt64, size: UInt64)
    /// This backend's debug registers do not watch data. Writes can still be found by single steps.
    case unwatchedReads(UInt64)
    /// Nor can writes be found here: the monitor cannot read the bytes.
    case unwatchedPage(UInt64, gpa: UInt64)
    /// Neither debug registers nor single steps stop the guest on this backend.
    case neverStops(UInt64)
    /// This backend cannot stop the vCPU in ring 3, and a step would end the guest.
    case cannotStepRing3(Int)
    case call(String, Errno)
    /// No thread that may run is left: all of these have halted.
    case nothingToRun

    /// The state of a page.
    package enum PageName: String, Sendable { case `private`, shared }
}

extension DebugError: CustomStringConvertible {
    /// The errno for a client that does not read texts.
    var number: UInt8 {
        switch self {
        case .notMapped, .noRAM, .wrongAlias, .isPrivate, .unreadable, .unwatchedPage: 14
        case .noBreakpointLeft: 28
        case .cannotStepRing3, .neverStops: 95
        case .noThread, .nothingToRun: 3
        case .call(_, let errno): UInt8(truncatingIfNeeded: errno.rawValue)
        case .noRegister, .wrongLength, .malformed, .unwatchable, .unwatchedReads: 22
        }
    }

    /// One line, in ASCII.
    package var description: String {
        func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
        return switch self {
        case .noThread(let thread): "there is no thread \(thread)"
        case .noRegister(let number): "register \(number) does not exist or cannot be read or written"
        case .wrongLength: "the data of the registers has the wrong length"
        case .malformed: "the packet is malformed"
        case .notMapped(let address): "the guest's page tables do not map \(hex(address))"
        case .noRAM(let gpa): "the guest has no RAM at guest-physical \(hex(gpa))"
        case .wrongAlias(let gpa, let state):
            "the page at guest-physical \(hex(gpa)) is \(state.rawValue), and this address is of the other alias: the guest's access would be a memory fault"
        case .isPrivate(let gpa):
            "the page at guest-physical \(hex(gpa)) is private, and this kernel gives the monitor no access to private memory"
        case .unreadable(let gpa, let errno): "the host cannot access guest-physical \(hex(gpa)): \(errno)"
        case .noBreakpointLeft(let address):
            "no debug register is free for \(hex(address)), and the code there cannot be changed"
        case .unwatchable(let address, let size):
            "\(size) bytes at \(hex(address)) cannot be watched: 1, 2, 4 or 8 bytes at a multiple of the size can"
        case .unwatchedReads(let address):
            "reads of \(hex(address)) cannot be watched: debug registers watch no data on this kernel and CPU"
        case .unwatchedPage(let address, let gpa):
            "writes to \(hex(address)) cannot be watched: debug registers watch no data on this kernel and CPU, and the monitor cannot compare the bytes, because the page at guest-physical \(hex(gpa)) is private"
        case .neverStops(let address):
            "the guest cannot be stopped at \(hex(address)): in a trial, KVM_SET_GUEST_DEBUG stopped a guest neither by debug registers nor by single steps on this kernel and CPU"
        case .cannotStepRing3(let vcpu):
            "vCPU \(vcpu) is in ring 3, where this kernel reports neither steps nor breakpoints: continue, and stop it with Ctrl-C"
        case .call(let call, let errno): "\(call) failed: \(errno)"
        case .nothingToRun: "every thread that may run has halted"
        }
    }
}
