// The picture: states, lanes and pages with their marks, and over that what depends on the step.
// Marks that would touch become one, in which the weightiest event is drawn. Events come in order, so the last mark at a
// height is the only one that the next can touch.
function places(from, to, size, yOfEvent) {
  const last = new Map(), marks = [];
  for (let i = from; i < to; i++) {
    if (!isShown(i)) continue;
    const y = yOfEvent(i);
    if (!(y >= 0)) continue;
    const x = xOf(middle(i)), key = Math.round(y / 8), old = last.get(key);
    if (old && x - old.x < size) {
      if (KINDS[kindOf[i]].weight > KINDS[kindOf[old.i]].weight) { old.i = i; old.y = y; }
    } else {
      const mark = { i, x, y };
      last.set(key, mark); marks.push(mark);
    }
  }
  return marks;
}

function drawLanes(g, from, to) {
  g.textBaseline = "middle";
  lanes.forEach((lane, at) => {
    const y = 4 + at * box.lane + box.lane / 2;
    g.globalAlpha = view.actors.has(lane.a) ? 1 : 0.35;
    g.fillStyle = css.ink; g.textAlign = "right"; g.font = `600 ${box.lane > 20 ? 14 : 12}px system-ui, sans-serif`;
    g.fillText(lane.name.length > 14 ? lane.name.slice(0, 13) + "…" : lane.name, box.nowAt + box.nowWidth - 6, y, box.nowAt + box.nowWidth - 8);
    g.strokeStyle = css.line; g.lineWidth = 1;
    g.beginPath(); g.moveTo(box.left, y); g.lineTo(box.right, y); g.stroke();
    g.globalAlpha = 1;
  });
  g.save();
  g.beginPath(); g.rect(box.left, 0, box.right - box.left, box.height); g.clip();
  // A bar from each conversion's first event to its last, a line from its cause to where the guest goes on.
  const drawn = new Int32Array(lanes.length).fill(-1e9);
  for (let c = 0; c < C; c++) {
    const v = conversion(c), first = v.cause >= 0 ? Math.min(v.cause, v.start) : v.start, last = Math.max(v.resume, v.end);
    if (last < from || first >= to || !view.actors.has(actorOf[v.start])) continue;
    const lane = laneOf[actorOf[v.start]], y = 4 + lane * box.lane + box.lane / 2;
    const x0 = xOf(middle(v.start)), x1 = Math.max(x0 + 1.5, xOf(middle(v.end)));
    if (x1 < drawn[lane] + 1) continue;
    drawn[lane] = x1;
    g.fillStyle = v.ok ? css[get(v.start, "target") === "private" ? "private" : "shared"] : css.failed;
    g.globalAlpha = 0.75;
    g.fillRect(x0, y - box.lane * 0.32, x1 - x0, box.lane * 0.64);
    g.globalAlpha = 1;
    g.strokeStyle = v.ok ? css.ink : css.failed; g.lineWidth = 1;
    if (x1 - x0 > 6) g.strokeRect(x0, y - box.lane * 0.32, x1 - x0, box.lane * 0.64);
    if (last > first) { g.lineWidth = 2.4; g.beginPath(); g.moveTo(xOf(middle(first)), y + box.lane * 0.42); g.lineTo(xOf(middle(last)), y + box.lane * 0.42); g.stroke(); }
  }
  const size = box.lane > 20 ? 13 : 10;
  for (const { i, x, y } of places(from, to, size, i => 4 + laneOf[actorOf[i]] * box.lane + box.lane / 2)) {
    sign(g, kindOf[i], x, y, box.lane > 20 ? 5.5 : 4.5, colourOf(kindOf[i]), css.card);
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
      g.fillText(text, labelRight, y, labelRight - 2);
    }
  }
}

// What every page is after the step: a column of its own, with letters where there is room.
function drawNow(g) {
  fillStates(g, box.nowAt, box.top, box.nowWidth, box.bottom - box.top, 0, 1, view.step);
  const first = rowAt(view.y0), last = rowAt(Math.min(view.y1, HEIGHT - 1e-9));
  if (last - first >= 200) return;
  const base = new Int8Array(last - first + 1), over = new Int8Array(last - first + 1).fill(-1), i = view.step;
  for (let s = 0; s < S; s++) {
    if (segFrom[s] > i || segTo[s] <= i) continue;
    const state = segState[s], to = Math.min(last, segRow[s] + segRows[s] - 1);
    for (let r = Math.max(first, segRow[s]); r <= to; r++) {
      if (state <= 2) base[r - first] = state; else if (state !== 4 && state !== 5) over[r - first] = state;
    }
  }
  for (let r = first; r <= last; r++) {
    const y0 = yOf(rowTop[r]), y1 = yOf(rowTop[r + 1]), y = (Math.max(y0, box.top) + Math.min(y1, box.bottom)) / 2;
    if (y1 - y0 < 11) continue;
    g.strokeStyle = css.grid; g.lineWidth = 1;
    g.beginPath(); g.moveTo(box.nowAt, y1); g.lineTo(box.nowAt + box.nowWidth, y1); g.stroke();
    const state = over[r - first] >= 0 ? over[r - first] : base[r - first];
    g.font = "700 13px system-ui, sans-serif"; g.textAlign = "center"; g.textBaseline = "middle";
    if (state >= 3) { g.strokeStyle = css.halo; g.lineWidth = 3.5; g.lineJoin = "round"; g.strokeText(LETTERS[state], box.nowAt + box.nowWidth / 2, y); }
    g.fillStyle = state === 2 ? css["private-ink"] : state === 1 ? css["shared-ink"] : state === 0 ? css.soft : css.mark;
    g.fillText(LETTERS[state], box.nowAt + box.nowWidth / 2, y);
  }
}

