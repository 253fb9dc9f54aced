"""Where to begin, by what was predicted: few points, good ones, and no two alike.

A prediction is most often right about the direction and wrong about the place. The points are
therefore taken from all that it calls good, the best first, then each as far from those before
it as it can be; and they are few, so that a prediction that is wrong altogether costs little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from autotuner.search.axes import axes_of
from autotuner.search.surrogate import Layout, distances
from autotuner.study.space import Parameters, Space

COUNT = 5
"""Points asked for on the word of a prediction."""

GOOD = 0.2
"""Share of the predicted points that is called good; of few points up to half of them, but no
more than three for each that is chosen."""


def promising(
    space: Space, predicted: Sequence[tuple[Parameters, float]], count: int = COUNT
) -> list[Parameters]:
    """The points to ask first.

    Args:
        predicted: points of the space with a score each, more is better; what is predicted to be
            infeasible is left out or scored below all else.
    """
    ranked = sorted(predicted, key=lambda pair: -pair[1])
    share = math.ceil(GOOD * len(ranked))
    good = [
        point for point, _ in ranked[: max(share, min(3 * count, max(count, len(ranked) // 2)))]
    ]
    if not good:
        return []
    rows = Layout(axes_of(space)).rows(good)
    apart = distances(rows, rows).sum(axis=0)
    chosen = [0]
    while len(chosen) < min(count, len(good)):
        nearest = apart[chosen].min(axis=0)
        nearest[chosen] = -1.0
        chosen.append(int(nearest.argmax()))
    return [good[index] for index in chosen]
