// Base64 and compression, with a limit on what comes out.
const element = id => document.getElementById(id);
// Creates an element with a class, a text and children. A text never becomes markup.
function make(name, className, content, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (content !== undefined && content !== null) made.textContent = content;
  made.append(...children);
  return made;
}
const fromBase64 = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
function toBase64(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(text);
}
// Pipes bytes through a stream and stops reading at `limit` bytes: a short link can unpack to gigabytes.
async function piped(bytes, stream, limit) {
  const reader = new Blob([bytes]).stream().pipeThrough(stream).getReader(), parts = [];
  let size = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    size += value.length;
    if (size > limit) { reader.cancel().catch(() => {}); throw new RangeError("too long"); }
    parts.push(value);
  }
  const all = new Uint8Array(size);
  let at = 0;
  for (const part of parts) { all.set(part, at); at += part.length; }
  return all;
}
const embedded = id => piped(fromBase64(element(id).textContent.trim()), new DecompressionStream("gzip"), 64e6);
