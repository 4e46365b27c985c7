// Byte-pair encoding over any sentence, one merge at a time.
//
//   text        to begin with
//   vocabulary  that is learned from the text itself (own), or one of the page's: tiny, shipped
//
// The rules are those of minillm/tokenizer/bpe.py: `learn` is its train_bpe, `merge` its encode.
MiniLLM.widget("merges", async (element, settings) => {
  "use strict";
  const {h, button, slider, hex, glyphs, glyphs_within, completed, draw, chips, group} = MiniLLM;
  const LONGEST = 120; // characters
  const TITLES = {own: "只从这句话学", tiny: "本书的词表", shipped: "自带的词表"};
  const tokenizers = await MiniLLM.tokenizers();

  const input = h("input", {type: "text", "aria-label": "一句话", value: settings.text ?? "小猫看小猫", maxLength: LONGEST,
    autocomplete: "off"});
  const choice = h("select", {"aria-label": "词表"}, ...["own", ...Object.keys(tokenizers)].map((name) =>
    h("option", {value: name}, TITLES[name] + (name === "own" ? "" : `，${tokenizers[name].vocab_size.toLocaleString("en")}`))));
  choice.value = settings.vocabulary in tokenizers ? settings.vocabulary : "own";
  const merges = slider("合并", {min: 0, max: 1, value: 0, show: (n) => `${n} 次`}, show);
  const detail = h("p", {class: "minillm-note", "aria-live": "polite"});
  const row = group(h("div", {class: "minillm-tokens", "aria-label": "词元，下面是它们的字节"}),
    (i) => { detail.textContent = row.members[i].title; });
  const note = h("p", {class: "minillm-note", "aria-live": "polite"});
  let chunks; // of the text, as bytes: strings of characters U+0000 to U+00FF, as the tokenizer has them
  let tokenizer, reasons; // what decided each merge, where that is known
  let steps; // the numbers of the merges that change this text

  /** The vocabulary that chunks teach: each time the pair that occurs most often, of equals the one with the smallest ids.
   * Like train_bpe, until nothing is left to merge. */
  function learn(chunks) {
    const words = chunks.map((chunk) => Array.from(chunk, (byte) => byte.charCodeAt(0)));
    const tokens = Array.from({length: 256}, (_, byte) => String.fromCharCode(byte)), reasons = [];
    for (;;) {
      const counts = new Map(); // left id · 2¹⁶ + right id → how often
      for (const word of words)
        for (let i = 0; i + 1 < word.length; i++) {
          const pair = word[i] * 65536 + word[i + 1];
          counts.set(pair, (counts.get(pair) ?? 0) + 1);
        }
      if (!counts.size) return {tokens, reasons};
      const count = Math.max(...counts.values());
      const tied = [...counts.keys()].filter((pair) => counts.get(pair) === count), pair = Math.min(...tied);
      const left = Math.floor(pair / 65536), right = pair % 65536;
      for (const word of words)
        for (let i = 0; i + 1 < word.length; i++)
          if (word[i] === left && word[i + 1] === right) word.splice(i, 2, tokens.length);
      tokens.push(tokens[left] + tokens[right]);
      reasons.push({count, tied: tied.length});
    }
  }

  /** A chunk's tokens while only the ids below `limit` are known: of all neighbours, those that were merged first in
   * training are merged first. merged(id) hears of each merge. */
  function merge(chunk, limit = Infinity, merged = () => {}) {
    const tokens = [...chunk];
    for (;;) {
      let best = -1, lowest = limit;
      for (let i = 0; i + 1 < tokens.length; i++) {
        const rank = tokenizer.mergeable_ranks.get(tokens[i] + tokens[i + 1]);
        if (rank < lowest) [best, lowest] = [i, rank];
      }
      if (best < 0) return tokens;
      tokens.splice(best, 2, tokens[best] + tokens[best + 1]);
      merged(lowest);
    }
  }

  /** For another text or vocabulary. */
  function start() {
    const any = Object.values(tokenizers)[0], bytes_of = (text) => String.fromCharCode(...new TextEncoder().encode(text));
    chunks = any.chunks(input.value).map(bytes_of);
    tokenizer = tokenizers[choice.value];
    reasons = undefined;
    if (!tokenizer) {
      const learned = learn(chunks);
      ({reasons} = learned);
      tokenizer = new MiniLLM.RustBPETokenizer({tokens: learned.tokens.map(btoa), special_tokens: {}});
    }
    const changes = new Set();
    for (const chunk of chunks) {
      let last = 0; // a merge can wait for a later one beside it
      merge(chunk, Infinity, (id) => changes.add((last = Math.max(last, id)) - 255));
    }
    steps = [...changes].sort((a, b) => a - b);
    merges.input.max = tokenizer.tokens.length - 256;
    set(steps[0] ?? 0);
  }

  function set(n) {
    merges.input.value = n;
    merges.input.dispatchEvent(new Event("input"));
  }

  function show(n) {
    const words = chunks.map((chunk) => merge(chunk, 256 + n));
    const ids = words.flat().map((token) => tokenizer.mergeable_ranks.get(token)), shown = chips(tokenizer, ids);
    shown.forEach((chip, i) => {
      chip.append(h("small", {}, hex(tokenizer.token_bytes(ids[i]))));
      chip.classList.toggle("minillm-new", n > 0 && ids[i] === 255 + n);
    });
    let from = 0;
    const chunk = ({length}) => h("span", {class: "minillm-chunk"}, ...shown.slice(from, (from += length)));
    row.show(shown, words.map(chunk));
    detail.textContent = "";
    note.replaceChildren(...(n ? told(255 + n) : ["还没有合并，一个字节一个词元。"]),
      `这句话 ${chunks.join("").length} 个字节，现在是 ${ids.length} 个词元。`);
  }

  /** Of the merge that made a token: what it joined, and why. */
  function told(id) {
    const token = tokenizer.tokens[id], {count, tied} = reasons?.[id - 256] ?? {};
    const [left, right] = drawn(merge(token, id)), [joined] = drawn([token]);
    const why = !reasons ? "" : tied > 1 ? `这样的一对有 ${count} 处，一样多的有 ${tied} 对，取编号最小的。` : `这样的一对最多，有 ${count} 处。`;
    return [`第 ${id - 255} 次合并：「`, ...left, "」和「", ...right, "」成为「", ...joined, `」，编号 ${id}。`, why,
      steps.includes(id - 255) ? "" : "这句话用不到它。"];
  }

  /** Parts of a token as they look in this text, or else in the first token that has them. */
  function drawn(parts) {
    const found = glyphs_within(parts, [parts.join(""), ...chunks, ...tokenizer.tokens.slice(256)]);
    return (found ?? glyphs(parts.map((part) => Uint8Array.from(part, (byte) => byte.charCodeAt(0)))).map((part) => completed(tokenizer, part))).map(draw);
  }

  input.addEventListener("input", start);
  choice.addEventListener("change", start);
  start();
  const now = () => +merges.input.value;
  return [
    h("div", {class: "minillm-row"}, input, choice),
    h("div", {class: "minillm-row"},
      button("◀", () => set([0, ...steps].filter((n) => n < now()).pop() ?? 0),
        {"aria-label": "上一次改动这句话的合并", title: "上一次改动这句话的合并"}),
      merges.element,
      button("▶", () => set(steps.find((n) => n > now()) ?? now()),
        {"aria-label": "下一次改动这句话的合并", title: "下一次改动这句话的合并"})),
    row.element, note, detail,
  ];
});
