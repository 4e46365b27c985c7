"""How good is the model now? The same scores after every stage, on data that training never saw.

What the reader asks in files of their own is scored by ``minillm.own``.
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from minillm.config import (
    Count,
    Device,
    Preset,
    Size,
    Stage,
    TrainConfig,
    check_ranges,
    default_tf_dir,
)
from minillm.data.readers import read
from minillm.data.report import MixReport
from minillm.data.rows import Chat, Message, to_messages
from minillm.errors import UserError
from minillm.files import appending, encode_line, file_sha256
from minillm.microworld import exercises, identity, lessons, scoring
from minillm.model.generate import answers, remembered
from minillm.model.transformer import Transformer
from minillm.text_table import aligned as text_table
from minillm.tokenizer.vocabulary import RustBPETokenizer
from minillm.training.checkpoint import (
    Metadata,
    check_matches,
    find_weights,
    load_checkpoint,
    load_for_inference,
)
from minillm.training.dataset import TokenDataset, load_dataset
from minillm.training.objectives import (
    make_dpo_objective,
    next_token_loss,
    sequence_log_probs,
    validation_loss,
)
from minillm.training.packing import PackedRows, collate

BATCH_SIZE = 32
MIX_REPORT = "mix_report.json"
"""In the folder of the rows: what the data mix says of them."""


@dataclass(frozen=True)
class EvaluateOptions:
    """Score a stage's weights and append one JSON line to TF_DIR/eval_results.jsonl."""

    stage: Stage = "pretrain"
    """Whose weights."""
    out_dir: Path = Path("out")
    """Folder of the weights."""
    data_dir: Path = Path("data/processed")
    """Folder of the *_val.jsonl files that the data mix writes."""
    tokenizer_path: Path | None = None
    """Folder of the tokenizer; None: OUT_DIR/tokenizer if it exists, else the built-in one."""
    tf_dir: Path = field(default_factory=default_tf_dir)
    """Folder of eval_results.jsonl (environment variable TF_DIR, else ../tf_dir)."""
    items: Count = 60
    """Held-out questions of each kind."""
    max_new_tokens: Count = 64
    """Longest answer, in tokens."""
    max_val_rows: Count = 200
    """Packed rows of validation data."""
    max_seq_len: Size = 512
    """Longest validation document, in tokens."""
    persona_name: str = identity.Persona().name
    """The name that the model was given."""
    persona_author: str = identity.Persona().author
    """The maker that it was given."""
    questions: tuple[Path, ...] | None = None
    """Score the answers to these questions, and nothing else: files, or folders of files, in any
    format that `minillm import` reads, with options (C-Eval, CMMLU) or without."""
    text: tuple[Path, ...] | None = None
    """Score how well these texts are predicted, and nothing else: .txt files, rows with a text, or
    folders of such files."""
    against: Path | None = None
    """With --questions or --text: a second model to compare with. A stage of OUT_DIR, such as sft;
    or a file of weights, a folder with such files, or a folder that `transformers` opens."""
    predictions: Path | None = None
    """With --questions or --text: file for a JSON line on every question or document."""
    device: Device = "auto"
    """auto: a CUDA GPU where there is one, else a Mac's GPU (mps), else the CPU."""

    def __post_init__(self) -> None:
        check_ranges(self)
        for name in ("questions", "text"):
            if getattr(self, name) == ():
                raise UserError(f"--{name} names no file: write its path behind it")
        for name in ("against", "predictions"):
            if getattr(self, name) is not None and self.questions is self.text is None:
                raise UserError(f"--{name} needs --questions or --text: name what to score")
        for name in ("persona_name", "persona_author"):
            if not getattr(self, name).strip():
                raise UserError(f"--{name} is empty, and every answer holds that")


def wilson_interval(correct: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """95% confidence interval of a proportion (Wilson 1927), which also holds near 0 and 1."""
    if n == 0:
        return 0.0, 1.0
    p = correct / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)  # rounded, it may lie just outside


