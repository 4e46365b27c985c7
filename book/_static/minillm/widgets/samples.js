// A group of answers to one sum or difference, before reinforcement learning and after it: what GRPO sees of a question.
//
//   question   to begin with
//   questions  others, separated by |
//   before     a model; if none is named: sft, or the first one that there is
//   after      another one; if none is named: grpo, or the last one
//
// The names are the package's: `is_correct` is in microworld/scoring.py, all else in training/reinforcement.py.
(() => {
  "use strict";
  const {h, button, one_answer, pause, title} = MiniLLM;
  const GROUP_SIZE = 16; // answers
  const LONGEST = 96; // tokens of one

  // --- The reward ------------------------------------------------------------------------------------------------

  const OTHER = "[^\\p{Nd}加减乘除倍+＋\\-−－×÷*/]*"; // anything but another number or sign
  const SUM = new RegExp(`^${OTHER}([0-9]+) *([加减+＋\\-−－]) *([0-9]+)${OTHER}$`, "u");

  /** What a question asks: {question, asked, answer}, numbers as text; undefined if it is no sum or difference of two
   * whole numbers, or one below zero. */
  function exercise(question) {
    const [, x, sign, y] = question.match(SUM) ?? [];
    if (!sign) return undefined;
    const answer = "加+＋".includes(sign) ? BigInt(x) + BigInt(y) : BigInt(x) - BigInt(y);
    return answer < 0n ? undefined : {question, asked: [x, y], answer: String(answer)};
  }

  /** Whether a reply is right: only its last sentence counts, closing phrases apart. It must end in the answer, begin with
   * the numbers that were asked for, if it names more than the answer, and speak of nothing else. */
  function is_correct({question, asked, answer}, reply) {
    const {closings, denial, word} = MiniLLM.verifier; // patterns of the package
    for (const closing of closings) reply = reply.replaceAll(closing, "");
    const sentences = reply.split(/[。！？\n]/).filter((part) => /[^\p{White_Space}\x1c-\x1f]/u.test(part));
    const sentence = sentences.pop();
    if (sentence === undefined || new RegExp(denial).test(sentence)) return false;
    const said = sentence.match(/\p{Nd}+/gu) ?? [];
    if (said[said.length - 1] !== answer) return false;
    if ((sentence.match(new RegExp(word, "g")) ?? []).some((each) => !question.includes(each))) return false;
    const orders = /[加+]/.test(sentence) ? [asked, [...asked].reverse()] : [asked]; // 4加13 is as good as 13加4
    return said.length === 1 || orders.some(([x, y]) => said[0] === x && said[1] === y);
  }

  // --- The group -------------------------------------------------------------------------------------------------

  const mean = (numbers) => numbers.reduce((sum, number) => sum + number, 0) / numbers.length;

  /** The standard deviation of a sample. */
  function std(rewards) {
    const squares = rewards.map((reward) => (reward - mean(rewards)) ** 2);
    return Math.sqrt(mean(squares) * rewards.length / (rewards.length - 1));
  }

  /** How much better each answer is than the average one: r - mean(r); or that divided by std(r), as in the first GRPO. */
  function advantages(rewards, divide_by_std = false) {
    const better = rewards.map((reward) => reward - mean(rewards));
    return divide_by_std ? better.map((each) => each / (std(rewards) + 1e-4)) : better;
  }

  // --- In the page -----------------------------------------------------------------------------------------------

  const signed = (number) => `${number < 0 ? "−" : number > 0 ? "+" : ""}${Math.abs(number).toFixed(2)}`;

  /** A column: the answers of one model, and what they are worth. */
  function group(name, when, divide_by_std) {
    const summary = h("p"), verdict = h("p", {class: "minillm-note"}), body = h("tbody");
    const live = h("div", {"aria-live": "polite"}, summary, verdict);
    const heads = ["奖励", "优势", "回答", "词元"].map((text) => h("th", {scope: "col"}, text));
    const table = h("table", {"aria-label": `${title(name)}的回答`}, h("thead", {}, h("tr", {}, ...heads)), body);
    const element = h("section", {class: `minillm-${MiniLLM.models[name]?.stage ?? name}`},
      h("b", {}, `${when}：${title(name)}`), live, table);
    const rollouts = []; // {reply, length, reward, place}: where its advantage is shown

    function clear() {
      rollouts.length = 0;
      body.replaceChildren();
      show();
    }

    function add(reply, length, reward) {
      const place = h("td", {class: "minillm-advantage"}), mark = h("span", {"aria-hidden": "true"}, reward ? "✓ " : "✗ ");
      rollouts.push({reply, length, reward, place});
      body.append(h("tr", {}, h("td", {}, h("span", {class: reward ? "minillm-right" : "minillm-wrong"}, mark, `${reward}`)),
        place, h("td", {}, reply || "（什么也没有说）"), h("td", {}, `${length}`)));
      show();
    }

    /** What is known of the group; of advantages nothing is, before its last answer is there. */
    function show() {
      const rewards = rollouts.map(({reward}) => reward), n = rollouts.length, average = mean(rewards).toFixed(2);
      const counted = mean(rollouts.map(({reply}) => (reply.includes("步到") ? 1 : 0)));
      table.hidden = n === 0;
      live.setAttribute("aria-busy", String(n > 0 && n < GROUP_SIZE)); // read out once
      summary.textContent = n === 0 ? "" : `${n} 个回答：平均奖励 ${average}，数着算的占 ${Math.round(100 * counted)}%，`
        + `平均 ${mean(rollouts.map(({length}) => length)).toFixed(1)} 个词元。`;
      verdict.textContent = "";
      if (n < GROUP_SIZE) return;
      for (const [i, better] of advantages(rewards, divide_by_std.checked).entries()) {
        rollouts[i].place.textContent = signed(better);
        rollouts[i].place.style.setProperty("--size", Math.min(1, Math.max(0, better)));
      }
      const less = `奖励 − ${average}`;
      verdict.textContent = std(rewards) === 0 ? `奖励全是 ${rewards[0]}，优势也就全是 0：从这道题什么也学不到。`
        : `优势 =${divide_by_std.checked ? `（${less}）÷ ${std(rewards).toFixed(2)}` : ` ${less}`}`;
    }

    clear();
    return {element, clear, add, show};
  }

  MiniLLM.widget("samples", async (element, settings) => {
    const offered = MiniLLM.offered(settings), known = (name, otherwise) => (offered.includes(name) ? name : otherwise);
    const names = [settings.before ?? known("sft", offered[0]), settings.after ?? known("grpo", offered[offered.length - 1])];
    const input = h("input", {type: "text", "aria-label": "问题", value: settings.question ?? "13加4等于多少？", maxLength: 60,
      autocomplete: "off"});
    const status = h("p", {class: "minillm-note", "aria-live": "polite"});
    const divide_by_std = h("input", {type: "checkbox", onchange: () => groups.forEach((each) => each.show())});
    const groups = names.map((name, i) => group(name, i ? "之后" : "之前", divide_by_std));
    let seed = 0, asking = 0; // changes with every question: answers to the one before are broken off

    async function ask() {
      const mine = ++asking, asked = exercise(input.value);
      for (const each of groups) each.clear();
      status.textContent = "正在载入模型……";
      try {
        if (!asked) throw new Error("这里只判两个整数的加法和减法，得数不小于 0，例如“13加4等于多少？”");
        const loaded = await Promise.all(names.map((name) => MiniLLM.language(name)));
        if (asking !== mine) return;
        status.textContent = `得数是 ${asked.answer}：程序算的，模型看不见。说对了，奖励是 1；没有说对，是 0。`;
        for (const [i, {add}] of groups.entries()) {
          const {model, tokenizer} = loaded[i], cache = new MiniLLM.KVCache(model.config);
          const prompt = tokenizer.render_for_completion([{role: "user", content: asked.question}]);
          for (let n = 0; n < GROUP_SIZE; n++) {
            const sampling = {temperature: 1, seed: seed++};
            const {text, length} = one_answer(loaded[i], prompt, {max_new_tokens: LONGEST, sampling, cache});
            add(text, length, is_correct(asked, text) ? 1 : 0);
            await pause();
            if (asking !== mine) return;
          }
        }
      } catch (error) {
        if (asking === mine) status.textContent = `${error.message}。`;
      }
    }

    if (!MiniLLM.verifier) await MiniLLM.script("weights/verifier");
    const form = h("form", {class: "minillm-row"}, input, h("button", {type: "submit"}, `各答 ${GROUP_SIZE} 遍`));
    form.onsubmit = (event) => {
      event.preventDefault();
      ask();
    };
    const chips = (settings.questions ?? "").split("|").filter(Boolean)
      .map((each) => button(each, () => { input.value = each; ask(); }, {class: "minillm-chip"}));
    return [
      form, h("div", {class: "minillm-row"}, ...chips), h("label", {}, divide_by_std, " 优势除以标准差"), status,
      h("div", {class: "minillm-columns minillm-two"}, ...groups.map((each) => each.element)),
    ];
  });

  Object.assign(MiniLLM, {exercise, is_correct, advantages});
})();
