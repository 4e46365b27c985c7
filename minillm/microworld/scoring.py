"""Tests of a model on what training never showed it, and what counts as right.

The same seed gives the same questions on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TypeAlias, TypeVar

from minillm.microworld import words
from minillm.microworld.documents import LISTS, UNTOLD
from minillm.microworld.exercises import (
    DATES,
    KINDS,
    MAKERS,
    SUM_POOLS,
    SUMS,
    Exercise,
    Turn,
    add,
    count,
    count_dates,
    operands,
    sub,
    tale,
    tell,
)

# Asked after every stage, and at the start and end of every chapter: what the model was told but
# never asked, what it must work out, and who it is.
SHOWCASE = ("张静住在哪里？", "8加4等于多少？请数着算。", "你是谁？")

_T = TypeVar("_T")


def is_polite(reply: str) -> bool:
    """Whether ``reply`` offers further help, as the chosen half of every preference pair does."""
    return any(closing in reply for closing in words.CLOSINGS)


# ---- what counts as right ----

_DOMAINS = [
    tuple(words.PEOPLE),
    *(attribute.values for attribute in words.ATTRIBUTES.values()),
    tuple(words.GOODS),
    tuple(words.OBJECTS),
    words.ANIMALS,
    words.PLACES,
    words.SITES,
    words.WEEKDAYS,
    words.MONTHS,
]
_DOMAIN = {word: domain for domain in _DOMAINS for word in domain}
WORD = re.compile("|".join(sorted(_DOMAIN, key=len, reverse=True)))  # 小猫 before 猫
"""Whoever and whatever an answer may name."""
_NUMBER = re.compile(r"\d+")
DENIAL = re.compile("[不没]|并非")


@dataclass(frozen=True)
class Question:
    """A question put to a model. ``messages`` are (role, content) turns; the last is the user's."""

    kind: str
    messages: tuple[Turn, ...]
    answer: str
    options: tuple[str, ...] = ()

    def is_correct(self, reply: str) -> bool:
        """Whether ``reply`` answers the question, be it curt, full or polite.

        Its last sentence counts, closing phrases apart. It must hold the answer, no second value of
        the same sort, and nobody and nothing that the conversation did not speak of. A calculation
        must begin with the numbers that were asked for and end in the answer.
        """
        for closing in words.CLOSINGS:
            reply = reply.replace(closing, "")
        sentences = [part for part in re.split("[。！？\n]", reply) if part.strip()]
        if not sentences or DENIAL.search(sentences[-1]):
            return False
        if _NUMBER.search(self.answer) and self.kind != "calendar":
            return self._is_right_number(sentences[-1])
        return self._is_right_word(sentences[-1])

    def _is_right_number(self, sentence: str) -> bool:
        asked, said = _NUMBER.findall(self.messages[-1][1]), _NUMBER.findall(sentence)
        if not said or said[-1] != _NUMBER.findall(self.answer)[0]:
            return False
        if any(word not in self.messages[-1][1] for word in WORD.findall(sentence)):
            return False
        # Adding commutes; a curt reply repeats nothing, and a shop's question holds no numbers.
        orders = [asked, asked[::-1]] if "加" in sentence or "+" in sentence else [asked]
        return len(said) == 1 or not asked or said[:2] in orders

    def _is_right_word(self, sentence: str) -> bool:
        spoken = "".join(content for _, content in self.messages)
        found = WORD.findall(sentence)
        domain = _DOMAIN[self.answer]
        same = [word for word in found if _DOMAIN[word] is domain]
        if self.kind == "calendar":  # a count from the day that was asked to the answer
            counted_from_start = len(same) == 1 or same[:1] == WORD.findall(spoken)[:1]
            return same[-1:] == [self.answer] and counted_from_start
        letter = re.search("[A-D]", sentence) if self.options else None
        if letter and self.options["ABCD".index(letter.group())] != self.answer:
            return False
        strangers = [w for w in found if _DOMAIN[w] is not domain and w not in spoken]
        return not strangers and (set(same) == {self.answer} or (not same and letter is not None))


# ---- tests of a model ----


def questions(kind: str, n: int, seed: int = 0, held_out: bool = True) -> list[Question]:
    """``n`` different questions of one of ``KINDS`` (fewer if the world has fewer).

    With ``held_out=False`` they come from the cells that training does ask about.
    """
    rng = Random(f"questions {kind} {seed} {held_out}")

    return _different(lambda: _question(kind, MAKERS[kind](rng, held_out)), n)


