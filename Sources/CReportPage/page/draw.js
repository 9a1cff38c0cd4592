// The picture: states as coloured and patterned areas, marks on top. However many events there are, one pass over the
// segments fills pixels, and marks that would touch become one.
const WORDS = ["unallocated", "shared", "private", "held", "converting", "failed", "hole"];
function rgba(text) {
  const c = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  c.fillStyle = text; c.fillRect(0, 0, 1, 1);
  const d = c.getImageData(0, 0, 1, 1).data;
  return (d[3] << 24 | d[2] << 16 | d[1] << 8 | d[0]) >>> 0;
}
// For each state an 8 by 8 pattern of colours; 0 lets through what is below.
let patterns = [];
function makePatterns() {
  const c = name => rgba(css[name]);
  const p = f => Uint32Array.from({ length: 64 }, (_, i) => f(i & 7, i >> 3));
  const none = c("none"), noneDot = c("none-dot"), shared = c("shared"), dot = c("shared-dot"), own = c("private");
  const held = c("held"), failed = c("failed"), conv = c("converting");
  patterns = [
    p((x, y) => (x + y) % 8 === 0 ? noneDot : none),
    p((x, y) => (x >> 1 === 0 && y >> 1 === 0) || (x >> 1 === 2 && y >> 1 === 2) ? dot : shared),
    p(() => own),
    p((x, y) => ((x >> 1) + (y >> 1)) & 1 ? held : 0),
    p((x, y) => (x - y + 8) % 8 < 2 ? conv : 0),
    p((x, y) => (x + y) % 8 < 2 || (x - y + 8) % 8 < 2 ? failed : 0),
    p((x, y) => x % 4 < 2 && y % 4 < 2 ? noneDot : none),
  ];
}
const BAYER = [0, 8, 2, 10, 12, 4, 14, 6, 3, 11, 1, 9, 15, 7, 13, 5].map(v => (v + 0.5) / 16);
// Whether pixels are so few that many rows or segments share one: then shared and private are mixed in proportion.
const isDense = () => S > 60000 || R * (view.y1 - view.y0) / HEIGHT > (box.bottom - box.top);
// How much of each pixel is in which state, as sums that change where a segment begins and ends, and from that a pattern
// of pixels in the same proportion.
function fillDense(pixels, w, h, ux0, sx, sy, step) {
  const shared = new Float32Array((w + 2) * h), own = new Float32Array((w + 2) * h);
  for (let s = 0; s < S; s++) {
    const state = segState[s];
    if (state !== 1 && state !== 2) continue;
    let a = 0, b = w;
    if (step === undefined) {
      a = Math.max(0, (across[segFrom[s]] - ux0) * sx); b = Math.min(w, (across[segTo[s]] - ux0) * sx);
      if (b <= 0 || a >= w || b <= a) continue;
    } else if (segFrom[s] > step || segTo[s] <= step) continue;
    const c = Math.max(0, (rowTop[segRow[s]] - view.y0) * sy), d = Math.min(h, (rowTop[segRow[s] + segRows[s]] - view.y0) * sy);
    const sums = state === 1 ? shared : own, ia = Math.floor(a), ib = Math.floor(b);
    for (let y = Math.floor(c); y < d; y++) {
      const part = Math.min(d, y + 1) - Math.max(c, y), line = y * (w + 2);
      sums[line + ia] += part * (ia + 1 - a); sums[line + ia + 1] += part * (a - ia);
      sums[line + ib] -= part * (ib + 1 - b); sums[line + ib + 1] -= part * (b - ib);
    }
  }
  const one = patterns[1][2], two = patterns[2][0], none = patterns[0][1];
  for (let y = 0; y < h; y++) {
    let p = 0, q = 0;
    for (let x = 0, at = y * (w + 2); x < w; x++, at++) {
      p += shared[at]; q += own[at];
      const level = BAYER[(y & 3) * 4 + (x & 3)];
      pixels[y * w + x] = p > level ? one : p + q > level ? two : none;
    }
  }
}
function fillStates(context, left, top, width, height, ux0, ux1, step) {
  const dpr = window.devicePixelRatio || 1, w = Math.max(1, Math.round(width * dpr)), h = Math.max(1, Math.round(height * dpr));
  const image = new ImageData(w, h), pixels = new Uint32Array(image.data.buffer), scale = Math.max(1, Math.round(dpr));
  pixels.fill(patterns[0][1]);
  const sx = w / (ux1 - ux0), sy = h / (view.y1 - view.y0), dense = isDense();
  if (dense) fillDense(pixels, w, h, ux0, sx, sy, step);
  for (let s = 0; s < S; s++) {
    if (dense && (segState[s] <= 2 || segState[s] === 4)) continue;
    let a, b;
    if (step === undefined) {
      a = Math.floor((across[segFrom[s]] - ux0) * sx); b = Math.floor((across[segTo[s]] - ux0) * sx);
      if (b <= a) b = a + 1;
      // Too short for its pattern to be one; it would only hide what the pages are.
      if (segState[s] === 4 && b - a < 8 * dpr && segTo[s] - segFrom[s] < N / 100) continue;
      if (b <= 0 || a >= w) continue;
      a = Math.max(0, a); b = Math.min(w, b);
    } else {
      if (segFrom[s] > step || segTo[s] <= step) continue;
      a = 0; b = w;
    }
    let c = Math.floor((rowTop[segRow[s]] - view.y0) * sy), d = Math.floor((rowTop[segRow[s] + segRows[s]] - view.y0) * sy);
    if (d <= c) d = c + 1;
    if (d <= 0 || c >= h) continue;
    c = Math.max(0, c); d = Math.min(h, d);
    // While a conversion goes on nobody knows that it will fail.
    const pattern = patterns[step !== undefined && segState[s] === 5 ? 4 : segState[s]];
    for (let y = c; y < d; y++) {
      const line = y * w, py = (Math.floor(y / scale) & 7) << 3;
      if (pattern[py] === pattern[py + 1] && pattern[py + 1] === pattern[py + 2] && pattern[py + 2] === pattern[py + 3] &&
        pattern[py + 3] === pattern[py + 4] && pattern[py + 4] === pattern[py + 5] && pattern[py] !== 0 && pattern[py + 5] === pattern[py + 7]) {
        pixels.fill(pattern[py], line + a, line + b);
        continue;
      }
      for (let x = a; x < b; x++) {
        const colour = pattern[py + (Math.floor(x / scale) & 7)];
        if (colour !== 0) pixels[line + x] = colour;
      }
    }
  }
  const under = document.createElement("canvas");
  under.width = w; under.height = h;
  under.getContext("2d").putImageData(image, 0, 0);
  context.drawImage(under, left, top, width, height);
}

