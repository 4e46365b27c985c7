"""Questions of one's own with answers that a program can check."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from minillm.data.readers import read
from minillm.data.rows import Chat
from minillm.errors import UserError
from minillm.microworld.scoring import Question
from minillm.tokenizer.vocabulary import RustBPETokenizer

_NUMERAL = re.compile(r"(?<!\d)-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")  # -7; 1,000; the 3 of 10-3


@dataclass(frozen=True)
class OwnQuestion(Question):
    """A question from a user's file. ``answer`` is what the file says, without the working that
    GSM8K puts before its ``####``."""

    def is_correct(self, reply: str) -> bool:
        """If the answer is a number, the last number of the reply must equal it, however it is
        written; else the last sentence of the reply must contain it."""
        if _NUMERAL.fullmatch(self.answer):
            said = _NUMERAL.findall(reply)
            return bool(said) and _value(said[-1]) == _value(self.answer)
        sentences = [part for part in re.split("[。！？\n]", reply) if part.strip()]
        return bool(sentences) and self.answer in sentences[-1]


def _value(numeral: str) -> float:
    return float(numeral.replace(",", ""))


def load_questions(path: Path, tokenizer: RustBPETokenizer, room: int) -> list[Question]:
    """The questions of a file, of at most ``room`` tokens each with all turns before them. A row is
    a question with its answer, or a conversation whose last turn is the answer.

    Raises:
        UserError: a row without an answer, or with too long a question (names file and line); no
            row at all.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    questions: list[Question] = []
    for record in read(path):
        if not isinstance(record.row, Chat):
            raise UserError(
                f"{path}:{record.line}: a question with its answer is needed, this row is a "
                f"{type(record.row).__name__.lower()}"
            )
        *asked, answered = record.row.messages
        length = len(tokenizer.render_for_completion(asked))
        if length > room:
            raise UserError(
                f"{path}:{record.line}: the question is {length} tokens long, and there is room "
                f"for {room}: raise --max_seq_len, or lower --max_new_tokens"
            )
        turns = tuple((message.role, message.content) for message in asked)
        answer = answered.content.rpartition("####")[2].strip().rstrip("。.")
        if not answer:
            raise UserError(f"{path}:{record.line}: the answer is empty")
        questions.append(OwnQuestion("own", turns, answer))
    return questions
