"""How well metrics were predicted: predictions beside what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from autotuner.study.objective import objective_values
from autotuner.study.trial import Trial, TrialState

LEAST_RANKED = 3
"""Trials below which an order says nothing."""


class Accuracy(NamedTuple):
    """Of one metric.

    Attributes:
        trials: those that have both a prediction and a measurement.
        error: median of |predicted / measured - 1|; None where nothing measured is above 0.
        rank_correlation: Spearman's, between -1 and 1: whether the better was predicted to be
            better; None of fewer than LEAST_RANKED trials, and where all are alike.
    """

    trials: int
    error: float | None
    rank_correlation: float | None


def accuracies(trials: Sequence[Trial]) -> dict[str, Accuracy]:
    """Per predicted metric, over the complete trials of the search."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    for trial in trials:
        if trial.searched and trial.state is TrialState.COMPLETE:
            for name, pair in predictions(trial).items():
                pairs.setdefault(name, []).append(pair)
    return {name: accuracy(each) for name, each in pairs.items()}


def predictions(trial: Trial) -> dict[str, tuple[float, float]]:
    """Predicted and measured, per metric that has both."""
    points = [point.metrics for point in trial.load_points if not point.probe]
    names = [name for name, value in trial.predicted.items() if value is not None]
    values = objective_values(names, points) if points else {}
    pairs = {
        name: (trial.predicted[name], trial.objectives.get(name, values.get(name)))
        for name in names
    }
    return {
        name: (said, found)
        for name, (said, found) in pairs.items()
        if said is not None and found is not None and math.isfinite(said) and math.isfinite(found)
    }


def accuracy(pairs: Sequence[tuple[float, float]]) -> Accuracy:
    """Of pairs of a predicted and a measured value."""
    errors = [abs(said / found - 1) for said, found in pairs if found > 0]
    return Accuracy(len(pairs), median(errors) if errors else None, _rank_correlation(pairs))


def _rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    said, found = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    if len(pairs) < LEAST_RANKED or len(set(said)) < 2 or len(set(found)) < 2:
        return None
    from scipy.stats import spearmanr  # a second to import, and few studies have predictions

    return float(spearmanr(said, found).statistic)
