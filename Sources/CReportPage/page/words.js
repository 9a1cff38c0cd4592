// Events as sentences, and values as text.
const hex = v => typeof v === "number" && v >= 0 ? "0x" + v.toString(16) : String(v);
function pagesText(first, count) {
  return count > 1 ? `pages ${first} to ${first + count - 1}` : `page ${first}`;
}
function pagesOf(i) {
  const r = rowOf[i], n = rowsOf[i];
  if (r < 0 || n < 1) return "no page";
  const first = rowPage(r);
  return pagesText(first, rowPage(r + n - 1) + rowPages(r + n - 1) - first);
}
function duration(ns) {
  if (!(ns >= 0)) return String(ns);
  if (ns < 1000) return `${ns} ns`;
  if (ns < 1e6) return `${+(ns / 1e3).toFixed(1)} µs`;
  if (ns < 1e9) return `${+(ns / 1e6).toFixed(2)} ms`;
  return `${+(ns / 1e9).toFixed(3)} s`;
}
const errno = v => v === 0 ? "0" : T.errnos[Math.abs(v)] ? `${v < 0 ? "-" : ""}${T.errnos[Math.abs(v)]}` : String(v);
const count = v => v.toLocaleString("en");
function size(bytes) {
  return bytes >= 1048576 && bytes % 1048576 === 0 ? `${count(bytes / 1048576)} MiB` : `${count(bytes)} byte${bytes === 1 ? "" : "s"}`;
}
// A value as text in a sentence. The format letters are those of EventKey.letter in HTMLReport.swift.
function word(i, key) {
  const value = get(i, key);
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "number") return value ?? "?";
  switch (T.shapes[shapeOf[i]][3][T.shapes[shapeOf[i]][1].indexOf(key)]) {
    case "p": case "x": return hex(value);
    case "B": return size(value);
    case "t": return duration(value);
    case "e": return errno(value);
    case "r": return value < 0 ? errno(value) : count(value);
    case "c": return T.calls[value] ?? `call ${hex(value)}`;
    default: return count(value);
  }
}

// Fills in the sentence of an event. EventSchema.sentence documents the braces.
function filled(text, i) {
  let out = "";
  for (let p = 0; p < text.length;) {
    if (text[p] !== "{") { out += text[p++]; continue; }
    let q = p + 1;
    for (let depth = 1; q < text.length && depth > 0; q++) depth += text[q] === "{" ? 1 : text[q] === "}" ? -1 : 0;
    out += filledBrace(text.slice(p + 1, q - 1), i);
    p = q;
  }
  return out;
}
function filledBrace(text, i) {
  const [, key, operator, operand, branch, rest] = /^([a-z0-9_]+)(?:([=&])([a-z0-9]+))?(?:([?!+])([^]*))?$/.exec(text);
  if (!branch) {
    return key === "pages" ? pagesOf(i) : key === "page" ? String(Math.floor(get(i, "gpa") / 4096)) : word(i, key);
  }
  const value = key === "pages" ? rowOf[i] >= 0 : get(i, key);
  const holds = branch === "+" ? value !== undefined : operator === "=" ? String(value) === operand
    : operator === "&" ? Math.floor(value / operand) % 2 === 1 : Boolean(value);
  return holds === (branch !== "!") ? filled(rest, i) : "";
}
function sentence(i) {
  const text = T.shapes[shapeOf[i]][4];
  return text ? filled(text, i) : [nameOf(i), ...fieldsOf(i).map(([key]) => `${key}=${word(i, key)}`)].join(" ");
}
