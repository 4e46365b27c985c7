"""Draws the moving picture of the READMEs: how the book's model learns, and a talk with it.

    python scripts/moving_picture.py            # draws it from the stored recording
    python scripts/moving_picture.py --record   # asks the book's models anew first, and trains
                                                # those that are not in the cache

The recording, ``book/results/moving_picture.json``, holds what really happened in one run: the
losses of three stages, what the model answered to one question on the way, and a conversation with
it when it was done. The pictures, one for each language, are SVG files that move by CSS alone and
hold real text. They end in a still that shows everything, which is also what a reader sees who
asked the system for less motion.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import msgspec
import tyro

from minillm.book import lab, show
from minillm.book.canvas import COLOURS
from minillm.config import STAGES, Stage
from minillm.data.rows import Message
from minillm.files import write_atomically
from minillm.model.generate import remembered, reply

ROOT = Path(__file__).resolve().parent.parent
RECORDING = ROOT / "book" / "results" / "moving_picture.json"
PICTURES = {
    "zh": ROOT / "book" / "_static" / "moving.svg",
    "en": ROOT / "book" / "_static" / "moving.en.svg",
}

QUESTIONS = ("张静住在哪里？", "那她喜欢吃什么？", "8加4等于多少？请数着算。", "你是谁？")
"""Of the conversation; the first one is also asked on the way."""
ASKED_AT = {"pretrain": (25, 100, 400), "sft": (25,), "dpo": ()}
"""Steps after which it is asked, and after each stage's last one."""
POINTS = 100
"""Of each curve."""


class Curve(msgspec.Struct):
    """The training loss of a stage."""

    stage: Stage
    steps: int
    points: list[tuple[int, float]]
    """Step, and the mean loss of the 20 steps up to it in nats."""


class Moment(msgspec.Struct):
    """What the model answered to the first question after so many steps of a stage."""

    stage: Stage
    step: int
    """0: before the first one."""
    answer: str


class Recording(msgspec.Struct):
    """What happened in one run of the book's models."""

    seed: int
    parameters: int
    curves: list[Curve]
    moments: list[Moment]
    talk: list[tuple[str, str]]
    """Questions and answers of one conversation with the last model."""


# --- Recording ---


def record() -> Recording:
    """Asks the book's models, which are trained where they are not in the cache."""
    runs = {stage: lab.ladder(stage) for stage in STAGES}
    fresh = lab.fresh()
    moments = [Moment("pretrain", 0, lab.ask(fresh, QUESTIONS[0]))]
    for stage, run in runs.items():
        for step in (*ASKED_AT[stage], len(run.log)):
            moments.append(Moment(stage, step, lab.ask(run.model(step), QUESTIONS[0])))
    curves = [Curve(stage, len(run.log), thinned(run)) for stage, run in runs.items()]
    return Recording(lab.SEED, fresh.num_parameters(), curves, moments, talk_with(runs["dpo"]))


def thinned(run: lab.Run) -> list[tuple[int, float]]:
    """Points of a smoothed curve that lie evenly on an axis of square roots."""
    losses = show.smooth([entry["loss"] for entry in run.log])
    last = len(losses)
    steps = sorted({max(1, round(last * (i / POINTS) ** 2)) for i in range(1, POINTS + 1)})
    return [(step, round(losses[step - 1], 3)) for step in steps]


def talk_with(run: lab.Run) -> list[tuple[str, str]]:
    """The questions in one conversation, which the model remembers as in `minillm chat`."""
    model, tokenizer = run.model(), lab.tokenizer()
    messages, talk = list[Message](), list[tuple[str, str]]()
    for question in QUESTIONS:
        messages = remembered(tokenizer, [*messages, Message("user", question)], run.window)
        answer = "".join(reply(model, tokenizer, messages))
        messages.append(Message("assistant", answer))
        talk.append((question, answer))
    return talk


def load(path: Path = RECORDING) -> Recording:
    return msgspec.json.decode(path.read_bytes(), type=Recording)


# --- Time: when everything happens, in seconds of a cycle ---

