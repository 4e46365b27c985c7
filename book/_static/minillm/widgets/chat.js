// A conversation with the model: what minillm/chat.py is in a terminal.
//
//   models     to choose from; the last one speaks first
//   questions  to begin with, separated by |
MiniLLM.widget("chat", async (element, settings) => {
  "use strict";
  const {h, button, pause} = MiniLLM;
  // For whoever has read nothing yet.
  const LONG = {sft: "监督微调（SFT）", dpo: "偏好优化（DPO）", grpo: "强化学习（GRPO）", identity: "换了名字"};
  const title = (stage) => LONG[stage] ?? MiniLLM.title(stage);
  const names = MiniLLM.offered(settings);
  let name = names[names.length - 1];
  let messages, paragraphs; // what was said and is remembered, and where it stands in the log
  let cache; // of the model that speaks: the next question goes on from it
  let answer = null; // the one that is being written: {stopped}

  const log = h("div", {class: "minillm-log", role: "log", "aria-label": "对话", tabIndex: 0});
  const status = h("p", {class: "minillm-note", "aria-live": "polite"});
  const input = h("input", {type: "text", "aria-label": "说一句话", placeholder: "说一句话", autocomplete: "off"});
  const send = h("button", {type: "submit"}, "发送");
  const stop = button("停下", () => { answer.stopped = true; });
  const choice = h("select", {}, ...names.map((each) => h("option", {value: each}, title(each))));
  choice.value = name;
  choice.onchange = () => {
    name = choice.value;
    restart();
    status.textContent = `换成了“${title(name)}”，从头说起。`;
  };

  function writing(now) {
    if (answer) answer.stopped = true;
    answer = now;
    stop.hidden = !now;
    send.disabled = Boolean(now);
    log.setAttribute("aria-busy", String(Boolean(now))); // read out whole, not character by character
  }

  function restart() {
    writing(null);
    messages = [];
    paragraphs = [];
    cache = undefined;
    log.replaceChildren();
    status.textContent = "";
  }

  /** A paragraph of the log; returns where its words go. */
  function say(role, text) {
    const words = h("span", {}, text), who = role === "user" ? "你：" : "它：";
    const paragraph = h("p", {class: `minillm-${role}`}, h("b", {}, who), words);
    log.append(paragraph);
    log.scrollTop = log.scrollHeight;
    messages.push({role, content: text});
    paragraphs.push(paragraph);
    return words;
  }

  /** Looks back on so many tokens only: it never learned to answer to longer conversations. */
  function forget(tokenizer, window) {
    const length = () => tokenizer.render_for_completion(messages).length;
    let last;
    while (messages.length > 1 && length() > window) {
      messages.splice(0, 2); // a question and its answer
      for (last of paragraphs.splice(0, 2)) last.classList.add("minillm-forgotten");
    }
    if (!last) return;
    log.querySelector(".minillm-note")?.remove();
    last.after(h("p", {class: "minillm-note"}, "↑ 对话太长，以上的话它已经忘了。"));
  }

  async function ask(question) {
    const mine = {stopped: false};
    writing(mine);
    status.textContent = "正在载入模型……";
    try {
      const {model, tokenizer} = await MiniLLM.language(name);
      if (mine.stopped) return;
      const room = model.config.max_position_embeddings, window = MiniLLM.models[name].window ?? room / 2;
      const asked = tokenizer.render_for_completion([{role: "user", content: question}]).length;
      if (asked >= room) {
        status.textContent = `这句话有 ${asked} 个词元，它最多读 ${room - 1} 个：说短一点。`;
        return;
      }
      input.value = "";
      status.textContent = "";
      say("user", question);
      forget(tokenizer, window);
      cache ??= new MiniLLM.KVCache(model.config);
      const prompt = [...messages], words = say("assistant", ""), said = messages[messages.length - 1];
      for (const text of MiniLLM.reply(model, tokenizer, prompt, {cache})) {
        words.textContent = said.content += text; // one that is broken off counts as said
        log.scrollTop = log.scrollHeight;
        await pause();
        if (mine.stopped) break;
      }
      if (answer !== mine) return;
      const length = tokenizer.render_conversation(messages).ids.length;
      status.textContent = `它记着 ${length} 个词元；超过 ${window} 个，就从最早的话忘起。`;
    } catch (error) {
      status.textContent = `${error.message}。`;
    } finally {
      if (answer === mine) writing(null);
    }
  }

  const form = h("form", {class: "minillm-row"}, input, send, stop);
  form.onsubmit = (event) => {
    event.preventDefault();
    const question = input.value.trim();
    if (question && !answer) ask(question);
  };
  const chips = (settings.questions ?? "").split("|").filter(Boolean)
    .map((each) => button(each, () => { if (!answer) ask(each); }, {class: "minillm-chip"}));
  restart();
  return [
    h("div", {class: "minillm-row"}, h("label", {}, "训练到：", choice), button("重新开始", restart)),
    log, h("div", {class: "minillm-row"}, ...chips), form, status,
  ];
});
