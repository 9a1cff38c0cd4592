// SPDX-License-Identifier: MIT
import ConversionModel
import LitmusModel

/// What the host and the guest find in the pages of every file, at one moment of a run.
struct PagePicture {
    struct Page {
        let state: PageState
        /// A byte, `SIGBUS`, `fault`, … as the test's language writes outcomes; empty if nothing leads to the page.
        let host: String
        let guest: String
        /// References besides the file's own.
        let holds: Int
        /// Whether no version of the interface says what the byte is.
        let isUndefined: Bool
        /// Whether the page is in the page tables of a process on the host.
        let isMapped: Bool
    }
    struct File {
        let name: String
        let pages: UInt64
        let shown: [Page]
    }

    /// In the order of their creation.
    let files: [File]
    /// What is left out; nil if nothing is.
    let note: String?

    /// The largest number of pages of a file that are shown.
    static let mostPages: UInt64 = 32

    init(_ machine: ModelMachine) {
        let names = machine.files.sorted { $0.value.rawValue < $1.value.rawValue }
        files = names.map { name, descriptor in machine.picture(of: name, machine.kernel.file(of: descriptor))
        }
        let isLong = files.contains { $0.pages > Self.mostPages }
        note = isLong ? "only the first \(Self.mostPages) pages of a file are shown" : nil
    }

    func write(to json: inout JSONText) {
        json.members("files", files) { json, file in
            json.member("name", file.name)
            json.name("pages")
            json.value(file.pages)
            json.members("shown", file.shown) { json, page in
                json.member("state", page.state.rawValue)
                json.member("host", page.host)
                json.member("guest", page.guest)
                json.member("holds", page.holds)
                json.member("undefined", page.isUndefined)
                json.member("mapped", page.isMapped)
            }
        }
        json.member("note", note)
    }
}

extension ModelMachine {
    fileprivate func picture(of name: Name, _ file: FileID) -> PagePicture.File {
        let (size, states) = (kernel.size(of: file), kernel.attributes(of: file))
        let count = size / pageSize
        let shown = (0..<min(count, PagePicture.mostPages)).map { number in
            let offset = number * pageSize
            let page = PageRange(start: offset, size: pageSize)
            return PagePicture.Page(
                state: states.value(at: offset) ?? .shared, host: host(name, offset),
                guest: guest(name, offset),
                holds: Int(kernel.references(on: file, at: offset)),
                isUndefined: kernel.byte(file, at: offset) == .unknown,
                isMapped: page.map { kernel.presentPages(of: file, in: $0) > 0 } ?? false)
        }
        return PagePicture.File(name: name.description, pages: count, shown: shown)
    }

    /// What the host reads at an offset of a file, through the first view that leads there.
    private func host(_ file: Name, _ offset: UInt64) -> String {
        let leading = views.filter { $0.value.file == file }.sorted {
            $0.key.description < $1.key.description
        }
        for (_, view) in leading where offset >= view.offset {
            let place = offset - view.offset
            guard place < kernel.length(of: view.mapping) else { continue }
            return Self.text(kernel.visibleToHost(view.mapping, at: place), inaccessible: "SIGBUS")
        }
        return ""
    }

    /// What a vCPU of the test's VM reads there, through the first memslot that leads there.
    private func guest(_ file: Name, _ offset: UInt64) -> String {
        guard let vm = vms[setup.main] else { return "" }
        let bound = slots.filter {
            $0.key.vm == setup.main && $0.value.extent.name == file && !$0.value.isPlain
        }
        .sorted { $0.value.gpa < $1.value.gpa }
        for (_, slot) in bound
        where offset >= slot.extent.offset && offset - slot.extent.offset < slot.extent.size {
            let gpa = slot.gpa + (offset - slot.extent.offset)
            return Self.text(kernel.visibleToGuest(vm, at: gpa), inaccessible: "fault")
        }
        return ""
    }

    private static func text(_ byte: VisibleByte, inaccessible: String) -> String {
        switch byte {
        case .byte(.known(let byte)): "\(StepOutcome.value(byte))"
        case .byte(.unknown): "any byte"
        case .byte(.garbled): "garbage"
        case .noPage: "SIGBUS"
        case .noMemslot: "mmio"
        case .fault: inaccessible
        }
    }
}