LEARNING: dict[Stage, float] = {"pretrain": 7.0, "sft": 3.0, "dpo": 3.0}
"""How long a stage is shown."""
BEFORE, AFTER = 1.5, 4.0
"""Before the first step, and after the last word."""
ASKING, WAITING, CHARACTERS = 0.9, 0.9, 16.0
"""A question stands alone, and an answer is read; an answer's characters in a second."""


def starts(recording: Recording) -> dict[Stage, float]:
    """When each stage begins."""
    at, found = BEFORE, {}
    for curve in recording.curves:
        found[curve.stage] = at
        at += LEARNING[curve.stage]
    return found


def place(step: int, steps: int) -> float:
    """Where a step lies on a stage's axis, from 0 to 1: by square roots, since most is learned
    early."""
    return float((step / steps) ** 0.5)


def times(recording: Recording) -> list[float]:
    """When each moment comes."""
    begin, steps = starts(recording), {curve.stage: curve.steps for curve in recording.curves}
    return [
        0.0 if m.step == 0 else begin[m.stage] + LEARNING[m.stage] * place(m.step, steps[m.stage])
        for m in recording.moments
    ]


# --- Drawing ---

WIDTH, MARGIN = 640, 24
LINE, SIZE, SMALL = 25, 16, 13
"""Heights of a line and of its characters."""
TOP, HEIGHT = 76, 100
"""Of the curves."""
LABELS = {
    "zh": {
        "title": "从随机数开始：{:,} 个参数的模型怎样学会回答",
        "pretrain": "预训练",
        "sft": "监督微调",
        "dpo": "偏好优化",
        "steps": "{stage} {steps:,} 步",
        "loss": "损失 {:.2f} → {:.2f}",
        "fresh": "随机权重",
        "moment": "{stage}，第 {step:,} 步",
        "about": "训练损失一路下降，模型对同一个问题的回答从乱码变成答案；然后是一段聊天。",
    },
    "en": {
        "title": "From random numbers: a model of {:,} parameters learns to answer",
        "pretrain": "pretraining",
        "sft": "SFT",
        "dpo": "DPO",
        "steps": "{stage}, {steps:,} steps",
        "loss": "loss {:.2f} → {:.2f}",
        "fresh": "random weights",
        "moment": "{stage}, step {step:,}",
        "about": "The training loss falls, and the answer to one question turns from noise into "
        "what was asked; then a chat, in Chinese.",
    },
}
STYLE = """
  :root { --paper: #ffffff; --ink: #1f2328; --faint: #59636e; --line: #d1d9e0; --screen: #f6f8fa; }
  @media (prefers-color-scheme: dark) {
    :root { --paper: #0d1117; --ink: #e6edf3; --faint: #9198a1; --line: #3d444d;
            --screen: #161b22; }
  }
  text { font: 16px "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "Noto Sans SC",
         sans-serif; fill: var(--ink); white-space: pre; }
  .small { font-size: 13px; fill: var(--faint); }
  .paper { fill: var(--paper); } .screen { fill: var(--screen); }
  .cover { transform: scaleX(0); transform-box: fill-box; transform-origin: 100% 50%; }
  .past { opacity: 0; }
  .grid { stroke: var(--line); stroke-width: 1; fill: none; }
  .curve { stroke-width: 2; fill: none; stroke-linejoin: round; }
  .asked { fill: var(--faint); }
"""
STILL = "  @media (prefers-reduced-motion: reduce) { * { animation: none !important; } }\n"


