// Puts the parts together: events, the link, the first test.
let isRevealed = false, checkTimer = 0, ticker = 0, checkNumber = 0;
const FIRST_TEST = "all-or-nothing";

function note(text) {
  const row = make("p", "note", text + " "), close = make("button", "link", "Close");
  close.type = "button";
  close.addEventListener("click", () => row.remove());
  row.append(close);
  element("notes").replaceChildren(row);
}
// The limits of atomic pieces of a run, one after the other: the first answers come at once, and a run that is stopped at the
// time limit still has what an earlier one found.
const PIECES = [20000, 160000, 1000000];
const told = reply => reply.stopped === undefined ? reply.answer : reply;
// Asks the model about the text in the editor. Resolves to its answer, or {stopped}.
async function ask(command, pairs = []) {
  const long = tooLong(textArea.value);
  if (long) return { stopped: long };
  const request = more => requestText(command, [...optionPairs(), ...pairs, ...more], textArea.value);
  if (command !== "run") return told(await model.ask(request([])));
  const start = performance.now(), seconds = () => (performance.now() - start) / 1000;
  let tried = 0, partial = null;
  clearInterval(ticker);
  ticker = setInterval(() => { element("time").textContent = `running for ${seconds().toFixed(1)} s, limit ${TIME_LIMIT} s${tried ? `; ${tried.toLocaleString("en")} pieces tried` : ""}`; }, 100);
  element("stop").hidden = false;
  element("run").disabled = true;
  try {
    for (const pieces of PIECES) {
      const reply = await model.ask(request([["pieces", pieces]]), TIME_LIMIT - seconds());
      if (reply.stopped !== undefined) return partial ? { ...partial, stopped: undefined, stoppedBy: reply.stopped } : reply;
      partial = reply.answer;
      if ((partial.blocks || []).every(block => block.complete)) return partial;
      tried = pieces;
    }
    return partial;
  } finally {
    clearInterval(ticker);
    element("stop").hidden = true;
    element("run").disabled = false;
    const spent = seconds() * 1000;
    element("time").textContent = spent < 1 ? "under 1 ms" : `${Math.round(spent).toLocaleString("en")} ms`;
  }
}
function showFailureToAsk(reply) {
  clearAnswer(reply.stopped || reply.error);
  element("verdict").dataset.verdict = "none";
}
async function run() {
  const wantsPrediction = element("predict").checked;
  clearAnswer("");
  element("copied").textContent = "";
  clearTimeout(checkTimer);
  if (wantsPrediction) {
    const checked = await ask("check");
    if (checked.stopped || checked.error) { reveal(); showFailureToAsk(checked); return; }
    if (checked.problem) { reveal(); showProblem(checked.problem); clearAnswer("The test cannot be read. The error is marked in the editor."); return; }
    isRevealed = false;
    drawMasked(checked.test);
    showEditor();
    const reply = await ask("run");
    if (reply.stopped || reply.error) { showFailureToAsk(reply); return; }
    if (reply.verdict === "skipped") { reveal(); showAnswer(reply); return; }
    beginPrediction(checked.test, reply);
    bringAnswerIntoView();
    return;
  }
  const reply = await ask("run");
  if (reply.stopped || reply.error) { showFailureToAsk(reply); return; }
  showProblem(reply.problem);
  if (reply.problem) { clearAnswer("The test cannot be read. The error is marked in the editor."); return; }
  showAnswer(reply);
  bringAnswerIntoView();
}
// On a phone the answer lies below the editor.
function bringAnswerIntoView() {
  if (element("answer").getBoundingClientRect().top < innerHeight * 0.6) return;
  element("answer").scrollIntoView({ block: "start", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}
// The editor, or the text without its expectations.
function showEditor() {
  const isMasked = element("predict").checked && !isRevealed;
  element("editor").hidden = isMasked;
  element("masked").hidden = !isMasked;
  element("run").textContent = element("predict").checked ? "Predict" : "Run";
  if (!isMasked) drawEditor();
}
function reveal() { isRevealed = true; showEditor(); }
async function check() {
  const mine = ++checkNumber, long = tooLong(textArea.value);
  if (long) { showProblem({ message: long }); return; }
  const reply = await ask("check");
  if (mine !== checkNumber) return;
  if (reply.stopped || reply.error) { showProblem({ message: reply.stopped || reply.error }); return; }
  showProblem(reply.problem);
  if (reply.problem) reveal();
  else if (element("predict").checked && !isRevealed) drawMasked(reply.test);
}
function changed() {
  element("copied").textContent = "";
  if (element("verdict").dataset.verdict) element("answer").classList.add("stale");
}
function optionsChanged() { drawOptions(); changed(); if (session) clearAnswer("Press Predict to begin again with these options."); check(); }
function setText(text) {
  editor.set(text);
  isRevealed = false;
  checkNumber++;
  clearAnswer(element("predict").checked ? "Press Predict: you say what happens, then the model answers." : "Press Run to step through the test.");
  if (element("predict").checked) element("maskedText").replaceChildren();
  showEditor();
  return check();
}
function choose(test) {
  openLibrary(false);
  element("openLibrary").focus();
  element("testTitle").textContent = test.name;
  history.replaceState(null, "", location.pathname + location.search);
  setText(test.text);
}
async function copyLink() {
  const long = tooLong(textArea.value), said = element("copied");
  if (long) { said.textContent = long; return; }
  const hash = await linkOf({ t: textArea.value, p: element("predict").checked ? 1 : 0, o: usedOptions() });
  if (hash.length > LINK_LIMIT) { said.textContent = `The link would have ${hash.length.toLocaleString("en")} characters; at most ${LINK_LIMIT.toLocaleString("en")} are read. Send the test as a file.`; return; }
  history.replaceState(null, "", hash);
  const warning = hash.length > 2000 ? ` It has ${hash.length.toLocaleString("en")} characters; some programs cut links of more than 2,000.` : "";
  const asks = element("predict").checked ? " It asks for predictions first." : "";
  try {
    await navigator.clipboard.writeText(location.href);
    said.textContent = `The link is copied.${asks}${warning}`;
  } catch {
    said.textContent = `The link is in the address bar; copy it from there.${asks}${warning}`;
  }
}
async function takeLink() {
  if (location.hash.length < 2) return false;
  if (isExerciseLink(location.hash)) { await takeExerciseLink(location.hash); return false; }
  const content = await readLink(location.hash);
  if (content.problem) { note(content.problem); return false; }
  element("notes").replaceChildren();
  element("predict").checked = content.predict;
  const unknown = takeOptions(content.options);
  if (unknown.length) note(`This link asks for options that this page does not have: ${unknown.join(", ").slice(0, 300)}. They were left out.`);
  if (Object.keys(usedOptions()).length) element("options").open = true;
  showPlace("tests");
  element("testTitle").textContent = "Test of the link";
  await setText(content.text);
  return true;
}
function setTheme(name) {
  document.documentElement.dataset.theme = name;
  element("theme").textContent = name === "dark" ? "Light" : "Dark";
}
function listen() {
  const on = (id, event, action) => element(id).addEventListener(event, action);
  on("run", "click", run);
  on("stop", "click", () => model.stop("The run was stopped."));
  on("copy", "click", copyLink);
  on("openLibrary", "click", () => openLibrary(element("library").hidden));
  on("search", "input", drawLibrary);
  on("library", "keydown", event => { if (event.key === "Escape") { openLibrary(false); element("openLibrary").focus(); } });
  on("text", "input", () => { changed(); if (!element("testTitle").textContent.endsWith("changed")) element("testTitle").append(", changed"); drawEditor(); clearTimeout(checkTimer); checkTimer = setTimeout(check, 250); });
  on("predict", "change", () => { isRevealed = false; setText(textArea.value); if (!element("library").hidden) drawLibrary(); });
  on("theme", "click", () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  on("first", "click", () => showFrame(0));
  on("back", "click", () => showFrame(frameAt - 1));
  on("next", "click", () => showFrame(frameAt + 1));
  on("last", "click", () => showFrame(frames.length - 1));
  on("step", "input", () => showFrame(Number(element("step").value)));
  on("answer", "keydown", playerKey);
  addEventListener("keydown", event => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !element("run").disabled) { event.preventDefault(); if (element("exercises").hidden) run(); else if (!element("formBox").hidden) checkAnswer(); } });
  addEventListener("hashchange", takeLink);
  let resizing = 0;
  addEventListener("resize", () => { cancelAnimationFrame(resizing); resizing = requestAnimationFrame(() => { if (frames.length) drawHistory(); }); });
}
async function begin() {
  setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  loadScore();
  listen();
  element("run").disabled = true;
  element("theme").hidden = element("answered").hidden = false;
  element("answered").textContent = "Loading the model …";
  try {
    await model.load();
    const reply = await model.ask(requestText("facts", [], ""));
    if (reply.stopped || reply.answer.error) throw new Error(reply.stopped || reply.answer.error);
    facts = reply.answer;
    fillOptions();
    drawOptions();
    await loadLibrary();
    await beginExercises();
  } catch (error) {
    element("answered").textContent = "The model does not run in this browser.";
    note(error.message);
    document.documentElement.dataset.ready = "failed";
    return;
  }
  element("answered").textContent = `Answers come from the model of MiniVMM ${VERSION}, in this browser; no kernel ran.`;
  element("run").disabled = false;
  element("columns").hidden = element("places").hidden = element("foot").hidden = false;
  if (!await takeLink()) {
    const first = library.find(test => test.name === FIRST_TEST) || library[0];
    element("testTitle").textContent = first.name;
    await setText(first.text);
  }
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
}
begin();
