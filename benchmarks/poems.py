"""What a model of classical poems has learned, beside what counting and copying can do.

    bash scripts/run.sh --preset small
    python benchmarks/poems.py

measures the text itself, bits per character, the form of what is written, and how much of it is
copied, and writes ``book/results/poems.json``, which chapter 14 draws: on two idle cores in some
eight minutes. Weights of earlier steps are measured too where OUT_DIR has them; ``--train`` trains
the model of the preset anew, and keeps them.

Everything is measured on poems that are held out, or, where it is said, on those that the model was
trained on. Whatever is drawn is drawn with fixed seeds.
"""

from __future__ import annotations

import lzma
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

from setting import machine, start

import msgspec
import numpy as np
import torch

from minillm.book import lab
from minillm.book.copies import longest_copies
from minillm.book.ngram import NGram
from minillm.config import TRAINING, Count, DataStage
from minillm.data import classical, tones, verse
from minillm.data.rows import Message
from minillm.errors import UserError
from minillm.evaluate import Evaluator, wilson_interval
from minillm.files import file_sha256, write_atomically
from minillm.model.generate import Sampling, complete
from minillm.model.transformer import Transformer
from minillm.own.paired import ratio_error
from minillm.own.text import OwnText, measure, split_characters, text_scores
from minillm.tokenizer.vocabulary import RustBPETokenizer
from minillm.training import loop
from minillm.training.checkpoint import (
    Metadata,
    check_matches,
    load_checkpoint,
    load_for_inference,
    save_checkpoint,
    weights_path,
)
from minillm.training.dataset import load_dataset
from minillm.training.packing import PackedRows

OUT = lab.RESULTS.with_name("poems.json")
ORDERS = (1, 2, 3, 4)
WRITING_ORDER = 3
"""Characters of the n-gram that writes poems."""
TUNING_EVERY = 640
"""Of so many training poems, one is for the discounts of the n-grams and not counted."""
WINDOW = 256
"""Tokens that the model was trained to read at once."""
MOST_TOKENS = 128
PREFIX_BYTES = 4 << 20
"""Training text that xz has seen before the poems to compress."""
FAMOUS = 4
"""Copies in the archive from which on a poem counts as famous."""
FEWER = 500
"""Held-out poems that the models beside the finished one are measured on."""
AT_ONCE = 60
"""Poems that are written at once."""
FORMS = ("五言绝句", "七言绝句", "五言律诗", "七言律诗")
KNOWN_TITLES = ("静夜思", "登鹳雀楼", "春望")
KEPT_STEPS = (100, 300, 1000)
"""Of pretraining, whose weights ``--train`` keeps beside the last ones."""
TITLES = ("秋夜", "江上", "地铁")
"""Of the poems that every stage writes: two old subjects, and one that no poem has."""
NEW_TITLES = ("地铁", "深夜改程序", "给爸爸妈妈")
AUTHOR = "陆游"
"""Pretraining has seen more poems of his than of anybody else."""


@dataclass(frozen=True)
class Options:
    """Measure a model of poems, and the poems."""

    rows: Path = Path("data/poetry/text_poetry.jsonl")
    """What `minillm download poetry` wrote."""
    archive: Path = Path("data/raw/poetry/chinese-poetry-2.0.1.tgz")
    """What it fetched: the tonal patterns are in it."""
    out_dir: Path = Path("out/small")
    """Folder of the weights."""
    data_path: Path = Path("data/processed/small/pretrain_chinese.jsonl")
    """What the weights were trained on; the questions of SFT lie beside it."""
    out: Path = OUT
    held_out: Count = 2000
    """Held-out poems that are predicted."""
    poems: Count = 200
    """Poems that each model writes."""
    train: bool = False
    """First train the small preset's two stages on the rows beside DATA_PATH, as
    `bash scripts/run.sh --preset small` does, into OUT_DIR, with the weights of some steps."""


def train_stages(options: Options) -> None:
    """Pretraining and SFT of the small preset: some 35 minutes on two idle cores."""
    stages: tuple[DataStage, ...] = ("pretrain", "sft")
    for stage in stages:
        config = replace(
            TRAINING["small"][stage],
            data_path=options.data_path.with_name(f"{stage}_chinese.jsonl"),
            out_dir=options.out_dir,
            tf_dir=options.out_dir / "tensorboard",
        )
        keep = partial(keep_step, options.out_dir) if stage == "pretrain" else None
        loop.train(config, stage, keep)