@dataclass
class Canvas:
    """Elements of a picture, and the rules by which they move in one cycle."""

    cycle: float
    elements: list[str] = field(default_factory=list)
    rules: list[str] = field(default_factory=list)

    def add(self, element: str) -> None:
        self.elements.append(element)

    def text(self, x: float, y: float, words: str, more: str = "") -> None:
        self.add(f'<text x="{x:g}" y="{y:g}"{more}>{escape(words)}</text>')

    def _animated(self, frames: dict[float, str], timing: str) -> str:
        """A class whose elements go through ``frames``: seconds → style."""
        name = f"m{len(self.rules)}"
        steps = " ".join(f"{100 * at / self.cycle:.2f}% {{{s}}}" for at, s in frames.items())
        self.rules.append(
            f"  .{name} {{ animation: {name} {self.cycle:g}s {timing} infinite; }}\n"
            f"  @keyframes {name} {{ {steps} }}\n"
        )
        return name

    def shown(self, begin: float, end: float | None = None) -> str:
        """A class whose elements are seen only then; None: to the end."""
        frames = {0.0: "opacity: 0"} | {begin: "opacity: 1"}
        if end is not None:
            frames[end] = "opacity: 0"
        return self._animated(frames, "step-end")

    def uncovered(self, begin: float, end: float, steps: int = 0) -> str:
        """A class whose elements, covers, give way to the right; in so many steps, or smoothly."""
        frames = {0.0: "transform: scaleX(1)", begin: "transform: scaleX(1)"}
        frames |= {end: "transform: scaleX(0)", self.cycle: "transform: scaleX(0)"}
        return self._animated(frames, f"steps({steps})" if steps else "linear")


def draw(recording: Recording, language: str) -> str:
    """The picture, as SVG."""
    labels, begin = LABELS[language], starts(recording)
    talk_begins = begin["dpo"] + LEARNING["dpo"] + WAITING
    lines = list(talk_lines(recording, talk_begins))
    canvas = Canvas(lines[-1].end + AFTER)
    canvas.text(MARGIN, 32, labels["title"].format(recording.parameters))
    draw_curves(canvas, recording, labels)
    draw_moments(canvas, recording, labels)
    top = TOP + HEIGHT + 98
    height = top + 38 + LINE * len(lines)
    draw_talk(canvas, lines, top, height - 16 - top)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(labels["about"])}">\n'
        f"<style>{STYLE}{''.join(canvas.rules)}{STILL}</style>\n"
        f'<rect class="paper" width="{WIDTH}" height="{height}" rx="12"/>\n'
        + "\n".join(canvas.elements)
        + "\n</svg>\n"
    )


def draw_curves(canvas: Canvas, recording: Recording, labels: dict[str, str]) -> None:
    """The loss of the stages side by side, each on a scale of its own: they are of three kinds."""
    gap, left = 22.0, float(MARGIN)
    width = WIDTH - 2 * MARGIN - gap * (len(recording.curves) - 1)
    begin, all_time = starts(recording), sum(LEARNING.values())
    for curve in recording.curves:
        wide = width * LEARNING[curve.stage] / all_time
        losses = [loss for _, loss in curve.points]
        low, high = min(losses), max(losses)
        path = " ".join(
            f"{left + wide * place(step, curve.steps):.1f},"
            f"{TOP + HEIGHT * (1 - (loss - low) / (high - low)):.1f}"
            for step, loss in curve.points
        )
        canvas.add(f'<polyline class="curve" stroke="{COLOURS[curve.stage]}" points="{path}"/>')
        at = begin[curve.stage]
        moves = canvas.uncovered(at, at + LEARNING[curve.stage])
        canvas.add(
            f'<rect class="paper cover {moves}" x="{left - 2:.1f}" y="{TOP - 4}" '
            f'width="{wide + 4:.1f}" height="{HEIGHT + 8}"/>'
        )
        canvas.add(f'<path class="grid" d="M{left:.1f} {TOP}V{TOP + HEIGHT}H{left + wide:.1f}"/>')
        name = labels["steps"].format(stage=labels[curve.stage], steps=curve.steps)
        canvas.text(left, TOP - 12, name, ' class="small"')
        fell = labels["loss"].format(losses[0], losses[-1])
        seen = canvas.shown(at + LEARNING[curve.stage])
        canvas.text(left, TOP + HEIGHT + 18, fell, f' class="small {seen}"')
        left += wide + gap


