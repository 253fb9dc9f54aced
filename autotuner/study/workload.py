"""What is asked of a server: traffic scenarios at concurrencies, and the load points they make.

The scenario grammar is genai-bench's: ``D(in,out)`` fixed lengths, ``N(mean,sd)/(mean,sd)``
normal, ``U(min,max)/(min,max)`` uniform; all in tokens, input first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SCENARIO_FORMS = (
    "D(input,output)",
    "N(input mean,sd)/(output mean,sd)",
    "U(input min,max)/(output min,max)",
)

_PAIR = r"\((\d+),(\d+)\)"
_SCENARIO = re.compile(rf"(?:(D){_PAIR}|(N){_PAIR}/{_PAIR}|(U){_PAIR}/{_PAIR})")


@dataclass(frozen=True)
class Scenario:
    """A request shape; `input_tokens` and `output_tokens` are its means."""

    text: str
    input_tokens: float
    output_tokens: float


def scenario(text: str) -> Scenario:
    """Parse one scenario.

    Raises:
        ValueError: not in the grammar, an empty output, or a range upside down. The
            one-pair form ``U(a,b)`` is refused: genai-bench reads it as two maxima, which
            nobody who writes it means.
    """
    match = _SCENARIO.fullmatch(text)
    if match is None:
        forms = ", ".join(SCENARIO_FORMS)
        raise ValueError(f"{text!r} is not a traffic scenario; allowed: {forms}")
    kind = next(letter for letter in match.groups() if letter in ("D", "N", "U"))
    numbers = [int(group) for group in match.groups() if group and group.isdigit()]
    if kind == "D":
        means = (float(numbers[0]), float(numbers[1]))
    elif kind == "N":
        means = (float(numbers[0]), float(numbers[2]))
    else:
        if numbers[0] > numbers[1] or numbers[2] > numbers[3]:
            raise ValueError(f"{text!r} has a minimum above its maximum")
        means = ((numbers[0] + numbers[1]) / 2, (numbers[2] + numbers[3]) / 2)
    if means[0] < 1 or means[1] < 2:
        raise ValueError(
            f"{text!r} needs at least 1 input and 2 output tokens (TPOT is the time between tokens)"
        )
    return Scenario(text, *means)


@dataclass(frozen=True)
class Load:
    """One load point as it is asked for: a scenario at a concurrency.

    Attributes:
        index: position in the workload, from 0.
        concurrency: requests kept in flight.
        max_requests: measured requests after which the load ends.
        max_seconds: measured seconds after which it ends, whichever comes first.
        warmup_requests: requests finished, at the same concurrency, before measuring starts.
        seed: seed of the prompts; the same for every trial of a study, so that trials are
            compared on the same prompts, and another for every load point, so that a prefix
            cache filled by one does not flatter the next.
        request: fields added to every request, JSON types kept.
        probe: a smaller part of a load, for the scheduler to rank; in no objective.
    """

    index: int
    scenario: str
    concurrency: int
    max_requests: int
    max_seconds: float
    warmup_requests: int
    seed: int
    request: Mapping[str, Any] = field(default_factory=dict)
    probe: bool = False

    @property
    def seconds_at_most(self) -> float:
        """Warm-up and window, each at most `max_seconds`, and a margin for starting and
        reporting; after that the load generator is given up."""
        return 2 * self.max_seconds + 60

    @property
    def name(self) -> str:
        """Short and unique inside a study: ``D(64,16) x 8``."""
        return f"{self.scenario} x {self.concurrency}"


def load_levels(low: int, high: int, precision: float) -> tuple[int, ...]:
    """The concurrencies a search for the highest bearable one may try, both ends included.

    Neighbours differ by at most the factor 1 + `precision`, or by 1: below 1 / `precision`
    there is no whole number between. The same for every trial, so that all are compared at the
    same loads under the same prompts.

    Raises:
        ValueError: `low` not within 1..`high`, or `precision` not above 0.
    """
    if not 1 <= low <= high:
        raise ValueError(f"the lowest concurrency, {low}, must be within 1 and {high}")
    if precision <= 0:
        raise ValueError(f"precision must be above 0, not {precision}")
    levels = [low]
    while levels[-1] < high:
        levels.append(min(high, max(levels[-1] + 1, int(levels[-1] * (1 + precision)))))
    return tuple(levels)


def next_level(levels: Sequence[int], met: Mapping[int, bool]) -> int | None:
    """The concurrency to measure next, by bisection; None when the highest met is known.

    Of the levels between the highest that met its bounds and the lowest that did not, the
    middle one: at most log2(levels + 1), rounded up, are measured. It starts in the middle, not
    at the lowest, which is measured only when all above it failed: asking it first would cost
    every trial that bears it, which is nearly all of them, one load point more.

    What is taken for granted is that a server which fails at one load fails at every higher
    one. Noise close to the bound can turn one answer, and the result is then some levels off;
    a level is never measured twice.
    """
    passed = max((level for level in met if met[level]), default=0)
    failed = min((level for level in met if not met[level]), default=float("inf"))
    left = [level for level in levels if passed < level < failed and level not in met]
    return left[len(left) // 2] if left else None


def highest_met(met: Mapping[int, bool]) -> int | None:
    """The highest concurrency at which and below which every bound was met as far as measured.

    0 where the lowest that was measured failed, None where nothing was.
    """
    if not met:
        return None
    failed = min((level for level in met if not met[level]), default=float("inf"))
    return max((level for level in met if level < failed), default=0)


def level_step(levels: Sequence[int], level: float) -> float:
    """Relative distance from a level to the next higher one: how exactly it is known.

    Below the lowest it is that of the lowest, above the highest 0.
    """
    at = max((each for each in levels if each <= level), default=levels[0])
    above = min((each for each in levels if each > at), default=at)
    return above / at - 1
