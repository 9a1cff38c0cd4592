// The player: a sequence of frames, each a step and the state of all pages after it. frame: {label, line, outcome, state, …}.
let frames = [], frameAt = 0, hidesSight = false, rows = [];
const HISTORY_COLUMNS = 400;

// A cell for each page of a file: its state, what the host and the guest read there, and who holds it.
function drawPages(state) {
  const holder = element("pages");
  holder.replaceChildren();
  if (!state) return;
  for (const file of state.files || []) {
    const box = make("div", "file"), shown = file.shown || [];
    box.append(make("h4", "", `${file.name}: ${file.pages.toLocaleString("en")} ${file.pages === 1 ? "page" : "pages"}`));
    const grid = make("ul", "grid");
    shown.forEach((page, index) => {
      const cell = make("li", `page ${page.state === "private" ? "private" : "shared"}`);
      const top = make("div", "top", null, make("span", "number", String(index)), make("span", "letter", page.state === "private" ? "P" : "S"));
      if (page.holds > 0) {
        const held = make("span", "held", String(page.holds));
        held.setAttribute("aria-label", page.holds === 1 ? "held once" : `held ${page.holds} times`);
        top.append(held);
      }
      cell.append(top);
      top.querySelector(".letter").setAttribute("aria-label", page.state);
      if (!hidesSight) {
        cell.append(make("div", "sight", null, make("span", "who", "host"), make("code", "", page.host || "–")), make("div", "sight", null, make("span", "who", "guest"), make("code", "", page.guest || "–")));
        if (page.undefined) cell.append(make("div", "sight undefined", "bytes undefined"));
      }
      const words = [page.state, page.mapped ? "mapped by the host" : "not mapped by the host"];
      cell.title = `page ${index}: ${words.join(", ")}`;
      grid.append(cell);
    });
    box.append(grid);
    holder.append(box);
  }
  if (state.note) holder.append(make("p", "soft", state.note));
}

// Pages down, steps across, as in the page of --report. Drawn as SVG, so that it scales and prints.
const NS = "http://www.w3.org/2000/svg";
function shape(name, attributes, content) {
  const made = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  if (content !== undefined) made.textContent = content;
  return made;
}
// Each page of each file that any of the frames has, in the order of the files.
function rowsOf(frames) {
  const most = new Map();
  for (const frame of frames) {
    for (const file of frame.state ? frame.state.files : []) most.set(file.name, Math.max(most.get(file.name) || 0, (file.shown || []).length));
  }
  return [...most].flatMap(([file, count]) => [...Array(count).keys()].map(page => ({ key: `${file}:${page}`, file, page })));
}
function drawHistory() {
  const holder = element("history"), names = new Set(rows.map(row => row.file)), from = Math.max(0, Math.min(frameAt - HISTORY_COLUMNS / 2, frames.length - HISTORY_COLUMNS));
  const part = frames.slice(from, from + HISTORY_COLUMNS);
  if (!rows.length || part.length < 2) { holder.replaceChildren(); return; }
  const left = names.size > 1 ? 76 : 34, wide = Math.max(16, Math.min(54, Math.floor((holder.clientWidth - left - 4) / part.length))), high = rows.length > 16 ? 14 : 20;
  const svg = shape("svg", { width: left + wide * part.length + 2, height: rows.length * high + 20, role: "img", "aria-label": "Page timeline: pages down, steps across" });
  rows.forEach((row, r) => svg.append(shape("text", { x: left - 6, y: r * high + high / 2, class: "label", "text-anchor": "end", "dominant-baseline": "central" }, names.size > 1 ? row.key : row.page)));
  part.forEach((frame, c) => {
    const column = shape("g", { class: "column", "data-frame": from + c });
    for (const [r, row] of rows.entries()) {
      const file = frame.state && frame.state.files.find(f => f.name === row.file), page = file && (file.shown || [])[row.page];
      const x = left + c * wide, y = r * high;
      column.append(shape("rect", { x, y, width: wide, height: high, class: page ? page.state === "private" ? "private" : "shared" : "none" }));
      if (page && page.holds > 0) column.append(shape("rect", { x: x + 2, y: y + high - 5, width: wide - 4, height: 3.5, class: "holds" }));
      if (page && wide >= 16) column.append(shape("text", { x: x + wide / 2, y: y + high / 2, class: page.state === "private" ? "on-private" : "on-shared", "text-anchor": "middle", "dominant-baseline": "central" }, page.state === "private" ? "P" : "S"));
    }
    if (frame.isWrong) column.append(shape("text", { x: left + c * wide + wide / 2, y: rows.length * high + 13, class: "wrong", "text-anchor": "middle" }, "✗"));
    else if (wide >= 22 || (from + c) % 5 === 0) column.append(shape("text", { x: left + c * wide + wide / 2, y: rows.length * high + 14, class: "label", "text-anchor": "middle" }, from + c));
    column.append(shape("title", {}, frame.label));
    column.addEventListener("click", () => showFrame(from + c));
    svg.append(column);
  });
  svg.append(shape("rect", { x: left + (frameAt - from) * wide + 1, y: 1, width: wide - 2, height: rows.length * high - 2, class: "cursor" }));
  holder.replaceChildren(svg);
  const x = left + (frameAt - from) * wide;
  if (x < holder.scrollLeft + left || x + wide > holder.scrollLeft + holder.clientWidth) holder.scrollLeft = Math.max(0, x - holder.clientWidth / 2);
}