def draw_moments(canvas: Canvas, recording: Recording, labels: dict[str, str]) -> None:
    """The first question, and the answer of the moment."""
    y, beside = TOP + HEIGHT + 54, MARGIN + SIZE * len(QUESTIONS[0]) + 24
    canvas.text(MARGIN, y, QUESTIONS[0], ' class="asked"')
    came = times(recording)
    for moment, begin, end in zip(recording.moments, came, [*came[1:], None], strict=True):
        when = labels["moment"].format(stage=labels[moment.stage], step=moment.step)
        colour = COLOURS[moment.stage if moment.step else "fresh"]
        seen = canvas.shown(begin, end) + (" past" if end else "")
        canvas.add(f'<g class="{seen}">')
        canvas.add(f'<circle cx="{beside}" cy="{y - 5}" r="5" fill="{colour}"/>')
        canvas.text(beside + 12, y, when if moment.step else labels["fresh"], ' class="small"')
        canvas.text(MARGIN, y + LINE, cut(moment.answer, 36))
        canvas.add("</g>")


@dataclass(frozen=True)
class TalkLine:
    """A line of the conversation: an answer's is written from ``begin`` to ``end``."""

    text: str
    asked: bool
    begin: float
    end: float


def talk_lines(recording: Recording, at: float) -> Iterator[TalkLine]:
    """The two commands, and what is said then."""
    yield TalkLine("$ bash scripts/run.sh --preset tiny", True, 0.0, 0.0)
    yield TalkLine("$ .venv/bin/minillm chat --preset tiny", True, at, at)
    at += ASKING
    for question, answer in recording.talk:
        yield TalkLine(f"> {question}", True, at, at)
        at += ASKING
        for text in wrapped(answer, 36):
            end = at + len(text) / CHARACTERS
            yield TalkLine(text, False, at, end)
            at = end
        at += WAITING


def draw_talk(canvas: Canvas, lines: Sequence[TalkLine], top: int, height: int) -> None:
    """A terminal, in which the answers are written character by character."""
    wide = WIDTH - 2 * MARGIN + 16
    canvas.add(
        f'<rect class="screen" x="{MARGIN - 8}" y="{top}" width="{wide}" height="{height}" rx="8"/>'
    )
    for number, line in enumerate(lines):
        y = top + 27 + LINE * number
        canvas.add(f'<g class="{canvas.shown(line.begin)}">' if line.begin else "<g>")
        canvas.text(MARGIN + 4, y, line.text, ' class="asked"' if line.asked else "")
        if not line.asked:
            moves = canvas.uncovered(line.begin, line.end, len(line.text))
            across = SIZE * width_of(line.text) + 4
            canvas.add(
                f'<rect class="screen cover {moves}" x="{MARGIN + 4}" y="{y - SIZE - 2}" '
                f'width="{across:.1f}" height="{LINE - 2}"/>'
            )
        canvas.add("</g>")


# --- Text: how wide it is, in Chinese characters ---


def width_of(text: str) -> float:
    return sum(1.0 if unicodedata.east_asian_width(c) in "WF" else 0.6 for c in text)


def wrapped(text: str, width: float) -> list[str]:
    """Lines of at most so many Chinese characters; none begins with punctuation."""
    lines = [""]
    for character in text:
        full = width_of(lines[-1] + character) > width
        if full and unicodedata.category(character)[0] != "P":
            lines.append("")
        lines[-1] += character
    return lines


def cut(text: str, width: float) -> str:
    """Its beginning, on one line."""
    line = wrapped(text.replace("\n", " "), width - 1)[0]
    return line if line == text else f"{line}…"


def main(record_anew: bool) -> None:
    if record_anew:
        RECORDING.parent.mkdir(parents=True, exist_ok=True)
        content = msgspec.json.format(msgspec.json.encode(record()), indent=1)
        write_atomically(RECORDING, content)
    for language, path in PICTURES.items():
        content = draw(load(), language).encode()
        write_atomically(path, content)
        print(f"{path}: {len(content) / 1000:.0f} KB")


def command(record: bool = False) -> None:
    """Draws the moving picture of the READMEs.

    Args:
        record: ask the book's models anew first.
    """
    main(record)


if __name__ == "__main__":
    tyro.cli(command)
