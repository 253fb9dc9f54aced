"""`make bench-verdict`: how often the verdict is right, and how many launches it takes.

Simulated studies, each a search over 15 points measured once, and a verdict over the best
three of them and the baseline, with fresh noise. What is known here and never in a real
study is which points are truly better. Noise is Gaussian on the logarithm unless it says
otherwise; a round has a level of its own where there is drift.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from autotuner.study.metrics import METRICS
from autotuner.study.verdict import Contest, Finding, Verdict, judge

OBJECTIVE = METRICS["output_throughput"]
POINTS, FINALISTS, ROUNDS = 15, 3, 5
BASELINE = 0

Noise = Callable[[random.Random, int], float]
"""Log noise of one launch of a candidate."""


def gaussian(noise: float) -> Noise:
    return lambda chance, candidate: chance.gauss(0, noise)


def heavy_tails(noise: float) -> Noise:
    """Student's t with 3 degrees of freedom, scaled to the same standard deviation."""

    def draw(chance: random.Random, candidate: int) -> float:
        chi = math.fsum(chance.gauss(0, 1) ** 2 for _ in range(3))
        return noise * chance.gauss(0, 1) / math.sqrt(chi)

    return draw


def unequal(baseline: float, others: float) -> Noise:
    return lambda chance, candidate: chance.gauss(0, baseline if candidate == BASELINE else others)


def one_loud(loud: float, others: float) -> Noise:
    """Point 1 scatters more than all others."""
    return lambda chance, candidate: chance.gauss(0, loud if candidate == 1 else others)


def outliers(noise: float) -> Noise:
    """One launch in twenty is a fifth slower."""
    return lambda chance, candidate: (
        chance.gauss(0, noise) - (0.2 if chance.random() < 0.05 else 0.0)
    )


@dataclass(frozen=True)
class Case:
    """A kind of study: true gains of the points (the baseline is 0), noise, drift per round."""

    name: str
    gains: tuple[float, ...]
    noise: Noise
    drift: float = 0.0


@dataclass(frozen=True)
class Answer:
    verdict: Verdict
    true: float
    """Gain the winner really has; 0 without one."""


NULL = (0.0,) * POINTS


def some(gain: float, how_many: int = 3) -> tuple[float, ...]:
    return (gain,) * how_many + (0.0,) * (POINTS - how_many)


EXPECTED, HEAVY = "3 of 15 at +5 %, 1 %", "3 of 15 at +100 %, 10 %"

CASES = (
    Case("null, noise 1 %", NULL, gaussian(0.01)),
    Case("null, noise 10 %", NULL, gaussian(0.10)),
    Case("null, 1 %, drift 10 %", NULL, gaussian(0.01), drift=0.1),
    Case("null, baseline 5 %, others 1 %", NULL, unequal(0.05, 0.01)),
    Case("null, baseline 1 %, others 5 %", NULL, unequal(0.01, 0.05)),
    Case("null, baseline 10 %, others 1 %", NULL, unequal(0.10, 0.01)),
    Case("null, one 10 %, others 1 %", NULL, one_loud(0.1, 0.01)),
    Case("null, heavy tails 3 %", NULL, heavy_tails(0.03)),
    Case("null, 1 %, outliers", NULL, outliers(0.01)),
    Case(EXPECTED, some(0.05), gaussian(0.01)),
    Case("3 of 15 at +5 %, 1 %, drift 10 %", some(0.05), gaussian(0.01), drift=0.1),
    Case("3 of 15 at +5 %, 2 %", some(0.05), gaussian(0.02)),
    Case("3 of 15 at +5 %, 3 %", some(0.05), gaussian(0.03)),
    Case("3 of 15 at +5 %, heavy tails 1 %", some(0.05), heavy_tails(0.01)),
    Case("3 of 15 at +5 %, 1 %, outliers", some(0.05), outliers(0.01)),
    Case("+2/+4/+6/+8/+10 %, 1 %", (0.02, 0.04, 0.06, 0.08, 0.1) + (0.0,) * 10, gaussian(0.01)),
    Case(HEAVY, some(1.0), gaussian(0.10)),
    Case("all at +100 %, 10 %", (1.0,) * POINTS, gaussian(0.10)),
    Case("1 of 15 at +5 %, 1 %", some(0.05, 1), gaussian(0.01)),
    Case("3 of 15 at +2 %, 1 %", some(0.02), gaussian(0.01)),
    Case("3 of 15 at +20 %, 10 %", some(0.2), gaussian(0.10)),
)


