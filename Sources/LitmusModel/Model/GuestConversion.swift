// SPDX-License-Identifier: MIT
import ConversionModel

/// A test's request for the guest's memory.
package struct GuestConversion {
    package let request: ConversionRequest
    package let monitor: MonitorPolicy

    /// - Throws: if the monitor cannot make such a request.
    package init(_ conversion: Conversion) throws(Stop) {
        let extent = conversion.extent
        guard let contents = conversion.contents, conversion.isPlain,
            let target = Attributes.state(conversion.attributes),
            let range = PageRange(start: extent.offset, size: extent.size)
        else { throw .noGuestConversion(conversion) }
        request = ConversionRequest(range: range, to: target, contents: contents)
        monitor = conversion.monitor
    }
}

extension MemoryFault {
    /// The pages to convert; nil if the exit is not understood.
    package var pages: PageRange? {
        unknownFlags == 0 ? PageRange.covering(start: gpa, size: max(1, size)) : nil
    }
}

extension RunMap<PageState> {
    /// The states of the pages of several files, one file after the other.
    package init(joining files: [RunMap<PageState>]) {
        guard files.count != 1 else {
            self = files[0]
            return
        }
        self.init(size: files.reduce(0) { $0 + $1.size }, initial: .shared)
        var start: UInt64 = 0
        for file in files {
            defer { start += file.size }
            guard let whole = PageRange(start: 0, size: file.size) else { continue }
            for run in file.runs(in: whole) where run.value == .private {
                if let range = run.range.advanced(by: start) { set(range, to: .private) }
            }
        }
    }
}
