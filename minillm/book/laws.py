"""Scaling laws: what a ladder of small training runs says of a larger one.

A *run* is a row of ``book/results/scaling.json``; what is read of it here: ``kind``,
``non_embedding`` and ``embedding`` (parameters), ``tokens`` (positions trained on, each once),
``val_loss`` (nats per token on held-out text). Only runs of the kind ``ladder`` are ever fitted, so
that the outcome of a test never leaks into its prediction.

The law is the one of Hoffmann et al. 2022 (arXiv:2203.15556, approach 3)::

    L(N, D) = E + A / N**alpha + B / D**beta

N: parameters, D: training tokens; E: what no model of any size would get below. They minimised a
Huber loss with L-BFGS from many starts; Besiroglu et al. 2024 (arXiv:2404.10102) found that this
had stopped too early. Given both exponents the law is linear in E, A and B. So here every pair of
exponents on a grid is tried, and the three others are solved for, none of them below 0: there are
no starts and nothing that could stop early, and all resampled fits of an interval share their
matrices.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from minillm.errors import UserError

Floats = npt.NDArray[np.float64]
ScalingRun = Mapping[str, Any]
Counting = Literal["blocks", "total", "untied"]
"""What counts as N.

* ``blocks``: without the embedding table, as Kaplan et al. 2020 (arXiv:2001.08361) count.
* ``total``: all parameters; a table that is tied to the output matrix counts once. These are also
  the numbers that a token is multiplied by: looking up a row multiplies nothing, scoring all rows
  does. So 6ND is the compute under this count, and only under this one.
* ``untied``: input table and output matrix, as if each were one of its own.
"""
COUNTS: tuple[Counting, ...] = ("blocks", "total", "untied")
_TABLES: dict[Counting, int] = {"blocks": 0, "total": 1, "untied": 2}

EXPONENTS: Floats = np.arange(0.10, 1.201, 0.02).round(2)
"""Those that are tried first. Published ones lie between 0.28 and 0.37."""
_FINE: Floats = np.arange(-0.02, 0.0201, 0.002).round(3)
"""Around the best of them."""
PARAMETERS = 5
"""Of the law: E, A, B, alpha, beta."""
INTERVAL = 0.9
"""An interval is to hold the outcome this often."""


@dataclass(frozen=True)
class Law:
    """L(N, D) = E + A / N**alpha + B / D**beta, in nats per token."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float
    count: Counting = "total"
    """What N is."""
    spread: float = 0.0
    """Standard deviation of the runs around the law, as a share of the loss."""

    def loss(self, n: float, d: float) -> float:
        """Of ``n`` parameters (counted as ``count`` says) after ``d`` tokens, each seen once."""
        return float(self.E + self.A / n**self.alpha + self.B / d**self.beta)

    def optimum(self, flops: float) -> tuple[float, float]:
        """(N, D) of the lowest loss for 6ND = ``flops``.

        Where the derivative of L(N, flops / 6N) vanishes: N = G (flops / 6)**(beta / (alpha +
        beta)), G = (alpha A / beta B)**(1 / (alpha + beta)).

        Raises:
            UserError: A or B is 0, so that there is no optimum.
        """
        self._must_have_optimum()
        both = self.alpha + self.beta
        ratio = (self.alpha * self.A / (self.beta * self.B)) ** (1 / both)
        n = ratio * (flops / 6) ** (self.beta / both)
        return n, flops / (6 * n)

    def tokens_for(self, n: float) -> float:
        """The D with which ``n`` is the best size: where ``optimum`` of their compute is (n, D).

        Raises:
            UserError: A or B is 0, so that there is no optimum.
        """
        self._must_have_optimum()
        share = self.beta * self.B * n**self.alpha / (self.alpha * self.A)
        return float(share ** (1 / self.beta))

    def _must_have_optimum(self) -> None:
        if not self.A or not self.B:
            raise UserError(
                "this law knows no best size: its runs show no gain from more "
                + ("parameters" if not self.A else "tokens")
            )

    @property
    def growth(self) -> float:
        """The exponent a of N = G (C / 6)**a: how the best size grows with the compute."""
        return self.beta / (self.alpha + self.beta)

    @property
    def at_bound(self) -> tuple[str, ...]:
        """Names of what lies at the end of its range: the runs do not determine it."""
        ends = (EXPONENTS[0], EXPONENTS[-1])
        found = [
            name
            for name in ("alpha", "beta")
            if any(math.isclose(getattr(self, name), end) for end in ends)
        ]
        return (*found, *(name for name in ("E", "A", "B") if not getattr(self, name)))


def ladder_runs(runs: Sequence[ScalingRun]) -> list[ScalingRun]:
    """Those that a law is fitted to."""
    return [run for run in runs if run["kind"] == "ladder"]


def count_parameters(run: ScalingRun, count: Counting) -> int:
    """N of a run."""
    return int(run["non_embedding"]) + _TABLES[count] * int(run["embedding"])


def compute(run: ScalingRun) -> int:
    """6ND of a run, in floating-point operations: N with the output matrix, without the scores of
    the attention."""
    return 6 * count_parameters(run, "total") * int(run["tokens"])


