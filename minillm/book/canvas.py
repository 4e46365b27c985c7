"""The style of the book's figures, and a sheet to draw mechanisms on.

Figures are PNG with a transparent background, in colours that can be told apart by the colour-blind
(Okabe & Ito 2008, and a violet) and read on white and on black. The same colour means the same
thing everywhere: see ``COLOURS``. Labels are Chinese: what matplotlib's own font lacks is drawn in
Noto Sans SC (SIL Open Font License), which a package of its own holds, so that no machine needs to
have it.

Curves and bars are in ``show``; the drawings of mechanisms in ``drawings``, a module for each part
of the book.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Literal, ParamSpec

import pylopdf_fonts_zh_cn
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle

P = ParamSpec("P")

GREY = "#808080"
COLOURS = {
    "fresh": GREY,
    "pretrain": "#0072B2",
    "sft": "#009E73",
    "dpo": "#E69F00",
    "identity": "#CC79A7",
    "bad": "#D55E00",
    "other": "#56B4E9",
    "grpo": "#8C32E6",
}
"""By stage; ``bad``: what goes wrong; ``other``: a comparison. Untrained is grey."""
WIDTH = 6.5
"""Of a figure, in inches; a page 1,280 pixels wide shows it at about 700."""
_CHINESE = pylopdf_fonts_zh_cn.sans_path()
fontManager.addfont(_CHINESE)
# It has one weight: a warning in the output of each bold label would tell the reader nothing.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
_STYLE: Any = {
    "font.family": ["DejaVu Sans", FontProperties(fname=_CHINESE).get_name()],
    "font.size": 10,
    "text.color": GREY,
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "axes.titlecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


class Picture:
    """A figure that notebooks show by itself, as the same bytes on every run.

    Args:
        data: in words, the figures that it shows. The page adds them to the alt text, which is
            typed into the cell and therefore knows none.
    """

    def __init__(self, figure: Figure, data: str) -> None:
        self.figure = figure
        self.data = data

    def _repr_png_(self) -> tuple[bytes, dict[str, str]]:
        with rc_context(_STYLE):
            buffer = io.BytesIO()
            self.figure.savefig(
                buffer, dpi=160, transparent=True, bbox_inches="tight", metadata={"Software": None}
            )
        return buffer.getvalue(), {"alt": self.data}

    def __repr__(self) -> str:
        return f"<figure: {self.data}>"


def drawn(draw: Callable[P, Picture]) -> Callable[P, Picture]:
    """Runs a drawing function in the book's style."""

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Picture:
        with rc_context(_STYLE):
            return draw(*args, **kwargs)

    return styled


class Canvas:
    """A sheet for boxes, cells, arrows and text, measured in inches from its upper left corner; y
    grows downwards.

    A phone shows a sheet of ``WIDTH`` at about half its size, so text below 10 points is for what
    need not be read there. A narrower sheet is shown larger: its text stays readable.
    """

    def __init__(self, width: float, height: float) -> None:
        with rc_context(_STYLE):
            self._figure = Figure(figsize=(width, height))
            self._axes = self._figure.add_axes((0, 0, 1, 1))
        self._axes.set_axis_off()
        self._axes.set_xlim(0, width)
        self._axes.set_ylim(height, 0)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        colour: str = GREY,
        size: float = 10,
        align: Literal["left", "center", "right"] = "center",
    ) -> None:
        """Text whose middle (or whose left or right end) lies at the point."""
        with rc_context(_STYLE):
            self._axes.text(x, y, text, color=colour, fontsize=size, ha=align, va="center")

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        text: str = "",
        colour: str = GREY,
        fill: float = 0.15,
        size: float = 10,
        square: bool = False,
    ) -> None:
        """A box with its upper left corner at the point, and text in its middle.

        Args:
            fill: how strongly it is filled with its colour, from 0 to 1; text in it can be read up
                to some 0.5.
            square: with sharp corners and a thin edge, as a cell of a table has.
        """
        shape: Any = Rectangle if square else FancyBboxPatch
        rounded = {} if square else {"boxstyle": "round,pad=0,rounding_size=0.06"}
        for alpha, edge in ((fill, "none"), (1.0, colour)):
            face = colour if edge == "none" else "none"
            line = 0.8 if square else 1.4
            patch = shape((x, y), width, height, fc=face, ec=edge, alpha=alpha, lw=line, **rounded)
            self._axes.add_patch(patch)
        if text:
            self.text(x + width / 2, y + height / 2, text, colour, size)

    def cells(
        self,
        x: float,
        y: float,
        texts: Sequence[str],
        colours: Sequence[str] | None = None,
        width: float = 0.5,
        height: float = 0.34,
        fill: float | Sequence[float] = 0.2,
        size: float = 10,
    ) -> None:
        """A row of cells side by side, the first with its upper left corner at the point."""
        for i, text in enumerate(texts):
            colour = colours[i] if colours else GREY
            strength = fill if isinstance(fill, int | float) else fill[i]
            at = x + i * width
            self.box(at, y, width, height, text, colour, strength, size, square=True)

    def circle(
        self, x: float, y: float, radius: float, text: str = "", colour: str = GREY, fill: float = 0
    ) -> None:
        """A circle around the point, with text in its middle."""
        for alpha, edge in ((fill, "none"), (1.0, colour)):
            face = colour if edge == "none" else "none"
            patch = Circle((x, y), radius, fc=face, ec=edge, alpha=alpha, lw=1.4)
            self._axes.add_patch(patch)
        if text:
            self.text(x, y, text, colour)

    def line(
        self, points: Sequence[tuple[float, float]], colour: str = GREY, width: float = 1.2
    ) -> None:
        """A line through the points."""
        xs, ys = zip(*points, strict=True)
        self._axes.plot(xs, ys, color=colour, linewidth=width)

    def arrow(
        self,
        start: tuple[float, float],
        end: tuple[float, float],
        colour: str = GREY,
        bend: float = 0.0,
        width: float = 1.2,
    ) -> None:
        """An arrow from one point to another.

        Args:
            bend: 0 for a straight one; the height of the arc as a share of the distance, positive
                to the right of the way.
        """
        arc = f"arc3,rad={bend}"
        style = "-|>,head_length=5,head_width=2.5"
        options: Any = {"arrowstyle": style, "connectionstyle": arc, "color": colour, "lw": width}
        self._axes.add_patch(FancyArrowPatch(start, end, shrinkA=0, shrinkB=0, **options))

    def picture(self, data: str) -> Picture:
        """The sheet as the notebook shows it; ``data``: what it says, in words."""
        return Picture(self._figure, data)
