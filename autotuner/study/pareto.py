"""Which trials are best: the single best for one objective, the Pareto front for several."""

from __future__ import annotations

from collections.abc import Sequence

from autotuner.study.metrics import METRICS
from autotuner.study.trial import Trial


def dominates(one: Trial, other: Trial, objectives: Sequence[str]) -> bool:
    """Whether `one` is at least as good in every objective and better in some."""
    better = False
    for name in objectives:
        a, b = one.scores[name], other.scores[name]
        if a is None or b is None:
            return False
        if METRICS[name].is_better(b, a):
            return False
        better = better or METRICS[name].is_better(a, b)
    return better


def pareto_front(trials: Sequence[Trial], objectives: Sequence[str]) -> list[Trial]:
    """The feasible trials of the search no other dominates, best in the first objective first.

    With one objective these are the best and its exact ties; equal trials are all kept, the
    earlier first.
    """
    feasible = [trial for trial in trials if trial.feasible and trial.searched]
    front = [
        trial
        for trial in feasible
        if not any(dominates(other, trial, objectives) for other in feasible)
    ]
    sign = -1 if METRICS[objectives[0]].is_better(1, 0) else 1
    return sorted(
        front, key=lambda trial: (sign * (trial.scores[objectives[0]] or 0.0), trial.number)
    )


def best_of(trials: Sequence[Trial], objectives: Sequence[str]) -> Trial | None:
    """The first of the front: the best by the first objective; None when nothing is feasible."""
    front = pareto_front(trials, objectives)
    return front[0] if front else None
