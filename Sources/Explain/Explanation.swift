// SPDX-License-Identifier: MIT
/// The four lines that commands print below an error: its meaning and what to do.
public struct Diagnosis: Sendable, Equatable {
    /// The request, with its numbers. Printed as `attempted`.
    public let attempted: String
    /// The backend's answer, or a note that it was not called. Printed as `answer`.
    public let answer: String
    /// The most likely cause. Printed as `means`.
    public let means: String
    /// The next action to take. Printed as `try`.
    public let advice: String

    /// A diagnosis whose texts are sentences or parts of them, each for one line.
    public init(attempted: String, answer: String, means: String, advice: String) {
        self.attempted = attempted
        self.answer = answer
        self.means = means
        self.advice = advice
    }

    /// The four lines in the order in which they are printed. The labels are also the keys in JSON.
    public var lines: [(label: String, text: String)] {
        [("attempted", attempted), ("answer", answer), ("means", means), ("try", advice)]
    }
}

/// A topic of `minivmm explain`: a title and labelled texts.
public struct Explanation: Sendable, Hashable {
    /// The label of a text. The raw value is printed, and is the key in JSON.
    public enum Label: String, Sendable, CaseIterable {
        /// The request.
        case attempted
        /// The result of a call, or the answer to a request.
        case answer
        /// The symptom of a hazard.
        case symptom
        /// The cause of a hazard.
        case trigger
        /// The host's access to a page in this state.
        case host
        /// The guest's access to a page in this state.
        case guest
        /// The meaning of the topic, or the most likely cause.
        case means
        /// The action to take.
        case advice = "try"
        /// Other causes, which need something that was not given in the arguments.
        case unless
        /// The meaning of the same errno when another call returns it.
        case elsewhere
        /// Versions of the interface to which the topic applies, or in which it differs.
        case versions
        /// Litmus tests that show it.
        case litmus
        /// Related topics and commands.
        case see
    }

    /// One text with its label.
    public struct Section: Sendable, Hashable {
        /// The label of the text.
        public let label: Label
        /// One or more sentences for people, without a line break.
        public let text: String
    }

    /// The kind of topic.
    public let kind: Kind
    /// The name that selects the topic: `EAGAIN`.
    public let name: String
    /// One line: `EAGAIN (11) from KVM_SET_MEMORY_ATTRIBUTES2`.
    public let title: String
    /// The texts in the order in which they are printed. A label may occur several times.
    public private(set) var sections: [Section] = []
    /// Raw values of the ``ConversionRow``s that explain an errno; empty for any other kind.
    public internal(set) var rows: [Int] = []

    /// A topic with the given texts; empty ones are left out.
    public init(_ kind: Kind, _ name: String, _ title: String, _ sections: [(Label, String)] = []) {
        self.kind = kind
        self.name = name
        self.title = title
        for (label, text) in sections { add(label, text) }
    }

    /// Adds a text at the end, unless it is empty.
    public mutating func add(_ label: Label, _ text: String) {
        if !text.isEmpty { sections.append(Section(label: label, text: text)) }
    }

    /// The first text with this label; nil if there is none.
    public func text(_ label: Label) -> String? { sections.first { $0.label == label }?.text }
}

/// The kinds of topics. The raw value is the word that selects one on the command line.
public enum Kind: String, Sendable, CaseIterable {
    /// An exit reason of `KVM_RUN` (`KVM_EXIT_*`).
    case exit
    /// An errno of `KVM_SET_MEMORY_ATTRIBUTES2`.
    case errno
    /// A capability of `KVM_CHECK_EXTENSION` (`KVM_CAP_*`).
    case capability
    /// A row of the hazard table.
    case hazard
    /// A state of a page, such as `private` or `in-use`.
    case state
    /// A policy for the contents of converted pages.
    case contents
    /// An ioctl, system call, flag, field or file of the interface.
    case call
    /// An exit status of minivmm.
    case status
    /// An event of the trace.
    case event
    /// A version of the in-place interface, posted or applied.
    case version
    /// A message of QEMU or of the host kernel's log.
    case message
    /// A term of the glossary.
    case term

    /// The topics of the kind, and the arguments that may follow a name, for the list of topics.
    public var what: String {
        switch self {
        case .exit:
            "an exit reason of KVM_RUN, by number or name; with its fields, such as flags= gpa= reason= suberror="
        case .errno:
            "an errno of the conversion call, with offset= size= attributes= flags= error_offset= reserved= file= vm= state=; or "
                + "of another call, with call="
        case .capability: "a capability of KVM_CHECK_EXTENSION, by number or name"
        case .hazard: "a way in which conversions go wrong, and how to avoid it"
        case .state: "a state of a page of guest memory"
        case .contents: "what happens to the bytes of converted pages"
        case .call: "ioctls, system calls, flags, fields and files of the interface"
        case .status: "an exit status of minivmm"
        case .event: "an event of the trace"
        case .version: "a version of the in-place interface, and how it differs from Linux 7.4"
        case .message: "a message of QEMU or of the host kernel's log"
        case .term: "a term of the glossary (docs/GLOSSARY.md)"
        }
    }
}
