"""How well predictions met what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

LEAST_RANKED = 3
"""Pairs below which an order says nothing."""


@dataclass(frozen=True)
class Accuracy:
    """Predicted against measured values of one metric.

    Attributes:
        n: pairs of both.
        error: median of |predicted - measured| / measured.
        bias: median of predicted / measured - 1: above 0 where predictions are too high.
        rank_correlation: Spearman's; what a prior needs, since it only orders. None below
            `LEAST_RANKED` pairs, or where one side is all the same.
    """

    n: int
    error: float
    bias: float
    rank_correlation: float | None


def accuracy(pairs: Sequence[tuple[float, float]]) -> Accuracy | None:
    """Of (predicted, measured) pairs; None where nothing measured is above 0."""
    known = [(predicted, measured) for predicted, measured in pairs if measured > 0]
    if not known:
        return None
    relative = [predicted / measured - 1 for predicted, measured in known]
    return Accuracy(
        n=len(known),
        error=median(abs(each) for each in relative),
        bias=median(relative),
        rank_correlation=rank_correlation(known),
    )


def accuracies(
    points: Sequence[tuple[Mapping[str, float | None], Mapping[str, float | None]]],
) -> dict[str, Accuracy]:
    """By metric, from each point's predicted and measured metrics; those that have any pair."""
    names = dict.fromkeys(name for predicted, _ in points for name in predicted)
    found = {
        name: accuracy(
            [
                (one, other)
                for predicted, measured in points
                if (one := predicted.get(name)) is not None
                and (other := measured.get(name)) is not None
            ]
        )
        for name in names
    }
    return {name: each for name, each in found.items() if each is not None}


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's: the correlation of ranks, equal values sharing their mean rank."""
    if len(pairs) < LEAST_RANKED:
        return None
    one, other = (_ranks([pair[side] for pair in pairs]) for side in (0, 1))
    middle = (len(pairs) - 1) / 2
    spread = [sum((rank - middle) ** 2 for rank in ranks) for ranks in (one, other)]
    if not all(spread):
        return None
    both = sum((a - middle) * (b - middle) for a, b in zip(one, other, strict=True))
    return float(both / (spread[0] * spread[1]) ** 0.5)


def _ranks(values: Sequence[float]) -> list[float]:
    return [
        sum(each < value for each in values) + (sum(each == value for each in values) - 1) / 2
        for value in values
    ]
