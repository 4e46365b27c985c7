"""Losses: hand-computed, against TRL, and their behaviour at the edges."""

from __future__ import annotations

import math
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import small
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from minillm.config import TRAINING
from minillm.model.transformer import Transformer
from minillm.training import objectives
from minillm.training.dataset import TokenDataset
from minillm.training.objectives import (
    cross_entropy,
    dpo_loss,
    make_dpo_objective,
    next_token_loss,
    sequence_log_probs,
    validation_loss,
)
from minillm.training.packing import IGNORE_INDEX, Batch, collate


def dataset(sequences: list[tuple[list[int], list[int]]], unit: int = 1) -> TokenDataset:
    return TokenDataset(
        ids=np.array([t for ids, _ in sequences for t in ids], np.int32),
        mask=np.array([m for _, mask in sequences for m in mask], np.uint8),
        offsets=np.cumsum([0, *(len(ids) for ids, _ in sequences)]),
        unit=unit,
    )


def pairs(seed: int = 0) -> TokenDataset:
    """Three preference pairs: prompts of 3 tokens, answers of 2 to 6."""
    rng = np.random.default_rng(seed)
    sequences = []
    for _ in range(3):
        prompt = rng.integers(320, size=3).tolist()
        for n in rng.integers(2, 7, size=2):
            sequences.append((prompt + rng.integers(320, size=n).tolist(), [0] * 3 + [1] * int(n)))
    return dataset(sequences, unit=2)


class Sizes(TorchDispatchMode):
    """The largest tensor of each float dtype that any operation made, in elements."""

    def __init__(self) -> None:
        super().__init__()
        self.largest: dict[torch.dtype, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                before = self.largest.get(tensor.dtype, 0)
                self.largest[tensor.dtype] = max(before, tensor.numel())
        return made


class Fixed(torch.nn.Module):
    """Gives the same logits whatever it reads."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(logits)

    def forward(self, *_: object) -> Tensor:
        return self.logits


def batch_of(labels: list[list[int]]) -> Batch:
    shape = (len(labels), len(labels[0]))
    zeros = torch.zeros(shape, dtype=torch.int64)
    count = sum(label != IGNORE_INDEX for row in labels for label in row)
    return Batch(zeros, torch.tensor(labels), zeros, zeros, 1, count)


def test_next_token_loss_by_hand() -> None:
    # Two words with scores 0 and ln 3 have probabilities 1/4 and 3/4.
    logits = torch.tensor([[[0.0, math.log(3)]] * 3])
    loss = next_token_loss(Fixed(logits), batch_of([[1, 0, IGNORE_INDEX]]))
    assert loss.count == 2
    assert loss.total.item() == pytest.approx(-math.log(3 / 4) - math.log(1 / 4))


def losses_and_gradient(
    logits: Tensor, labels: Tensor, weights: Tensor, at_once: int
) -> tuple[Tensor, Tensor]:
    """In parts of at most so many scores; the gradient is that of the weighted sum."""
    logits = logits.clone().requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objectives, "SCORES_AT_ONCE", at_once)
        losses = cross_entropy(logits, labels)
        (losses * weights).sum().backward()
    assert logits.grad is not None
    return losses.detach(), logits.grad


@settings(max_examples=40, deadline=None)
@given(
    positions=st.integers(0, 40),
    at_once=st.integers(1, 500),
    learned=st.floats(0, 1),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
    seed=st.integers(0, 2**32 - 1),
)
def test_scores_in_parts_give_the_same_bits(
    positions: int, at_once: int, learned: float, dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    logits = 5 * torch.randn(positions, 11, dtype=dtype)
    labels = torch.randint(11, (positions,))
    labels[torch.rand(positions) >= learned] = IGNORE_INDEX
    weights = torch.randn(positions)  # as of GRPO's advantages
    losses, gradient = losses_and_gradient(logits, labels, weights, at_once)
    whole_losses, whole_gradient = losses_and_gradient(logits, labels, weights, 2**62)
    assert losses.dtype == torch.float32
    assert torch.equal(losses, whole_losses)
    assert torch.equal(gradient, whole_gradient)

    # By definition, in float64: p - [v = label], where there is a label.
    exact = logits.double().log_softmax(-1)
    there = labels >= 0
    taken = exact.gather(1, labels.clamp(min=0)[:, None])[:, 0] * there
    assert torch.allclose(losses.double(), -taken, rtol=1e-5, atol=1e-5)
    target = F.one_hot(labels.clamp(min=0), 11)
    expected = (exact.exp() - target) * (weights * there)[:, None]
    rounding = 2e-2 if dtype == torch.bfloat16 else 1e-5
    assert torch.allclose(gradient.double(), expected, rtol=rounding, atol=1e-5)


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_the_scores_of_a_stage_in_parts(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole objective, also under an autocast that the backward pass is outside of."""
    batch = collate(pairs(), [[0, 1], [2]], 48)

    def run(dtype: torch.dtype) -> Tensor:
        model = small.model(1)
        objective = next_token_loss
        if stage == "dpo":
            objective = make_dpo_objective(small.model(2), beta=0.1, nll_weight=0.3)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = objective(model, batch)
        loss.total.backward()
        return torch.cat(
            [loss.total.detach()[None], *(p.grad.flatten() for p in model.parameters())]
        )

    for dtype in (torch.float32, torch.bfloat16):
        monkeypatch.setattr(objectives, "SCORES_AT_ONCE", 2**62)
        whole = run(dtype)
        monkeypatch.setattr(objectives, "SCORES_AT_ONCE", 320 * 7)  # 14 parts of 7, 7 … 5 positions
        assert torch.equal(run(dtype), whole)


def test_the_fp32_scores_are_never_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objectives, "SCORES_AT_ONCE", 100)
    logits = torch.randn(40, 10, dtype=torch.bfloat16, requires_grad=True)
    sizes = Sizes()
    with sizes:
        cross_entropy(logits, torch.randint(10, (40,))).sum().backward()
    assert sizes.largest == {torch.float32: 100, torch.bfloat16: 400}


