// SPDX-License-Identifier: MIT
import Litmus
import MiniVMM
import SystemPackage

// Conversions as C expressions: the bare call, or several calls for a policy of the monitor.
extension StepWriter {
    mutating func convert(_ step: Step, _ conversion: Conversion) throws(ExportProblem) -> String {
        let extent = conversion.extent
        if let contents = conversion.contents, conversion.isPlain,
            Attributes.state(conversion.attributes) != nil
        {
            if contents == .preserve, test.vm == .default {
                return step.expects(.notSupportedOnSocket) ? "\"EOPNOTSUPP\"" : "need_call(\"EOPNOTSUPP\")"
            }
            if extent.name == .guest { return try policy(step, conversion, contents) }
            let isOneCall = extent.size <= conversion.monitor.chunkBytes
            if contents == .zero || !isOneCall || conversion.monitor.isPatient, isInside(extent) {
                return conversion.monitor.isPatient || contents == .zero && !isOneCall
                    ? try policy(step, conversion, contents) : try calls(step, conversion, contents)
            }
        }
        if conversion.isPlain {
            return
                "convert(\(file(extent.name)), \(range(extent)), \(CText.attributes(conversion.attributes)))"
        }
        var fields = [
            ".offset = \(offset(extent.offset))", ".size = \(CText.bytes(extent.size))",
            ".attributes = \(CText.attributes(conversion.attributes))",
        ]
        if conversion.flags != 0 { fields.append(".flags = \(CText.word(conversion.flags))") }
        if conversion.errorOffset != 0 {
            fields.append(".error_offset = \(CText.word(conversion.errorOffset))")
        }
        for word in conversion.reserved {
            fields.append(".reserved[\(word.index)] = \(CText.word(word.value))")
        }
        let request = "&(struct kvm_memory_attributes2){ \(fields.joined(separator: ", ")) }"
        let file = file(extent.name)
        return switch conversion.structure {
        case .writable: "convert_with(\(file), \(request))"
        case .readOnly: "convert_from(\(file), \(request), 128, true)"
        case .unmapped: "convert_from(\(file), \(request), 0, false)"
        case .cut: "convert_from(\(file), \(request), 64, false)"
        }
    }

    func isInside(_ extent: Extent) -> Bool {
        guard let size = sizes[extent.name] else { return false }
        let (end, overflow) = extent.offset.addingReportingOverflow(extent.size)
        return !overflow && end <= size && extent.size > 0 && extent.size % pageSize == 0
            && extent.offset % pageSize == 0
    }

    /// A request for a file whose calls are made once each: the monitor zeroes the pages, or divides the range.
    private mutating func calls(
        _ step: Step, _ conversion: Conversion, _ contents: ContentPolicy
    ) throws(ExportProblem) -> String {
        let extent = conversion.extent
        let (file, range) = (file(extent.name), range(extent))
        let state = CText.attributes(conversion.attributes)
        guard contents == .zero else {
            return
                "convert_in_pieces(\(file), \(range), \(state), \(CText.bytes(conversion.monitor.chunkBytes)))"
        }
        try checkViewOfFile(step, extent.name)
        return "convert_and_zero(\(file), \(view(extent.name)), \(range), \(state))"
    }

    /// The monitor reads and zeroes pages in its view of the whole file.
    private func checkViewOfFile(_ step: Step, _ name: Name) throws(ExportProblem) {
        guard views[name]?.file == name, views[name]?.offset == 0 else {
            throw .step(step.text, reason: "the monitor maps the file by itself, which a program does not")
        }
    }

    /// A request that the monitor carries out with several calls.
    mutating func policy(
        _ step: Step, _ conversion: Conversion, _ contents: ContentPolicy
    ) throws(ExportProblem) -> String {
        let extent = conversion.extent
        guard let range = PageRange(start: extent.offset, size: extent.size) else {
            throw .step(step.text, reason: "the range is not whole pages")
        }
        var parts: [String] = []
        if extent.name == .guest {
            let regions = test.memory.regions
            // The monitor refuses it without a call.
            guard range.end <= regions.last?.gpa.end ?? 0 else { return "\"EINVAL\"" }
            for (region, part) in regions.parts(of: range) {
                let bytes = region.extent(at: part)
                parts.append(
                    "{ \(file(region.name)), \(view(region.name)), \(CText.bytes(bytes.offset)), "
                        + "\(CText.bytes(bytes.size)), \(CText.bytes(part.start)) }")
            }
        } else {
            if contents == .zero { try checkViewOfFile(step, extent.name) }
            parts.append(
                "{ \(file(extent.name)), \(view(extent.name)), \(self.range(extent)), \(offset(extent.offset)) }"
            )
        }
        let list = parts.joined(separator: ",\n\t\t\t")
        let policy = Self.policy(contents, conversion.monitor)
        return
            "convert_parts((struct part[]){\n\t\t\t\(list) }, \(parts.count), \(CText.attributes(conversion.attributes)),\n"
            + "\t\t\t\(policy))"
    }
}

extension MonitorPolicy {
    /// The largest call, bytes.
    var chunkBytes: UInt64 { chunk.map { $0 * pageSize } ?? Converter.defaultChunk }

    /// Whether a piece in use is asked for again, or its other pages are converted first.
    fileprivate var isPatient: Bool { attempts != 1 || bisects }
}
