// An editor: a text area over a coloured copy of its text, line numbers, and the place of an error.
const HEADER_WORDS = /^(test|hazard|needs|vm|memory|aliases|doors|kernel|parallel|end|allowed|required|forbidden|preempted)\b/;

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
class Editor {
  // `box` contains the parts, `classesOf` gives a class to each of some lines.
  constructor(box, classesOf = () => []) {
    const part = name => box.querySelector(name);
    Object.assign(this, { area: part("textarea"), gutter: part(".gutter"), coloured: part(".coloured"), message: part(".problem"), problem: null, classesOf });
    this.area.addEventListener("scroll", () => this.scroll(), { passive: true });
  }
  // Replaces the text.
  set(text) {
    this.area.value = text;
    this.area.scrollTop = this.area.scrollLeft = 0;
    this.problem = null;
    this.message.replaceChildren();
    this.area.removeAttribute("aria-invalid");
  }
  draw() {
    const lines = this.area.value.split("\n"), shown = Math.min(lines.length, 5000), classes = this.classesOf(lines);
    let numbers = "";
    for (let n = 1; n <= shown; n++) numbers += n + "\n";
    this.gutter.textContent = numbers;
    const drawing = document.createDocumentFragment();
    for (let n = 0; n < shown; n++) {
      const isBad = this.problem && this.problem.line === n + 1, row = make("span", isBad ? "line bad" : `line ${classes[n] || ""}`.trim());
      if (isBad) {
        // The word at the column, or the end of the line.
        const from = Math.max(0, Math.min(this.problem.column - 1, lines[n].length)), rest = lines[n].slice(from);
        const length = this.problem.isToEnd ? Math.max(1, rest.length) : Math.max(1, (/^("[^"]*"?|[^\s"]+)/.exec(rest) || [" "])[0].length);
        row.append(lines[n].slice(0, from), make("mark", "", lines[n].slice(from, from + length) || " "), lines[n].slice(from + length));
      } else {
        for (const [text, name] of coloursOf(lines[n])) row.append(name ? make("span", name, text) : text);
      }
      row.append("\n");
      drawing.append(row);
    }
    this.coloured.replaceChildren(drawing);
    this.scroll();
  }
  scroll() {
    this.coloured.style.transform = `translate(${-this.area.scrollLeft}px, ${-this.area.scrollTop}px)`;
    this.gutter.style.transform = `translateY(${-this.area.scrollTop}px)`;
  }
  // Shows what is wrong with the text and where, or nothing. With `isToEnd` the rest of the line is marked, and only the line named.
  showProblem(problem) {
    this.problem = problem && problem.line ? problem : null;
    this.message.classList.toggle("bad", Boolean(problem));
    this.message.replaceChildren();
    if (problem) {
      if (this.problem) this.message.append(this.link(problem), ": ");
      this.message.append(problem.message);
      this.area.setAttribute("aria-invalid", "true");
    } else this.area.removeAttribute("aria-invalid");
    this.draw();
  }
  // A button that goes to the place of a problem.
  link({ line, column, isToEnd }, text = isToEnd ? `Line ${line}` : `Line ${line}, column ${column}`) {
    const go = make("button", "link", text);
    go.type = "button";
    go.setAttribute("aria-label", `Go to ${text.toLowerCase()}`);
    go.addEventListener("click", () => this.goTo(line, column));
    return go;
  }
  // Puts the caret at a place, or selects from there.
  goTo(line, column, length = 0) {
    const lines = this.area.value.split("\n");
    let at = 0;
    for (let n = 0; n < line - 1 && n < lines.length; n++) at += lines[n].length + 1;
    at += Math.max(0, Math.min(column - 1, (lines[line - 1] || "").length));
    this.area.focus({ preventScroll: true });
    this.area.setSelectionRange(at, at + length);
    this.show(line);
    // On a narrow screen the column may be outside of the view.
    const before = this.area.clientWidth * 0.6, width = (column + length) * this.characterWidth();
    this.area.scrollLeft = width > this.area.scrollLeft + this.area.clientWidth - 20 || width < this.area.scrollLeft ? Math.max(0, width - before) : this.area.scrollLeft;
    this.scroll();
    this.area.scrollIntoView({ block: "nearest" });
  }
  // Scrolls a line to the fourth row.
  show(line) {
    this.area.scrollTop = Math.max(0, (line - 4) * parseFloat(getComputedStyle(this.area).lineHeight));
    this.scroll();
  }
  // Scrolls a line into the view if it is outside.
  reveal(line) {
    const height = parseFloat(getComputedStyle(this.area).lineHeight), top = (line - 1) * height;
    if (top < this.area.scrollTop || top + 2 * height > this.area.scrollTop + this.area.clientHeight) this.show(line);
  }
  characterWidth() {
    const context = document.createElement("canvas").getContext("2d");
    context.font = getComputedStyle(this.area).font;
    return context.measureText("0").width;
  }
}
const editor = new Editor(element("editor")), textArea = editor.area;
const drawEditor = () => editor.draw(), showProblem = problem => editor.showProblem(problem);
