// Draws the picture: first all that does not depend on the current step, then the rest.

// The areas that labels and signs cover in the current drawing. A label that would overlap one of them is left out.
let labels = [];
const overlaps = (a, b) => a.x0 < b.x1 && b.x0 < a.x1 && a.y0 < b.y1 && b.y0 < a.y1;
function boxOf(g, text, x, y) {
  const m = g.measureText(text);
  return { x0: x - m.actualBoundingBoxLeft - 1, x1: x + m.actualBoundingBoxRight + 1,
    y0: y - m.actualBoundingBoxAscent - 1, y1: y + m.actualBoundingBoxDescent + 1, text };
}
// Draws a text, with the alignment and font of the context, unless it overlaps something.
function label(g, text, x, y, halo) {
  const b = boxOf(g, text, x, y);
  if (labels.some(other => overlaps(other, b))) return false;
  labels.push(b);
  if (halo) { g.strokeStyle = halo; g.lineWidth = 3.5; g.lineJoin = "round"; g.strokeText(text, x, y); }
  g.fillText(text, x, y);
  return true;
}
// The start of a text, cut to a width.
function clipped(g, text, width) {
  if (g.measureText(text).width <= width) return text;
  let length = text.length;
  while (length > 1 && g.measureText(text.slice(0, length) + "…").width > width) length--;
  return text.slice(0, length) + "…";
}
// The signs to draw. Of signs that would touch, the event with the highest weight is drawn. Events come in order, so a sign can
// only touch the last ones in its own and the neighbouring bands.
function places(from, to, size, yOfEvent) {
  const last = new Map(), marks = [];
  for (let i = from; i < to; i++) {
    if (!isShown(i)) continue;
    const y = yOfEvent(i);
    if (!(y >= 0)) continue;
    const x = xOf(middle(i)), band = Math.floor(y / size), mark = { i, x, y, isDrawn: true };
    const near = [band - 1, band, band + 1].filter(k => last.has(k) && x - last.get(k).x < size && Math.abs(y - last.get(k).y) < size);
    if (near.some(k => KINDS[kindOf[last.get(k).i]].weight >= KINDS[kindOf[i]].weight)) continue;
    for (const k of near) { last.get(k).isDrawn = false; last.delete(k); }
    last.set(band, mark); marks.push(mark);
  }
  return marks.filter(mark => mark.isDrawn);
}

function drawActors(g, from, to) {
  g.textBaseline = "middle";
  actorRows.forEach((row, at) => {
    const y = 4 + at * box.actorHeight + box.actorHeight / 2;
    g.globalAlpha = view.actors.has(row.a) ? 1 : 0.35;
    g.fillStyle = css.ink; g.textAlign = "right"; g.font = `600 ${box.actorHeight > 20 ? 14 : 12}px system-ui, sans-serif`;
    label(g, clipped(g, row.name, box.nowAt + box.nowWidth - 12), box.nowAt + box.nowWidth - 6, y);
    g.strokeStyle = css.line; g.lineWidth = 1;
    g.beginPath(); g.moveTo(box.left, y); g.lineTo(box.right, y); g.stroke();
    g.globalAlpha = 1;
  });
  g.save();
  g.beginPath(); g.rect(box.left, 0, box.right - box.left, box.height); g.clip();
  // A bar from the begin to the end of each conversion, and a line from its cause to the return to the guest.
  const drawn = new Int32Array(actorRows.length).fill(-1e9);
  for (let c = 0; c < C; c++) {
    const v = conversion(c), first = v.cause >= 0 ? Math.min(v.cause, v.start) : v.start, last = Math.max(v.resume, v.end);
    if (last < from || first >= to || !view.actors.has(actorOf[v.start])) continue;
    const row = actorRowOf[actorOf[v.start]], y = 4 + row * box.actorHeight + box.actorHeight / 2;
    const x0 = xOf(middle(v.start)), x1 = Math.max(x0 + 1.5, xOf(middle(v.end)));
    if (x1 < drawn[row] + 1) continue;
    drawn[row] = x1;
    g.fillStyle = v.ok ? css[get(v.start, "target") === "private" ? "private" : "shared"] : css.failed;
    g.globalAlpha = 0.75;
    g.fillRect(x0, y - box.actorHeight * 0.32, x1 - x0, box.actorHeight * 0.64);
    g.globalAlpha = 1;
    g.strokeStyle = v.ok ? css.ink : css.failed; g.lineWidth = 1;
    if (x1 - x0 > 6) g.strokeRect(x0, y - box.actorHeight * 0.32, x1 - x0, box.actorHeight * 0.64);
    if (last > first) { g.lineWidth = 2.4; g.beginPath(); g.moveTo(xOf(middle(first)), y + box.actorHeight * 0.42); g.lineTo(xOf(middle(last)), y + box.actorHeight * 0.42); g.stroke(); }
  }
  const size = box.actorHeight > 20 ? 13 : 10;
  for (const { i, x, y } of places(from, to, size, i => 4 + actorRowOf[actorOf[i]] * box.actorHeight + box.actorHeight / 2)) {
    sign(g, kindOf[i], x, y, box.actorHeight > 20 ? 5.5 : 4.5, colourOf(kindOf[i]), css.card);
  }
  g.restore();
}

