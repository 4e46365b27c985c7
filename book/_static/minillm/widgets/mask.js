// Conversations as training reads them: which tokens are learned, where each stands, what it may look at.
//
// The steps are the package's: `fit` is in training/dataset.py, `pack` and `collate` are in training/packing.py,
// `may_look_at` is transformer.py's document_mask.
MiniLLM.widget("mask", async (element) => {
  "use strict";
  const {h, button, slider, called, chips, group} = MiniLLM;
  const IGNORE_INDEX = -100; // the label where nothing is to be learned
  const tokenizers = await MiniLLM.tokenizers(), tokenizer = tokenizers.tiny ?? tokenizers.shipped;
  const conversations = [
    ["8加4等于多少？", "12。"],
    ["你好。", "你好，我是米粒。", "张静住在哪里？", "张静住在北京。"],
    ["小兔把红色的雨伞放在桌子上。小兔去了公园。小狗把雨伞拿到了箱子里。雨伞在哪里？", "在箱子里。"],
    ["你是谁？", "我是米粒。"],
  ];

  const field = (turn, label) => h("input", {type: "text", "aria-label": label, value: conversations[0][turn], maxLength: 60,
    autocomplete: "off", oninput: start});
  const first = [field(0, "第一段对话里用户的话"), field(1, "第一段对话里助手的话")];
  const length = slider("行长", {min: 8, max: 64, value: 40, show: (n) => `${n} 个位置`}, start);
  const box = (checked) => h("input", {type: "checkbox", checked, onchange: start});
  const packed = box(true), apart = box(true);
  const summary = h("p", {class: "minillm-note", "aria-live": "polite"});
  const table = group(h("div", {class: "minillm-batch", "aria-label": "一批数据，一行一行地读；选一个位置来看"}), select);
  const detail = h("dl", {class: "minillm-detail", "aria-live": "polite"});
  let rows; // of positions {input, mask, label, next, position, document}
  let places; // [row, position] of each button
  let at = 8; // the button that was chosen

  /** Cut to so many positions, which is one token more: the last one is only ever a label. What has nothing left to learn
   * is dropped. */
  function fit(sequences, positions) {
    return sequences
      .map(({ids, mask}) => ({ids: ids.slice(0, positions + 1), mask: mask.slice(0, positions + 1)}))
      .filter(({mask}) => mask.slice(1).includes(1));
  }

  /** Which sequences share a row of so many positions: the longest first, each into the row that it leaves the least room
   * in. */
  function pack(lengths, capacity) {
    const rows = [], room = [];
    for (const unit of [...lengths.keys()].sort((a, b) => lengths[b] - lengths[a])) {
      let best = -1;
      for (const row of rows.keys())
        if (room[row] >= lengths[unit] && (best < 0 || room[row] < room[best])) best = row;
      if (best < 0) {
        best = rows.push([]) - 1;
        room.push(capacity);
      }
      rows[best].push(unit);
      room[best] -= lengths[unit];
    }
    return rows;
  }

  /** Rows as positions; padding has no document. */
  function collate(sequences, rows, capacity) {
    let document = 0;
    return rows.map((units) => {
      const row = units.flatMap((unit) => {
        const {ids, mask} = sequences[unit], number = document++;
        return ids.slice(0, -1).map((input, position) => {
          const next = ids[position + 1], label = mask[position + 1] ? next : IGNORE_INDEX;
          return {input, mask: mask[position], label, next, position, document: number};
        });
      });
      const padding = {input: 0, mask: 0, label: IGNORE_INDEX, position: 0, document: -1};
      return [...row, ...Array(capacity - row.length).fill(padding)];
    });
  }

  /** Whether position t of a row may look at position s. */
  function may_look_at(row, t, s) {
    return s <= t && (!apart.checked || row[s].document === row[t].document);
  }

  function start() {
    conversations[0] = first.map(({value}) => value);
    const sequences = conversations.map((turns) => tokenizer.render_conversation(
      turns.map((content, i) => ({role: i % 2 ? "assistant" : "user", content}))));
    const capacity = +length.input.value, kept = fit(sequences, capacity);
    const lengths = kept.map(({ids}) => ids.length - 1);
    rows = collate(kept, packed.checked ? pack(lengths, capacity) : kept.map((_, unit) => [unit]), capacity);
    places = rows.flatMap((row, r) => row.map((_, t) => [r, t]));
    show();
    const dropped = sequences.length - kept.length, used = lengths.reduce((sum, n) => sum + n, 0);
    const cut = sequences.filter(({ids}) => ids.length > capacity + 1).length - dropped;
    summary.textContent = `${sequences.length} 段对话，${rows.length} 行`
      + (rows.length ? `，${Math.round((100 * used) / places.length)}% 的位置有词元。` : "。")
      + (cut ? `${cut} 段放不下，截掉了尾巴。` : "") + (dropped ? `${dropped} 段截得没有回答了，整段丢掉。` : "");
    select(Math.min(at, places.length - 1));
  }

  function show() {
    const made = rows.map((row) => {
      const shown = chips(tokenizer, row.filter(({document}) => document >= 0).map(({input}) => input));
      return row.map((place, t) => {
        const chip = shown[t] ?? button("·", null, {class: "minillm-token minillm-padding", "aria-label": "填充"});
        const learned = place.label !== IGNORE_INDEX;
        chip.classList.toggle("minillm-learned", learned);
        chip.classList.toggle("minillm-first", place.document >= 0 && place.position === 0);
        if (learned) chip.append(h("small", {}, "→ ", ...chips(tokenizer, [place.next])[0].childNodes));
        Object.assign(chip.dataset, {mask: place.mask, label: place.label, position: place.position, document: place.document});
        return chip;
      });
    });
    table.show(made.flat(), made.map((row) => h("div", {class: "minillm-batch-row"}, ...row)), Math.max(0, Math.min(at, places.length - 1)));
  }

  /** A position was chosen. */
  function select(i) {
    detail.replaceChildren();
    if (i < 0) return;
    at = i;
    const [r, t] = places[i], row = rows[r], {document} = row[t];
    const seen = row.map((_, s) => may_look_at(row, t, s));
    const foreign = row.map((place, s) => seen[s] && place.document !== document);
    table.members.forEach((chip, j) => {
      const [other, s] = places[j];
      chip.classList.toggle("minillm-at", j === i);
      chip.classList.toggle("minillm-seen", other === r && seen[s]);
      chip.classList.toggle("minillm-leak", other === r && foreign[s]);
      chip.setAttribute("aria-pressed", String(j === i));
    });
    const count = (flags) => flags.filter(Boolean).length;
    for (const [name, text] of told(row[t], count(seen), count(foreign))) detail.append(h("dt", {}, name), h("dd", {}, text));
  }

  function told(place, seen, foreign) {
    if (place.document < 0) return [["填充", "这里没有词元，也不学什么；有词元的位置看不到它。"]];
    const next = called(tokenizer, place.next);
    return [
      ["输入", `${called(tokenizer, place.input)}，编号 ${place.input}；它自己的掩码是 ${place.mask}`],
      ["标签", place.label === IGNORE_INDEX ? `−100：下一个词元是 ${next}，它的掩码是 0，这里不算损失`
        : `${place.label}：下一个词元是 ${next}，它的掩码是 1，要学着说`],
      ["位置", `position_ids ${place.position}，document_ids ${place.document}`],
      ["看得见", `${seen} 个词元，下面画了线${foreign ? `；其中 ${foreign} 个是别的对话，橙色的线` : ""}`],
    ];
  }

  start();
  return [
    h("div", {class: "minillm-row"}, ...first),
    h("div", {class: "minillm-row"}, length.element, h("label", {}, packed, " 打包"), h("label", {}, apart, " 按对话隔开")),
    summary, table.element,
    h("p", {class: "minillm-note"}, h("span", {class: "minillm-token minillm-learned"}, "绿色"), "：这个位置要学，箭头后面是它的标签。灰色：只读。"),
    detail,
  ];
});
