// Exercises: a form is made from a seed, filled in, and checked by the model. Nothing here knows a solution.
const formEditor = new Editor(element("formEditor"), lines => blanksOf(exercise.form, lines).classes), formArea = formEditor.area;
// The exercises, the form as it was written and its name, and the number of the last check.
const exercise = { list: [], seeds: 0, form: "", key: "", isChecking: false, check: 0, timer: 0 };
const ANSWERS_KEY = "minivmm-playground-answers", RESULTS_KEY = "minivmm-playground-exercises", MOST_KEPT = 60;
// What the browser keeps: the text of each answer, and for each problem the best points and the possible ones.
let answers = {}, results = {};

function loadKept() {
  const read = (key, isGood) => {
    try {
      const kept = JSON.parse(localStorage.getItem(key) || "{}");
      return Object.fromEntries(Object.entries(kept && typeof kept === "object" ? kept : {}).filter(([, value]) => isGood(value)));
    } catch { return {}; }
  };
  answers = read(ANSWERS_KEY, value => typeof value === "string" && !formTooLong(value));
  results = read(RESULTS_KEY, value => Array.isArray(value) && value.length === 2 && value.every(n => Number.isInteger(n) && n >= 0) && value[0] <= value[1]);
}
// Keeps the newest entries. A browser may refuse storage; they then last as long as the page.
function keep(key, entries, name, value) {
  delete entries[name];
  if (value !== undefined) entries[name] = value;
  for (const old of Object.keys(entries).slice(0, -MOST_KEPT)) delete entries[old];
  try { localStorage.setItem(key, JSON.stringify(entries)); } catch { /* kept in memory only */ }
}
function drawResults() {
  const all = Object.values(results), sum = index => all.reduce((n, result) => n + result[index], 0), reset = make("button", "link", "reset");
  reset.type = "button";
  reset.setAttribute("aria-label", "Reset the points of the exercises");
  reset.addEventListener("click", () => { results = {}; keep(RESULTS_KEY, results, ""); drawResults(); });
  element("points").hidden = !all.length;
  element("points").replaceChildren(`Your exercises: ${all.filter(result => result[0] === result[1]).length} of ${all.length} right, ${sum(0)} of ${sum(1)} points `, reset);
  for (const option of element("exerciseNumber").options) {
    const { number, title } = exercise.list[option.index], own = Object.entries(results).filter(([name]) => name.startsWith(`${number}/`));
    option.textContent = `${number}. ${title}${own.some(([, result]) => result[0] === result[1]) ? " ✓" : ""}`;
  }
}
// Shows the tests or the exercises.
function showPlace(name) {
  const isExercises = name === "exercises";
  element("columns").hidden = isExercises;
  element("exercises").hidden = !isExercises;
  for (const [id, isHere] of [["toTests", !isExercises], ["toExercises", isExercises]]) {
    if (isHere) element(id).setAttribute("aria-current", "page"); else element(id).removeAttribute("aria-current");
  }
  element("title").textContent = isExercises ? "Exercises on memory conversion" : "Litmus tests for memory conversion";
  if (isExercises) { if (exercise.form) drawForm(); } else showEditor();
}

