// The panel beside the picture: the fields of the event, the contents before and after, its cause and its result. Also the
// table of litmus steps.
function element(tag, text, attributes = {}) {
  const e = document.createElement(tag);
  if (text !== undefined) e.textContent = text;
  for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
  return e;
}
function signCanvas(kind, size = 18) {
  const c = element("canvas", undefined, { "aria-hidden": "true" }), dpr = window.devicePixelRatio || 1;
  c.width = c.height = size * dpr; c.style.cssText = `width:${size}px;height:${size}px;display:inline-block;vertical-align:-4px;margin-right:6px`;
  const g = c.getContext("2d");
  g.scale(dpr, dpr);
  sign(g, kind, size / 2, size / 2, size * 0.3, colourOf(kind));
  return c;
}
function fieldText(key, value, i) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "number") return String(value);
  switch (T.shapes[shapeOf[i]][3][T.shapes[shapeOf[i]][1].indexOf(key)]) {
    case "p": return `${hex(value)} (page ${Math.floor(value / 4096)})`;
    case "x": return hex(value);
    case "B": return value > 0 && value % 4096 === 0 ? `${hex(value)} (${count(value / 4096)} page${value === 4096 ? "" : "s"})` : size(value);
    case "t": return duration(value);
    case "e": return value === 0 ? "0" : `${value} ${errno(value)}`;
    case "r": return value < 0 ? `${value} ${errno(value)}` : String(value);
    case "c": return `${hex(value)}${T.calls[value] ? " " + T.calls[value] : ""}`;
    default: return String(value);
  }
}
function bytesRow(body, label, text, other) {
  body.append(element("span", label));
  if (text === undefined) return body.append(element("span", "private: not readable by the host", { class: "hidden" }));
  const cells = element("span", undefined, { class: "cells mono" });
  for (let b = 0; b < 8; b++) {
    const byte = text.slice(2 * b, 2 * b + 2);
    cells.append(element("span", byte, other !== undefined && other.slice(2 * b, 2 * b + 2) !== byte ? { class: "changed", title: "changed" } : {}));
  }
  body.append(cells);
}
function showPanel() {
  const i = view.step;
  $("fields").replaceChildren(); $("contents").replaceChildren(); $("chain").replaceChildren();
  if (!N) { $("what").textContent = "No events"; return; }
  $("what").replaceChildren(signCanvas(kindOf[i], 22), nameOf(i) === "set-memory-attributes2" ? "KVM_SET_MEMORY_ATTRIBUTES2" : nameOf(i));
  const row = (key, value) => {
    const r = element("tr");
    r.append(element("th", key, { scope: "row" }), element("td", value));
    $("fields").append(r);
  };
  row("actor", actorName(i));
  row(T.simulated ? "simulated time" : "time", duration(time[i]));
  row("event", `${(i + 1).toLocaleString("en")} of ${N.toLocaleString("en")}`);
  const isStep = nameOf(i) === "step", shownBelow = isStep ? ["outcome", "ok", "expected"] : ["before", "after"];
  for (const [key, value] of fieldsOf(i)) if (!shownBelow.includes(key)) row(key, fieldText(key, value, i));
  if (isStep) {
    if (get(i, "expected") !== undefined) row("expected", get(i, "expected"));
    row("seen", String(get(i, "outcome")));
    if (get(i, "ok") === false) $("fields").lastChild.className = "differs";
  }
  const c = conversionOf[i];
  if (c >= 0) {
    const v = conversion(c), before = get(v.start, "before"), after = get(v.end, "after");
    if (before !== undefined || after !== undefined) {
      const box = element("div", undefined, { class: "bytes" });
      bytesRow(box, "before", before);
      if (v.end <= i) bytesRow(box, "after", after, before);
      $("contents").append(element("h3", "First 8 bytes, as the host sees them"), box);
    }
    const list = element("ol", undefined, { class: "chain" });
    for (const [label, j] of [["requested by", v.cause], ["begins", v.start], [v.ok ? "ends" : "fails", v.end], ["resumes", v.resume]]) {
      if (j < 0 || (label === "resumes" && j === v.cause)) continue;
      const b = element("button", `${label}: ${nameOf(j)} at ${duration(time[j])}`, { type: "button" });
      if (j === i) b.setAttribute("aria-current", "true");
      b.onclick = () => go(j);
      const item = element("li");
      item.append(b);
      list.append(item);
    }
    $("chain").append(element("h3", "The conversion"), list);
  }
  const near = [];
  for (let j = i, n = 0; j >= 0 && n < 5; j--) if (j === i || isShown(j)) { near.unshift(j); n++; }
  for (let j = i + 1; j < N && near.length < 11; j++) if (isShown(j)) near.push(j);
  $("list").replaceChildren(...near.map(j => {
    const item = element("li"), b = element("button", undefined, { type: "button", tabindex: j === i ? "0" : "-1" });
    b.append(element("span", duration(time[j]), { class: "t" }), signCanvas(kindOf[j], 15), `${actorName(j)} ${nameOf(j)}`);
    if (j === i) b.setAttribute("aria-current", "true");
    b.onclick = () => go(j);
    item.append(b);
    return item;
  }));
}
// Litmus steps with an expected outcome beside the one that was seen.
// A step that names its result has no expected outcome: the clauses of its parallel block judge it.
const STEPS = [...Array(N).keys()].filter(i => nameOf(i) === "step").slice(0, 500);
function showSteps() {
  $("steps").hidden = !STEPS.some(i => get(i, "expected") !== undefined);
  $("stepRows").replaceChildren(...STEPS.map(i => {
    const isOK = get(i, "ok") !== false, line = get(i, "line"), r = element("tr", undefined, isOK ? {} : { class: "differs" });
    const cell = element("td"), b = element("button", get(i, "text"), { type: "button" });
    b.onclick = () => go(i);
    cell.append(b);
    r.append(element("td", line ? String(line) : ""), cell, element("td", get(i, "expected") ?? "–"), element("td", `${get(i, "outcome")}${isOK ? "" : " ✗"}`));
    return r;
  }));
}
// States which part of the trace is drawn.
function showDrawn() {
  const from = Math.min(N, eventAt(view.x0 + 1e-9)), to = Math.min(N, eventAt(view.x1 - 1e-9));
  const filtered = view.rows || view.actors.size < actorRows.length || view.groups.size < new Set(KINDS.map(k => k.group)).size;
  let text = T.drawn;
  if (filtered) {
    let shown = 0;
    for (let i = 0; i < N; i++) if (isShown(i)) shown++;
    const rows = view.rows, last = rows && rows[1] - 1;
    const which = [rows ? "those about these pages" : "", view.actors.size < actorRows.length ? "only some actors" : "",
      view.groups.size < new Set(KINDS.map(k => k.group)).size ? "only some events" : ""].filter(t => t).join(", ");
    const pages = rows ? pagesText(rowPage(rows[0]), rowPage(last) + rowPages(last) - rowPage(rows[0])) + ", " : "";
    text = `Drawn: ${pages}${count(shown)} of ${count(N + T.leftOut)} events (filter: ${which}).`;
  }
  const isPart = view.x0 > 1e-9 || view.x1 < 1 - 1e-9;
  if (isPart && N) text += ` In view: events ${count(Math.min(from + 1, N))} to ${count(Math.max(to, 1))}.`;
  $("drawn").textContent = text;
}
function showSentence() {
  const i = view.step;
  if (!N) { $("now").textContent = "The trace has no events."; return; }
  $("now").replaceChildren(element("span", actorName(i), { class: "actor" }), sentence(i));
  $("where").textContent = `${(i + 1).toLocaleString("en")} of ${N.toLocaleString("en")} · ${duration(time[i])}`;
}
