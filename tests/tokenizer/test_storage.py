"""A tokenizer's files: what is saved is loaded, and no damage goes unnoticed."""

from __future__ import annotations

import ast
import errno
import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from minillm.errors import UserError
from minillm.tokenizer import storage
from minillm.tokenizer.storage import META_FILE, PICKLE_FILE, RANKS_FILE
from minillm.tokenizer.vocabulary import SPLIT_PATTERN, RustBPETokenizer

CORPUS = ["小猫在河边钓鱼，小狗在河边睡觉。", "小猫说：你好！\n小狗说：你好！"]
SMALL = RustBPETokenizer.train(CORPUS, 290)
BYTES = RustBPETokenizer({bytes([byte]): byte for byte in range(256)})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    SMALL.save(tmp_path / "deep" / "tokenizer")
    return tmp_path / "deep" / "tokenizer"


def same(left: RustBPETokenizer, right: RustBPETokenizer) -> bool:
    return left.fingerprint == right.fingerprint and left.statistics == right.statistics


def test_what_is_saved_is_loaded(saved: Path) -> None:
    assert sorted(os.listdir(saved)) == [PICKLE_FILE, RANKS_FILE, META_FILE]
    assert same(RustBPETokenizer.load(saved), SMALL)


def test_what_the_files_say(saved: Path) -> None:  # [3.3]
    meta = json.loads((saved / META_FILE).read_text("utf-8"))
    assert meta["pattern"] == SPLIT_PATTERN
    assert meta["special_tokens"]["<|bos|>"] == 281
    assert meta["statistics"] == SMALL.statistics
    assert meta["statistics"]["mergeable_tokens"] == 281
    with (saved / PICKLE_FILE).open("rb") as file:
        plain = pickle.load(file)
    assert {**meta, "tokens": list(SMALL.mergeable_ranks)} == plain


def test_tiktoken_reads_the_ranks(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")  # it would remember the file, local as it is
    from tiktoken.load import load_tiktoken_bpe

    assert load_tiktoken_bpe(str(saved / RANKS_FILE)) == SMALL.mergeable_ranks


def test_statistics_of_a_vocabulary() -> None:
    more = {"好".encode(): 256, "好".encode()[:2]: 257, "\ufffd".encode(): 258}
    found = RustBPETokenizer({**BYTES.mergeable_ranks, **more}).statistics
    assert found["mergeable_tokens"] == 259
    assert found["tokens_not_utf8"] == 128 + 1
    assert found["mean_token_bytes"] == round((256 + 8) / 259, 3)
    assert found["longest_token_bytes"] == 3


def test_the_fingerprint_tells_pattern_and_ranks_apart() -> None:
    again = RustBPETokenizer.train(CORPUS, 290)
    other_pattern = RustBPETokenizer(SMALL.mergeable_ranks, r"\s+|\S+")
    other_ranks = RustBPETokenizer.train(CORPUS, 289)
    other_statistics = RustBPETokenizer(SMALL.mergeable_ranks, statistics={"x": 1})
    assert again.fingerprint == SMALL.fingerprint == other_statistics.fingerprint
    assert len({t.fingerprint for t in (SMALL, other_pattern, other_ranks)}) == 3


@pytest.mark.parametrize(
    "ranks",
    [
        {},
        {b"a": 0},
        {bytes([byte]): 255 - byte for byte in range(256)},
        {**BYTES.mergeable_ranks, b"ab": 257},
        {bytes([byte]): byte for byte in reversed(range(256))},
    ],
)
def test_ranks_that_make_no_sense(ranks: dict[bytes, int]) -> None:
    with pytest.raises(ValueError, match=r"ranks must be|single bytes"):
        RustBPETokenizer(ranks)


def harm(path: Path) -> bytes:
    """A pickle that makes a file when it is read."""

    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (path,))

    return pickle.dumps({"pattern": Harmful()})


