"""The stage that learns from its own answers: the loop of all stages, on batches that the model
itself has just written.

A step is one batch of answers with *all* the updates that are made on it, never a part of them: so
the weights of a checkpoint are those that the next answers are sampled with, and a run that goes on
from it needs no others. The questions of a step and the seed of its answers follow from the
settings and the step's number.

Several processes sample the same answers, and each learns from its share of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import torch

from minillm.config import GRPOConfig
from minillm.data.rows import to_messages
from minillm.data.shards import validation_path
from minillm.errors import UserError
from minillm.files import file_sha256
from minillm.microworld import scoring
from minillm.microworld.scoring import Question
from minillm.model.generate import answers
from minillm.progress import Progress
from minillm.training.devices import Process, StopRequest
from minillm.training.log import RunLog
from minillm.training.loop import AfterStep, Trainer, out_of_memory, run_trainer
from minillm.training.objectives import Objective, token_losses
from minillm.training.packing import Batch
from minillm.training.questions import load_questions
from minillm.training.reinforcement import (
    Reward,
    Rollout,
    RolloutBatch,
    advantages,
    correct,
    group_rewards,
    make_grpo_objective,
    pack_rollouts,
    roll_out,
    summary,
)

HELD_OUT = 40
"""Sums, and as many differences, that are asked at each validation."""


def train_grpo(
    config: GRPOConfig, after_step: AfterStep | None = None, reward: Reward = correct
) -> Path:
    """Trains the stage and returns the path of its weights, ``<out_dir>/grpo.safetensors``.

    Raises:
        UserError: like ``minillm.training.loop.train``; or a question is too long, or a reward is
            not finite.
        KeyboardInterrupt: like ``minillm.training.loop.train``.
    """
    return run_trainer(
        config, lambda process, stop: GRPOTrainer(config, process, stop, after_step, reward)
    )


class GRPOTrainer(Trainer):
    """One run: a ``Trainer`` that makes its batches in each step, and may learn more than once from
    them."""

    config: GRPOConfig

    def __init__(
        self,
        config: GRPOConfig,
        process: Process,
        stop: StopRequest,
        after_step: AfterStep | None = None,
        reward: Reward = correct,
    ) -> None:
        self.reward = reward
        self.measured: dict[str, float] = {}
        super().__init__(config, "grpo", process, stop, after_step)

    # --- Before the first step --------------------------------------------------------------------

    def compares(self) -> bool:
        return self.config.kl_weight > 0

    def make_objective(self) -> Objective:
        config = self.config
        reference = deepcopy(self.model).requires_grad_(False) if self.compares() else None
        return make_grpo_objective(config.clip, config.kl_weight, reference)

    def set_up_data(self) -> None:
        """Questions to answer, others to validate with, and the number of steps."""
        config, path = self.config, self.config.data_path
        self.val_rows, self.total_steps = None, config.max_steps
        self.window = self.window or config.max_seq_len
        self.longest_prompt = config.max_seq_len - config.max_new_tokens
        answers = config.questions * config.group_size
        if answers < self.process.world_size:
            raise UserError(
                f"--questions x --group_size = {answers} answers are fewer than the "
                f"{self.process.world_size} processes that learn from them"
            )
        self.ask: Callable[[Random], Question]
        if path is None:
            self.data_sha256, self.ask = "", scoring.question_to_explore
            kinds = ("add", "sub")
            self.held_out = [q for kind in kinds for q in scoring.questions(kind, HELD_OUT)]
            source = "the built-in world"
        else:
            questions = load_questions(path, self.tokenizer, self.longest_prompt)
            self.data_sha256, self.ask = file_sha256(path), lambda rng: rng.choice(questions)
            held_out = validation_path(path)
            self.held_out = []
            if held_out.exists():
                self.held_out = load_questions(held_out, self.tokenizer, self.longest_prompt)
            source = f"the {len(questions):,} in {path}"
        self.say(
            f"{config.group_size} answers to each of {config.questions} questions a step, from "
            f"{source}; {self.total_steps:,} steps"
        )

    # --- The loop ---------------------------------------------------------------------------------

    def batches(self) -> Iterator[list[Batch]]:
        """For each step, when its turn comes: answers of the model as it is then, packed."""
        config, process = self.config, self.process
        for step in range(self.start_step, self.total_steps):
            rollouts = self.sample(step)
            self.measured = summary(rollouts, config.group_size)
            better = advantages(group_rewards(rollouts, config.group_size), config.divide_by_std)
            share = slice(process.rank, None, process.world_size)
            batches = pack_rollouts(
                rollouts[share], better.flatten()[share], config.max_seq_len, config.batch_size
            )
            yield [self.with_probabilities(batch) for batch in batches]

    def sample(self, step: int) -> list[Rollout]:
        """Answers to the questions of a step (from 0)."""
        config = self.config
        rng = Random(f"grpo {config.seed} {step}")
        asked = [self.ask(rng) for _ in range(config.questions)]
        seed = rng.getrandbits(63)
        try:
            rollouts = roll_out(self.model, self.tokenizer, asked, config, seed, self.reward)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise UserError(
                f"out of memory while sampling {config.questions * config.group_size} answers at "
                f"once: lower --questions {config.questions}, --group_size {config.group_size} or "
                f"--max_new_tokens {config.max_new_tokens}"
            ) from error
        for rollout in rollouts:
            place = f"grpo step {step + 1}, question {rollout.question.messages[-1][1]!r:.60}"
            if len(rollout.prompt) > self.longest_prompt:
                raise UserError(
                    f"{place}: it is {len(rollout.prompt)} tokens long, and there is room for "
                    f"{self.longest_prompt}: raise --max_seq_len, or lower --max_new_tokens"
                )
            if not math.isfinite(rollout.reward):
                raise UserError(
                    f"{place}: the reward of the answer {rollout.reply!r:.60} is {rollout.reward}, "
                    "and must be a finite number"
                )
        return rollouts

    def with_probabilities(self, batch: RolloutBatch) -> Batch:
        """With several updates, only the first has the weights that the answers were sampled with:
        the batch must know their probabilities then."""
        if self.config.updates == 1:
            return batch
        with torch.no_grad(), self.autocast:
            losses = token_losses(self.model, batch.to(self.process.device))
        return replace(batch, sampled=-losses)

    def step(self, step: int, batches: list[Batch]) -> dict[str, float]:
        """All updates on the answers of a step, counted from 0; returns what the last one measured,
        and what the answers were like."""
        for _ in range(self.config.updates):
            values = super().step(step, batches)
        if not self.learns:
            self.say(
                f"step {step + 1}: the answers to each question were all worth the same, so there "
                "is nothing to compare, and the weights stay as they are"
            )
        return values | self.measured

    def accumulate(self, batches: list[Batch]) -> dict[str, Any]:
        sums = super().accumulate(batches)
        if not self.learns:
            # Gradients of 0 are not enough: AdamW would go on by its momentum, and decay. Weights
            # without a gradient it leaves alone.
            for optimizer in self.optimizers:
                optimizer.zero_grad(set_to_none=True)
        return sums

    @property
    def learns(self) -> bool:
        """Whether the answers of this step say what to change."""
        return self.measured["informative"] > 0 or self.config.kl_weight > 0

    def after(
        self, done: int, values: dict[str, float], log: RunLog, progress: Progress, stopping: bool
    ) -> None:
        if done % self.config.eval_every == 0 or done == self.total_steps:
            values |= self.held_out_accuracy()
        super().after(done, values, log, progress, stopping)

    def held_out_accuracy(self) -> dict[str, float]:
        """Share of the held-out questions whose greedy answer is right: of all, and of each kind if
        there are several. Nothing where there are no such questions."""
        asked = [to_messages(q.messages) for q in self.held_out]
        prompts = [self.tokenizer.render_for_completion(messages) for messages in asked]
        replies = answers(self.model, self.tokenizer, prompts, self.config.max_new_tokens)
        right: dict[str, list[bool]] = {}
        for question, reply in zip(self.held_out, replies, strict=True):
            for name in ("accuracy", question.kind):
                right.setdefault(name, []).append(question.is_correct(reply))
        named = right.items() if len(right) > 2 else [*right.items()][:1]
        return {f"val_{name}": sum(marks) / len(marks) for name, marks in named}

    def learned_from(self, step: int) -> str:
        return f"{self.config.questions * self.config.group_size} answers"
