"""Reinforcement learning from verifiable rewards: ask, let the model answer several times, check,
and make likelier what was better than the average answer to the same question.

    questions → answers → rewards → advantages → objective

This is group relative policy optimization, GRPO (Shao et al. 2024, DeepSeekMath,
arXiv:2402.03300). ``minillm.training.grpo`` is the stage that trains with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from minillm.config import GRPOConfig
from minillm.data.rows import to_messages
from minillm.microworld.scoring import Question
from minillm.model.generate import Sampling, complete
from minillm.model.transformer import Transformer
from minillm.tokenizer.vocabulary import RustBPETokenizer
from minillm.training.dataset import TokenDataset
from minillm.training.objectives import Loss, Model, Objective, token_losses
from minillm.training.packing import IGNORE_INDEX, Batch, collate, pack

Reward = Callable[[Question, str], float]
"""How good a reply to a question is. The same reply must always get the same reward, or a run that
is gone on with is another run."""


def correct(question: Question, reply: str) -> float:
    """1 for a right reply, 0 for a wrong one."""
    return float(question.is_correct(reply))


@dataclass(frozen=True)
class Rollout:
    """One answer that the model gave to a question, and what it is worth."""

    question: Question
    reply: str
    prompt: list[int]
    """Token ids up to where the answer begins."""
    answer: list[int]
    """The token ids that the model chose; <|assistant_end|> is one of them, unless the answer was
    cut off."""
    reward: float


def roll_out(
    model: Transformer,
    tokenizer: RustBPETokenizer,
    questions: Sequence[Question],
    config: GRPOConfig,
    seed: int,
    reward: Reward = correct,
) -> list[Rollout]:
    """``config.group_size`` answers to each question, one group after the other.

    They are sampled at temperature 1: the gradient of ``make_grpo_objective`` is that of the
    expected reward only under the probabilities that the answers were drawn with.
    """
    asked = [question for question in questions for _ in range(config.group_size)]
    prompts = [tokenizer.render_for_completion(to_messages(q.messages)) for q in asked]
    end, longest = tokenizer.special_id("<|assistant_end|>"), config.max_new_tokens
    sampling = Sampling(temperature=1.0, seed=seed)
    answers = complete(model, prompts, longest, [end], sampling, tokenizer.vocab_size)
    rollouts = []
    for question, prompt, answer in zip(asked, prompts, answers, strict=True):
        reply = tokenizer.decode(answer)
        if len(answer) < longest:  # to stop was a choice too
            answer = [*answer, end]
        worth = reward(question, reply)
        if config.length_penalty and question.is_correct(reply):
            worth -= config.length_penalty * len(answer) / 100
        rollouts.append(Rollout(question, reply, prompt, answer, worth))
    return rollouts


def group_rewards(rollouts: Sequence[Rollout], group_size: int) -> Tensor:
    """float64 ``[questions, group_size]``."""
    rewards = torch.tensor([r.reward for r in rollouts], dtype=torch.float64)
    return rewards.view(-1, group_size)


def advantages(rewards: Tensor, divide_by_std: bool = False) -> Tensor:
    """How much better each answer is than the average answer to its question.

    ``A = r - mean(r)``, which Dr. GRPO (Liu et al. 2025, arXiv:2503.20783) found to be enough. The
    first GRPO (arXiv:2402.03300, section 4.1.2) divides it by ``std(r)``, which makes much of
    questions that are nearly always or hardly ever answered rightly.

    Args:
        rewards: ``[questions, group_size]``.
        divide_by_std: by the standard deviation of a sample, with a little added, as in TRL.

    Returns:
        The same shape; each row adds up to 0, and equal rewards have no advantage.
    """
    better = rewards - rewards.mean(dim=1, keepdim=True)
    return better / (rewards.std(dim=1, keepdim=True) + 1e-4) if divide_by_std else better


@dataclass
class RolloutBatch(Batch):
    """Packed answers, with the advantage of each document, float32 ``[documents]``; and, float32
    ``[B, T]``, the log-probabilities that the labels had when they were sampled. None: they were
    sampled with the very weights that the objective is computed with."""

    advantages: Tensor
    sampled: Tensor | None = None

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        sampled = None if self.sampled is None else change(self.sampled)
        changed = replace(self, advantages=change(self.advantages), sampled=sampled)
        return super(RolloutBatch, changed)._each(change)


def pack_rollouts(
    rollouts: Sequence[Rollout], advantages: Tensor, row_length: int, batch_size: int
) -> list[RolloutBatch]:
    """The answers behind their prompts, packed as in SFT: only the answers have labels.

    Args:
        advantages: one for each rollout.
        row_length: positions of a row, at least as many as a prompt and its answer take.
        batch_size: rows in each batch.
    """
    ids = [rollout.prompt + rollout.answer for rollout in rollouts]
    mask = [[0] * len(rollout.prompt) + [1] * len(rollout.answer) for rollout in rollouts]
    data = TokenDataset(
        ids=np.concatenate(ids).astype(np.int32),
        mask=np.concatenate(mask).astype(np.uint8),
        offsets=np.cumsum([0, *map(len, ids)]),
        unit=1,
    )
    rows = pack(data.positions(), row_length, range(len(data)))
    batches = []
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        documents = [i for row in part for i in row]  # in the order in which a batch numbers them
        packed = collate(data, part, row_length)
        batches.append(RolloutBatch(**vars(packed), advantages=advantages[documents].float()))
    return batches


def make_grpo_objective(
    clip: float = 0.2, kl_weight: float = 0.0, reference: Model | None = None
) -> Objective:
    """The policy gradient on sampled answers, for each of their tokens.

    ``-min(ρ A, clip(ρ, 1 - ε, 1 + ε) A) + β (π_ref / π - log(π_ref / π) - 1)``

    with ρ = π / π_sampled. While ρ is 1, the gradient of the first term is that of ``-A log π``:
    the next-token loss of SFT, in which an answer's tokens count with its advantage. The clipping
    is PPO's (Schulman et al. 2017, arXiv:1707.06347, equation 7): when several updates are made on
    the same answers, a token that has become 1 + ε times as likely has got enough of it. The last
    term holds the model to the reference: Schulman's estimator k3 of the KL divergence, which is
    never negative (arXiv:2402.03300, equation 4).

    The sum is to be divided by the number of tokens in all answers, as in DAPO (Yu et al. 2025,
    arXiv:2503.14476, equation 8), not first by the length of each: a token weighs the same wherever
    it stands.
    """

    def objective(model: Model, batch: Batch) -> Loss:
        assert isinstance(batch, RolloutBatch)
        answered = batch.labels != IGNORE_INDEX  # not prompts nor padding
        log_probs = -token_losses(model, batch)  # [B, T]
        sampled = log_probs.detach() if batch.sampled is None else batch.sampled
        advantages = batch.advantages[batch.document_ids.clamp(min=0)]  # [B, T]
        ratio = (log_probs - sampled).exp()
        gain, clipped = ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages
        losses = -torch.minimum(gain, clipped)
        # At temperature 1, the mean of -log π over what was sampled estimates the entropy.
        metrics = {"entropy": -log_probs.detach().sum()}
        if batch.sampled is not None:
            metrics["clipped"] = ((clipped < gain) & answered).sum()
        if reference is not None:
            with torch.no_grad():
                held = -token_losses(reference, batch)
            kl = (held - log_probs).exp() - (held - log_probs) - 1
            losses = losses + kl_weight * kl
            metrics["kl"] = kl.detach().sum()  # 0 where nothing was answered
        return Loss((losses * answered).sum(), batch.num_targets, metrics)

    return objective


def summary(rollouts: Sequence[Rollout], group_size: int) -> dict[str, float]:
    """What a batch of answers was like: its mean reward, the share of right answers (whatever they
    were rewarded for), tokens per answer, and the share of groups that there is something to learn
    from, since not all of their rewards are the same."""
    rewards = group_rewards(rollouts, group_size)
    right = [rollout.question.is_correct(rollout.reply) for rollout in rollouts]
    return {
        "reward": float(rewards.mean()),
        "accuracy": sum(right) / len(rollouts),
        "length": sum(len(rollout.answer) for rollout in rollouts) / len(rollouts),
        "informative": float((rewards.amax(dim=1) > rewards.amin(dim=1)).double().mean()),
    }
