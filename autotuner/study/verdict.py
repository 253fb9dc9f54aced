"""The verdict: what repeated measurements of the baseline and the finalists allow to be said.

Each round launches those still of interest once, one after another. The model is

    log value = candidate + round + noise

by least squares, so that what drifts between rounds (a warmer machine, a busier network)
cancels; the logarithm, because noise and gains are relative. One variance is estimated from all
residuals, since a handful of repeats says little about that of any single candidate; where the
two of a pair scatter more than that, theirs is taken.

All pairs are compared at once, after every round, so the error rate is held over both: per look
by the studentized range, over the looks by Bonferroni. `docs/verdict.md` has the measured error
rates, and decision 0007 the reasons.

Sources: Tukey-Kramer: Kramer, Biometrics 12 (1956) 307, Hayter, Ann. Statist. 12 (1984) 61.
Repeated confidence intervals: Jennison and Turnbull, J. R. Statist. Soc. B 51 (1989) 305.
Racing: Birattari et al., A racing algorithm for configuring metaheuristics, GECCO 2002.
Predictive power: Spiegelhalter, Freedman and Blackburn, Controlled Clinical Trials 7 (1986) 8.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property, lru_cache
from itertools import combinations
from statistics import NormalDist, stdev

from autotuner.study.metrics import Better, Metric

LEAST_REPEATS = 2
"""Values a candidate needs before anything is said about it."""

HOPE = 0.05
"""Below this chance of being told apart from the baseline by the end, a finalist is not
measured further."""

HOPE_OF_ORDER = 0.5
"""The same for two finalists. It is higher, for both may already be better than the baseline:
what is left to gain is the little between them."""

EXACT = 1e-9
"""Relative noise of what repeats to the last digit: a simulated server, a replayed table."""


class Finding(StrEnum):
    """What the numbers say as a whole."""

    UNDECIDED = "undecided"
    """Another round can still tell."""
    GAIN = "gain"
    """The winner is better than the baseline."""
    NO_GAIN = "no significant gain"
    NO_BASELINE = "no baseline"
    """The defaults could not be measured; the finalists are compared among themselves."""
    NO_FINALIST = "no finalist"
    """None was there, or none came through its repeats."""


@dataclass(frozen=True)
class Contest:
    """The repeated measurements so far.

    Attributes:
        baseline: its number; None where the search could not measure it.
        overrides: finalist -> number of parameters that differ from the defaults.
        rounds: one mapping per round, candidate -> value of the objective. Who was not
            launched, or whose launch the machine broke, has no entry; None is a launch that
            gave no value, and whoever had one is out.
        most_rounds: rounds at most.
        confidence: of everything that is said, taken together.
        out: candidates that cannot win whatever their values, and why. The baseline stays the
            one to compare with.
        resolution: relative step of the objective's values, such as the precision of
            `max_load`; two values closer than that may be one.
    """

    objective: Metric
    baseline: int | None
    overrides: Mapping[int, int]
    rounds: Sequence[Mapping[int, float | None]] = ()
    most_rounds: int = 5
    confidence: float = 0.95
    out: Mapping[int, str] = field(default_factory=dict)
    resolution: float = 0.0

    def __post_init__(self) -> None:
        if self.most_rounds < LEAST_REPEATS:
            raise ValueError(f"a verdict needs {LEAST_REPEATS} rounds, not {self.most_rounds}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence must be within 0 and 1, not {self.confidence}")


@dataclass(frozen=True)
class Standing:
    """One candidate in the verdict.

    Attributes:
        repeats: values it gave.
        value: their geometric mean with the rounds' differences taken out, in the objective's
            unit.
        gain: improvement over the reference as `Metric.gain` has it; None for the reference.
        low, high: confidence interval of the gain.
        separated: whether that interval leaves out 0.
        out: why it cannot win; of the baseline, why it could not be used itself.
    """

    candidate: int
    overrides: int = 0
    repeats: int = 0
    value: float | None = None
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    separated: bool = False
    out: str = ""


@dataclass(frozen=True)
class Verdict:
    """What can be said after the rounds so far.

    Attributes:
        reference: whom the gains are over: the baseline; without one, the best finalist.
        standings: one per candidate, the baseline first.
        tied: candidates for the win that cannot be told apart, the winner among them; it has
            the fewest overrides.
        noise: relative standard deviation of a single launch.
        decided: nothing more can be learnt within the rounds left.
        active: whom to launch in the next round, in this order; it moves on by one each
            round, so that nobody is always first on the machine.
    """

    finding: Finding
    winner: int | None
    reference: int | None
    standings: tuple[Standing, ...]
    tied: tuple[int, ...]
    noise: float | None
    confidence: float
    rounds: int
    launches: int
    decided: bool
    active: tuple[int, ...]

    def standing(self, candidate: int) -> Standing:
        return next(each for each in self.standings if each.candidate == candidate)


def judge(contest: Contest) -> Verdict:
    """The verdict after the rounds so far; with none, whom to launch first."""
    judging = _Judging(contest)
    finding, tied, open_pairs = judging.found()
    decided = not open_pairs
    winner = min(tied, key=judging.preference) if tied else None
    return Verdict(
        finding=finding,
        winner=winner,
        reference=judging.reference,
        standings=tuple(judging.standings()),
        tied=tuple(sorted(tied, key=judging.preference)),
        noise=judging.fit.sigma if judging.fit.freedom else None,
        confidence=contest.confidence,
        rounds=len(contest.rounds),
        launches=sum(len(each) for each in contest.rounds),
        decided=decided,
        active=() if decided else judging.launch_order(open_pairs),
    )


_Pair = tuple[int, int]


@dataclass(frozen=True)
class _Judging:
    """The rules, on top of a fit of the contest's values."""

    contest: Contest

    @cached_property
    def looks(self) -> tuple[_Fit, ...]:
        """The fit after each round that was looked at, the latest first."""
        rounds = self.contest.rounds
        upto = range(len(rounds), min(LEAST_REPEATS, len(rounds)) - 1, -1)
        return tuple(_Fit.of(self.contest.objective, rounds[:end]) for end in upto)

    @property
    def fit(self) -> _Fit:
        return self.looks[0]

    @cached_property
    def candidates(self) -> tuple[int, ...]:
        base = self.contest.baseline
        finalists = [each for each in self.contest.overrides if each != base]
        return (*([] if base is None else [base]), *finalists)

    @cached_property
    def out(self) -> dict[int, str]:
        # The baseline is no candidate for the win: it is compared whatever bounds it breaks.
        found = {c: why for c, why in self.contest.out.items() if c != self.contest.baseline}
        for number, each in enumerate(self.contest.rounds, start=1):
            for candidate, value in each.items():
                if not _usable(value):
                    what = "no value" if value is None else f"{value:g}, which has no ratio"
                    found.setdefault(candidate, f"round {number} gave {what}")
        return found

    @cached_property
    def baseline(self) -> int | None:
        """The baseline, as long as there is or will be something to compare with."""
        base = self.contest.baseline
        if base in self.out and self.fit.repeats(base) < LEAST_REPEATS:
            return None
        return base

    @cached_property
    def finalists(self) -> list[int]:
        """Those that can still win."""
        return [c for c in self.candidates if c != self.contest.baseline and c not in self.out]

    @cached_property
    def leader(self) -> int | None:
        known = [each for each in self.finalists if each in self.fit.effects]
        return max(known, key=lambda each: self.fit.effects[each], default=None)

    @property
    def reference(self) -> int | None:
        return self.leader if self.baseline is None else self.baseline

    @property
    def left(self) -> int:
        return max(0, self.contest.most_rounds - len(self.contest.rounds))

    def found(self) -> tuple[Finding, list[int], list[_Pair]]:
        """The finding, the candidates for the win, and the pairs worth measuring further."""
        if not self.finalists:
            return Finding.NO_FINALIST, [], []
        if len(self.contest.rounds) < LEAST_REPEATS:
            eligible = [each for each in self.candidates if each not in self.out]
            return Finding.UNDECIDED, [], list(combinations(eligible, 2)) or [(eligible[0],) * 2]
        if self.baseline is None:
            return self._without_baseline()
        base = self.baseline
        above = [each for each in self.finalists if self.better(each, base)]
        hopeful = [each for each in self.finalists if each not in above and self.may(each, base)]
        if not above:
            waiting = [(each, base) for each in hopeful if not self._beaten(each)]
            # Where finals were cut off nobody may have been compared, which is not "no gain".
            compared = any(self.contrast(each, base) for each in self.finalists)
            ended = compared and not waiting
            return (Finding.NO_GAIN if ended else Finding.UNDECIDED), [], waiting
        best = max(above, key=lambda each: self.fit.effects[each])
        tied = [each for each in above if not self.better(best, each)]
        preferred = min(tied, key=self.preference)
        waiting = [(best, preferred)] if self.may(best, preferred, HOPE_OF_ORDER) else []
        for each in hopeful:
            if self._beaten(each):
                continue
            first = self.preference(each) < self.preference(preferred)
            if first or self.may(each, preferred, HOPE_OF_ORDER):
                waiting.append((each, base))
        return Finding.GAIN, tied, waiting

    def _without_baseline(self) -> tuple[Finding, list[int], list[_Pair]]:
        best = self.leader
        if best is None:
            return Finding.NO_FINALIST, [], []
        tied = [each for each in self.finalists if not self.better(best, each)]
        preferred = min(tied, key=self.preference)
        unknown = [e for e in tied if e != best and self.contrast(best, e) is None]
        waiting = [(best, each) for each in unknown] if self.left else []
        if self.may(best, preferred, HOPE_OF_ORDER):
            waiting.append((best, preferred))
        return Finding.NO_BASELINE, [each for each in tied if each not in unknown], waiting

    def _beaten(self, candidate: int) -> bool:
        """Whether another finalist is clearly better: then that one decides against the
        baseline."""
        return any(self.better(each, candidate) for each in self.finalists)

    def better(self, one: int, other: int) -> bool:
        """Whether `one` is told apart from `other`, above it."""
        contrast = self.contrast(one, other)
        return contrast is not None and contrast.difference > contrast.half

    def may(self, one: int, other: int, hope: float = HOPE) -> bool:
        """Whether `one` is not, but by the last round may be told apart above `other`.

        The chance is the predictive one: what the mean of all rounds may come to, given those
        so far, with the noise as estimated.
        """
        if one == other or not self.left or one in self.out or other in self.out:
            return False
        if self.better(one, other) or self.better(other, one):
            return False
        contrast = self.contrast(one, other)
        if contrast is None:
            return True
        share = contrast.rounds / (contrast.rounds + self.left)
        freedom = self.fit.freedom + self.left * max(1, len(self.contest.rounds[-1]) - 1)
        half = self._critical(freedom) * contrast.error * math.sqrt(share)
        spread = contrast.error * math.sqrt(1 - share)
        return contrast.difference + NormalDist().inv_cdf(1 - hope) * spread >= half

    def contrast(self, one: int, other: int) -> _Contrast | None:
        """The latest look that told the two apart, else the latest.

        What was told apart is not launched again, and stays so: the error rate is that of all
        looks together.
        """
        seen = [each for fit in self.looks if (each := self._contrast(fit, one, other))]
        apart = [each for each in seen if each.separated]
        return next(iter(apart + seen), None)

    def _contrast(self, fit: _Fit, one: int, other: int) -> _Contrast | None:
        if min(fit.repeats(one), fit.repeats(other)) < LEAST_REPEATS:
            return None
        found = fit.contrast(one, other)
        if found is None:
            return None
        difference, error, rounds = found
        step = math.log1p(self.contest.resolution) + EXACT
        half = math.hypot(self._critical(fit.freedom) * error, step)
        return _Contrast(difference, error, half, rounds)

    def _critical(self, freedom: int) -> float:
        looks = self.contest.most_rounds - LEAST_REPEATS + 1
        error = (1 - self.contest.confidence) / looks
        return _tukey(error, max(2, len(self.candidates)), freedom)

    def preference(self, candidate: int) -> tuple[int, float]:
        """Fewest overrides first, then the best estimate."""
        return (
            self.contest.overrides.get(candidate, 0),
            -self.fit.effects.get(candidate, -math.inf),
        )

    def launch_order(self, pairs: Sequence[_Pair]) -> tuple[int, ...]:
        wanted = {each for pair in pairs for each in pair}
        order = [each for each in self.candidates if each in wanted and each not in self.out]
        shift = len(self.contest.rounds) % len(order) if order else 0
        return (*order[shift:], *order[:shift])

    def standings(self) -> Iterator[Standing]:
        for each in self.candidates:
            interval = _Interval()
            if each != self.reference and self.reference is not None:
                interval = self._interval(each, self.reference)
            yield Standing(
                candidate=each,
                overrides=self.contest.overrides.get(each, 0),
                repeats=self.fit.repeats(each),
                value=self._value(each),
                gain=interval.gain,
                low=interval.low,
                high=interval.high,
                separated=interval.separated,
                out=self.out.get(each, self.contest.out.get(each, "")),
            )

    def _interval(self, one: int, other: int) -> _Interval:
        contrast = self.contrast(one, other)
        if contrast is None:
            return _Interval()
        return _Interval(
            gain=_gain(contrast.difference),
            low=_gain(contrast.difference - contrast.half),
            high=_gain(contrast.difference + contrast.half),
            separated=contrast.separated,
        )

    def _value(self, candidate: int) -> float | None:
        effect = self.fit.effects.get(candidate)
        return None if effect is None else math.exp(_sign(self.contest.objective) * effect)


