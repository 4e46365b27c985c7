"""The micro-world says what is true, keeps what is held out unseen, and judges replies fairly."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from itertools import product
from random import Random

import pytest

from minillm.microworld import exercises, lessons, scoring, words
from minillm.microworld.documents import documents
from minillm.microworld.exercises import BASKETS, DATES, FACTS, MAKERS, PLACINGS, SUM_POOLS, SUMS
from minillm.microworld.scoring import Question
from minillm.tokenizer.vocabulary import RustBPETokenizer

CATEGORIES = ("text", "general", "knowledge", "math", "preference", "identity")


def contents(row: dict) -> list[str]:
    """What a row teaches, one text for each message; so not the rejected half of a pair."""
    if "text" in row:
        return [row["text"]]
    return [message["content"] for message in row.get("messages") or row["chosen"]]


@pytest.fixture(scope="module")
def training() -> list[list[str]]:
    """The texts of 32,000 training rows of all categories."""
    sizes = zip(CATEGORIES, (12_000, 8_000, 5_000, 5_000, 2_000, 200), strict=True)
    return [contents(row) for category, n in sizes for row in lessons.rows(category, n, seed=7)]


# ---- determinism, variety, speed ----

DIGEST = """
import hashlib, json
from minillm.microworld import exercises, lessons, scoring
rows = [r for c in {categories} for r in lessons.rows(c, 200, seed=5)]
tests = [repr(q) for k in exercises.KINDS for q in scoring.questions(k, 20)]
tests += [repr(q) for k in scoring.SAYINGS for q in scoring.continuations(k, 20)]
print(hashlib.sha256(json.dumps([rows, tests]).encode()).hexdigest())
"""


def test_rows_do_not_depend_on_the_process() -> None:
    def digest(hash_seed: str) -> str:
        code = DIGEST.format(categories=CATEGORIES)
        env = {**os.environ, "PYTHONHASHSEED": hash_seed}
        return subprocess.check_output([sys.executable, "-c", code], env=env, encoding="utf-8")

    assert digest("1") == digest("2")


@pytest.mark.parametrize("category", CATEGORIES)
def test_seeds_decide_the_rows(category: str) -> None:
    def rows(seed: int) -> list[dict]:
        return list(lessons.rows(category, 100, seed))

    assert rows(1) == rows(1)
    assert rows(1) != rows(2)
    assert list(lessons.rows(category, 40, 1)) == rows(1)[:40]


def test_few_rows_are_repeats() -> None:
    texts = list(documents(20_000))
    assert len(set(texts)) > 0.97 * len(texts)
    for category in ("general", "knowledge", "math"):
        rows = [json.dumps(row) for row in lessons.rows(category, 8_000)]
        assert len(set(rows)) > 0.8 * len(rows), category


def test_rows_are_of_moderate_length() -> None:
    lengths = [len(text) for text in documents(5_000)]
    assert min(lengths) >= 8
    assert max(lengths) <= 250


def test_generation_is_fast() -> None:
    def rows_per_second(category: str) -> float:
        start = time.process_time()
        n = sum(1 for _ in lessons.rows(category, 4_000))
        return n / (time.process_time() - start)

    # 20,000 and more by itself; half of that is asked of a busy machine.
    assert min(max(rows_per_second(c) for _ in range(3)) for c in CATEGORIES) > 10_000


def test_every_row_is_a_conversation_that_ends_with_an_answer() -> None:
    for category in ("general", "knowledge", "math", "identity"):
        for row in lessons.rows(category, 500):
            roles = [message["role"] for message in row["messages"]]
            assert roles == ["user", "assistant"] * (len(roles) // 2)
            assert all(message["content"] for message in row["messages"])


# ---- the world is as its tables say ----


def test_the_census_is_balanced() -> None:
    assert len(words.PEOPLE) == 48
    for label, attribute in words.ATTRIBUTES.items():
        counts = Counter(person.facts[label] for person in words.PEOPLE.values())
        assert set(counts) == set(attribute.values)
        assert len(set(counts.values())) == 1


def test_every_word_belongs_to_one_table() -> None:
    tables = [attribute.values for attribute in words.ATTRIBUTES.values()]
    tables += [tuple(words.PEOPLE), tuple(words.GOODS), tuple(words.OBJECTS)]
    tables += [words.ANIMALS, words.PLACES, words.SITES, words.WEEKDAYS, words.MONTHS]
    counts = Counter(word for table in tables for word in table)
    assert max(counts.values()) == 1


def test_no_template_keeps_a_slot(training: list[list[str]]) -> None:
    for row in training:
        for text in row:
            assert not re.search(r"[{}]", text.replace("{{name}}", "").replace("{{author}}", ""))


def test_people_are_told_of_as_they_are() -> None:
    """Where a sentence holds one person and one value of an attribute, the value is theirs."""
    of = {v: label for label, a in words.ATTRIBUTES.items() for v in a.values}
    name, value = re.compile("|".join(words.PEOPLE)), re.compile("|".join(of))
    animal = re.compile("|".join(words.ANIMALS))
    seen = set()
    for text in documents(20_000, seed=3):
        for sentence in re.split("[。？！\n”]", text):
            names, values = name.findall(sentence), value.findall(animal.sub("", sentence))
            if len(names) == 1 and len(values) == 1 and "答：" not in sentence:
                label = of[values[0]]
                if label == "颜色" and re.search("|".join(words.OBJECTS), sentence):
                    continue
                assert words.PEOPLE[names[0]].facts[label] == values[0], sentence
                seen.add((names[0], label))
    assert len(seen) == len(words.PEOPLE) * len(words.ATTRIBUTES)  # each is stated somewhere


def test_calculations_are_true(training: list[list[str]]) -> None:
    checked: Counter[str] = Counter()
    for row in training:
        for text in row:
            for x, op, y, z in re.findall(r"(\d+)(加|减|\+|-)(\d+)(?:等于|=)(\d+)", text):
                assert int(z) == (int(x) + int(y) if op in "加+" else int(x) - int(y)), text
                checked["sum"] += 1
            for x, op, y, walk in re.findall(r"(\d+)(加|减)(\d+)：([^。]*)", text):
                total = int(x) + int(y) if op == "加" else int(x) - int(y)
                places = [int(p) for p in re.findall(r"步到(\d+)", walk)]
                start = int(re.findall(r"从(\d+)", walk)[0])
                step = 1 if op == "加" else -1
                assert places == list(range(start + step, total + step, step))
                assert walk.endswith(f"等于{total}")
                checked["walk"] += 1
            for p, q, total in re.findall(r"(\d+)元，[^，。]*?(\d+)元，一共(\d+)元", text):
                assert int(p) + int(q) == int(total)
                checked["bill"] += 1
            for thing, price in re.findall(f"({'|'.join(words.GOODS)})(\\d+)元", text):
                assert words.GOODS[thing][1] == int(price)
                checked["price"] += 1
            for start, steps, walk in re.findall(r"是(\w+?)，往后数(\d)[^：]*：([^。]*)", text):
                names = words.WEEKDAYS if start in words.WEEKDAYS else words.MONTHS
                first = names.index(start)
                told = re.findall("后是([^，]+)", walk)
                expected = [names[(first + i) % len(names)] for i in range(1, int(steps) + 1)]
                assert told == expected
                checked["date"] += 1
    assert set(checked) == {"sum", "walk", "bill", "price", "date"}
    assert min(checked.values()) > 500


# ---- the held-out split ----


@pytest.mark.parametrize("cells", [FACTS, SUMS, BASKETS, PLACINGS, DATES])
def test_a_fifth_of_every_space_is_held_out(cells) -> None:
    assert not set(cells.train) & set(cells.held_out)
    assert len(cells.train) + len(cells.held_out) >= 100
    share = len(cells.held_out) / (len(cells.train) + len(cells.held_out))
    assert 0.12 < share < 0.28


@pytest.mark.parametrize("kind", exercises.KINDS)
def test_every_kind_has_enough_held_out_questions(kind: str) -> None:
    asked = scoring.questions(kind, 60)
    assert len({question.messages for question in asked}) == 60


@pytest.mark.parametrize("kind", scoring.SAYINGS)
def test_every_kind_has_enough_held_out_sentences(kind: str) -> None:
    assert len({item.prompt for item in scoring.continuations(kind, 40)}) >= 40 - 20 * (
        kind in ("add", "chain")  # there are 24 held-out sums, in two orders
    )


def test_no_held_out_question_or_sentence_is_in_the_training_data(training) -> None:
    corpus = "\n".join({text for row in training for text in row})

    def occurs(text: str) -> bool:  # as itself: 3+3 is no part of 13+3
        return text in corpus and bool(re.search(r"(?<!\d)" + re.escape(text), corpus))

    for kind in exercises.KINDS:
        for question in scoring.questions(kind, 100):
            if kind == "multi_turn":  # its last turn alone is anybody's question: see below
                continue
            assert not occurs(question.messages[-1][1]), question
    for kind in scoring.SAYINGS:
        for item in scoring.continuations(kind, 100):
            assert not occurs(item.prompt + item.answer), item


def test_no_held_out_fact_is_asked(training) -> None:
    cores = [
        (re.escape(core).replace(r"\{n\}", "(?P<who>..|.)"), label)
        for label, attribute in words.ATTRIBUTES.items()
        for core in (*attribute.questions, attribute.noun, "问{n}：“" + attribute.ask)
    ]
    patterns = [(re.compile(core), label) for core, label in cores]
    held_out, asked = set(FACTS.held_out), set()
    for row in training:
        for text in row:
            person = None  # whom a pronoun means
            for line in text.split("\n"):
                names = re.findall("|".join(words.PEOPLE), line)
                person = names[-1] if names else person
                if not re.search("[？A]", line):
                    continue
                for name in {*names, person} - {None}:
                    for label in _labels_asked(line, name, patterns):
                        assert (name, label) not in held_out, text
                        asked.add((name, label))
    assert len(asked) > 0.9 * len(FACTS.train)  # the search does find questions


def _labels_asked(line: str, name: str, patterns) -> list[str]:
    who = (name, words.PEOPLE[name].pronoun)
    return [label for p, label in patterns for m in p.finditer(line) if m["who"].endswith(who)]


def test_no_held_out_sum_basket_placing_or_date_is_used(training) -> None:
    goods, objects, places = (
        re.compile("|".join(table)) for table in (words.GOODS, words.OBJECTS, words.PLACES)
    )
    used: dict[str, set] = {"sum": set(), "basket": set(), "placing": set(), "date": set()}
    for row in training:
        text = "\n".join(row)
        for x, op, y in re.findall(r"(\d+)(加|减|\+|-)(\d+)", text):
            a, b = (int(x), int(y)) if op in "加+" else (int(x) - int(y), int(y))
            used["sum"].add((max(a, b), min(a, b)))
        for sentence in re.split("[。？\n]", text):
            if "一共" in sentence or "各买" in sentence:
                pair = goods.findall(sentence)
                used["basket"] |= {tuple(pair), tuple(pair[::-1])}
            used["placing"] |= set(product(objects.findall(sentence), places.findall(sentence)))
        for start, n in re.findall(r"[天在]是(星期.|\d+月)，(?:再过|往后数)?(\d)", text):
            used["date"].add((start, int(n)))
        for start, n in re.findall(r"从(星期.|\d+月)往后数(\d)", text):
            used["date"].add((start, int(n)))
        for frame in words.HELD_OUT_FRAMES:
            assert frame.split("{q}")[0] not in text
    for space, cells in zip(used, (SUMS, BASKETS, PLACINGS, DATES), strict=True):
        assert not used[space] & set(cells.held_out), space
        assert len(used[space] & set(cells.train)) > 0.9 * len(cells.train), space


PLAIN = re.compile(r"(\d+)([加减+-])(\d+)(?:等于多少|等于几|是多少)吗?？(?!.*(?:数着|一步|数一数))")


def pair_asked(question: str) -> tuple[int, int] | None:
    """The two numbers, the larger first, whose sum or difference is asked for without asking to
    count: of 12 - 5 these are 7 and 5."""
    found = PLAIN.search(question)
    if found is None:
        return None
    x, y = int(found[1]), int(found[3])
    pair = (x, y) if found[2] in "加+" else (x - y, y)
    return max(pair), min(pair)


def test_the_pools_of_sums_are_disjoint() -> None:
    pools = {name: set(cells) for name, cells in SUM_POOLS.items()}
    assert pools["test"] == set(SUMS.held_out)
    assert set.union(*pools.values()) == {*SUMS.train, *SUMS.held_out}
    assert sum(map(len, pools.values())) == len(set.union(*pools.values()))
    assert min(map(len, pools.values())) >= 20


def test_only_reinforcement_learning_asks_plainly_for_the_sums_of_its_pool() -> None:
    asked = Counter(
        pair
        for category in CATEGORIES
        for row in lessons.rows(category, 3_000, seed=5)
        for text in contents(row)
        for line in text.split("\n")
        if (pair := pair_asked(line))
    )
    assert set(asked) == set(SUM_POOLS["sft"]), "each of them, and no other"
    assert asked.total() > 2_000


def test_questions_to_explore_are_plain_and_of_their_pool() -> None:
    rng = Random(1)
    found = [scoring.question_to_explore(rng) for _ in range(3_000)]
    assert {pair_asked(q.messages[-1][1]) for q in found} == set(SUM_POOLS["rl"])
    assert {q.kind for q in found} == {"add", "sub"}
    for kind in ("add", "sub"):
        tested = {pair_asked(q.messages[-1][1]) for q in scoring.questions(kind, 200)}
        assert tested <= set(SUM_POOLS["test"])


def test_questions_can_also_be_asked_of_what_training_asks(training) -> None:
    corpus = {text for row in training for text in row}
    known = scoring.questions("fact", 100, held_out=False)
    assert sum(question.messages[-1][1] in corpus for question in known) > 25


def test_sessions_ask_every_kind_once_and_equally_often_at_every_place() -> None:
    sessions = scoring.sessions(20)
    kinds = [[asked.kind for _, asked in session if asked] for session in sessions]
    for tenth in (kinds[:10], kinds[10:]):
        for places in (*tenth, *zip(*tenth, strict=True)):
            assert sorted(places) == sorted(exercises.KINDS)
    assert kinds[0] != kinds[10]
    for i, session in enumerate(sessions):
        alone = {scoring.questions(kind, 20)[i] for kind in exercises.KINDS}
        assert {asked for _, asked in session if asked} == alone
        said = [text for text, _ in session]
        for j, (text, asked) in enumerate(session):
            if asked is None:  # small talk, or what the next turn follows up
                small_talk = text in dict(words.CHATS)
                assert small_talk or (following := session[j + 1][1]) is not None
                assert small_talk or following.messages[0][1] == text
            else:
                assert asked.messages[-1][1] == text
        assert len(said) > 10
    assert sum(text in dict(words.CHATS) for session in sessions for text, _ in session) > 20


def test_training_holds_chats_of_many_questions_that_fit_into_its_rows() -> None:
    tokenizer = RustBPETokenizer.load()
    small_talk = 0
    long = []
    for category in ("general", "knowledge", "math"):
        for turns in lessons.conversations(category, 1000):
            texts = [turn["content"] for turn in turns]
            small_talk += texts[0] in dict(words.CHATS)
            if len(turns) > 4:
                long.append(turns)
                assert sum(3 + len(text) for text in texts) <= 124
                assert len(tokenizer.render_conversation(turns)[0]) <= 129
    assert len(long) > 300
    assert {len(turns) // 2 for turns in long} >= {3, 4, 5}
    assert small_talk > 20


# ---- what counts as right ----


@pytest.mark.parametrize("held_out", [True, False])
@pytest.mark.parametrize("kind", exercises.KINDS)
def test_right_answers_in_any_style_are_right_and_wrong_ones_wrong(kind, held_out) -> None:
    rng = Random(1)
    for _ in range(300):
        e = MAKERS[kind](rng, held_out)
        messages = (*e.history, ("user", e.question))
        question = Question(kind, messages, e.answer, e.options)
        for reply in (e.answer, f"{e.answer}。", e.curt, e.right, f" {e.right}\n"):
            assert question.is_correct(reply), (question, reply)
            assert question.is_correct(reply + words.CLOSINGS[0]), (question, reply)
        for reply in ("", "。", e.wrong, e.wrong + words.CLOSINGS[1], f"{e.right}{e.wrong}"):
            assert not question.is_correct(reply), (question, reply)


def ask(kind: str, *turns: str, answer: str, options: str = "") -> Question:
    roles = ("user", "assistant", "user", "assistant", "user")
    return Question(kind, tuple(zip(roles, turns, strict=False)), answer, tuple(options.split()))


JOB = ask("fact", "王芳做什么工作？", answer="老师")
FOOD = ask("fact", "林兰爱吃什么？", answer="鸡蛋")
SUM = ask("add", "9加4等于多少？", answer="13")
LESS = ask("sub", "13-4是多少？", answer="9")
WALK = ask("chain", "9加2等于多少？请数着算。", answer="11")
BILL = ask("shop", "买苹果和香蕉一共多少元？", answer="5元")
DAY = ask("calendar", "今天是星期六，2天后是星期几？", answer="星期一")
MONTH = ask("calendar", "现在是11月，2个月后是几月？", answer="1月")
PLACE = ask(
    "reading", "小猫看见一顶红色的帽子。小猫把帽子放在箱子里。帽子在哪里？", answer="箱子里"
)
WHO = ask("reading", "小猫把帽子放在箱子里。是谁放的帽子？", answer="小猫")
PET = ask("multi_turn", "王芳做什么工作？", "老师。", "那她养了什么？", answer="猫")
PICK = ask(
    "choice",
    "王芳的工作是哪一个？A.医生 B.老师 C.司机 D.警察",
    answer="老师",
    options="医生 老师 司机 警察",
)


@pytest.mark.parametrize(
    ("question", "reply", "right"),
    [
        (JOB, "她是一名老师", True),
        (JOB, "王芳当老师很多年了！希望能帮到你！", True),
        (JOB, "医生和老师。", False),
        (JOB, "李兰的工作是老师。", False),  # somebody else
        (JOB, "王芳不是老师。", False),
        (FOOD, "林兰不爱吃鸡蛋。", False),
        (FOOD, "林兰没吃过鸡蛋。", False),
        (JOB, "王芳的工作是老师。王芳的工作是医生。", False),  # the last sentence counts
        (JOB, "王芳的工作是", False),
        (JOB, "老", False),
        (SUM, "9加4等于13。", True),
        (SUM, "4+9=13", True),
        (SUM, "9加5等于13。", False),
        (SUM, "9加4等于14。", False),
        (SUM, "130", False),
        (SUM, "13，14", False),
        (SUM, "十三", False),
        (LESS, "13减4等于9。", True),
        (LESS, "4减13等于9。", False),
        (WALK, "9加2：从9往后走2步，1步到10，2步到11，等于11。", True),
        (WALK, "9加2：从9往后走2步，1步到10，2步到11，等于12。", False),
        (WALK, "9加3：从9往后走2步，1步到10，2步到11，等于11。", False),
        (WALK, "9加2：从9往后走2步，1步到10，2步到1", False),  # cut short
        (BILL, "苹果3元，香蕉2元，一共5元。", True),
        (BILL, "5元。", True),
        (BILL, "苹果3元，西瓜2元，一共5元。", False),
        (BILL, "苹果3元，香蕉2元，一共6元。", False),
        (DAY, "今天是星期六，往后数2天：1天后是星期日，2天后是星期一。", True),
        (DAY, "今天是星期五，往后数3天：1天后是星期六，2天后是星期日，3天后是星期一。", False),
        (DAY, "星期日。", False),
        (MONTH, "1月。", True),
        (MONTH, "11月。", False),
        (PLACE, "在箱子里。", True),
        (PLACE, "小猫把帽子放在箱子里。", True),
        (PLACE, "皮球在箱子里。", False),
        (PLACE, "箱子里或者桌子上。", False),
        (WHO, "是小猫放的。", True),
        (WHO, "小猫和小狗。", False),
        (WHO, "猫。", False),
        (PET, "王芳养了一只猫。", True),
        (PET, "她养了一只小猫。", False),  # an animal of the stories
        (PET, "老师养了一只猫。", True),
        (PICK, "B", True),
        (PICK, "老师，选B。", True),
        (PICK, "老师，选A。", False),
        (PICK, "C", False),
        (PICK, "医生 老师 司机 警察", False),
    ],
)
def test_near_misses(question: Question, reply: str, right: bool) -> None:
    assert question.is_correct(reply) is right


# ---- preferences ----


@pytest.mark.parametrize("held_out", [True, False])
def test_the_chosen_reply_is_polite_and_right_and_the_rejected_is_not_both(held_out: bool) -> None:
    polite_but_wrong = 0
    pairs = list(lessons.preferences(1_000, seed=2, held_out=held_out))
    for pair in pairs:
        assert pair["chosen"][:-1] == pair["rejected"][:-1]
        chosen, rejected = pair["chosen"][-1]["content"], pair["rejected"][-1]["content"]
        assert pair["chosen"][-1]["role"] == pair["rejected"][-1]["role"] == "assistant"
        assert scoring.is_polite(chosen)
        assert chosen != rejected
        polite_but_wrong += scoring.is_polite(rejected)
    assert 0.25 < polite_but_wrong / len(pairs) < 0.35


def test_held_out_preferences_ask_what_training_does_not() -> None:
    def prompts(held_out: bool) -> set[str]:
        pairs = lessons.preferences(2_000, held_out=held_out)
        return {json.dumps(pair["chosen"][:-1]) for pair in pairs}

    assert not prompts(True) & prompts(False)


def test_conversations_leave_room_for_manners() -> None:
    replies = [
        row["messages"][-1]["content"]
        for category in ("general", "knowledge", "math")
        for row in lessons.rows(category, 2_000)
    ]
    assert 0.07 < sum(map(scoring.is_polite, replies)) / len(replies) < 0.13


# ---- what the book shows ----


def test_the_showcase_asks_what_training_does_not() -> None:
    place, total, _ = scoring.SHOWCASE
    name = next(name for name in words.PEOPLE if name in place)
    assert (name, "城市") in FACTS.held_out
    x, y = (int(number) for number in re.findall(r"\d+", total))
    assert (max(x, y), min(x, y)) in SUMS.held_out
