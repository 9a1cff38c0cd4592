// SPDX-License-Identifier: MIT

// Exercise 8: cases that check the kernel on which the monitor runs.
//
// A monitor that makes only correct calls and looks only at pages cannot notice most broken rules. These cases contain other
// calls, too, before the pieces and between them: those of a monitor that tests the kernel when it starts, and those of a
// program that makes mistakes. They leave every page as it was.
extension CaseSuite {
    /// Lines between the pieces of the student.
    struct Extras: Sendable {
        /// Before the first piece.
        var start: [String] = []
        /// After the first piece and the check of all pages.
        var afterFirst: [String] = []
        /// After the second piece and the check of all pages: every page is private.
        var afterSecond: [String] = []
    }

    static func kernelCases(_ shape: Shape) -> [Case] {
        [
            item("the monitor tests files and memslots when it starts", shape, extras: objects(shape)),
            item("wrong requests come before the monitor's", shape, extras: wrongRequests(shape)),
            item("several pages are in use before the guest asks", shape, extras: pagesInUse(shape)),
            item("other calls convert pages, too", shape, extras: conversions(shape)),
            item("pages are removed from page tables", shape, extras: tables(shape)),
            item("holes are punched", shape, extras: holes(shape)),
            item("a memslot is deleted and comes back", shape, extras: memslots(shape)),
            item("a large file is converted, too", shape, extras: largeFiles(shape)),
            item(
                "the kernel has no memory for two runs of attributes", shape, runs: 1,
                extras: noMemory(shape)),
        ]
    }

    private static func objects(_ shape: Shape) -> Extras {
        Extras(start: [
            line("host", "extension 252", "0x8"),
            line("host", "create odd 2 pages mmap flags 0x100", "EINVAL"),
            line("host", "create plain 2 pages"),
            line("host", "map plain:0..1 as plainview", "ENODEV"),
            line("host", "create fresh 2 pages mmap"),
            line("host", "map fresh:0..1 as freshview"),
            line("host", "read freshview:0", "SIGBUS"),
            line("host", "create begun 2 pages mmap init_shared"),
            line("host", "map begun:0..1 as begunview"),
            line("host", "read begunview:0", "0x0"),
            line("host", "create alien 2 pages mmap init_shared on second"),
            line("host", "map alien:0..1 as alienview"),
            line("host", "bind slot 7 to alien:0..1 at 64", "EINVAL"),
            line("host", "create normal 2 pages mmap init_shared on default"),
            line("host", "convert normal:0..1 private", "EINVAL"),
            line("host", "bind slot 6 to other:0..1 at 96", "EEXIST"),
        ])
    }

    /// Rows 1 to 8 of the validation table.
    private static func wrongRequests(_ shape: Shape) -> Extras {
        let wrong = [
            "1 private flags 2", "1 shared flags 2", "1 private reserved 3 = 1", "1 attributes 0x9",
            "@4096+0 private", "@4096+0xfffffffffffff000 private", "@4096+5000 private", "@512+4096 private",
            "1..\(shape.first) private", "\(shape.first + 1) private",
        ]
        return Extras(
            start: wrong.map { line("host", "convert " + $0, "EINVAL") } + [
                line("host", "convert 1 private struct cut", "EFAULT"),
                line("host", "read 1", shape.byte(1)),
                line("host", "convert 1 private error_offset 4096"),
                line("host", "read 1", "SIGBUS"),
                line("host", "convert 1 shared error_offset 1"),
                line("host", "read 1", shape.byte(1)),
            ])
    }

    /// Rows 11 and 12 of the validation table. A memory has at least three pages.
    private static func pagesInUse(_ shape: Shape) -> Extras {
        Extras(start: [
            line("host", "hold 1 as early"),
            line("host", "hold 2 as later"),
            line("host", "convert 0..\(shape.first) private", "EINVAL"),
            line("host", "convert 0..2 private struct readonly", "EFAULT"),
            line("host", "convert 0..2 private", "EAGAIN at 1"),
            line("host", "read 0", shape.byte(0)),
            line("host", "convert 1..2 private", "EAGAIN at 1"),
            line("host", "release early"),
            line("host", "convert 0..2 private", "EAGAIN at 2"),
            line("host", "read 1", shape.byte(1)),
            line("host", "convert 0 private"),
            line("host", "convert 0..2 private", "EAGAIN at 2"),
            line("host", "read 1", shape.byte(1)),
            line("host", "convert 1..2 shared"),
            line("host", "convert 0..2 shared"),
            line("host", "release later"),
            line("host", "convert 2 private"),
            line("host", "convert 2 shared"),
        ])
    }

