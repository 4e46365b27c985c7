"""tokenizer.json: what is read, and that everything else is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small
from tokenizers import Tokenizer

from minillm.errors import UserError
from minillm.tokenizer.hugging_face import tokenizer_files
from minillm.tokenizer.vocabulary import RustBPETokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in tokenizer_files(small.tokenizer(), 128).items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_what_was_written_comes_back(folder: Path) -> None:
    assert RustBPETokenizer.load(folder).fingerprint == small.tokenizer().fingerprint
    shipped = RustBPETokenizer.load()
    (folder / "tokenizer.json").write_bytes(tokenizer_files(shipped, 128)["tokenizer.json"])
    assert RustBPETokenizer.load(folder).fingerprint == shipped.fingerprint


def test_a_vocabulary_with_a_token_that_no_merge_makes(folder: Path) -> None:
    ranks = dict(small.tokenizer().mergeable_ranks)
    tokenizer = RustBPETokenizer({**ranks, "鑫鑫".encode(): len(ranks)})
    (folder / "tokenizer.json").write_bytes(tokenizer_files(tokenizer, 128)["tokenizer.json"])
    assert RustBPETokenizer.load(folder).encode("鑫鑫") == [len(ranks)]


def test_what_transformers_saves_again_comes_back(folder: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    again = transformers.AutoTokenizer.from_pretrained(folder)
    again.save_pretrained(tmp_path / "again")
    assert RustBPETokenizer.load(tmp_path / "again").fingerprint == small.tokenizer().fingerprint


def test_merges_of_older_files_are_strings(folder: Path) -> None:
    change(folder, lambda file: file["model"].update(merges=[" ".join(m) for m in merges(file)]))
    assert RustBPETokenizer.load(folder).fingerprint == small.tokenizer().fingerprint


def test_the_folder_of_both_formats_is_read_as_ours(folder: Path) -> None:
    RustBPETokenizer.load().save(folder)
    assert RustBPETokenizer.load(folder).fingerprint == RustBPETokenizer.load().fingerprint


def merges(file: dict[str, Any]) -> list[list[str]]:
    found: list[list[str]] = file["model"]["merges"]
    return found


def change(folder: Path, spoil: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "tokenizer.json"
    file = json.loads(path.read_text("utf-8"))
    spoil(file)
    path.write_text(json.dumps(file), encoding="utf-8")


def swap_merges(file: dict[str, Any]) -> None:
    pairs = merges(file)
    pairs[0], pairs[1] = pairs[1], pairs[0]


def swap_bytes(file: dict[str, Any]) -> None:
    file["model"]["vocab"].update({"a": 98, "b": 97})


def split_by(pattern: str) -> dict[str, Any]:
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
    ]}}  # fmt: skip


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f["model"].update(type="Unigram"), "its model is Unigram, not byte-level BPE"),
        (lambda f: f["model"].update(type="WordPiece"), "its model is WordPiece"),
        (lambda f: f.pop("model"), "damaged or in an unknown format: 'model'"),
        (lambda f: f["model"].pop("vocab"), "missing required field `vocab`"),
        (lambda f: f["model"].update(merges=["a b c"]), "damaged or in an unknown format: "),
        (lambda f: f["model"].update(dropout=0.1), "uses dropout or byte_fallback"),
        (lambda f: f["model"].update(byte_fallback=True), "uses dropout or byte_fallback"),
        (lambda f: f["model"].update(end_of_word_suffix="</w>"), "have a prefix or suffix inside"),
        (lambda f: f.update(normalizer={"type": "NFKC"}), "changes text by a normalizer"),
        (lambda f: f.update(split_by(r"\w+|\W+")), r"splits text by another pattern, \\w\+\|\\W\+"),
        (lambda f: f.update(pre_tokenizer={"type": "Whitespace"}), "does not split text by a pat"),
        (lambda f: f.update(pre_tokenizer=None), "does not split text by a pattern"),
        (lambda f: f.update(added_tokens=[]), r"no special token <\|bos\|>, and conversations are"),
        (lambda f: f["added_tokens"].pop(3), r"no special token <\|assistant_start\|>"),
        (
            lambda f: f["added_tokens"].append({"id": 300, "content": "<pad>"}),
            r"its special tokens are <\|bos\|>, ",
        ),
        (lambda f: f["added_tokens"][0].update(id=999), "its special tokens are"),
        (lambda f: f["model"]["vocab"].update({"aaaa": 500}), "its ids are not 0, 1, 2"),
        (
            lambda f: f["model"]["vocab"].update({"小": 291}),
            "has the letter '小', which is no byte",
        ),
        (swap_bytes, "its first 256 tokens are not the bytes in order"),
        (swap_merges, "its merges are not those that the order of its tokens implies"),
        (lambda f: merges(f).pop(), "its merges are not those"),
    ],
)
def test_other_tokenizers_are_refused(
    folder: Path, spoil: Callable[[dict[str, Any]], Any], message: str
) -> None:
    change(folder, spoil)
    with pytest.raises(UserError, match=rf"tokenizer\.json: not a .*{message}") as caught:
        RustBPETokenizer.load(folder)
    assert str(caught.value).endswith("name one of its own by --tokenizer_path")
    assert "\n" not in str(caught.value)


def test_files_that_are_none(folder: Path) -> None:
    for content in (b"", b"[]", b"\xff", b'{"model": 3}'):
        (folder / "tokenizer.json").write_bytes(content)
        with pytest.raises(UserError, match=r"tokenizer\.json: not a tokenizer .*damaged"):
            RustBPETokenizer.load(folder)


def test_the_oracle_reads_the_same_ids(folder: Path) -> None:
    theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ours = RustBPETokenizer.load(folder)
    for text in (*small.TEXTS[:3], "don't  STOP\r\n\r\n 12345 ", "🎉\u3000é"):
        assert theirs.encode(text, add_special_tokens=False).ids == ours.encode(text)
