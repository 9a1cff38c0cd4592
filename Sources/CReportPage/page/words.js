// Events as sentences.
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
const ERRNOS = { 1: "EPERM", 2: "ENOENT", 4: "EINTR", 5: "EIO", 7: "E2BIG", 9: "EBADF", 11: "EAGAIN", 12: "ENOMEM", 13: "EACCES",
  14: "EFAULT", 16: "EBUSY", 17: "EEXIST", 19: "ENODEV", 22: "EINVAL", 25: "ENOTTY", 28: "ENOSPC", 38: "ENOSYS",
  95: "EOPNOTSUPP", 133: "EHWPOISON" };
const errno = v => v === 0 ? "0" : ERRNOS[Math.abs(v)] ? `${v < 0 ? "-" : ""}${ERRNOS[Math.abs(v)]}` : String(v);
const CALLS = { 12: "KVM_HC_MAP_GPA_RANGE", 0x4d560001: "HC_HOLD", 0x4d560002: "HC_RELEASE", 0x4d560003: "HC_PEEK",
  0x4d560004: "HC_POKE", 0x4d560005: "HC_STATE", 0x4d560006: "HC_YIELD" };
const onlyName = new Set(["halt", "kick"]);

function sentence(i) {
  const f = Object.fromEntries(fieldsOf(i)), where = pagesOf(i), name = nameOf(i);
  switch (name) {
    case "boot": return `boots in place: ${f.vcpus} vCPU${f.vcpus === 1 ? "" : "s"}, ${f.ram_bytes / 1048576} MiB of RAM, all of it shared; the image is written through the mapping`;
    case "image-left-shared": return `leaves RAM up to ${hex(f.end)} shared: this kernel does not preserve contents`;
    case "memory-fault": {
      const touch = `touches page ${Math.floor(f.gpa / 4096)} as ${f.wants}: KVM_EXIT_MEMORY_FAULT (${errno(f.errno)})`;
      return touch + ({ convert: ", the monitor converts it", race: ", it is so already: a race, tried again",
        reenter: ", the monitor does nothing about it", fatal: ", and that is the end" }[f.verdict] ?? "");
    }
    case "resume": return `goes on in the guest: the access to page ${Math.floor(f.gpa / 4096)} is made again`;
    case "hypercall": {
      const call = CALLS[f.number] ?? `call ${hex(f.number)}`;
      const range = rowOf[i] >= 0 ? ` for ${where}` : "";
      const target = f.number === 12 ? (f.a2 & 16 ? " to private" : " to shared") : "";
      return `asks by ${f.by}: ${call}${range}${target} → ${f.result < 0 ? errno(f.result) : f.result}`;
    }
    case "convert": return `converts ${where} to ${f.target}, contents: ${f.contents}`;
    case "set-memory-attributes2": return `KVM_SET_MEMORY_ATTRIBUTES2 ${where} to ${f.target} → ` +
      (f.errno ? `${f.error ?? errno(f.errno)}${f.error_offset !== undefined ? `, error_offset ${hex(f.error_offset)}` : ""}; nothing has changed` : "0");
    case "converted": return `${where} ${rowsOf[i] === 1 && where.startsWith("page ") ? "is" : "are"} ${f.target}${f.busy ? `, after ${f.calls} calls and ${f.busy} EAGAIN` : ""}; contents ${f.contents} (${f.means})`;
    case "not-converted": return `${where} not converted to ${f.target}: ${errno(f.errno)} after ${f.calls} calls`;
    case "hold": return `the host takes references on ${where}${f.name ? ` (${f.name})` : ""}, ${f.yields ? "and lets go when asked" : "and does not let go"}`;
    case "release": return `the references on ${where}${f.name ? ` (${f.name})` : ""} are gone`;
    case "release-holds": return `the host lets go of what it held (${f.count})`;
    case "ask-holders": return `asks who holds ${where} to let go: ${f.released} did, ${f.refused} hold on`;
    case "wait": return `waits ${duration(f.ns)} for page ${Math.floor(f.gpa / 4096)}, attempt ${f.attempt}`;
    case "host-access": case "access": return `${name === "access" ? "" : "the host "}${f.direction}s ${where}` +
      (f.value !== undefined ? ` (${typeof f.value === "number" ? hex(f.value) : f.value})` : "") + (f.errno ? `: ${errno(f.errno)}` : ": it can");
    case "console": return `prints “${f.text}”`;
    case "out": case "in": return `${name} ${hex(f.port)}: ${hex(f.value)}`;
    case "punch": return `punches a hole: ${where} unallocated`;
    case "left-out": return `${f.events.toLocaleString("en")} events are left out here`;
    case "pages-then": return `behind what was left out: ${where}, ${f.state}`;
    case "file": return `a guest_memfd ${f.name ?? ""}: ${where}, ${f.state}`;
    case "step": return `line ${f.line}: ${f.text} → ${f.outcome ?? ""}${f.ok === false ? " ✗" : ""}`;
    case "exit-status": return `ends with status ${f.status}`;
    case "halt": return "halts: nothing can wake it";
    case "kick": return "is taken out of the guest";
    case "step-over": return `is put behind the call at ${hex(f.rip)}`;
    case "mmio": return `${f.write ? "writes" : "reads"} ${f.bytes} bytes at ${hex(f.gpa)}, where there is neither RAM nor a device`;
    case "stop": return `the machine stops: ${f.why}`;
    default: return name + (onlyName.has(name) ? "" : " " + fieldsOf(i).map(([k, v]) => `${k}=${ADDRESSES.has(k) ? hex(v) : v}`).join(" "));
  }
}