function sayWho(text) { element("whoNote").textContent = text; }
function drawChooser() {
  const isSeed = element("exerciseBy").value === "seed", who = element("exerciseWho");
  who.placeholder = isSeed ? `0 to ${(exercise.seeds - 1).toLocaleString("en")}` : "none: a random problem";
  who.inputMode = isSeed ? "numeric" : "text";
  element("summary").textContent = (exercise.list[element("exerciseNumber").selectedIndex] || { summary: "" }).summary.replace(/^./, c => c.toUpperCase()) + ".";
}
// Asks for the form that the fields name.
async function getForm() {
  const who = element("exerciseWho").value.trim(), isSeed = element("exerciseBy").value === "seed";
  sayWho("");
  if (isSeed && !(/^\d{1,6}$/.test(who) && Number(who) < exercise.seeds)) { sayWho(`A seed is a number from 0 to ${(exercise.seeds - 1).toLocaleString("en")}.`); element("exerciseWho").focus(); return; }
  const seed = isSeed ? Number(who) : Math.floor(Math.random() * exercise.seeds);
  const failed = await openForm([["number", element("exerciseNumber").value], who && !isSeed ? ["student", who] : ["seed", seed]]);
  if (failed) sayWho(failed);
}
// Gets a form and opens it, with `text` or the answer that was kept. Resolves to a text of why not, or "".
async function openForm(pairs, text) {
  const reply = await model.ask(requestText("exercise", pairs, ""));
  if (reply.stopped || reply.answer.error) return (reply.stopped || reply.answer.error).replace(/^./, c => c.toUpperCase()).replace(/\.?$/, ".");
  if (exercise.timer) keepAnswer();
  const { form, number, seed, title } = reply.answer, { student } = headerOf(text || form);
  exercise.form = form;
  exercise.key = `${number}/${seed}/${student}`;
  element("exerciseNumber").value = number;
  drawChooser();
  element("exerciseTitle").textContent = `Exercise ${number}: ${title}`;
  const kept = text === undefined && answers[exercise.key] !== form ? answers[exercise.key] : undefined;
  element("task").replaceChildren(...taskOf(form).map(drawParagraph));
  element("formBox").hidden = false;
  setForm(text || kept || form);
  element("saved").replaceChildren(kept ? "This is your answer of before, which this browser has kept." : "");
  return "";
}
// A paragraph with code between backquotes, or a table.
function drawParagraph(lines) {
  const coded = text => text.split("`").map((part, n) => n % 2 ? make("code", "", part) : part);
  if (!isRow(lines[0])) return make("p", "", null, ...coded(lines.join(" ")));
  const list = make("ul");
  for (const line of lines) { const at = line.indexOf(" "); list.append(make("li", "", null, make("code", "", line.slice(0, at)), ": ", ...coded(line.slice(at).trim()))); }
  return list;
}
function setForm(text) {
  exercise.check++;
  element("again").hidden = element("copyExercise").hidden = !exercise.form;
  formEditor.set(text);
  clearAssessment("Fill in the form and press Check. Nothing is revealed before.");
  drawForm();
  // Behind the task, which stands above the editor.
  const lines = text.split("\n"), header = lines.findIndex(line => /^student\b/.test(line)), first = lines.findIndex((line, n) => n > header && line.trim() && !line.startsWith("#"));
  if (header >= 0) formEditor.show(Math.max(1, first + 3));
}
function drawForm() {
  formEditor.draw();
  const { empty } = blanksOf(exercise.form, formArea.value.split("\n")), row = element("blanks"), isNew = formArea.value === exercise.form;
  row.replaceChildren();
  if (!empty.length) { row.append(exercise.form ? isNew ? "Change the steps between begin answer and end answer." : "No blank is empty." : ""); return; }
  const go = make("button", "", "Next blank");
  go.type = "button";
  go.addEventListener("click", nextBlank);
  row.append(go, empty.length === 1 ? "1 blank is empty." : `${empty.length} blanks are empty.`);
}
function nextBlank() {
  const { empty } = blanksOf(exercise.form, formArea.value.split("\n"));
  if (!empty.length) return;
  const here = lineCount(formArea.value.slice(0, formArea.selectionEnd)), isAt = document.activeElement === formArea || formArea.selectionEnd < formArea.value.length;
  const found = (isAt && empty.find(place => place.line > here)) || empty[0];
  formEditor.goTo(found.line, found.column, found.length);
}
function formChanged() {
  if (formEditor.problem || formEditor.message.hasChildNodes()) formEditor.showProblem(null);
  element("saved").textContent = "";
  if (element("mark").dataset.verdict) element("exerciseAnswer").classList.add("stale");
  clearTimeout(exercise.timer);
  exercise.timer = setTimeout(keepAnswer, 250);
  drawForm();
}
// Keeps the text under the name of its form; before another form is opened, too.
function keepAnswer() {
  clearTimeout(exercise.timer);
  exercise.timer = 0;
  if (exercise.key && !formTooLong(formArea.value)) keep(ANSWERS_KEY, answers, exercise.key, formArea.value === exercise.form ? undefined : formArea.value);
}
function startOver() {
  const before = formArea.value, undo = make("button", "link", "Undo");
  setForm(exercise.form);
  formChanged();
  if (before === exercise.form) return;
  undo.type = "button";
  undo.addEventListener("click", () => { setForm(before); formChanged(); });
  element("saved").replaceChildren("The form is as it was written. ", undo);
}