function drawRows(g) {
  const labelRight = box.nowAt - 7, perWeight = (box.bottom - box.top) / (view.y1 - view.y0);
  let lastLabel = -1e9;
  const first = rowAt(view.y0), last = rowAt(Math.min(view.y1, HEIGHT - 1e-9));
  const everyRow = (last - first) < 400;
  for (let r = first; r <= last; r += everyRow ? 1 : Math.ceil((last - first) / 400)) {
    const y0 = yOf(rowTop[r]), y1 = yOf(rowTop[r + 1]);
    if (everyRow && y1 - y0 >= 5) {
      g.strokeStyle = css.grid; g.lineWidth = 1;
      g.beginPath(); g.moveTo(box.left, y1); g.lineTo(box.right, y1); g.stroke();
      if (rowPages(r) <= 8 && perWeight >= 9) {
        g.globalAlpha = 0.45; g.beginPath();
        for (let p = 1; p < rowPages(r); p++) { const y = y0 + (y1 - y0) * p / rowPages(r); g.moveTo(box.left, y); g.lineTo(box.right, y); }
        g.stroke(); g.globalAlpha = 1;
      }
    }
    const y = (Math.max(y0, box.top) + Math.min(y1, box.bottom)) / 2;
    if (y - lastLabel >= 14 && y > box.top + 2) {
      lastLabel = y;
      g.fillStyle = view.hoverRow === r ? css.accent : css.soft; g.textAlign = "right"; g.textBaseline = "middle";
      g.font = "13px system-ui, sans-serif";
      const page = rowPage(r), n = rowPages(r), text = n > 1 ? `${page}–${page + n - 1}` : String(page);
      label(g, clipped(g, text, labelRight - 2), labelRight, y);
    }
  }
}

// A column with the state of each page after the current step, and its letter where there is room.
function drawNow(g) {
  fillStates(g, box.nowAt, box.top, box.nowWidth, box.bottom - box.top, 0, 1, view.step);
  const first = rowAt(view.y0), last = rowAt(Math.min(view.y1, HEIGHT - 1e-9));
  if (last - first >= 200) return;
  const base = new Int8Array(last - first + 1), over = new Int8Array(last - first + 1).fill(-1), i = view.step;
  for (let s = 0; s < S; s++) {
    if (segFrom[s] > i || segTo[s] <= i) continue;
    const state = segState[s], to = Math.min(last, segRow[s] + segRows[s] - 1);
    for (let r = Math.max(first, segRow[s]); r <= to; r++) {
      if (!isOverlay(state)) base[r - first] = state; else if (state !== CONVERTING && state !== FAILED) over[r - first] = state;
    }
  }
  for (let r = first; r <= last; r++) {
    const y0 = yOf(rowTop[r]), y1 = yOf(rowTop[r + 1]), y = (Math.max(y0, box.top) + Math.min(y1, box.bottom)) / 2;
    if (y1 - y0 < 11) continue;
    g.strokeStyle = css.grid; g.lineWidth = 1;
    g.beginPath(); g.moveTo(box.nowAt, y1); g.lineTo(box.nowAt + box.nowWidth, y1); g.stroke();
    const state = over[r - first] >= 0 ? over[r - first] : base[r - first];
    g.font = "700 13px system-ui, sans-serif"; g.textAlign = "center"; g.textBaseline = "middle";
    if (isOverlay(state)) { g.strokeStyle = css.halo; g.lineWidth = 3.5; g.lineJoin = "round"; g.strokeText(LETTERS[state], box.nowAt + box.nowWidth / 2, y); }
    g.fillStyle = inkOf(state);
    g.fillText(LETTERS[state], box.nowAt + box.nowWidth / 2, y);
  }
}

