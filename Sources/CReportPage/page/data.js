"use strict";
// The trace, unpacked from JSON into arrays. Its texts are never used as markup.
const T = JSON.parse(document.getElementById("trace").textContent);
const N = T.count, R = T.rows.length / 3;
const time = new Float64Array(N), actorOf = new Uint8Array(N), shapeOf = new Uint16Array(N), kindOf = new Uint8Array(N);
const rowOf = new Int32Array(N), rowsOf = new Int32Array(N), valuesAt = new Uint32Array(N);
for (let i = 0, p = 0, t = 0; i < N; i++) {
  const e = T.events;
  t += e[p]; time[i] = t; actorOf[i] = e[p + 1]; shapeOf[i] = e[p + 2]; kindOf[i] = e[p + 3];
  rowOf[i] = e[p + 4]; rowsOf[i] = e[p + 5]; valuesAt[i] = p + 6;
  p += 6 + T.shapes[shapeOf[i]][1].length;
}
const S = T.segments.length / 5;
const segState = new Uint8Array(S), segRow = new Int32Array(S), segRows = new Int32Array(S);
const segFrom = new Int32Array(S), segTo = new Int32Array(S);
for (let s = 0, p = 0; s < S; s++, p += 5) {
  segState[s] = T.segments[p]; segRow[s] = T.segments[p + 1]; segRows[s] = T.segments[p + 2];
  segFrom[s] = T.segments[p + 3]; segTo[s] = T.segments[p + 4];
}
const C = T.conversions.length / 5;
const conversionAt = new Int32Array(N).fill(-1), conversionEnding = new Int32Array(N).fill(-1);
const conversionCausedBy = new Int32Array(N).fill(-1), conversionOf = new Int32Array(N).fill(-1);
const conversion = c => ({ start: T.conversions[5 * c], end: T.conversions[5 * c + 1], cause: T.conversions[5 * c + 2],
  resume: T.conversions[5 * c + 3], ok: T.conversions[5 * c + 4] === 1 });
for (let c = 0; c < C; c++) {
  const v = conversion(c);
  conversionAt[v.start] = c; conversionEnding[v.end] = c;
  for (const i of [v.start, v.end, v.cause, v.resume]) if (i >= 0 && i < N) conversionOf[i] = c;
  if (v.cause >= 0) conversionCausedBy[v.cause] = c;
}
// Events between the begin and the end of a conversion belong to it if they have the same actor.
{
  const open = {};
  for (let i = 0; i < N; i++) {
    const c = conversionAt[i];
    if (c >= 0) open[actorOf[i]] = c;
    else if (open[actorOf[i]] !== undefined && conversionOf[i] < 0) conversionOf[i] = open[actorOf[i]];
    if (conversionEnding[i] >= 0) delete open[actorOf[i]];
  }
}

const STATES = T.states.map(([name]) => name), LETTERS = T.states.map(([, letter]) => letter);
const KINDS = T.kinds.map(([name, group, weight, marks]) => ({ name, group, weight, marks: marks === 1 }));
const isOverlay = state => state > 2;
// States by number, in the order of Timeline.State.
const UNALLOCATED = 0, SHARED = 1, PRIVATE = 2, HELD = 3, CONVERTING = 4, FAILED = 5, HOLE = 6, DETACHED = 7, UNVALIDATED = 8, UNASSIGNED = 9, PENDING = 10, BLOCKED = 11;
const K = Object.fromEntries(KINDS.map((kind, index) => [kind.name, index]));
const rowPage = r => T.rows[3 * r], rowPages = r => T.rows[3 * r + 1], rowWeight = r => T.rows[3 * r + 2];

const nameOf = i => T.shapes[shapeOf[i]][0];
const actorName = i => T.actors[actorOf[i]];
// The fields of an event as [key, value]. Values are strings, numbers or booleans.
function fieldsOf(i) {
  const [, keys, types] = T.shapes[shapeOf[i]];
  return keys.map((key, k) => {
    const raw = T.events[valuesAt[i] + k];
    return [key, types[k] === "s" ? T.strings[raw] : types[k] === "b" ? raw === 1 : raw];
  });
}
function get(i, key) {
  const [, keys, types] = T.shapes[shapeOf[i]];
  const k = keys.indexOf(key);
  if (k < 0) return undefined;
  const raw = T.events[valuesAt[i] + k];
  return types[k] === "s" ? T.strings[raw] : types[k] === "b" ? raw === 1 : raw;
}
// The state of a row after event i, and its overlay, or -1 without one.
function stateAfter(row, i) {
  let base = 0, over = -1;
  for (let s = 0; s < S; s++) {
    if (segRow[s] <= row && row < segRow[s] + segRows[s] && segFrom[s] <= i && i < segTo[s]) {
      if (isOverlay(segState[s])) over = segState[s]; else base = segState[s];
    }
  }
  return { base, over };
}
