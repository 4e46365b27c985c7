"""Questions of the reader's own, and how many of them a model gets right.

**Multiple choice** (C-Eval, CMMLU, any row with options): the question with its options stands in
the chat template as `minillm import` and the data mix write it, and of the letters A, B, C, D the
one that is likeliest to begin the answer is taken: the largest log p(letter | prompt). So do
lm-evaluation-harness and C-Eval's own scripts; there the prompt is theirs, often with five solved
examples before it, here it has none. The letters are compared, not the options' texts: of texts,
a model prefers the short ones.

**Question and answer**: greedy decoding, at most ``--max_new_tokens``. *exact*: the reply is the
answer; *contained*: the answer stands somewhere in the reply, and not in the middle of a word or
number. Both after ``normalised``. Of several turns, the last answer is asked for.

A question that leaves the model no position for an answer counts as wrong, and is counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from unicodedata import category, normalize

import numpy as np

from minillm.data.formats import convert, multiple_choice, options_of
from minillm.data.rows import BadRow, Chat, Message, Raw
from minillm.evaluate import BATCH_SIZE, Evaluator, wilson_interval
from minillm.own.files import general_advice, own_rows
from minillm.own.paired import difference_interval, mcnemar
from minillm.progress import Progress

SCORES = ("accuracy", "exact", "contained")
"""Names of the scores: the first of multiple choice, the others of question and answer."""


_NO_QUESTION = "this row is no question with its answer"


# --- Questions ------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """A question from a file."""

    file: Path
    line: int
    messages: list[Message]
    """Up to the turn that is to be answered."""
    question: str
    """What that turn asks, without the options."""
    answer: str
    """The right option's letter; without options the answer in words."""
    options: Mapping[str, str] = MappingProxyType({})
    """Letter → text; empty where the answer is to be written."""

    def said(self, reply: str) -> str:
        """A reply or an answer as people read it: of an option its letter and its text."""
        return f"{reply}. {self.options[reply]}" if reply in self.options else reply


def read_questions(files: Iterable[Path]) -> list[Asked]:
    """The questions of all files, in order.

    Raises:
        UserError: a row is not a question with an answer, or its answer is none of the options; a
            file without rows.
    """
    return [asked for path in files for asked in own_rows(path, _asked, _advice)]


def _asked(path: Path, line: int, raw: Raw) -> Asked:
    row = convert(raw)
    if not isinstance(row, Chat):
        raise BadRow(f"{_NO_QUESTION}, but a {type(row).__name__.lower()}")
    *messages, answered = row.messages
    question = messages[-1].content
    options = {key: str(text) for key, text in options_of(raw).items()}
    for letter in options:
        shown, reply = multiple_choice([Message("user", "")], options, letter).messages
        # Else the format has no options, and these columns are something else's.
        is_asked = question.endswith(shown.content)
        if is_asked and f"{answered.content}\n".startswith(f"{reply.content}\n"):
            stem = question.removesuffix(shown.content)
            return Asked(path, line, messages, stem, letter, options)
    answer = answered.content.rpartition("####")[2].strip()  # GSM8K puts the working before it
    if not answer:
        raise BadRow("the answer is empty behind its ####")
    return Asked(path, line, messages, question, answer)


def _advice(problem: str, raw: Any) -> str:
    fields = raw if isinstance(raw, dict) else {}
    if fields.keys() >= {"A", "B"} and not (fields.get("answer") or fields.get("Answer")):
        return "name a file that has the answers: C-Eval's test files have none, its val files do"
    if problem.startswith("no known format"):
        return "a question needs the fields question and answer, for options also A, B, C and D"
    if problem.startswith(_NO_QUESTION):
        return "--text scores texts"
    return general_advice(problem)


# --- Answers --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What a model answered to a question."""

    reply: str
    """The letter of the likeliest option, or what the model wrote."""
    right: dict[str, bool]
    """By the score's name: "accuracy", or "exact" and "contained"."""
    log_probs: dict[str, float] = field(default_factory=dict)
    """log p(letter | prompt) in nats, by letter."""
    too_long: bool = False
    """Whether the question left no position for an answer."""


def ask_questions(evaluator: Evaluator, asked: Sequence[Asked]) -> list[Verdict]:
    """The model's answers, in the order of the questions."""
    prompts = [evaluator.tokenizer.render_for_completion(one.messages) for one in asked]
    found: dict[int, Verdict] = {}
    order = sorted(range(len(asked)), key=lambda i: len(prompts[i]))  # little padding
    with Progress("answer", len(asked), "questions") as bar:
        for has_options in (True, False):
            mine = [i for i in order if bool(asked[i].options) == has_options]
            for start in range(0, len(mine), BATCH_SIZE):
                part = mine[start : start + BATCH_SIZE]
                answer = _choose if has_options else _write
                verdicts = answer(evaluator, [asked[i] for i in part], [prompts[i] for i in part])
                found.update(zip(part, verdicts, strict=True))
                bar.update(len(part))
    return [found[i] for i in range(len(asked))]