// The state in words where there is room for them.
function drawWords(g) {
  let count = 0;
  for (let s = 0; s < S && count < 160; s++) {
    if (segState[s] === 4 || segState[s] === 0) continue;
    const x0 = Math.max(box.left, xOf(across[segFrom[s]])), x1 = Math.min(box.right, xOf(across[segTo[s]]));
    if (x1 - x0 < 18) continue;
    const y0 = Math.max(box.top, yOf(rowTop[segRow[s]])), y1 = Math.min(box.bottom, yOf(rowTop[segRow[s] + segRows[s]]));
    // The common state is said where it is said well; a word in each of many thin rows is noise.
    if (y1 - y0 < (segState[s] === 2 ? 18 : 12)) continue;
    count++;
    g.font = "600 12.5px system-ui, sans-serif"; g.textAlign = "left"; g.textBaseline = "middle";
    // Behind the mark of the event that began it.
    const slot = view.byTime ? 0 : xOf(across[segFrom[s] + 1]) - xOf(across[segFrom[s]]);
    const x = Math.max(box.left, xOf(across[segFrom[s]]) + slot / 2) + 9, room = x1 - x - 9;
    const word = g.measureText(STATES[segState[s]]).width, text = room > word ? STATES[segState[s]] : LETTERS[segState[s]];
    if (room < 8) continue;
    // Marks are in the middle of what they are about; words of several rows in the first.
    const y = y0 + Math.min(y1 - y0, Math.max(20, (y1 - y0) / segRows[s])) / 2;
    if (segState[s] >= 3) { g.strokeStyle = css.halo; g.lineWidth = 3.5; g.lineJoin = "round"; g.strokeText(text, x, y); }
    g.fillStyle = segState[s] === 2 ? css["private-ink"] : segState[s] === 1 ? css["shared-ink"] : css.mark;
    g.fillText(text, x, y);
  }
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
    g.fillText(view.byTime ? duration(Math.round(v)) : String(i + 1), x, box.bottom + 6);
    if (!view.byTime) g.fillText(duration(time[i]), x, box.bottom + 22);
  }
  g.textAlign = "right";
  g.fillText(view.byTime ? "time" : "event", box.nowAt - 7, box.bottom + 6);
  if (!view.byTime) g.fillText("at", box.nowAt - 7, box.bottom + 22);
}

// All that does not depend on the step: drawn once for a view, and kept.
function drawStill(g) {
  const from = Math.max(0, eventAt(view.x0) - 1), to = Math.min(N, eventAt(view.x1) + 1);
  if (R) {
    fillStates(g, box.left, box.top, box.right - box.left, box.bottom - box.top, view.x0, view.x1);
    drawRows(g);
  }
  g.save();
  g.beginPath(); g.rect(box.left, box.top, box.right - box.left, box.bottom - box.top); g.clip();
  if (R) drawWords(g);
  if (view.rows) {
    g.fillStyle = css.veil;
    g.fillRect(box.left, box.top, box.width, yOf(rowTop[view.rows[0]]) - box.top);
    g.fillRect(box.left, yOf(rowTop[view.rows[1]]), box.width, box.bottom);
  }
  // Where events are dense the colours tell of what went well, and marks of the rest.
  const slot = (box.right - box.left) / Math.max(1, to - from), rowHeight = (box.bottom - box.top) / (view.y1 - view.y0);
  const least = slot < 0.4 ? 7 : slot < 5 ? 4 : 0, radius = Math.max(3.2, Math.min(6, rowHeight * 0.3));
  const marks = places(from, to, radius * 2 + 3, i => {
    const kind = KINDS[kindOf[i]];
    if (!kind.marks || rowOf[i] < 0 || kind.weight < least) return -1;
    const y = (yOf(rowTop[rowOf[i]]) + yOf(rowTop[rowOf[i] + rowsOf[i]])) / 2;
    return y < box.top || y > box.bottom ? -1 : y;
  });
  for (const { i, x, y } of marks) sign(g, kindOf[i], x, y, radius, colourOf(kindOf[i], true), css.halo);
  g.restore();
  drawLanes(g, from, to);
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
    still.canvas.width = canvas.width; still.canvas.height = canvas.height;
    const s = still.canvas.getContext("2d");
    s.setTransform(dpr, 0, 0, dpr, 0, 0);
    drawStill(s);
    drawAxis(s);
  }
  g.drawImage(still.canvas, 0, 0, box.width, box.height);
  if (R) drawNow(g);
  // What is still to come is veiled.
  const i = view.step, x = xOf(middle(i)), end = xOf(view.byTime ? across[i] : across[i + 1]);
  if (i < N - 1 && end < box.right) {
    g.fillStyle = css.veil;
    g.fillRect(Math.max(box.left, end), 0, box.right - Math.max(box.left, end), box.bottom);
  }
  if (x >= box.left && x <= box.right) {
    const y = 4 + laneOf[actorOf[i]] * box.lane + box.lane / 2;
    g.strokeStyle = css.accent; g.lineWidth = 2;
    g.beginPath(); g.moveTo(x, 0); g.lineTo(x, box.bottom); g.stroke();
    g.lineWidth = 2.5; g.beginPath(); g.arc(x, y, box.lane * 0.42, 0, 7); g.stroke();
    if (rowOf[i] >= 0) {
      const y0 = Math.max(box.top, yOf(rowTop[rowOf[i]])), y1 = Math.min(box.bottom, yOf(rowTop[rowOf[i] + rowsOf[i]]));
      if (y1 > y0) { g.lineWidth = 3; g.strokeRect(box.nowAt + 1, y0 + 1, box.nowWidth - 2, Math.max(3, y1 - y0 - 2)); }
    }
  }
}
