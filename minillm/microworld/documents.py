"""Texts about the micro-world to pretrain on. They tell everything, and ask what training may."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from minillm.microworld import words
from minillm.microworld.exercises import (
    DATES,
    EVERY_KIND,
    FACTS,
    LIMIT,
    SUM_POOLS,
    SUMS,
    count,
    count_dates,
    draw,
    operands,
    pick,
    reply_to,
    tale,
    tell,
)

# The wording of each fact that documents leave out, so that `continuations` are new sentences.
UNTOLD = {
    (name, label): attribute.statements[1 + (i + j) % (len(attribute.statements) - 1)]
    for i, name in enumerate(words.PEOPLE)
    for j, (label, attribute) in enumerate(words.ATTRIBUTES.items())
}
_ASKED = frozenset(FACTS.train)
NAMES = tuple(words.PEOPLE)
_LABELS = tuple(words.ATTRIBUTES)


def _biography(rng: Random) -> str:
    return life(rng, rng.choice(NAMES))


def life(rng: Random, name: str) -> str:
    """Some of the facts about a person, held out or not."""
    person = words.PEOPLE[name]
    sentences: list[str] = []
    for label in rng.sample(_LABELS, rng.randint(2, 5)):
        wording = rng.choice(words.ATTRIBUTES[label].statements)
        if wording == UNTOLD[name, label]:
            wording = words.ATTRIBUTES[label].statements[0]
        subject = person.pronoun if sentences and rng.random() < 0.4 else name
        sentences.append(wording.format(n=subject, v=person.facts[label]))
    return "".join(sentences)


def _number_line(rng: Random) -> str:
    start, steps = rng.randint(0, LIMIT - 3), rng.randint(3, 6)
    line = [str(number) for number in range(start, min(start + steps, LIMIT + 1))]
    way = rng.random()
    if way < 0.4:
        return f"往后数：{'、'.join(line)}。"
    if way < 0.8:
        return f"往前数：{'、'.join(reversed(line))}。"
    return f"{line[0]}的后面是{line[1]}，{line[1]}的后面是{line[2]}。"


def _counting(rng: Random) -> str:
    if rng.random() < 0.5:
        return count(*operands(rng, SUMS.train), 1)
    rest, y = SUMS.pick(rng, False)
    return count(rest + y, y, -1)


def _sum(rng: Random) -> str:
    x, y = operands(rng, SUM_POOLS["sft"])
    if rng.random() < 0.6:
        form = rng.choice(("{x}加{y}等于{z}。", "{x}+{y}={z}。"))
    else:
        form = rng.choice(("{z}减{x}等于{y}。", "{z}-{x}={y}。"))
    return form.format(x=x, y=y, z=x + y)


def _numbers(rng: Random) -> str:
    """Two counts, or a handful of sums, or a walk along the number line."""
    way = rng.random()
    if way < 0.6:
        return _counting(rng) + _counting(rng)
    if way < 0.85:
        return "".join(_sum(rng) for _ in range(rng.randint(3, 5)))
    return _number_line(rng) + _number_line(rng) + _number_line(rng)


def _days(rng: Random) -> str:
    i = rng.randrange(7)
    before, day, after = (words.WEEKDAYS[(i + k) % 7] for k in (-1, 0, 1))
    m = rng.randrange(12)
    season, weather = words.SEASONS[(m - 2) % 12 // 3]
    month, following = words.MONTHS[m], words.MONTHS[(m + 1) % 12]
    return rng.choice(
        (
            f"昨天是{before}，今天是{day}，明天是{after}。",
            f"{day}的前一天是{before}，后一天是{after}。",
            f"{month}过完就是{following}。",
            f"{month}到了，{season}的天气{weather}。",
        )
    ) + count_dates(*DATES.pick(rng, False))


def _prices(rng: Random) -> str:
    """What things cost, one at a time. Adding them up is left to the questions."""
    sentences: list[str] = []
    for thing in rng.sample(tuple(words.GOODS), rng.randint(2, 4)):
        measure, price = words.GOODS[thing]
        name = rng.choice(NAMES)
        sentences.append(
            rng.choice(
                (
                    f"一{measure}{thing}{price}元。",
                    f"{thing}的价钱是{price}元。",
                    f"{name}花{price}元买了一{measure}{thing}。",
                    f"{name}想买{thing}，要付{price}元。",
                )
            )
        )
    return "".join(sentences)


def _story(rng: Random) -> str:
    return story(rng, tale(rng, False))


def story(rng: Random, slots: dict[str, str]) -> str:
    """A story from beginning to end."""
    rest = rng.choice(words.SEEKING) + rng.choice(words.ENDINGS)
    return tell(rng, slots) + rest.format_map(slots)


LISTS: tuple[tuple[str, ...], ...] = (
    tuple(words.GOODS),
    tuple(words.OBJECTS),
    NAMES,
    words.ANIMALS,
    words.PLACES,
    tuple(str(number) for number in range(LIMIT + 1)),
    *(attribute.values for attribute in words.ATTRIBUTES.values()),
)


def _echo(rng: Random) -> str:
    """Somebody says something and somebody repeats it: practice in copying from what was read."""
    return _repeated(rng) + _repeated(rng)


def _repeated(rng: Random) -> str:
    a, b = rng.sample(words.ANIMALS, 2)
    said = "、".join(rng.sample(rng.choice(LISTS), rng.choice((1, 1, 2, 3))))
    return rng.choice(
        (
            f"{a}说：“{said}。”{b}跟着说：“{said}。”",
            f"{a}的单子：{said}。{b}照着念：{said}。",
            f"请重复：{said}。好的，{said}。",
        )
    )


def _dialogue(rng: Random) -> str:
    """Two people get to know each other. Only what training may ask is asked."""
    asker, first = rng.sample(NAMES, 2)
    talk = ""
    for label in rng.sample(_LABELS, 3):
        if (first, label) in _ASKED:
            attribute = words.ATTRIBUTES[label]
            told = attribute.tell.format(v=words.PEOPLE[first].facts[label])
            talk += f"{asker}问{first}：“{attribute.ask}？”{first}说：“{told}。”"
    return talk or _greeting(rng)


def _greeting(rng: Random) -> str:
    a, b = rng.sample(NAMES, 2)
    said, answered = rng.choice(words.CHATS)
    return f"{a}说：“{said}”{b}说：“{answered}”{rng.choice(words.ABOUT).format(n=a)}"


def _about(rng: Random) -> str:
    parts = rng.sample(words.ABOUT, 2)
    return "".join(part.format(n=rng.choice(NAMES)) for part in parts)


_PRACTICE = {**EVERY_KIND, "reading": 3.0}  # nothing else teaches to look back into a story


def _practice(rng: Random) -> str:
    """Questions of every kind with their answers, as an exercise book has them."""
    asked = draw(rng, _PRACTICE)
    turns = [*asked.history, ("user", asked.question), ("assistant", reply_to(rng, asked))]
    return "\n".join(("问：" if role == "user" else "答：") + content for role, content in turns)


_DOCUMENTS: dict[Callable[[Random], str], float] = {
    _biography: 0.30,
    _numbers: 0.15,
    _days: 0.04,
    _prices: 0.04,
    _story: 0.14,
    _echo: 0.12,
    _dialogue: 0.05,
    _greeting: 0.02,
    _about: 0.02,
    _practice: 0.12,
}


def documents(n: int, seed: int = 0) -> Iterator[str]:
    """``n`` texts of 8 to 250 characters to pretrain on."""
    rng = Random(f"documents {seed}")
    for _ in range(n):
        yield pick(rng, _DOCUMENTS)(rng)
