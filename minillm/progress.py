"""How far a long piece of work has come: a bar for people, lines of words for a file.

A bar redraws itself by carriage returns. A terminal and a notebook show that as one moving line; in
a log it becomes thousands of fragments, so there one line is written now and then.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from tqdm import tqdm

_T = TypeVar("_T")

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Within a ``with`` block, shows what ``update`` counts, on stderr.

    Args:
        what: is being done.
        total: when it will be done; None: nobody knows.
        unit: what is counted.
        start: what had been done before.
        keep: leave the finished bar standing.
        quiet: show nothing.
    """

    def __init__(
        self,
        what: str,
        total: int | None = None,
        unit: str = "rows",
        start: int = 0,
        keep: bool = False,
        quiet: bool = False,
    ) -> None:
        self.what, self.total, self.unit, self.count = what, total, unit, start
        self._words = not (quiet or shows_bars())
        self._shown = ""
        self._due = time.monotonic() + SECONDS_BETWEEN_LINES
        self._bar = tqdm(
            total=total,
            initial=start,
            desc=what,
            unit="B" if unit == "bytes" else f" {unit}",
            unit_scale=unit == "bytes",
            leave=keep,
            delay=0 if keep else 0.1,
            disable=quiet or self._words,
        )

    def update(self, count: int = 1, **shown: str) -> None:
        """``count`` more are done; ``shown`` are values to put beside, such as ``loss="1.234"``."""
        self.count += count
        self._shown = ", ".join(f"{name} {value}" for name, value in shown.items()) or self._shown
        if shown:
            self._bar.set_postfix(shown, refresh=False)
        self._bar.update(count)
        if self._words and time.monotonic() >= self._due:
            self._due = time.monotonic() + SECONDS_BETWEEN_LINES
            print(self._line(), file=sys.stderr, flush=True)

    def _line(self) -> str:
        done = f"{self.count:,}"
        if self.total:
            done += f" of {self.total:,} {self.unit} ({self.count / self.total:.0%})"
        else:
            done += f" {self.unit}"
        return f"{self.what}: {done}" + (f", {self._shown}" if self._shown else "")

    def close(self) -> None:
        """Ends the bar's line."""
        self._bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def shows_bars() -> bool:
    """Whether stderr is a terminal or a notebook's."""
    return sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel")


def counted(items: Iterable[_T], what: str, unit: str = "rows") -> Iterator[_T]:
    """The items, with progress."""
    with Progress(what, unit=unit) as progress:
        for item in items:
            yield item
            progress.update()
