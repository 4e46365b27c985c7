"""What can be asked about the micro-world, and what of it training never asks.

**What is held out.** About one cell in five of each space below, chosen by a hash of the cell, so
that a new person or thing does not move the others. Training data never

* asks for a held-out (person, attribute), in any words, with or without options, in one turn or two
  (but texts about a person *state* it: a model cannot know what it never read);
* adds or subtracts a held-out pair of numbers (but two prices may be these numbers, and a longer
  count takes the same steps);
* asks for the sum or difference of a pair of ``SUM_POOLS["rl"]``, half of the others, without
  asking to count, which is left to reinforcement learning: it finds nothing where SFT has learned
  the results by heart;
* adds up a held-out basket of two goods (but texts state the price of each);
* puts an object in a held-out place;
* counts a held-out number of days or months from a held-out start, unless it goes on further;
* uses a held-out way to put a question (``HELD_OUT_FRAMES``: the kind ``phrasing``).

The wrong answers of preference pairs are the exception: they may name any value.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any, Generic, Literal, TypeVar

from minillm.microworld import words

Turn = tuple[str, str]  # (role, content)
Cell = TypeVar("Cell", bound=tuple[Any, ...])
_T = TypeVar("_T")


# ---- the held-out split ----


@dataclass(frozen=True)
class Split(Generic[Cell]):
    """The cells of one space: those that training may ask about, and those that it never does."""

    train: tuple[Cell, ...]
    held_out: tuple[Cell, ...]

    def pick(self, rng: Random, held_out: bool) -> Cell:
        return rng.choice(self.held_out if held_out else self.train)


def split(space: str, cells: Iterable[Cell], one_in: int = 5) -> Split[Cell]:
    train: list[Cell] = []
    held_out: list[Cell] = []
    for cell in cells:
        digest = hashlib.sha256(f"{space}{cell}".encode()).digest()
        (held_out if digest[0] % one_in == 0 else train).append(cell)
    return Split(tuple(train), tuple(held_out))


LIMIT = 20  # no sum exceeds it
STARTS = words.WEEKDAYS + words.MONTHS
FACTS = split("fact", itertools.product(words.PEOPLE, words.ATTRIBUTES))  # (person, attribute)
SUMS = split("sum", ((a, b) for a in range(1, LIMIT) for b in range(1, a + 1) if a + b <= LIMIT))
_PLAIN = split("plain sum", SUMS.train, one_in=2)
SUM_POOLS: dict[Literal["sft", "rl", "test"], tuple[tuple[int, int], ...]] = {
    "sft": _PLAIN.train,
    "rl": _PLAIN.held_out,
    "test": SUMS.held_out,
}
"""Who asks for which sums and differences without asking to count."""
BASKETS = split("basket", itertools.combinations(words.GOODS, 2))
PLACINGS = split("placing", itertools.product(words.OBJECTS, words.PLACES))
DATES = split("date", itertools.product(STARTS, range(1, 10)))  # (start, steps onwards)

# Two facts about one person, asked one after the other: (person, first, second). Training may ask
# the first; whether the second is held out is what the key says.
_FOLLOW_UPS = {
    held_out: [
        (name, first, second)
        for name, first in FACTS.train
        for person, second in (FACTS.held_out if held_out else FACTS.train)
        if person == name and first != second
    ]
    for held_out in (False, True)
}


# ---- exercises ----


@dataclass(frozen=True)
class Exercise:
    """A question, with what it takes to answer it rightly, wrongly, curtly or politely."""

    kind: str
    question: str
    answer: str  # the bare value: 苏州, 13, 5元
    right: str  # the answer as a full sentence
    wrong: str  # the same sentence with another value
    history: tuple[Turn, ...] = ()
    options: tuple[str, ...] = ()
    worked: bool = False  # the sentence shows the working, and a curt reply would skip it
    counted: str = ""  # the right sentence with a working that nobody asked for

    @property
    def curt(self) -> str:
        return self.right if self.worked else f"{self.answer}。"


def _other(rng: Random, values: tuple[str, ...], value: str) -> str:
    """One of ``values`` that is not ``value``."""
    picked = values[rng.randrange(len(values) - 1)]
    return picked if picked != value else values[-1]


def _near(rng: Random, number: int) -> int:
    """Another number, close by and not negative."""
    return number + rng.choice((-2, -1, 1, 2) if number > 1 else (1, 2))


def _frame(rng: Random, core: str) -> str:
    return rng.choice(words.FRAMES).format(q=core)


def _told(name: str, label: str, value: str) -> str:
    return words.ATTRIBUTES[label].statements[0].format(n=name, v=value)


def _fact(rng: Random, held_out: bool, frames: tuple[str, ...] = words.FRAMES) -> Exercise:
    name, label = FACTS.pick(rng, held_out)
    attribute, value = words.ATTRIBUTES[label], words.PEOPLE[name].facts[label]
    core = rng.choice(attribute.questions).format(n=name)
    return Exercise(
        kind="fact",
        question=rng.choice(frames).format(q=core),
        answer=value,
        right=_told(name, label, value),
        wrong=_told(name, label, _other(rng, attribute.values, value)),
    )


def _phrasing(rng: Random, held_out: bool) -> Exercise:
    return _fact(rng, held_out, words.HELD_OUT_FRAMES if held_out else words.FRAMES)


def _choice(rng: Random, held_out: bool) -> Exercise:
    name, label = FACTS.pick(rng, held_out)
    attribute, value = words.ATTRIBUTES[label], words.PEOPLE[name].facts[label]
    options = rng.sample([v for v in attribute.values if v != value], 3)
    wrong = options[0]
    options.insert(rng.randrange(4), value)
    core = rng.choice(words.CHOOSING).format(noun=attribute.noun.format(n=name))
    listed = " ".join(f"{letter}.{v}" for letter, v in zip("ABCD", options, strict=True))
    return Exercise(
        kind="choice",
        question=_frame(rng, core) + listed,
        answer=value,
        right=_told(name, label, value),
        wrong=_told(name, label, wrong),
        options=tuple(options),
    )


def _multi_turn(rng: Random, held_out: bool) -> Exercise:
    """Two questions about one person, whom the second names only by a pronoun."""
    name, first, second = rng.choice(_FOLLOW_UPS[held_out])
    person, attribute = words.PEOPLE[name], words.ATTRIBUTES[second]
    known, value = person.facts[first], person.facts[second]
    opening = rng.choice(words.ATTRIBUTES[first].questions).format(n=name)
    follow_up = rng.choice(attribute.questions).format(n=person.pronoun)
    return Exercise(
        kind="multi_turn",
        history=(
            ("user", _frame(rng, opening)),
            ("assistant", rng.choice((f"{known}。", _told(name, first, known)))),
        ),
        question=f"那{follow_up}？",
        answer=value,
        right=_told(name, second, value),
        wrong=_told(name, second, _other(rng, attribute.values, value)),
    )


def tale(rng: Random, held_out: bool) -> dict[str, str]:
    """The slots of a story (see :mod:`minillm.microworld.words`)."""
    thing, place = PLACINGS.pick(rng, held_out)
    a, b = rng.sample(words.ANIMALS, 2)
    c, s = rng.choice(words.COLOUR_NAMES), rng.choice(words.SITES)
    return {"a": a, "b": b, "o": thing, "m": words.OBJECTS[thing], "p": place, "c": c, "s": s}


def tell(rng: Random, slots: dict[str, str]) -> str:
    """The first half of a story: somebody goes, finds something, and puts it away."""
    parts = rng.choice(words.GOING) + rng.choice(words.FINDING) + rng.choice(words.PUTTING)
    return rng.choice(words.OPENINGS) + parts.format_map(slots)


_SLOTS = {"a": words.ANIMALS, "c": words.COLOUR_NAMES, "p": words.PLACES, "s": words.SITES}


def _reading(rng: Random, held_out: bool) -> Exercise:
    slots = tale(rng, held_out)
    core, slot, sentence = rng.choice(words.READING)
    other = _other(rng, _SLOTS[slot], slots[slot])
    return Exercise(
        kind="reading",
        question=tell(rng, slots) + _frame(rng, core.format_map(slots)),
        answer=slots[slot],
        right=sentence.format_map(slots),
        wrong=sentence.format_map({**slots, slot: other}),
    )


def count(x: int, y: int, sign: int) -> str:
    """``x + sign * y``, counted one step at a time: the chain of thought of this world."""
    total = x + sign * y
    start, steps = (max(x, y), min(x, y)) if sign > 0 else (x, y)
    symbol, way = ("加", "后") if sign > 0 else ("减", "前")
    walk = "".join(f"，{i}步到{start + sign * i}" for i in range(1, steps + 1))
    return f"{x}{symbol}{y}：从{start}往{way}走{steps}步{walk}，等于{total}。"


def count_dates(start: str, steps: int) -> str:
    """The days or months after ``start``, named one by one."""
    day = start in words.WEEKDAYS
    names, now, unit = (words.WEEKDAYS, "今天", "天") if day else (words.MONTHS, "现在", "个月")
    days = (names[(names.index(start) + i) % len(names)] for i in range(1, steps + 1))
    walk = "，".join(f"{i}{unit}后是{name}" for i, name in enumerate(days, 1))
    return f"{now}是{start}，往后数{steps}{unit}：{walk}。"


def operands(rng: Random, pairs: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    """One of ``pairs``, in either order."""
    a, b = rng.choice(pairs)
    return (a, b) if rng.random() < 0.5 else (b, a)


def add(rng: Random, pairs: tuple[tuple[int, int], ...]) -> Exercise:
    """A sum of one of ``pairs``, asked without asking to count."""
    x, y = operands(rng, pairs)
    question = _frame(rng, rng.choice(words.ADDING).format(x=x, y=y))
    right, wrong = (f"{x}加{y}等于{total}。" for total in (x + y, _near(rng, x + y)))
    return Exercise("add", question, str(x + y), right, wrong, counted=count(x, y, 1))


def sub(rng: Random, pairs: tuple[tuple[int, int], ...]) -> Exercise:
    """The sum of one of ``pairs`` less the second, asked without asking to count: as in ``_chain``
    never more than LIMIT / 2 steps back."""
    rest, y = rng.choice(pairs)
    x = rest + y
    question = _frame(rng, rng.choice(words.SUBTRACTING).format(x=x, y=y))
    right, wrong = (f"{x}减{y}等于{left}。" for left in (rest, _near(rng, rest)))
    return Exercise("sub", question, str(rest), right, wrong, counted=count(x, y, -1))


def _add(rng: Random, held_out: bool) -> Exercise:
    return add(rng, SUM_POOLS["test" if held_out else "sft"])


def _sub(rng: Random, held_out: bool) -> Exercise:
    return sub(rng, SUM_POOLS["test" if held_out else "sft"])


def _chain(rng: Random, held_out: bool) -> Exercise:
    if rng.random() < 0.5:
        x, y = operands(rng, SUMS.held_out if held_out else SUMS.train)
        core, right, answer = rng.choice(words.ADDING), count(x, y, 1), x + y
    else:
        answer, y = SUMS.pick(rng, held_out)  # never more than LIMIT / 2 steps back
        x = answer + y
        core, right = rng.choice(words.SUBTRACTING), count(x, y, -1)
    return Exercise(
        kind="chain",
        question=_frame(rng, core.format(x=x, y=y)) + rng.choice(words.STEP_BY_STEP),
        answer=str(answer),
        right=right,
        wrong=right.removesuffix(f"{answer}。") + f"{_near(rng, answer)}。",
        worked=True,
    )


def _shop(rng: Random, held_out: bool) -> Exercise:
    pair = BASKETS.pick(rng, held_out)
    x, y = pair if rng.random() < 0.5 else pair[::-1]
    (m, p), (k, q) = words.GOODS[x], words.GOODS[y]
    prices = f"{x}{p}元，{y}{q}元，一共"
    return Exercise(
        kind="shop",
        question=_frame(rng, rng.choice(words.SHOPPING).format(x=x, y=y, m=m, k=k)),
        answer=f"{p + q}元",
        right=f"{prices}{p + q}元。",
        wrong=f"{prices}{_near(rng, p + q)}元。",
        worked=True,
    )


def _calendar(rng: Random, held_out: bool) -> Exercise:
    start, steps = DATES.pick(rng, held_out)
    day = start in words.WEEKDAYS
    names, cores = (words.WEEKDAYS, words.ASKING_DAY) if day else (words.MONTHS, words.ASKING_MONTH)
    answer, right = names[(names.index(start) + steps) % len(names)], count_dates(start, steps)
    return Exercise(
        kind="calendar",
        question=_frame(rng, rng.choice(cores).format(x=start, n=steps)),
        answer=answer,
        right=right,
        wrong=right.removesuffix(f"{answer}。") + f"{_other(rng, names, answer)}。",
        worked=True,
    )


MAKERS: dict[str, Callable[[Random, bool], Exercise]] = {
    "fact": _fact,
    "phrasing": _phrasing,
    "reading": _reading,
    "multi_turn": _multi_turn,
    "choice": _choice,
    "calendar": _calendar,
    "add": _add,
    "sub": _sub,
    "chain": _chain,
    "shop": _shop,
}
KINDS = tuple(MAKERS)
EVERY_KIND = {kind: 1.0 for kind in KINDS if kind != "phrasing"}  # in training, that is "fact"


# ---- replies ----

# How replies sound before DPO: mostly blunt, so that there are manners left to teach.
_CURT, _FULL = 0.45, 0.45  # and the rest polite
# Few sums are counted unasked: enough for reinforcement learning to find, which tries often.
_COUNTED = 0.05


def pick(rng: Random, weights: dict[_T, float]) -> _T:
    """One of the keys, each as likely as its weight says."""
    return rng.choices(tuple(weights), tuple(weights.values()))[0]


def draw(rng: Random, kinds: dict[str, float], held_out: bool = False) -> Exercise:
    """An exercise of one of ``kinds``, by weight."""
    return MAKERS[pick(rng, kinds)](rng, held_out)


def polite(rng: Random, sentence: str) -> str:
    return sentence + rng.choice(words.CLOSINGS)


def reply_to(rng: Random, asked: Exercise) -> str:
    """The right answer in one of the three styles; of a sum, rarely by counting."""
    if asked.counted and rng.random() < _COUNTED:
        return asked.counted
    way = rng.random()
    if way < _CURT:
        return asked.curt
    return asked.right if way < _CURT + _FULL else polite(rng, asked.right)
