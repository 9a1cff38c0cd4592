// Draws events as signs. Paths do not depend on fonts.
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
    case "conversion failed":
      stroke(() => { g.moveTo(x - r * 0.7, y - r); g.lineTo(x + r * 0.1, y - r); g.lineTo(x + r * 0.1, y + r); g.lineTo(x - r * 0.7, y + r); }, 2);
      return stroke(() => { g.moveTo(x - r, y + r * 0.8); g.lineTo(x + r, y - r * 0.8); }, 2);
    case "hypercall": return stroke(() => { g.moveTo(x, y + r); g.lineTo(x, y - r * 0.8); g.moveTo(x - r * 0.8, y); g.lineTo(x, y - r); g.lineTo(x + r * 0.8, y); }, 1.8);
    case "holder asked": stroke(diamond, 1.8); return fill(() => g.arc(x, y, r * 0.28, 0, 7));
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
    case "failed end": fill(() => g.rect(x - r, y - r, r * 2, r * 2));
      g.strokeStyle = css.card; g.lineWidth = 2; g.beginPath(); g.moveTo(x - r * .6, y + r * .6); g.lineTo(x + r * .6, y - r * .6); return g.stroke();
    case "step failed": stroke(() => g.rect(x - r * .9, y - r * .9, r * 1.8, r * 1.8), 1.8);
      g.strokeStyle = colour; g.lineWidth = 1.8; g.beginPath(); g.moveTo(x - r * .5, y - r * .5); g.lineTo(x + r * .5, y + r * .5); g.moveTo(x + r * .5, y - r * .5); g.lineTo(x - r * .5, y + r * .5); return g.stroke();
    case "step": return stroke(() => { g.moveTo(x - r * .8, y); g.lineTo(x - r * .2, y + r * .7); g.lineTo(x + r * .9, y - r * .7); }, 2.2);
    default: return letter({ boot: "B", "port I/O": "i", exit: "e", guest_memfd: "F", "guest pages": "g" }[name] ?? "?");
  }
}
const BAD = new Set(["EAGAIN", "ioctl failed", "conversion failed", "access refused", "failed end", "step failed"]);
const colourOf = (kind, onPages) => BAD.has(KINDS[kind].name) ? onPages ? css.failed : css.bad :
  onPages ? css.mark : KINDS[kind].name === "hold" ? css["held-mark"] : css.ink;

