// swift-tools-version: 6.2
// SPDX-License-Identifier: MIT
import PackageDescription

let strict: [SwiftSetting] = [.strictMemorySafety(), .treatAllWarnings(as: .error)]
let strictC: [CSetting] = [.enableWarning("all"), .enableWarning("extra"), .treatAllWarnings(as: .error)]
let system: Target.Dependency = .product(name: "SystemPackage", package: "swift-system")

let package = Package(
    name: "MiniVMM",
    products: [
        .library(name: "ConversionModel", targets: ["ConversionModel"]),
        .library(name: "MiniVMM", targets: ["MiniVMM"]),
        .library(name: "SoftKVM", targets: ["SoftKVM"]),
        .library(name: "Backends", targets: ["Backends"]),
        .library(name: "GuestPayloads", targets: ["GuestPayloads"]),
        .library(name: "Explain", targets: ["Explain"]),
        .library(name: "Exercises", targets: ["Exercises"]),
        .library(name: "Export", targets: ["Export"]),
        .library(name: "Report", targets: ["Report"]),
        .library(name: "LitmusModel", targets: ["LitmusModel"]),
        .library(name: "Litmus", targets: ["Litmus"]),
        .executable(name: "minivmm", targets: ["minivmm"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-system", from: "1.8.1"),
    ],
    targets: [
        // The kernel's interface in C.
        .target(name: "CKVMShim", cSettings: strictC),
        // The model: the rules of the interface as a value. It imports nothing.
        .target(name: "ConversionModel", swiftSettings: strict),
        // The language of litmus tests and how the model performs them. It imports only the model, and compiles for WebAssembly.
        .target(name: "LitmusModel", dependencies: ["ConversionModel"], swiftSettings: strict),
        .target(
            name: "MiniVMM", dependencies: ["ConversionModel", "CKVMShim", system], swiftSettings: strict),
        // SoftKVM, a KVM in user space on the Unicorn engine.
        .target(name: "CUnicornShim", cSettings: strictC),
        .target(
            name: "SoftKVM",
            dependencies: ["ConversionModel", "CKVMShim", "MiniVMM", "CUnicornShim", system],
            swiftSettings: strict),
        // Chooses a backend on this machine: /dev/kvm, an adapter on it, or SoftKVM.
        .target(name: "Backends", dependencies: ["MiniVMM", "SoftKVM", system], swiftSettings: strict),
        // Litmus tests on kernels: runs, sweeps, failing allocations, exploration.
        .target(
            name: "Litmus",
            dependencies: [
                "CKVMShim", "ConversionModel", "LitmusModel", "MiniVMM", "SoftKVM", "GuestPayloads", system,
            ],
            swiftSettings: strict),
        // The model for the playground: requests of its page in, JSON out. It compiles for WebAssembly.
        .target(
            name: "Playground", dependencies: ["ConversionModel", "Exercises", "LitmusModel"],
            exclude: ["build", "page"],
            swiftSettings: strict),
        // The exercises of the course, and their check. Made for a browser, too: no system calls, no Foundation.
        .target(
            name: "Exercises", dependencies: ["ConversionModel", "LitmusModel"], swiftSettings: strict),
        // Explanations of exits, errors, hazards and trace events.
        .target(name: "Explain", dependencies: ["CKVMShim", "MiniVMM", system], swiftSettings: strict),
        // A server for GDB and LLDB, and the run loop's side of it.
        .target(name: "Debugger", dependencies: ["CKVMShim", "MiniVMM", system], swiftSettings: strict),
        // Tests as C programs. Their runtime is C text, which the compiler embeds.
        .target(name: "CReproducer", exclude: ["runtime"], cSettings: strictC),
        .target(
            name: "Export", dependencies: ["CReproducer", "Explain", "Litmus", "MiniVMM", system],
            swiftSettings: strict),
        // Pictures of a trace: an HTML page, an SVG drawing, Chrome's trace format. The page's files are compiled in.
        .target(
            name: "CReportPage", exclude: ["page"],
            cSettings: strictC),
        .target(name: "Report", dependencies: ["CReportPage", "MiniVMM", system], swiftSettings: strict),
        // The built-in guests: GuestImages assembles them, GuestPayloads lists them.
        .target(name: "GuestImages", path: "guest", exclude: ["README.md"]),
        .target(name: "GuestPayloads", dependencies: ["GuestImages", "MiniVMM"], swiftSettings: strict),
        // The baseline of `minivmm bench`: the same loops in plain C.
        .target(
            name: "CBaseline", dependencies: ["CKVMShim"],
            cSettings: strictC),
        // Disassembles instructions with Capstone, loaded at run time.
        .target(name: "CDisassembler", cSettings: strictC),
        .executableTarget(
            name: "minivmm",
            dependencies: [
                "CKVMShim", "CDisassembler", "ConversionModel", "MiniVMM", "SoftKVM", "Backends", "Litmus",
                "Debugger", "Exercises", "Explain", "Export", "GuestPayloads", "CBaseline", "Report", system,
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: strict),
        // Prints the event stream of a test run as KTAP.
        .executableTarget(name: "ktap", path: "lab/ktap", swiftSettings: strict),
        // Compares the results of two kernels for lab/compare.
        .executableTarget(name: "comparison", path: "lab/comparison", swiftSettings: strict),
        .target(
            name: "CAllocationCounter", path: "Tests/CAllocationCounter",
            cSettings: strictC),
        .testTarget(name: "ConversionModelTests", dependencies: ["ConversionModel"]),
        .testTarget(
            name: "MiniVMMTests",
            dependencies: ["Debugger", "MiniVMM", "SoftKVM", "GuestPayloads", "CAllocationCounter"]),
        .testTarget(name: "SoftKVMTests", dependencies: ["SoftKVM", "CUnicornShim"]),
        .testTarget(name: "BackendsTests", dependencies: ["Backends", "MiniVMM", "SoftKVM", system]),
        .testTarget(name: "GuestPayloadsTests", dependencies: ["GuestPayloads", "GuestImages"]),
        .testTarget(name: "LitmusTests", dependencies: ["Litmus", "MiniVMM", "SoftKVM", "CKVMShim", system]),
        .testTarget(
            name: "ExercisesTests", dependencies: ["Exercises", "ConversionModel", "Litmus", "SoftKVM"]),
        .testTarget(name: "ExportTests", dependencies: ["Export", "Litmus", "minivmm"]),
        .testTarget(name: "PlaygroundTests", dependencies: ["Playground", "Litmus", "SoftKVM"]),
        .testTarget(
            name: "ExplainTests", dependencies: ["Explain", "CKVMShim", "MiniVMM", "SoftKVM", system]),
        .testTarget(
            name: "DebuggerTests",
            dependencies: ["ConversionModel", "Debugger", "CKVMShim"]),
        .testTarget(name: "ReportTests", dependencies: ["Report", "MiniVMM", "SoftKVM", system]),
        .testTarget(
            name: "CommandTests", dependencies: ["minivmm", "CKVMShim", "Exercises", "GuestPayloads"]),
        // Tests that the examples in the documents work.
        .testTarget(
            name: "DocumentationTests",
            dependencies: [
                "minivmm", "Exercises", "MiniVMM", "SoftKVM", "Litmus", "GuestPayloads", "CKVMShim", system,
            ]),
    ],
    // For #embed.
    cLanguageStandard: .gnu2x
)