@dataclass(frozen=True)
class _Contrast:
    """How much better one candidate is than another, in log units.

    Attributes:
        error: standard error of the difference.
        half: half the width of its simultaneous confidence interval.
        rounds: rounds that measured both.
    """

    difference: float
    error: float
    half: float
    rounds: int

    @property
    def separated(self) -> bool:
        return abs(self.difference) > self.half


@dataclass(frozen=True)
class _Interval:
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    separated: bool = False


@dataclass(frozen=True)
class _Fit:
    """Least squares of log value = candidate + round.

    Attributes:
        values: candidate -> round -> log value, turned so that more is better.
        effects: candidate -> its level, at the average of the rounds.
        covariance: of the effects, in units of the variance; rows as in `effects`.
        sigma: standard deviation of one launch, in log units.
        freedom: degrees of freedom it has; 0 where nothing is known about it.
    """

    values: Mapping[int, Mapping[int, float]]
    effects: Mapping[int, float]
    covariance: Sequence[Sequence[float]]
    sigma: float
    freedom: int

    @classmethod
    def of(cls, objective: Metric, measured: Sequence[Mapping[int, float | None]]) -> _Fit:
        import numpy  # here, because `check` imports this module and must answer at once

        values = _log_values(objective, measured)
        names = list(values)
        rounds = sorted({each for of_one in values.values() for each in of_one})
        cells = [(c, r, y) for c in names for r, y in values[c].items()]
        if not cells:
            return cls({}, {}, (), 0.0, 0)
        design = numpy.zeros((len(cells), len(names) + len(rounds)))
        for row, (candidate, number, _) in enumerate(cells):
            design[row, names.index(candidate)] = 1
            design[row, len(names) + rounds.index(number)] = 1
        observed = numpy.array([y for _, _, y in cells])
        inverse = numpy.linalg.pinv(design.T @ design)
        solution = inverse @ design.T @ observed
        freedom = len(cells) - int(numpy.linalg.matrix_rank(design))
        squares = float(numpy.sum((observed - design @ solution) ** 2))
        level = float(numpy.mean(solution[len(names) :]))
        return cls(
            values=values,
            effects={name: float(solution[i]) + level for i, name in enumerate(names)},
            covariance=inverse[: len(names), : len(names)].tolist(),
            sigma=max(EXACT, math.sqrt(squares / freedom)) if freedom else 0.0,
            freedom=freedom,
        )

    def repeats(self, candidate: int | None) -> int:
        return 0 if candidate is None else len(self.values.get(candidate, {}))

    def contrast(self, one: int, other: int) -> tuple[float, float, int] | None:
        """Difference, its standard error, and the rounds that measured both; None where the
        values do not say."""
        both = [r for r in self.values.get(one, {}) if r in self.values.get(other, {})]
        if not self.freedom or not both:
            return None
        names = list(self.effects)
        i, j = names.index(one), names.index(other)
        cov = self.covariance
        error = self.sigma * math.sqrt(max(0.0, cov[i][i] + cov[j][j] - 2 * cov[i][j]))
        own = [self.values[one][r] - self.values[other][r] for r in both]
        if len(own) > 1:
            error *= max(1.0, stdev(own) / (math.sqrt(2) * self.sigma))
        return self.effects[one] - self.effects[other], error, len(both)


def _log_values(
    objective: Metric, measured: Sequence[Mapping[int, float | None]]
) -> dict[int, dict[int, float]]:
    sign = _sign(objective)
    values: dict[int, dict[int, float]] = {}
    for number, each in enumerate(measured):
        for candidate, value in each.items():
            if _usable(value):
                assert value is not None
                values.setdefault(candidate, {})[number] = sign * math.log(value)
    return values


def _usable(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and value > 0


def _sign(objective: Metric) -> int:
    return 1 if objective.better is Better.HIGHER else -1


def _gain(difference: float) -> float:
    return math.expm1(min(difference, 700.0))


@lru_cache(maxsize=1024)
def _tukey(error: float, candidates: int, freedom: int) -> float:
    """Critical value of a t statistic, for all pairs at once."""
    from scipy.stats import studentized_range  # a second to import

    return float(studentized_range.isf(error, candidates, freedom)) / math.sqrt(2)
