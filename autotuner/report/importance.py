"""How much each parameter matters to the first objective: its share in the spread over the trials.

Optuna offers three such measures. Two need scikit-learn, and the third (PED-ANOVA) says what tells
the best tenth from the rest, which is one or two trials here, and leaves conditional parameters
out. So this is one of our own, for few trials and any parameters.

How much of the spread a set S of parameters explains, v(S), is measured by prediction: each trial
is predicted from all others by kernel ridge regression on S alone, and

    v(S) = 1 - sum of squared errors / sum of squared errors of the others' mean     (at least 0)

so that what is noise explains nothing, however many values it has. Errors without refitting are
those of Hastie, Tibshirani & Friedman, The Elements of Statistical Learning, 2nd ed., eq. 7.64.
A parameter's share is the mean of what it explains alone and what is lost without it:

    share(j) = (v({j}) + v(all) - v(all but j)) / 2,     scaled to v(all) together

which is Shapley's value where parameters interact in pairs at most (Grabisch 1997, 2-additive
games). What is missing to 1 no parameter explains. Nothing is said where the same values, shuffled
among the trials, are as a rule explained as well: from every 20th study of pure noise one could
otherwise learn something.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from autotuner.study.space import Choice, Parameter, Parameters, Value, identity
from autotuner.study.spec import StudySpec
from autotuner.study.trial import Trial, TrialState

if TYPE_CHECKING:
    import numpy

    Matrix: TypeAlias = numpy.ndarray[Any, numpy.dtype[numpy.float64]]

FEWEST = 8
"""Trials, at least, whatever the number of parameters."""

LARGEST = 128
"""Trials that are looked at, the last ones: with more, matrices are large enough for threads, which
cost seconds on a busy machine."""

WIDTHS = (0.5, 1.0, 2.0)
"""How far neighbours reach; a parameter's whole range is 1, and so is another category."""

SHUFFLES = 39
"""The values as they are must be explained better than 19 of 20 of these."""

SEED = 0

RIDGES = (0.1, 1.0)
"""Noise to signal: how much of a difference between twins is believed to be chance."""


def trials_needed(spec: StudySpec) -> int:
    """Complete trials of the search, at least, before anything is said."""
    varied = sum(parameter.domain.size != 1 for parameter in spec.parameter_space.parameters)
    return max(FEWEST, 2 * varied + 2)


def importance(spec: StudySpec, trials: Sequence[Trial]) -> dict[str, float]:
    """Parameter -> share (0 to 1) in the spread of the first objective, the largest first.

    Of complete trials of the search, without the baseline, whose parameters are the engine's
    secret. Empty where there are fewer than `trials_needed`, or where nothing is told from noise;
    parameters that took one value only are left out.
    """
    told = [each for each in trials if _value(spec, each) is not None][-LARGEST:]
    if len(told) < trials_needed(spec):
        return {}
    points = [trial.parameters for trial in told]
    values = _spread([value for each in told if (value := _value(spec, each)) is not None])
    varied = [p for p in spec.parameter_space.parameters if _varies(p, points)]
    if not varied or max(values) == min(values):
        return {}
    shares = _shares([_distances(parameter, points) for parameter in varied], values)
    if shares is None:
        return {}
    found = {parameter.name: share for parameter, share in zip(varied, shares, strict=True)}
    return dict(sorted(found.items(), key=lambda each: -each[1]))


def _value(spec: StudySpec, trial: Trial) -> float | None:
    if trial.state is not TrialState.COMPLETE or trial.is_baseline or not trial.searched:
        return None
    return trial.objectives.get(spec.objectives[0])


def _spread(values: Sequence[float]) -> list[float]:
    """Logarithms where they exist: gains are relative, and one slow trial is not to hide all."""
    return [math.log(value) for value in values] if min(values) > 0 else list(values)


def _varies(parameter: Parameter, points: Sequence[Parameters]) -> bool:
    """Whether trials differ in it. One that is not active everywhere is told by its condition;
    it varies where it is."""
    seen = {identity(point[parameter.name]) for point in points if parameter.name in point}
    return len(seen) > 1


def _shares(distances: Sequence[Matrix], values: Sequence[float]) -> list[float] | None:
    """One share each; None where they are not told from noise."""
    # Imported when asked for: who only checks a study does not wait for it.
    import numpy as np

    shuffled = np.random.default_rng(SEED)
    told = np.asarray(values)
    y = np.column_stack([told, *(shuffled.permutation(told) for _ in range(SHUFFLES))])
    every = np.sum(distances, axis=0)
    together = _explained(every, y)
    alone = [_explained(each, y) for each in distances]
    # Many that matter nothing spoil the prediction from all: one alone may explain more.
    most = np.max([together, *alone], axis=0)
    if np.mean(most[1:] >= most[0]) > 1 / 20:
        return None
    rest = [_explained(every - each, y[:, :1])[0] for each in distances]
    raw = [
        (own[0] + max(together[0] - left, 0.0)) / 2 for own, left in zip(alone, rest, strict=True)
    ]
    return [round(float(each / sum(raw) * most[0]), 4) for each in raw]


def _explained(squared: Matrix, y: Matrix) -> Matrix:
    """Share of each column's spread that is predicted, at best, from points so far apart."""
    import numpy as np

    count = len(y)
    unknown = np.sum(((y - y.mean(axis=0)) * count / (count - 1)) ** 2, axis=0)
    errors = []
    for width in WIDTHS:
        # The level is not to be learnt as if it were an effect.
        kernel = np.exp(-squared / (2 * width**2)) + 100.0
        for ridge in RIDGES:
            inverse = np.linalg.inv(kernel + ridge * np.eye(count))
            errors.append(np.sum((inverse @ y / np.diag(inverse)[:, None]) ** 2, axis=0))
    found: Matrix = np.maximum(1 - np.min(errors, axis=0) / unknown, 0.0)
    return found


def _distances(parameter: Parameter, points: Sequence[Parameters]) -> Matrix:
    """Squares of how far each two points are apart in one parameter, from 0 to 1. Categories, and
    being inactive, are as far from each other as the ends of a range."""
    import numpy as np

    places = [_place(parameter, point) for point in points]
    kinds = np.asarray([kind for kind, _ in places])
    lines = np.asarray([line for _, line in places])
    apart = (lines[:, None] - lines[None, :]) ** 2
    found: Matrix = np.where(kinds[:, None] == kinds[None, :], apart, 1.0)
    return found


def _place(parameter: Parameter, point: Parameters) -> tuple[str, float]:
    """A category and a place from 0 to 1 within it."""
    if parameter.name not in point:
        return "inactive", 0.0
    value, domain = point[parameter.name], parameter.domain
    if isinstance(domain, Choice):
        numbers = sorted(each for each in domain.values if _number(each))
        if not _number(value) or len(numbers) < 3:
            return identity(value), 0.0
        # Listed numbers lie one apart, as they are written: 256, 512, 1024, 8192.
        return "number", numbers.index(value) / (len(numbers) - 1)
    low, high, at = (
        (math.log(domain.low), math.log(domain.high), math.log(value))
        if domain.log
        else (domain.low, domain.high, value)
    )
    return "number", (at - low) / (high - low) if high > low else 0.0


def _number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
