"""Build tasks of chapter 16: what a score in multiple choice is worth."""

from __future__ import annotations

from minillm.book.tasks.attempt import Attempt, task

_QUESTIONS = [
    ("日出是几点", ["六点整", "七点", "正午十二点", "夜里"]),
    ("谁写了《静夜思》", ["杜甫", "李白", "白居易", "王维"]),
    ("水到几度结冰", ["零度", "十度", "一百度", "零下四十度"]),
    ("哪个是质数", ["四", "六", "八", "十一"]),
]


@task("16.1")
def _kappa(attempt: Attempt) -> None:
    """``kappa(chosen, answers)``: Cohen's kappa, worked out by hand."""
    attempt.gives(1.0, "ABCD", "ABCD", hint="全对是 1。")
    attempt.gives(0.0, "DDDDDDDD", "ABCDABCD", hint="总选 D，和照着 D 乱选一样。")
    attempt.gives(0.0, "DDDD", "DDDA", hint="碰巧 D 多，总选 D 就对得多，也没有多懂一点。")
    attempt.gives(0.2, "AAAB", "ABBB", hint="对了一半；碰巧是 3/4 × 1/4 + 1/4 × 3/4 = 3/8。")
    attempt.gives(1 / 3, "AACD", "ABCC", hint="碰巧是 2/4 × 1/4 + 1/4 × 2/4 = 1/4。")
    attempt.gives(-1.0, "ABAB", "BABA", hint="一题不对，比乱选还差。")
    attempt.gives(0.0, "DDDD", "DDDD", hint="碰巧就能全对，返回 0。")


@task("16.2")
def _steadfast(attempt: Attempt) -> None:
    """``steadfast(choose, questions)``: the share of questions where the same option is chosen in
    all four turns of the options."""
    attempt.gives(0.0, _last, _QUESTIONS, hint="总选最后一个：字母一样，内容换了四个。")
    attempt.gives(1.0, _longest, _QUESTIONS, hint="总选最长的：次序怎样变，内容都一样。")
    attempt.gives(
        0.0, _longest_unless_last, _QUESTIONS, hint="它只在一种次序里换了主意：四次都要一样。"
    )
    attempt.gives(0.5, _knows_how_many, _QUESTIONS, hint="四题里有两题站得住。")
    attempt.gives(1.0, _knows_how_many, _QUESTIONS[:1])


def _last(question: str, options: list[str]) -> int:
    return 3


def _longest(question: str, options: list[str]) -> int:
    return max(range(4), key=lambda place: len(options[place]))


def _longest_unless_last(question: str, options: list[str]) -> int:
    return _longest(question, options) % 3


def _knows_how_many(question: str, options: list[str]) -> int:
    return _longest(question, options) if "几" in question else 3
