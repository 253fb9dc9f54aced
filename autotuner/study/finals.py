"""The finals of a study: the best of the search and the baseline launched again, in rounds, until
the verdict is out. All of it is read from the trials, so that a resumed study goes on with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from autotuner.study.metrics import MAX_LOAD, METRICS
from autotuner.study.objective import penalisable
from autotuner.study.pareto import best_of, pareto_front
from autotuner.study.quantization import QUANTIZATION
from autotuner.study.space import left_out
from autotuner.study.spec import LOAD_PRECISION, StudySpec
from autotuner.study.trial import BASELINE, Trial, TrialState, baseline_of
from autotuner.study.verdict import LEAST_REPEATS, Contest, Finding, Verdict, judge
from autotuner.study.workload import level_step, load_levels


def finalists(spec: StudySpec, trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """The best trials of the search: of one objective by its value, of several the front.

    Only what was measured better than the baseline in the first objective can beat it in the
    finals, as far as anyone knows.
    """
    objective = METRICS[spec.objectives[0]]
    if not penalisable(objective.name):
        return ()  # of values whose best is 0 there are no ratios
    found = [t for t in trials if t.feasible and t.searched and not t.is_baseline]
    if len(spec.objectives) > 1:
        front = {trial.number for trial in pareto_front(trials, spec.objectives)}
        found = [trial for trial in found if trial.number in front]
    baseline = baseline_of(trials)
    if baseline is not None and baseline.feasible:
        bar = baseline.scores[objective.name] or 0.0
        found = [t for t in found if objective.is_better(t.scores[objective.name] or 0.0, bar)]
    sign = -1 if objective.is_better(1, 0) else 1
    found.sort(key=lambda t: (sign * (t.scores[objective.name] or 0.0), t.number))
    return tuple(found[: spec.verdict.finalists])


def contest(spec: StudySpec, trials: Sequence[Trial], *, rounds: int | None = None) -> Contest:
    """The finals as the verdict takes them.

    Args:
        rounds: only so many of the first rounds; all by default.
    """
    objective = spec.objectives[0]
    chosen = finalists(spec, trials)
    baseline = baseline_of(trials)
    # Out of bounds it cannot win, but gains are over it all the same.
    known = baseline is not None and bool(baseline.scores.get(objective))
    numbers = [*([BASELINE] if known else []), *(trial.number for trial in chosen)]
    repeats = [
        t
        for t in trials
        if t.repeat_of in numbers and t.state.answered and (rounds is None or t.round <= rounds)
    ]
    return Contest(
        objective=METRICS[objective],
        baseline=BASELINE if known else None,
        overrides={trial.number: _overrides(trial) for trial in chosen},
        rounds=[
            {
                t.repeat_of: t.scores.get(objective)
                for t in repeats
                if t.round == number and t.repeat_of is not None
            }
            for number in range(1, max((t.round for t in repeats), default=0) + 1)
        ],
        most_rounds=spec.verdict.rounds,
        confidence=spec.verdict.confidence,
        out={
            number: why
            for number in numbers
            if (why := _out([t for t in repeats if t.repeat_of == number]))
        },
        resolution=_resolution(spec, repeats),
    )


def verdict(spec: StudySpec, trials: Sequence[Trial]) -> Verdict | None:
    """What the finals say so far; None where none were asked for or none was launched."""
    if not any(not trial.searched for trial in trials):
        return None
    return judge(contest(spec, trials))


class Due(NamedTuple):
    """Trials to launch again in a round, in this order. `opens`: none of it was launched yet."""

    round: int
    numbers: tuple[int, ...]
    opens: bool


def due(spec: StudySpec, trials: Sequence[Trial]) -> Due:
    """What is to be launched now: nothing while a round is under way, nor once nothing more can
    be learnt."""
    if not spec.verdict.finalists or not finalists(spec, trials):
        return Due(0, (), opens=False)
    now = max((trial.round for trial in trials), default=0)
    if now:
        # What the machine broke is launched again.
        broken = (TrialState.FAILED, TrialState.CANCELLED)
        there = {t.repeat_of for t in trials if t.round == now and t.state not in broken}
        wanted = judge(contest(spec, trials, rounds=now - 1)).active
        missing = tuple(number for number in wanted if number not in there)
        if missing:
            return Due(now, missing, opens=False)
        if any(not trial.state.ended for trial in trials) or now >= spec.verdict.rounds:
            return Due(now, (), opens=False)
    return Due(now + 1, judge(contest(spec, trials)).active, opens=True)


def winner(spec: StudySpec, trials: Sequence[Trial]) -> Trial | None:
    """The trial to serve with, see `winner_by`."""
    return winner_by(verdict(spec, trials), spec, trials)


def winner_by(found: Verdict | None, spec: StudySpec, trials: Sequence[Trial]) -> Trial | None:
    """The trial to serve with: the verdict's; the baseline where nothing beats it; and without
    finals the best of the search."""
    if found is None or found.finding is Finding.UNDECIDED:
        return best_of(trials, spec.objectives)
    if found.winner is None:
        baseline = baseline_of(trials)
        return baseline if baseline is not None and baseline.feasible else None
    return next(trial for trial in trials if trial.number == found.winner)


def _resolution(spec: StudySpec, repeats: Sequence[Trial]) -> float:
    """Relative step of the objective's values: `max_load` is one of a few levels."""
    if spec.objectives[0] != MAX_LOAD:
        return 0.0
    low, high = spec.workload.concurrency
    levels = load_levels(low, high, LOAD_PRECISION)
    values = {int(value) for t in repeats if (value := t.scores.get(MAX_LOAD))}
    return max((level_step(levels, value) for value in values), default=LOAD_PRECISION)


def _out(repeats: Sequence[Trial]) -> str:
    """Why a candidate cannot win whatever its values, or empty.

    One repeat slightly beyond a bound is noise; out of bounds on average is not.
    """
    for each in repeats:
        if each.state is TrialState.INFEASIBLE:
            return each.reason
    if len(repeats) < LEAST_REPEATS:
        return ""
    names = {name for each in repeats for name in each.violations}
    for name in sorted(names):
        mean = sum(each.violations.get(name, 0.0) for each in repeats) / len(repeats)
        if mean > 0 and all(each.penalty <= 1 for each in repeats):
            return f"{name} is {mean:.0%} out of bounds on average"
    return ""


AS_IT_IS = ("auto", "default")
"""Values of a quantization block that leave every flag out."""


def _overrides(trial: Trial) -> int:
    """Parameters that differ from the engine's defaults."""
    return sum(
        not left_out(value) and not (name.startswith(QUANTIZATION) and value in AS_IT_IS)
        for name, value in trial.parameters.items()
    )
