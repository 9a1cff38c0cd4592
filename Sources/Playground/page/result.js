// The answer of a run: the verdict in words, the reason of a failure, the races, and the steps in the player.
const VERDICTS = { passed: "Passed", failed: "Failed", skipped: "Skipped", cut: "Not decided" };
function showAnswer(answer, { predictions, summary } = {}) {
  const verdict = element("verdict"), failure = element("failure");
  const isRace = (answer.blocks || []).length > 0, isComplete = (answer.blocks || []).every(block => block.complete);
  const kind = answer.verdict === "passed" && !isComplete ? "cut" : answer.verdict;
  const words = {
    passed: isRace ? "all interleavings were tried, and every outcome is permitted." : "every step has an expected outcome.",
    failed: answer.failure && answer.failure.line ? `line ${answer.failure.line}.` : "an outcome differs from what the test expects.",
    skipped: answer.reason || "the model cannot judge this test.",
    cut: `${answer.reason || "not all interleavings were tried"}.${answer.stoppedBy ? ` ${answer.stoppedBy}` : ""} This is not a pass.`,
  };
  verdict.replaceChildren(summary ? make("span", "summary", `${summary} `) : "", make("b", { passed: "good", failed: "bad" }[kind] || "", VERDICTS[kind] || kind), ": ", words[kind] || answer.reason || "");
  verdict.dataset.verdict = kind;
  failure.replaceChildren();
  if (answer.failure && answer.failure.text && answer.failure.text.length) failure.append(make("pre", "failure", answer.failure.text.join("\n")));
  if (drawBlocks(answer, predictions)) return;
  const all = framesOfSteps(answer, Infinity), wrong = all.findIndex(frame => frame.isWrong || (frame.prediction && !frame.prediction.right));
  if (isRace && all.length === 1) { element("player").hidden = true; frames = []; }
  else if (answer.start) play(isRace ? "Steps before the race" : "Step by step", all, wrong > 0 ? wrong : Math.min(1, all.length - 1));
}
function clearAnswer(text) {
  session = null;
  hidesSight = false;
  frames = [];
  for (const id of ["failure", "blocks", "questions"]) element(id).replaceChildren();
  element("questions").hidden = true;
  element("player").hidden = true;
  element("time").textContent = "";
  delete element("verdict").dataset.verdict;
  element("verdict").replaceChildren(text);
  element("answer").classList.remove("stale");
}
