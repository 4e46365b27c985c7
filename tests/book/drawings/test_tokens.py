"""The drawings show what the tokenizer and the packer really do."""

from __future__ import annotations

import numpy as np
import pytest

from minillm.book.canvas import Picture
from minillm.book.drawings import tokens
from minillm.tokenizer import bpe
from minillm.tokenizer.vocabulary import SPLIT_PATTERN, RustBPETokenizer
from minillm.training.dataset import TokenDataset

HAND = list("小猫看小猫".encode())
TOKENIZER = RustBPETokenizer(bpe.train_bpe(["小猫看小猫", "小猫在看"], 263, SPLIT_PATTERN))


def dialogues(*questions: str) -> TokenDataset:
    ids, mask, offsets = [], [], [0]
    for question in questions:
        messages = [
            {"role": "user", "content": question},
            {"role": "assistant", "content": "小猫"},
        ]
        more, learn = TOKENIZER.render_conversation(messages)
        ids, mask = ids + more, mask + learn
        offsets.append(len(ids))
    return TokenDataset(
        np.array(ids, np.int32), np.array(mask, np.uint8), np.array(offsets, np.int64), 1
    )


def same(one: Picture, other: Picture) -> bool:
    return one._repr_png_() == other._repr_png_()


@pytest.mark.parametrize(
    ("character", "told"),
    [
        ("a", "分成 1100001；填进 1 个字节 01100001，即 61"),
        ("é", "分成 00011、101001；填进 2 个字节 11000011 10101001，即 C3 A9"),
        ("猫", "分成 0111、001100、101011；填进 3 个字节 11100111 10001100 10101011"),
        ("😀", "U+1F600，21 位，分成 000、011111、011000、000000；填进 4 个字节 11110000"),
    ],
)
def test_bits_of_a_character_are_those_of_its_utf8(character: str, told: str) -> None:
    picture = tokens.utf8_bits(character)
    assert told in picture.data
    assert same(picture, tokens.utf8_bits(character))


def test_bits_are_of_one_character() -> None:
    with pytest.raises(ValueError, match="one character"):
        tokens.utf8_bits("小猫")


def test_a_tree_merges_as_the_tokenizer_does() -> None:
    picture = tokens.merge_tree("小猫大", TOKENIZER)
    (cat,) = TOKENIZER.encode("小猫")
    assert picture.data.endswith(f"；剩下 小猫（{cat}）、E5（229）、A4（164）、A7（167）")
    assert picture.data.count(" 得 ") == 5
    assert same(picture, tokens.merge_tree("小猫大", TOKENIZER))
    assert tokens.merge_tree("a", TOKENIZER).data == "“a”的 1 个字节：；剩下 a（97）"


@pytest.mark.parametrize("text", ["", "小猫。看", "小猫看小猫看"])
def test_a_tree_is_of_one_short_chunk(text: str) -> None:
    with pytest.raises(ValueError, match="not one chunk"):
        tokens.merge_tree(text, TOKENIZER)


def test_a_step_shows_what_the_heap_holds_after_it() -> None:
    picture = tokens.merge_step(HAND, 256)
    assert "140 171 合并成 256，之后 229 176 143 231 256 231 156 139" in picture.data
    assert "新添 231 256、256 231，过期 231 140、171 231，其余 6 个没有变" in picture.data
    assert same(picture, tokens.merge_step(HAND, 256))
    # (256, 7) is born and merged away at once, so it never comes into the heap.
    overlapping = tokens.merge_step([7, 7, 7, 7], 256).data
    assert "之后 256 256；堆里 1 个条目，新添 256 256，过期 没有" in overlapping
    with pytest.raises(ValueError, match="not 1"):
        tokens.merge_step([7], 256)


def test_a_row_is_shown_with_what_is_learned_and_who_sees_whom() -> None:
    data = dialogues("看", "小猫")
    picture = tokens.row_to_mask(data, [0, 1], 16, TOKENIZER)
    length = int(data.offsets[1])
    assert f"第一段 {length} 个词元：bos 用户开始" in picture.data
    assert f"{length - 1} 个位置里学 2 个" in picture.data
    sizes = [int(n) for n in data.positions()]
    padding = 16 - sum(sizes)
    assert f"填充 {padding} 个，算损失 4 个" in picture.data
    seen = sum(n * (n + 1) // 2 for n in [*sizes, padding])
    assert picture.data.endswith(f"许可表 16 × 16 格，涂色 {seen} 格")
    assert same(picture, tokens.row_to_mask(data, [0, 1], 16, TOKENIZER))


def test_a_row_too_long_to_be_read_is_refused() -> None:
    with pytest.raises(ValueError, match="in rows of 128"):
        tokens.row_to_mask(dialogues("看"), [0], 128, TOKENIZER)
    with pytest.raises(ValueError, match="not 18 in rows of 20"):
        tokens.row_to_mask(dialogues("大大大大"), [0], 20, TOKENIZER)