def budgets(runs: Sequence[ScalingRun]) -> list[list[ScalingRun]]:
    """The ladder's runs in groups of about the same compute, the smallest first; in each group the
    smallest model first. A new group begins where the compute grows by more than half."""
    groups: list[list[ScalingRun]] = []
    last = 0.0
    for run in sorted(ladder_runs(runs), key=compute):
        if not groups or compute(run) > 1.5 * last:
            groups.append([])
        groups[-1].append(run)
        last = compute(run)
    return [sorted(group, key=lambda run: count_parameters(run, "total")) for group in groups]


def valley(group: Sequence[ScalingRun], count: Counting = "total") -> tuple[float, float]:
    """(N, D) of the lowest loss that one budget allows: where the parabola through its runs' losses
    over log N is lowest, D in between those of its neighbours. Hoffmann et al. call it approach 2.

    Raises:
        UserError: the parabola has no lowest point among the sizes that were tried.
    """
    runs = sorted(group, key=lambda run: count_parameters(run, count))
    n = np.log([count_parameters(run, count) for run in runs])
    d = np.log([float(run["tokens"]) for run in runs])
    bend = np.polyfit(n, [run["val_loss"] for run in runs], 2)
    lowest = -bend[1] / (2 * bend[0])
    if bend[0] <= 0 or not n[0] < lowest < n[-1]:
        raise UserError("the best size is not among those that were tried: try others")
    return float(np.exp(lowest)), float(np.exp(np.interp(lowest, n, d)))


# --- The fit --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fits:
    """The best law for each of R lists of losses: arrays ``[R]``, coefficients ``[R, 3]``."""

    coefficients: Floats
    alpha: Floats
    beta: Floats
    residue: Floats
    """Sum of the squared relative residuals."""

    def losses(self, n: float, d: float) -> Floats:
        powers = np.stack([np.ones_like(self.alpha), n**-self.alpha, d**-self.beta], 1)
        return np.asarray((self.coefficients * powers).sum(1))


def _solve(
    n: Floats, d: Floats, losses: Floats, weights: Floats, alphas: Floats, betas: Floats
) -> _Fits:
    """Least squares of (law - loss) * weight over every pair of exponents and every choice of which
    coefficients are above 0.

    Args:
        n, d, weights: ``[P]``, of each run; n and d best near 1.
        losses: ``[R, P]``.
        alphas, betas: those that are tried, G pairs of them.
    """
    a, b = (grid.ravel() for grid in np.meshgrid(alphas, betas, indexing="ij"))  # [G]
    columns = np.stack(
        [np.ones((len(a), len(n))), n ** -a[:, None], d ** -b[:, None]], -1
    )  # [G, P, 3]
    columns *= weights[:, None]
    targets = losses * weights
    best = np.full(len(losses), np.inf)
    place = np.zeros(len(losses), int)
    coefficients = np.zeros((len(losses), 3))
    for chosen in (list(c) for k in (3, 2, 1) for c in itertools.combinations(range(3), k)):
        q, r = np.linalg.qr(columns[:, :, chosen])  # [G, P, k], [G, k, k]
        projected = q.swapaxes(1, 2) @ targets.T  # [G, k, R]
        found = np.linalg.solve(r, projected)
        residue = (targets**2).sum(1) - (projected**2).sum(1)  # [G, R]
        residue[(found < 0).any(1)] = np.inf
        least = residue.argmin(0)
        rows = np.arange(len(losses))
        better = residue[least, rows] < best
        best[better] = residue[least, rows][better]
        place[better] = least[better]
        coefficients[better] = 0.0
        coefficients[np.ix_(better, chosen)] = found[least, :, rows][better]
    return _Fits(coefficients, a[place], b[place], np.maximum(best, 0.0))


@dataclass(frozen=True)
class _Data:
    """A ladder under one count, N and D as multiples of their geometric means: powers of millions
    would all be small."""

    n: Floats
    d: Floats
    loss: Floats
    n_unit: float
    d_unit: float

    @staticmethod
    def of(runs: Sequence[ScalingRun], count: Counting) -> _Data:
        runs = ladder_runs(runs)
        if len(runs) <= PARAMETERS:
            raise UserError(
                f"{len(runs)} runs of the kind 'ladder': a law of {PARAMETERS} numbers needs at "
                f"least {PARAMETERS + 1}"
            )
        n = np.array([count_parameters(run, count) for run in runs], float)
        d = np.array([run["tokens"] for run in runs], float)
        loss = np.array([run["val_loss"] for run in runs], float)
        if not (np.isfinite(loss) & (loss > 0) & (n > 0) & (d > 0)).all():
            raise UserError("every run of a ladder needs parameters, tokens and a loss above 0")
        units = (float(np.exp(np.log(values).mean())) for values in (n, d))
        n_unit, d_unit = units
        return _Data(n / n_unit, d / d_unit, loss, n_unit, d_unit)

    def fits(self, losses: Floats, alphas: Floats = EXPONENTS, betas: Floats = EXPONENTS) -> _Fits:
        """Squares count relative to the measured loss: nearly the squares of logarithms."""
        return _solve(self.n, self.d, losses, 1 / self.loss, alphas, betas)


