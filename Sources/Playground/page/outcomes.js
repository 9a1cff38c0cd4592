// The answer for a race: every outcome, whether it is permitted, and one order of steps that leads to it.
const resultText = results => results.map(r => `${r.name} = ${r.outcome}`).join(", ");

// The whole run: the steps before the race, then one order of the pieces of its steps.
function framesOfOrder(answer, block, outcome) {
  return [...framesOfSteps(answer, block.line), ...outcome.order.map(step => ({ ...frameOf(step), isInRace: true }))];
}
function drawBlocks(answer, predictions) {
  const holder = element("blocks");
  let first = null;
  holder.replaceChildren();
  for (const [index, block] of (answer.blocks || []).entries()) {
    const states = `${(block.states || 0).toLocaleString("en")} ${block.states === 1 ? "state" : "states"}`;
    const box = make("section", "block");
    box.append(make("h3", "", `Race in line ${block.line}`));
    box.append(make("p", block.complete ? "soft" : "bad", block.complete ? `All interleavings were tried: ${states}, ${block.outcomes.length} ${block.outcomes.length === 1 ? "outcome" : "outcomes"}.` : `Not all interleavings were tried: the limit was reached after ${states}. Other outcomes may exist.`));
    const list = make("ul", "outcomes"), said = predictions && predictions[index];
    for (const outcome of block.outcomes) {
      const text = resultText(outcome.results), row = make("li", outcome.permitted ? "" : "forbidden");
      row.append(make("code", "results", text), make("span", outcome.permitted ? "badge good" : "badge bad", outcome.permitted ? "permitted" : "forbidden"));
      if (said) row.append(said.has(canonical(text)) ? make("span", "good said", "✓ you said so") : make("span", "bad said", "✗ you did not name it"));
      const show = make("button", "", "Show one order");
      show.type = "button";
      show.setAttribute("aria-label", `Show one order that leads to ${text}`);
      const playOrder = () => {
        for (const other of holder.querySelectorAll("[aria-current]")) other.removeAttribute("aria-current");
        row.setAttribute("aria-current", "true");
        const all = framesOfOrder(answer, block, outcome);
        play(`One order that leads to ${text}`, all, all.findIndex(frame => frame.isInRace));
      };
      show.addEventListener("click", () => {
        playOrder();
        element("pages").focus({ preventScroll: true });
        element("player").scrollIntoView({ block: "nearest", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
      });
      if (outcome.order && outcome.order.length) {
        row.append(show);
        // At first, an order that leads to a forbidden outcome, or else to the first one.
        if (!first || (first.isPermitted && !outcome.permitted)) first = { isPermitted: outcome.permitted, playOrder };
      }
      if (outcome.clause) row.append(make("span", "soft clause", outcome.clause));
      list.append(row);
    }
    box.append(list);
    if (said) {
      const found = new Set(block.outcomes.map(outcome => canonical(resultText(outcome.results))));
      const never = [...said.keys()].filter(key => !found.has(key));
      if (never.length) {
        box.append(make("p", "", block.complete ? "You named these, and no interleaving leads to them:" : "You named these; the interleavings that were tried do not lead to them:"));
        box.append(make("ul", "outcomes", null, ...never.map(key => make("li", "", null, make("code", "results", said.get(key)), make("span", block.complete ? "badge bad" : "badge", block.complete ? "✗ impossible" : "not seen")))));
      }
    }
    holder.append(box);
  }
  if (first) first.playOrder();
  return first !== null;
}
// An outcome of a race with its spaces, numbers and order of names made uniform, for comparison.
function canonical(text) {
  return text.split(",").map(part => part.trim().replace(/\s+/g, " ").replace(/\s*=\s*/, " = ").replace(/= (0x[0-9a-f]+|\d+)$/i, (_, n) => `= 0x${Number(n).toString(16)}`)).filter(Boolean).sort().join(", ");
}
