"""The tokenizer in use: ids against tiktoken, masks token by token."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from minillm.data.rows import Message
from minillm.errors import UserError
from minillm.microworld import documents
from minillm.tokenizer import bpe
from minillm.tokenizer.hugging_face import TEMPLATE_FILE
from minillm.tokenizer.storage import META_FILE, RANKS_FILE
from minillm.tokenizer.vocabulary import (
    SPECIAL_TOKENS,
    SPLIT_PATTERN,
    RustBPETokenizer,
    find_tokenizer,
    import_rustbpe,
)

CORPUS = ["小猫在河边钓鱼，小狗在河边睡觉。", "ab abc 12 123's", "小猫说：你好！\n小狗说：你好！"]
SHIPPED = RustBPETokenizer.load()
SMALL = RustBPETokenizer.train(CORPUS, 300)
# One token a byte: what it makes of a conversation can be written down by hand.
BYTES = RustBPETokenizer({bytes([byte]): byte for byte in range(256)})
BOS, USER, USER_END, ASSISTANT, ASSISTANT_END, PYTHON, PYTHON_END, OUTPUT, OUTPUT_END = range(
    256, 265
)


def say(*turns: str | tuple[str, Any]) -> list[dict[str, Any]]:
    """Messages from turns: plain strings are the user's and the assistant's in turn."""
    roles = ("user", "assistant")
    pairs = [(roles[i % 2], t) if isinstance(t, str) else t for i, t in enumerate(turns)]
    return [{"role": role, "content": content} for role, content in pairs]


# --- Learning -------------------------------------------------------------------------------------


def test_special_tokens_come_after_the_mergeable_ones() -> None:
    assert SMALL.vocab_size == 300
    assert len(SMALL.mergeable_ranks) == 291
    assert [SMALL.special_id(name) for name in SPECIAL_TOKENS] == list(range(291, 300))
    assert SMALL.bos_id == SMALL.special_id("<|bos|>") == 291


def test_train_learns_what_the_reference_learns() -> None:
    assert SMALL.mergeable_ranks == bpe.train_bpe(CORPUS, 291, SPLIT_PATTERN)


def test_a_small_corpus_gives_a_small_vocabulary() -> None:
    assert RustBPETokenizer.train(["ab"], 300).vocab_size == 256 + 1 + 9


def test_a_pattern_of_ones_own() -> None:
    tokenizer = RustBPETokenizer.train(["12 12 12"], 300, pattern=r"\d|\D+")
    assert tokenizer.encode("12") == [ord("1"), ord("2")]
    assert tokenizer.vocab_size == 256 + 9


def test_no_token_may_be_spelled_like_a_special_one() -> None:
    with pytest.raises(ValueError, match=r"spelled like the special token <\|bos\|>"):
        RustBPETokenizer.train(["<|bos|>"], 300, pattern=r".+")


@pytest.mark.parametrize("vocab_size", [264, 9, 0, -1])
def test_the_256_bytes_must_fit(vocab_size: int) -> None:
    assert RustBPETokenizer.train([], 265).vocab_size == 265
    with pytest.raises(UserError, match="must be at least 265"):
        RustBPETokenizer.train([], vocab_size)


def test_both_trainers_learn_the_same() -> None:
    try:
        import_rustbpe()
    except UserError:
        pytest.skip("rustbpe is not built in this environment")
    for vocab_size in (265, 280, 300, 400):
        ours = RustBPETokenizer.train(CORPUS, vocab_size)
        theirs = RustBPETokenizer.train(iter(CORPUS), vocab_size, use_rust=True)
        assert list(theirs.mergeable_ranks) == list(ours.mergeable_ranks)
        assert theirs.fingerprint == ours.fingerprint


ADVICE = [
    "ENABLE_RUSTBPE=1",
    "`uv tool install maturin`",
    "`uv run maturin develop --release --manifest-path rustbpe/Cargo.toml`",
]


@pytest.mark.parametrize("module", [None, ModuleType("rustbpe")])
def test_without_rustbpe_the_error_says_how_to_get_it(
    module: ModuleType | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rustbpe", module)  # type: ignore[arg-type]
    with pytest.raises(UserError) as caught:
        RustBPETokenizer.train(CORPUS, 300, use_rust=True)
    assert all(advice in str(caught.value) for advice in ADVICE)  # [9.1]
    assert "\n" not in str(caught.value)


def test_the_crates_source_folder_is_not_taken_for_the_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rustbpe" / "src").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setitem(sys.modules, "rustbpe", ModuleType("rustbpe"))
    del sys.modules["rustbpe"]  # imported anew, from the folder
    with pytest.raises(UserError, match=r"the folder ./rustbpe is not the built module"):
        import_rustbpe()


# --- Text -----------------------------------------------------------------------------------------


def oracle(tokenizer: RustBPETokenizer) -> tiktoken.Encoding:
    """An encoding of our own making, to compare with."""
    return tiktoken.Encoding(
        "oracle",
        pat_str=SPLIT_PATTERN,
        mergeable_ranks=bpe.train_bpe(CORPUS, 291, SPLIT_PATTERN),
        special_tokens={},
    )


like_the_corpus = st.text("小猫狗在河边钓鱼你好说，。！ \n\r\t\u3000ab12's<|>_", max_size=60)


@given(st.text() | like_the_corpus)
def test_encode_equals_tiktoken_and_decode_undoes_it(text: str) -> None:
    ids = SMALL.encode(text)
    assert ids == oracle(SMALL).encode_ordinary(text)
    assert SMALL.decode(ids) == text
    assert b"".join(map(SMALL.token_bytes, ids)) == text.encode()
    assert SHIPPED.decode(SHIPPED.encode(text)) == text


@given(st.lists(st.text() | like_the_corpus, max_size=5))
def test_a_batch_is_encoded_like_its_texts(texts: list[str]) -> None:
    assert SMALL.encode_batch(texts) == [SMALL.encode(text) for text in texts]


@given(like_the_corpus)
def test_the_way_for_very_long_texts_gives_the_same(text: str) -> None:
    with mock.patch("minillm.tokenizer.vocabulary.LONGEST_FOR_TIKTOKEN", 0):
        assert SMALL.encode(text) == oracle(SMALL).encode_ordinary(text)
        assert SMALL.encode_batch([text, "a"]) == [SMALL.encode(text), SMALL.encode("a")]


@pytest.mark.parametrize(
    ("text", "read_as"),
    [
        ("好\ud800", "好\ufffd"),
        ("\udc80", "\ufffd"),
        ("\ud83d\udc26!", "🐦!"),
        ("\ufeff好", "\ufeff好"),
    ],
)
def test_half_a_character_is_replaced_in_texts_of_any_length(text: str, read_as: str) -> None:
    # Python has halves of characters, UTF-8 has not: "\ud83d" out of JSON, a byte out of a shell.
    assert BYTES.encode(text) == list(read_as.encode())
    with mock.patch("minillm.tokenizer.vocabulary.LONGEST_FOR_TIKTOKEN", 0):
        assert BYTES.encode(text) == list(read_as.encode())
        assert BYTES.encode_batch([text, "a"]) == [list(read_as.encode()), [ord("a")]]
    assert BYTES.encode_batch([text, "a"]) == [list(read_as.encode()), [ord("a")]]


@pytest.mark.parametrize("sign", [" ", "\t", "\u3000", "\n", "的", "1", "!"])
def test_a_long_run_of_one_sign(sign: str) -> None:
    # A million spaces overflow the stack of tiktoken's regular expressions.
    text = sign * 1_000_100 + "x"
    ids = BYTES.encode(text)
    assert BYTES.decode(ids) == text


@pytest.mark.parametrize("name", SPECIAL_TOKENS)
def test_the_text_of_a_special_token_is_plain_text(name: str) -> None:
    assert BYTES.encode(name) == list(name.encode())
    assert BYTES.encode_batch([name]) == [list(name.encode())]
    for ids in (SHIPPED.encode(name), SHIPPED.encode(f"好{name}<|bos|>")):
        assert max(ids) < SHIPPED.bos_id
    ids, _ = BYTES.render_conversation(say(name, name))
    assert ids == [BOS, USER, *name.encode(), USER_END, ASSISTANT, *name.encode(), ASSISTANT_END]


def test_decode_names_special_tokens_and_mends_half_characters() -> None:
    assert BYTES.decode([BOS, 104, 105, ASSISTANT_END]) == "<|bos|>hi<|assistant_end|>"
    assert BYTES.decode(list("好".encode())[:2]) == "\ufffd"


@pytest.mark.parametrize("token_id", [265, 10**9, 2**40, -1])
def test_an_unknown_id_is_an_error(token_id: int) -> None:
    with pytest.raises(ValueError, match="0 … 264"):
        BYTES.decode([104, token_id])
    with pytest.raises(ValueError, match="0 … 264"):
        BYTES.token_bytes(token_id)


def test_special_tokens_stand_for_no_bytes_of_text() -> None:
    assert [BYTES.token_bytes(i) for i in (0, 104, 255, BOS, OUTPUT_END)] == [
        b"\x00",
        b"h",
        b"\xff",
        b"",
        b"",
    ]


# --- Conversations --------------------------------------------------------------------------------


def rendered(messages: Any) -> list[tuple[int, int]]:
    ids, mask = BYTES.render_conversation(messages)
    return list(zip(ids, mask, strict=True))


def test_one_question_and_its_answer() -> None:
    assert rendered(say("hi", "ok!")) == [
        (BOS, 0),
        (USER, 0),
        (ord("h"), 0),
        (ord("i"), 0),
        (USER_END, 0),
        (ASSISTANT, 0),
        (ord("o"), 1),
        (ord("k"), 1),
        (ord("!"), 1),
        (ASSISTANT_END, 1),
    ]


def test_several_turns() -> None:
    ids, mask = BYTES.render_conversation(say("a", "b", "c", "d"))
    first = [BOS, USER, ord("a"), USER_END, ASSISTANT, ord("b"), ASSISTANT_END]
    assert ids == [*first, USER, ord("c"), USER_END, ASSISTANT, ord("d"), ASSISTANT_END]
    assert mask == [0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1]


def test_the_system_message_joins_the_first_question() -> None:
    with_system = [{"role": "system", "content": "s"}, *say("a", "b", "c", "d")]
    before = json.dumps(with_system)
    assert rendered(with_system) == rendered(say("s\n\na", "b", "c", "d"))
    assert json.dumps(with_system) == before


def test_the_parts_of_an_answer() -> None:
    parts = [
        {"type": "text", "text": "x"},
        {"type": "python", "text": "1+1"},
        {"type": "python_output", "text": "2"},
        {"type": "text", "text": "y"},
    ]
    assert rendered(say("q", ("assistant", parts))) == [
        (BOS, 0),
        (USER, 0),
        (ord("q"), 0),
        (USER_END, 0),
        (ASSISTANT, 0),
        (ord("x"), 1),
        (PYTHON, 1),
        (ord("1"), 1),
        (ord("+"), 1),
        (ord("1"), 1),
        (PYTHON_END, 1),
        (OUTPUT, 0),
        (ord("2"), 0),
        (OUTPUT_END, 0),
        (ord("y"), 1),
        (ASSISTANT_END, 1),
    ]


def test_texts_side_by_side_are_one_text() -> None:
    halves = [{"type": "text", "text": text} for text in ("在河", "边钓")]
    ids, _ = SMALL.render_conversation(say("q", ("assistant", halves)))
    assert ids == SMALL.render_conversation(say("q", "在河边钓"))[0]
    assert SMALL.encode("在河边钓") != SMALL.encode("在河") + SMALL.encode("边钓")


def test_a_tools_message_is_an_output_that_is_not_learned() -> None:
    messages = say("q", "c", ("tool", "1"), ("tool", "2"), ("assistant", "a"))
    assert rendered(messages)[4:] == [
        (ASSISTANT, 0),
        (ord("c"), 1),
        (ASSISTANT_END, 1),
        (OUTPUT, 0),
        (ord("1"), 0),
        (OUTPUT_END, 0),
        (OUTPUT, 0),
        (ord("2"), 0),
        (OUTPUT_END, 0),
        (ASSISTANT, 0),
        (ord("a"), 1),
        (ASSISTANT_END, 1),
    ]


def test_all_spellings_of_a_conversation_are_the_same() -> None:
    messages = say("你好", "好")
    structs = [Message(m["role"], m["content"]) for m in messages]
    parts = say("你好", ("assistant", [{"type": "text", "text": "好"}]))
    assert rendered(messages) == rendered({"messages": messages})
    assert rendered(messages) == rendered(structs) == rendered(tuple(structs)) == rendered(parts)


@given(st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9)), min_size=1, max_size=4))
def test_what_is_learned_is_what_the_assistant_says(turns: list[tuple[str, str]]) -> None:
    ids, mask = SMALL.render_conversation(say(*(text for turn in turns for text in turn)))
    assert len(ids) == len(mask)
    end = SMALL.special_id("<|assistant_end|>")
    learned = [i for i, learn in zip(ids, mask, strict=True) if learn]
    expected = [i for _, answer in turns for i in [*SMALL.encode(answer), end]]
    assert learned == expected
    assert ids[0] == SMALL.bos_id
    assert ids.count(SMALL.bos_id) == 1


def test_max_tokens_cuts_ids_and_mask() -> None:
    ids, mask = BYTES.render_conversation(say("hi", "ok"))
    assert BYTES.render_conversation(say("hi", "ok"), max_tokens=7) == (ids[:7], mask[:7])
    assert BYTES.render_conversation(say("hi", "ok"), max_tokens=100) == (ids, mask)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "the conversation is empty"),
        ({"messages": []}, "the conversation is empty"),
        ({}, "the conversation is empty"),
        (say("a"), "the last message is from user"),
        (say("a", "b", "c"), "the last message is from user"),
        (say("a", "b", ("tool", "c")), "the last message is from tool"),
        (say(("system", "s")), "the conversation is empty"),
        (say(("assistant", "a")), "message 0: assistant cannot come first"),
        (say(("user", "a"), ("user", "b")), "message 1: user cannot come after user"),
        (say("a", "b", ("assistant", "c")), "message 2: assistant cannot come after assistant"),
        (say("a", ("tool", "b")), "message 1: tool cannot come after user"),
        (say("a", "b", ("system", "s")), "message 2: system cannot come after assistant"),
        (say(("system", "s"), ("assistant", "a")), "message 1: assistant cannot come after system"),
        (say("a", ("bot", "b")), "message 1: unknown role 'bot'"),
        (say(("", "b")), "message 0: unknown role ''"),
        ([{"content": "a"}], "message 0: unknown role None"),
        ([{"role": ["user"], "content": "a"}], "message 0: unknown role"),
        (["a", "b"], "message 0: must have a role"),
        (say(("user", None)), "message 0: the content of user must be a string"),
        (say(("user", [{"type": "text", "text": "a"}])), "message 0: the content of user must be"),
        (say("a", ("assistant", None)), "message 1: content must be a string or a list of parts"),
        (say("a", ("assistant", ["b"])), "message 1: content must be a string or a list of parts"),
        (say("a", ("assistant", [{"type": "text"}])), "message 1: content must be a string or a"),
        (say("a", ("assistant", [{"type": "image", "text": "b"}])), "python_output"),
        (say("a", ("assistant", [{"type": "text", "text": 1}])), "message 1: content must be a"),
    ],
)
def test_a_wrong_conversation_is_an_error(messages: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        BYTES.render_conversation(messages)


def test_render_for_completion_ends_where_the_assistant_begins() -> None:
    ids, _ = BYTES.render_conversation(say("a", "b", "c", "d"))
    prompt = ids[: ids.index(ord("d"))]
    assert BYTES.render_for_completion(say("a", "b", "c")) == prompt
    assert BYTES.render_for_completion(say("a", "b", "c", "d")) == prompt
    assert prompt[-1] == ASSISTANT
    after_tool = BYTES.render_for_completion(say("a", "b", ("tool", "c")))
    assert after_tool[-4:] == [OUTPUT, ord("c"), OUTPUT_END, ASSISTANT]
    with pytest.raises(ValueError, match="empty"):
        BYTES.render_for_completion([])


# --- Which tokenizer ----------------------------------------------------------------------------


def test_find_tokenizer(tmp_path: Path) -> None:
    assert find_tokenizer(None, tmp_path).fingerprint == SHIPPED.fingerprint
    SMALL.save(tmp_path / "tokenizer")
    assert find_tokenizer(None, tmp_path).fingerprint == SMALL.fingerprint
    assert find_tokenizer(tmp_path / "tokenizer", Path("out")).fingerprint == SMALL.fingerprint
    with pytest.raises(UserError, match="nowhere"):
        find_tokenizer(tmp_path / "nowhere", tmp_path)


# --- The shipped tokenizer ------------------------------------------------------------------------


def test_the_shipped_tokenizer(repo: Path) -> None:
    assets = repo / "minillm" / "assets"
    assert sorted(os.listdir(assets)) == sorted(["README.md", RANKS_FILE, META_FILE, TEMPLATE_FILE])
    assert sum(path.stat().st_size for path in assets.iterdir()) < 200_000
    assert SHIPPED.vocab_size == 6400
    assert SHIPPED.pattern == SPLIT_PATTERN
    assert (SHIPPED.bos_id, SHIPPED.special_id("<|output_end|>")) == (6391, 6399)


def test_the_shipped_tokenizer_compresses_the_micro_world() -> None:
    texts = list(documents.documents(300))
    assert sum(map(len, texts)) / sum(map(len, SHIPPED.encode_batch(texts))) > 1.8


def test_the_shipped_tokenizer_compresses_chinese(real_data: Path) -> None:
    with (real_data / "pretrain_zh.jsonl").open(encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for _, line in zip(range(500), file, strict=False)]
    batch = SHIPPED.encode_batch(texts)
    assert [SHIPPED.decode(ids) for ids in batch] == texts
    assert sum(map(len, texts)) / sum(map(len, batch)) > 1.2
    for text in texts[:20]:
        assert bpe.encode(text, SHIPPED.mergeable_ranks, SPLIT_PATTERN) == SHIPPED.encode(text)