const inkOf = state => state === PRIVATE ? css["private-ink"] : state === SHARED ? css["shared-ink"] : state === UNALLOCATED ? css.soft : css.mark;
// Writes the name of each state, or else its letter, at the first place in its area where it overlaps nothing.
function drawWords(g) {
  g.font = "600 12.5px system-ui, sans-serif"; g.textAlign = "left"; g.textBaseline = "middle";
  let count = 0, tries = 0;
  for (let s = S - 1; s >= 0 && count < 160 && tries < 2000; s--) {
    if (segState[s] === CONVERTING || segState[s] === UNALLOCATED) continue;
    const x0 = Math.max(box.left, xOf(across[segFrom[s]])) + 4, x1 = Math.min(box.right, xOf(across[segTo[s]])) - 3;
    if (x1 - x0 < 8) continue;
    const y0 = Math.max(box.top, yOf(rowTop[segRow[s]])), y1 = Math.min(box.bottom, yOf(rowTop[segRow[s] + segRows[s]]));
    // Most pages are private most of the time: naming them in each thin row would only be noise.
    if (y1 - y0 < (segState[s] === PRIVATE ? 18 : 12)) continue;
    // In an area of several rows, the name is in the first row: the signs are in the middle of the area.
    const y = y0 + Math.min(y1 - y0, Math.max(20, (y1 - y0) / segRows[s])) / 2;
    tries++;
    if (placeWord(g, s, x0, x1, y)) count++;
  }
}
function placeWord(g, s, x0, x1, y) {
  const state = segState[s];
  for (const text of [STATES[state], LETTERS[state]]) {
    for (let x = x0, tries = 0; tries < 8; tries++) {
      const b = boxOf(g, text, x, y);
      if (b.x1 > x1) break;
      const other = labels.find(other => overlaps(other, b));
      if (!other) {
        const needsHalo = isOverlay(state) || isCovered(segRow[s], b);
        g.fillStyle = needsHalo ? css.mark : inkOf(state);
        return label(g, text, x, y, needsHalo && css.halo);
      }
      // A name behind another one would seem to be about the same area. A letter is short enough not to.
      if (other.text && text.length > 1) break;
      x = other.x1 + 3;
    }
  }
  return false;
}
// Whether an overlay covers a part of a label.
const OVERLAYS = [...segState.keys()].filter(s => isOverlay(segState[s]) && segState[s] !== CONVERTING).slice(0, 5000);
function isCovered(row, b) {
  return OVERLAYS.some(s => segRow[s] <= row && row < segRow[s] + segRows[s] && xOf(across[segFrom[s]]) < b.x1 && xOf(across[segTo[s]]) > b.x0);
}

function drawAxis(g) {
  const span = (view.x1 - view.x0), wide = box.right - box.left;
  g.fillStyle = css.soft; g.strokeStyle = css.line; g.font = "13px system-ui, sans-serif"; g.textAlign = "center"; g.textBaseline = "top";
  const count = Math.max(2, Math.floor(wide / 110));
  const nice = raw => { const e = 10 ** Math.floor(Math.log10(raw)); return [1, 2, 5, 10].map(m => m * e).find(v => v >= raw); };
  const total = view.byTime ? Math.max(1, N > 1 ? time[N - 1] - time[0] : 1) * 1.02 : N;
  const every = Math.max(view.byTime ? 1 : 1, nice(Math.max(1e-9, span * total / count)));
  for (let v = Math.ceil(view.x0 * total / every) * every; v <= view.x1 * total; v += every) {
    const i = view.byTime ? 0 : Math.min(N - 1, Math.floor(v));
    const x = xOf(view.byTime ? v / total : middle(i));
    if (x < box.left || x > box.right - 14) continue;
    g.beginPath(); g.moveTo(x, box.bottom); g.lineTo(x, box.bottom + 4); g.stroke();
    label(g, view.byTime ? duration(Math.round(v)) : String(i + 1), x, box.bottom + 6);
    if (!view.byTime) label(g, duration(time[i]), x, box.bottom + 22);
  }
  g.textAlign = "right";
  const clock = T.simulated ? "sim. time" : "time";
  label(g, view.byTime ? clock : "event", box.nowAt - 7, box.bottom + 6);
  if (!view.byTime) label(g, clock, box.nowAt - 7, box.bottom + 22);
}

