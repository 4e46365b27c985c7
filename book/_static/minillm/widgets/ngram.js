// An n-gram model of any text, counted while it is typed: what came next, how often, and what such a model writes.
//
//   text   to count in, a line for each `|`
//   start  of what is to be written
//
// No smoothing, as in the chapter's `write`: what never came next is never drawn. Where the n - 1 characters before were
// never seen, the longest part of their end that was seen decides.
MiniLLM.widget("ngram", async (element, settings) => {
  "use strict";
  const {h, button, slider, bars, percent, random_numbers} = MiniLLM;
  const LONGEST = 20_000; // characters of the text
  const SHOWN = 8; // bars
  const LENGTH = 60; // characters of a sentence, as in the chapter
  const TIMES = 20; // sentences
  const START = "^", END = "$", CLOSING = "（结束）";

  const source = h("textarea", {"aria-label": "要数的文字，一行一篇", rows: 5, maxLength: LONGEST, spellcheck: false,
    oninput: count});
  source.value = (settings.text ?? "").replaceAll("|", "\n");
  const input = h("input", {type: "text", "aria-label": "开头", value: settings.start ?? "", maxLength: LENGTH,
    autocomplete: "off", oninput: show});
  const order = slider("n", {min: 1, max: 6, value: 3, show: (n) => (n > 1 ? `看 ${n - 1} 个字` : "什么也不看")}, count);
  const note = h("p", {class: "minillm-note", "aria-live": "polite"}), chart = h("div");
  const written = h("div", {class: "minillm-tally", "aria-live": "polite"});
  let texts; // the lines, each a sequence of characters with its start and its end
  let tables; // characters before → Map(character → how often)
  let seed = 0;

  const n = () => +order.input.value;

  function count() {
    texts = source.value.split("\n").map((line) => line.trim()).filter(Boolean)
      .map((line) => [START, ...line.replace(/[$^]/g, ""), END]);
    tables = new Map();
    for (const text of texts)
      for (let i = 1; i < text.length; i++)
        for (let length = 0; length < n() && length <= i; length++) {
          const before = text.slice(i - length, i).join("");
          if (!tables.has(before)) tables.set(before, new Map());
          const after = tables.get(before);
          after.set(text[i], (after.get(text[i]) ?? 0) + 1);
        }
    show();
  }

  /** What came after the end of a text: {wanted, before, after}: the n - 1 characters, what of them was seen, and what
   * followed it. */
  function next(text) {
    const wanted = text.slice(Math.max(0, text.length - n() + 1));
    let before = wanted;
    while (before.length && !tables.has(before.join(""))) before = before.slice(1);
    return {wanted, before, after: tables.get(before.join("")) ?? new Map()};
  }

  const named = (characters) => `“${characters.join("").replace(START, "（句首）")}”`;

  function show() {
    const text = [START, ...input.value], {wanted, before, after} = next(text);
    const sum = [...after.values()].reduce((a, b) => a + b, 0);
    if (!sum) {
      note.textContent = "先在上面的框里写一行字。";
      chart.replaceChildren();
      return;
    }
    const step = wanted.length > before.length ? `${named(wanted)}没有出现过，退一步：` : "";
    const what = before.length ? `${named(before)}后面` : "不管前面是什么，";
    note.textContent = `${step}${what}数到 ${sum} 次，${after.size} 种字。点一条，就写上去。`;
    const often = [...after].sort((a, b) => b[1] - a[1] || a[0].codePointAt(0) - b[0].codePointAt(0));
    chart.replaceChildren(bars(undefined, often.slice(0, SHOWN).map(([character, times]) => ({
      id: character, p: times / sum, shape: [character === END ? CLOSING : character], title: `${times} 次`,
      onclick: () => {
        if (character === END) return;
        input.value += character;
        show();
      },
    }))));
  }

  /** A sentence from the start on, each character drawn as often as it came next. */
  function write() {
    const random = random_numbers(seed++), text = [START, ...input.value];
    while (text[text.length - 1] !== END && text.length < LENGTH) {
      const {after} = next(text), sum = [...after.values()].reduce((a, b) => a + b, 0);
      let left = random() * sum;
      for (const [character, times] of after)
        if ((left -= times) < 0) {
          text.push(character);
          break;
        }
    }
    return text;
  }

  function sentences(times) {
    if (!texts.length) return;
    const known = new Set(texts.map((text) => text.join(""))), found = Array.from({length: times}, write);
    const copied = found.filter((text) => known.has(text.join(""))).length;
    const line = (text) => h("li", {}, h("b", {}, known.has(text.join("")) ? "照抄 " : "新的 "),
      text.filter((character) => character !== START && character !== END).join(""));
    const told = times > 1 ? [h("p", {}, `${times} 句里，照抄的 ${copied} 句，占 ${percent(copied / times)}：`)] : [];
    written.replaceChildren(...told, h("ol", {}, ...found.map(line)));
  }

  count();
  return [
    source, order.element, h("div", {class: "minillm-row"}, input, button("空着", () => { input.value = ""; show(); })),
    note, chart,
    h("div", {class: "minillm-row"}, button("写一句", () => sentences(1)), button(`写 ${TIMES} 句`, () => sentences(TIMES))),
    written,
  ];
});
