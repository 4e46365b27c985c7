// The book's model in plain JavaScript: what minillm/tokenizer and minillm/model do, in a web page.
//
// Names and their order are the package's, also where JavaScript would writeThemLikeThis. What is different: there is
// one row and one token at a time, so a tensor [B, T, C] is a Float32Array of C numbers, and every token goes through
// the key-value cache. Letters in comments: T tokens so far, H query heads, K key/value heads, D head_dim, C
// hidden_size.
//
//   const {model, tokenizer} = MiniLLM.load(base64);         // what minillm.book.page writes
//   for (const text of MiniLLM.reply(model, tokenizer, [{role: "user", content: "你是谁？"}])) …
//
//   const cache = new MiniLLM.KVCache(model.config);
//   const logits = MiniLLM.read(model, ids, cache, watch);   // scores of what comes after the last of ids
//   MiniLLM.probabilities(logits, {temperature: 1, top_k: 0, top_p: 1});   // [{id, p}, …], the likeliest first
//   for (const {id, logits} of MiniLLM.generate(model, ids, {max_new_tokens, stop_ids, sampling, cache})) …
//
// `watch` looks inside while a token is computed; each of its functions may be left out:
//   attention(layer, head, weights)   what the token attends to: T numbers that add up to 1
//   off(layer, head)                  true: this head adds nothing
//   residual(layer, x)                the residual stream: 0 the embedding, 1 after the first block, … (a copy)
// `model.logits(x)` reads a residual stream as if it were the last.
//
// A classic script, no module: browsers load no module from file://.
globalThis.MiniLLM ??= (() => {
  "use strict";

  // --- Files -----------------------------------------------------------------------------------------------------

  /** A half-precision number from its 16 bits: sign, 5 of exponent, 10 of fraction. */
  function half(bits) {
    const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
    if (exponent === 0) return sign * fraction * 2 ** -24;
    return sign * (1024 + fraction) * 2 ** (exponent - 25);
  }

  /** A safetensors file (ArrayBuffer): {metadata, tensors: name → Float32Array}.
   *
   * Of a matrix in whole numbers (I8), "NAME.scale" says by what to multiply each row; "NAME.low" holds two more bits
   * of each number, four to a byte. */
  function read_safetensors(buffer) {
    const size = Number(new DataView(buffer).getBigUint64(0, true)); // of the header
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, size)));
    const {__metadata__: metadata, ...entries} = header;
    const tensors = {};
    for (const [name, {dtype, data_offsets: [start, end]}] of Object.entries(entries)) {
      const Stored = {F32: Float32Array, F16: Uint16Array, I8: Int8Array, U8: Uint8Array}[dtype];
      if (!Stored) throw new Error(`${name}: no way to read ${dtype}`);
      const stored = new Stored(buffer.slice(8 + size + start, 8 + size + end));
      tensors[name] = Float32Array.from(stored, dtype === "F16" ? half : undefined);
    }
    for (const [name, scales] of Object.entries(tensors)) {
      if (!name.endsWith(".scale")) continue;
      const stem = name.slice(0, -".scale".length), matrix = tensors[stem], low = tensors[`${stem}.low`];
      const columns = matrix.length / scales.length;
      for (let i = 0; i < matrix.length; i++) {
        if (low) matrix[i] = 4 * matrix[i] + ((low[i >> 2] >> (2 * (i & 3))) & 3);
        matrix[i] *= scales[Math.floor(i / columns)];
      }
      delete tensors[name];
    }
    return {metadata, tensors};
  }

  /** Model, tokenizer, and what is known of them (stage, step), from the base64 of such a file. */
  function load(base64) {
    const {metadata, tensors} = read_safetensors(Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)).buffer);
    const about = JSON.parse(metadata.minillm);
    return {model: new Transformer(about.model, tensors), tokenizer: new RustBPETokenizer(about.tokenizer), about};
  }

  // --- Tokenizer (minillm/tokenizer) -----------------------------------------------------------------------------

  // As in vocabulary.py. JavaScript has no ?+ and ++, which only save time here; its \s is not Unicode's white space;
  // and ſ is an s to a pattern that does not care for capitals.
  const SPLIT_PATTERN = new RegExp([
    "'(?:[sSſdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])", // English contractions: 's, 'll …
    "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+", // letters of any script, with one sign or space before them
    "|\\p{N}{1,3}", // up to three digits
    "| ?[^\\p{White_Space}\\p{L}\\p{N}]+[\\r\\n]*", // punctuation
    "|\\p{White_Space}*[\\r\\n]|\\p{White_Space}+(?!\\P{White_Space})|\\p{White_Space}+", // white space
  ].join(""), "gu");

  /** Text → token ids and back, and conversations → ids. Bytes are strings of characters U+0000 to U+00FF. */
  class RustBPETokenizer {
    /** tokens: the bytes of each token, in base64; special_tokens: name → id. */
    constructor({tokens, special_tokens}) {
      this.tokens = tokens.map(atob);
      this.mergeable_ranks = new Map(this.tokens.map((token, id) => [token, id]));
      this.special_tokens = special_tokens;
      this.special_names = Object.fromEntries(Object.entries(special_tokens).map(([name, id]) => [id, name]));
      this.vocab_size = tokens.length + Object.keys(special_tokens).length;
    }

    special_id(name) {
      return this.special_tokens[name];
    }

    get bos_id() {
      return this.special_id("<|bos|>");
    }

    /** The bytes of text that a token stands for: none for a special one. */
    token_bytes(id) {
      return Uint8Array.from(this.tokens[id] ?? "", (c) => c.charCodeAt(0));
    }

    /** The pieces of a text that no token crosses. */
    chunks(text) {
      return text.match(SPLIT_PATTERN) ?? [];
    }

    /** The ids of a text, never a special one. merges: only the first so many; all: Infinity. */
    encode(text, merges = Infinity) {
      return this.chunks(text).flatMap((chunk) => this.encode_chunk(chunk, merges));
    }

    /** As in bpe.py: of all neighbours, those that were merged first in training are merged first. */
    encode_chunk(chunk, merges = Infinity) {
      const tokens = Array.from(new TextEncoder().encode(chunk), (byte) => String.fromCharCode(byte));
      while (tokens.length > 1) {
        let best = -1, lowest = 256 + merges;
        for (let i = 0; i + 1 < tokens.length; i++) {
          const rank = this.mergeable_ranks.get(tokens[i] + tokens[i + 1]);
          if (rank < lowest) [best, lowest] = [i, rank];
        }
        if (best < 0) break;
        tokens.splice(best, 2, tokens[best] + tokens[best + 1]);
      }
      return tokens.map((token) => this.mergeable_ranks.get(token));
    }

    /** The text of ids; special tokens by their names, parts of characters as U+FFFD. */
    decode(ids) {
      const decoder = text_decoder();
      const texts = ids.map((id) => this.special_names[id] === undefined
        ? decoder.decode(this.token_bytes(id), {stream: true})
        : decoder.decode() + this.special_names[id]);
      return texts.join("") + decoder.decode();
    }

    /** A conversation [{role, content}, …]: {ids, mask}; a mask of 1 says that this token is to be learned. */
    render_conversation(messages) {
      const special = (name) => [this.special_id(`<|${name}|>`)];
      const ids = special("bos"), mask = [0];
      const add = (tokens, learn) => {
        ids.push(...tokens);
        mask.push(...tokens.map(() => learn));
      };
      let system = "";
      for (const {role, content} of messages) {
        if (role === "system") {
          system = `${content}\n\n`;
          continue;
        }
        const learn = role === "assistant" ? 1 : 0;
        add(special(`${role}_start`), 0);
        add(this.encode(system + content), learn);
        add(special(`${role}_end`), learn);
        system = "";
      }
      return {ids, mask};
    }

    /** A conversation up to <|assistant_start|>, for the model to go on from there. */
    render_for_completion(messages) {
      return [...this.render_conversation(messages).ids, this.special_id("<|assistant_start|>")];
    }
  }

  /** With {stream: true} it holds the bytes of a character back until it is whole. */
  function text_decoder() {
    return new TextDecoder("utf-8", {ignoreBOM: true});
  }

  // --- Transformer (minillm/model/transformer.py) ----------------------------------------------------------------

  /** Keys and values of the tokens already seen, so that each of them is computed once. `ids` are these tokens. */
  class KVCache {
    constructor(config) {
      const size = config.max_position_embeddings * config.num_key_value_heads * head_dim(config);
      const buffers = () => Array.from({length: config.num_hidden_layers}, () => new Float32Array(size));
      this.keys = buffers(); // of each layer: [T, K, D]
      this.values = buffers();
      this.ids = [];
    }

    get length() {
      return this.ids.length;
    }

    /** Stores k and v [K, D] of the newest token, which `ids` holds already. */
    append(layer, k, v) {
      this.keys[layer].set(k, (this.length - 1) * k.length);
      this.values[layer].set(v, (this.length - 1) * v.length);
      return [this.keys[layer], this.values[layer]];
    }
  }

  function head_dim(config) {
    return config.hidden_size / config.num_attention_heads;
  }

  /** cos and sin: position p turns pair i by p / theta^(2i/D) radians; here one position's, [D/2] each. */
  function rotary_tables(config, position) {
    const D = head_dim(config);
    const angles = Float64Array.from({length: D / 2}, (_, i) => position / config.rope_theta ** ((2 * i) / D));
    return [angles.map(Math.cos), angles.map(Math.sin)];
  }

  /** Turns each pair (x_i, x_{i + D/2}) of every head by its angle, in place. */
  function rotate(x, cos, sin) {
    const half_head = cos.length;
    for (let start = 0; start < x.length; start += 2 * half_head) {
      for (let i = 0; i < half_head; i++) {
        const a = x[start + i], b = x[start + half_head + i];
        x[start + i] = a * cos[i] - b * sin[i];
        x[start + half_head + i] = b * cos[i] + a * sin[i];
      }
    }
  }

  /** In place: scores → probabilities. */
  function softmax(scores) {
    let largest = -Infinity, sum = 0;
    for (const score of scores) largest = Math.max(largest, score);
    for (let i = 0; i < scores.length; i++) sum += scores[i] = Math.exp(scores[i] - largest);
    for (let i = 0; i < scores.length; i++) scores[i] /= sum;
    return scores;
  }

  /** x += y */
  function add(x, y) {
    for (let i = 0; i < x.length; i++) x[i] += y[i];
  }

  /** A matrix [rows, columns] times a vector. */
  class Linear {
    constructor(weight, columns) {
      this.weight = weight;
      this.columns = columns;
    }

    forward(x) {
      const {weight, columns} = this, rows = weight.length / columns;
      const y = new Float32Array(rows);
      let row = 0;
      // Four rows at a time: x is read once for all, and no sum waits for the addition before.
      for (; row + 4 <= rows; row += 4) {
        const one = row * columns, two = one + columns, three = two + columns, four = three + columns;
        let a = 0, b = 0, c = 0, d = 0;
        for (let i = 0; i < columns; i++) {
          const xi = x[i];
          a += weight[one + i] * xi;
          b += weight[two + i] * xi;
          c += weight[three + i] * xi;
          d += weight[four + i] * xi;
        }
        y[row] = a;
        y[row + 1] = b;
        y[row + 2] = c;
        y[row + 3] = d;
      }
      for (; row < rows; row++) for (let i = 0; i < columns; i++) y[row] += weight[row * columns + i] * x[i];
      return y;
    }
  }

  class RMSNorm {
    constructor(weight, eps) {
      this.weight = weight;
      this.eps = eps;
    }

    forward(x) {
      let squares = 0;
      for (const value of x) squares += value * value;
      const scale = 1 / Math.sqrt(squares / x.length + this.eps);
      return x.map((value, i) => value * scale * this.weight[i]);
    }
  }

  class Attention {
    constructor(config, layer, linear) {
      this.layer = layer;
      this.H = config.num_attention_heads;
      this.K = config.num_key_value_heads;
      this.D = head_dim(config);
      this.q_proj = linear("q_proj", config.hidden_size);
      this.k_proj = linear("k_proj", config.hidden_size);
      this.v_proj = linear("v_proj", config.hidden_size);
      this.o_proj = linear("o_proj", config.hidden_size);
    }

    forward(x, cos, sin, cache, watch) {
      const {H, K, D, layer} = this;
      const q = this.q_proj.forward(x); // [H, D]
      const k = this.k_proj.forward(x); // [K, D]
      const v = this.v_proj.forward(x); // [K, D]
      rotate(q, cos, sin);
      rotate(k, cos, sin);
      const [keys, values] = cache.append(layer, k, v); // [T, K, D]
      const T = cache.length, y = new Float32Array(H * D);
      for (let head = 0; head < H; head++) {
        const shared = Math.floor((head * K) / H) * D; // H / K query heads share a key and value head
        const weights = new Float32Array(T);
        for (let t = 0; t < T; t++) {
          let score = 0;
          for (let i = 0; i < D; i++) score += q[head * D + i] * keys[t * K * D + shared + i];
          weights[t] = score / Math.sqrt(D);
        }
        softmax(weights);
        watch.attention?.(layer, head, weights);
        if (watch.off?.(layer, head)) continue;
        for (let t = 0; t < T; t++)
          for (let i = 0; i < D; i++) y[head * D + i] += weights[t] * values[t * K * D + shared + i];
      }
      return this.o_proj.forward(y);
    }
  }

  class MLP {
    constructor(config, linear) {
      this.gate_proj = linear("gate_proj", config.hidden_size);
      this.up_proj = linear("up_proj", config.hidden_size);
      this.down_proj = linear("down_proj", config.intermediate_size);
    }

    forward(x) {
      const gate = this.gate_proj.forward(x), up = this.up_proj.forward(x);
      const silu = (value) => value / (1 + Math.exp(-value));
      return this.down_proj.forward(gate.map((value, i) => silu(value) * up[i]));
    }
  }

  class Block {
    constructor(config, layer, tensors) {
      const weight = (name) => tensors[`model.layers.${layer}.${name}.weight`];
      const linear = (part) => (name, columns) => new Linear(weight(`${part}.${name}`), columns);
      this.input_layernorm = new RMSNorm(weight("input_layernorm"), config.rms_norm_eps);
      this.self_attn = new Attention(config, layer, linear("self_attn"));
      this.post_attention_layernorm = new RMSNorm(weight("post_attention_layernorm"), config.rms_norm_eps);
      this.mlp = new MLP(config, linear("mlp"));
    }

    /** Adds to the residual stream, in place. */
    forward(x, cos, sin, cache, watch) {
      add(x, this.self_attn.forward(this.input_layernorm.forward(x), cos, sin, cache, watch));
      add(x, this.mlp.forward(this.post_attention_layernorm.forward(x)));
    }
  }

  /** A causal language model: a token in, a score for every possible next token out. */
  class Transformer {
    constructor(config, tensors) {
      this.config = config;
      this.embed_tokens = tensors["model.embed_tokens.weight"]; // [vocab_size, C]
      this.layers = Array.from({length: config.num_hidden_layers}, (_, i) => new Block(config, i, tensors));
      this.norm = new RMSNorm(tensors["model.norm.weight"], config.rms_norm_eps);
      this.lm_head = new Linear(this.embed_tokens, config.hidden_size); // the same table
    }

    /** Scores [vocab_size] of what comes after `id`, which is appended to the cache. */
    forward(id, cache, watch = {}) {
      const {config} = this, C = config.hidden_size;
      if (cache.length >= config.max_position_embeddings) throw new Error("no position is left for another token");
      const [cos, sin] = rotary_tables(config, cache.length);
      cache.ids.push(id);
      const x = this.embed_tokens.slice(id * C, (id + 1) * C);
      watch.residual?.(0, x.slice());
      for (const [i, layer] of this.layers.entries()) {
        layer.forward(x, cos, sin, cache, watch);
        watch.residual?.(i + 1, x.slice());
      }
      return this.logits(x);
    }

    /** What a residual stream [C] says of the next token: [vocab_size]. */
    logits(x) {
      return this.lm_head.forward(this.norm.forward(x));
    }
  }

  // --- Generation (minillm/model/generate.py) --------------------------------------------------------------------

  /** Scores after the last of `ids`. What the cache holds of their beginning is not computed again. */
  function read(model, ids, cache, watch) {
    let same = 0;
    while (same < ids.length - 1 && cache.ids[same] === ids[same]) same++;
    cache.ids.length = same;
    let logits;
    for (const id of ids.slice(same)) logits = model.forward(id, cache, watch);
    return logits;
  }

  /** What may come next: [{id, p}, …], the likeliest first. Temperature 0: the best only; top_k 0: all. */
  function probabilities(logits, {temperature = 0, top_k = 0, top_p = 1} = {}) {
    const ids = Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a]);
    if (temperature === 0) return [{id: ids[0], p: 1}];
    const kept = ids.slice(0, top_k || ids.length);
    const all = softmax(kept.map((id) => logits[id] / temperature));
    // A token stays if those better than it have not yet reached top_p: so the best one always stays.
    let before = 0, count = 0;
    while (count < all.length && (top_p === 1 || before < top_p)) before += all[count++];
    return kept.slice(0, count).map((id, i) => ({id, p: all[i] / before}));
  }

  /** Random numbers from 0 to 1, for a seed always the same (mulberry32). */
  function random_numbers(seed) {
    return () => {
      seed = (seed + 0x6d2b79f5) | 0;
      let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
    };
  }

  /** The id of one token. */
  function choose(logits, sampling, random) {
    const options = probabilities(logits, sampling);
    let left = random();
    return (options.find(({p}) => (left -= p) < 0) ?? options[options.length - 1]).id;
  }

  /** Continues a prompt: yields {id, logits}, the token and the scores that it was chosen by.
   *
   * vocab_size: the tokenizer's, which may be smaller than the model's. */
  function* generate(model, prompt, options = {}) {
    const {max_new_tokens = 256, stop_ids = [], sampling = {}, vocab_size, watch} = options;
    const cache = options.cache ?? new KVCache(model.config), random = random_numbers(sampling.seed ?? 0);
    const places = model.config.max_position_embeddings - prompt.length;
    let logits = read(model, prompt, cache, watch);
    for (let left = Math.min(max_new_tokens, places); left > 0; left--) {
      logits = logits.subarray(0, vocab_size);
      const id = choose(logits, sampling, random);
      if (stop_ids.includes(id)) return;
      yield {id, logits};
      if (left > 1) logits = model.forward(id, cache, watch);
    }
  }

  /** The assistant's answer to a conversation that ends with a question, as text that grows, character by character. */
  function* reply(model, tokenizer, messages, options = {}) {
    const decoder = text_decoder(), {vocab_size} = tokenizer;
    const stop_ids = [tokenizer.special_id("<|assistant_end|>"), tokenizer.bos_id];
    const prompt = tokenizer.render_for_completion(messages);
    for (const {id} of generate(model, prompt, {stop_ids, vocab_size, ...options}))
      yield decoder.decode(tokenizer.token_bytes(id), {stream: true});
    yield decoder.decode();
  }

  return {
    read_safetensors, load, RustBPETokenizer, KVCache, Transformer, softmax,
    read, probabilities, random_numbers, choose, generate, reply, text_decoder,
  };
})();