// Draws all that does not depend on the current step. The result is kept until the view changes.
function drawStill(g) {
  const from = Math.max(0, eventAt(view.x0) - 1), to = Math.min(N, eventAt(view.x1) + 1);
  if (R) {
    fillStates(g, box.left, box.top, box.right - box.left, box.bottom - box.top, view.x0, view.x1);
    drawRows(g);
  }
  g.save();
  g.beginPath(); g.rect(box.left, box.top, box.right - box.left, box.bottom - box.top); g.clip();
  // In a long trace, only refused and failed events are marked on the pages: colours show the rest.
  const slot = (box.right - box.left) / Math.max(1, to - from), rowHeight = (box.bottom - box.top) / (view.y1 - view.y0);
  const least = slot < 0.4 ? 7 : slot < 6 ? 4 : 0, radius = Math.max(3.2, Math.min(6, rowHeight * 0.3));
  const marks = places(from, to, radius * 2 + 3, i => {
    const kind = KINDS[kindOf[i]];
    if (!kind.marks || rowOf[i] < 0 || kind.weight < least) return -1;
    const y = (yOf(rowTop[rowOf[i]]) + yOf(rowTop[rowOf[i] + rowsOf[i]])) / 2;
    return y < box.top || y > box.bottom ? -1 : y;
  });
  for (const { x, y } of marks) labels.push({ x0: x - radius - 1.5, x1: x + radius + 1.5, y0: y - radius - 1.5, y1: y + radius + 1.5, text: "" });
  if (R) drawWords(g);
  if (view.rows) {
    g.fillStyle = css.veil;
    g.fillRect(box.left, box.top, box.width, yOf(rowTop[view.rows[0]]) - box.top);
    g.fillRect(box.left, yOf(rowTop[view.rows[1]]), box.width, box.bottom);
  }
  for (const { i, x, y } of marks) sign(g, kindOf[i], x, y, radius, colourOf(kindOf[i], true), css.halo);
  g.restore();
  drawActors(g, from, to);
}

const still = { canvas: document.createElement("canvas"), key: "" };
function draw() {
  const canvas = $("picture"), dpr = window.devicePixelRatio || 1;
  measure();
  canvas.style.height = box.height + "px";
  if (canvas.width !== Math.round(box.width * dpr) || canvas.height !== Math.round(box.height * dpr)) {
    canvas.width = Math.round(box.width * dpr); canvas.height = Math.round(box.height * dpr);
  }
  const g = canvas.getContext("2d");
  g.setTransform(dpr, 0, 0, dpr, 0, 0);
  g.clearRect(0, 0, box.width, box.height);
  if (!N) return;
  const key = [view.x0, view.x1, view.y0, view.y1, view.byTime, canvas.width, canvas.height, dpr, css.bg, view.hoverRow, view.rows,
    [...view.actors].sort(), [...view.groups].sort()].join();
  if (key !== still.key) {
    still.key = key;
    labels = [];
    still.canvas.width = canvas.width; still.canvas.height = canvas.height;
    const s = still.canvas.getContext("2d");
    s.setTransform(dpr, 0, 0, dpr, 0, 0);
    drawStill(s);
    drawAxis(s);
    showDrawn();
  }
  g.drawImage(still.canvas, 0, 0, box.width, box.height);
  if (R) drawNow(g);
  // Events after the current step are veiled.
  const i = view.step, x = xOf(middle(i)), end = xOf(view.byTime ? across[i] : across[i + 1]);
  if (i < N - 1 && end < box.right) {
    g.fillStyle = css.veil;
    g.fillRect(Math.max(box.left, end), 0, box.right - Math.max(box.left, end), box.bottom);
  }
  if (x >= box.left && x <= box.right) {
    const y = 4 + actorRowOf[actorOf[i]] * box.actorHeight + box.actorHeight / 2;
    g.strokeStyle = css.accent; g.lineWidth = 2;
    g.beginPath(); g.moveTo(x, 0); g.lineTo(x, box.bottom); g.stroke();
    g.lineWidth = 2.5; g.beginPath(); g.arc(x, y, box.actorHeight * 0.42, 0, 7); g.stroke();
    if (rowOf[i] >= 0) {
      const y0 = Math.max(box.top, yOf(rowTop[rowOf[i]])), y1 = Math.min(box.bottom, yOf(rowTop[rowOf[i] + rowsOf[i]]));
      if (y1 > y0) { g.lineWidth = 3; g.strokeRect(box.nowAt + 1, y0 + 1, box.nowWidth - 2, Math.max(3, y1 - y0 - 2)); }
    }
  }
}
