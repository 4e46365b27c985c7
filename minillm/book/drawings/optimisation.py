"""A gradient on its way back, optimizers in a valley, a matrix before and after Muon."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from minillm.book.canvas import COLOURS, GREY, WIDTH, Canvas, Picture, drawn

_FORWARD = COLOURS["pretrain"]
_BACKWARD = COLOURS["bad"]
_Floats = npt.NDArray[np.float64]


def _short(value: float) -> str:
    """Three decimals at most, with a true minus sign."""
    text = f"{value:.3f}".rstrip("0").rstrip(".")
    return ("0" if text == "-0" else text).replace("-", "−")


def backward_graph(
    x: float, w: float, u: Sequence[float], names: Sequence[str], correct: int
) -> Picture:
    """One neuron, h = w x, that scores each token by z = u h, and the cross-entropy of their
    softmax: the values of the forward pass above, the gradients of the backward pass below.

    Args:
        x: the input.
        w: the neuron's weight.
        u: a weight for each token.
        names: of the tokens.
        correct: number of the token that comes next.
    """
    if len(u) != len(names) or not 0 <= correct < len(u):
        raise ValueError(f"{len(u)} weights, {len(names)} tokens, the correct one number {correct}")
    h = w * x
    z = [weight * h for weight in u]
    total = sum(math.exp(score) for score in z)
    p = [math.exp(score) / total for score in z]
    dz = [share - (i == correct) for i, share in enumerate(p)]
    dh = sum(weight * d for weight, d in zip(u, dz, strict=True))

    gap = 1.36
    canvas = Canvas(5.7, gap * len(u) + 0.45)
    middle = gap * len(u) / 2 + 0.14

    def quantity(at: float, y: float, name: str, value: float, gradient: float | None) -> None:
        canvas.text(at, y, name, size=11)
        canvas.text(at, y - 0.2, _short(value), _FORWARD, 11)
        if gradient is not None:
            canvas.text(at, y + 0.2, _short(gradient), _BACKWARD, 11)

    def product(at: float, y: float, name: str, weight: float, gradient: float) -> None:
        canvas.circle(at, y, 0.17, "×")
        quantity(at, y - 0.74, name, weight, gradient)
        canvas.arrow((at, y - 0.42), (at, y - 0.18))

    quantity(0.25, middle, "x", x, None)
    canvas.arrow((0.42, middle), (0.79, middle))
    product(1.0, middle, "w", w, dh * x)
    canvas.arrow((1.21, middle), (1.62, middle))
    quantity(1.85, middle, "h", h, dh)
    for i, name in enumerate(names):
        y = gap * i + middle - gap * (len(u) - 1) / 2
        canvas.arrow((2.18, middle + 0.1 * (y - middle)), (2.98, y))
        number = "₁₂₃₄₅₆₇₈₉"[i]
        product(3.18, y, f"u{number}", u[i], dz[i] * h)
        canvas.arrow((3.39, y), (3.8, y))
        quantity(4.05, y, f"z{number}", z[i], dz[i])
        canvas.text(4.05, y - 0.42, name, size=11)
        canvas.arrow((4.26, y), (4.66, middle + 0.6 * (y - middle)))
    tall = 0.72 * gap * len(u)
    canvas.box(4.72, middle - tall / 2, 0.93, tall, fill=0.08)
    canvas.text(5.18, middle - 0.62, "softmax", size=10)
    canvas.text(5.18, middle - 0.32, "交叉熵", size=10)
    quantity(5.18, middle + 0.25, "L", -math.log(p[correct]), 1.0)
    foot = gap * len(u) + 0.26
    canvas.text(1.35, foot, "蓝：前向的值，从左往右", _FORWARD, 11)
    canvas.text(4.1, foot, "橙：L 对它的导数，从右往左", _BACKWARD, 11)
    told = "；".join(
        f"{name}：分数 {_short(z[i])}，概率 {_short(p[i])}，分数的梯度 {_short(dz[i])}，"
        f"u 的梯度 {_short(dz[i] * h)}"
        for i, name in enumerate(names)
    )
    return canvas.picture(
        f"x 是 {_short(x)}，w 是 {_short(w)}，h 是 {_short(h)}；{told}；正确的是{names[correct]}，"
        f"损失 {_short(-math.log(p[correct]))}；h 的梯度 {_short(dh)}，w 的梯度 {_short(dh * x)}"
    )


@drawn
def descents(
    panels: Mapping[str, tuple[Sequence[Sequence[float]], Sequence[Sequence[float]]]],
) -> Picture:
    """Walks to the bottom of valleys seen from above, ½ wᵀ A w over two weights, in panels, two to
    a row: contours, a ring at the start, a dot for each step, a cross at the bottom.

    Args:
        panels: title → (A ``[2, 2]``, positive definite; the walk ``[steps + 1, 2]``).
    """
    rows = math.ceil(len(panels) / 2)
    walks: dict[str, tuple[_Floats, _Floats]] = {
        title: (np.asarray(a, dtype=float), np.asarray(walk, dtype=float))
        for title, (a, walk) in panels.items()
    }
    for title, (a, _) in walks.items():
        if not (np.allclose(a, a.T) and np.linalg.eigvalsh(a).min() > 0):
            raise ValueError(f"{title}: a valley's matrix is symmetric and positive definite")
    every = np.concatenate([walk for _, walk in walks.values()])
    far = np.abs(every).max(axis=0) * 1.15
    ratio = min(1.0, max(far[1] / far[0], 0.4))
    figure = Figure(figsize=(WIDTH, rows * (0.5 * WIDTH * ratio + 0.35)), layout="constrained")
    told = []
    for i, (title, (a, walk)) in enumerate(walks.items()):
        axes = figure.add_subplot(rows, 2, i + 1)
        _valley(axes, a, far[0], max(far[1], ratio * far[0]))
        axes.plot(*walk.T, "o-", color=_FORWARD, markersize=2.5, linewidth=1.2)
        axes.plot(*walk[0], "o", color=_BACKWARD, markersize=9, mfc="none", mew=1.8)
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("权重 1" if i + 2 >= len(walks) else "")
        axes.set_ylabel("" if i % 2 else "权重 2")
        losses = 0.5 * np.einsum("si,ij,sj->s", walk, a, walk)
        told.append(
            f"{title}：走 {len(walk) - 1} 步，损失从 {losses[0]:.3g} 到 {losses[-1]:.2g}，"
            f"停在（{_short(round(walk[-1, 0], 2))}，{_short(round(walk[-1, 1], 2))}）"
        )
    return Picture(figure, "；".join(told))


def _valley(axes: Axes, a: _Floats, width: float, height: float) -> None:
    """Contours of ½ wᵀ A w around its bottom, each twice as high as the one inside it."""
    xs, ys = np.linspace(-width, width, 161), np.linspace(-height, height, 161)
    x, y = np.meshgrid(xs, ys)
    heights = 0.5 * (a[0, 0] * x * x + 2 * a[0, 1] * x * y + a[1, 1] * y * y)
    levels = heights.max() / 2.0 ** np.arange(9, 0, -1)
    axes.contour(xs, ys, heights, levels, colors=GREY, linewidths=0.7, alpha=0.6)
    axes.plot(0, 0, "+", color=GREY, markersize=9, mew=1.5)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])


@drawn
def equalized_axes(gradient: Sequence[Sequence[float]]) -> Picture:
    """What a matrix, divided by its length, makes of the unit circle: an ellipse whose half axes
    are its singular values; beside it the circle that is left when Muon makes them all 1.

    Args:
        gradient: ``[2, 2]``, invertible.
    """
    matrix = np.asarray(gradient, dtype=float)
    u, s, _ = np.linalg.svd(matrix / np.linalg.norm(matrix))
    if s[1] < 1e-6:
        raise ValueError("the gradient has only one direction: there is no ellipse to draw")
    u = u * np.where(u[np.abs(u).argmax(axis=0), [0, 1]] > 0, 1, -1)  # axes that point up or right
    angles = np.linspace(0, 2 * math.pi, 200)
    circle = np.stack([np.cos(angles), np.sin(angles)])
    figure = Figure(figsize=(5.6, 3.1), layout="constrained")
    told = []
    for i, (title, sizes) in enumerate({"梯度": s, "Muon 的步子": np.ones(2)}.items()):
        axes = figure.add_subplot(1, 2, i + 1)
        axes.plot(*circle, "--", color=GREY, linewidth=1)
        axes.plot(*(u @ np.diag(sizes) @ u.T @ circle), color=_FORWARD)
        for axis, size, colour in zip(u.T, sizes, (_BACKWARD, COLOURS["sft"]), strict=True):
            axes.plot(*np.stack([np.zeros(2), size * axis]).T, color=colour)
            x, y = (1.32 * axis).tolist()
            axes.text(x, y, f"{size:.2f}", color=colour, fontsize=11, ha="center")
        axes.set_xlim(-1.6, 1.6)
        axes.set_ylim(-1.2, 1.4)
        axes.set_aspect("equal")
        axes.set_axis_off()
        axes.set_title(title, fontsize=11)
        told.append(f"{title}：半轴长 {sizes[0]:.2f} 和 {sizes[1]:.2f}")
    return Picture(figure, "；".join(told))


@drawn
def copying_courses(
    steps: Sequence[int],
    losses: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    shares: Mapping[str, Sequence[float]],
) -> Picture:
    """How copying came, by training step (logarithmic): on the left the loss where something stands
    for the first time (dashed) and where it is repeated; on the right the attention that the best
    head pays to the place to copy from.

    Args:
        losses: kind of text → (first, repeated), each with a value for every step.
        shares: the same kinds → a share for every step.
    """
    if set(shares) != set(losses):
        raise ValueError("losses and shares are of other kinds of text")
    figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
    left, right = (figure.add_subplot(1, 2, i) for i in (1, 2))
    colours = (COLOURS["pretrain"], COLOURS["bad"], COLOURS["sft"])
    told = []
    for (kind, (first, again)), colour in zip(losses.items(), colours, strict=False):
        left.plot(steps, first, "--", color=colour, linewidth=1.2)
        left.plot(steps, again, "o-", color=colour, markersize=4, label=kind)
        right.plot(steps, shares[kind], "o-", color=colour, markersize=4, label=kind)
        courses = [f"{values[0]:.2f} 到 {values[-1]:.2f}" for values in (first, again)]
        best = f"{shares[kind][0]:.2f} 到 {shares[kind][-1]:.2f}"
        told.append(f"{kind}：第一遍的损失从 {courses[0]}，第二遍从 {courses[1]}，注意力从 {best}")
    for axes, title in ((left, "损失（奈特）"), (right, "最会看的头，给该抄处的注意力")):
        axes.set_xscale("log")
        axes.set_xticks(steps, [str(step) for step in steps], rotation=45)
        axes.minorticks_off()
        axes.set_xlabel("步数")
        axes.set_title(title, fontsize=11)
        axes.set_ylim(bottom=0)
    left.plot([], [], "--", color=GREY, linewidth=1.2, label="虚线：第一遍")
    left.legend(fontsize=10)
    return Picture(figure, "；".join(told))