def study(case: Case, seed: int) -> Answer:
    """Search, then rounds until the verdict is decided."""
    chance = random.Random(seed)
    gains = dict(enumerate((0.0, *case.gains)))

    def launch(candidate: int) -> float:
        return math.log1p(gains[candidate]) + case.noise(chance, candidate)

    found = {point: launch(point) for point in gains if point != BASELINE}
    finalists = sorted(found, key=lambda point: -found[point])[:FINALISTS]
    overrides = {point: chance.randint(1, 4) for point in finalists}
    rounds: list[dict[int, float | None]] = []
    while True:
        contest = Contest(OBJECTIVE, BASELINE, overrides, rounds, most_rounds=ROUNDS)
        verdict = judge(contest)
        if verdict.decided:
            winner = verdict.winner
            return Answer(verdict, 0.0 if winner is None else gains[winner])
        level = chance.gauss(0, case.drift)
        rounds.append({each: 1000 * math.exp(level + launch(each)) for each in verdict.active})


def answers(case: Case, seeds: int, first: int = 0) -> Iterator[Answer]:
    for seed in range(first, first + seeds):
        yield study(case, seed)


@dataclass(frozen=True)
class Summary:
    """Of many studies of one case, in shares and means.

    Attributes:
        declared: studies that named a winner.
        right: of those, whose winner is truly better than the baseline.
        best: of those, whose winner has the largest gain there is.
        covered: studies whose every interval holds the true gain.
        soon: studies that ended after 2 or 3 rounds.
    """

    declared: float
    right: float
    best: float
    covered: float
    soon: float
    rounds: float
    launches: float

    @classmethod
    def of(cls, case: Case, found: list[Answer]) -> Summary:
        won = [each for each in found if each.verdict.finding is Finding.GAIN]
        share = 1 / max(1, len(won))
        return cls(
            declared=len(won) / len(found),
            right=sum(each.true > 0 for each in won) * share,
            best=sum(each.true == max(case.gains) for each in won) * share,
            covered=statistics.fmean(covered(case, each.verdict) for each in found),
            soon=statistics.fmean(each.verdict.rounds <= 3 for each in found),
            rounds=statistics.fmean(each.verdict.rounds for each in found),
            launches=statistics.fmean(each.verdict.launches for each in found),
        )


def covered(case: Case, verdict: Verdict) -> bool:
    """Whether every interval over the baseline holds the true gain."""
    return all(
        each.low <= case.gains[each.candidate - 1] <= each.high
        for each in verdict.standings
        if each.low is not None and each.high is not None
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=500, help="studies of each kind")
    options = parser.parse_args()
    began = time.monotonic()
    print(f"{options.seeds} studies each: 3 finalists of 15 points, at most {ROUNDS} rounds")
    print(f"{'case':34} declared   right    best covered  rounds  <= 3  launches")
    found: dict[str, Summary] = {}
    for case in CASES:
        found[case.name] = each = Summary.of(case, list(answers(case, options.seeds)))
        right = f"{each.right:7.1%} {each.best:7.1%}" if any(case.gains) else f"{'-':>7} {'-':>7}"
        print(
            f"{case.name:34} {each.declared:8.1%} {right} {each.covered:7.1%} "
            f"{each.rounds:7.2f} {each.soon:5.0%} {each.launches:9.1f}"
        )
        sys.stdout.flush()
    print(f"{time.monotonic() - began:.0f} s")
    sys.exit("\n".join(broken(found)) or None)


def broken(found: dict[str, Summary]) -> list[str]:
    """What was promised and does not hold."""
    promises = {
        "no gain where there is none, in 90 %": all(
            each.declared <= 0.10 for name, each in found.items() if name.startswith("null")
        ),
        "a declared winner is truly better, in 95 %": all(
            each.right >= 0.95 for name, each in found.items() if not name.startswith("null")
        ),
        "a real 5 % under 1 % of noise is found, in 95 %": found[EXPECTED].declared >= 0.95,
        "heavy gains end after 2 or 3 rounds, in 90 %": found[HEAVY].soon >= 0.90,
    }
    return [f"does not hold: {promise}" for promise, holds in promises.items() if not holds]


if __name__ == "__main__":
    main()
