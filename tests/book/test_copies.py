"""The longest string in common, against the search of Python itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.book import copies
from minillm.book.copies import longest_copies


def searched(text: str, corpus: list[str]) -> int:
    runs = (text[i:j] for i in range(len(text)) for j in range(i + 1, len(text) + 1))
    return max((len(run) for run in runs if any(run in one for one in corpus)), default=0)


def test_a_line_that_is_copied() -> None:
    corpus = ["床前明月光疑是地上霜", "举头望明月", "白日依山尽"]
    texts = ["今看明月光疑是水", "白日依山近", "𠀀", "", "白日依山尽"]
    assert longest_copies(texts, corpus) == [5, 4, 0, 0, 5]
    assert longest_copies([], corpus) == []
    assert longest_copies(["白日"], []) == [0]


def test_nothing_runs_from_one_document_into_the_next() -> None:
    assert longest_copies(["甲乙丙丁"], ["甲乙", "丙丁"]) == [2]
    assert longest_copies(["甲乙", "丙丁"], ["甲乙丙丁"]) == [2, 2]


@pytest.mark.parametrize("piece", [1, 7, 1_000])
@given(
    texts=st.lists(st.text("甲乙𠀀", max_size=12), max_size=5),
    corpus=st.lists(st.text("甲乙𠀀", max_size=12), max_size=8),
)
def test_it_finds_what_a_search_finds(piece: int, texts: list[str], corpus: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copies, "AT_A_TIME", piece)
        assert longest_copies(texts, corpus) == [searched(text, corpus) for text in texts]