// A sign by strokes, the same on every machine: no font needs to have it.
function sign(g, kind, x, y, r, colour, halo) {
  const name = KINDS[kind].name;
  const shape = (path, edge = 3.4) => {
    g.beginPath(); path();
    g.lineJoin = "round";
    if (halo) { g.strokeStyle = halo; g.lineWidth = edge; g.stroke(); }
  };
  const fill = path => { shape(path); g.fillStyle = colour; g.fill(); };
  const stroke = (path, width = 2.2) => { shape(path, width + 2.8); g.strokeStyle = colour; g.lineWidth = width; g.stroke(); };
  const triangle = () => { g.moveTo(x, y - r); g.lineTo(x + r, y + r * 0.85); g.lineTo(x - r, y + r * 0.85); g.closePath(); };
  const diamond = () => { g.moveTo(x, y - r * 1.15); g.lineTo(x + r, y); g.lineTo(x, y + r * 1.15); g.lineTo(x - r, y); g.closePath(); };
  const cross = () => { g.moveTo(x - r, y - r); g.lineTo(x + r, y + r); g.moveTo(x + r, y - r); g.lineTo(x - r, y + r); };
  const circle = () => g.arc(x, y, r * 0.85, 0, 7);
  const letter = text => {
    g.font = `700 ${Math.round(r * 2.1)}px system-ui, sans-serif`; g.textAlign = "center"; g.textBaseline = "middle";
    if (halo) { g.strokeStyle = halo; g.lineWidth = 3.4; g.lineJoin = "round"; g.strokeText(text, x, y + 0.5); }
    g.fillStyle = colour; g.fillText(text, x, y + 0.5);
  };
  switch (name) {
    case "memory fault": return fill(triangle);
    case "fault, race": return stroke(triangle, 1.8);
    case "ioctl": return fill(circle);
    case "EAGAIN": return stroke(cross, 2.6);
    case "ioctl failed": stroke(circle, 1.8); return stroke(cross, 1.6);
    case "conversion failed": return stroke(cross, 3);
    case "hold": return fill(diamond);
    case "release": return stroke(diamond, 1.8);
    case "hole punched": return stroke(circle, 2);
    case "access": return letter("a");
    case "access refused": letter("a"); return stroke(() => { g.moveTo(x - r, y + r); g.lineTo(x + r, y - r); }, 2);
    case "conversion begins": return stroke(() => { g.moveTo(x + r * 0.5, y - r); g.lineTo(x - r * 0.3, y - r); g.lineTo(x - r * 0.3, y + r); g.lineTo(x + r * 0.5, y + r); }, 1.8);
    case "conversion ends": return stroke(() => { g.moveTo(x - r * 0.5, y - r); g.lineTo(x + r * 0.3, y - r); g.lineTo(x + r * 0.3, y + r); g.lineTo(x - r * 0.5, y + r); }, 1.8);
    case "resume": return stroke(() => { g.moveTo(x - r * 0.7, y - r); g.lineTo(x + r * 0.8, y); g.lineTo(x - r * 0.7, y + r); g.closePath(); }, 1.8);
    case "console": return stroke(() => { for (const d of [-0.7, 0, 0.7]) { g.moveTo(x - r * 0.8, y + r * d); g.lineTo(x + r * 0.8, y + r * d); } }, 1.4);
    case "wait": return fill(() => { for (const d of [-0.9, 0, 0.9]) { g.moveTo(x + r * d, y); g.arc(x + r * d, y, r * 0.26, 0, 7); } });
    case "end": return fill(() => g.rect(x - r * 0.75, y - r * 0.75, r * 1.5, r * 1.5));
    case "failed end": case "step failed": fill(() => g.rect(x - r, y - r, r * 2, r * 2));
      g.strokeStyle = css.card; g.lineWidth = 2; g.beginPath(); g.moveTo(x - r * .5, y - r * .5); g.lineTo(x + r * .5, y + r * .5); g.moveTo(x + r * .5, y - r * .5); g.lineTo(x - r * .5, y + r * .5); return g.stroke();
    case "step": return stroke(() => { g.moveTo(x - r * .8, y); g.lineTo(x - r * .2, y + r * .7); g.lineTo(x + r * .9, y - r * .7); }, 2.2);
    default: return letter({ boot: "B", hypercall: "H", port: "p", "holder asked": "h", exit: "e", guest_memfd: "F" }[name] ?? "?");
  }
}
const BAD = new Set(["EAGAIN", "ioctl failed", "conversion failed", "access refused", "failed end", "step failed"]);
const colourOf = (kind, onPages) => BAD.has(KINDS[kind].name) ? onPages ? css.failed : css.bad :
  onPages ? css.mark : KINDS[kind].name === "hold" ? css["held-mark"] : css.ink;

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
    const word = g.measureText(WORDS[segState[s]]).width, text = room > word ? WORDS[segState[s]] : LETTERS[segState[s]];
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
