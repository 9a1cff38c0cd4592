// A test in a link: "#1." and the base64url of compressed JSON {t: text, p: predict first, o: {option: value}}.
const LINK_LIMIT = 60000, TEXT_LIMIT = 200000, LINE_LIMIT = 2000;
const lineCount = text => text.split("\n").length;
function tooLong(text) {
  const lines = lineCount(text);
  if (lines > LINE_LIMIT) return `The test has ${lines.toLocaleString("en")} lines; this page takes at most ${LINE_LIMIT.toLocaleString("en")}. The command has no such limit: minivmm litmus FILE.`;
  if (text.length > TEXT_LIMIT) return `The test has ${text.length.toLocaleString("en")} characters; this page takes at most ${TEXT_LIMIT.toLocaleString("en")}. The command has no such limit: minivmm litmus FILE.`;
  return "";
}
async function linkOf(content) {
  const bytes = new TextEncoder().encode(JSON.stringify(content));
  const packed = await piped(bytes, new CompressionStream("deflate-raw"), 1e7);
  return "#1." + toBase64(packed).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
// The content of a link, or a text of what is wrong with it: {problem}.
async function readLink(hash) {
  if (hash.length > LINK_LIMIT) return { problem: `The test in this link was not read: the link has ${hash.length.toLocaleString("en")} characters, at most ${LINK_LIMIT.toLocaleString("en")} are read.` };
  const version = /^#(\d+)\./.exec(hash);
  if (!version) return { problem: "The test in this link was not read: it does not begin with #1. as links of this page do. Was it cut?" };
  if (version[1] !== "1") return { problem: `The test in this link was not read: it has format ${version[1].slice(0, 9)}, and this page knows format 1. Use a newer playground.` };
  let content;
  try {
    const packed = fromBase64(hash.slice(3).replaceAll("-", "+").replaceAll("_", "/"));
    const bytes = await piped(packed, new DecompressionStream("deflate-raw"), 4 * TEXT_LIMIT);
    content = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    return { problem: error instanceof RangeError ? "The test in this link was not read: it is longer than this page takes." : "The test in this link was not read: the link is damaged. Links are often cut at a line end in mail; copy it again as a whole." };
  }
  const isText = value => typeof value === "string" && value.length < 100;
  if (!content || typeof content.t !== "string") return { problem: "The test in this link was not read: the link holds no test." };
  const long = tooLong(content.t);
  if (long) return { problem: `The test in this link was not read. ${long}` };
  const options = {};
  for (const [key, value] of Object.entries(content.o && typeof content.o === "object" ? content.o : {})) {
    if (key === "fault" && Array.isArray(value)) options.fault = value.filter(isText).slice(0, 100);
    else if (["abi", "design", "contents", "vm"].includes(key) && isText(value)) options[key] = value;
  }
  return { text: content.t, predict: content.p === 1 || content.p === true, options };
}