// The words of a step without its actor.
const wordsOf = step => step.text.startsWith(step.actor + " ") ? step.text.slice(step.actor.length).trim().replace(/\s+/g, " ") : step.text.replace(/\s+/g, " ");

// A frame of a step that has ended, or of a piece of one.
function frameOf(step) {
  const text = wordsOf(step) + (step.piece ? `: ${step.piece}` : "");
  let outcome = step.outcome;
  if (outcome && step.anyByte) outcome += " (undefined: any byte is right)";
  if (outcome && step.oddity) outcome += ` (${step.oddity})`;
  return { label: `${step.actor} ${text}`, actor: step.actor, text, line: step.line, outcome, state: step.state, isWrong: step.accepted === false, prediction: step.prediction };
}

// One sentence about a frame.
function drawNow(frame) {
  const now = element("now");
  now.replaceChildren(frame.actor ? make("span", "actor", frame.actor) : "", frame.text || frame.label);
  if (frame.outcome !== undefined && frame.outcome !== null) now.append(" → ", make("b", frame.isWrong ? "bad" : "", frame.outcome));
  if (frame.isWrong) now.append(make("span", "bad", ` ✗ expected: ${frame.expectation}`));
  if (frame.prediction) now.append(make("span", frame.prediction.right ? "good" : "bad", frame.prediction.right ? ` ✓ you said: ${frame.prediction.text}` : ` ✗ you said: ${frame.prediction.text}`));
}
function showFrame(at) {
  if (!frames.length) return;
  frameAt = Math.max(0, Math.min(frames.length - 1, at));
  const frame = frames[frameAt];
  drawNow(frame);
  drawPages(frame.state);
  drawHistory();
  element("step").max = frames.length - 1;
  element("step").value = frameAt;
  element("step").setAttribute("aria-valuetext", `step ${frameAt} of ${frames.length - 1}: ${frame.label}`);
  element("where").textContent = `step ${frameAt} of ${frames.length - 1}${frame.line ? `, line ${frame.line}` : ""}`;
  for (const id of ["first", "back"]) element(id).disabled = frameAt === 0;
  for (const id of ["next", "last"]) element(id).disabled = frameAt === frames.length - 1;
  for (const row of element("stepRows").children) {
    if (Number(row.dataset.frame) === frameAt) row.setAttribute("aria-current", "step"); else row.removeAttribute("aria-current");
  }
}
// Puts frames into the player, with a table of all steps.
function play(title, newFrames, at) {
  frames = newFrames;
  rows = rowsOf(frames);
  element("player").hidden = !frames.length;
  element("sequence").textContent = title;
  element("steps").classList.toggle("plain", !frames.some(frame => frame.expectation));
  element("stepRows").replaceChildren(...frames.slice(1, 3001).map((frame, index) => {
    const row = make("tr", frame.isWrong ? "differs" : "");
    row.dataset.frame = index + 1;
    const button = make("button", "", frame.label);
    button.type = "button";
    button.addEventListener("click", () => showFrame(index + 1));
    const cells = [frame.line || "", button, frame.expectation || "", (frame.outcome === undefined || frame.outcome === null ? "" : frame.outcome) + (frame.isWrong ? " ✗" : "")];
    row.append(...cells.map(cell => make("td", "", null, cell)));
    if (frame.prediction) row.lastChild.append(make("span", frame.prediction.right ? "good" : "bad", frame.prediction.right ? " ✓ as you said" : ` ✗ you said ${frame.prediction.text}`));
    return row;
  }));
  showFrame(at === undefined ? 0 : at);
}
function playerKey(event) {
  if (element("player").hidden || event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.target.closest("textarea, select, input:not(#step), summary")) return;
  const to = { ArrowLeft: frameAt - 1, ArrowRight: frameAt + 1, Home: 0, End: frames.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  showFrame(to);
}
