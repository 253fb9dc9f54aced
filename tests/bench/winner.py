"""`make bench-winner`: how often the whole product declares a winner, and whether it is one.

Studies of 15 trials and their finals (3 finalists, at most 5 rounds, 95 %) by the product's own
searcher, loop, store and verdict in virtual time, over made spaces of 100 points with 1 % noise:
all points equal to the defaults; and some of them truly 5 % better.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from autotuner.study import finals
from autotuner.study.verdict import Finding
from tests.replays import replayed

SPACE = {"x": list(range(10)), "y": list(range(10))}
SEEDS = 50


def rows(gain: float) -> list[dict[str, Any]]:
    """The better points: a corner of the space, 12 of its 100 points."""
    return [{"output_throughput": 100.0}] + [
        {"x": x, "y": y, "output_throughput": 100.0 * (1 + gain * (x >= 6 and y >= 7))}
        for x in SPACE["x"]
        for y in SPACE["y"]
    ]


def main() -> int:
    print(f"{SEEDS} seeds each | declared | truly better | no significant gain | launches")
    failed = False
    for name, gain in (("all equal", 0.0), ("5 % better", 0.05)):
        declared = better = none = launches = 0
        for seed in range(SEEDS):
            with tempfile.TemporaryDirectory() as place:
                _, study, trials = replayed(
                    Path(place),
                    rows(gain),
                    space=SPACE,
                    noise=0.01,
                    seed=seed,
                    search={"kind": "optuna"},
                    limits={"trials": 15},
                )
            found = finals.verdict(study, trials)
            launches += len(trials)
            if found is None or found.finding is not Finding.GAIN:
                none += 1
                continue
            winner = finals.winner(study, trials)
            assert winner is not None
            declared += 1
            better += gain > 0 and winner.parameters["x"] >= 6 and winner.parameters["y"] >= 7
        print(f"{name} | {declared} | {better} | {none} | {launches / SEEDS:.1f}")
        if gain:
            failed |= better < 0.95 * declared or not declared
        else:
            failed |= none < 0.9 * SEEDS
    return failed


if __name__ == "__main__":
    sys.exit(main())
