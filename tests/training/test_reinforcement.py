"""The algorithm: by hand, against TRL's own trainer, and what must hold whatever the numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from test_objectives import Fixed
from torch import Tensor

from minillm.config import GRPO_PRESETS, GRPOConfig
from minillm.microworld.scoring import Question
from minillm.model.transformer import Transformer
from minillm.training.checkpoint import Metadata
from minillm.training.model_folder import save_stage
from minillm.training.objectives import next_token_loss, sequence_log_probs, token_losses
from minillm.training.packing import IGNORE_INDEX
from minillm.training.questions import OwnQuestion
from minillm.training.reinforcement import (
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

CONFIG = replace(GRPO_PRESETS["smoke"], model=small.CONFIG, max_new_tokens=6, group_size=4)


def question(text: str, answer: str = "2") -> Question:
    return OwnQuestion("own", (("user", text),), answer)


def rollouts(seed: int = 0, count: int = 4) -> list[Rollout]:
    """Answers of 2 to 6 random tokens to prompts of 3 to 5."""
    rng = np.random.default_rng(seed)
    return [
        Rollout(
            question(f"{i}？"),
            "",
            rng.integers(300, size=3 + i % 3).tolist(),
            rng.integers(300, size=int(rng.integers(2, 7))).tolist(),
            float(rng.integers(2)),
        )
        for i in range(count)
    ]


# --- Answers --------------------------------------------------------------------------------------


def test_answers_come_in_groups_and_end_as_the_model_chose() -> None:
    model, tokenizer = small.model(), small.tokenizer()
    asked = [question("小猫？"), question("小狗和小鸟去公园？")]
    found = roll_out(model, tokenizer, asked, CONFIG, seed=1)
    assert [r.question for r in found] == [asked[0]] * 4 + [asked[1]] * 4
    end = tokenizer.special_id("<|assistant_end|>")
    for rollout in found:
        assert rollout.reward == correct(rollout.question, rollout.reply)
        assert end not in rollout.answer[:-1]
        assert len(rollout.answer) == CONFIG.max_new_tokens or rollout.answer[-1] == end
        text = rollout.answer[:-1] if rollout.answer[-1] == end else rollout.answer
        assert tokenizer.decode(text) == rollout.reply
    assert len({tuple(r.answer) for r in found}) > 1
    assert found == roll_out(model, tokenizer, asked, CONFIG, seed=1)
    assert found != roll_out(model, tokenizer, asked, CONFIG, seed=2)


def always(token: int) -> Transformer:
    """A model that says one token and no other."""
    model = small.model()
    with torch.no_grad():
        model.model.embed_tokens.weight.zero_()
        model.model.embed_tokens.weight[:, 0] = 1.0
        model.model.embed_tokens.weight[token, 0] = 1000.0
        for block in model.model.layers:
            for parameter in block.parameters():
                parameter.zero_()
    return model


def test_the_end_belongs_to_an_answer_that_was_not_cut_off() -> None:
    tokenizer = small.tokenizer()
    end = tokenizer.special_id("<|assistant_end|>")
    (said, *_) = roll_out(always(end), tokenizer, [question("问")], CONFIG, seed=0)
    assert (said.answer, said.reply) == ([end], "")
    two = tokenizer.encode("2")[0]
    (cut, *_) = roll_out(always(two), tokenizer, [question("问")], CONFIG, seed=0)
    assert (cut.answer, cut.reply) == ([two] * 6, "222222")
    # Where a document ends is no end of an answer here: it was sampled, and is learned from.
    (bos, *_) = roll_out(always(tokenizer.bos_id), tokenizer, [question("问")], CONFIG, seed=0)
    assert bos.answer == [tokenizer.bos_id] * 6


def test_a_right_answer_is_worth_less_the_longer_it_is() -> None:
    tokenizer = small.tokenizer()
    two = tokenizer.encode("2")[0]
    config = replace(CONFIG, length_penalty=2.0)
    asked = [question("问", "222222"), question("问", "3")]
    found = roll_out(always(two), tokenizer, asked, config, seed=0)
    assert [r.reward for r in found] == [1 - 2.0 * 6 / 100] * 4 + [0.0] * 4
    assert summary(found, 4)["accuracy"] == 0.5


def test_a_reward_may_be_any_function() -> None:
    found = roll_out(
        small.model(), small.tokenizer(), [question("问")], CONFIG, 0, lambda q, r: -len(r)
    )
    assert [r.reward for r in found] == [-len(r.reply) for r in found]


def test_packed_answers_have_labels_and_advantages_of_their_own() -> None:
    given_rollouts, better = rollouts(count=7), torch.arange(7.0) - 3
    batches = pack_rollouts(given_rollouts, better, row_length=16, batch_size=2)
    assert len(batches) > 1
    assert all(len(batch.input_ids) <= 2 for batch in batches)
    seen = []
    for batch in batches:
        for document in range(batch.num_documents):
            here = batch.document_ids == document
            labels = batch.labels[here]
            answer = labels[labels != IGNORE_INDEX].tolist()
            (which,) = [i for i, r in enumerate(given_rollouts) if r.answer == answer]
            assert batch.advantages[document] == better[which]
            whole = given_rollouts[which].prompt + answer
            assert batch.input_ids[here].tolist() == whole[:-1]
            seen.append(which)
    assert sorted(seen) == list(range(7))
    assert sum(batch.num_targets for batch in batches) == sum(len(r.answer) for r in given_rollouts)


def test_a_batch_moves_with_all_it_holds() -> None:
    (batch,) = pack_rollouts(rollouts(), torch.zeros(4), 64, 9)
    batch = replace(batch, sampled=torch.zeros(batch.labels.shape))
    moved = batch.to(torch.device("meta"))
    assert isinstance(moved, RolloutBatch)
    tensors = [v for v in vars(moved).values() if isinstance(v, Tensor)]
    assert len(tensors) == 6
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert replace(batch, sampled=None).to(torch.device("meta")).num_targets == batch.num_targets


def test_what_answers_were_like() -> None:
    right, wrong = (
        Rollout(question("问", "2"), reply, [1], answer, float(reply == "2"))
        for reply, answer in (("2", [5, 6, 7]), ("3", [5]))
    )
    assert summary([right, right, right, wrong], group_size=2) == {
        "reward": 0.75, "accuracy": 0.75, "length": 2.5, "informative": 0.5,
    }  # fmt: skip


# --- Advantages -----------------------------------------------------------------------------------

REWARDS = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=9),
    elements=st.floats(-1e3, 1e3, width=32),
)


@settings(deadline=None)
@given(REWARDS, st.booleans())
def test_advantages_of_a_group_add_up_to_0(rewards: np.ndarray, divide: bool) -> None:
    better = advantages(torch.from_numpy(rewards), divide)
    assert better.shape == rewards.shape
    assert better.sum(dim=1).abs().max() < 1e-6 * max(1.0, float(np.abs(rewards).max()))


@settings(deadline=None)
@given(REWARDS, st.booleans(), st.integers(0, 2**32 - 1))
def test_advantages_go_with_their_answers(rewards: np.ndarray, divide: bool, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(rewards.shape[1])
    given_order = advantages(torch.from_numpy(rewards), divide)[:, order]
    other_order = advantages(torch.from_numpy(rewards[:, order]), divide)
    torch.testing.assert_close(given_order, other_order, rtol=1e-6, atol=1e-6)


@settings(deadline=None)
@given(st.floats(-1e3, 1e3), st.integers(2, 9), st.booleans())
def test_equal_rewards_have_no_advantage(reward: float, group: int, divide: bool) -> None:
    better = advantages(torch.full((1, group), reward, dtype=torch.float64), divide)
    assert better.abs().max() < 1e-8


def test_advantages_by_hand() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]])
    better = advantages(rewards)
    assert better.tolist() == [[0.5, -0.5, -0.5, 0.5], [-0.25, -0.25, -0.25, 0.75]]
    std = (4 * 0.25 / 3) ** 0.5  # of a sample
    assert advantages(rewards, divide_by_std=True)[0, 0] == pytest.approx(0.5 / (std + 1e-4))


# --- The objective --------------------------------------------------------------------------------


def two_tokens(advantage: float, sampled: list[float] | None = None) -> RolloutBatch:
    """One answer of two tokens out of a vocabulary of two: first 1, then 0."""
    labels = torch.tensor([[1, 0]])
    zeros = torch.zeros_like(labels)
    old = None if sampled is None else torch.tensor([sampled]).log()
    return RolloutBatch(zeros, labels, zeros, zeros, 1, 2, torch.tensor([advantage]), old)


@pytest.mark.parametrize("advantage", [1.0, -0.5])
def test_the_gradient_of_two_tokens_by_hand(advantage: float) -> None:
    # Scores 0 and ln 3 are probabilities 1/4 and 3/4; d(-A log p_i)/d s_j = A (p_j - [i = j]).
    model = Fixed(torch.tensor([[[0.0, math.log(3)]] * 2]))
    loss = make_grpo_objective()(model, two_tokens(advantage))
    assert loss.count == 2
    assert loss.total.item() == pytest.approx(-2 * advantage)  # ρ = 1
    assert loss.metrics["entropy"].item() == pytest.approx(-math.log(3 / 4) - math.log(1 / 4))
    assert loss.metrics.keys() == {"entropy"}
    loss.total.backward()
    by_hand = advantage * torch.tensor([[[1 / 4, 3 / 4 - 1], [1 / 4 - 1, 3 / 4]]])
    assert model.logits.grad is not None
    torch.testing.assert_close(model.logits.grad, by_hand)


@pytest.mark.parametrize(
    ("advantage", "sampled", "clipped"),
    [
        (1.0, [0.75 / 1.5, 0.25], [True, False]),  # likelier by half already: enough
        (-1.0, [0.75 / 1.5, 0.25], [False, False]),  # likelier, though it should not be
        (1.0, [0.75 / 0.5, 0.25 / 0.5], [False, False]),
        (-1.0, [0.75, 0.25 / 0.5], [False, True]),
        (1.0, [0.75 / 1.19, 0.25 / 1.21], [False, True]),
    ],
)
def test_a_token_that_has_moved_enough_moves_no_more(
    advantage: float, sampled: list[float], clipped: list[bool]
) -> None:
    model = Fixed(torch.tensor([[[0.0, math.log(3)]] * 2]))
    loss = make_grpo_objective(clip=0.2)(model, two_tokens(advantage, sampled))
    assert loss.metrics["clipped"].item() == sum(clipped)
    loss.total.backward()
    assert model.logits.grad is not None
    assert [not any(row) for row in model.logits.grad[0].tolist()] == clipped
    ratios = [0.75 / sampled[0], 0.25 / sampled[1]]
    worth = [
        min(r * advantage, min(max(r, 0.8), 1.2) * advantage) for r in ratios
    ]  # PPO's equation 7
    assert loss.total.item() == pytest.approx(-sum(worth))


def test_the_divergence_by_hand() -> None:
    policy = Fixed(torch.tensor([[[0.0, math.log(3)]] * 2]))
    reference = Fixed(torch.zeros(1, 2, 2))  # 1/2 each
    loss = make_grpo_objective(kl_weight=0.5, reference=reference)(policy, two_tokens(0.0))
    terms = [q / p - math.log(q / p) - 1 for p, q in ((3 / 4, 1 / 2), (1 / 4, 1 / 2))]
    assert loss.metrics["kl"].item() == pytest.approx(sum(terms))
    assert loss.total.item() == pytest.approx(0.5 * sum(terms))
    loss.total.backward()
    assert reference.logits.grad is None
    same = make_grpo_objective(kl_weight=0.5, reference=policy)(policy, two_tokens(0.0))
    assert same.total.item() == 0


def test_rejection_sampling_is_next_token_loss_on_right_answers() -> None:
    """Weights 1 and 0 instead of advantages: SFT on what was right."""
    model, found = small.model(), rollouts()
    keep = torch.tensor([1.0, 0.0, 1.0, 0.0])
    (batch,) = pack_rollouts(found, keep, 64, 9)
    make_grpo_objective()(model, batch).total.backward()
    ours = [parameter.grad for parameter in model.parameters()]
    model.zero_grad(set_to_none=True)
    (right,) = pack_rollouts(found[::2], torch.ones(2), 64, 9)
    next_token_loss(model, right).total.backward()
    for gradient, parameter in zip(ours, model.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-6)


def test_the_gradient_is_that_of_advantage_times_log_probability() -> None:
    """However the answers are packed: REINFORCE (Williams 1992)."""
    model, found, better = small.model(), rollouts(), torch.tensor([0.5, -0.5, 0.25, -0.25])
    gradients = []
    for row_length, batch_size in ((64, 9), (16, 1)):
        model.zero_grad(set_to_none=True)
        for batch in pack_rollouts(found, better, row_length, batch_size):
            make_grpo_objective()(model, batch).total.backward()
        gradients.append([p.grad for p in model.parameters()])
    model.zero_grad(set_to_none=True)
    (batch,) = pack_rollouts(found, better, 64, 9)
    (-batch.advantages * sequence_log_probs(model, batch)).sum().backward()
    gradients.append([p.grad for p in model.parameters()])
    for other in gradients[1:]:
        for a, b in zip(gradients[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("several_updates", [False, True])
def test_the_objective_is_one_graph(several_updates: bool) -> None:
    model, reference = small.model(), small.model(1)
    objective = make_grpo_objective(0.2, 0.1, reference)
    compiled = torch.compile(objective, fullgraph=True, backend="eager")
    for batch in pack_rollouts(rollouts(count=9), torch.arange(9.0), 16, 2):
        if several_updates:
            batch = replace(batch, sampled=-token_losses(small.model(2), batch).detach())
        expected, found = objective(model, batch), compiled(model, batch)
        assert found.total.item() == expected.total.item()
        assert found.metrics == expected.metrics


# --- Against TRL ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["group", "none"])
def test_advantages_and_loss_equal_trl(tmp_path: Path, scale: str) -> None:
    """TRL's own ``GRPOTrainer`` samples from our weights, asks for rewards and computes advantages
    and loss; ours are computed from its answers and rewards."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig as TheirConfig
    from trl import GRPOTrainer as TheirTrainer

    start, policy = small.model(1), small.model(1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for ours, later in zip(start.parameters(), policy.parameters(), strict=True):
            ours.mul_(1 + 4 * (ours.ndim > 1))  # more decided than fresh weights are
            later.copy_(ours + 0.01 * torch.randn(ours.shape, generator=generator))
    about = Metadata("sft", 1, small.CONFIG, small.tokenizer().fingerprint, "", {})
    for name, model in (("start", start), ("policy", policy)):
        save_stage(tmp_path / f"{name}.safetensors", model, about, small.tokenizer())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "start")
    tokenizer.pad_token = tokenizer.eos_token

    asked_for: list[list[float]] = []

    def reward(completions: list[object], **_: object) -> list[float]:
        asked_for.append([(7 * len(str(c))) % 5 / 4 for c in completions])
        return asked_for[-1]

    rows = [{"prompt": small.conversation(f"{i}加{i}？", "")[:1]} for i in (1, 10)]
    trainer = TheirTrainer(
        model=AutoModelForCausalLM.from_pretrained(tmp_path / "start"),
        reward_funcs=reward,
        args=TheirConfig(
            output_dir=str(tmp_path / "trl"), use_cpu=True, bf16=False, report_to=[],
            per_device_train_batch_size=8, num_generations=4, max_completion_length=8,
            num_iterations=2, beta=0.1, epsilon=0.2, loss_type="bnpo", scale_rewards=scale,
            use_bias_correction_kl=False,  # DeepSeek-V3.2 weighs it by the ratio
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )  # fmt: skip
    trainer.model.train()
    theirs = trainer._generate_and_score_completions([row for row in rows for _ in range(4)])
    moved = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    trainer.model.load_state_dict(moved.state_dict())
    trainer.current_gradient_accumulation_steps = 1
    their_loss = trainer._compute_loss(trainer.model, theirs)
    their_loss.backward()

    def tokens(kind: str, i: int) -> list[int]:
        ids: list[int] = theirs[f"{kind}_ids"][i][theirs[f"{kind}_mask"][i].bool()].tolist()
        return ids

    found = [
        Rollout(question("问"), "", tokens("prompt", i), tokens("completion", i), worth)
        for i, worth in enumerate(asked_for[0])
    ]
    better = advantages(group_rewards(found, 4), divide_by_std=scale == "group").flatten()
    torch.testing.assert_close(better.float(), theirs["advantages"], rtol=1e-4, atol=1e-5)
    assert better.abs().max() > 0.1

    (batch,) = pack_rollouts(found, better, 64, 9)
    batch = replace(batch, sampled=-token_losses(start, batch).detach())
    loss = make_grpo_objective(0.2, 0.1, start)(policy, batch)
    assert loss.metrics["clipped"] > 0
    assert loss.metrics["kl"] > 0
    mean = loss.total / loss.count
    assert mean.item() == pytest.approx(their_loss.item(), rel=1e-4, abs=1e-6)
    mean.backward()
    gradients = {name: p.grad for name, p in policy.named_parameters()}
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-5)


def test_the_default_is_grpo_without_its_division() -> None:
    assert GRPOConfig().divide_by_std is False