def keep_step(out_dir: Path, step: int, model: Transformer) -> None:
    """Saves the weights of one of KEPT_STEPS."""
    if step in KEPT_STEPS:
        fingerprint = RustBPETokenizer.load().fingerprint
        about = Metadata("pretrain", step, model.config, fingerprint, "", {})
        save_checkpoint(out_dir / f"step{step:04}.safetensors", model, about)


class Poem(msgspec.Struct, dict=True):
    """A row of the poems."""

    text: str
    title: str
    author: str
    paragraphs: list[str]
    copies: int
    split: str

    @cached_property
    def body(self) -> str:
        return "\n".join(self.paragraphs)

    @cached_property
    def bare(self) -> str:
        return classical.bare(self.body)

    @property
    def heading(self) -> str:
        """What the text has before the body: 《title》author and a line end."""
        return self.text[: len(self.text) - len(self.body)]


def read_poems(path: Path) -> list[Poem]:
    """Raises UserError: there is no such file, or its rows are other ones."""
    decoder = msgspec.json.Decoder(Poem)
    try:
        with path.open("rb") as file:
            return [decoder.decode(line) for line in file]
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}; run: minillm download poetry --out_dir {path.parent}"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not the rows of minillm download poetry ({error})") from None


def sample(poems: Sequence[Poem], count: int) -> list[Poem]:
    """The same ones every time."""
    return Random(1).sample(poems, min(count, len(poems)))


def share(hits: int, n: int) -> dict[str, Any]:
    """A proportion with its 95% interval (Wilson)."""
    low, high = wilson_interval(hits, n)
    found = round(hits / n, 4) if n else None
    return {"share": found, "n": n, "interval": [round(low, 4), round(high, 4)]}


# --- The text -------------------------------------------------------------------------------------


def zipf(poems: Sequence[Poem]) -> dict[str, Any]:
    """How often the character of each rank stands in the poems, for ranks that grow evenly on a
    logarithmic scale, and what the most frequent ones cover."""
    counts = Counter(chain.from_iterable(poem.bare for poem in poems))
    ordered = np.array(sorted(counts.values(), reverse=True))
    ranks = np.unique(np.geomspace(1, len(ordered), 50).round().astype(int))
    covered = ordered.cumsum() / ordered.sum()
    return {
        "characters": int(ordered.sum()),
        "distinct": len(ordered),
        "once": int((ordered == 1).sum()),
        "most": "".join(character for character, _ in counts.most_common(20)),
        "rank": ranks.tolist(),
        "count": ordered[ranks - 1].tolist(),
        "cover": {
            str(k): round(float(covered[min(k, len(ordered)) - 1]), 4)
            for k in (10, 100, 500, 1000, 2000, 3000, 5000)
        },
    }


def tokens(tokenizer: RustBPETokenizer, texts: Sequence[str]) -> dict[str, Any]:
    ids = tokenizer.encode_batch(list(texts))
    characters = sum(map(len, texts))
    split = sum(split_characters(tokenizer, i, t) for i, t in zip(ids, texts, strict=True))
    return {
        "vocabulary": tokenizer.vocab_size,
        "tokens_per_character": round(sum(map(len, ids)) / characters, 4),
        "split_characters": round(split / characters, 4),
    }


def tokenizers(built_in: RustBPETokenizer, train: Sequence[str], held: Sequence[str]) -> Any:
    """Tokens for the same held-out poems: the model's vocabulary, one of the same size that was
    learned from poems (where the Rust trainer is), and that of the micro-world."""
    found = {"built-in": tokens(built_in, held), "micro-world": tokens(lab.tokenizer(), held)}
    try:
        learned = RustBPETokenizer.train(train, built_in.vocab_size, use_rust=True)
        found["poems"] = tokens(learned, held)
    except UserError as error:
        print(f"no tokenizer of the poems: {error}", file=sys.stderr)
    return found


# --- Bits per character ---------------------------------------------------------------------------


def bits_of_model(evaluator: Evaluator, texts: Sequence[str]) -> dict[str, Any]:
    longest = min(WINDOW, evaluator.model.config.max_position_embeddings)
    rows = [OwnText(Path(), i, text) for i, text in enumerate(texts)]
    return _kept(text_scores(measure(evaluator, rows, longest)))


