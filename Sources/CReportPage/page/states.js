// Draws states as coloured and patterned areas: one pass over the segments fills the pixels.
function rgba(text) {
  const c = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  c.fillStyle = text; c.fillRect(0, 0, 1, 1);
  const d = c.getImageData(0, 0, 1, 1).data;
  return (d[3] << 24 | d[2] << 16 | d[1] << 8 | d[0]) >>> 0;
}
// For each state an 8 by 8 pattern of colours; 0 is transparent.
let patterns = [];
function makePatterns() {
  const c = name => rgba(css[name]);
  const p = f => Uint32Array.from({ length: 64 }, (_, i) => f(i & 7, i >> 3));
  const none = c("none"), noneDot = c("none-dot"), shared = c("shared"), dot = c("shared-dot"), own = c("private");
  const held = c("held"), failed = c("failed"), conv = c("converting"), ink = c("private-ink");
  patterns = [
    p((x, y) => (x + y) % 8 === 0 ? noneDot : none),
    p((x, y) => (x >> 1 === 0 && y >> 1 === 0) || (x >> 1 === 2 && y >> 1 === 2) ? dot : shared),
    p(() => own),
    p((x, y) => ((x >> 1) + (y >> 1)) & 1 ? held : 0),
    p((x, y) => (x - y + 8) % 8 < 2 ? conv : 0),
    p((x, y) => (x + y) % 8 < 2 || (x - y + 8) % 8 < 2 ? failed : 0),
    p((x, y) => y % 4 < 2 ? none : 0),
    p((x, y) => x > 0 && x < 7 && y > 0 && y < 7 && (x < 2 || x > 5 || y < 2 || y > 5) ? held : 0),
    p((x, y) => (x + y) % 4 === 0 ? ink : 0),
    p((x, y) => x > 1 && x < 5 && y > 1 && y < 5 ? ink : 0),
    p((x, y) => y % 4 === 1 ? ink : 0),
    p((x, y) => x === 3 || y === 3 ? ink : 0),
  ];
}
const BAYER = [0, 8, 2, 10, 12, 4, 14, 6, 3, 11, 1, 9, 15, 7, 13, 5].map(v => (v + 0.5) / 16);
// Whether several rows or segments share a pixel. Shared and private pages are then dithered in proportion.
const isDense = () => S > 60000 || R * (view.y1 - view.y0) / HEIGHT > (box.bottom - box.top);
// Computes the share of each pixel in each state as prefix sums over the ends of segments, then dithers.
function fillDense(pixels, w, h, ux0, sx, sy, step) {
  const shared = new Float32Array((w + 2) * h), own = new Float32Array((w + 2) * h);
  for (let s = 0; s < S; s++) {
    const state = segState[s];
    if (state !== SHARED && state !== PRIVATE) continue;
    let a = 0, b = w;
    if (step === undefined) {
      a = Math.max(0, (across[segFrom[s]] - ux0) * sx); b = Math.min(w, (across[segTo[s]] - ux0) * sx);
      if (b <= 0 || a >= w || b <= a) continue;
    } else if (segFrom[s] > step || segTo[s] <= step) continue;
    const c = Math.max(0, (rowTop[segRow[s]] - view.y0) * sy), d = Math.min(h, (rowTop[segRow[s] + segRows[s]] - view.y0) * sy);
    const sums = state === SHARED ? shared : own, ia = Math.floor(a), ib = Math.floor(b);
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
    if (dense && (!isOverlay(segState[s]) || segState[s] === CONVERTING)) continue;
    let a, b;
    if (step === undefined) {
      a = Math.floor((across[segFrom[s]] - ux0) * sx); b = Math.floor((across[segTo[s]] - ux0) * sx);
      if (b <= a) b = a + 1;
      // Too narrow to show the pattern: it would only hide the state of the pages.
      if (segState[s] === CONVERTING && b - a < 8 * dpr && segTo[s] - segFrom[s] < N / 100) continue;
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
    // At a step in the middle of a conversion, its failure is still in the future.
    const pattern = patterns[step !== undefined && segState[s] === FAILED ? CONVERTING : segState[s]];
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

