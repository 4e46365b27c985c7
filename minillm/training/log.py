"""Training curves, to TensorBoard for looking and to a JSON Lines file for plotting."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
from torch.utils.tensorboard import SummaryWriter

from minillm.config import Stage, TrainConfig
from minillm.errors import UserError
from minillm.files import write_atomically


class RunLog:
    """One line a step in ``<out_dir>/<stage>_log.jsonl``, and the same in ``<tf_dir>/<stage>``.

    A run that goes on after step ``start_step`` keeps the lines up to it: ``tokens`` are those
    that were trained on until then.

    Raises:
        UserError: the files cannot be written.
    """

    def __init__(self, config: TrainConfig, stage: Stage, start_step: int) -> None:
        self.path = config.out_dir / f"{stage}_log.jsonl"
        self.tokens = self._tokens_before = 0
        kept: list[bytes] = []
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if start_step and self.path.exists():
                kept = _lines_up_to(start_step, self.path.read_bytes())
            # Not in place: on a full disk the old lines would be gone and no new ones there.
            write_atomically(self.path, b"".join(kept))
            self.writer = SummaryWriter(config.tf_dir / stage, purge_step=start_step + 1)
        except OSError as error:
            raise _cannot_write(Path(error.filename or self.path), error) from None
        if kept:
            self.tokens = self._tokens_before = msgspec.json.decode(kept[-1])["tokens"]
        self._started = time.monotonic()

    def add(self, step: int, values: dict[str, float], tokens: int) -> None:
        """Notes a step: its values, and how many tokens it was trained on."""
        self.tokens += tokens
        values = {**values, "tokens": self.tokens}
        try:
            with self.path.open("ab") as file:
                file.write(msgspec.json.encode({"step": step, **values}) + b"\n")
        except OSError as error:
            raise _cannot_write(self.path, error) from None
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def speed(self) -> float:
        """Tokens trained on each second, in this run."""
        return (self.tokens - self._tokens_before) / (time.monotonic() - self._started)

    def close(self) -> None:
        """Writes what TensorBoard's file still lacks."""
        self.writer.close()


def _lines_up_to(step: int, content: bytes) -> list[bytes]:
    """Steps after the checkpoint come again. The last line may be half a line, if the run was
    killed while it wrote."""
    lines = content.splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"\n")]
    return [line for line in whole if msgspec.json.decode(line)["step"] <= step]


def _cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(
        f"{path}: cannot write: {error.strerror}; free some space or name other folders by "
        "--out_dir and --tf_dir (what was saved is not lost: --resume goes on from it)"
    )
