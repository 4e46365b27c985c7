"""The information in the micro-world's texts, against what is worked out by hand."""

from __future__ import annotations

import math
import re
from functools import cache
from random import Random

import pytest

from minillm.microworld import documents as made
from minillm.microworld import entropy, words
from minillm.microworld.documents import documents
from minillm.microworld.entropy import Measured, measured_documents
from minillm.microworld.exercises import DATES

N = 300


@cache
def measured() -> list[Measured]:
    return list(measured_documents(N, seed=5))


def of_kind(kind: str) -> list[Measured]:
    found = [document for document in measured() if document.kind == kind]
    assert found
    return found


def test_the_texts_are_those_of_the_generator() -> None:
    assert [document.text for document in measured()] == list(documents(N, seed=5))


def test_what_a_text_shows_is_never_more_than_was_chosen() -> None:
    assert all(0 < document.bits <= document.choices + 1e-9 for document in measured())
    assert any(document.bits < document.choices - 1 for document in measured())


def share(kind: str) -> float:
    weights = {make.__name__: weight for make, weight in made._DOCUMENTS.items()}
    return weights[kind] / sum(weights.values())


def test_days_by_hand() -> None:
    """One of four sentences, about one of seven days or of twelve months (drawn both, only one
    shows), and one of the dates that training may count from."""
    for document in of_kind("days"):
        first = document.text.split("。")[0]
        names = 12 if "月" in first else 7
        bits = -math.log2(share("_days")) + math.log2(4 * names * len(DATES.train))
        assert document.bits == pytest.approx(bits)
        assert document.choices == pytest.approx(bits + math.log2(84 / names))


def test_biographies_by_hand() -> None:
    """One of 48 people, two to five of the labels in an order, one of five wordings for each, one
    of which is replaced by the first; from the second sentence on a pronoun at 0.4."""
    labels, people = len(words.ATTRIBUTES), len(words.PEOPLE)
    for document in of_kind("biography"):
        sentences = re.findall("[^。]+。", document.text)
        name = next(name for name in words.PEOPLE if sentences[0].startswith(name))
        person = words.PEOPLE[name]
        probability = share("_biography") / people / 4 / math.perm(labels, len(sentences))
        for i, sentence in enumerate(sentences):
            subject = name if sentence.startswith(name) else person.pronoun
            if i:
                probability *= 0.6 if subject == name else 0.4
            (first,) = [
                wording == attribute.statements[0]
                for label, attribute in words.ATTRIBUTES.items()
                for wording in attribute.statements
                if wording.format(n=subject, v=person.facts[label]) == sentence
            ]
            probability *= (2 if first else 1) / len(attribute_of(sentence).statements)
        assert document.bits == pytest.approx(-math.log2(probability))


def attribute_of(sentence: str) -> words.Attribute:
    return next(
        attribute
        for attribute in words.ATTRIBUTES.values()
        if any(value in sentence for value in attribute.values)
    )


def test_choices_that_do_not_show_are_independent() -> None:
    """Made otherwise all at once, they lead to the same text too: so they may be added up."""
    source, rng = Random("documents 6"), Random(6)
    for _ in range(100):
        choices = entropy._Choices(source)
        text = entropy._document(choices)
        places = range(len(choices.made))
        same = [entropy._same(choices.made, place, text) for place in places]
        assert entropy._told_by([rng.choice(outcomes) for outcomes in same]) == text


def test_a_number_that_is_compared_again_and_again() -> None:
    """Each comparison tells of what the earlier ones left open; together they take the bits of the
    interval that the number lies in."""
    for seed in range(50):
        choices = entropy._Choices(Random(seed))
        draw, plain = choices.random(), Random(seed).random()
        places = [draw < limit for limit in (0.4, 0.8, 0.4, 0.9)]
        assert places == [plain < limit for limit in (0.4, 0.8, 0.4, 0.9)]
        lows, highs = zip((0, 0.4), (0.4, 0.8), (0.8, 0.9), (0.9, 1), strict=True)
        (width,) = [h - low for low, h in zip(lows, highs, strict=True) if low <= plain < h]
        assert sum(choice.bits for choice in choices.made) == pytest.approx(-math.log2(width))


def test_greetings_by_hand() -> None:
    """Two of 48 people, what they say, and something about the first."""
    people = len(words.PEOPLE)
    choices = people * (people - 1) * len(words.CHATS) * len(words.ABOUT)
    for document in of_kind("greeting"):
        # A sentence about nobody is the same whoever is named, but the names show before it.
        assert document.bits == pytest.approx(math.log2(choices) - math.log2(share("_greeting")))


ECHO = re.compile(
    r"说：“(?P<a>.+?)。”..跟着说：“(?P=a)。”|的单子：(?P<b>.+?)。..照着念：(?P=b)。|请重复：(?P<c>.+?)。好的，(?P=c)。"
)


def test_echoes_by_hand() -> None:
    """Twice: one, one, two or three things of a list, in one of three forms. The third names no
    animals, so that which two were drawn does not show; nor does which of the two ones it was."""
    animals = math.log2(math.perm(len(words.ANIMALS), 2))
    for document in of_kind("echo"):
        hidden = 0.0
        found = list(ECHO.finditer(document.text))
        assert len(found) == 2
        for said in found:
            hidden += animals if said["c"] else 0.0
            hidden += 0.0 if "、" in (said["a"] or said["b"] or said["c"]) else 1.0
        assert document.choices - document.bits == pytest.approx(hidden)
