// One question to the model after each stage; and, where weights were kept while it was trained, after so many steps.
//
//   models     to ask
//   question   to begin with
//   questions  others, separated by |
MiniLLM.widget("stages", async (element, settings) => {
  "use strict";
  const {h, button, slider, title, pause} = MiniLLM;
  const input = h("input", {type: "text", "aria-label": "问题", value: settings.question ?? "你是谁？", autocomplete: "off"});
  const status = h("p", {class: "minillm-note", "aria-live": "polite"});
  let asking = 0; // changes with every question: answers to the one before are broken off

  /** Writes a model's answer into an element; false if another question came meanwhile. */
  async function answer(name, place, mine) {
    status.textContent = `正在载入“${named(name)}”……`;
    const {model, tokenizer} = await MiniLLM.language(name);
    if (asking !== mine) return false;
    status.textContent = "";
    place.textContent = "";
    place.setAttribute("aria-busy", "true"); // read out whole, not character by character
    for (const text of MiniLLM.reply(model, tokenizer, [{role: "user", content: input.value}], {max_new_tokens: 64})) {
      place.append(text);
      await pause();
      if (asking !== mine) return false;
    }
    place.setAttribute("aria-busy", "false");
    if (!place.textContent.trim()) place.textContent = "（什么也没有说）";
    return true;
  }

  /** Starts something that answers, and says what went wrong. */
  async function run(task) {
    const mine = ++asking;
    try {
      await task(mine);
    } catch (error) {
      if (asking === mine) status.textContent = `${error.message}。`;
    }
  }

  // --- At the end of each stage ---

  const names = MiniLLM.offered(settings).filter((name) => settings.models || name !== "fresh");
  const places = names.map(() => h("p", {"aria-live": "polite"}));
  const columns = names.map((name, i) => h("section", {class: `minillm-${name}`}, h("b", {}, title(name)), places[i]));
  const ask = () => run(async (mine) => {
    seen.clear();
    show();
    for (const place of places) place.textContent = "";
    for (const [i, name] of names.entries()) if (!await answer(name, places[i], mine)) return;
  });

  // --- After so many steps ---

  const stops = Object.keys(MiniLLM.models).filter((name) => MiniLLM.models[name].step !== null);
  const seen = new Map(); // the stops that were asked → their answers
  const table = h("tbody");

  function named(name) {
    const {stage, step} = MiniLLM.models[name] ?? {};
    return step && name !== "identity" ? `${title(stage)}，第 ${step} 步` : title(name);
  }

  function show() {
    const rows = stops.filter((name) => seen.has(name))
      .map((name) => h("tr", {class: `minillm-${MiniLLM.models[name].stage}`}, h("th", {scope: "row"}, named(name)), seen.get(name)));
    table.replaceChildren(...rows);
  }

  let waiting;
  const at = slider("训练到", {min: 0, max: stops.length - 1, value: 0, show: (i) => named(stops[i])}, (i) => {
    clearTimeout(waiting); // whoever slides past a stop does not load it
    waiting = setTimeout(() => run(async (mine) => {
      const name = stops[i];
      if (seen.has(name)) return;
      const place = h("td", {"aria-live": "polite"});
      seen.set(name, place);
      show();
      if (await answer(name, place, mine)) return;
      seen.delete(name);
      show();
    }), 300);
  });

  const form = h("form", {class: "minillm-row"}, input, h("button", {type: "submit"}, "问一问"));
  form.onsubmit = (event) => {
    event.preventDefault();
    if (input.value.trim()) ask();
  };
  const chips = (settings.questions ?? "").split("|").filter(Boolean)
    .map((each) => button(each, () => { input.value = each; ask(); }, {class: "minillm-chip"}));
  const steps = stops.length < 2 ? [] : [
    h("p", {class: "minillm-note"}, "同一个问题，问训练到一半的它。拖动滑块，停下来的地方都留在表里。"),
    at.element, h("div", {class: "minillm-table"}, h("table", {}, table)),
  ];
  return [form, h("div", {class: "minillm-row"}, ...chips), h("div", {class: "minillm-columns"}, ...columns), status, ...steps];
});
