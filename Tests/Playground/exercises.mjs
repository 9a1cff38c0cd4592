#!/usr/bin/env node
// SPDX-License-Identifier: MIT
// Compares the exercises of the playground's WebAssembly module with those of `minivmm exercise`: the forms, and the checks of
// forms that are empty, that have a word in every blank, and that are filled in by hand (docs/exercises).
// `make playground-table` runs it. The browser's tests compare the solutions, which no command prints.
//
// usage: exercises.mjs MODULE.wasm MINIVMM SEEDS [ANSWER.txt ...]
//
// Exit status: 0 if everything is equal, 1 otherwise.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";

const [modulePath, command, seedCount, ...answerPaths] = process.argv.slice(2);
if (!(Number(seedCount) > 0)) {
    console.error("usage: exercises.mjs MODULE.wasm MINIVMM SEEDS [ANSWER.txt ...]");
    process.exit(64);
}
const model = new WebAssembly.Instance(new WebAssembly.Module(fs.readFileSync(modulePath)), {}).exports;
model._initialize();
function ask(request) {
    const bytes = new TextEncoder().encode(request), at = model.playground_buffer(bytes.length) >>> 0;
    new Uint8Array(model.memory.buffer, at, bytes.length).set(bytes);
    const length = model.playground_answer(bytes.length) >>> 0, from = model.playground_output() >>> 0;
    const said = new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array(model.memory.buffer, from, length));
    // Embedded Swift prints this for a value without a description of its own, and compiles it without a warning.
    if (said.includes("cannot print value")) throw new Error(`the answer has a value that was not printed: ${said}`);
    return JSON.parse(said);
}
const directory = fs.mkdtempSync(path.join(os.tmpdir(), "minivmm-exercises-")), file = path.join(directory, "answer.txt");
process.on("exit", () => fs.rmSync(directory, { recursive: true }));
function run(...words) {
    const { status, stdout, stderr, error } = spawnSync(command, ["exercise", ...words], { encoding: "utf8" });
    if (error) throw error;
    return { status, stdout, stderr };
}
// A check in the words of both: verdict, points, line, and the lines of the run.
const inModule = (form) => {
    const { verdict, points, possible, line = null, text, problem } = ask(`assess\n\n${form}`);
    if (problem) return `line ${problem.line}: ${problem.message}`;
    const [said, ...rest] = text;
    return [`${verdict} ${points}/${possible} line ${line}`, said.replace(/^[^:]*: (line \d+: )?/, ""), ...rest.filter(Boolean)].join("\n");
};
const byCommand = (form) => {
    fs.writeFileSync(file, form);
    const { status, stdout, stderr } = run("--check", file, "--json");
    if (status === 64) return stderr.replace(/^minivmm: .*?answer\.txt(:(\d+))?: /, (_, __, line) => `line ${line ?? 1}: `).trim();
    const { verdict, points, possible, line, reason, run: steps } = JSON.parse(stdout);
    return [`${verdict} ${points}/${possible} line ${line}`, `${reason}.`, ...steps].join("\n");
};
const count = { forms: 0, checks: 0, verdicts: {} };
let differences = 0;
function compare(what, here, there) {
    if (here === there) return;
    differences += 1;
    console.error(`${what}\n  command:\n${there}\n  playground:\n${here}\n`);
}
function compareCheck(what, form) {
    const here = inModule(form), verdict = /^line/.test(here) ? "not an answer" : here.replace(/ \d+\/.*/s, "");
    compare(what, here, byCommand(form));
    count.checks += 1;
    count.verdicts[verdict] = (count.verdicts[verdict] ?? 0) + 1;
}
for (const { number, title } of ask("exercises\n\n").exercises) {
    for (let index = 0; index < Number(seedCount); index += 1) {
        const seed = (index * 104729 + number) % 1000000, what = `exercise ${number} (${title}), seed ${seed}`;
        const form = ask(`exercise\nnumber ${number}\nseed ${seed}\n\n`).form;
        compare(what, form, run(String(number), "--seed", String(seed)).stdout);
        count.forms += 1;
        compareCheck(`${what}, empty`, form);
        for (const word of ["0x00", "impossible", "refused", "host convert 0 private preserve"]) compareCheck(`${what}, ${word}`, form.replace(/\?$/gm, word));
    }
    const named = ask(`exercise\nnumber ${number}\nstudent Zoë  Ng\n\n`).form;
    compare(`exercise ${number} of a student`, named, run(String(number), "--student", "Zoë  Ng").stdout);
    count.forms += 1;
}
for (const answer of answerPaths) compareCheck(answer, fs.readFileSync(answer, "utf8"));
console.log(`${count.forms} forms and ${count.checks} checks, ${differences} different (${Object.entries(count.verdicts).map(([verdict, n]) => `${n} ${verdict}`).join(", ")})`);
if (differences || !count.verdicts.right || !count.verdicts.wrong) process.exitCode = 1;
