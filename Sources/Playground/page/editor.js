// The editor: a text area over a coloured copy of its text, line numbers, and the place of an error.
const textArea = element("text"), gutter = element("gutter"), coloured = element("coloured");
const HEADER_WORDS = /^(test|hazard|needs|vm|memory|aliases|doors|kernel|parallel|end|allowed|required|forbidden|preempted)\b/;
let problemAt = null;

// The parts of a line with their classes. Comments begin with # outside of quotes.
function coloursOf(line) {
  const parts = [], add = (text, name) => { if (text) parts.push([text, name]); };
  const found = /^((?:[^"#]|"[^"]*"?)*)(#.*)?$/.exec(line), code = found ? found[1] : line;
  const arrow = code.search(/=>(?![^"]*"(?:[^"]*"[^"]*")*[^"]*$)/), before = arrow < 0 ? code : code.slice(0, arrow);
  const word = /^(\s*)(\S*)/.exec(before);
  add(word[1], "");
  add(word[2], HEADER_WORDS.test(word[2]) ? "word" : "actor");
  for (const piece of before.slice(word[0].length).split(/("[^"]*"?)/)) add(piece, piece[0] === '"' ? "string" : "");
  if (arrow >= 0) add(code.slice(arrow), "expected");
  if (found && found[2]) add(found[2], "comment");
  return parts;
}
function drawEditor() {
  const lines = textArea.value.split("\n"), shown = Math.min(lines.length, 5000);
  let numbers = "";
  for (let n = 1; n <= shown; n++) numbers += n + "\n";
  gutter.textContent = numbers;
  const drawing = document.createDocumentFragment();
  for (let n = 0; n < shown; n++) {
    const row = make("span", problemAt && problemAt.line === n + 1 ? "line bad" : "line");
    if (problemAt && problemAt.line === n + 1) {
      // The word at the column, or the end of the line.
      const from = Math.max(0, Math.min(problemAt.column - 1, lines[n].length)), rest = lines[n].slice(from);
      const length = Math.max(1, (/^("[^"]*"?|[^\s"]+)/.exec(rest) || [" "])[0].length);
      row.append(lines[n].slice(0, from), make("mark", "", lines[n].slice(from, from + length) || " "), lines[n].slice(from + length));
    } else {
      for (const [text, name] of coloursOf(lines[n])) row.append(name ? make("span", name, text) : text);
    }
    row.append("\n");
    drawing.append(row);
  }
  coloured.replaceChildren(drawing);
  scrollEditor();
}
function scrollEditor() {
  coloured.style.transform = `translate(${-textArea.scrollLeft}px, ${-textArea.scrollTop}px)`;
  gutter.style.transform = `translateY(${-textArea.scrollTop}px)`;
}
// Shows what is wrong with the text and where, or nothing.
function showProblem(problem) {
  problemAt = problem && problem.line ? problem : null;
  const line = element("problem");
  line.className = problem ? "bad" : "";
  line.replaceChildren();
  if (problem) {
    if (problemAt) {
      const go = make("button", "link", `Line ${problem.line}, column ${problem.column}`);
      go.type = "button";
      go.setAttribute("aria-label", `Go to line ${problem.line}, column ${problem.column}`);
      go.addEventListener("click", () => goTo(problem.line, problem.column));
      line.append(go, ": ");
    }
    line.append(problem.message);
    textArea.setAttribute("aria-invalid", "true");
  } else textArea.removeAttribute("aria-invalid");
  drawEditor();
}
function goTo(line, column) {
  const lines = textArea.value.split("\n");
  let at = 0;
  for (let n = 0; n < line - 1 && n < lines.length; n++) at += lines[n].length + 1;
  at += Math.max(0, Math.min(column - 1, (lines[line - 1] || "").length));
  textArea.focus();
  textArea.setSelectionRange(at, at);
  const height = parseFloat(getComputedStyle(textArea).lineHeight);
  textArea.scrollTop = Math.max(0, (line - 4) * height);
  scrollEditor();
}
textArea.addEventListener("scroll", scrollEditor, { passive: true });
