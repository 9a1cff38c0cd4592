// SPDX-License-Identifier: MIT
import MiniVMM

typealias Generator = SplitMix64

extension SplitMix64 {
    mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(bound)) }
}