def test_batches_of_the_small_presets_stay_whole() -> None:
    """What the book trains and the golden losses, then, do not depend on how scores are divided."""
    for preset, whole in (("tiny", True), ("smoke", True), ("default", False)):
        for stage, config in TRAINING[preset].items():
            row = config.max_seq_len * (2 if stage == "dpo" else 1)
            scores = config.batch_size * row * config.model.vocab_size
            assert (scores <= objectives.SCORES_AT_ONCE) == whole, (preset, stage)


def test_a_batch_without_targets_contributes_nothing() -> None:
    model = Fixed(torch.randn(1, 3, 5))
    loss = next_token_loss(model, batch_of([[IGNORE_INDEX] * 3]))
    assert loss.count == 0
    assert loss.total.item() == 0
    loss.total.backward()
    assert model.logits.grad is not None
    assert model.logits.grad.abs().sum() == 0


def test_loss_mask_counts_marked_tokens_only() -> None:
    ids, mask = [5, 6, 7, 8, 9], [0, 0, 0, 1, 1]
    model = small.model()
    loss = next_token_loss(model, collate(dataset([(ids, mask)]), [[0]], 4))
    log_probs = model(torch.tensor([ids[:-1]])).log_softmax(-1)[0]
    assert loss.count == 2
    assert loss.total.item() == pytest.approx(-(log_probs[2, 8] + log_probs[3, 9]).item(), rel=1e-5)


def test_sequence_log_probs_are_sums_and_do_not_depend_on_packing() -> None:
    model, data = small.model(), pairs()
    packed = sequence_log_probs(model, collate(data, [[0, 1, 2]], 48))
    spread = torch.cat([sequence_log_probs(model, collate(data, [[i]], 20)) for i in range(3)])
    assert torch.allclose(packed, spread, atol=1e-4)
    ids = torch.tensor(data.ids[: data.offsets[1]].astype(np.int64))
    expected = model(ids[None, :-1]).log_softmax(-1)[0].gather(1, ids[1:, None])[2:].sum()
    assert packed[0].item() == pytest.approx(expected.item(), rel=1e-5)


def test_dpo_loss_by_hand() -> None:
    losses, margins = dpo_loss(*(torch.tensor([x]) for x in (-10.0, -12.0, -11.0, -11.0)), beta=0.1)
    assert margins.item() == pytest.approx(0.1 * ((-10 + 11) - (-12 + 11)))
    assert losses.item() == pytest.approx(-math.log(1 / (1 + math.exp(-0.2))))


