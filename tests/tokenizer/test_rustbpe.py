"""The crate `rustbpe` beside rustbpe 0.1.0, tiktoken and the Python reference [3.4]."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import setting

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

rustbpe: Any = pytest.importorskip("rustbpe")
if not hasattr(rustbpe, "__version__"):  # also a bare `rustbpe/` folder, or 0.1.0 from PyPI
    pytest.skip(
        "this project's rustbpe is not installed; build it with "
        "`maturin develop --release --manifest-path rustbpe/Cargo.toml`",
        allow_module_level=True,
    )
tiktoken = pytest.importorskip("tiktoken")

NANOCHAT_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
CORPORA: dict[str, list[str]] = {
    "chinese": [
        "今天天气很好,我们去公园吧。公园里有很多人在放风筝。",
        "明天天气也很好!我们还去公园吗?我们可以去图书馆。",
        "数学:3.14159 加 2.71828 等于多少?答案是 5.85987。",
    ]
    * 3,
    "english": ["She'll say it's 12345 times better; he'd say they've lost.\n\n  The end.  "] * 2,
    "runs": ["a" * 37 + " " + "b" * 20, "aaabaaab" * 5, "    \n \r\n\t\t" * 3],
    "scripts": ["Ünïcödé ſ'ſ Ελληνικά עברית العربية हिन्दी ไทย 한국어 🎉👩‍👩‍👧‍👦 \u0000\uffff𠀀"]
    * 2,
    "ties": ["dc ba bc cd ab", "zyxw wxyz"],
    "empty": ["", "", "x"],
    "nothing": [],
}

# Reads requests, one JSON object a line, and answers each with the bytes of its tokens in hex.
PEER = """
import json, sys, rustbpe
for line in sys.stdin:
    request = json.loads(line)
    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_iterator(
        iter(request["texts"]), request["vocab_size"], pattern=request["pattern"]
    )
    ranks = sorted(tokenizer.get_mergeable_ranks(), key=lambda item: item[1])
    print(json.dumps([token.hex() for token, _ in ranks]), flush=True)