def test_a_pickle_is_never_read(saved: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    harmful = harm(mark)
    (saved / PICKLE_FILE).write_bytes(harmful)
    assert same(RustBPETokenizer.load(saved), SMALL)
    (saved / META_FILE).unlink()
    wanted = f"no {META_FILE} in this folder, and its {PICKLE_FILE} is not read; copy {META_FILE}"
    with pytest.raises(UserError, match=f"{saved}: {wanted} and {RANKS_FILE} there, or train"):
        RustBPETokenizer.load(saved)
    assert not mark.exists()
    pickle.loads(harmful)
    assert mark.exists()  # the pickle was really harmful


def test_nothing_in_the_package_reads_pickles() -> None:
    readers = {"pickle.load", "pickle.loads", "pickle.Unpickler", "torch.load"}
    for path in Path(storage.__file__).parents[1].rglob("*.py"):
        tree = ast.parse(path.read_bytes())
        used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not used & readers, path
        assert ("pickle.dumps" in used) == (path.name == "storage.py"), path


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (META_FILE, lambda content: b""),
        (META_FILE, lambda content: content[:-20]),
        (META_FILE, lambda content: b"[]"),
        (META_FILE, lambda content: b"\xff\xfe"),
        (META_FILE, lambda content: content.replace(b'"fingerprint"', b'"thumbprint"')),
        (META_FILE, lambda content: content.replace(b"{1,3}", b"{1,2}")),
        (META_FILE, lambda content: content.replace(b"{1,3}", b"{1,")),
        (META_FILE, lambda content: content.replace(b"<|user_start|>", b"<|User_start|>")),
        (META_FILE, lambda content: content.replace(b'"<|bos|>": 281', b'"<|bos|>": 280')),
        (META_FILE, lambda content: content.replace(b'"fingerprint": "', b'"fingerprint": "0')),
        (RANKS_FILE, lambda content: b""),
        (RANKS_FILE, lambda content: content[:-5]),
        (RANKS_FILE, lambda content: content.replace(b"AA== 0\n", b"AQ== 0\n")),
        (RANKS_FILE, lambda content: content + b"eHh4eA== 281\n"),
    ],
)
def test_a_damaged_file_is_named(saved: Path, name: str, damage: Any) -> None:
    content = (saved / name).read_bytes()
    assert damage(content) != content
    (saved / name).write_bytes(damage(content))
    with pytest.raises(UserError, match=name) as caught:
        RustBPETokenizer.load(saved)
    assert str(caught.value).startswith(str(saved))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "damage",
    [
        lambda ranks: b"",
        lambda ranks: ranks.replace(b" 280\n", b" 999\n"),
        lambda ranks: ranks.replace(b" 280\n", b"\n"),
        lambda ranks: ranks.replace(b" 280\n", b" x\n"),
        lambda ranks: ranks.replace(b"/w== 255\n", b"/w= 255\n"),
        lambda ranks: ranks.replace(b"/w== 255\n", b"/g== 255\n"),
        lambda ranks: b"".join(ranks.splitlines(keepends=True)[:-1]),
    ],
)
def test_ranks_are_checked_even_if_their_sum_is_right(saved: Path, damage: Any) -> None:
    content = (saved / RANKS_FILE).read_bytes()
    damaged = damage(content)
    assert damaged != content
    meta = json.loads((saved / META_FILE).read_text("utf-8"))
    meta["ranks_sha256"] = hashlib.sha256(damaged).hexdigest()
    (saved / META_FILE).write_text(json.dumps(meta), encoding="utf-8")
    (saved / RANKS_FILE).write_bytes(damaged)
    with pytest.raises(UserError, match=str(saved)):
        RustBPETokenizer.load(saved)


def test_missing_files_are_named(saved: Path, tmp_path: Path) -> None:
    (saved / RANKS_FILE).unlink()
    with pytest.raises(UserError, match=f"{RANKS_FILE}: cannot read"):
        RustBPETokenizer.load(saved)
    for empty in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=f"{empty}: no {META_FILE} in this folder"):
            RustBPETokenizer.load(empty)


def test_when_saving_fails_the_old_files_stay(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name == META_FILE:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="No space left on device; free some space"):
        BYTES.save(saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="file/tokenizer: cannot write"):
        SMALL.save(tmp_path / "file" / "tokenizer")
