// Predict first: the reader says what every actor will see before the answer is shown. Score is kept in this browser.
const score = { right: 0, asked: 0 };
const SCORE_KEY = "minivmm-playground-score";
function loadScore() {
  // A browser may refuse storage, above all for a file. The score then lasts as long as the page.
  try {
    const kept = JSON.parse(localStorage.getItem(SCORE_KEY) || "{}");
    if (Number.isInteger(kept.right) && Number.isInteger(kept.asked) && kept.right >= 0 && kept.asked >= kept.right) Object.assign(score, kept);
  } catch { /* kept in memory only */ }
  drawScore();
}
function addScore(right, asked) {
  score.right += right; score.asked += asked;
  try { localStorage.setItem(SCORE_KEY, JSON.stringify(score)); } catch { /* kept in memory only */ }
  drawScore();
}
function drawScore() {
  const place = element("score"), reset = make("button", "link", "reset");
  reset.type = "button";
  reset.setAttribute("aria-label", "Reset the score");
  reset.addEventListener("click", () => { addScore(-score.right, -score.asked); });
  place.hidden = !score.asked;
  place.replaceChildren(`Your predictions: ${score.right} of ${score.asked} right `, reset);
}

// The text without what would give the answer away: comments, title, hazard, expectations and clauses.
function maskedText(text, isInBlockOf) {
  const rows = [];
  text.split("\n").forEach((line, index) => {
    const code = (/^((?:[^"#]|"[^"]*"?)*)/.exec(line) || ["", line])[1].trimEnd();
    if (/^\s*(test|hazard|allowed|required|forbidden|preempted)\b/.test(code)) return;
    if (!code.trim() && line.trim()) return;
    const arrow = code.indexOf("=>"), isRace = isInBlockOf(index + 1);
    rows.push([index + 1, arrow < 0 || isRace ? code : code.slice(0, arrow).trimEnd()]);
  });
  while (rows.length && !rows[0][1].trim()) rows.shift();
  while (rows.length && !rows[rows.length - 1][1].trim()) rows.pop();
  return rows.filter((row, n) => row[1].trim() || (rows[n - 1] && rows[n - 1][1].trim()));
}
function drawMasked(test) {
  const ends = textArea.value.split("\n");
  const isInBlockOf = line => {
    let inside = false;
    for (let n = 0; n < line; n++) { if (/^\s*parallel\b/.test(ends[n])) inside = true; if (/^\s*end\b/.test(ends[n])) inside = false; }
    return inside;
  };
  element("maskedText").replaceChildren(...maskedText(textArea.value, isInBlockOf).map(([line, code]) => {
    const row = make("span", "line", null, make("span", "number", String(line).padStart(4) + "  "), code);
    row.dataset.line = line;
    return row;
  }));
}

// Outcomes to choose from: those that the language has for the kind of step. Nothing here knows the answer.
function choicesOf(step, text, isRace) {
  const verb = wordsOf(step).split(" ")[0], isGuest = /^vcpu/.test(step.actor);
  const range = /(?:^|[\s:])(\d+)(?:\.\.(\d+))?(?=\s|$)/.exec(step.text.replace(/every \d+ of/, "")), from = range ? Number(range[1]) : 0;
  const to = range && range[2] ? Number(range[2]) : from, isConfidential = /^\s*vm\s+(snp|tdx)/m.test(text);
  const bytes = new Set(["0x0"]);
  for (const found of text.matchAll(/\b(?:write|fill)\s.*?\s(0x[0-9a-f]+|\d+)\s*(?:=>|#|$)/gim)) bytes.add("0x" + Number(found[1]).toString(16));
  const pages = [];
  for (let page = from; page <= to && pages.length < (isRace ? 2 : 4); page++) pages.push(page);
  const refusals = isGuest ? [...pages.slice(0, 2).flatMap(p => [`fault private at ${p}`, `fault shared at ${p}`]), "mmio", ...(isConfidential ? ["garbage", "VC", "VE"] : [])] : ["SIGBUS"];
  const chosen = {
    read: [...[...bytes].slice(0, 5), ...(isRace && isGuest ? [] : refusals)], peek: [...[...bytes].slice(0, 5), "SIGBUS"],
    check: ["ok", `differs at @0x${(from * 4096).toString(16)}`, ...refusals], write: ["ok", ...refusals], fill: ["ok", ...refusals],
    convert: ["ok", ...pages.map(p => `EAGAIN at ${p}`), ...(isRace ? [] : ["EINVAL", "EOPNOTSUPP", "ENOMEM"])],
    hypercall: ["ok", ...pages.map(p => `EAGAIN at ${p}`), ...(isRace ? [] : ["EINVAL", `REFUSED at ${from}`, `RETRY at ${from}`])],
    pvalidate: ["ok", "UNCHANGED", "INVALID", "SIZE_MISMATCH", ...refusals.slice(0, 2)], accept: ["ok", "UNCHANGED", "INVALID", "SIZE_MISMATCH", ...refusals.slice(0, 2)],
    hold: ["ok", "EFAULT", "EAGAIN"], madvise: ["ok", "EINVAL", "EFAULT", "EBUSY", "ENOMEM"], prefault: ["ok", "EFAULT", "EAGAIN", "ENOENT"],
    remove: ["ok", "NOT_BLOCKED", "NOT_TRACKED", "WRONG_STATE"], block: ["ok", "NOT_BLOCKED", "WRONG_STATE"], track: ["ok", "WRONG_STATE"],
  }[verb] || ["ok", "EINVAL", "EBADF", "EFAULT", "EBUSY", "EOPNOTSUPP"];
  return [...new Set(chosen)];
}

// One prediction session. `ask` runs the model with the predictions so far.
let session = null;
function beginPrediction(test, answer) {
  const outside = test.steps.filter(step => step.block === null || step.block === undefined);
  const told = outside.filter(step => step.expectation);
  session = { test, answer, at: 0, predictions: [], right: 0, asked: 0, feedback: null,
    questions: test.blocks.length ? [] : told.length ? told : outside, blocks: test.blocks.map(() => null) };
  element("verdict").textContent = "";
  element("questions").hidden = false;
  if (test.blocks.length) askRace(0); else askStep();
}
function framesOfSteps(answer, upTo) {
  const shown = (answer.steps || []).filter(step => step.line < upTo);
  return [{ label: "Before the first step", state: answer.start }, ...shown.map(step => ({ ...frameOf(step), expectation: step.expectation || "succeeds" }))];
}
function endButtons(form) {
  const all = make("button", "", "Show all answers");
  all.type = "button";
  all.addEventListener("click", endPrediction);
  return all;
}
// Marks the line in question in the masked text.
function markLine(line) {
  for (const row of element("maskedText").children) row.classList.toggle("asked", Number(row.dataset.line) === line);
}
function askStep() {
  const { questions, at, answer } = session;
  if (at >= questions.length) { endPrediction(); return; }
  const step = questions[at], form = make("form", "question"), holder = element("questions");
  holder.replaceChildren();
  if (session.feedback) holder.append(session.feedback);
  hidesSight = true;
  const before = framesOfSteps(answer, step.line).map(frame => ({ ...frame, expectation: "", isWrong: false }));
  play("The pages before this step", before, before.length - 1);
  markLine(step.line);
  const shown = `${step.actor} ${wordsOf(step)}`;
  form.append(make("p", "soft", `Question ${at + 1} of ${questions.length}, line ${step.line}`), make("p", "step", null, make("code", "", shown)));
  const group = make("fieldset", "", null, make("legend", "", `What is the outcome for ${step.actor}?`));
  for (const [n, choice] of choicesOf(step, textArea.value, false).entries()) {
    const radio = make("input"); radio.type = "radio"; radio.name = "outcome"; radio.value = choice; radio.id = `choice${n}`;
    const labelled = make("label", "choice", null, radio, make("code", "", choice));
    group.append(labelled);
  }
  const other = make("input"); other.type = "text"; other.placeholder = "another outcome"; other.setAttribute("aria-label", "Another outcome, in the words of the language, such as EAGAIN at 2");
  other.autocapitalize = "off"; other.spellcheck = false; other.maxLength = 60; other.autocomplete = "off";
  other.addEventListener("input", () => { for (const radio of form.querySelectorAll("input[type=radio]")) radio.checked = false; });
  const note = make("p", "bad"), send = make("button", "main", "Answer"), row = make("div", "actions", null, send, endButtons());
  note.setAttribute("role", "status");
  group.append(other);
  form.append(group, note, row);
  form.addEventListener("submit", async event => {
    event.preventDefault();
    const picked = form.querySelector("input[type=radio]:checked"), said = (other.value.trim() || (picked ? picked.value : "")).trim();
    if (!said) { note.textContent = "Choose an outcome, or type one."; return; }
    send.disabled = true;
    const mine = session, pairs = [...session.predictions, ["predict", `${step.line} ${said}`]], reply = await ask("run", pairs);
    if (session !== mine) return;
    send.disabled = false;
    if (reply.stopped || reply.error || reply.problem) { note.textContent = reply.stopped || reply.error || reply.problem.message; return; }
    const seen = (reply.steps || []).find(other => other.line === step.line);
    if (!seen || !seen.prediction) { note.textContent = "The run ended before this step."; endPrediction(); return; }
    if (seen.prediction.problem) { note.textContent = `"${said}" is not an outcome of the language: ${seen.prediction.problem}`; return; }
    session.predictions = pairs; session.answer = reply; session.asked++; session.right += seen.prediction.right ? 1 : 0; session.at++;
    addScore(seen.prediction.right ? 1 : 0, 1);
    session.feedback = make("p", seen.prediction.right ? "feedback good" : "feedback bad", null, make("b", "", seen.prediction.right ? "✓ Right: " : "✗ Wrong: "),
      seen.prediction.right ? "" : `you said ${said}; `, make("code", "", shown), " → ", make("code", "", seen.outcome));
    session.feedback.setAttribute("role", "status");
    askStep();
  });
  holder.append(form);
  const firstChoice = form.querySelector("input");
  if (at > 0) firstChoice.focus({ preventScroll: true });
}
function askRace(index) {
  const block = session.test.blocks[index], holder = element("questions");
  if (!block) { endPrediction(); return; }
  element("player").hidden = true;
  holder.replaceChildren();
  const steps = session.test.steps.filter(step => step.block === index);
  const stepOf = name => steps.find(step => step.expectation === name || new RegExp(`=>\\s*${name}\\s*$`).test(step.step || "")) || steps[0];
  const choices = block.results.map(name => choicesOf(stepOf(name), textArea.value, true));
  const count = choices.reduce((n, list) => n * list.length, 1), said = new Map(), form = make("form", "question");
  form.append(make("p", "soft", session.test.blocks.length > 1 ? `Race ${index + 1} of ${session.test.blocks.length}, line ${block.line}` : `Race in line ${block.line}`));
  const group = make("fieldset", "races", null, make("legend", "", "Which outcomes can occur in some interleaving?")), list = make("div", "choices");
  const addChoice = (text, isChecked) => {
    const key = canonical(text), old = [...list.querySelectorAll("input")].find(box => box.dataset.key === key);
    if (old) { old.checked = old.checked || isChecked; if (isChecked) said.set(key, text); return; }
    const box = make("input"); box.type = "checkbox"; box.dataset.key = key; box.checked = isChecked;
    if (isChecked) said.set(key, text);
    box.addEventListener("change", () => { if (box.checked) said.set(key, text); else said.delete(key); });
    list.append(make("label", "choice", null, box, make("code", "", text)));
  };
  if (count <= 24) {
    let combined = [[]];
    for (const options of choices) combined = combined.flatMap(head => options.map(option => [...head, option]));
    for (const outcomes of combined) addChoice(outcomes.map((outcome, n) => `${block.results[n]} = ${outcome}`).join(", "), false);
  }
  group.append(list);
  const fields = block.results.map((name, n) => {
    const field = make("input"); field.type = "text"; field.setAttribute("list", `outcomes${n}`); field.setAttribute("aria-label", `Outcome of ${name}`);
    field.autocapitalize = "off"; field.spellcheck = false; field.maxLength = 60; field.autocomplete = "off"; field.placeholder = choices[n][0];
    const data = make("datalist"); data.id = `outcomes${n}`; data.append(...choices[n].map(choice => new Option(choice)));
    return make("label", "field", null, make("code", "", `${name} = `), field, data);
  });
  const add = make("button", "", "Add this outcome"); add.type = "button";
  const note = make("p", "bad"); note.setAttribute("role", "status");
  add.addEventListener("click", () => {
    const values = fields.map(field => field.querySelector("input").value.trim());
    const missing = values.findIndex(value => !value || value.includes(","));
    if (missing >= 0) { note.textContent = `Say an outcome of ${block.results[missing]}, such as ${choices[missing][0]}.`; return; }
    note.textContent = "";
    addChoice(values.map((value, n) => `${block.results[n]} = ${value}`).join(", "), true);
  });
  const more = make("div", "compose", null, make("span", "soft", count <= 24 ? "Another one:" : "Put them together:"), ...fields, add), send = make("button", "main", "Answer");
  form.append(group, more, note, make("div", "actions", null, send, endButtons()));
  form.addEventListener("submit", event => {
    event.preventDefault();
    if (!said.size) { note.textContent = "Choose at least one outcome: every race has one."; return; }
    session.blocks[index] = said;
    const seen = (session.answer.blocks || [])[index];
    if (seen) {
      const found = new Set(seen.outcomes.map(outcome => canonical(resultText(outcome.results))));
      const right = [...found].filter(key => said.has(key)).length, wrong = seen.complete ? [...said.keys()].filter(key => !found.has(key)).length : 0;
      session.right += right; session.asked += found.size + wrong;
      addScore(right, found.size + wrong);
    }
    askRace(index + 1);
  });
  holder.append(form);
}
function endPrediction() {
  const done = session;
  session = null;
  hidesSight = false;
  element("questions").hidden = !done.feedback || !done.asked;
  element("questions").replaceChildren(...(done.feedback ? [done.feedback] : []));
  const total = done.test.blocks.length ? "" : ` of ${done.questions.length} questions`;
  reveal();
  showAnswer(done.answer, { predictions: done.blocks, summary: done.asked ? `You were right in ${done.right} of ${done.asked}${done.asked < done.questions.length ? `; ${done.questions.length - done.asked}${total} were not answered` : ""}.` : "" });
}
