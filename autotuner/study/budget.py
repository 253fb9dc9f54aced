"""What a study may still cost: pure functions of its limits and of what its trials took."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autotuner.study.spec import StudySpec
from autotuner.study.trial import Trial, TrialState

LEAST_ROUNDS = 2
"""Rounds of the verdict that the search leaves time for."""


@dataclass(frozen=True)
class Typical:
    """A trial of this study as it was so far; nothing is known before the first has ended."""

    seconds: float
    gpus: float


def typical(trials: Sequence[Trial]) -> Typical | None:
    """The mean of the complete trials: those that failed or were stopped took less."""
    ended = [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.seconds]
    if not ended:
        return None
    return Typical(
        math.fsum(trial.seconds for trial in ended) / len(ended),
        sum(len(trial.gpu_ids) for trial in ended) / len(ended),
    )


def gpu_hours(trials: Sequence[Trial]) -> float:
    """Spent so far, by the trials that have ended or said how far they are."""
    return math.fsum(trial.gpu_hours for trial in trials)


def verdict_launches(spec: StudySpec) -> int:
    """Launches in one round of the verdict: the finalists and the baseline."""
    return spec.verdict.finalists + 1 if spec.verdict.finalists else 0


def why_no_trial(
    spec: StudySpec, trials: Sequence[Trial], *, elapsed: float, at_once: int
) -> str | None:
    """Why the search cannot afford one trial more and its verdict, or None.

    Args:
        elapsed: seconds since the study began.
        at_once: trials that run side by side.
    """
    one = typical(trials)
    if one is None:
        return None
    round_of = verdict_launches(spec)
    turns = LEAST_ROUNDS * math.ceil(round_of / max(1, at_once))
    reserved = " and its verdict" if turns else ""
    if elapsed + (1 + turns) * one.seconds > spec.limits.hours * 3600:
        return f"another trial{reserved} would not end within {spec.limits.hours:g} h"
    running = sum(not trial.state.ended for trial in trials)
    launches = running + 1 + LEAST_ROUNDS * round_of
    return _beyond_gpu_hours(spec, trials, one, launches, f"another trial{reserved}")


def why_no_round(
    spec: StudySpec, trials: Sequence[Trial], launches: int, *, elapsed: float, at_once: int
) -> str | None:
    """Why another round of the verdict, of so many launches, cannot be afforded, or None."""
    one = typical(trials)
    if one is None:
        return None
    turns = math.ceil(launches / max(1, at_once))
    if elapsed + turns * one.seconds > spec.limits.hours * 3600:
        return f"another round would not end within {spec.limits.hours:g} h"
    return _beyond_gpu_hours(spec, trials, one, launches, "another round")


def _beyond_gpu_hours(
    spec: StudySpec, trials: Sequence[Trial], one: Typical, launches: int, what: str
) -> str | None:
    limit = spec.limits.gpu_hours
    if limit is None:
        return None
    if gpu_hours(trials) + launches * one.gpus * one.seconds / 3600 > limit:
        return f"{what} would cost more than {limit:g} GPU-hours"
    return None
