// SPDX-License-Identifier: MIT
import MiniVMM
import Report
import Synchronization

/// Records the traces of several machines, which run one after another, and then draws them.
final class Gallery: Sendable {
    private let recorders = Mutex<[(title: String, recorder: TraceRecorder)]>([])
    private let isWanted: Bool

    init(_ pictures: PictureOptions) { isWanted = pictures.isWanted }

    /// The sinks for the events of the next machine; none if no picture is requested.
    func sinks(_ title: String) -> [any TraceSink] {
        guard isWanted else { return [] }
        let recorder = TraceRecorder()
        recorders.withLock { $0.append((title, recorder)) }
        return [recorder]
    }

    /// Draws all traces. With several traces, file names are numbered.
    ///
    /// - Returns: the names of the files.
    func draw(_ pictures: PictureOptions) throws -> [String] {
        let recorders = recorders.withLock { $0 }
        var files: [String] = []
        for (index, entry) in recorders.enumerated() {
            let numbered = recorders.count == 1 ? pictures : pictures.numbered(index + 1)
            try numbered.draw(entry.recorder.recorded(), title: entry.title)
            files += numbered.files
        }
        return files
    }
}

extension PictureOptions {
    var files: [String] { [html, svg, chrome].compactMap { $0 } }

    /// The same options with a number before each file extension: `tour.html` becomes `tour-3.html`.
    func numbered(_ number: Int) -> PictureOptions {
        func name(_ path: String?) -> String? {
            guard let path, path != "-" else { return path }
            guard let dot = path.lastIndex(of: "."), !path[dot...].contains("/"), dot != path.startIndex
            else {
                return "\(path)-\(number)"
            }
            return "\(path[..<dot])-\(number)\(path[dot...])"
        }
        var copy = self
        copy.html = name(html)
        copy.svg = name(svg)
        copy.chrome = name(chrome)
        return copy
    }
}
