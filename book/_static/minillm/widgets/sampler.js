// From scores to a choice: how temperature, top-k and top-p reshape what may come next, and what many answers are like.
//
//   text    to begin with
//   plain   the text is to be continued, not answered
//   model   to begin with
MiniLLM.widget("sampler", async (element, settings) => {
  "use strict";
  const {h, button, slider, pause, bars, draw, glyphs_after, percent, one_answer, probabilities, read, KVCache} = MiniLLM;
  const SHOWN = 10; // bars
  const TIMES = 20; // answers
  const LENGTH = 40; // tokens of one

  const plain = settings.plain !== undefined;
  const models = MiniLLM.model_choice(settings, "sft", load);
  const input = h("input", {type: "text", "aria-label": plain ? "开头" : "问题", value: settings.text ?? "张静住在哪里？",
    maxLength: 100, autocomplete: "off", oninput: start});
  const fixed = (value) => value.toFixed(2);
  const temperature = slider("温度", {min: 0, max: 2, step: 0.05, value: 1, show: fixed}, show);
  const top_k = slider("top-k", {min: 0, max: 40, value: 0, show: (k) => (k ? `${k} 个` : "不限")}, show);
  const top_p = slider("top-p", {min: 0.05, max: 1, step: 0.05, value: 1, show: fixed}, show);
  const sampling = () => ({temperature: +temperature.input.value, top_k: +top_k.input.value, top_p: +top_p.input.value});
  const chart = h("div"), note = h("p", {class: "minillm-note", "aria-live": "polite"});
  const written = h("p", {"aria-live": "polite"});
  const tally = h("div", {class: "minillm-tally", "aria-live": "polite"});

  let loaded, cache, aside; // the model; the cache of the text, and one for looking further
  let prompt, ids, logits; // what was asked, what stands there now, the scores of what comes next
  let shapes; // what tokens look like here: id → nodes
  let seed = 0, asking = 0;

  async function load() {
    loaded = await MiniLLM.language(models.value());
    [cache, aside] = [new KVCache(loaded.model.config), new KVCache(loaded.model.config)];
    start();
  }

  function start() {
    const {tokenizer} = loaded;
    prompt = plain ? [tokenizer.bos_id, ...tokenizer.encode(input.value)]
      : tokenizer.render_for_completion([{role: "user", content: input.value}]);
    asking++; // who is being asked, is so no more
    tally.replaceChildren();
    go(prompt);
  }

  function go(to) {
    if (to.length >= loaded.model.config.max_position_embeddings) return;
    ids = to;
    logits = read(loaded.model, ids, cache).subarray(0, loaded.tokenizer.vocab_size);
    shapes = new Map();
    show();
  }

  function shape(id) {
    const name = loaded.tokenizer.special_names[id];
    if (!shapes.has(id)) shapes.set(id, name ? [name.slice(2, -2)] : draw(glyphs_after(loaded, ids, id, aside)));
    return shapes.get(id);
  }

  function show() {
    const all = probabilities(logits, {temperature: 1}), left = probabilities(logits, sampling());
    const now = new Map(left.map(({id, p}) => [id, p]));
    chart.replaceChildren(bars(loaded.tokenizer, all.slice(0, SHOWN).map(({id, p}) => (
      {id, p: now.get(id) ?? 0, before: p, shape: shape(id), onclick: () => go([...ids, id])}))));
    const kept = all.filter(({id}) => now.has(id)).reduce((sum, {p}) => sum + p, 0);
    const count = (n) => n.toLocaleString("en");
    note.textContent = `${count(all.length)} 个词元里留下 ${count(left.length)} 个，它们原来占 ${percent(kept)}。`
      + "竖线是原来的概率，蓝条是现在的；点一条，就写上去。";
    const said = loaded.tokenizer.decode(ids.slice(prompt.length));
    written.textContent = said && `写到这里：${said}`;
  }

  /** Answers one after the other, counted by what they say. */
  async function ask() {
    const mine = ++asking, counts = new Map(), own = new KVCache(loaded.model.config);
    for (let time = 1; time <= TIMES; time++) {
      const options = {max_new_tokens: LENGTH, sampling: {...sampling(), seed: seed++}, cache: own};
      const {text: said} = one_answer(loaded, prompt, options);
      counts.set(said, (counts.get(said) ?? 0) + 1);
      const often = [...counts].sort((a, b) => b[1] - a[1]);
      tally.replaceChildren(h("p", {}, `${time} 遍，${counts.size} 种：`),
        h("ol", {}, ...often.map(([text, n]) => h("li", {}, h("b", {}, `${n} 遍 `), text || "（什么也没有说）"))));
      await pause();
      if (asking !== mine) return;
    }
  }

  await load();
  return [
    h("div", {class: "minillm-row"}, input, ...models.nodes),
    temperature.element, top_k.element, top_p.element, note, chart, written,
    h("div", {class: "minillm-row"},
      button(`照这样${plain ? "写" : "答"} ${TIMES} 遍`, ask), button("从头来", start)),
    tally,
  ];
});
