// The options of a run: what the model can be told to be. The first entry of each menu leaves the choice to the test.
const options = { abi: "", design: "", contents: "", vm: "", fault: [] };
const MENUS = { abi: "the newest", design: "as the test says", contents: "as the interface says", vm: "as the test says" };
let facts = null;
const listOf = key => ({ abi: facts.abis, design: facts.designs, contents: facts.contents, vm: facts.vms, fault: facts.faults })[key] || [];
const nameOf = entry => typeof entry === "string" ? entry : entry.name;
function fillOptions() {
  for (const [key, first] of Object.entries(MENUS)) {
    const none = new Option(first, "");
    element(key).replaceChildren(none, ...listOf(key).map(entry => {
      const option = new Option(entry.text ? `${nameOf(entry)}: ${entry.text}` : nameOf(entry), nameOf(entry));
      return option;
    }));
    element(key).addEventListener("change", () => { options[key] = element(key).value; optionsChanged(); });
  }
  const groups = new Map();
  for (const fault of facts.faults || []) {
    const group = fault.group || "faults";
    if (!groups.has(group)) groups.set(group, make("optgroup"));
    groups.get(group).label = group;
    groups.get(group).append(new Option(`${fault.name}: ${fault.text}`, fault.name));
  }
  element("fault").replaceChildren(new Option("add a fault …", ""), ...groups.values());
  element("fault").addEventListener("change", () => {
    const name = element("fault").value;
    if (name && !options.fault.includes(name)) options.fault.push(name);
    element("fault").value = "";
    optionsChanged();
  });
}
function drawOptions() {
  for (const key of Object.keys(MENUS)) element(key).value = options[key];
  element("faults").replaceChildren(...options.fault.map(name => {
    const fault = listOf("fault").find(f => f.name === name), remove = make("button", "", "Remove");
    remove.type = "button";
    remove.setAttribute("aria-label", `Remove the fault ${name}`);
    remove.addEventListener("click", () => { options.fault = options.fault.filter(n => n !== name); optionsChanged(); });
    return make("li", "", null, make("code", "", name), " ", fault ? fault.text : "", " ", remove);
  }));
  const chosen = [...Object.keys(MENUS).filter(key => options[key]).map(key => options[key]), ...options.fault.map(name => `fault ${name}`)];
  element("chosen").textContent = chosen.length ? `(${chosen.join(", ")})` : "";
}
// Takes the options of a link. Returns the ones that this page does not know.
function takeOptions(from) {
  const unknown = [];
  for (const key of Object.keys(MENUS)) {
    const value = from[key] || "";
    options[key] = value && listOf(key).some(entry => nameOf(entry) === value) ? value : "";
    if (value && !options[key]) unknown.push(`${key} ${value}`);
  }
  options.fault = [];
  for (const name of from.fault || []) {
    if (listOf("fault").some(fault => fault.name === name)) { if (!options.fault.includes(name)) options.fault.push(name); }
    else unknown.push(`fault ${name}`);
  }
  drawOptions();
  return unknown;
}
const optionPairs = () => [...Object.keys(MENUS).filter(key => options[key]).map(key => [key, options[key]]), ...options.fault.map(name => ["fault", name])];
const usedOptions = () => Object.fromEntries(Object.entries(options).filter(([, value]) => value.length));