def _kept(scores: Mapping[str, Any]) -> dict[str, Any]:
    names = ("documents", "characters", "bits_per_character", "standard_error")
    return {name: round(scores[name], 4) for name in names}


def bits_of_ngram(model: NGram, texts: Sequence[str]) -> dict[str, Any]:
    bits, lengths = [float(model.bits(text).sum()) for text in texts], [*map(len, texts)]
    scores = {
        "documents": len(texts),
        "characters": sum(lengths),
        "bits_per_character": sum(bits) / sum(lengths),
        "standard_error": ratio_error(bits, lengths),
    }
    return _kept(scores) | {"discounts": [round(d, 2) for d in model.discounts]}


def bits_of_xz(train: Sequence[str], held: Sequence[str]) -> dict[str, Any]:
    """Bits per character of xz (LZMA2, preset 9): of the held-out text alone, and of what it adds
    to a megabyte or some of training text before it."""
    text = "\n\n".join(held)
    content = text.encode()
    before = "\n\n".join(sample_texts(train, PREFIX_BYTES)).encode()[:PREFIX_BYTES]
    alone = _compressed(content)
    after = _compressed(before + content) - _compressed(before)
    return {
        "alone": round(8 * alone / len(text), 4),
        "after": round(8 * after / len(text), 4),
        "before_bytes": len(before),
    }


def sample_texts(texts: Sequence[str], size: int) -> list[str]:
    """Texts drawn at random, of at least so many bytes in all, if there are so many."""
    order, chosen = Random(1).sample(range(len(texts)), len(texts)), []
    for i in order:
        chosen.append(texts[i])
        size -= len(texts[i].encode())
        if size <= 0:
            break
    return chosen


def _compressed(content: bytes) -> int:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9}]
    return len(lzma.compress(content, lzma.FORMAT_RAW, filters=filters))


# --- Writing --------------------------------------------------------------------------------------


def write(
    evaluator: Evaluator, prompts: Sequence[list[int]], temperature: float, most: int = MOST_TOKENS
) -> list[str]:
    """What the model goes on with after each prompt; temperature 0 is greedy."""
    tokenizer = evaluator.tokenizer
    stops = [tokenizer.special_id("<|assistant_end|>"), tokenizer.bos_id]
    texts: list[str] = []
    for at in range(0, len(prompts), AT_ONCE):
        sampling = Sampling(temperature, seed=at)
        part = prompts[at : at + AT_ONCE]
        size = tokenizer.vocab_size
        written = complete(evaluator.model, part, most, stops, sampling, vocab_size=size)
        texts += [tokenizer.decode(ids).strip() for ids in written]
    return texts


def go_on(tokenizer: RustBPETokenizer, text: str) -> list[int]:
    return [tokenizer.bos_id, *tokenizer.encode(text)]


def ask(tokenizer: RustBPETokenizer, question: str) -> list[int]:
    return tokenizer.render_for_completion([Message("user", question)])


def form(bodies: Sequence[str], levels: Mapping[str, float]) -> dict[str, Any]:
    """The share of poems whose clauses all have five or all have seven characters; and of these the
    shares whose even clauses rhyme, and whose tones alternate in every clause."""
    regular = [body for body in bodies if verse.metre(body)]
    rhymes = sum(bool(verse.rhymes(body)) for body in regular)
    alternate = sum(bool(tones.alternates(body, levels)) for body in regular)
    return {
        "metre": share(len(regular), len(bodies)),
        "rhymes": share(rhymes, len(regular)),
        "tones": share(alternate, len(regular)),
    }


def keeps_title(titles: Sequence[str], bodies: Sequence[str]) -> dict[str, Any]:
    """The share of poems that have a character of their title; and of the title of the poem before
    them in the list, as chance has it."""
    others = [*titles[-1:], *titles[:-1]]
    mine, chance = (
        sum(bool(set(title) & set(body)) for title, body in zip(some, bodies, strict=True))
        for some in (titles, others)
    )
    return {"title": share(mine, len(bodies)), "other_title": share(chance, len(bodies))}


def shuffled(body: str, random: Random) -> str:
    """The characters of a poem in any order; its punctuation stays where it is."""
    characters = list(classical.bare(body))
    random.shuffle(characters)
    return "".join(characters.pop() if classical.bare(sign) else sign for sign in body)


