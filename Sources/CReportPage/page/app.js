// Handles keys, pointers and filters.
let due = 0;
function redraw() {
  if (due) return;
  due = requestAnimationFrame(() => { due = 0; draw(); });
}
let hashDue = 0;
function go(i, options = {}) {
  if (!N) return;
  view.step = Math.max(0, Math.min(N - 1, i));
  if (!options.stay) reveal(view.step);
  $("step").value = String(view.step);
  $("step").setAttribute("aria-valuetext", `event ${view.step + 1} of ${N}`);
  showSentence(); showPanel(); redraw();
  clearTimeout(hashDue);
  hashDue = setTimeout(() => { try { history.replaceState(null, "", "#step=" + (view.step + 1)); } catch { /* not available for some file: URLs */ } }, 300);
}
function move(by) {
  const d = by < 0 ? -1 : 1;
  let i = view.step, found = view.step;
  for (let left = Math.abs(by); left > 0; left--) {
    do i += d; while (i >= 0 && i < N && !isShown(i));
    if (i < 0 || i >= N) break;
    found = i;
  }
  go(found);
}
function toEnd(d) {
  let i = d < 0 ? 0 : N - 1;
  while (i >= 0 && i < N && !isShown(i)) i -= d;
  go(i >= 0 && i < N ? i : view.step);
}
// Goes to the nearest event of the next row above or below that has one.
function moveRow(d) {
  const here = rowOf[view.step] >= 0 ? rowOf[view.step] : 0;
  for (let r = here + d; r >= 0 && r < R; r += d) {
    let best = -1;
    for (let i = 0; i < N; i++) if (rowOf[i] === r && isShown(i) && (best < 0 || Math.abs(i - view.step) < Math.abs(best - view.step))) best = i;
    if (best >= 0) return go(best);
  }
}
function play(on) {
  clearInterval(view.playing);
  view.playing = 0;
  if (on) {
    if (view.step >= N - 1) toEnd(-1);
    view.playing = setInterval(() => { const before = view.step; move(1); if (view.step === before) play(false); }, 650);
  }
  $("play").textContent = view.playing ? "Pause" : "Play";
  $("play").setAttribute("aria-pressed", String(!!view.playing));
}
function setTheme(name) {
  document.documentElement.dataset.theme = name;
  $("theme").textContent = name === "dark" ? "Light" : "Dark";
  readColours(); makePatterns(); showLegend(); showPanel(); redraw();
}
function setAxis(byTime) {
  const i = view.step;
  view.byTime = byTime; layOut();
  view.x0 = 0; view.x1 = 1;
  $("axis").textContent = !byTime ? "Across: events" : T.simulated ? "Across: simulated time" : "Across: time";
  $("axis").setAttribute("aria-pressed", String(byTime));
  go(i);
}
function fit() { view.x0 = 0; view.x1 = 1; view.y0 = 0; view.y1 = HEIGHT; redraw(); }
const aroundX = () => middle(view.step), aroundY = () => rowOf[view.step] >= 0 ? rowTop[rowOf[view.step]] : (view.y0 + view.y1) / 2;

function showLegend() {
  const items = [PRIVATE, SHARED, UNVALIDATED, UNASSIGNED, PENDING, BLOCKED, HELD, DETACHED, CONVERTING, FAILED, UNALLOCATED, HOLE].filter(state => state === PRIVATE || state === SHARED || segState.includes(state)).map(state => {
    const item = element("li"), c = element("canvas", undefined, { "aria-hidden": "true" });
    c.width = 26; c.height = 18;
    const g = c.getContext("2d"), image = new ImageData(26, 18), pixels = new Uint32Array(image.data.buffer);
    const under = patterns[[HELD, CONVERTING, FAILED, HOLE, DETACHED].includes(state) ? SHARED : state > DETACHED ? PRIVATE : UNALLOCATED];
    for (let p = 0; p < pixels.length; p++) {
      const at = ((p / 26 | 0) & 7) * 8 + ((p % 26) & 7);
      pixels[p] = patterns[state][at] || under[at];
    }
    g.putImageData(image, 0, 0);
    item.append(c, `${STATES[state]} (${LETTERS[state]})`);
    return item;
  });
  if (isDense()) items.push(element("li", "▚ several pages or events in one place: colours in proportion"));
  const present = new Set(kindOf);
  const marks = KINDS.map((kind, k) => k).filter(k => present.has(k)).map(k => {
    const item = element("li");
    item.append(signCanvas(k), KINDS[k].name);
    return item;
  });
  $("legend").replaceChildren(...items, ...marks);
}
function checkbox(parent, label, onChange) {
  const l = element("label"), input = element("input", undefined, { type: "checkbox" });
  input.checked = true;
  input.onchange = () => { onChange(input.checked); showPanel(); redraw(); };
  l.append(input, " " + label);
  parent.append(l);
}
function showHead() {
  document.title = T.title + " · MiniVMM";
  $("title").textContent = T.title;
  const fact = (text, kind) => $("facts").append(element("li", text, kind ? { class: kind } : {}));
  fact(T.simulated ? `Simulated: ${T.backend}` : T.backend, T.simulated ? "backend simulated" : "backend");
  if (T.ending) fact((T.endedWell ? "✓ " : T.endedWell === false ? "✗ " : "") + T.ending, T.endedWell ? "good" : T.endedWell === false ? "bad" : "");
  fact(`${N.toLocaleString("en")} events in ${duration(N ? time[N - 1] - time[0] : 0)}${T.simulated ? " of simulated time" : ""}`);
  if (C) fact(T.conversionText);
  const wrong = kindOf.reduce((n, k) => n + (k === K["step failed"] ? 1 : 0), 0);
  if (wrong) fact(`✗ ${wrong} step${wrong > 1 ? "s" : ""} not as expected`, "bad");
  $("picture").setAttribute("aria-label", `Page timeline, pages down, time across: ${N} events of ${T.actors.join(", ")}, ${R} groups of pages, ${T.conversionText}. The arrow keys move from event to event.`);
  $("drawn").textContent = T.drawn;
  for (const note of T.notes) $("notes").append(element("p", note, { class: "note" }));
  $("foot").textContent = `${T.simulated ? "Simulated backend" : "Backend"}: ${T.backend}. ${T.simulated ? "Simulated time" : "Host's monotonic clock"}, starting at ${T.startText} ns.`;
}

