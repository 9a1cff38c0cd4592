// The form of an exercise as a text: its header, its task, its blanks.
const FORM_BYTES = 65536;
const codeOf = line => line.replace(/#.*/, "").replace(/\s+/g, " ").trim();
// Why a text is not sent to the model, or "".
function formTooLong(text) {
  const lines = lineCount(text), bytes = text.length > FORM_BYTES ? text.length : new TextEncoder().encode(text).length;
  if (lines > LINE_LIMIT) return `This is not a form of an exercise: it has ${lines.toLocaleString("en")} lines, and at most ${LINE_LIMIT.toLocaleString("en")} are read.`;
  return bytes > FORM_BYTES ? `This is not a form of an exercise: it has more than ${FORM_BYTES.toLocaleString("en")} bytes.` : "";
}
// The header as text: {number, seed, student}. What is missing is "".
function headerOf(text) {
  const lines = text.slice(0, 4000).split("\n").map(codeOf).filter(Boolean).slice(0, 3), value = key => (lines.find(line => line.startsWith(key + " ")) || "").slice(key.length + 1);
  const student = value("student");
  return { number: value("exercise"), seed: value("seed"), student: student === "?" ? "" : student };
}
// A row of a table: a name, spaces, what it means.
const isRow = text => /^\S+ {2,}\S/.test(text);
// The comments before the first line of the form, as paragraphs: arrays of lines. A table keeps its lines.
function taskOf(form) {
  const lines = form.split("\n"), start = lines.findIndex(line => /^student\b/.test(line)) + 1, parts = [[]];
  for (const line of lines.slice(start)) {
    if (line.trim() && !line.startsWith("#")) break;
    const text = line.replace(/^#\s?/, "");
    if (/^\d+\. /.test(text)) break;
    if (!text) parts.push([]);
    else if (isRow(text) || (isRow(parts[parts.length - 1][0] || "") && /^\S+-\S+ /.test(text))) parts[parts.length - 1].push(text);
    else { const part = parts[parts.length - 1]; if (part.length) part[part.length - 1] += " " + text; else part.push(text); }
  }
  return parts.filter(part => part.length);
}
// Compares a text with the form it comes from. Gives each line "blank", if it is to be filled in, or "own", if it has been, and
// the place of each empty blank. Like the model, it expects the lines of the form in their order, and stops at the first other one.
function blanksOf(form, lines) {
  const classes = [], empty = [], rest = (form || "").split("\n").map(codeOf).filter(Boolean);
  const blank = (n, isCounted) => {
    classes[n] = "blank";
    const at = lines[n].replace(/#.*/, "").lastIndexOf("?");
    if (isCounted) empty.push({ line: n + 1, column: at < 0 ? lines[n].length + 1 : at + 1, length: at < 0 ? 0 : 1 });
  };
  let next = 0, isInAnswer = false, end = "end answer";
  for (let n = 0; n < lines.length; n++) {
    const code = codeOf(lines[n]);
    if (!code) continue;
    if (isInAnswer) {
      if (code === end) { isInAnswer = false; continue; }
      if (code === "?") blank(n, true); else classes[n] = "own";
      continue;
    }
    const expected = rest[next++];
    if (expected === undefined) break;
    if (expected === "begin answer") {
      if (code !== expected) break;
      isInAnswer = true;
      while (next < rest.length && rest[next] !== end) next++;
      next++;
      continue;
    }
    if (!/(^| )\?$/.test(expected)) { if (code !== expected && !/^student /.test(expected)) break; continue; }
    const before = expected.slice(0, -1).trim(), isStudent = before === "student";
    if (code === before || code === expected) blank(n, !isStudent);
    else if (code.startsWith(before + " ")) classes[n] = "own";
    else break;
  }
  return { classes, empty };
}
// Where the answer in a line begins, from 1.
function answerColumn(line) {
  const arrow = line.lastIndexOf("=> ");
  if (arrow >= 0) return arrow + 4 + (/^\s*/.exec(line.slice(arrow + 3))[0].length);
  const gap = /^(\s*).*\S {2,}(?=\S)/.exec(line);
  return (gap ? gap[0].length : /^\s*/.exec(line)[0].length) + 1;
}