function clearAssessment(text) {
  const verdict = element("mark");
  delete verdict.dataset.verdict;
  verdict.replaceChildren(text);
  element("evidence").replaceChildren();
  element("checkTime").textContent = "";
  element("exerciseAnswer").classList.remove("stale");
}
async function checkAnswer() {
  if (exercise.isChecking) return;
  const text = formArea.value, long = formTooLong(text), mine = ++exercise.check;
  formEditor.showProblem(null);
  if (long) { clearAssessment(""); showNoAnswer({ message: long }); return; }
  clearAssessment("The model checks the answer …");
  const start = performance.now(), seconds = () => ((performance.now() - start) / 1000).toFixed(1);
  const ticker = setInterval(() => { element("checkTime").textContent = `checking for ${seconds()} s, limit ${TIME_LIMIT} s`; }, 200);
  const busy = isBusy => { exercise.isChecking = isBusy; element("stopCheck").hidden = !isBusy; element("check").disabled = isBusy; };
  busy(true);
  const reply = told(await model.ask(requestText("assess", [], text)));
  clearInterval(ticker);
  busy(false);
  if (mine !== exercise.check) return;
  clearAssessment("");
  element("checkTime").textContent = `${seconds()} s`;
  if (reply.stopped || reply.error) { showNoAnswer({ message: `${reply.stopped || reply.error} Nothing is decided.` }, "Undecided"); return; }
  if (reply.problem) showNoAnswer(placeIn(text, reply.problem));
  else showAssessment(reply, text);
  if (text !== formArea.value) element("exerciseAnswer").classList.add("stale");
  if (element("exerciseAnswer").getBoundingClientRect().top > innerHeight * 0.6) element("exerciseAnswer").scrollIntoView({ block: "start" });
}
// A problem of a line, with the place of the answer in it.
const placeIn = (text, problem) => ({ ...problem, column: answerColumn(text.split("\n")[problem.line - 1] || ""), isToEnd: true });
// A text that is no answer, or a check without a result.
function showNoAnswer(problem, word = "Not checked") {
  const verdict = element("mark");
  verdict.dataset.verdict = "none";
  verdict.replaceChildren(make("b", "", word), ": ", ...(problem.line ? [formEditor.link(problem), ": "] : []), problem.message);
  if (problem.line) { formEditor.showProblem(problem); formEditor.reveal(problem.line); }
}
const ASSESSMENTS = { right: ["good", "Right"], wrong: ["bad", "Wrong"], "no attempt": ["", "No answer yet"], incomplete: ["", "No answer yet"], undecided: ["", "Undecided"] };
function showAssessment({ verdict, points, possible, line, text: [said, ...run] }, text) {
  const [look, word] = ASSESSMENTS[verdict] || ["", verdict], mark = element("mark"), { number, seed } = headerOf(text);
  const reason = said.slice(said.indexOf(": ") + 2).replace(/^line \d+: /, ""), place = line && placeIn(text, { line });
  mark.dataset.verdict = verdict;
  mark.replaceChildren(make("b", look, `${look === "good" ? "✓ " : look === "bad" ? "✗ " : ""}${word}`), ": ", ...(place ? [formEditor.link(place), ": "] : []), reason,
    verdict === "undecided" ? " This is not a pass." : "", look && possible > 1 ? make("span", "soft", ` ${points} of ${possible} points.`) : "");
  if (place) { formEditor.showProblem({ ...place, message: reason }); formEditor.reveal(line); }
  element("evidence").replaceChildren(...drawRun(run));
  if (!look) return;
  const name = `${number}/${seed}`, old = results[name] || [0, possible];
  keep(RESULTS_KEY, results, name, [Math.max(points, old[0]), possible]);
  drawResults();
}
// The run: headings, and lines that keep their columns where there is room. Between columns they may be broken.
function drawRun(lines) {
  const parts = [];
  let block = null;
  for (const line of lines) {
    if (!line) { block = null; continue; }
    if (/^\S.*:$/.test(line)) { parts.push(make("h3", "", line.slice(0, -1))); block = null; continue; }
    if (!block) { block = make("pre", "run"); block.tabIndex = 0; parts.push(block); }
    const isMarked = /\s(you|expected): /.test(line);
    block.append(make("span", isMarked ? "line differs" : "line", null, ...line.split(/(\s{2,})/).map(part => part.trim() ? make("span", "cell", part) : part), "\n"));
  }
  return parts;
}