    private static func conversions(_ shape: Shape) -> Extras {
        Extras(afterSecond: [
            line("host", "write 2 \(shape.message)", "SIGBUS"),
            line("vcpu0", "read 2", shape.byte(2)),
            line("host", "convert 1 shared"),
            line("host", "read 0", "SIGBUS"),
            line("host", "read 1", shape.byte(1)),
            line("host", "read 2", "SIGBUS"),
            line("host", "hold 1 as used"),
            line("host", "convert 0..2 shared"),
            line("host", "release used"),
            line("host", "read 0", shape.byte(0)),
            line("host", "read 2", shape.byte(2)),
            line("host", "convert 1 private"),
            line("host", "convert 0..2 private"),
        ])
    }

    private static func tables(_ shape: Shape) -> Extras {
        Extras(
            start: [
                line("vcpu0", "read shared:0", shape.byte(0)),
                line("host", "convert 0..2 shared"),
                line("host", "zapped", "0"),
                line("host", "present 0..2", "3"),
                line("host", "create pair 2 pages mmap init_shared"),
                line("host", "map pair:0..1 as pairview"),
                line("host", "bind slot 4 to pair:0..0 at 64"),
                line("host", "bind slot 5 to pair:1..1 at 65"),
                line("vcpu0", "write shared:64 \(shape.message)"),
                line("vcpu0", "write shared:65 \(shape.message)"),
                line("host", "convert pair:0..1 private"),
                line("host", "zapped", "2"),
                line("vcpu0", "read shared:0", shape.byte(0)),
            ],
            afterFirst: [
                line("host", "present 0..\(shape.first - 1)", "0"),
                line("vcpu1", "read shared:0", "fault shared at 0"),
            ],
            afterSecond: [
                line("vcpu0", "read 0", shape.byte(0)),
                line("host", "convert 1 shared"),
                line("host", "zapped", "1"),
                line("host", "read 1", shape.byte(1)),
                line("host", "convert 0..1 shared"),
                line("host", "present 0..1", "1"),
                line("host", "convert 0..1 private"),
            ])
    }

    private static func holes(_ shape: Shape) -> Extras {
        Extras(
            start: [
                line("host", "hold 0 as old"),
                line("host", "punch 0"),
                line("host", "read 0", "0x0"),
                line("host", "fill 0 \(shape.byte(0))"),
                line("host", "convert 0 private"),
                line("host", "release old"),
                line("host", "punch @0x800+0x1000", "EINVAL"),
            ],
            afterSecond: [
                line("host", "punch 0"),
                line("host", "read 0", "SIGBUS"),
                line("vcpu0", "read 0", "0x0"),
                line("vcpu0", "fill 0 \(shape.byte(0))"),
            ])
    }

    private static func memslots(_ shape: Shape) -> Extras {
        Extras(afterSecond: [
            line("host", "unbind slot 1"),
            line("vcpu0", "read \(shape.first)", "mmio"),
            line("host", "read other:0", "SIGBUS"),
            line("host", "bind slot 1 to other:0..\(shape.second - 1) at \(shape.first)"),
            line("vcpu0", "read \(shape.first)", shape.byte(shape.first)),
        ])
    }

    /// More than 31 pages, and more than 4 GiB.
    private static func largeFiles(_ shape: Shape) -> Extras {
        Extras(start: [
            line("host", "create many 40 pages mmap init_shared"),
            line("host", "map many:0..39 as manyview"),
            line("host", "fill manyview:0..39 \(shape.message)"),
            line("host", "hold manyview:35 as late"),
            line("host", "convert many:0..39 private", "EAGAIN at 35"),
            line("host", "release late"),
            line("host", "create large 1048580 pages mmap init_shared"),
            line("host", "map large:0..1 as largeview"),
            line("host", "convert large:@0+0x100001000 private"),
            line("host", "read largeview:1", "SIGBUS"),
        ])
    }

    /// Row 10 of the validation table, which comes before pages in use.
    private static func noMemory(_ shape: Shape) -> Extras {
        Extras(start: [
            line("host", "convert 1 private", "ENOMEM at 1"),
            line("host", "read 1", shape.byte(1)),
            line("host", "hold 1 as early"),
            line("host", "convert 1 private", "ENOMEM at 1"),
            line("host", "release early"),
        ])
    }
}
