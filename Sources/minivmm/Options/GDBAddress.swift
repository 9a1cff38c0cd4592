// SPDX-License-Identifier: MIT
import ArgumentParser
import Debugger
import MiniVMM
import Synchronization
import SystemPackage

/// `--gdb`: where the debugger connects.
struct GDBAddress: ExpressibleByArgument {
    private let address: DebugAddress
    private let text: String
    /// Opened before this process drops its privileges, because a command is decoded from its options alone.
    private static let listener = Mutex<DebugListener?>(nil)

    init?(argument: String) {
        guard let address = DebugAddress(argument) else { return nil }
        self.address = address
        text = argument
    }

    /// Opens the socket.
    func listen() throws {
        do throws(Errno) {
            let opened = try DebugListener(address)
            Self.listener.withLock { $0 = opened }
        } catch {
            let advice =
                switch (error, address) {
                case (.addressInUse, .port): "; take another port"
                case (.addressInUse, .socket): "; remove that file, or take another path"
                default: ""
                }
            throw stop("--gdb \(text): cannot listen: \(error)\(advice)", Status.usage)
        }
    }

    /// Closes the socket, unless a server has it.
    static func close() { listener.withLock { $0 = nil } }

    /// Refuses machines whose registers the host cannot see.
    static func check(_ configuration: MachineConfiguration) throws {
        guard configuration.vmType.isConfidential else { return }
        let name = MachineType.allCases.first { $0.type == configuration.vmType }?.rawValue ?? ""
        throw ValidationError(
            "--gdb: the host cannot see the registers and the memory of an SNP or TDX guest; leave out --gdb or --vm \(name)."
        )
    }

    func debugger() throws(MachineError) -> GuestDebugger {
        do throws(Errno) { return try GuestDebugger() } catch { throw Self.failure("eventfd", error) }
    }

    /// Serves the machine, and says how to connect.
    func start(_ debugger: GuestDebugger, _ machine: Machine) throws(MachineError) {
        guard
            let listener = Self.listener.withLock({ listener in
                defer { listener = nil }
                return listener
            })
        else { return }
        do throws(Errno) { try debugger.start(machine, listener) } catch {
            throw Self.failure("pthread_create", error)
        }
        let terminal = Terminal.diagnostics
        terminal.print(
            terminal.styled("gdb     ", .dim) + " the guest waits; connect with: gdb -ex '\(address.command)'"
        )
    }

    private static func failure(_ call: String, _ errno: Errno) -> MachineError {
        .backend(call: call, errno: errno, attempted: "the debugger's server", hint: nil)
    }
}
