"""The first losses of each stage at the tiny preset, beside stored ones: nothing that decides
training has changed unnoticed.

Run after ``python -m minillm.book.lab``, whose data and tokenizer it uses. After a change that is
meant, ``python tests/test_golden.py`` stores the new losses.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from minillm.book import lab
from minillm.config import STAGES, TRAINING, Stage
from minillm.training.loop import train

GOLDEN = Path(__file__).with_suffix(".json")
STEPS = 50


def first_losses(folder: Path) -> dict[Stage, list[float]]:
    """All stages in turn, ``STEPS`` steps each; a stage starts from what the one before made."""
    losses: dict[Stage, list[float]] = {}
    lab.tokenizer().save(folder / "out" / "tokenizer")
    for stage in STAGES:
        config = replace(
            TRAINING["tiny"][stage],
            data_path=lab.data() / f"{stage}_chinese.jsonl",
            out_dir=folder / "out",
            tf_dir=folder / "tf_dir",
            device="cpu",
            max_steps=STEPS,
            eval_every=10**6,
        )
        train(config, stage)
        lines = (folder / "out" / f"{stage}_log.jsonl").read_text("utf-8").splitlines()
        losses[stage] = [json.loads(line)["loss"] for line in lines]
    return losses


def test_losses_are_the_stored_ones(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    golden = json.loads(GOLDEN.read_text("utf-8"))
    found = first_losses(tmp_path)
    for stage in STAGES:
        assert found[stage] == pytest.approx(golden[stage], abs=1e-4), stage


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        content = {k: [round(x, 6) for x in v] for k, v in first_losses(Path(name)).items()}
    GOLDEN.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