// MARK: the pointer
function pointerEvent(x, y) {
  // The nearest sign within reach: in an actor's row, or on the pages.
  const u = uOf(x);
  let best = -1, distance = 26;
  const a = eventAt(uOf(x - 14)), b = Math.min(N, eventAt(uOf(x + 14)) + 1);
  for (let i = Math.max(0, a - 1), looked = 0; i < b && looked < 20000; i++, looked++) {
    if (!isShown(i)) continue;
    const dx = Math.abs(xOf(middle(i)) - x);
    let dy = 1e9;
    if (y < box.top - 4) dy = Math.abs(4 + actorRowOf[actorOf[i]] * box.actorHeight + box.actorHeight / 2 - y) * (y < box.top ? 1 : 3);
    else if (rowOf[i] >= 0) {
      const y0 = yOf(rowTop[rowOf[i]]), y1 = yOf(rowTop[rowOf[i] + rowsOf[i]]);
      dy = y < y0 ? y0 - y : y > y1 ? y - y1 : 0;
      dy += KINDS[kindOf[i]].marks ? 0 : 4;
    }
    if (dx + dy < distance) { distance = dx + dy; best = i; }
  }
  return best >= 0 ? best : Math.max(0, Math.min(N - 1, eventAt(u) - 1));
}
function showTip(x, y) {
  const tip = $("tip");
  if (!N || x < box.left || x > box.right || y > box.bottom) { tip.hidden = true; view.hoverRow = -1; return; }
  const i = pointerEvent(x, y);
  const lines = [`${i + 1} · ${duration(time[i])} · ${actorName(i)} ${sentence(i)}`];
  if (y >= box.top && R) {
    const r = rowAt(wOf(y)), at = Math.max(0, Math.min(N - 1, eventAt(uOf(x)) - 1)), { base, over } = stateAfter(r, at);
    lines.unshift(`${pagesText(rowPage(r), rowPages(r))}: ${STATES[base]}${over >= 0 ? ", " + STATES[over] : ""}`);
    view.hoverRow = r;
  }
  tip.replaceChildren(...lines.map(text => element("div", text)));
  tip.hidden = false;
  const figure = $("picture").parentElement, width = Math.min(330, figure.clientWidth - 20);
  tip.style.left = Math.max(6, Math.min(figure.clientWidth - width - 6, x + 18)) + "px";
  tip.style.top = (y > box.height * 0.6 ? y - tip.offsetHeight - 8 : y + 26) + "px";
}

