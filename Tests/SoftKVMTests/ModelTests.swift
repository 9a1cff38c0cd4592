// SPDX-License-Identifier: MIT
import CKVMShim
import ConversionModel
import MiniVMM
import SoftKVM
import SystemPackage
import Testing

/// Compares the model with its own bytes and ``SoftKVM``, which is the same model over real memory: the same calls
/// must have the same results and bytes.
struct ModelTests {
    @Test(arguments: [ABIProfile.linux74, .rfcV5], [1, 2, 3, 4] as [UInt64])
    func valueAndMemoryAgree(_ abi: ABIProfile, _ seed: UInt64) throws {
        var generator = SplitMix64(seed: seed)
        let pages: UInt64 = 4
        let soft = try SoftKVM(.init(seed: seed, abi: abi)).createVM(.softwareProtected, sharedBit: nil)
        let softVM = try #require(soft as? SoftVM)
        let softFile = try softVM.createGuestMemfd(size: pages * pageSize, flags: [.mmap, .initShared])
        let softMapping = try softFile.map(offset: 0, length: pages * pageSize)
        var kernel = KernelModel(Rules(abi: abi))
        let vm = try kernel.createVM(.softwareProtected)
        let file = try kernel.createGuestMemfd(vm, size: pages * pageSize, flags: [.mmap, .initShared])
        let mapping = try kernel.map(file, offset: 0, length: pages * pageSize)
        var holds: [(HoldID, any PageHold)] = []

        func random(_ bound: UInt64) -> UInt64 { generator.next() % bound }
        func failure(_ body: () throws -> Void) -> Int32? {
            do {
                try body()
                return nil
            } catch let error as ErrorNumber {
                return error.rawValue
            } catch {
                return (error as? Errno)?.rawValue ?? -1
            }
        }
        for step in 0..<1500 {
            let offset = random(pages) * pageSize
            let size = (1 + random(pages - offset / pageSize)) * pageSize
            switch random(8) {
            case 0, 1:
                let attributes = random(2) == 0 ? MemoryAttributes.private : 0
                let flags = abi == .rfcV5 ? random(3) : random(8) / 7
                var call = ConversionCall(offset: offset, size: size, attributes: attributes, flags: flags)
                var request = ckvm_memory_attributes2()
                (request.offset, request.size, request.attributes, request.flags) = (
                    offset, size, attributes, flags
                )
                let (ours, theirs) = (
                    failure { try kernel.convert(file, &call) },
                    failure { try softFile.setMemoryAttributes2(&request) }
                )
                #expect(ours == theirs && call.errorOffset == request.error_offset, "step \(step)")
            case 2:
                let byte = UInt8(truncatingIfNeeded: generator.next())
                let ours = failure { _ = try kernel.fill(mapping, at: offset, count: 1, with: byte) }
                let theirs = failure {
                    _ = try withUnsafeBytes(of: byte) { try softMapping.write(at: offset, from: $0) }
                }
                #expect(ours == theirs, "step \(step)")
            case 3:
                let isHole = random(2) == 0
                try kernel.allocate(file, punchHole: isHole, offset: offset, length: size)
                try softFile.allocate(punchHole: isHole, offset: offset, length: size)
            case 4:
                var hold: HoldID?
                var softHold: (any PageHold)?
                let ours = failure { hold = try kernel.hold(mapping, at: offset, length: size, by: .ioUring) }
                let theirs = failure {
                    softHold = try softMapping.hold(at: offset, length: size, by: .ioUring)
                }
                #expect(ours == theirs, "step \(step)")
                if let hold, let softHold { holds.append((hold, softHold)) }
            case 5:
                guard let (hold, softHold) = holds.popLast() else { continue }
                kernel.release(hold)
                softHold.release()
            default:
                try kernel.advise(mapping, at: offset, length: size, .dontNeed)
                try softMapping.advise(at: offset, length: size, .dontNeed)
            }
            for page in 0..<pages {
                let (ours, theirs) = (read(&kernel, mapping, page), read(softMapping, page))
                guard case .known(let byte)? = ours else {
                    #expect((ours == nil) == (theirs == nil), "step \(step), page \(page)")
                    continue
                }
                #expect(byte == theirs, "step \(step), page \(page)")
            }
        }
    }

    private func read(_ kernel: inout KernelModel, _ mapping: MappingID, _ page: UInt64) -> Byte? {
        try? kernel.read(mapping, at: page * pageSize)
    }

    private func read(_ mapping: any HostMapping, _ page: UInt64) -> UInt8? {
        var byte: UInt8 = 0
        let count = try? withUnsafeMutableBytes(of: &byte) { try mapping.read(at: page * pageSize, into: $0) }
        return count == 1 ? byte : nil
    }
}
