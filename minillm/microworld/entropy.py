"""How many bits a text of the micro-world holds: what no model of it can get below, on average.

Whoever knows the world has to be told, to be able to write down a document word for word, only
which choices its generator made. A choice of probability p takes -log2 p bits, and those of all
choices together bound what the text itself holds, -log2 P(text), from above: another course of
choices may lead to the same text. Most of these are easy to find, as each differs in one choice: a
wording that is replaced, a name that this sentence does not use. So every choice is made otherwise,
and all others as before; what leads to the same text counts as one.

What remains still bounds the text's information from above. Where each text has one course of
choices, up to choices that can be made otherwise independently of each other, it is exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from random import Random
from typing import Any, TypeVar

from minillm.microworld.documents import _DOCUMENTS
from minillm.microworld.exercises import pick

_T = TypeVar("_T")

FEW = 250
"""A sample that might have come out in more ways is taken to show in the text."""


@dataclass(frozen=True)
class Choice:
    """One choice that was made."""

    taken: int
    """Number of the outcome."""
    shares: Sequence[float]
    """The probability of every outcome; of a sample, which may have many, only of one."""
    items: tuple[int, ...] = ()
    """Of a sample: what was drawn."""
    population: int = 0
    """Of a sample: from how many."""

    @property
    def probability(self) -> float:
        return self.shares[self.taken]

    @property
    def bits(self) -> float:
        return -math.log2(self.probability)

    def outcomes(self) -> Iterable[Choice]:
        """All that it might have been; of samples that might have come out in many ways, this."""
        if not self.items:
            return (replace(self, taken=outcome) for outcome in range(len(self.shares)))
        if math.perm(self.population, len(self.items)) > FEW:
            return (self,)
        ways = permutations(range(self.population), len(self.items))
        return (replace(self, items=items) for items in ways)


@dataclass(frozen=True)
class Measured:
    """A document and what it takes to say it."""

    text: str
    kind: str
    choices: float
    """Bits of all choices that led to it."""
    bits: float
    """Bits of those that the text shows, at least -log2 P(text)."""


class _Otherwise(Exception):
    """The choices made before do not fit what is asked for now."""


class _Choices(Random):
    """Random choices that are kept, and can be made again.

    Made for the first time they are those that ``source`` makes, so that the texts are the same.
    """

    def __init__(self, source: Random | None, made: Sequence[Choice] = ()) -> None:
        super().__init__(0)
        self.source, self.given = source, made
        self.made: list[Choice] = []

    def _again(self, outcomes: int, population: int = 0) -> Choice:
        """The next of the choices made before."""
        if len(self.made) == len(self.given):
            raise _Otherwise
        made = self.given[len(self.made)]
        if (len(made.shares), made.population) != (outcomes, population):
            raise _Otherwise
        self.made.append(made)
        return made

    def _uniform(self, outcomes: int) -> int:
        if self.source is None:
            return self._again(outcomes).taken
        self.made.append(Choice(self.source.randrange(outcomes), [1 / outcomes] * outcomes))
        return self.made[-1].taken

    def choice(self, seq: Any) -> Any:
        return seq[self._uniform(len(seq))]

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        outcomes = range(start) if stop is None else range(start, stop, step)
        return outcomes[self._uniform(len(outcomes))]

    def randint(self, a: int, b: int) -> int:
        return self.randrange(a, b + 1)

    def sample(self, population: Any, k: int, *, counts: Any = None) -> list[Any]:
        if self.source is None:
            items = self._again(1, len(population)).items
            if len(items) != k:
                raise _Otherwise
        else:
            items = tuple(self.source.sample(range(len(population)), k))
            share = 1 / math.perm(len(population), k)
            self.made.append(Choice(0, [share], items, len(population)))
        return [population[i] for i in items]

    def choices(
        self, population: Any, weights: Any = None, *, cum_weights: Any = None, k: int = 1
    ) -> list[Any]:
        shares = [weight / math.fsum(weights) for weight in weights]
        if self.source is None:
            return [population[self._again(len(shares)).taken]]
        taken = self.source.choices(range(len(shares)), weights)[0]
        self.made.append(Choice(taken, shares))
        return [population[taken]]

    def random(self) -> float:
        return _Draw(self)


class _Draw(float):
    """A number from 0 to 1 that is only ever compared: each comparison is a choice."""

    def __new__(cls, choices: _Choices) -> _Draw:
        return super().__new__(cls, choices.source.random() if choices.source else 0.0)

    def __init__(self, choices: _Choices) -> None:
        self._choices = choices
        self._low, self._high = 0.0, 1.0  # what the comparisons have told

    def __lt__(self, limit: float) -> bool:
        if not self._low < limit < self._high:
            return limit >= self._high
        below = (limit - self._low) / (self._high - self._low)
        made = self._choices
        if made.source is None:
            is_below = made._again(2).taken == 0
        else:
            is_below = float(self) < limit
            made.made.append(Choice(0 if is_below else 1, [below, 1 - below]))
        self._low, self._high = (self._low, limit) if is_below else (limit, self._high)
        return is_below


def _document(rng: Random) -> str:
    return pick(rng, _DOCUMENTS)(rng)


def _told_by(made: Sequence[Choice]) -> str | None:
    """The document that these choices lead to, exactly; None: they lead nowhere."""
    again = _Choices(None, made)
    try:
        text = _document(again)
    except _Otherwise:
        return None
    return text if len(again.made) == len(made) else None


def _same(made: Sequence[Choice], place: int, text: str) -> list[Choice]:
    """What one choice might have been that, with all others as they were, leads to this text."""
    return [
        other
        for other in made[place].outcomes()
        if other == made[place] or _told_by([*made[:place], other, *made[place + 1 :]]) == text
    ]


def _measure(made: Sequence[Choice], text: str) -> Measured:
    bits = (
        -math.log2(math.fsum(other.probability for other in _same(made, place, text)))
        for place in range(len(made))
    )
    kind = list(_DOCUMENTS)[made[0].taken].__name__.lstrip("_")
    return Measured(text, kind, math.fsum(c.bits for c in made), math.fsum(bits))


def measured_documents(n: int, seed: int = 0) -> Iterator[Measured]:
    """The texts of ``documents(n, seed)``, measured; some milliseconds each."""
    source = Random(f"documents {seed}")
    for _ in range(n):
        choices = _Choices(source)
        text = _document(choices)
        yield _measure(choices.made, text)
