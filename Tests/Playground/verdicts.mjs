#!/usr/bin/env node
// SPDX-License-Identifier: MIT
// Compares the playground's WebAssembly module with `minivmm litmus` on every test of the library, and writes
// litmus/PLAYGROUND.md. `make playground-table` runs it.
//
// usage: verdicts.mjs MODULE.wasm LIBRARY.txt COMMAND.json TABLE.md [--check]
//
// COMMAND.json is the output of `minivmm litmus --backend soft --format json`. With --check, the table is compared, not written.
// Exit status: 0 every verdict and outcome is equal; 1 otherwise, or the table differs.
import fs from "node:fs";

const [modulePath, libraryPath, commandPath, tablePath, option] = process.argv.slice(2);
if (!tablePath) {
    console.error("usage: verdicts.mjs MODULE.wasm LIBRARY.txt COMMAND.json TABLE.md [--check]");
    process.exit(64);
}
const compiled = new WebAssembly.Module(fs.readFileSync(modulePath));
const imports = WebAssembly.Module.imports(compiled);
if (imports.length) {
    console.error(`${modulePath}: the module has imports: ${imports.map((i) => i.name).join(", ")}`);
    process.exit(1);
}
let model = null;
function ask(request) {
    if (!model) {
        model = new WebAssembly.Instance(compiled, {}).exports;
        model._initialize();
    }
    const bytes = new TextEncoder().encode(request), at = model.playground_buffer(bytes.length) >>> 0;
    new Uint8Array(model.memory.buffer, at, bytes.length).set(bytes);
    const length = model.playground_answer(bytes.length) >>> 0, from = model.playground_output() >>> 0;
    const said = new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array(model.memory.buffer, from, length));
    // Embedded Swift prints this for a value without a description of its own, and compiles it without a warning.
    if (said.includes("cannot print value")) throw new Error(`the answer has a value that was not printed: ${said}`);
    return JSON.parse(said);
}
// The verdict and the outcomes of one test in the module.
function answer(text) {
    let said;
    try {
        said = ask(`run\n\n${text}`);
    } catch (error) {
        model = null;
        return { verdict: `stopped: ${error.message}`, outcomes: "" };
    }
    if (said.error || said.problem) return { verdict: said.error ?? `line ${said.problem.line}: ${said.problem.message}`, outcomes: "" };
    return {
        verdict: said.verdict,
        reason: said.reason,
        outcomes: written((said.blocks ?? []).map((block) => block.outcomes.map(
            (outcome) => `${outcome.results.map((r) => `${r.name} = ${r.outcome}`).join(", ")}${outcome.permitted ? "" : " (forbidden)"}`))),
    };
}
const written = (blocks) => blocks.map((outcomes) => outcomes.sort().join("; ")).join(" / ");

const command = new Map();
for (const test of JSON.parse(fs.readFileSync(commandPath, "utf8")).tests) {
    command.set(test.file.replace(/^(.*\/)?litmus\//, ""), {
        verdict: test.verdict,
        reason: test.reason,
        outcomes: written((test.blocks ?? []).map((block) => block.outcomes.map(
            (outcome) => `${outcome.results}${outcome.allowed === false ? " (forbidden)" : ""}`))),
    });
}
const rows = [], differences = [];
const count = { equal: 0, races: 0, outcomes: 0 };
for (const part of fs.readFileSync(libraryPath, "utf8").split("\u001e").slice(1)) {
    const at = part.indexOf("\n"), file = part.slice(0, at);
    const here = answer(part.slice(at + 1)), there = command.get(file);
    const isEqual = there !== undefined && here.verdict === there.verdict && here.outcomes === there.outcomes;
    const outcomes = here.outcomes === "" ? 0 : here.outcomes.split(/ \/ |; /).length;
    rows.push(`| [${file.replace(/\.litmus$/, "")}](${file}) | ${there?.verdict ?? "not run"} | ${here.verdict} | ${outcomes || ""} | ${isEqual ? "" : "**differs**"} |`);
    if (isEqual) {
        count.equal += 1;
        count.races += outcomes ? 1 : 0;
        count.outcomes += outcomes;
    } else {
        differences.push(`${file}\n  command:    ${there?.verdict} ${there?.reason ?? ""}  ${there?.outcomes ?? ""}\n  playground: ${here.verdict} ${here.reason ?? ""}  ${here.outcomes}`);
    }
}
const table = `# The playground beside the command

Written by \`make playground-table\`; do not edit.

Every test of the library but the heavy ones of [scale/](scale), in the WebAssembly module of the
[playground](../docs/playground.md) and by \`minivmm litmus --backend soft\`. *Outcomes* counts the outcomes of a race, which
are compared one by one, each with whether it is permitted.

${count.equal} of ${rows.length} tests are equal, ${count.races} of them races with ${count.outcomes} outcomes.

| test | command | playground | outcomes | |
|---|---|---|---|---|
${rows.join("\n")}
`;
for (const difference of differences) console.error(difference);
console.log(`${count.equal} of ${rows.length} tests are equal, ${count.races} of them races with ${count.outcomes} outcomes`);
if (option === "--check") {
    if (fs.readFileSync(tablePath, "utf8") !== table) {
        console.error(`${tablePath} is out of date; make playground-table writes it`);
        process.exitCode = 1;
    }
} else {
    fs.writeFileSync(tablePath, table);
}
if (differences.length) process.exitCode = 1;