// The file that minivmm exercise --grade reads.
function saveAnswer() {
  const { number, seed, student } = headerOf(formArea.value), name = `exercise-${number || "n"}-${student || seed}`.toLowerCase().replace(/[^\p{L}\p{N}-]+/gu, "-").replace(/-+$/, "") + ".txt";
  const link = make("a"), address = URL.createObjectURL(new Blob([formArea.value], { type: "text/plain" }));
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
  element("saved").textContent = `Saved as ${name}.${student ? "" : " The line “student” has no name yet: write yours there before you hand the file in."}`;
}
async function takeFile(file) {
  if (!file) return;
  const refuse = text => { sayWho(`${file.name.slice(0, 80)} was not opened: ${text}`); };
  sayWho("");
  if (file.size > FORM_BYTES) { refuse(`it has ${file.size.toLocaleString("en")} bytes, and an answer has at most ${FORM_BYTES.toLocaleString("en")}.`); return; }
  let text;
  try { text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer()).replace(/\r\n?/g, "\n"); } catch { refuse("it is not a text in UTF-8."); return; }
  await takeAnswer(text);
}
// Opens a text that somebody has filled in. One without a header is checked at once, which names what is wrong.
async function takeAnswer(text) {
  const { number, seed } = headerOf(text), isKnown = exercise.list.some(one => String(one.number) === number) && /^\d{1,6}$/.test(seed);
  if (isKnown && !formTooLong(text) && !await openForm([["number", number], ["seed", Number(seed)]], text)) { formChanged(); return; }
  if (exercise.timer) keepAnswer();
  Object.assign(exercise, { form: "", key: "" });
  element("exerciseTitle").textContent = "Exercise";
  element("task").replaceChildren();
  element("formBox").hidden = false;
  setForm(text);
  await checkAnswer();
}

// A link to an exercise: #e1, #e1.NUMBER or #e1.NUMBER.SEED. The 1 is the format.
const isExerciseLink = hash => /^#e\d/.test(hash);
async function takeExerciseLink(hash) {
  const shown = `The link ${hash.slice(0, 40)}${hash.length > 40 ? "…" : ""}`, parts = /^#e(\d+)(?:\.(\d{1,9})(?:\.(\d{1,9}))?)?$/.exec(hash);
  showPlace("exercises");
  if (!parts) { note(`${shown} was not read: a link to an exercise is #e1.NUMBER.SEED. Was it cut?`); return; }
  const [, format, number, seed] = parts;
  if (format !== "1") { note(`${shown} was not read: it has format ${format.slice(0, 9)}, and this page knows format 1. Use a newer playground.`); return; }
  if (number === undefined) { element("notes").replaceChildren(); return; }
  if (!exercise.list.some(one => one.number === Number(number))) { note(`${shown} was not read: there is no exercise ${number}; this page has 1 to ${exercise.list.length}.`); return; }
  if (seed !== undefined && Number(seed) >= exercise.seeds) { note(`${shown} was not read: ${seed} is not a seed; seeds are 0 to ${(exercise.seeds - 1).toLocaleString("en")}.`); return; }
  element("notes").replaceChildren();
  element("exerciseNumber").value = Number(number);
  drawChooser();
  if (seed === undefined) { element("exerciseWho").focus({ preventScroll: true }); return; }
  element("exerciseBy").value = "seed";
  element("exerciseWho").value = Number(seed);
  drawChooser();
  await getForm();
}
async function copyExerciseLink() {
  const { number, seed } = headerOf(exercise.form), said = element("saved");
  history.replaceState(null, "", `#e1.${number}.${seed}`);
  const what = "It has the exercise and the seed, not your answer.";
  try {
    await navigator.clipboard.writeText(location.href);
    said.textContent = `The link is copied. ${what}`;
  } catch {
    said.textContent = `The link is in the address bar; copy it from there. ${what}`;
  }
}
async function beginExercises() {
  const reply = await model.ask(requestText("exercises", [], ""));
  if (reply.stopped || reply.answer.error) throw new Error(reply.stopped || reply.answer.error);
  exercise.list = reply.answer.exercises;
  exercise.seeds = reply.answer.seeds;
  element("exerciseNumber").replaceChildren(...exercise.list.map(one => new Option(`${one.number}. ${one.title}`, one.number)));
  loadKept();
  drawResults();
  drawChooser();
  const on = (id, event, action) => element(id).addEventListener(event, action);
  for (const [id, name] of [["toTests", "tests"], ["toExercises", "exercises"]]) on(id, "click", () => { element("notes").replaceChildren(); showPlace(name); });
  on("chooser", "submit", event => { event.preventDefault(); getForm(); });
  for (const id of ["exerciseNumber", "exerciseBy"]) on(id, "change", drawChooser);
  on("form", "input", formChanged);
  addEventListener("pagehide", () => { if (exercise.timer) keepAnswer(); });
  on("check", "click", checkAnswer);
  on("stopCheck", "click", () => model.stop("The check was stopped."));
  on("save", "click", saveAnswer);
  on("again", "click", startOver);
  on("copyExercise", "click", copyExerciseLink);
  on("openFile", "click", () => element("file").click());
  on("file", "change", async () => { await takeFile(element("file").files[0]); element("file").value = ""; });
}
