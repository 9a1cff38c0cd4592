// The view: the current step, the filter, the zoom, and the scales.
const $ = id => document.getElementById(id);
const rowTop = new Float64Array(R + 1);
for (let r = 0; r < R; r++) rowTop[r + 1] = rowTop[r] + rowWeight(r);
const HEIGHT = rowTop[R] || 1;

const view = { step: T.opening, byTime: false, x0: 0, x1: 1, y0: 0, y1: HEIGHT, hover: -1, hoverRow: -1,
  actors: new Set(T.actors.map((_, a) => a)), groups: new Set(KINDS.map(k => k.group)), rows: null, playing: 0 };

// Actors in the order vCPUs, threads of the host, child processes, others.
const rank = name => name.startsWith("vcpu") ? 0 : name.startsWith("host") ? 1 : name.startsWith("child") ? 2 : 3;
const actorRows = T.actors.map((name, a) => ({ name, a })).sort((p, q) =>
  rank(p.name) - rank(q.name) || p.name.localeCompare(q.name, "en", { numeric: true }));
const actorRowOf = new Int32Array(T.actors.length);
actorRows.forEach((row, at) => actorRowOf[row.a] = at);

// The left edge of each event on the horizontal axis, from 0 to 1: by number, or by time. Times of two threads may be out of
// order by a little; their events are kept in order.
const across = new Float64Array(N + 1);
function layOut() {
  const span = N > 1 ? Math.max(1, time[N - 1] - time[0]) * 1.02 : 1;
  let far = 0;
  for (let i = 0; i < N; i++) across[i] = view.byTime ? (far = Math.max(far, (time[i] - time[0]) / span)) : i / N;
  across[N] = 1;
}
layOut();
const middle = i => view.byTime ? across[i] : (across[i] + across[i + 1]) / 2;
const isShown = i => view.actors.has(actorOf[i]) && view.groups.has(KINDS[kindOf[i]].group) &&
  (!view.rows || (rowOf[i] >= 0 && rowOf[i] < view.rows[1] && rowOf[i] + rowsOf[i] > view.rows[0]));

// The first event at or after u.
function eventAt(u) {
  let low = 0, high = N;
  while (low < high) { const m = (low + high) >> 1; if (across[m] < u) low = m + 1; else high = m; }
  return low;
}
function rowAt(w) {
  let low = 0, high = R;
  while (low < high) { const m = (low + high) >> 1; if (rowTop[m + 1] <= w) low = m + 1; else high = m; }
  return Math.min(low, R - 1);
}
// The row of a page, or the first row after the page.
function rowOfPage(page) {
  let low = 0, high = R;
  while (low < high) { const m = (low + high) >> 1; if (rowPage(m) + rowPages(m) <= page) low = m + 1; else high = m; }
  return low;
}
// Parses "512-519", "512", "0x200000" or "0x200000-0x207fff" to a range of rows. Null means all rows; undefined means that
// the text is invalid or names no row.
function parsePages(text) {
  text = text.trim();
  if (!text) return null;
  const match = /^(0x[0-9a-f]+|\d+)(?:\s*(?:-|–|\.\.|to)\s*(0x[0-9a-f]+|\d+))?$/i.exec(text);
  if (!match) return undefined;
  const page = word => /^0x/i.test(word) ? Math.floor(parseInt(word, 16) / 4096) : parseInt(word, 10);
  const first = page(match[1]), last = match[2] === undefined ? first : page(match[2]);
  if (last < first) return undefined;
  const low = rowOfPage(first);
  let high = Math.min(R, rowOfPage(last) + 1);
  while (high > low && rowPage(high - 1) > last) high--;
  return high > low ? [low, high] : undefined;
}

const css = {};
function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["bg", "card", "ink", "soft", "line", "accent", "private", "private-ink", "shared", "shared-dot", "shared-ink", "none",
    "none-dot", "held", "held-mark", "failed", "converting", "grid", "veil", "good", "bad", "mark", "halo"]) css[name] = style.getPropertyValue("--" + name).trim();
}

// The picture's geometry in CSS pixels.
const box = { width: 0, height: 0, left: 0, nowAt: 0, nowWidth: 26, top: 0, bottom: 0, actorHeight: 26, right: 0 };
function measure() {
  const canvas = $("picture"), width = Math.max(240, canvas.clientWidth);
  const narrow = width < 560;
  box.width = width;
  box.actorHeight = actorRows.length > 8 ? 18 : narrow ? 22 : 26;
  box.nowWidth = narrow ? 20 : 28;
  box.nowAt = narrow ? 84 : 132;
  box.left = box.nowAt + box.nowWidth + 6;
  box.right = width - 12;
  box.top = actorRows.length * box.actorHeight + 12;
  const most = Math.max(260, Math.min(window.innerHeight * 0.62, 720));
  const pages = Math.max(96, Math.min(most, HEIGHT * (narrow ? 20 : 26)));
  box.bottom = box.top + pages;
  box.height = box.bottom + 40;
}
const xOf = u => box.left + (u - view.x0) / (view.x1 - view.x0) * (box.right - box.left);
const uOf = x => view.x0 + (x - box.left) / (box.right - box.left) * (view.x1 - view.x0);
const yOf = w => box.top + (w - view.y0) / (view.y1 - view.y0) * (box.bottom - box.top);
const wOf = y => view.y0 + (y - box.top) / (box.bottom - box.top) * (view.y1 - view.y0);

function zoomX(factor, around) {
  const span = Math.min(1, Math.max(1e-7, Math.min((view.x1 - view.x0) * factor, 1)));
  const part = (around - view.x0) / (view.x1 - view.x0);
  view.x0 = Math.max(0, Math.min(1 - span, around - span * part));
  view.x1 = view.x0 + span;
}
function zoomY(factor, around) {
  const span = Math.min(HEIGHT, Math.max(Math.min(4, HEIGHT), (view.y1 - view.y0) * factor));
  const part = (around - view.y0) / (view.y1 - view.y0);
  view.y0 = Math.max(0, Math.min(HEIGHT - span, around - span * part));
  view.y1 = view.y0 + span;
}
// Events that are shown when the page opens, so that each is some pixels wide.
const OPENING_EVENTS = 120;
// Zooms to the opening event in a long trace.
function zoomToOpening() {
  if (view.byTime || N <= OPENING_EVENTS * 1.25) return;
  const span = OPENING_EVENTS / N;
  view.x0 = Math.max(0, Math.min(1 - span, (T.opening - OPENING_EVENTS / 20) / N));
  view.x1 = view.x0 + span;
}
// Scrolls an event into view.
function reveal(i) {
  const u = middle(i), span = view.x1 - view.x0;
  if (u < view.x0 || u > view.x1) {
    view.x0 = Math.max(0, Math.min(1 - span, u - span / 2));
    view.x1 = view.x0 + span;
  }
}