class Stages:
    """The models: at each step of pretraining that is there, and after SFT."""

    def __init__(self, out_dir: Path) -> None:
        finished, self.tokenizer, self.about = self._load(out_dir, "pretrain")
        self.pretrained: dict[int, Evaluator] = {}
        for path in sorted(out_dir.glob("step*.safetensors")):
            model, about = load_checkpoint(path)
            check_matches(path, about, finished.config, self.tokenizer)
            self.pretrained[about.step] = Evaluator(model.eval(), self.tokenizer)
        self.pretrained[self.about.step] = Evaluator(finished, self.tokenizer)
        self.pretrained = dict(sorted(self.pretrained.items()))
        self.finished = self.pretrained[self.about.step]
        self.sft = Evaluator(self._load(out_dir, "sft")[0], self.tokenizer)

    @staticmethod
    def _load(out_dir: Path, stage: Any) -> tuple[Any, RustBPETokenizer, Metadata]:
        if not weights_path(out_dir, stage).is_file():
            raise UserError(
                f"{weights_path(out_dir, stage)}: no such file; run: bash scripts/run.sh "
                "--preset small, or name the folder of the weights by --out_dir"
            )
        return load_for_inference(out_dir, stage, None, "cpu")


def written(
    stages: Stages, ngram: NGram, poems: Sequence[Poem], levels: Mapping[str, float]
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """The form of poems under the headings of held-out ones: real, shuffled, and by each model; and
    the poems."""
    tokenizer, random = stages.tokenizer, Random(1)
    headings = [go_on(tokenizer, poem.heading) for poem in poems]
    questions = [ask(tokenizer, f"写一首《{poem.title}》") for poem in poems]
    bodies = {
        "real": [poem.body for poem in poems],
        "shuffled": [shuffled(poem.body, random) for poem in poems],
        "ngram": [ngram.write(poem.heading, MOST_TOKENS, random).strip() for poem in poems],
    }
    for step, evaluator in stages.pretrained.items():
        bodies[f"step {step}"] = write(evaluator, headings, 1)
    bodies["sft"] = write(stages.sft, questions, 1)
    bodies["sft, 0.7"] = write(stages.sft, questions, 0.7)
    titles = [poem.title for poem in poems]
    return {
        name: form(some, levels) | keeps_title(titles, some) for name, some in bodies.items()
    }, bodies


def asked_forms(stages: Stages, poems: Sequence[Poem], levels: Mapping[str, float]) -> Any:
    """What the model writes when it is asked for one of the four forms."""
    found = {}
    for number, wanted in enumerate(FORMS):
        titles = [poem.title for poem in poems[number :: len(FORMS)]]
        prompts = [ask(stages.tokenizer, f"写一首{wanted}《{title}》") for title in titles]
        bodies = write(stages.sft, prompts, 1)
        right = sum(verse.kind(body) == wanted for body in bodies)
        found[wanted] = {"obeyed": share(right, len(bodies))} | form(bodies, levels)
    return found


# --- Memory ---------------------------------------------------------------------------------------


def seen_bodies(stages: Stages, path: Path, cache_dir: Path) -> set[str]:
    """The bodies of the training rows that pretraining has read, at least in part: of all the rows,
    only as many as the steps took.

    Raises UserError: the weights were trained on other rows.
    """
    about = stages.about.train
    if not path.is_file() or file_sha256(path) != stages.about.data:
        raise UserError(
            f"{path}: the weights were not trained on this file; name theirs by --data_path"
        )
    length = about["max_seq_len"]
    data = load_dataset(path, "pretrain", stages.tokenizer, length, cache_dir)
    read = stages.about.step * about["rows_per_step"]
    rows = PackedRows(data, length, about["epochs"], about["seed"], most=read)
    assert isinstance(data.ids, np.ndarray)  # since it is one file
    begins = data.ids[data.offsets[:-1]] == stages.tokenizer.bos_id
    documents = np.cumsum(begins) - 1
    places = np.concatenate([rows[i] for i in range(min(read, len(rows)))])
    numbers = set(documents[places].tolist())
    with path.open("rb") as file:
        raw = (msgspec.json.decode(line) for number, line in enumerate(file) if number in numbers)
        return {body_of(row) for row in raw}


def body_of(row: Mapping[str, Any]) -> str:
    """A poem's body: of its own row, or of a conversation, which stands among the rows of
    pretraining as a text that begins with the question's line."""
    if "paragraphs" in row:
        return "\n".join(row["paragraphs"])
    return str(row["text"]).partition("\n")[2]


def histogram(lengths: Iterable[int]) -> dict[str, int]:
    return {str(length): count for length, count in sorted(Counter(lengths).items())}


def recited(
    stages: Stages, poems: Sequence[Poem], corpus: Sequence[str], most: int = 64
) -> dict[str, Any]:
    """Given the heading and the first sentence, does the finished model say what comes next?

    ``next``: its next clause is the poem's; ``copied``: the longest strings that what it wrote has
    in common with any training poem.
    """
    prompts = [go_on(stages.tokenizer, f"{poem.heading}{poem.paragraphs[0]}\n") for poem in poems]
    said = write(stages.finished, prompts, 0, most)
    right = sum(
        verse.clauses(text)[:1] == verse.clauses("\n".join(poem.paragraphs[1:]))[:1]
        for text, poem in zip(said, poems, strict=True)
    )
    copied = longest_copies([classical.bare(text) for text in said], corpus)
    return {"next": share(right, len(poems)), "copied": histogram(copied)}


def asked_again(stages: Stages, path: Path, poems: Sequence[Poem], count: int) -> dict[str, Any]:
    """Titles that SFT asked for, in its words, and those of held-out poems: whether the first
    clause of the greedy answer is that of the poem."""
    with path.open("rb") as file:
        rows = [msgspec.json.decode(line)["messages"] for line in file]
    asked = [row for row in rows if "《" in row[0]["content"] and len(row) == 2]
    groups = {
        "trained": [
            tuple(m["content"] for m in row)
            for row in Random(1).sample(asked, min(count, len(asked)))
        ],
        "held out": [(f"写一首《{poem.title}》", poem.body) for poem in poems],
    }
    found = {}
    for name, pairs in groups.items():
        said = write(stages.sft, [ask(stages.tokenizer, q) for q, _ in pairs], 0, 32)
        right = sum(
            verse.clauses(text)[:1] == verse.clauses(body)[:1]
            for text, (_, body) in zip(said, pairs, strict=True)
        )
        found[name] = share(right, len(pairs))
    return found


def memory(
    stages: Stages, poems: Sequence[Poem], bodies: Mapping[str, list[str]], options: Options
) -> dict[str, Any]:
    """What is copied from the training poems, and what is recited."""
    train = [poem for poem in poems if poem.split == "train"]
    held = [poem for poem in poems if poem.split != "train"]
    seen = seen_bodies(stages, options.data_path, options.out_dir / "cache")
    corpus = [poem.bare for poem in train]
    read = [poem for poem in train if poem.body in seen and can_be_recited(poem)]
    groups = {
        "famous": [poem for poem in read if poem.copies >= FAMOUS],
        "once": sample([poem for poem in read if poem.copies == 1], options.poems),
        "held out": sample([*filter(can_be_recited, held)], options.poems),
    }
    texts = {name: [classical.bare(body) for body in some] for name, some in bodies.items()}
    lengths = longest_copies([*chain.from_iterable(texts.values())], corpus)
    copied, at = {}, 0
    for name, some in texts.items():
        copied[name] = histogram(lengths[at : at + len(some)])
        at += len(some)
    return {
        "train": len(train),
        "seen": sum(poem.body in seen for poem in train),
        "famous": FAMOUS,
        "copied": copied,
        "recited": {name: recited(stages, some, corpus) for name, some in groups.items()},
        "asked": asked_again(
            stages,
            options.data_path.with_name("sft_chinese.jsonl"),
            sample([poem for poem in held if poem.title], options.poems),
            options.poems,
        ),
    }


def can_be_recited(poem: Poem) -> bool:
    """Whether it has a title and, after its first sentence, more."""
    return bool(poem.title) and len(poem.paragraphs) > 1 and len(poem.text) < WINDOW // 2


# --- To show --------------------------------------------------------------------------------------


def showcase(stages: Stages, poems: Sequence[Poem]) -> dict[str, Any]:
    """Poems for fixed titles: by every stage, and by the last one for titles that training poems
    have and for those that none has."""
    tokenizer = stages.tokenizer
    headings = [go_on(tokenizer, f"《{title}》{AUTHOR}\n") for title in TITLES]
    stage = {str(step): write(e, headings, 0.7) for step, e in stages.pretrained.items()}
    stage["sft"] = write(stages.sft, [ask(tokenizer, f"写一首《{t}》") for t in TITLES], 0.7)
    used = Counter(poem.title for poem in poems if poem.split == "train")
    asked = []
    for title in (*KNOWN_TITLES, *NEW_TITLES):
        questions = [f"写一首《{title}》", *(f"写一首{wanted}《{title}》" for wanted in FORMS[:2])]
        prompts = [ask(tokenizer, question) for question in questions]
        greedy, drawn = write(stages.sft, prompts[:1], 0), write(stages.sft, prompts, 0.7)
        answers = dict(zip(questions, drawn, strict=True))
        asked.append(
            {"title": title, "poems": used[title], "greedy": greedy[0], "sampled": answers}
        )
    return {"titles": TITLES, "author": AUTHOR, "stages": stage, "asked": asked}


# --- All of it ------------------------------------------------------------------------------------


class Clock:
    """Says on stderr what is done, and how long it took."""

    def __init__(self) -> None:
        self.started = self.last = time.monotonic()

    def says(self, what: str) -> None:
        now = time.monotonic()
        print(f"{what}: {now - self.last:.0f} s", file=sys.stderr, flush=True)
        self.last = now


def measured_bits(
    stages: Stages, train: Sequence[str], held: Sequence[str], clock: Clock
) -> tuple[dict[str, Any], NGram]:
    """Bits per character of all that predicts; and the n-gram that writes."""
    found: dict[str, Any] = {"xz": bits_of_xz(train, held)}
    tuning = train[::TUNING_EVERY]
    counted = [text for i, text in enumerate(train) if i % TUNING_EVERY]
    writer = None
    for order in ORDERS:
        model = NGram(counted, order, tuning)
        found[f"{order}-gram"] = bits_of_ngram(model, held)
        writer = model if order == WRITING_ORDER else writer
        clock.says(f"{order}-gram")
    assert writer is not None
    found["small"] = bits_of_model(stages.finished, held)
    few = held[:FEWER]
    found["steps"] = {
        str(step): bits_of_model(evaluator, few) for step, evaluator in stages.pretrained.items()
    }
    found["sft"] = bits_of_model(stages.sft, few)
    clock.says("bits of the model")
    found["tiny"] = bits_of_model(lab.ladder("pretrain").evaluator(), few)
    clock.says("bits of the micro-world's model")
    return found, writer


def main(options: Options) -> None:
    if options.train:
        train_stages(options)
    clock, stages, poems = Clock(), Stages(options.out_dir), read_poems(options.rows)
    levels = tones.tones_in(options.archive)
    train = [poem for poem in poems if poem.split == "train"]
    held = [poem for poem in poems if poem.split != "train"][: options.held_out]
    texts, held_texts = [poem.text for poem in train], [poem.text for poem in held]
    clock.says("read")
    result: dict[str, Any] = {
        "machine": machine(),
        "torch": str(torch.__version__),
        "rows_sha256": file_sha256(options.rows),
        "steps": [*stages.pretrained],
        "parameters": stages.finished.model.num_parameters(),
        "zipf": zipf(train),
        "tokenizers": tokenizers(stages.tokenizer, texts, held_texts),
        "tones": {
            sign: "".join(c for c in levels if tones.tone(c, levels) == sign) for sign in "平仄"
        },
    }
    clock.says("text")
    result["bits"], ngram = measured_bits(stages, texts, held_texts, clock)
    prompted = sample(
        [poem for poem in held if poem.title and len(poem.text) < WINDOW // 2], options.poems
    )
    result["form"], bodies = written(stages, ngram, prompted, levels)
    result["asked"] = asked_forms(stages, prompted, levels)
    clock.says("poems written")
    result["memory"] = memory(stages, poems, bodies, options)
    clock.says("memory")
    result["showcase"] = showcase(stages, poems)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(
        options.out, msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n"
    )
    print(f"{len(poems):,} poems: {options.out}")


if __name__ == "__main__":
    start(main, Options)