def test_dpo_loss_equals_trl() -> None:
    from trl import DPOTrainer

    policy, reference, data = small.model(1), small.model(2), pairs()
    batch = collate(data, [[0, 1, 2]], 48)
    ours = make_dpo_objective(reference, beta=0.25, nll_weight=0.0)(policy, batch)

    # TRL's own computation on a padded batch: the chosen answers first, then the rejected ones.
    order = [0, 2, 4, 1, 3, 5]
    lengths = np.diff(data.offsets)
    ids = torch.zeros(6, int(lengths.max()), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, i in enumerate(order):
        part = slice(data.offsets[i], data.offsets[i + 1])
        ids[row, : lengths[i]] = torch.from_numpy(data.ids[part].astype(np.int64))
        mask[row, : lengths[i]] = torch.from_numpy(data.mask[part].astype(np.int64))

    def as_trl_model(model: torch.nn.Module) -> MagicMock:
        def forward(input_ids: Tensor, labels: Tensor, **_: object) -> SimpleNamespace:
            log_probs = model(input_ids)[:, :-1].log_softmax(-1)
            taken = log_probs.gather(-1, input_ids[:, 1:, None])[..., 0]
            taken = taken.masked_fill(labels[:, 1:] == IGNORE_INDEX, 0.0)
            # TRL also logs other things that its patched models return; they do not enter the loss.
            logged = ("entropy", "mean_logits")
            return SimpleNamespace(
                log_probs=taken, is_top1=taken > 0, **dict.fromkeys(logged, taken)
            )

        return MagicMock(side_effect=forward)

    trainer = MagicMock(
        beta=0.25, ld_alpha=None, precompute_ref_logps=False, f_divergence_type="reverse_kl",
        loss_types=["sigmoid"], loss_weights=[1.0], ref_model=as_trl_model(reference),
        use_weighting=False, aux_loss_enabled=False, label_smoothing=0.0,
    )  # fmt: skip
    trainer.accelerator.device = torch.device("cpu")
    trainer.accelerator.gather_for_metrics = lambda values: values
    inputs = {"input_ids": ids, "attention_mask": (ids > 0).long(), "completion_mask": mask}
    theirs = DPOTrainer._compute_loss(trainer, as_trl_model(policy), inputs, False)
    assert ours.total.item() / ours.count == pytest.approx(theirs.item(), rel=1e-5)


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_an_objective_is_one_graph(stage: str) -> None:
    """So it can be compiled as a whole, the loss with the model, and no value is asked for in
    between, which would make a GPU wait. ``fullgraph`` raises otherwise."""
    model, data = small.model(), pairs()
    objective = next_token_loss
    if stage == "dpo":
        objective = make_dpo_objective(small.model(1), beta=0.1, nll_weight=0.3)
    compiled = torch.compile(objective, fullgraph=True, backend="eager")
    for rows in ([[0, 1, 2]], [[0], [1]], [[2, 0], []]):
        batch = collate(data, rows, 48)
        expected, found = objective(model, batch), compiled(model, batch)
        assert found.total.item() == expected.total.item()
        assert found.count == expected.count
        assert found.metrics == expected.metrics


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_an_objective_stays_on_the_gpu(stage: str) -> None:
    """Fake tensors have a device but no data, and refuse to mix with those of another device."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        model = Transformer(small.CONFIG)
        objective = next_token_loss
        if stage == "dpo":
            objective = make_dpo_objective(Transformer(small.CONFIG), beta=0.1, nll_weight=0.3)
        with torch.device("cpu"):
            batch = collate(pairs(), [[0, 1], [2]], 48)
        loss = objective(model, batch.to(torch.device("cuda")))
    assert {value.device.type for value in (loss.total, *loss.metrics.values())} == {"cuda"}
    assert loss.total.requires_grad


def test_dpo_before_training_is_ln_2_and_undecided() -> None:
    model, data = small.model(), pairs()
    loss = make_dpo_objective(model, beta=0.1, nll_weight=0.0)(
        model, collate(data, [[0, 1, 2]], 48)
    )
    assert loss.total.item() / 3 == pytest.approx(math.log(2), rel=1e-5)
    assert loss.metrics["margin"].item() == 0
    assert loss.metrics["accuracy"].item() == 0


def test_nll_term_is_the_chosen_answers_loss_per_token() -> None:
    model, data = small.model(1), pairs()
    batch = collate(data, [[0, 1, 2]], 48)
    plain = make_dpo_objective(small.model(2), 0.1, nll_weight=0.0)(model, batch).total
    with_nll = make_dpo_objective(small.model(2), 0.1, nll_weight=0.5)(model, batch).total
    expected = 0.0
    for i in (0, 2, 4):
        ids = torch.tensor(data.ids[data.offsets[i] : data.offsets[i + 1]].astype(np.int64))
        expected += F.cross_entropy(model(ids[None, :-1])[0, 2:], ids[3:]).item()
    assert (with_nll - plain).item() == pytest.approx(0.5 * expected, rel=1e-4)


def test_dpo_trains_only_the_policy() -> None:
    policy, reference = small.model(1), small.model(1)
    loss = make_dpo_objective(reference, 0.1, 0.3)(policy, collate(pairs(), [[0, 1, 2]], 48))
    loss.total.backward()
    assert all(p.grad is not None for p in policy.parameters())
    assert all(p.grad is None for p in reference.parameters())


def test_validation_loss_weighs_tokens_alike() -> None:
    logits = torch.tensor([[[0.0, math.log(3)]] * 3])
    batches = [batch_of([[1, 1, 1]]), batch_of([[0, IGNORE_INDEX, IGNORE_INDEX]])]
    values = validation_loss(next_token_loss, Fixed(logits), batches)
    assert values["loss"] == pytest.approx((3 * -math.log(0.75) - math.log(0.25)) / 4)
    assert math.isnan(
        validation_loss(next_token_loss, Fixed(logits), [batch_of([[IGNORE_INDEX] * 3])])["loss"]
    )
