"""What the micro-world teaches: conversations, preference pairs, and rows of any category.

Everything is a pure function of its arguments: the same seed gives the same rows on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from minillm.microworld import identity, words
from minillm.microworld.documents import NAMES, documents, life, story
from minillm.microworld.exercises import (
    EVERY_KIND,
    MAKERS,
    Exercise,
    Turn,
    draw,
    pick,
    polite,
    reply_to,
    tale,
)

Turns = list[dict[str, str]]  # [{"role": "user", "content": "..."}, ...]


def _turns(*turns: Turn) -> Turns:
    return [{"role": role, "content": content} for role, content in turns]


def _answered(rng: Random, asked: Exercise) -> Turns:
    return _turns(*asked.history, ("user", asked.question), ("assistant", reply_to(rng, asked)))


def _introduction(rng: Random) -> Turns:
    """Asked who somebody is, the model tells what it read: fine-tuning must not wash that away."""
    name = rng.choice(NAMES)
    request = rng.choice(words.INTRODUCING).format(n=name)
    return _turns(("user", request), ("assistant", life(rng, name)))


def _storytelling(rng: Random) -> Turns:
    slots = tale(rng, False)
    request = rng.choice(words.TELLING).format_map(slots)
    return _turns(("user", request), ("assistant", story(rng, slots)))


def _greeting(rng: Random) -> Turns:
    """Small talk, alone or before a question."""
    said, answered = rng.choice(words.CHATS)
    greeting = _turns(("user", f"我是{rng.choice(NAMES)}。{said}"), ("assistant", answered))
    if rng.random() < 0.3:
        return greeting
    return greeting + _answered(rng, MAKERS[rng.choice(("fact", "reading"))](rng, False))


_FREE: dict[str, Callable[[Random], Turns]] = {
    "introduction": _introduction,
    "story": _storytelling,
    "greeting": _greeting,
}


# What each category consists of: kinds of questions, and what is free of any.
_SHARES: dict[str, dict[str, float]] = {
    "general": {
        "fact": 0.30,
        "reading": 0.32,
        "multi_turn": 0.15,
        "introduction": 0.12,
        "story": 0.05,
        "greeting": 0.06,
    },
    "knowledge": {"choice": 0.35, "reading": 0.30, "calendar": 0.25, "fact": 0.10},
    "math": {"chain": 0.45, "shop": 0.20, "add": 0.20, "sub": 0.15},
}


# A chat is asked more than one thing. So this share of the rows are sessions, of at most so many
# characters, three for each turn included, that all fit into the tiny preset's 128 tokens.
_SESSIONS, _LONGEST = 0.2, 124


def conversations(category: str, n: int, seed: int = 0) -> Iterator[Turns]:
    """``n`` conversations of ``category``: general, knowledge or math. Some are sessions."""
    rng = Random(f"{category} {seed}")
    for _ in range(n):
        yield _session(rng) if rng.random() < _SESSIONS else _conversation(rng, category)


def _conversation(rng: Random, category: str) -> Turns:
    kind = pick(rng, _SHARES[category])
    return _FREE[kind](rng) if kind in _FREE else _answered(rng, MAKERS[kind](rng, False))


def _session(rng: Random) -> Turns:
    """Conversations of all categories in a row, with small talk between them: each is answered as
    if it stood alone, and only a follow-up looks back."""
    turns: Turns = []
    for _ in range(rng.randint(2, 9)):
        if rng.random() < 0.12:
            said, answered = rng.choice(words.CHATS)
            more = _turns(("user", said), ("assistant", answered))
        else:
            more = _conversation(rng, rng.choice(tuple(_SHARES)))
        if not turns or sum(3 + len(turn["content"]) for turn in turns + more) <= _LONGEST:
            turns += more
    return turns


def preferences(n: int, seed: int = 0, held_out: bool = False) -> Iterator[dict[str, Turns]]:
    """``n`` pairs: the chosen reply is right and polite, the rejected one is not both.

    Three in ten of the rejected are polite but wrong, so that manners alone earn nothing.
    """
    rng = Random(f"preferences {seed} {held_out}")
    for _ in range(n):
        asked = draw(rng, EVERY_KIND, held_out)
        if rng.random() < 0.3:
            rejected = polite(rng, asked.wrong)
        else:
            rejected = rng.choice((asked.curt, asked.right))
        prompt = (*asked.history, ("user", asked.question))
        yield {
            "chosen": _turns(*prompt, ("assistant", polite(rng, asked.right))),
            "rejected": _turns(*prompt, ("assistant", rejected)),
        }


def rows(category: str, n: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """``n`` rows of any category, in the canonical form of the data mix."""
    if category == "text":
        yield from ({"text": text} for text in documents(n, seed))
    elif category == "preference":
        yield from preferences(n, seed)
    elif category == "identity":
        yield from ({"messages": turns} for turns in identity.persona_conversations(n, seed))
    else:
        yield from ({"messages": turns} for turns in conversations(category, n, seed))