def _choose(
    evaluator: Evaluator, asked: Sequence[Asked], prompts: Sequence[list[int]]
) -> list[Verdict]:
    room = evaluator.model.config.max_position_embeddings
    fits = [len(prompt) < room for prompt in prompts]
    read = [prompt for prompt, fit in zip(prompts, fits, strict=True) if fit]
    scores = iter(evaluator.next_log_probs(read).tolist() if read else ())
    verdicts = []
    for one, fit in zip(asked, fits, strict=True):
        if not fit:
            verdicts.append(Verdict("", {"accuracy": False}, too_long=True))
            continue
        behind = next(scores)
        # Every vocabulary has the 256 bytes, so a letter is one token.
        mine = {key: behind[evaluator.tokenizer.encode(key)[0]] for key in one.options}
        # The weights of a run that went wrong are no numbers, and then nothing is the likeliest.
        known = all(map(np.isfinite, mine.values()))
        reply = max(mine, key=mine.__getitem__) if known else ""
        verdicts.append(Verdict(reply, {"accuracy": reply == one.answer}, mine if known else {}))
    return verdicts


def _write(
    evaluator: Evaluator, asked: Sequence[Asked], prompts: Sequence[list[int]]
) -> list[Verdict]:
    room = evaluator.model.config.max_position_embeddings
    replies = evaluator.answers(prompts)
    return [
        Verdict(
            reply,
            {"exact": is_exact(reply, one.answer), "contained": is_contained(reply, one.answer)},
            too_long=len(prompt) >= room,
        )
        for one, prompt, reply in zip(asked, prompts, replies, strict=True)
    ]


def normalised(text: str) -> str:
    """Text as it is compared: full-width letters, digits and punctuation as half-width ones
    (Unicode's NFKC), no white space but one space between words of ASCII, no punctuation at the
    end."""
    text = _one_spelling(text)
    end = len(text)
    while end and (text[end - 1] == " " or category(text[end - 1])[0] == "P"):
        end -= 1
    return text[:end] or text  # an answer may be a sign and nothing else


def _one_spelling(text: str) -> str:
    text = " ".join(normalize("NFKC", text).split())
    text = re.sub(r"(?<![!-~]) | (?![!-~])", "", text)
    return normalize("NFC", text)  # an accent may have lost the space that it stood on


def is_exact(reply: str, answer: str) -> bool:
    """Whether the reply says the answer and nothing else."""
    return normalised(reply) == normalised(answer)


def is_contained(reply: str, answer: str) -> bool:
    """Whether the answer stands in the reply: "8" is not in "18", nor in "8.5"; "no" is not in
    "know"."""
    wanted = re.escape(normalised(answer))
    before = r"(?<![0-9A-Za-z])(?<![0-9]\.)" if re.match("[0-9A-Za-z]", wanted) else ""
    after = r"(?![0-9A-Za-z])(?!\.[0-9])" if re.search("[0-9A-Za-z]$", wanted) else ""
    return re.search(before + wanted + after, _one_spelling(reply)) is not None


# --- Scores ---------------------------------------------------------------------------------------


def question_scores(asked: Sequence[Asked], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """By score, as plain JSON values: of how many questions, the share of right answers, its 95%
    interval (Wilson), and for multiple choice what guessing gets on the average (chance) and how
    often each letter was chosen and was right. ``too_long`` questions are among the wrong ones."""
    scores: dict[str, Any] = {}
    pairs = list(zip(asked, verdicts, strict=True))
    for name in SCORES:
        mine = [(one, verdict) for one, verdict in pairs if name in verdict.right]
        if not mine:
            continue
        right = sum(verdict.right[name] for _, verdict in mine)
        scores[name] = {
            "n": len(mine),
            "share": right / len(mine),
            "interval": wilson_interval(right, len(mine)),
        }
        if name == "accuracy":
            scores[name] |= {
                "chance": sum(1 / len(one.options) for one, _ in mine) / len(mine),
                "chosen": _counts(verdict.reply for _, verdict in mine if verdict.reply),
                "answers": _counts(one.answer for one, _ in mine),
            }
    if too_long := sum(verdict.too_long for verdict in verdicts):
        scores["too_long"] = too_long
    return scores


def _counts(letters: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(letters).items()))


def compared(verdicts: Sequence[Verdict], others: Sequence[Verdict]) -> dict[str, Any]:
    """By score: how many questions only the first or only the second model got right, the
    difference of their shares (first less second) with its 95% interval, and the p-value of the
    exact test of McNemar."""
    found: dict[str, Any] = {}
    for name in SCORES:
        marks = [
            (one.right[name], other.right[name])
            for one, other in zip(verdicts, others, strict=True)
            if name in one.right
        ]
        if marks:
            first, second = marks.count((True, False)), marks.count((False, True))
            found[name] = {
                "only_this": first,
                "only_against": second,
                "difference": (first - second) / len(marks),
                "interval": difference_interval(first, second, len(marks)),
                "p": mcnemar(first, second),
            }
    return found
