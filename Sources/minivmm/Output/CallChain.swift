// SPDX-License-Identifier: MIT
import Debugger
import MiniVMM

/// The callers of a function in 64-bit code, by the chain of frame pointers: RBP points to the caller's RBP, and the return address
/// is above it. Code without frame pointers has none, but a function that has not pushed RBP yet: its return address is on top of the
/// stack, behind a CALL of the function.
struct CallChain {
    /// The innermost caller first.
    let callers: [SymbolTable.Place]

    private static let most = 16
    /// A stack is not larger than this, bytes.
    private static let farthest: UInt64 = 1 << 20

    /// - Parameters:
    ///   - rbp: of the innermost function.
    ///   - rsp: of the innermost function.
    ///   - function: the address of the innermost function, if known.
    init(
        rbp: UInt64, rsp: UInt64, function: UInt64?, _ vcpu: any KVMVCPU, _ machine: Machine,
        _ symbols: SymbolTable
    ) {
        guard let special = try? vcpu.specialRegisters(), special.cs.l != 0 else {
            callers = []
            return
        }
        let view = GuestView(machine)
        /// Bytes of one page.
        func bytes(_ linear: UInt64, _ count: Int) -> [UInt8]? {
            guard linear % pageSize <= pageSize - UInt64(count),
                let address = try? view.translate(linear, special)
            else { return nil }
            return try? view.read(physical: address, count: count)
        }
        func word(_ linear: UInt64) -> UInt64? {
            bytes(linear, 8)?.reversed().reduce(0) { $0 << 8 | UInt64($1) }
        }
        var found: [SymbolTable.Place] = []
        if let function, let address = word(rsp), let call = bytes(address &- 5, 5), call[0] == 0xe8,
            let place = symbols.place(of: address)
        {
            let distance = call.dropFirst().reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
            let target = address &+ UInt64(bitPattern: Int64(Int32(bitPattern: distance)))
            if target == function { found.append(place) }
        }
        var (frame, low) = (rbp, rsp)
        // Frames of callers are above.
        while found.count < Self.most, frame >= low, frame &- rsp < Self.farthest, let next = word(frame),
            let address = word(frame &+ 8), let place = symbols.place(of: address)
        {
            found.append(place)
            (frame, low) = (next, frame &+ 16)
        }
        callers = found
    }
}
