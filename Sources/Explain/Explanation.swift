// SPDX-License-Identifier: MIT
/// What an error means and what to do about it: the four lines below each error of the command.
public struct Diagnosis: Sendable, Equatable {
    /// What was asked for, with its numbers.
    public let attempted: String
    /// What the kernel said, or that it was not asked.
    public let answer: String
    /// What that most likely means.
    public let means: String
    /// What to do next.
    public let advice: String

    public init(attempted: String, answer: String, means: String, advice: String) {
        self.attempted = attempted
        self.answer = answer
        self.means = means
        self.advice = advice
    }

    /// The lines with their labels, in the order in which they are printed; the labels are the keys of JSON.
    public var lines: [(label: String, text: String)] {
        [("attempted", attempted), ("answer", answer), ("means", means), ("try", advice)]
    }
}

/// A topic, explained: a title and labelled texts.
public struct Explanation: Sendable, Equatable {
    /// What a text says; the raw value is printed, and is the key in JSON.
    public enum Label: String, Sendable, CaseIterable {
        case attempted, answer, symptom, trigger, host, guest
        case means
        case advice = "try"
        case unless, elsewhere, versions, litmus, see
    }

    public struct Section: Sendable, Equatable {
        public let label: Label
        public let text: String
    }

    public let kind: Kind
    /// As it is asked for, `EAGAIN`.
    public let name: String
    /// One line: `EAGAIN (11) from KVM_SET_MEMORY_ATTRIBUTES2`.
    public let title: String
    public private(set) var sections: [Section] = []
    /// Rows of the call's validation table that it is about.
    public internal(set) var rows: [Int] = []

    public init(_ kind: Kind, _ name: String, _ title: String, _ sections: [(Label, String)] = []) {
        self.kind = kind
        self.name = name
        self.title = title
        for (label, text) in sections { add(label, text) }
    }

    /// Adds a text, unless there is nothing to say.
    public mutating func add(_ label: Label, _ text: String) {
        if !text.isEmpty { sections.append(Section(label: label, text: text)) }
    }

    public func text(_ label: Label) -> String? { sections.first { $0.label == label }?.text }
}

/// The kinds of things that are explained. The raw value is the word that chooses one.
public enum Kind: String, Sendable, CaseIterable {
    case exit, errno, capability, hazard, state, contents, call, status, event, version

    /// What may stand after the word, for the list of topics.
    public var what: String {
        switch self {
        case .exit: "why KVM_RUN came back, by number or name, with flags= gpa= size= errno="
        case .errno:
            "an answer of the conversion call, with offset= size= attributes= flags= error_offset= reserved= file= "
                + "vm= state="
        case .capability: "a number or name of KVM_CHECK_EXTENSION"
        case .hazard: "what goes wrong around conversions, and its cure"
        case .state: "what a page of guest memory can be"
        case .contents: "what a request says of the bytes that it converts"
        case .call: "ioctls, flags, fields and files of the interface"
        case .status: "an exit status of minivmm"
        case .event: "a line of the trace"
        case .version: "what a posted version of the interface did differently"
        }
    }
}
