// Inside one reading of a text: whom each head attends to, what the residual stream would say after each layer, what may
// come next; and all of it without some of the heads.
//
//   text    to begin with
//   plain   the text is to be continued, not answered
//   model   to begin with
MiniLLM.widget("glass", async (element, settings) => {
  "use strict";
  const {h, button, bars, called, chips, draw, generate, glyphs_after, group, percent, probabilities, KVCache} = MiniLLM;
  const LONGEST = 96; // tokens of the text
  const SHOWN = 8; // bars
  const ANSWER = 16; // tokens of what the model goes on to write

  /** What is seen while a model reads. Of a text that begins like the last one, only the rest is read. */
  class Reading {
    /** off(layer, head): whether a head is switched off. */
    constructor({model, tokenizer}, off) {
      this.model = model;
      this.vocab_size = tokenizer.vocab_size;
      this.off = off;
      this.cache = new KVCache(model.config);
      this.aside = new KVCache(model.config); // for what does not stand in the text
      this.tokens = []; // {logits [vocab_size], residual [L + 1][C], attention [L][H][T]}
    }

    read(ids) {
      const {model, cache, tokens, off} = this;
      let same = 0;
      while (same < ids.length && cache.ids[same] === ids[same]) same++;
      cache.ids.length = tokens.length = same;
      for (const id of ids.slice(same)) {
        const residual = [], attention = model.layers.map(() => []);
        const logits = model.forward(id, cache, {
          off,
          residual: (layer, x) => { residual[layer] = x; },
          attention: (layer, head, weights) => { attention[layer][head] = weights; },
        });
        tokens.push({logits: logits.subarray(0, this.vocab_size), residual, attention});
      }
    }

    /** What may come after a token, the likeliest first; with a layer: what the residual stream says after it. */
    next(at, layer) {
      const {logits, residual} = this.tokens[at];
      const scores = layer === undefined ? logits : this.model.logits(residual[layer]).subarray(0, this.vocab_size);
      return probabilities(scores, {temperature: 1});
    }
  }

  const models = MiniLLM.model_choice(settings, "pretrain", load);
  const input = h("input", {type: "text", "aria-label": "文字", value: settings.text ?? "张静住在哪里？", maxLength: 150,
    autocomplete: "off", oninput: start});
  const asked = h("input", {type: "checkbox", checked: settings.plain === undefined, onchange: start});
  const row = group(h("div", {class: "minillm-tokens minillm-attended", "aria-label": "词元；选一个来看"}), look);
  const answer = h("dl", {class: "minillm-detail minillm-answer", "aria-live": "polite"});
  const next = h("div"), lens = h("tbody");
  const heads = group(h("div", {class: "minillm-maps", "aria-label": "每一层的每一个头；选一个来看"}), choose);
  const caption = h("p", {class: "minillm-note", "aria-live": "polite"});
  const off = new Set(); // numbers of heads: layer * H + head
  const all_on = button("全部打开", () => {
    off.clear();
    switched();
  });

  let loaded, H; // the model; how many heads a layer has
  let whole, now; // readings with all heads, and with those that are on
  let maps; // of each head {canvas, picture, toggle, element}
  let ids = [], at = 0, chosen = 0; // the text; the token and the head that are looked at

  async function load() {
    loaded = await MiniLLM.language(models.value());
    const {num_hidden_layers: L, num_attention_heads} = loaded.model.config;
    H = num_attention_heads;
    whole = now = new Reading(loaded);
    off.clear();
    chosen = Math.min(chosen, L * H - 1);
    maps = Array.from({length: L * H}, (_, i) => map(i));
    heads.element.style.setProperty("--heads", H);
    heads.show(maps.map(({picture}) => picture), maps.map((each) => each.element), chosen);
    start();
  }

  const place = (i) => `第 ${Math.floor(i / H) + 1} 层第 ${(i % H) + 1} 个头`;

  /** A head: a picture to choose, and a switch. */
  function map(i) {
    const canvas = h("canvas"), name = place(i);
    const picture = h("button", {type: "button", class: "minillm-map", title: name, "aria-label": name}, canvas);
    const toggle = button("开", () => {
      if (!off.delete(i)) off.add(i);
      switched();
    }, {class: "minillm-switch", role: "switch", "aria-checked": "true", "aria-label": name});
    return {canvas, picture, toggle, element: h("div", {}, picture, toggle)};
  }

  function start() {
    const {tokenizer} = loaded;
    write(asked.checked ? tokenizer.render_for_completion([{role: "user", content: input.value}])
      : [tokenizer.bos_id, ...tokenizer.encode(input.value)]);
  }

  /** Another text; its last token is looked at. */
  function write(text) {
    ids = text.slice(0, LONGEST);
    at = ids.length - 1;
    row.show(chips(loaded.tokenizer, ids), undefined, at);
    refresh();
  }

  /** Heads were switched off or on. */
  function switched() {
    now = off.size ? new Reading(loaded, (layer, head) => off.has(layer * H + head)) : whole;
    refresh();
  }

  function refresh() {
    whole.read(ids);
    now.read(ids);
    all_on.disabled = !off.size;
    for (const [i, {canvas, toggle, element}] of maps.entries()) {
      draw_attention(canvas, i);
      element.classList.toggle("minillm-off", off.has(i));
      toggle.setAttribute("aria-checked", String(!off.has(i)));
      toggle.textContent = off.has(i) ? "关" : "开";
    }
    const lines = [["接着写", go_on(whole)]];
    if (off.size) lines.push([`关掉 ${off.size} 个头`, go_on(now)]);
    answer.replaceChildren(...lines.flatMap(([name, text]) => [h("dt", {}, name), h("dd", {}, text)]));
    look(at);
  }

  /** What the model writes after the text, always the likeliest token. */
  function go_on({model, vocab_size, off, aside}) {
    const {tokenizer} = loaded, stop_ids = [tokenizer.special_id("<|assistant_end|>"), tokenizer.bos_id];
    const options = {max_new_tokens: ANSWER, stop_ids, vocab_size, watch: {off}, cache: aside};
    const said = [...generate(model, ids, options)].map(({id}) => id);
    const text = tokenizer.decode(said).replace(/\ufffd+$/, ""); // a character that was cut off
    return said.length ? text + (said.length === ANSWER ? "……" : "") : "（到此为止）";
  }

  /** A row of the picture for each token, in it a column for each that it attends to. */
  function draw_attention(canvas, i) {
    canvas.width = canvas.height = ids.length;
    const pen = canvas.getContext("2d"), image = pen.createImageData(ids.length, ids.length);
    for (const [y, {attention}] of now.tokens.entries())
      for (const [x, weight] of attention[Math.floor(i / H)][i % H].entries())
        image.data.set([0, 114, 178, 255 * Math.sqrt(weight)], 4 * (y * ids.length + x));
    pen.putImageData(image, 0, 0);
  }

  /** A token was chosen. */
  function look(i) {
    at = i;
    const text = ids.slice(0, at + 1), found = now.next(at), last = found[0].id;
    const before = off.size ? new Map(whole.next(at).map(({id, p}) => [id, p])) : undefined;
    next.replaceChildren(bars(loaded.tokenizer, found.slice(0, SHOWN).map(({id, p}) => (
      {id, p, before: before?.get(id), shape: shape(text, id), onclick: () => write([...text, id])}))));
    lens.replaceChildren(...now.tokens[at].residual.map((_, layer) => {
      const early = now.next(at, layer), rank = early.findIndex(({id}) => id === last);
      return h("tr", {}, h("th", {scope: "row"}, layer ? `第 ${layer} 层后` : "嵌入"),
        h("td", {}, ...shape(text, early[0].id)), h("td", {}, percent(early[0].p)),
        h("td", {}, `第 ${rank + 1}`), h("td", {}, percent(early[rank].p)));
    }));
    show_head();
  }

  function shape(text, id) {
    const name = loaded.tokenizer.special_names[id];
    return name ? [name.slice(2, -2)] : draw(glyphs_after(loaded, text, id, now.aside, {off: now.off}));
  }

  function choose(i) {
    chosen = i;
    show_head();
  }

  /** Whom the chosen token attends to, in the chosen head. */
  function show_head() {
    const {tokenizer} = loaded, weights = now.tokens[at].attention[Math.floor(chosen / H)][chosen % H];
    const most = weights.indexOf(Math.max(...weights));
    row.members.forEach((chip, t) => {
      chip.style.setProperty("--seen", weights[t] ?? 0);
      chip.classList.toggle("minillm-at", t === at);
      chip.setAttribute("aria-pressed", String(t === at));
    });
    maps.forEach(({picture}, i) => {
      picture.classList.toggle("minillm-at", i === chosen);
      picture.setAttribute("aria-pressed", String(i === chosen));
    });
    caption.textContent = `${place(chosen)}${off.has(chosen) ? "（关着）" : ""}：${called(tokenizer, ids[at])}的注意力，`
      + `${most === at ? "给自己的" : `给 ${called(tokenizer, ids[most])} 的`}最多，是 ${weights[most].toFixed(2)}。`
      + "上面每个词元左边的蓝条是它分到的一份。";
  }

  await load();
  return [
    h("div", {class: "minillm-row"}, input, h("label", {}, asked, " 作为提问"), ...models.nodes),
    row.element,
    h("div", {class: "minillm-two"},
      h("section", {},
        h("b", {}, "注意力"), h("p", {class: "minillm-note"}, "一行是一层，一格是一个头：选一个来看，或者关掉它"),
        heads.element, caption, h("div", {class: "minillm-row"}, all_on)),
      h("section", {},
        h("b", {}, "下一个词元"), h("p", {class: "minillm-note"}, "点一个，写上去"), next,
        h("b", {}, "一层一层地读残差流"),
        h("table", {}, h("thead", {}, h("tr", {}, ...["", "第一名", "概率", "最后的第一名这时排", "概率"].map((text) =>
          h("th", {scope: "col"}, text)))), lens))),
    answer,
  ];
});
