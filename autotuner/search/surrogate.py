"""A small Gaussian process over the points of a space, for searches of a few dozen trials.

Numbers only: rows of coordinates in, expected improvement out. The kernel is a sum over the
parameters plus a product of them (Duvenaud et al. 2011, arXiv:1112.4394), for most flags act on
throughput by a factor of their own and a few act together. Its parameters are not fitted, for
five answers fit anything: many are drawn and each counts as much as it explains the answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from autotuner.search.axes import Axis
from autotuner.study.space import Parameters

Array: TypeAlias = NDArray[np.float64]

DRAWS = 48
"""Kernels drawn from the prior."""

KEPT = 8
"""Of them, those that explain the answers best and are asked for a prediction."""

SHORTEST, LONGEST = 0.2, 3.0
"""Distance over which a parameter's effect is lost; the whole range of a parameter is 1."""

TEMPER = 0.5
"""Power of the likelihood by which a kernel counts: few answers should not make one sure of it."""

LEAST_NOISE, MOST_NOISE = 1e-6, 1e-3
"""Share of the variance that is noise."""


@dataclass(frozen=True)
class Layout:
    """Points as coordinates, parameter by parameter, for distances are taken by parameter."""

    axes: tuple[Axis, ...]

    def places(self, point: Parameters) -> tuple[list[float], ...]:
        """Per parameter: a place on a line of length 1 or a corner of its own, and whether the
        parameter is active where that depends."""
        return tuple(_coordinates(axis, point) for axis in self.axes)

    def rows(self, points: Sequence[Parameters]) -> list[Array]:
        """Per parameter the coordinates of every point, shape (points, 1 or more)."""
        return stacked([self.places(point) for point in points])


def stacked(places: Sequence[tuple[list[float], ...]]) -> list[Array]:
    return [np.array(column) for column in zip(*places, strict=True)]


def _coordinates(axis: Axis, point: Parameters) -> list[float]:
    present = axis.name in point
    if axis.ordered:
        low, high = axis.ends
        width = (high - low) or 1.0
        found = [(axis.place(point[axis.name]) - low) / width if present else 0.5]
    else:
        here = axis.place(point[axis.name]) if present else -1.0
        found = [float(index == here) * 0.5**0.5 for index in range(len(axis.listed))]
    return [*found, float(present)] if axis.parameter.when else found


