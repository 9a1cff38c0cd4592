public import MiniVMM
public import SystemPackage

public final class SoftKVM: KVMInterface {
    public struct Configuration: Sendable {
        public var seed: UInt64 = 0
        public var contentPromise = ContentPromise.preserved
        public init() {}
    }
    public struct S: Sendable { public var isAvailable = false }
    public let engineStatus = S()
    public init(_ c: Configuration = .init()) {}
    public let identity = KernelIdentity(name: "SoftKVM", host: "none")
    public func checkExtension(_ capability: Capability) throws(Errno) -> Int { 0 }
    public func supportedCPUID() throws(Errno) -> CPUIDTable { throw .noFunction }
    public func createVM(_ type: VMType, sharedBit: Int?) throws(Errno) -> any KVMVirtualMachine {
        throw .noFunction
    }
    public func now() -> UInt64 { 0 }
    public func sleep(nanoseconds: UInt64) {}
    public let runsVCPUsInTurns = true
}