def fit_law(runs: Sequence[ScalingRun], count: Counting = "total") -> Law:
    """The law of a ladder.

    Raises:
        UserError: there are too few runs, or one has no loss.
    """
    data = _Data.of(runs, count)
    coarse = data.fits(data.loss[None])
    alphas, betas = (
        np.clip(best + _FINE, EXPONENTS[0], EXPONENTS[-1]) for best in (coarse.alpha, coarse.beta)
    )
    found = data.fits(data.loss[None], alphas, betas)
    alpha, beta = float(found.alpha[0]), float(found.beta[0])
    e, a, b = found.coefficients[0].tolist()
    return Law(
        e,
        a * data.n_unit**alpha,
        b * data.d_unit**beta,
        alpha,
        beta,
        count,
        math.sqrt(float(found.residue[0]) / (len(data.loss) - PARAMETERS)),
    )


# --- Predictions ----------------------------------------------------------------------------------


def _refits(data: _Data, law: Law, draws: int, rng: np.random.Generator) -> _Fits:
    """Laws of ladders that might as well have been: the fitted losses, each with the residual of a
    run drawn at random. The residuals are made wider first, since a law of five numbers comes
    nearer to its own runs than to others."""
    fitted = np.array(
        [law.loss(n * data.n_unit, d * data.d_unit) for n, d in zip(data.n, data.d, strict=True)]
    )
    residuals = (data.loss - fitted) / fitted
    residuals *= math.sqrt(len(residuals) / (len(residuals) - PARAMETERS))
    drawn = rng.choice(residuals, (draws, len(residuals)))
    return data.fits(fitted * (1 + drawn))


def held_out_errors(runs: Sequence[ScalingRun], count: Counting = "total") -> list[float]:
    """How wrong the law is where it can be checked already: fitted without the largest budget, it
    predicts the runs of that one. (law - loss) / loss of each; none where the lower budgets are
    too few to be fitted."""
    *lower, top = budgets(runs)
    if sum(map(len, lower)) <= PARAMETERS:
        return []
    law = fit_law([run for group in lower for run in group], count)
    return [
        law.loss(count_parameters(run, count), run["tokens"]) / run["val_loss"] - 1 for run in top
    ]


def predict(
    runs: Sequence[ScalingRun],
    n: float,
    d: float,
    count: Counting = "total",
    seed: int = 0,
    draws: int = 400,
) -> tuple[float, float, float]:
    """The loss of one further run, as (the law's, the interval's low end, its high end).

    **The rule of the book's prediction, chosen before the outcome was known**: the law of N and D
    under ``total``. Not a curve of the loss against the compute along the best sizes: the ladder
    has three budgets, which such a curve with three numbers meets exactly, so that nothing is left
    to tell how far it errs; and the run that tests it need not have the best size. And ``total``,
    since only this count times 6D is the compute.

    **The interval** is to hold the outcome in ``INTERVAL`` of all cases. It adds up two kinds of
    doubt: about the law (it is fitted again to resampled residuals), and about the run (normal,
    with the larger of two standard deviations: that of the ladder's runs around the law, and the
    root mean square of ``held_out_errors``, which also shows where the law itself does not hold).
    It does not know of what only happens outside the ladder, such as a learning rate that no longer
    suits.

    Args:
        n: parameters, counted as ``count`` says.
        d: training tokens, each seen once. With both infinite it is E that is predicted.
    """
    data, law = _Data.of(runs, count), fit_law(runs, count)
    rng = np.random.default_rng(seed)
    refits = _refits(data, law, draws, rng).losses(n / data.n_unit, d / data.d_unit)
    errors = held_out_errors(runs, count)
    missed = math.sqrt(math.fsum(e * e for e in errors) / len(errors)) if errors else 0.0
    outcomes = refits * (1 + max(law.spread, missed) * rng.standard_normal(draws))
    low, high = np.quantile(outcomes, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2]).tolist()
    return law.loss(n, d), low, high


def elsewhere(
    forecast: tuple[float, float, float], law: Law, few: Sequence[ScalingRun]
) -> tuple[float, float, float]:
    """What a forecast on one text becomes on another, of which there are only a few small runs: the
    law keeps its shape, and they say how much higher it lies.

    All losses are multiplied by the geometric mean of the runs' losses, each divided by the law's
    at the same N and D. The interval grows by how far these ratios differ: its ends are multiplied
    by the least and by the greatest of them.

    Args:
        forecast: (loss, low, high), as of ``predict``.
        law: what ``few`` is compared with; its ``count`` is what N is.

    Raises:
        UserError: there is no run.
    """
    if not few:
        raise UserError("a forecast for another text needs at least one run on it")
    ratios = [
        run["val_loss"] / law.loss(count_parameters(run, law.count), run["tokens"]) for run in few
    ]
    middle = math.exp(math.fsum(map(math.log, ratios)) / len(ratios))
    loss, low, high = forecast
    return loss * middle, low * min(ratios), high * max(ratios)