"""


class Peer:
    """rustbpe 0.1.0 from PyPI in a process of its own: both packages have the same name."""

    def __init__(self, python: Path) -> None:
        self.process = subprocess.Popen(
            [python, "-c", PEER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )

    def train(self, texts: list[str], vocab_size: int, pattern: str | None = None) -> list[bytes]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        request = {"texts": texts, "vocab_size": vocab_size, "pattern": pattern}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return [bytes.fromhex(token) for token in json.loads(self.process.stdout.readline())]


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    try:
        python = setting.peer("rustbpe==0.1.0")
    except subprocess.CalledProcessError:
        pytest.skip("rustbpe 0.1.0 cannot be installed from PyPI")
    peer = Peer(python)
    yield peer
    peer.process.communicate(timeout=10)


def train(texts: Iterable[str], vocab_size: int, **options: Any) -> Any:
    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_iterator(iter(texts), vocab_size, **options)
    return tokenizer


def tokens(tokenizer: Any) -> list[bytes]:
    return [token for token, _ in tokenizer.get_mergeable_ranks()]


def as_tiktoken(tokenizer: Any) -> Any:
    return tiktoken.Encoding(
        name="test",
        pat_str=tokenizer.get_pattern(),
        mergeable_ranks=dict(tokenizer.get_mergeable_ranks()),
        special_tokens={},
    )


@pytest.mark.parametrize("pattern", [None, NANOCHAT_PATTERN, r"\S+|\s+"])
@pytest.mark.parametrize("corpus", CORPORA)
def test_merges_equal_rustbpe_0_1_0(peer: Peer, corpus: str, pattern: str | None) -> None:
    ours = train(CORPORA[corpus], 400, pattern=pattern)
    assert tokens(ours) == peer.train(CORPORA[corpus], 400, pattern)


def test_merges_equal_rustbpe_0_1_0_on_real_text(peer: Peer, real_data: Path) -> None:
    with (real_data / "pretrain_zh.jsonl").open(encoding="utf-8") as lines:
        texts = [json.loads(next(lines))["text"] for _ in range(300)]
    assert tokens(train(texts, 2000)) == peer.train(texts, 2000)


def test_modules_import_only_those_listed_before_them() -> None:
    source = Path(__file__).parents[2] / "rustbpe" / "src"
    listing = (source / "lib.rs").read_text(encoding="utf-8")
    listed = re.findall(r"^//! \d+\. \[`(\w+)`\]", listing, re.M)
    assert sorted(listed) == sorted(path.stem for path in source.glob("*.rs") if path.stem != "lib")
    for number, name in enumerate(listed):
        code = re.sub(r"//.*", "", (source / f"{name}.rs").read_text(encoding="utf-8"))
        imports = re.findall(r"crate::\{?(\w+)", code)
        assert set(imports) <= {*listed[: number + 1]}, name


few_letters = st.text(alphabet="ab c1'\n你们。", max_size=60)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(few_letters, max_size=6), vocab_size=st.integers(256, 330))
def test_merges_equal_rustbpe_0_1_0_on_random_text(
    peer: Peer, texts: list[str], vocab_size: int
) -> None:
    assert tokens(train(texts, vocab_size)) == peer.train(texts, vocab_size)


# The two pattern engines know different versions of Unicode: compare on what both have assigned.
assigned = st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=40)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(few_letters | assigned, max_size=6))
def test_merges_equal_the_python_reference(texts: list[str]) -> None:
    bpe: Any = pytest.importorskip("minillm.tokenizer.bpe")
    ours = train(texts, 330)
    ranks: dict[bytes, int] = bpe.train_bpe(texts, 330, ours.get_pattern())
    assert dict(ours.get_mergeable_ranks()) == ranks


@pytest.mark.parametrize("buffer_size", [1, 2, 1000])
def test_merges_do_not_depend_on_buffers(buffer_size: int) -> None:
    texts = CORPORA["chinese"] + CORPORA["english"]
    assert tokens(train(texts, 400, buffer_size=buffer_size)) == tokens(train(texts, 400))


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_merges_do_not_depend_on_threads(num_threads: int) -> None:
    # Long enough for several threads to have something to do.
    texts = [f"{text}{i}" for i in range(3000) for text in CORPORA["chinese"]]
    assert tokens(train(texts, 600, num_threads=num_threads)) == tokens(train(texts, 600))


@pytest.mark.parametrize("ending", ["\n", ""])
def test_files_are_their_lines(tmp_path: Path, ending: str) -> None:
    first, second = tmp_path / "一.txt", tmp_path / "two.txt"
    first.write_text("\n".join(CORPORA["chinese"]) + ending, encoding="utf-8", newline="")
    second.write_text("a\r\nb\rc" + "好" * 700_000 + ending, encoding="utf-8", newline="")
    lines = [
        line
        for path in (first, second)
        for line in path.open(encoding="utf-8", newline="\n").readlines()
    ]
    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_files([first, str(second)], 500, num_threads=2)
    assert tokens(tokenizer) == tokens(train(lines, 500))
    tokenizer.train_from_file(first, 400, NANOCHAT_PATTERN)
    assert tokens(tokenizer) == tokens(
        train(first.open(encoding="utf-8", newline="\n"), 400, pattern=NANOCHAT_PATTERN)
    )


def test_errors_of_files_name_file_and_line(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.txt", tmp_path / "坏.txt"
    good.write_text("abab\n" * 5, encoding="utf-8")
    bad.write_bytes("一行\n".encode() * 200_000 + b"abc\xff\n")
    tokenizer = train(["cdcd"], 300)
    before = tokens(tokenizer)
    with pytest.raises(ValueError, match=r"坏\.txt:200001: not valid UTF-8"):
        tokenizer.train_from_files([good, bad], 300)
    with pytest.raises(FileNotFoundError) as missing:
        tokenizer.train_from_file(tmp_path / "none.txt", 300)
    assert str(missing.value) == (f"[Errno 2] No such file or directory: '{tmp_path / 'none.txt'}'")
    with pytest.raises(IsADirectoryError):
        tokenizer.train_from_file(tmp_path, 300)
    assert tokens(tokenizer) == before


def test_a_sample_is_the_same_share_of_the_texts_every_way(tmp_path: Path) -> None:
    # Each text has a letter of its own, so the letters of the tokens tell which texts were taken.
    letters = [chr(0x4E00 + i) for i in range(20_000)]
    path = tmp_path / "letters.txt"
    path.write_text("".join(f"{letter}\n" for letter in letters), encoding="utf-8")
    lines = [f"{letter}\n" for letter in letters]
    vocab_size = 2 * len(letters)

    def taken(tokenizer: Any) -> set[bytes]:
        return set(tokens(tokenizer)) & {letter.encode() for letter in letters}

    some = train(lines, vocab_size, sample=0.2)
    assert len(taken(some)) == pytest.approx(4000, rel=0.1)
    assert tokens(train(lines[::-1], vocab_size, sample=0.2, num_threads=3)) == tokens(some)
    from_file = rustbpe.Tokenizer()
    from_file.train_from_file(path, vocab_size, sample=0.2)
    assert tokens(from_file) == tokens(some)
    assert taken(some) < taken(train(lines, vocab_size, sample=0.5))
    assert tokens(train(lines, vocab_size, sample=1.0)) == tokens(train(lines, vocab_size))


def test_progress_counts_up_to_all_bytes_and_merges(tmp_path: Path) -> None:
    lines = ["".join(chr(0x4E00 + i * j % 5003) for j in range(300)) + "\n" for i in range(4000)]
    path = tmp_path / "text.txt"
    path.write_text("".join(lines), encoding="utf-8")
    for from_file in (True, False):
        seen: list[tuple[int, int]] = []
        tokenizer = rustbpe.Tokenizer()
        report = {"progress": lambda *args, seen=seen: seen.append(args)}
        if from_file:
            tokenizer.train_from_file(path, 20_000, **report)
        else:
            tokenizer.train_from_iterator(iter(lines), 20_000, buffer_size=100, **report)
        assert seen[-1] == (path.stat().st_size, tokenizer.vocab_size - 256)
        assert seen == sorted(seen)
        assert len(seen) > 2  # it is called every 50 ms, and this takes some 20 times as long


def test_an_error_in_progress_stops_training() -> None:
    def report(read: int, merges: int) -> None:
        raise KeyError("from progress")

    tokenizer = train(["cdcd"], 300)
    before = tokens(tokenizer)
    with pytest.raises(KeyError, match="from progress"):
        tokenizer.train_from_iterator(["abab"] * 100, 300, progress=report)
    assert tokens(tokenizer) == before


@pytest.fixture(scope="module")
def trained() -> Any:
    return train([text for texts in CORPORA.values() for text in texts], 600)


@pytest.fixture(scope="module")
def oracle(trained: Any) -> Any:
    return as_tiktoken(trained)


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(max_size=200) | few_letters | st.text(alphabet="今天气很好公园ab ", max_size=400)
)
def test_encode_equals_tiktoken(trained: Any, oracle: Any, text: str) -> None:
    ids = trained.encode(text)
    assert ids == oracle.encode_ordinary(text)
    assert trained.decode(ids) == text


@pytest.mark.parametrize(
    "text",
    ["a" * 20_000, "今天天气很好" * 3000, "ab" * 10_000 + "c", " " * 3000 + "x", "aab" * 7000],
)
def test_long_chunks_equal_tiktoken(trained: Any, oracle: Any, text: str) -> None:
    assert trained.encode(text) == oracle.encode_ordinary(text)


@pytest.mark.parametrize("pattern", [r"[a-z]+", r"\d|\p{Han}+"])
def test_text_outside_the_pattern_is_dropped_as_by_tiktoken(pattern: str) -> None:
    text = "ab1 今天 XYxyx 今2天 ab."
    ours = train([text], 300, pattern=pattern)
    assert ours.encode(text) == as_tiktoken(ours).encode_ordinary(text)


def test_batch_encode_is_encode_of_each(trained: Any) -> None:
    texts = [text for texts in CORPORA.values() for text in texts]
    assert trained.batch_encode(texts) == [trained.encode(text) for text in texts]
    assert trained.batch_encode([]) == []


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_decode_equals_tiktoken_on_invalid_utf8(
    trained: Any, oracle: Any, data: st.DataObject
) -> None:
    ids = data.draw(st.lists(st.integers(0, trained.vocab_size - 1), max_size=30))
    assert trained.decode(ids) == oracle.decode(ids)


def test_fresh_tokenizer_has_the_bytes() -> None:
    fresh = rustbpe.Tokenizer()
    assert fresh.vocab_size == 256
    assert fresh.get_mergeable_ranks() == [(bytes([byte]), byte) for byte in range(256)]
    assert fresh.encode("好a") == list("好a".encode())


def test_training_again_starts_afresh() -> None:
    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_iterator(["abab"], 300)
    tokenizer.train_from_iterator(["cdcd"], 300, pattern=r"\w+")
    assert tokens(tokenizer)[256:] == [b"cd", b"cdcd"]
    assert tokenizer.get_pattern() == r"\w+"


def failing() -> Iterator[str]:
    yield "cdcd"
    raise KeyError("from the iterator")


@pytest.mark.parametrize(
    ("error", "match", "texts", "options"),
    [
        (ValueError, "at least 256", ["cd"], {"vocab_size": 255}),
        (ValueError, "buffer_size", ["cd"], {"buffer_size": 0}),
        (ValueError, "num_threads", ["cd"], {"num_threads": 0}),
        (ValueError, r"sample must be .* got 0", ["cd"], {"sample": 0}),
        (ValueError, "got NaN", ["cd"], {"sample": float("nan")}),
        (ValueError, "invalid split pattern", ["cd"], {"pattern": "("}),
        (ValueError, "split pattern failed", ["a" * 60 + "b"], {"pattern": "(?:a|aa)+(?=c)|b"}),
        (TypeError, "bytes", [b"cd"], {}),
        (TypeError, "not iterable", 5, {}),
        (UnicodeEncodeError, "surrogates", ["\ud800"], {}),
        (KeyError, "from the iterator", failing(), {}),
    ],
)
def test_an_error_leaves_the_tokenizer_as_it_was(
    error: type[Exception], match: str, texts: Any, options: dict[str, Any]
) -> None:
    tokenizer = train(["abab"], 257)
    before = tokens(tokenizer), tokenizer.get_pattern()
    with pytest.raises(error, match=match):
        tokenizer.train_from_iterator(texts, **{"vocab_size": 300} | options)
    assert (tokens(tokenizer), tokenizer.get_pattern()) == before


def test_encode_and_decode_errors(trained: Any) -> None:
    tokenizer = train(["ab"], 256, pattern="(?:a|aa)+(?=c)|b")
    with pytest.raises(ValueError, match="split pattern failed"):
        tokenizer.encode("a" * 60 + "b")
    with pytest.raises(ValueError, match="split pattern failed"):
        tokenizer.batch_encode(["b", "a" * 60 + "b"])
    with pytest.raises(ValueError, match="unknown token id: 70000"):
        trained.decode([1, 70_000])
    with pytest.raises(OverflowError):
        trained.decode([-1])


def test_other_threads_run_while_training() -> None:
    texts = ["".join(chr(0x4E00 + (i * j) % 5000) for j in range(200)) for i in range(9000)]
    worker = threading.Thread(target=train, args=(texts, 2000))
    worker.start()
    turns = 0
    while worker.is_alive():
        time.sleep(0.001)
        turns += 1
    assert turns > 5  # once or twice, if training kept the interpreter's lock


def test_ctrl_c_stops_training() -> None:
    code = (
        "import signal\n"
        "import rustbpe\n"
        # A shell starts its background jobs with Ctrl-C ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "rows = range(8000)\n"
        "texts = [''.join(chr(0x4E00 + i * j % 20011) for j in range(400)) for i in rows]\n"
        "print('go', flush=True)\n"
        "rustbpe.Tokenizer().train_from_iterator(texts, 60_000)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=6)  # training to the end takes longer
    assert "KeyboardInterrupt" in stderr