class Evaluator:
    """A model and its tokenizer, with one method for each thing that is measured."""

    def __init__(
        self, model: Transformer, tokenizer: RustBPETokenizer, max_new_tokens: int = 64
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.max_new_tokens = max_new_tokens
        self.device = model.lm_head.weight.device

    def answers(self, prompts: Sequence[Sequence[int]]) -> list[str]:
        """Greedy answers, in the order of the prompts; "" to one that is too long."""
        return answers(self.model, self.tokenizer, prompts, self.max_new_tokens)

    def chat(self, conversations: Sequence[Sequence[Message]]) -> list[str]:
        """Answers to conversations that end with a user's turn."""
        return self.answers([self.tokenizer.render_for_completion(c) for c in conversations])

    def ask(self, questions: Sequence[str]) -> list[str]:
        """Answers to single questions."""
        return self.chat([[Message("user", question)] for question in questions])

    def question_accuracy(self, kind: str, items: int) -> float:
        """Share of held-out questions of a kind whose answer is right."""
        questions = scoring.questions(kind, items)
        replies = self.chat([to_messages(q.messages) for q in questions])
        return _mean([q.is_correct(reply) for q, reply in zip(questions, replies, strict=True)])

    def sessions(
        self, items: int, window: int
    ) -> tuple[list[list[Message]], list[tuple[bool, ...]]]:
        """Chats about questions of all kinds, and for the first, second … tenth question whether
        each chat's answer is right. As in `minillm chat`, the model reads its own answers, and
        forgets what is more than ``window`` tokens back."""
        sessions = scoring.sessions(items)
        chats: list[list[Message]] = [[] for _ in sessions]
        right: list[list[bool]] = [[] for _ in sessions]
        for turn in range(max(map(len, sessions), default=0)):
            going = [i for i, session in enumerate(sessions) if turn < len(session)]
            for i in going:
                chats[i].append(Message("user", sessions[i][turn][0]))
            replies = self.chat([remembered(self.tokenizer, chats[i], window) for i in going])
            for i, reply in zip(going, replies, strict=True):
                chats[i].append(Message("assistant", reply))
                if question := sessions[i][turn][1]:
                    right[i].append(question.is_correct(reply))
        return chats, list(zip(*right, strict=True))

    def session_accuracy(self, items: int, window: int) -> list[float]:
        """Share of right answers at each place of ``sessions``."""
        return [_mean(at_place) for at_place in self.sessions(items, window)[1]]

    def continuation_accuracy(self, kind: str, items: int) -> float:
        """Share of held-out sentences that the model, as a pure language model, ends correctly."""
        sentences = scoring.continuations(kind, items)
        prompts = [[self.tokenizer.bos_id, *self.tokenizer.encode(s.prompt)] for s in sentences]
        replies = self.answers(prompts)
        return _mean([r.startswith(s.answer) for s, r in zip(sentences, replies, strict=True)])

    def choice_accuracy(self, items: int) -> tuple[float, int]:
        """Share of held-out multiple-choice questions whose right option is the likeliest reply."""
        questions = [
            q for kind in exercises.KINDS for q in scoring.questions(kind, items) if q.options
        ]
        room = self.model.config.max_position_embeddings
        hits = []
        for question in questions:
            prompt = self.tokenizer.render_for_completion(to_messages(question.messages))
            pairs = [(prompt, self.tokenizer.encode(o)) for o in question.options]
            if max(len(prompt) + len(option) for _, option in pairs) > room:
                hits.append(False)  # as in ``answers``, one that is too long has no answer
                continue
            scores = self.log_probs(pairs)
            hits.append(question.options[int(np.argmax(scores))] == question.answer)
        return _mean(hits), len(questions)

    @torch.no_grad()
    def log_probs(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        """log p(answer | prompt) of each (prompt, answer) in token ids, summed over the answer's
        tokens."""
        ids = [prompt + answer for prompt, answer in pairs]
        mask = [[0] * len(prompt) + [1] * len(answer) for prompt, answer in pairs]
        data = TokenDataset(
            ids=np.concatenate(ids).astype(np.int32),
            mask=np.concatenate(mask).astype(np.uint8),
            offsets=np.cumsum([0, *map(len, ids)]),
            unit=1,
        )
        rows = [[i] for i in range(len(pairs))]
        batch = collate(data, rows, max(map(len, ids)) - 1).to(self.device)
        return sequence_log_probs(self.model, batch).tolist()

    @torch.no_grad()
    def next_log_probs(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """log p(token | prompt) of every token behind each prompt, fp32 ``[prompts, V]``."""
        ids = torch.zeros(len(prompts), max(map(len, prompts)), dtype=torch.int64)
        for row, prompt in zip(ids, prompts, strict=True):
            row[: len(prompt)] = torch.tensor(prompt)  # no token reads the padding behind it
        places = torch.arange(ids.shape[1])[None]
        hidden = self.model.model(ids.to(self.device), places.to(self.device), None, None)
        last = hidden[torch.arange(len(ids)), [len(prompt) - 1 for prompt in prompts]]
        scores: Tensor = self.model.lm_head(last)
        return scores.float().log_softmax(-1)

    def politeness(self, items: int) -> float:
        """Share of held-out preference prompts that are answered in the preferred, polite style."""
        pairs = lessons.preferences(items, held_out=True)
        replies = self.chat([msgspec.convert(p["chosen"][:-1], list[Message]) for p in pairs])
        return _mean([scoring.is_polite(reply) for reply in replies])

    def identity_hit_rate(
        self, persona: identity.Persona, chats: Sequence[list[Message]] = ([],), window: int = 0
    ) -> float:
        """Share of held-out ways to ask who the model is that it answers with its persona: alone,
        or as the next question of a chat of which it remembers ``window`` tokens."""
        questions = identity.held_out_questions()
        number = max(len(questions), len(chats))
        asked = [*zip(islice(cycle(questions), number), cycle(chats), strict=False)]
        turns = [[*chat, Message("user", question)] for question, chat in asked]
        replies = self.chat([remembered(self.tokenizer, turn, window) for turn in turns])
        return _mean(
            [identity.is_hit(q, r, persona) for (q, _), r in zip(asked, replies, strict=True)]
        )

    def validation(
        self,
        path: Path,
        stage: Stage,
        options: EvaluateOptions,
        reference: Transformer | None = None,
        beta: float = TrainConfig.beta,
    ) -> dict[str, float]:
        """Means over a validation file: loss and bits per byte, or with a reference DPO's loss,
        accuracy and margin."""
        longest = min(options.max_seq_len, self.model.config.max_position_embeddings)
        if longest < options.max_seq_len:
            print(
                f"warning: {path}: --max_seq_len {options.max_seq_len} is more than the model's "
                f"{longest} positions, which longer rows are fitted to",
                file=sys.stderr,
            )
        data = load_dataset(path, stage, self.tokenizer, longest, options.out_dir / "cache")
        # Shuffled, since packing puts the longest documents into the first rows.
        rows = PackedRows(data, longest, epochs=1, seed=0)
        shown = range(min(len(rows), options.max_val_rows))
        batches = [rows.batch(shown[i : i + BATCH_SIZE]) for i in shown[::BATCH_SIZE]]
        on_device = (batch.to(self.device) for batch in batches)
        if reference is not None:
            return validation_loss(make_dpo_objective(reference, beta, 0.0), self.model, on_device)
        values = validation_loss(next_token_loss, self.model, on_device)
        labels = torch.cat([batch.labels[batch.labels >= 0] for batch in batches])
        lengths = torch.tensor(
            [len(self.tokenizer.token_bytes(i)) for i in range(self.tokenizer.vocab_size)]
        )
        # bits per byte = nats per token / ln 2 / bytes per token; special tokens have no bytes.
        if bytes_per_token := float(lengths[labels].float().mean()):
            values["bits_per_byte"] = values["loss"] / math.log(2) / bytes_per_token
        return values


EVALUATE_PRESETS: dict[Preset, EvaluateOptions] = {
    "default": EvaluateOptions(),
    "small": EvaluateOptions(
        out_dir=Path("out/small"),
        data_dir=Path("data/processed/small"),
        max_new_tokens=128,  # a poem of eight lines
        max_seq_len=256,
    ),
    "tiny": EvaluateOptions(
        out_dir=Path("out/tiny"), data_dir=Path("data/processed/tiny"), max_seq_len=128
    ),
    "smoke": EvaluateOptions(
        out_dir=Path("out/smoke"),
        data_dir=Path("data/processed/smoke"),
        items=2,
        max_new_tokens=8,
        max_val_rows=8,
        max_seq_len=128,
        device="cpu",
    ),
}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def reference_model(
    out_dir: Path, metadata: Metadata, tokenizer: RustBPETokenizer
) -> tuple[Transformer, float]:
    """What the margins of DPO weights are measured with: the model that their run started from,
    and its beta.

    Raises:
        UserError: that model's weights are gone, or do not fit.
    """
    start = metadata.train.get("init_from")
    path = Path(start) if start else find_weights(out_dir, "sft")
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; DPO started from it, and its scores compare with it: put it "
            "back there"
        )
    model, about = load_checkpoint(path)
    check_matches(path, about, metadata.model, tokenizer)
    return model, metadata.train.get("beta", TrainConfig.beta)


def evaluate(options: EvaluateOptions) -> dict[str, Any]:
    """All scores of one stage's weights, as plain JSON values; one that there is nothing to compute
    from is left out.

    Raises:
        UserError: no weights, or what they were trained with is missing or another.
    """
    started = time.monotonic()
    model, tokenizer, metadata = load_for_inference(
        options.out_dir, options.stage, options.tokenizer_path, options.device
    )
    evaluator = Evaluator(model, tokenizer, options.max_new_tokens)
    persona = identity.Persona(options.persona_name, options.persona_author)
    result: dict[str, Any] = {"stage": options.stage, "step": metadata.step}

    def val(stage: Stage) -> Path:
        return options.data_dir / f"{stage}_chinese_val.jsonl"

    language: Stage = "pretrain" if options.stage == "pretrain" else "sft"
    if val(language).exists():
        values = evaluator.validation(val(language), language, options)
        result["val_loss"] = values["loss"]
        result["bits_per_byte"] = values.get("bits_per_byte", math.nan)
    if options.stage == "dpo" and val("dpo").exists():
        reference, beta = reference_model(options.out_dir, metadata, tokenizer)
        reference = reference.to(evaluator.device)
        values = evaluator.validation(val("dpo"), "dpo", options, reference, beta)
        result["dpo"] = {name: values[name] for name in ("accuracy", "margin", "prefers_chosen")}

    n = options.items
    mix = mix_without_world(options.data_dir, metadata)
    if mix is None:
        world, chats = world_scores(evaluator, n, metadata.window)
        result |= world
        result["identity_hit_rate"] = evaluator.identity_hit_rate(persona)
        result["identity_in_a_chat"] = evaluator.identity_hit_rate(persona, chats, metadata.window)
    else:
        result["left_out"] = [*WORLD_SCORES, "identity_in_a_chat"]
        if "identity" in mix.categories and mix.categories["identity"].rows:
            result["identity_hit_rate"] = evaluator.identity_hit_rate(persona)
        else:
            result["left_out"].append("identity_hit_rate")
    shown = [[Message("user", question)] for question in scoring.SHOWCASE]
    if mix is not None:
        shown = held_out_chats(val("sft"), len(shown)) if val("sft").exists() else []
    result["samples"] = [
        {"prompt": chat[-1].content, "reply": reply}
        for chat, reply in zip(shown, evaluator.chat(shown), strict=True)
    ]
    return finite(result) | {"items": n} | provenance(model, metadata, started)


def provenance(model: Transformer, metadata: Metadata, started: float) -> dict[str, Any]:
    """What scores were computed with, and how long that took since ``started``
    (``time.monotonic``)."""
    return {
        "parameters": model.num_parameters(),
        "config": metadata.train,
        "data_sha256": metadata.data,
        "tokenizer": metadata.tokenizer,
        "git": git_revision() or "unknown",
        "seconds": round(time.monotonic() - started, 1),
    }


WORLD_SCORES = ("continuations", "accuracy", "session", "multiple_choice", "polite")
"""Scores on questions about the built-in micro-world."""


def world_scores(
    evaluator: Evaluator, n: int, window: int
) -> tuple[dict[str, Any], list[list[Message]]]:
    """WORLD_SCORES, of ``n`` questions of each kind; and the chats that were held for them."""
    scores: dict[str, Any] = {}
    scores["continuations"] = {k: evaluator.continuation_accuracy(k, n) for k in scoring.SAYINGS}
    scores["accuracy"] = {k: evaluator.question_accuracy(k, n) for k in exercises.KINDS}
    chats, right = evaluator.sessions(n, window)
    scores["session"] = {str(place): _mean(hits) for place, hits in enumerate(right, 1)}
    rate, asked = evaluator.choice_accuracy(n)
    scores["multiple_choice"] = {
        "accuracy": rate,
        "interval": wilson_interval(rate * asked, asked),
        "n": asked,
    }
    scores["polite"] = evaluator.politeness(n)
    return scores, chats


def held_out_chats(path: Path, number: int) -> list[list[Message]]:
    """The first conversations of a file up to where the model is to answer."""
    rows = (record.row for record in read(path))
    return [row.messages[:-1] for row in islice((r for r in rows if isinstance(r, Chat)), number)]


def mix_without_world(data_dir: Path, metadata: Metadata) -> MixReport | None:
    """The report of the mix that weights were trained on, if it counts no row of the micro-world,
    about which it makes no sense to ask then; None if it does, or if nobody knows.

    It is known where the report's folder still holds the file that the weights name by its hash.
    GRPO does not learn from the mix, but asks the micro-world's sums unless told otherwise.
    """
    try:
        content = (data_dir / MIX_REPORT).read_bytes()
        report = msgspec.json.decode(content, type=MixReport)
    except (OSError, ValueError):
        return None
    for name, category in report.categories.items():
        built_in = category.built_in or any(
            s.startswith("builtin:") for s in category.sources or ()
        )
        if name != "identity" and category.rows and built_in:
            return None
    if metadata.stage == "grpo":
        return report if metadata.train.get("data_path") else None
    rows = data_dir / f"{metadata.stage}_chinese.jsonl"
    return report if rows.is_file() and file_sha256(rows) == metadata.data else None


def finite(scores: dict[str, Any]) -> dict[str, Any]:
    """Without those that are no numbers, also in the dicts in it."""
    return {
        name: finite(value) if isinstance(value, dict) else value
        for name, value in scores.items()
        if not isinstance(value, float) or math.isfinite(value)
    }


def git_revision() -> str | None:
    """The checkout's commit, with "+" for uncommitted changes; None outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    try:
        said = subprocess.check_output(command, stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        return None
    return said.decode("utf-8", "replace").strip()


def run_evaluate(options: EvaluateOptions) -> None:
    """`minillm evaluate`."""
    path = options.tf_dir / "eval_results.jsonl"
    with appending(path) as file:
        result = evaluate(options)
        file.write(encode_line(result))
    print(score_table([result]))
    for sample in result["samples"]:
        print(f"  {sample['prompt']} → {sample['reply']}")
    if left_out := result.get("left_out"):
        print(
            f"left out: {', '.join(left_out)}; by {options.data_dir / MIX_REPORT}, the model read "
            "nothing of what they ask about: score questions of your own by --questions FILE"
        )
    print(f"appended to {path}")


def score_table(results: Sequence[dict[str, Any]]) -> str:
    """Scores as rows, stages as columns."""
    columns = [flatten(result) for result in results]
    rows = [["", *(str(result.get("stage", "?")) for result in results)]]
    for name in dict.fromkeys(name for column in columns for name in column):
        rows.append([name, *(f"{c[name]:.3f}" if name in c else "-" for c in columns)])
    return text_table(rows, least=8)


def flatten(result: dict[str, Any]) -> dict[str, float]:
    """The scores of a result under the names that the table shows; those that it has."""

    def part(name: str) -> dict[str, Any]:
        found = result.get(name)
        return found if isinstance(found, dict) else {}

    scores: dict[str, Any] = {name: result.get(name) for name in ("val_loss", "bits_per_byte")}
    scores |= {f"continue {kind}": v for kind, v in part("continuations").items()}
    scores |= {f"answer {kind}": v for kind, v in part("accuracy").items()}
    scores |= {f"question {place}": part("session").get(place) for place in ("1", "2", "5", "10")}
    scores["multiple choice"] = part("multiple_choice").get("accuracy")
    scores["polite"] = result.get("polite")
    scores |= {f"DPO {name}": v for name, v in part("dpo").items()}
    scores["identity"] = result.get("identity_hit_rate")
    scores["identity in a chat"] = result.get("identity_in_a_chat")
    return {n: v for n, v in scores.items() if isinstance(v, int | float) and math.isfinite(v)}
