// SPDX-License-Identifier: MIT
import Foundation
import Testing

/// Checks which modules import which, from the source files.
struct ImportTests {
    private static let sources = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("Sources")

    /// The modules of this package, lowest row first. A module may import modules of lower rows.
    private static let rows: [Set<String>] = [
        ["ConversionModel", "CKVMShim", "CDisassembler", "CUnicornShim", "CReportPage", "CReproducer"],
        ["MiniVMM", "LitmusModel", "CBaseline"],
        ["Exercises"],
        ["SoftKVM", "Debugger", "GuestPayloads", "Explain", "Report", "Playground"],
        ["Backends", "Litmus"],
        ["Export"],
        ["minivmm"],
    ]

    private static func imports(of module: String) throws -> Set<String> {
        var imports: Set<String> = []
        let files = FileManager.default.enumerator(
            at: sources.appendingPathComponent(module), includingPropertiesForKeys: nil)
        for case let file as URL in files ?? .init() where file.pathExtension == "swift" {
            for line in try String(contentsOf: file, encoding: .utf8).split(separator: "\n") {
                let words = line.split(separator: " ")
                guard let place = words.firstIndex(of: "import"), place + 1 < words.count,
                    words[..<place].allSatisfy({
                        ["public", "package", "@_exported", "internal"].contains($0)
                    })
                else { continue }
                imports.insert(String(words[place + 1].split(separator: ".")[0]))
            }
        }
        return imports
    }

    @Test func modelImportsNothing() throws {
        #expect(try Self.imports(of: "ConversionModel") == [])
    }

    @Test func modulesImportOnlyLowerModules() throws {
        let known = Self.rows.reduce(into: Set()) { $0.formUnion($1) }
        var lower: Set<String> = []
        for row in Self.rows {
            for module in row {
                let ours = try Self.imports(of: module).intersection(known)
                #expect(ours.isSubset(of: lower), "\(module) imports \(ours.subtracting(lower).sorted())")
            }
            lower.formUnion(row)
        }
    }

    @Test func everyModuleIsInTheList() throws {
        let known = Self.rows.reduce(into: Set()) { $0.formUnion($1) }
        let folders = try Set(FileManager.default.contentsOfDirectory(atPath: Self.sources.path))
        // The C that the playground's build adds is no module of this package.
        #expect(folders.subtracting(["CWasmRuntime"]) == known)
    }
}

extension ImportTests {
    /// Compares the module diagram of the architecture article with Package.swift and the sources.
    @Test func moduleDiagramMatchesPackageAndSources() throws {
        let article = try String(
            contentsOf: Self.sources.appendingPathComponent("MiniVMM/MiniVMM.docc/Architecture.md"),
            encoding: .utf8)
        let package = try String(
            contentsOf: Self.sources.deletingLastPathComponent().appendingPathComponent("Package.swift"),
            encoding: .utf8)
        let block = try #require(article.components(separatedBy: "```\n").first { $0.hasPrefix("minivmm") })
        let known = Self.rows.reduce(into: Set(["GuestImages"])) { $0.formUnion($1) }
        var seen: Set<String> = []
        for line in block.split(separator: "\n") {
            let words = line.split(separator: " ").map(String.init)
            let module = try #require(words.first)
            seen.insert(module)
            let shown = Set(words.dropFirst())
            let target = try #require(
                package.components(separatedBy: "arget(").dropFirst()
                    .first {
                        $0.trimmingCharacters(in: .whitespacesAndNewlines).hasPrefix("name: \"\(module)\"")
                    })
            let depends = Set(known.filter { $0 != module && target.contains("\"\($0)\"") })
            #expect(depends == shown, "Package.swift: \(module) depends on \(depends.sorted())")
            let imports = try Self.imports(of: module).intersection(known)
            let hasSwift = module != "CBaseline"
            #expect(!hasSwift || imports == shown, "\(module) imports \(imports.sorted())")
        }
        // These modules have no dependencies.
        let leaves: Set = [
            "CKVMShim", "CDisassembler", "CUnicornShim", "CReportPage", "CReproducer", "GuestImages",
        ]
        #expect(seen == known.subtracting(leaves))
    }
}