function start() {
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  document.documentElement.dataset.theme = scheme.matches ? "dark" : "light";
  $("theme").textContent = scheme.matches ? "Light" : "Dark";
  readColours(); makePatterns(); showHead(); showLegend();
  scheme.onchange = e => setTheme(e.matches ? "dark" : "light");
  $("theme").onclick = () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  for (const row of actorRows) checkbox($("actors"), row.name, on => on ? view.actors.add(row.a) : view.actors.delete(row.a));
  for (const group of new Set([...new Set(kindOf)].map(k => KINDS[k].group)))
    checkbox($("groups"), group, on => on ? view.groups.add(group) : view.groups.delete(group));
  const filterPages = () => {
    const rows = parsePages($("pages").value);
    $("pages").setCustomValidity(rows === undefined ? "not pages of this trace: use numbers or addresses, such as 512-519 or 0x200000" : "");
    if (rows === undefined) return;
    view.rows = rows;
    if (rows) { view.y0 = Math.max(0, rowTop[rows[0]] - 2); view.y1 = Math.min(HEIGHT, rowTop[rows[1]] + 2); } else { view.y0 = 0; view.y1 = HEIGHT; }
    showPanel(); redraw();
  };
  $("pages").oninput = filterPages;
  $("clear").onclick = () => {
    $("pages").value = "";
    for (const input of document.querySelectorAll("#filters input[type=checkbox]")) if (!input.checked) input.click();
    filterPages();
  };
  $("first").onclick = () => toEnd(-1); $("last").onclick = () => toEnd(1);
  $("back").onclick = () => move(-1); $("next").onclick = () => move(1);
  $("play").onclick = () => play(!view.playing);
  $("axis").onclick = () => setAxis(!view.byTime);
  $("zoomIn").onclick = () => { zoomX(0.5, aroundX()); redraw(); }; $("zoomOut").onclick = () => { zoomX(2, aroundX()); redraw(); };
  $("pagesIn").onclick = () => { zoomY(0.5, aroundY()); redraw(); }; $("pagesOut").onclick = () => { zoomY(2, aroundY()); redraw(); };
  $("fit").onclick = fit;
  $("step").max = String(Math.max(0, N - 1));
  $("step").oninput = () => go(Number($("step").value));
  const canvas = $("picture");
  let drag = null;
  const point = e => { const r = canvas.getBoundingClientRect(); return [e.clientX - r.left, e.clientY - r.top]; };
  canvas.onpointerdown = e => { const [x, y] = point(e); drag = { x, y, x0: view.x0, x1: view.x1, y0: view.y0, y1: view.y1, moved: false }; };
  canvas.onpointermove = e => {
    const [x, y] = point(e);
    if (drag && e.buttons) {
      const dx = (drag.x - x) / (box.right - box.left) * (drag.x1 - drag.x0), dy = (drag.y - y) / (box.bottom - box.top) * (drag.y1 - drag.y0);
      if (Math.abs(drag.x - x) + Math.abs(drag.y - y) > 5) drag.moved = true;
      if (drag.moved) {
        const sx = drag.x1 - drag.x0, sy = drag.y1 - drag.y0;
        view.x0 = Math.max(0, Math.min(1 - sx, drag.x0 + dx)); view.x1 = view.x0 + sx;
        view.y0 = Math.max(0, Math.min(HEIGHT - sy, drag.y0 + dy)); view.y1 = view.y0 + sy;
      }
    }
    showTip(x, y); redraw();
  };
  canvas.onpointerup = e => { const [x, y] = point(e); if (drag && !drag.moved && x >= box.left && N) go(pointerEvent(x, y), { stay: true }); drag = null; };
  canvas.onpointerleave = () => { drag = null; $("tip").hidden = true; view.hoverRow = -1; redraw(); };
  canvas.addEventListener("wheel", e => {
    if (!e.ctrlKey && !e.metaKey && !e.shiftKey) return;
    e.preventDefault();
    const [x, y] = point(e), factor = Math.exp((e.deltaY || e.deltaX) * 0.002);
    if (e.shiftKey) zoomY(factor, wOf(y)); else zoomX(factor, uOf(x));
    redraw();
  }, { passive: false });
  addEventListener("keydown", e => {
    if (e.ctrlKey || e.metaKey || e.altKey || e.target.matches("input[type=text], summary")) return;
    const control = e.target.matches("button, input");
    const keys = { ArrowLeft: () => move(-1), ArrowRight: () => move(1), PageUp: () => move(-10), PageDown: () => move(10),
      Home: () => toEnd(-1), End: () => toEnd(1), ArrowUp: () => moveRow(-1), ArrowDown: () => moveRow(1),
      "+": () => $("zoomIn").click(), "=": () => $("zoomIn").click(), "-": () => $("zoomOut").click(), "0": fit };
    if (e.key === " " && !control) { e.preventDefault(); return play(!view.playing); }
    if (!keys[e.key]) return;
    e.preventDefault();
    keys[e.key]();
  });
  addEventListener("resize", redraw);
  let wasDark = false;
  addEventListener("beforeprint", () => { wasDark = document.documentElement.dataset.theme === "dark"; if (wasDark) setTheme("light"); draw(); });
  addEventListener("afterprint", () => { if (wasDark) setTheme("dark"); redraw(); });
  const fromHash = () => { const match = /step=(\d+)/.exec(location.hash); if (match) go(Number(match[1]) - 1); };
  addEventListener("hashchange", fromHash);
  zoomToOpening();
  go(T.opening);
  fromHash();
  showSteps();
  draw();
  showLegend();
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
}
start();
