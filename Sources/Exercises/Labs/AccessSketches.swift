// SPDX-License-Identifier: MIT
// Exercises 1 and 2: accesses of the host and of a guest.
extension Prediction {
    static func hostReads(_ seed: UInt64) -> Problem.Draft {
        draft(seed, salt: 0x1001, Demand(blanks: 6, kinds: 2, outcomes: 4)) { lines in
            lines.explain(
                "A guest_memfd has a few pages. The host has it mapped, and vCPU 0 runs on it. Say for each ? what the host "
                    + "reads: a byte such as 0x41, or SIGBUS. A page that was never written has the byte 0x00. Steps with "
                    + "an outcome behind => are facts; every other step succeeds.")
        } sketch: { chance in
            let pages = chance.number(3...4)
            let initial = chance.isTrue(80) ? "shared" : "private"
            var sketch = Sketch(header: [
                "test      \"what the host reads\"", "memory    \(pages) pages \(initial)",
            ])
            if initial == "shared" { sketch.step("host fill 0..\(pages - 1) \(chance.byte())") }
            var held: String?
            for _ in 0..<chance.number(12...16) {
                let page = chance.below(pages)
                let last = chance.number(page...(pages - 1))
                switch chance.below(20) {
                case 0...3: sketch.step("host convert \(page)..\(last) private")
                case 4...6: sketch.step("host convert \(page)..\(last) shared")
                case 7: sketch.step("host write \(page) \(chance.byte())")
                case 8...9: sketch.step("vcpu0 write \(page) \(chance.byte())")
                case 10: sketch.step("host punch \(page)")
                case 11:
                    if held == nil {
                        sketch.step("host hold \(page) as pin")
                        held = "pin"
                    } else {
                        sketch.step("host release pin")
                        held = nil
                    }
                default: sketch.ask("host read \(page)")
                }
            }
            for page in 0..<pages where chance.isTrue(60) { sketch.ask("host read \(page)") }
            return sketch
        }
    }

    static func guestSees(_ seed: UInt64) -> Problem.Draft {
        draft(seed, salt: 0x2002, Demand(blanks: 7, kinds: 3, outcomes: 5)) { lines in
            lines.explain(
                "The guest reaches page 1 as `1` through its private alias and as `shared:1` through its shared alias. An "
                    + "access through the alias that does not match the page's state exits with a memory fault, which names "
                    + "the state that the access needs and the page: `fault private at 1`. `again` repeats the access of a "
                    + "stopped vCPU. `zapped` is the number of pages that were removed from the guest's tables since the vCPU "
                    + "last made an access.")
            lines.gap()
            lines.explain(
                "Say for each ? what happens: a byte such as 0x41 for a read, ok for a write, `fault private at N` or "
                    + "`fault shared at N`, mmio if no memslot has the address, SIGBUS for the host; a number for `zapped`."
            )
        } sketch: { chance in
            let pages = chance.number(2...3)
            var sketch = Sketch(header: [
                "test      \"what the guest sees\"", "aliases   two", "memory    \(pages) pages shared",
            ])
            sketch.step("host fill 0..\(pages - 1) \(chance.byte())")
            var isBound = true
            for _ in 0..<chance.number(14...18) {
                let page = chance.below(pages)
                let last = chance.number(page...(pages - 1))
                let alias = chance.isTrue(50) ? "shared:" : ""
                switch chance.below(24) {
                case 0...3: sketch.step("host convert \(page)..\(last) private")
                case 4...5: sketch.step("host convert \(page)..\(last) shared")
                case 6: sketch.step("host convert 0..\(pages - 1) \(chance.pick("private", "shared"))")
                case 7...9: sketch.ask("vcpu0 write \(alias)\(page) \(chance.byte())")
                case 10:
                    // The access faults, and is repeated after the page has got the other state.
                    sketch.step("host convert \(page) private")
                    sketch.ask("vcpu0 read shared:\(page)")
                    sketch.step("host convert \(page) shared")
                    sketch.ask("vcpu0 again")
                case 11: sketch.ask("vcpu0 read \(alias)\(page) converting preserve")
                case 12: sketch.ask("host read \(page)")
                case 13: sketch.ask("host zapped")
                case 14:
                    if isBound {
                        sketch.step("host unbind slot 0")
                    } else {
                        sketch.step("host bind slot 0 to ram:0..\(pages - 1) at 0")
                    }
                    isBound = !isBound
                default: sketch.ask("vcpu0 read \(alias)\(page)")
                }
            }
            return sketch
        }
    }

    static func confidential(_ seed: UInt64) -> Problem.Draft {
        let isSNP = seed % 2 == 0
        return draft(seed, salt: 0xa00a, Demand(blanks: 7, kinds: 4, outcomes: 5)) { lines in
            if isSNP {
                lines.explain(
                    "An SNP guest. A private page must be validated (pvalidate) before the guest uses it; until then its touch "
                        + "is VC. A hypercall is a page state change. `shared:1` is page 1 through the shared alias. What the "
                        + "guest writes to private pages is encrypted: the host sees none of it.")
                lines.gap()
                lines.explain(
                    "Say for each ? what happens: ok, a byte, garbage (a byte written with another key), VC, UNCHANGED at N or "
                        + "INVALID at N for pvalidate, `fault private at N` or `fault shared at N`, SIGBUS for the host."
                )
            } else {
                lines.explain(
                    "A TDX guest. A private page must be accepted before the guest uses it: the touch of a pending page ends "
                        + "the TD with EIO, or is VE if the host said `ve`. A hypercall is MapGPA. `shared:1` is page 1 "
                        + "through the shared alias. Acceptance zeroes a page.")
                lines.gap()
                lines.explain(
                    "Say for each ? what happens: ok, a byte, VE, EIO, UNCHANGED at N for accept, `fault private at N` or "
                        + "`fault shared at N`, SIGBUS for the host.")
            }
        } sketch: { chance in
            let pages = chance.number(2...3)
            var sketch = Sketch(header: [
                "test      \"what a confidential guest sees\"", "vm        \(isSNP ? "snp" : "tdx")",
                "memory    \(pages) pages shared",
            ])
            let take = isSNP ? "pvalidate" : "accept"
            if !isSNP, chance.isTrue(85) { sketch.step("host ve") }
            sketch.step("host fill 0..\(pages - 1) \(chance.byte())")
            for _ in 0..<chance.number(15...19) {
                let page = chance.below(pages)
                let last = chance.number(page...(pages - 1))
                switch chance.below(24) {
                case 0...2: sketch.step("vcpu0 hypercall \(page)..\(last) private")
                case 3: sketch.step("vcpu0 hypercall \(page)..\(last) shared")
                case 4: sketch.step("host convert \(page) \(chance.pick("private", "shared"))")
                case 5...8: sketch.ask("vcpu0 \(take) \(page)..\(last)")
                case 9: sketch.ask(isSNP ? "vcpu0 pvalidate \(page) rescind" : "vcpu0 accept \(page)")
                case 10...12: sketch.ask("vcpu0 write \(page) \(chance.byte())")
                case 13: sketch.ask("vcpu0 write shared:\(page) \(chance.byte())")
                case 14...15: sketch.ask("vcpu0 read shared:\(page)")
                case 16: sketch.step("host write \(page) \(chance.byte())")
                case 17...18: sketch.ask("host read \(page)")
                default: sketch.ask("vcpu0 read \(page)")
                }
            }
            return sketch
        }
    }
}
