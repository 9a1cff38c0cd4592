// The tests of litmus/ to choose from.
let library = [];
async function loadLibrary() {
  const text = new TextDecoder().decode(await embedded("tests64"));
  library = text.split("\u001e").slice(1).map(part => {
    const at = part.indexOf("\n"), body = part.slice(at + 1);
    const title = /^test\s+"([^"]*)"/m.exec(body), hazard = /^hazard\s+([^#\n]*)/m.exec(body);
    const name = part.slice(0, at).replace(/\.litmus$/, "");
    return { name, text: body, title: title ? title[1] : name, hazard: hazard ? hazard[1].trim() : "", isRace: /^parallel\b/m.test(body) };
  });
}
const SHOWN_TESTS = 60;
function drawLibrary() {
  const words = element("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = library.filter(test => {
    const all = `${test.name} ${test.title} ${test.hazard} ${test.isRace ? "race" : ""} ${test.text}`.toLowerCase();
    return words.every(word => all.includes(word));
  });
  element("found").textContent = found.length > SHOWN_TESTS ? `${found.length} tests; the first ${SHOWN_TESTS} are listed. More words narrow the search.` : found.length === 1 ? "1 test" : found.length ? `${found.length} tests` : "No test has all of these words.";
  element("tests").replaceChildren(...found.slice(0, SHOWN_TESTS).map(test => {
    const button = make("button", "", null, make("span", "name", test.name + (test.isRace ? " · race" : "") + (test.hazard ? " · " + test.hazard : "")));
    button.type = "button";
    // In the mode that asks first, the title would give the answer away.
    if (!element("predict").checked) button.append(make("span", "title", test.title));
    button.addEventListener("click", () => { choose(test); });
    return make("li", "", null, button);
  }));
}
function openLibrary(isOpen) {
  element("library").hidden = !isOpen;
  element("openLibrary").setAttribute("aria-expanded", String(isOpen));
  if (isOpen) { drawLibrary(); element("search").focus(); }
}
