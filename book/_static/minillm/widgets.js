// What the widgets of the book share. Each is a script of its own, widgets/NAME.js, which says
//
//   MiniLLM.widget("NAME", async (element, settings) => [node, …]);
//
// of the element <minillm-NAME data-KEY="VALUE">: settings are {KEY: VALUE}, and the nodes take the place of what it
// shows without scripts. That stays for print, and where building fails.
(() => {
  "use strict";
  if (MiniLLM.widget) return; // a notebook brings this once for each output
  const folder = document.currentScript?.src?.replace(/[^/]*$/, "") ?? "";

  /** What a stage is called; a model of the reader's own by its name. */
  const STAGES = {fresh: "随机权重", pretrain: "预训练", sft: "SFT", dpo: "DPO", grpo: "强化学习", identity: "身份"};
  const title = (name) => STAGES[name] ?? name;

  /** name → {stage, step, bytes} of every model that the page has; `weights` once they are here. */
  const models = {};

  function script(file) {
    return new Promise((done, failed) => {
      const element = Object.assign(document.createElement("script"), {src: `${folder}${file}.js`});
      element.onload = done;
      element.onerror = () => {
        element.remove();
        failed(new Error("权重没有载入，请检查网络，再试一次"));
      };
      document.head.append(element);
    });
  }

  /** {model, tokenizer} by name. Loaded once, and shared: whoever computes with it has a KVCache of their own. */
  async function language(name) {
    const entry = MiniLLM.models[name];
    if (!entry) throw new Error(`这一页没有模型 ${name}`);
    entry.loading ??= (async () => {
      if (!entry.weights) await script(`weights/${name}`);
      const loaded = MiniLLM.load(entry.weights);
      delete entry.weights; // a third more than what was made of them
      return loaded;
    })();
    entry.loading.catch(() => delete entry.loading);
    return entry.loading;
  }

  /** The names of the models that a widget offers: those it was given, else every stage at its end. */
  function offered(settings) {
    const given = settings.models ? JSON.parse(settings.models) : Object.keys(STAGES);
    return given.filter((name) => MiniLLM.models[name]);
  }

  /** An element: h("p", {class: "x", onclick: f}, "text", child, …). */
  function h(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties))
      if (typeof value === "string") element.setAttribute(name, value);
      else element[name] = value;
    element.append(...children);
    return element;
  }

  function button(text, onclick, properties = {}) {
    return h("button", {type: "button", onclick, ...properties}, text);
  }

  /** A slider with its name and, in words, its value: {element, input}. */
  function slider(name, {min, max, step = 1, value, show = String}, changed) {
    const output = h("output", {}, show(value)), input = h("input", {type: "range"});
    Object.assign(input, {min, max, step, value});
    input.setAttribute("aria-valuetext", show(value));
    input.addEventListener("input", () => {
      output.textContent = show(+input.value);
      input.setAttribute("aria-valuetext", show(+input.value));
      changed(+input.value);
    });
    return {element: h("label", {class: "minillm-slider"}, h("span", {}, name), input, output), input};
  }

  /** One answer to a prompt: {text, length}. The token that ends it counts, unless it was cut off before. */
  function one_answer({model, tokenizer}, prompt, options) {
    const {vocab_size} = tokenizer, stop_ids = [tokenizer.special_id("<|assistant_end|>"), tokenizer.bos_id];
    const ids = [...MiniLLM.generate(model, prompt, {stop_ids, vocab_size, ...options})].map(({id}) => id);
    return {text: tokenizer.decode(ids), length: ids.length + (ids.length < options.max_new_tokens ? 1 : 0)};
  }

  /** Lets the browser draw, and whoever reads press a button. */
  const pause = () => new Promise((done) => setTimeout(done));

  /** Makes <minillm-NAME> alive, each when it comes near view. */
  function widget(name, build) {
    if (customElements.get(`minillm-${name}`)) return;
    customElements.define(`minillm-${name}`, class extends HTMLElement {
      connectedCallback() {
        if (this.observer) return;
        this.observer = new IntersectionObserver((entries) => {
          if (!entries.some((entry) => entry.isIntersecting)) return;
          this.observer.disconnect();
          this.start();
        }, {rootMargin: "400px"});
        this.observer.observe(this);
      }

      async start() {
        const live = h("div", {class: "minillm-live"});
        try {
          live.append(...await build(this, {...this.dataset}));
        } catch (error) {
          this.append(h("p", {class: "minillm-note"}, `载入失败：${error.message}。`));
          throw error;
        }
        const still = h("div", {class: "minillm-still"});
        still.append(...this.childNodes);
        for (const picture of still.querySelectorAll("img")) picture.loading = "eager"; // before someone prints
        this.append(still, live);
      }
    });
  }

  Object.assign(MiniLLM, {STAGES, title, models, script, language, offered, h, button, slider, one_answer, pause, widget});
})();