def distances(one: list[Array], other: list[Array]) -> Array:
    """Shape (parameters, points of one, points of the other)."""
    return np.stack(
        [
            np.sqrt(((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=2))
            for a, b in zip(one, other, strict=True)
        ]
    )


@dataclass(frozen=True)
class Kernels:
    """Kernels drawn from the prior: length scales per parameter, share of the sum, noise."""

    scales: Array  # (draws, parameters)
    additive: Array  # (draws,)
    noise: Array  # (draws,)

    def between(self, distance: Array) -> Array:
        """Shape (draws, points, points): Matern 5/2, as a sum and as a product."""
        r = np.sqrt(5.0) * distance[None] / self.scales[:, :, None, None]
        each = (1.0 + r + r * r / 3.0) * np.exp(-r)
        share = self.additive[:, None, None]
        return np.asarray(share * each.mean(axis=1) + (1.0 - share) * each.prod(axis=1))

    def over(self, rows: list[Array]) -> Array:
        """Among the points themselves, with their noise."""
        matrix = self.between(distances(rows, rows))
        return matrix + self.noise[:, None, None] * np.eye(matrix.shape[1])

    def only(self, chosen: NDArray[np.intp]) -> Kernels:
        return Kernels(self.scales[chosen], self.additive[chosen], self.noise[chosen])


def drawn(parameters: int, rng: np.random.Generator) -> Kernels:
    def between(low: float, high: float, *shape: int) -> Array:
        return np.exp(rng.uniform(np.log(low), np.log(high), shape))

    return Kernels(
        between(SHORTEST, LONGEST, DRAWS, parameters),
        rng.uniform(0.0, 1.0, DRAWS),
        between(LEAST_NOISE, MOST_NOISE, DRAWS),
    )


class Surrogate:
    """What answers at some points say of others.

    Args:
        rows: the points answered, as by `Layout`.
        values: an answer per point.
        under_way: points whose answers are not known yet: the mean is assumed for them, which
            lowers the uncertainty around them. They are no evidence, neither for a kernel nor of
            how much answers vary.
    """

    def __init__(
        self,
        rows: list[Array],
        values: Array,
        draws: np.random.Generator,
        under_way: list[Array] | None = None,
    ) -> None:
        self._centre, self._spread = float(values.mean()), float(values.std()) or 1.0
        answers = (values - self._centre) / self._spread
        kernels = drawn(len(rows), draws)
        evidence, variance = explained(kernels.over(rows), answers)
        kept = np.argsort(-evidence, kind="stable")[:KEPT]
        self._weight = np.exp(TEMPER * (evidence[kept] - evidence[kept[0]]))
        self._kernels = kernels.only(kept)
        self._variance = variance[kept]
        if under_way is not None:
            rows = [np.concatenate(pair) for pair in zip(rows, under_way, strict=True)]
            answers = np.concatenate([answers, np.zeros(len(under_way[0]))])
        self._rows = rows
        # Inverses and einsum, for triangular solvers start threads, which small matrices and
        # a machine that is measuring something else are worse off with.
        self._whitening = np.linalg.inv(np.linalg.cholesky(self._kernels.over(rows)))
        white = np.einsum("kij,jc->kic", self._whitening, _with_ones(answers))
        self._ones = white[:, :, 1]
        self._weight_of_ones = (self._ones**2).sum(axis=1)
        self._mean = (white[:, :, 0] * self._ones).sum(axis=1) / self._weight_of_ones
        self._rest = white[:, :, 0] - self._mean[:, None] * self._ones

    def predict(self, rows: list[Array]) -> Prediction:
        cross = self._kernels.between(distances(self._rows, rows))
        white = np.einsum("kij,kjp->kip", self._whitening, cross)
        mean = self._mean[:, None] + np.einsum("ki,kip->kp", self._rest, white)
        variance = 1.0 - (white**2).sum(axis=1)
        # the mean is not known either
        unsure = 1.0 - np.einsum("ki,kip->kp", self._ones, white)
        variance = variance + unsure**2 / self._weight_of_ones[:, None]
        deviation = np.sqrt(self._variance[:, None] * np.maximum(variance, 1e-9))
        return Prediction(
            mean * self._spread + self._centre,
            deviation * self._spread,
            self._weight / self._weight.sum(),
        )


@dataclass(frozen=True)
class Prediction:
    """Mean and standard deviation per kernel and point, and how much each kernel counts."""

    mean: Array
    deviation: Array
    weight: Array

    def below(self, bound: float) -> Array:
        """Probability per point of a value at most `bound`."""
        return self._averaged(ndtr((bound - self.mean) / self.deviation))

    def shortfall(self, best: float) -> Array:
        """Expected improvement: by how much a point will fall short of `best`."""
        z = (best - self.mean) / self.deviation
        density = np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi)
        return self._averaged(self.deviation * (z * ndtr(z) + density))

    def _averaged(self, values: Array) -> Array:
        return np.asarray(np.einsum("k,kp->p", self.weight, values))


class Explained(NamedTuple):
    """Per kernel the logarithm of its marginal likelihood, but for a constant that all share, and
    the variance it gives the process."""

    evidence: Array
    variance: Array


def explained(matrices: Array, answers: Array) -> Explained:
    """How well each kernel's matrix explains the answers, mean and variance integrated out.

    The mean has a flat prior, which leaves n - 1 of n answers to tell the variance (Rasmussen and
    Williams 2006, eq. 2.45; Berger, De Oliveira and Sanso 2001, J. Am. Stat. Assoc. 96, 1361).
    The variance has an inverse gamma prior that counts as one observation of 1, which keeps few
    answers from looking exact; returned is the harmonic mean of what it may be.
    """
    lower = np.linalg.cholesky(matrices)
    white = np.einsum("kij,jc->kic", np.linalg.inv(lower), _with_ones(answers))
    products = np.einsum("kia,kib->kab", white, white)
    squares = products[:, 0, 0] - products[:, 0, 1] ** 2 / products[:, 1, 1]
    squares = np.maximum(squares, 0.0) + 1.0
    determinant = 2.0 * np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(axis=1)
    observations = len(answers)  # n - 1, and that of the prior
    evidence = -0.5 * (determinant + np.log(products[:, 1, 1]) + observations * np.log(squares))
    return Explained(np.asarray(evidence), np.asarray(squares / observations))


def _with_ones(answers: Array) -> Array:
    return np.stack([answers, np.ones(len(answers))], axis=1)
