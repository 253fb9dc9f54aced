"""What a study may still cost: pure functions of its limits and of what its trials took."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from autotuner.study.spec import StudySpec
from autotuner.study.trial import Trial, TrialState

LEAST_ROUNDS = 2
"""Rounds of the verdict that the search leaves time for."""

COUNTED_POINTS = 10_000
"""Of a space with conditions, which are counted one by one: some hundredths of a second."""


@dataclass(frozen=True)
class Typical:
    """A trial of this study as it was so far; nothing is known before the first has ended."""

    seconds: float
    gpus: float


def typical(trials: Sequence[Trial]) -> Typical | None:
    """The mean of the complete trials, since those that failed or were stopped took less; of all
    that were launched as long as none is complete."""
    launched = [trial for trial in trials if trial.state.ended and trial.seconds]
    ended = [trial for trial in launched if trial.state is TrialState.COMPLETE] or launched
    if not ended:
        return None
    return Typical(
        math.fsum(trial.seconds for trial in ended) / len(ended),
        sum(len(trial.gpu_ids) for trial in ended) / len(ended),
    )


def gpu_hours(trials: Sequence[Trial]) -> float:
    """Spent so far, by every attempt of the trials that have ended or said how far they are."""
    return math.fsum(trial.gpu_hours for trial in trials)


def verdict_launches(spec: StudySpec) -> int:
    """Launches in one round of the verdict: the finalists and the baseline."""
    return spec.verdict.finalists + 1 if spec.verdict.finalists else 0


def launched(trials: Sequence[Trial]) -> int:
    """Trials that count against the budget; those the infrastructure broke do not."""
    return sum(
        not trial.refused and trial.state is not TrialState.FAILED for trial in _of_search(trials)
    )


def trials_left(spec: StudySpec, trials: Sequence[Trial]) -> int | None:
    """Trials that the search can still start, at most: by its budget, and by the points that the
    space still has; None where neither ends it."""
    if any(not trial.searched for trial in trials):
        return 0  # the finals have begun
    size = spec.parameter_space.size(limit=COUNTED_POINTS)
    by_budget = None if spec.budget is None else spec.budget - launched(trials)
    by_space = None if size is None else size - len(_of_search(trials))
    left = [each for each in (by_budget, by_space) if each is not None]
    return max(0, min(left)) if left else None


def _of_search(trials: Sequence[Trial]) -> list[Trial]:
    """One for each point that was asked for, refused ones too."""
    return [trial for trial in trials if trial.searched and not trial.is_baseline]


def seconds_left(spec: StudySpec, trials: Sequence[Trial]) -> float | None:
    """Seconds until the study ends, as far as its trials so far tell; None while they do not.

    Of the search, with as many side by side as there were at most so far (between two trials
    fewer run), and of the verdict's least rounds.
    """
    one, left = typical(trials), trials_left(spec, trials)
    if one is None or left is None:
        return None
    waiting = sum(trial.searched and trial.state is TrialState.PENDING for trial in trials)
    running = sum(trial.searched and not trial.state.ended for trial in trials) - waiting
    repeats = sum(not trial.searched and trial.state.ended for trial in trials)
    search = (left + waiting + running / 2) * one.seconds / max(1, running, _side_by_side(trials))
    finals = max(0, LEAST_ROUNDS * verdict_launches(spec) - repeats) * one.seconds
    return search + finals


def _side_by_side(trials: Sequence[Trial]) -> int:
    """The most trials of the search that ran at one time, by when they started and ended."""
    begun = [trial for trial in trials if trial.searched and trial.started_at]
    under_way = [trial for trial in begun if not trial.state.ended]
    ended = [trial for trial in begun if trial.state.ended and trial.ended_at]
    # Stored times are alike in form and zone, so they sort as text; at the same time, an end
    # comes before a start.
    changes = [(trial.started_at, 1) for trial in (*under_way, *ended)]
    changes += [(trial.ended_at, -1) for trial in ended]
    return max(accumulate(step for _, step in sorted(changes)), default=0)


def why_no_trial(
    spec: StudySpec, trials: Sequence[Trial], *, elapsed: float, gpus: int | None = None
) -> str | None:
    """Why the search cannot afford one trial more and its verdict, or None.

    The finals are launched one after another, whatever runs side by side in the search.

    Args:
        elapsed: seconds since the study began.
        gpus: of that trial; as many as others had by default.
    """
    one = typical(trials)
    if one is None:  # but all that was spent so far may have been lost
        return _beyond_gpu_hours(spec, trials, 0.0, "another trial")
    round_of = verdict_launches(spec)
    turns = LEAST_ROUNDS * round_of
    reserved = " and its verdict" if turns else ""
    if elapsed + (1 + turns) * one.seconds > spec.limits.hours * 3600:
        return f"another trial{reserved} would not end within {spec.limits.hours:g} h"
    under_way = [trial for trial in trials if not trial.state.ended]
    held = sum(len(trial.gpu_ids) or one.gpus for trial in under_way)
    wanted = held + (one.gpus if gpus is None else gpus) + turns * one.gpus
    return _beyond_gpu_hours(spec, trials, wanted * one.seconds, f"another trial{reserved}")


def why_no_round(
    spec: StudySpec, trials: Sequence[Trial], launches: int, *, elapsed: float
) -> str | None:
    """Why another round of the verdict, of so many launches, cannot be afforded, or None."""
    one = typical(trials)
    if one is None:
        return None
    if elapsed + launches * one.seconds > spec.limits.hours * 3600:
        return f"another round would not end within {spec.limits.hours:g} h"
    return _beyond_gpu_hours(spec, trials, launches * one.gpus * one.seconds, "another round")


def _beyond_gpu_hours(
    spec: StudySpec, trials: Sequence[Trial], gpu_seconds: float, what: str
) -> str | None:
    limit = spec.limits.gpu_hours
    if limit is None:
        return None
    # What is under way is spoken for in the caller's sum, but for the attempts that it lost.
    spent = (t.gpu_hours if t.state.ended else t.lost_gpu_hours for t in trials)
    if math.fsum(spent) + gpu_seconds / 3600 > limit:
        return f"{what} would cost more than {limit:g} GPU-hours"
    return None
