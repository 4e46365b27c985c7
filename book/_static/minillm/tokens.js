// What tokens look like in a page: their characters, their bytes, their colours, and bars of what may come next. For the
// widgets that show tokens; they find all of this in MiniLLM.
//
// A Chinese character is three bytes, and a token may end in the middle of one. Such a token is drawn as the whole
// character, of which only its own share is inked.
(() => {
  "use strict";
  if (MiniLLM.chips) return; // a notebook brings this once for each output
  const {h, offered, probabilities, read, script, title} = MiniLLM;

  // --- Characters of tokens ----------------------------------------------------------------------------------------

  const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).toUpperCase().padStart(2, "0")).join(" ");

  /** How many bytes a character has that begins with this one; 0: none does. */
  function character_length(first) {
    return first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
  }

  /** The character that begins at `at`, as {text, length}; undefined if none does. */
  function character(bytes, at) {
    const length = character_length(bytes[at]);
    try {
      const decoder = new TextDecoder("utf-8", {fatal: true, ignoreBOM: true});
      return length ? {text: decoder.decode(bytes.subarray(at, at + length)), length} : undefined;
    } catch {
      return undefined;
    }
  }

  /** What each token of a row shows: [{text, from, to}, …], characters of which it holds the share from … to (0 to 1),
   * and {byte} for a byte that belongs to no character.
   *
   * pieces: the bytes of each token; none for a special one, which no character reaches across. */
  function glyphs(pieces) {
    const shown = pieces.map(() => []);
    let start = 0;
    for (let end = 0; end <= pieces.length; end++) {
      if (end < pieces.length && pieces[end].length) continue;
      glyphs_between(pieces.slice(start, end), shown.slice(start, end));
      start = end + 1;
    }
    return shown;
  }

  function glyphs_between(pieces, shown) {
    const bytes = Uint8Array.from(pieces.flatMap((piece) => [...piece]));
    const owner = pieces.flatMap((piece, i) => Array.from(piece, () => i)); // of each byte: the piece that it is in
    for (let at = 0; at < bytes.length; ) {
      const {text, length} = character(bytes, at) ?? {length: 1};
      if (text === undefined) shown[owner[at]].push({byte: bytes[at]});
      else
        for (let i = at; i < at + length; ) {
          const rest = owner.slice(i, at + length), held = rest.filter((piece) => piece === owner[i]).length;
          shown[owner[i]].push({text, from: (i - at) / length, to: (i - at + held) / length});
          i += held;
        }
      at += length;
    }
  }

  const as_bytes = (string) => Uint8Array.from(string, (byte) => byte.charCodeAt(0));

  /** Parts of a token, as strings of bytes, in the first of some texts in which they are whole characters or shares of
   * such; undefined if there is none. */
  function glyphs_within(parts, texts) {
    const token = parts.join("");
    for (const text of texts) {
      const at = text.indexOf(token);
      if (at < 0) continue;
      const before = text.slice(0, at), after = text.slice(at + token.length);
      const shown = glyphs([before, ...parts, after].filter(Boolean).map(as_bytes)).slice(before ? 1 : 0).slice(0, parts.length);
      if (shown.flat().every(({byte}) => byte === undefined)) return shown;
    }
    return undefined;
  }

  /** Glyphs whose loose bytes became shares of characters: those of the first token that has them. What was learned early
   * is frequent. */
  function completed(tokenizer, shown) {
    const find = (bytes) => glyphs_within([String.fromCharCode(...bytes)], tokenizer.tokens.slice(256))?.[0];
    const result = [];
    for (let i = 0; i < shown.length; ) {
      if (shown[i].byte === undefined) {
        result.push(shown[i++]);
        continue;
      }
      const run = shown.slice(i).map(({byte}) => byte);
      run.length = run.includes(undefined) ? run.indexOf(undefined) : run.length;
      const head = run.findIndex((byte, at) => at > 0 && character_length(byte) > 0); // of the next character
      const pieces = find(run) || head < 0 ? [run] : [run.slice(0, head), run.slice(head)];
      result.push(...pieces.flatMap((piece) => find(piece) ?? piece.map((byte) => ({byte}))));
      i += run.length;
    }
    return result;
  }

  /** What the last character of these bytes lacks: so many bytes. */
  function lacking(bytes) {
    for (let back = 1; back <= Math.min(3, bytes.length); back++) {
      const length = character_length(bytes[bytes.length - back]);
      if (length) return Math.max(0, length - back);
    }
    return 0;
  }

  /** What a token looks like that may come after `ids`. Of one that ends inside a character, the likeliest whole one: the
   * model reads on, always from the likeliest beginning that was found so far, until a character is whole. */
  function glyphs_after({model, tokenizer}, ids, id, cache, watch) {
    const bytes_of = (list) => Uint8Array.from(list.flatMap((one) => [...tokenizer.token_bytes(one)]));
    const special = (one) => one in tokenizer.special_names;
    let context = ids.slice(-3); // where its first character may have begun
    context = context.slice(context.map(special).lastIndexOf(true) + 1);
    const look = (more) => completed(tokenizer,
      glyphs([...context, id, ...more].map((one) => tokenizer.token_bytes(one)))[context.length]);
    const beginnings = [{more: [], p: 1}];
    for (let looks = 0; beginnings.length && looks < 10; looks++) {
      const {more, p} = beginnings.shift(), need = lacking(bytes_of([...context, id, ...more]));
      if (need === 0) return look(more);
      const continues = (bytes) => bytes.length > 0 && bytes.slice(0, need).every((byte) => byte >= 0x80 && byte < 0xc0);
      const logits = read(model, [...ids, id, ...more], cache, watch).subarray(0, tokenizer.vocab_size);
      for (const next of probabilities(logits, {temperature: 1})
        .filter((next) => continues(tokenizer.token_bytes(next.id))).slice(0, 5))
        beginnings.push({more: [...more, next.id], p: p * next.p});
      beginnings.sort((a, b) => b.p - a.p);
    }
    return look([]);
  }

  // --- Tokens in the page ------------------------------------------------------------------------------------------

  const SIGNS = {" ": "␣", "\n": "⏎", "\r": "⏎", "\t": "⇥"};

  /** Glyphs in words, for titles and screen readers. */
  function in_words(glyphs) {
    const say = ({text, from, to, byte}) =>
      byte !== undefined ? hex([byte]) : to - from < 1 ? `（“${text}”的一部分）` : SIGNS[text] ?? text;
    return glyphs.map(say).join("");
  }

  /** Glyphs as elements and text. */
  function draw(glyphs) {
    return glyphs.map(({text, from, to, byte}) => {
      if (byte !== undefined) return h("span", {class: "minillm-byte"}, hex([byte]));
      if (to - from === 1) return SIGNS[text] ?? text;
      return h("span", {class: "minillm-part", style: `--from: ${100 * from}%; --to: ${100 * to}%`}, text);
    });
  }

  /** A token by itself, in words. */
  function called(tokenizer, id) {
    return tokenizer.special_names[id] ?? `「${in_words(completed(tokenizer, glyphs([tokenizer.token_bytes(id)])[0]))}」`;
  }

  /** Colours of the tokens of a row, by number: an id keeps its own, unless the token before has the same. */
  const COLOURS = 6;
  function colours(ids) {
    let before = -1;
    return ids.map((id) => (before = id % COLOURS === before ? (before + 1) % COLOURS : id % COLOURS));
  }

  /** The tokens of a row as buttons. */
  function chips(tokenizer, ids) {
    const parts = glyphs(ids.map((id) => tokenizer.token_bytes(id))).map((part) => completed(tokenizer, part));
    const shades = colours(ids);
    return ids.map((id, i) => {
      const name = tokenizer.special_names[id], bytes = hex(tokenizer.token_bytes(id));
      const words = name ? `特殊词元 ${name}，编号 ${id}` : `${in_words(parts[i])}，编号 ${id}，字节 ${bytes}`;
      const kind = name ? "minillm-special" : `minillm-colour-${shades[i]}`;
      const chip = h("button", {type: "button", class: `minillm-token ${kind}`, title: words, "aria-label": words},
        ...(name ? [name.slice(2, -2)] : draw(parts[i])));
      chip.dataset.id = id;
      return chip;
    });
  }

  /** Buttons that Tab passes in one step and arrow keys walk through. select(i): the i-th was clicked or reached. */
  function group(element, select = () => {}) {
    const made = {element, members: []};
    const reach = (event) => {
      const at = made.members.findIndex((member) => member.contains(event.target));
      if (at < 0) return;
      made.members.forEach((member, i) => (member.tabIndex = i === at ? 0 : -1));
      select(at);
    };
    element.setAttribute("role", "group");
    element.addEventListener("focusin", reach);
    element.addEventListener("click", reach); // Safari gives no focus to a button that is clicked
    element.addEventListener("keydown", (event) => {
      const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
      const next = made.members[made.members.indexOf(document.activeElement) + step];
      if (!step || !next) return;
      event.preventDefault();
      next.focus();
    });
    /** Other buttons, standing in `children` if they have things around them; `first` is the one that Tab reaches. */
    made.show = (members, children = members, first = 0) => {
      made.members = members;
      members.forEach((member, i) => (member.tabIndex = i === first ? 0 : -1));
      element.replaceChildren(...children);
    };
    return made;
  }

  const percent = (p) => `${(100 * p).toFixed(1)}%`;

  /** What may come next, as bars to click on: rows {id, p, before, shape, title, onclick}. p 0: it is cut off. before:
   * where a mark stands. shape: what the token is drawn as. title: of what is no token of the tokenizer. */
  function bars(tokenizer, rows) {
    const about = (id) => `编号 ${id}${tokenizer.special_names[id] ? "" : `，字节 ${hex(tokenizer.token_bytes(id))}`}`;
    return h("div", {class: "minillm-bars"}, ...rows.map(({id, p, before, shape, title: told, onclick}) => {
      const text = shape.map((part) => part.textContent ?? part).join("");
      const label = `${text}，${p ? percent(p) : "去掉了"}${before === undefined ? "" : `，原来 ${percent(before)}`}`;
      const bar = h("button", {type: "button", class: `minillm-bar${p ? "" : " minillm-cut"}`, onclick,
        title: told ?? about(id), "aria-label": `${label}：写上去`},
        h("span", {class: "minillm-name", title: text}, ...shape),
        h("span", {class: "minillm-track"},
          h("span", {class: "minillm-fill", style: `width: ${100 * p}%`}),
          ...(before === undefined ? [] : [h("span", {class: "minillm-before", style: `left: ${100 * before}%`})])),
        h("span", {class: "minillm-percent"}, p ? percent(p) : "—"));
      bar.dataset.id = id;
      bar.dataset.p = p;
      return bar;
    }));
  }

  // --- Models and vocabularies -------------------------------------------------------------------------------------

  /** A list of the models that a widget offers, where there are several: {nodes, value()}. */
  function model_choice(settings, preferred, changed) {
    const names = offered(settings), wanted = settings.model ?? preferred;
    const select = h("select", {"aria-label": "模型", onchange: changed},
      ...names.map((name) => h("option", {value: name}, title(name))));
    select.value = names.includes(wanted) ? wanted : names[names.length - 1];
    return {nodes: names.length > 1 ? [select] : [], value: () => select.value};
  }

  /** The tokenizers that a page has without their models: name → RustBPETokenizer. */
  async function tokenizers() {
    if (!MiniLLM.vocabularies) await script("weights/vocabularies");
    return Object.fromEntries(Object.entries(MiniLLM.vocabularies)
      .map(([name, vocabulary]) => [name, new MiniLLM.RustBPETokenizer(vocabulary)]));
  }

  Object.assign(MiniLLM, {
    hex, glyphs, glyphs_within, glyphs_after, completed, in_words, draw, called, chips, group, percent, bars, model_choice, tokenizers,
  });
})();