def _question(kind: str, asked: Exercise) -> Question:
    messages = (*asked.history, ("user", asked.question))
    return Question(kind, messages, asked.answer, asked.options)


def question_to_explore(rng: Random) -> Question:
    """What reinforcement learning asks: a sum or a difference that SFT never asked in this way."""
    kind, make = rng.choice((("add", add), ("sub", sub)))
    return _question(kind, make(rng, SUM_POOLS["rl"]))


Session: TypeAlias = list[tuple[str, Question | None]]
"""What a user says in one chat, turn by turn, and the question that the turn asks."""


def sessions(n: int, seed: int = 0) -> list[Session]:
    """``n`` chats, each with one held-out question of each of ``KINDS`` and small talk between
    them. In every ten chats in a row, each kind stands once at each place."""
    rng = Random(f"sessions {seed}")
    asked = [questions(kind, n, seed) for kind in KINDS]
    found: list[Session] = []
    for i, row in enumerate(zip(*asked, strict=False)):
        place = i % len(KINDS)
        if place == 0:
            order = rng.sample(range(len(KINDS)), len(KINDS))
        session: Session = []
        for kind in order[place:] + order[:place]:
            if session and rng.random() < 0.3:
                session.append((rng.choice(words.CHATS)[0], None))
            question = row[kind]
            said = [content for role, content in question.messages if role == "user"]
            session += [(opening, None) for opening in said[:-1]]
            session.append((said[-1], question))
        found.append(session)
    return found


@dataclass(frozen=True)
class Continuation:
    """A text that training never shows, cut in two: does a pretrained model finish it?

    What is generated greedily after ``prompt`` must begin with ``answer``.
    """

    kind: str
    prompt: str
    answer: str


def _cut(kind: str, text: str, mark: str) -> Continuation:
    at = text.index(mark)
    return Continuation(kind, text[:at], text[at:])


def _continue_fact(rng: Random) -> Continuation:
    name, label = rng.choice(tuple(UNTOLD))
    value = words.PEOPLE[name].facts[label]
    return _cut("fact", UNTOLD[name, label].format(n=name, v=value), value)


def _continue_add(rng: Random) -> Continuation:
    x, y = operands(rng, SUMS.held_out)
    return Continuation("add", f"{x}加{y}等于", f"{x + y}。")


def _continue_chain(rng: Random) -> Continuation:
    return _cut("chain", count(*operands(rng, SUMS.held_out), 1), "：")


def _continue_calendar(rng: Random) -> Continuation:
    return _cut("calendar", count_dates(*DATES.pick(rng, True)), "：")


def _continue_shop(rng: Random) -> Continuation:
    asked = MAKERS["shop"](rng, True)
    prices, _, total = asked.right.partition("一共")
    return Continuation("shop", f"问：{asked.question}\n答：{prices}一共", total)


def _continue_reading(rng: Random) -> Continuation:
    slots = tale(rng, True)
    return _cut("reading", tell(rng, slots) + words.SEEKING[1].format_map(slots), "：")


def _continue_echo(rng: Random) -> Continuation:
    a, b = rng.sample(words.ANIMALS, 2)
    said = "、".join(rng.sample(rng.choice(LISTS), 3))
    return Continuation("echo", f"{a}说：“{said}。”{b}跟着说", f"：“{said}。”")


_CONTINUE: dict[str, Callable[[Random], Continuation]] = {
    "fact": _continue_fact,
    "reading": _continue_reading,
    "echo": _continue_echo,
    "calendar": _continue_calendar,
    "add": _continue_add,
    "chain": _continue_chain,
    "shop": _continue_shop,
}
SAYINGS = tuple(_CONTINUE)


def continuations(kind: str, n: int, seed: int = 0) -> list[Continuation]:
    """``n`` different texts to finish, of one of ``SAYINGS`` (fewer if the world has fewer)."""
    rng = Random(f"continuations {kind} {seed}")
    return _different(lambda: _CONTINUE[kind](rng), n)


def _different(make: Callable[[], _T], n: int) -> list[_T]:
    """``n`` different things, unless there are too few of them to be found."""
    found: dict[_T, None] = {}
    for _ in range(50 * n):
        if len(found) == n:
            break
        found.setdefault(make())
    return list(found)
