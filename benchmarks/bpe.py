"""RustBPE against the other BPE trainers there are: time, memory, and whether the tokens are equal.

    python benchmarks/bpe.py                       # Chinese and English, 6,391 tokens: minutes
    python benchmarks/bpe.py --vocab_sizes 32000 65536 --peers rustbpe gigabpe
    python benchmarks/bpe.py --hard                # inputs made to be hard
    python benchmarks/bpe.py --chinese FILE        # a text of your own, or JSON Lines of the mix
    python benchmarks/bpe.py --ablation            # RustBPE without each of its tricks

Makes the texts (in .cache/bench, once) and an environment for each peer (in .cache/peers, once),
trains each in a fresh process, and prints a Markdown table. All read the same file, one text a
line, with the same number of threads; time is that of training, reading included, memory the
peak of the whole process. What is equal is said beside it: RustBPE and rustbpe 0.1.0 must give the
very same tokens in the same order, or the benchmark fails. Hugging Face's tie rule is another one,
and gigabpe and ffbpe have split patterns of their own, so their vocabularies differ a little.

The texts are made up, so that everyone can make the same ones, but not at random: words are drawn
from a lexicon by Zipf's law, as they are in real text, and Chinese has no spaces between them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import repeat
from pathlib import Path
from statistics import median
from typing import Any

from setting import CACHE, machine, peer, start

import numpy as np

from minillm.data.readers import read
from minillm.data.rows import plain_text
from minillm.errors import UserError
from minillm.tokenizer.vocabulary import SPLIT_PATTERN, import_rustbpe

CHINESE_BYTES, ENGLISH_BYTES = 56_000_000, 23_000_000
SLOW = 20.0
"""Seconds from which on one run of a peer is enough."""

# Each reads the file argv[1], trains argv[2] tokens, and reports as JSON what it took.
REPORT = """
import json, re, resource, sys, time
path, size, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def lines():
    with open(path, encoding="utf-8", newline="\\n") as file:
        yield from file
def report(tokens):
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "megabytes": peak(), "tokens": tokens()}))
def peak():
    if sys.platform == "linux":  # ru_maxrss includes the process that started this one
        status = open("/proc/self/status", encoding="utf-8").read()
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", status).group(1)) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
def in_order(ranks):
    return [bytes(token).hex() for token, _ in sorted(ranks, key=lambda item: item[1])]
# GPT-2's letters for the bytes: printable ones stand for themselves, the rest for U+0100 and on.
printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
others = [byte for byte in range(256) if byte not in printable]
byte_of = {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
def spelled(vocab):
    return in_order((map(byte_of.__getitem__, token), id) for token, id in vocab.items())
"""
RUSTBPE = """
import rustbpe
tokenizer = rustbpe.Tokenizer()
start = time.perf_counter()
{train}
report(lambda: in_order(tokenizer.get_mergeable_ranks()))
"""
BY_FILE = RUSTBPE.format(train="tokenizer.train_from_file(path, size)")
BY_ITERATOR = RUSTBPE.format(train="tokenizer.train_from_iterator(lines(), size)")
HUGGING_FACE = """
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
pattern = PATTERN
tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
    pre_tokenizers.Split(Regex(pattern), "isolated"),
    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
])
trainer = trainers.BpeTrainer(
    vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
)
start = time.perf_counter()
tokenizer.train([path], trainer)
report(lambda: spelled(tokenizer.get_vocab()))
""".replace("PATTERN", repr(SPLIT_PATTERN))
GIGABPE = """
import gigabpe
start = time.perf_counter()
vocab, _ = gigabpe.train_bpe(
    [path], size, special_tokens=[], pretokenizer="bytelevel", threads=threads
)
report(lambda: spelled(vocab))
"""
FFBPE = """
import ffbpe
start = time.perf_counter()
model = ffbpe.train_bpe(lines(), vocab_size=size)
report(lambda: in_order((token, id) for token, id in model.vocab.items()))
"""
OURS = ("RustBPE, a file", "RustBPE, an iterator")
CONTENDERS: dict[str, tuple[str | None, str]] = {
    OURS[0]: (None, BY_FILE),
    OURS[1]: (None, BY_ITERATOR),
    "rustbpe 0.1.0": ("rustbpe==0.1.0", BY_ITERATOR),
    "gigabpe 0.1.0": ("gigabpe==0.1.0", GIGABPE),
    "ffbpe 0.1.10": ("ffbpe==0.1.10", FFBPE),
    "Hugging Face tokenizers 0.23.1": ("tokenizers==0.23.1", HUGGING_FACE),
}
"""Name → (what to install, None for this project's own; how to train)."""

RUST = Path(__file__).resolve().parents[1] / "rustbpe"
TRICKS = {
    "all tricks": "",
    "one thread": "threads",
    "threads meet after each merge": "batches",
    "every pair tracked, however rare": "threshold",
    "pairs counted by hash from the start": "table",
    "no hashed buckets": "buckets",
    "no look-ahead": "look-ahead",
    "split by a regex engine": "splitter",
}
"""What ``--ablation`` measures → RUSTBPE_WITHOUT (see rustbpe/src/ablation.rs)."""


@dataclass(frozen=True)
class Options:
    """Compare RustBPE with other BPE trainers."""

    chinese: Path | None = None
    """A text, one a line, or rows of JSON Lines; none: one is made."""
    english: Path | None = None
    """The same in English."""
    vocab_sizes: tuple[int, ...] = (6391,)
    """Sizes of the vocabulary to train."""
    peers: tuple[str, ...] = ("rustbpe", "gigabpe", "ffbpe", "Hugging Face")
    """The beginnings of the names of the peers to run."""
    threads: int = 2
    repeats: int = 3
    """Runs of each, in turn; the median counts. A peer that takes long runs once."""
    hard: bool = False
    """Inputs made to be hard, beside rustbpe 0.1.0 alone."""
    ablation: bool = False
    """RustBPE with all its tricks, and without each; no peers."""


# --- Texts ----------------------------------------------------------------------------------------


def zipf(rng: np.random.Generator, ranks: int, count: int, exponent: float) -> np.ndarray[Any, Any]:
    """``count`` numbers below ``ranks``, small ones more often."""
    weights = (np.arange(ranks) + 10.0) ** -exponent
    return rng.choice(ranks, count, p=weights / weights.sum())


def lexicon(
    rng: np.random.Generator, letters: list[str], words: int, lengths: list[float], exponent: float
) -> np.ndarray[Any, Any]:
    """Words of 1, 2, ... letters; ``lengths`` are the shares of these."""
    picks = iter(zipf(rng, len(letters), words * len(lengths), exponent))
    sizes = rng.choice(len(lengths), words, p=lengths) + 1
    return np.array(["".join(letters[next(picks)] for _ in range(n)) for n in sizes], object)


def lines(
    rng: np.random.Generator,
    size: int,
    words: np.ndarray[Any, Any],
    marks: list[str],
    between: str,
    *,
    exponent: float,
    marked: float,
    last: float,
    capital: float = 0.0,
) -> Iterator[str]:
    """Lines of words, ``size`` bytes or more; the last three are shares of the words: followed by
    a mark, the last one of a line, with a capital letter."""
    while size > 0:
        text = words[zipf(rng, len(words), 400_000, exponent)]
        if capital:
            upper = rng.random(len(text)) < capital
            text[upper] = [word.capitalize() for word in text[upper]]
        ends = rng.random(len(text)) < marked
        text[ends] = text[ends] + np.array(marks)[zipf(rng, len(marks), int(ends.sum()), 1.2)]
        for line in np.split(text, np.flatnonzero(rng.random(len(text)) < last) + 1):
            row = between.join(line) + "\n"
            size -= len(row.encode())
            yield row


def chinese(size: int) -> Iterator[str]:
    """Clauses of a few words without spaces, lines of many clauses."""
    rng = np.random.default_rng(0)
    letters = [chr(0x4E00 + i) for i in rng.permutation(20_000)[:6000]]
    words = lexicon(rng, letters, 200_000, [0.12, 0.68, 0.14, 0.06], 0.8)
    marks = [",", "。", ",", "、", "?", "!", ":", "“", "”", " ", "12", "2024", "GPT"]
    return lines(rng, size, words, marks, "", exponent=1.0, marked=0.32, last=0.004)


def english(size: int) -> Iterator[str]:
    """Words with spaces between them, some capitals, marks and numbers."""
    rng = np.random.default_rng(1)
    onsets = [*"bcdfghjklmnprstvw", "st", "th", "ch", "br", "tr", "pl"]
    syllables = [a + b + c for a in onsets for b in "aeiou" for c in ("", "n", "r", "t", "l")]
    words = lexicon(rng, syllables, 120_000, [0.15, 0.45, 0.28, 0.12], 0.6)
    marks = [",", ".", "'s", ";", "?", " 12", " (1998)", '"', "-"]
    return lines(rng, size, words, marks, " ", exponent=1.05, marked=0.12, last=0.01, capital=0.1)


def hard() -> dict[str, Callable[[], Iterator[str]]]:
    """Name → lines of an input that could bring a trainer to its knees."""

    def random_lines(low: int, high: int, length: int, count: int) -> Iterator[str]:
        rng = np.random.default_rng(2)
        for _ in range(count):
            points = rng.integers(low, high, length)
            yield "".join(map(chr, points[(points < 0xD800) | (points > 0xDFFF)])) + "\n"

    return {
        "nothing but `ab`": lambda: iter(["ab\n"]),
        "100 short lines": lambda: ("the quick brown fox, 敏捷的狐狸\n" for _ in range(100)),
        "1,000,000 equal lines": lambda: repeat(
            "这是一行一模一样的很长的文字没有什么区别\n", 1_000_000
        ),
        "one line of 77 MB": lambda: iter(["word 你好, " * 5_900_000]),
        "one word of 20 MB, `aaaa...`": lambda: iter(["a" * 20_000_000]),
        "one word of 20 MB, `abab...`": lambda: iter(["ab" * 10_000_000]),
        "random bytes as Latin-1, 8 MB": lambda: random_lines(0, 256, 1000, 5_400),
        "200,000 different characters, 8 MB": lambda: random_lines(0x4E00, 0x34000, 50, 40_000),
        "random Han, one line, 3 MB": lambda: random_lines(0x4E00, 0x9FFF, 1_000_000, 1),
        "4,000,000 different numbers": lambda: (f"{i * 7919}\n" for i in range(4_000_000)),
        "4,000,000 different words": lambda: (
            " " + np.base_repr(i * 7919 + 10**7, 36).translate(NO_DIGITS) + "\n"
            for i in range(4_000_000)
        ),
    }


NO_DIGITS = str.maketrans("0123456789", "abcdefghij")


def written(name: str, lines: Iterator[str]) -> Path:
    """The file of these lines; not written again if it is there."""
    path = CACHE / "bench" / "bpe" / f"{name}.txt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        with part.open("w", encoding="utf-8", newline="") as file:
            file.writelines(lines)
        part.rename(path)
    return path


def as_text(name: str, path: Path) -> Path:
    """The text of a file of one's own: of its rows, if it has rows."""
    if not path.is_file():
        raise UserError(f"--{name}: {path}: no such file")
    if path.suffix not in (".jsonl", ".json"):
        return path
    stat = path.stat()
    rows = (plain_text(record.row).replace("\n", " ") + "\n" for record in read(path))
    return written(f"{name}-{path.stem}-{stat.st_size}-{stat.st_mtime_ns}", rows)


# --- Measuring ------------------------------------------------------------------------------------


def run(name: str, path: Path, vocab_size: int, threads: int) -> dict[str, Any]:
    """One training in a process of its own: seconds, megabytes, tokens."""
    requirement, code = CONTENDERS[name]
    python = sys.executable if requirement is None else peer(requirement)
    result = subprocess.run(
        [python, "-c", REPORT + code, path, str(vocab_size), str(threads)],
        env={**os.environ, "RAYON_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true"},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if result.returncode:
        sys.exit(f"{name} ended with exit code {result.returncode}:\n{result.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def compare(title: str, path: Path, vocab_size: int, names: list[str], options: Options) -> None:
    """Trains all on one text and prints their table."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(options.repeats):
        # In turn, so that a busy minute of the machine meets all.
        for name, done in runs.items():
            if not done or name in OURS or done[0]["seconds"] < SLOW:
                done.append(run(name, path, vocab_size, options.threads))
    reference = runs[OURS[0]][0]["tokens"]
    size = path.stat().st_size / 1e6
    print(f"\n{title}, {size:,.1f} MB, {vocab_size:,} tokens\n")
    print("| | seconds | × | MB | × | tokens as RustBPE's | runs |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    ours = seconds_and_megabytes(runs[OURS[0]])
    for name, done in runs.items():
        tokens = done[0]["tokens"]
        same = "all, in order"
        if tokens != reference:
            if name in OURS or name == "rustbpe 0.1.0":
                sys.exit(f"{name} learned other tokens than {OURS[0]} from {path}")
            common = len(set(tokens) & set(reference))
            same = "all" if common == len(reference) else f"{common / len(reference):.1%}"
        seconds, megabytes = seconds_and_megabytes(done)
        print(
            f"| {name} | {seconds:.3g} | {seconds / ours[0]:.1f} | {megabytes:,.0f} | "
            f"{megabytes / ours[1]:.1f} | {same} | {len(done)} |",
            flush=True,
        )


def seconds_and_megabytes(runs: list[dict[str, Any]]) -> tuple[float, float]:
    return median(r["seconds"] for r in runs), median(r["megabytes"] for r in runs)


def ablation(title: str, path: Path, vocab_size: int, options: Options) -> None:
    """Trains with all tricks and without each, in turn, and prints their table."""
    merges = CACHE / "bench" / "bpe" / "merges.txt"
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in TRICKS}
    learned = set()
    for _ in range(options.repeats):
        for name, without in TRICKS.items():
            threads = 1 if without == "threads" else options.threads
            result = subprocess.run(
                [trainer(), path, str(vocab_size), str(threads), merges],
                env={**os.environ, "RUSTBPE_WITHOUT": without},
                stdout=subprocess.PIPE,
                encoding="utf-8",
                check=True,
            )
            runs[name].append(json.loads(result.stdout))
            learned.add(merges.read_bytes())
    if len(learned) > 1:
        sys.exit(f"without a trick, other merges are learned from {path}")
    print(f"\n{title}, {path.stat().st_size / 1e6:,.1f} MB, {vocab_size:,} tokens\n")
    print("| | seconds | × | MB | × |")
    print("| --- | --- | --- | --- | --- |")
    ours = seconds_and_megabytes(runs["all tricks"])
    for name, done in runs.items():
        seconds, megabytes = seconds_and_megabytes(done)
        print(
            f"| {name} | {seconds:.3g} | {seconds / ours[0]:.2f} | "
            f"{megabytes:,.0f} | {megabytes / ours[1]:.2f} |",
            flush=True,
        )


@cache
def trainer() -> Path:
    """The crate's example `train`, built so that it can do without a trick."""
    target = CACHE / "bench" / "ablation"
    build = ["cargo", "build", "--quiet", "--release", "--example", "train"]
    flags = ["--features", "ablation", "--manifest-path", str(RUST / "Cargo.toml")]
    subprocess.run([*build, *flags, "--target-dir", str(target)], check=True)
    return target / "release" / "examples" / "train"


def main(options: Options) -> None:
    if not options.ablation:
        import_rustbpe()  # or say what to do
    print(f"{machine()}; {options.threads} threads; median of {options.repeats} runs")
    if options.hard:
        for title, lines in hard().items():
            path = written(title.replace(" ", "-").replace("`", ""), lines())
            compare(title, path, 6391, [*OURS, "rustbpe 0.1.0"], options)
        return
    names = [n for n in CONTENDERS if n in OURS or n.startswith(options.peers)]
    for unknown in options.peers:
        if not any(name.startswith(unknown) for name in names[len(OURS) :]):
            raise UserError(f"--peers {unknown}: choose from {', '.join(CONTENDERS)}")
    texts = {
        "Chinese": as_text("chinese", options.chinese)
        if options.chinese
        else written("chinese", chinese(CHINESE_BYTES)),
        "English": as_text("english", options.english)
        if options.english
        else written("english", english(ENGLISH_BYTES)),
    }
    for title, path in texts.items():
        for vocab_size in options.vocab_sizes:
            if options.ablation:
                ablation(title, path, vocab_size, options)
            else:
                compare(title, path, vocab_size, names, options)


if __name__ == "__main__":
    start(main, Options)
