"""A study at a glance, as lists and `status` show it; the same value here and from the service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autotuner.report.summary import answer, counts, objectives_of
from autotuner.report.words import Json, counted, duration, measured, percent
from autotuner.study.spec import StudySpec
from autotuner.study.study import Study, StudyState
from autotuner.study.trial import BASELINE, Trial, TrialState, baseline_of
from autotuner.study.verdict import Finding, Verdict

BLOCKS = 50
"""Trials of a study that are shown one by one."""

_ENDED = frozenset(state.value for state in StudyState if state.ended)
_BROKEN_OFF = ("LOST", StudyState.CANCELLED.value, StudyState.FAILED.value)


def row(study: Study, trials: Sequence[Trial]) -> dict[str, Any]:
    """All of it that changes with an event only; see `Studies.moment` for the rest."""
    spec = study.spec
    best, gained, found = answer(spec, trials)
    first = spec.objectives[0]
    bare = bare_row(study, trials, backend=spec.backend.kind)
    value, reference = _values(spec, trials, best, found)
    return {
        **bare,
        "finals": {**bare["finals"], "finding": None if found is None else found.finding.value},
        "description": spec.description,
        "model": spec.model.path,
        "engine": " / ".join(spec.engine.kinds),
        "objectives": objectives_of(spec),
        "budget": spec.budget,
        "best": None if best is None else {"number": best.number, "value": value},
        "baseline": reference,
        "gain": gained[first],
    }


def _values(
    spec: StudySpec, trials: Sequence[Trial], best: Trial | None, found: Verdict | None
) -> tuple[float | None, float | None]:
    """The first objective of the best and of the baseline: the means of their repeats where the
    gain is that of the repeats, else what the search measured."""
    if best is not None and found is not None and found.finding is Finding.GAIN:
        return found.standing(best.number).value, found.standing(BASELINE).value
    first, baseline = spec.objectives[0], baseline_of(trials)
    measured_once = baseline is not None and baseline.state is TrialState.COMPLETE
    return (
        None if best is None else best.objectives[first],
        baseline.objectives.get(first) if baseline is not None and measured_once else None,
    )


def bare_row(stored: Any, trials: Sequence[Trial], *, backend: str) -> dict[str, Any]:
    """What of it can be said without what was asked, which another version may have stored.

    Args:
        stored: a study, or one without its spec: `store.Stored`.
    """
    shown = [trial for trial in trials if trial.searched and not trial.refused]
    return {
        "name": stored.name,
        "team": stored.team,
        "description": "",
        "reason": stored.reason,
        "model": "",
        "engine": "",
        "backend": backend,
        "objectives": [],
        "counts": counts([trial for trial in trials if trial.searched]),
        "blocks": [_block(trial) for trial in shown[:BLOCKS]],
        "more": max(0, len(shown) - BLOCKS),
        "running": [_running(trial) for trial in trials if not trial.state.ended],
        "finals": {
            "round": max((trial.round for trial in trials), default=0),
            "launches": sum(not trial.searched for trial in trials),
            "finding": None,
        },
        "budget": None,
        "best": None,
        "baseline": None,
        "gain": None,
        "created_at": stored.created_at,
        "started_at": stored.started_at,
        "ended_at": stored.ended_at,
    }


def _block(trial: Trial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state.value,
        "feasible": trial.feasible,
        "parameters": dict(trial.parameters),
        "note": trial.note,
    }


def _running(trial: Trial) -> dict[str, Any]:
    return {
        "trial": trial.number if trial.repeat_of is None else trial.repeat_of,
        "round": trial.round,
        "state": trial.state.value,
        "note": trial.note,
    }


def status_lines(content: Json) -> list[str]:
    """A row as `autotuner status` says it."""
    by_state = ", ".join(f"{count} {state}" for state, count in content["counts"].items())
    reason = f" ({content['reason']})" if content["reason"] else ""
    lines = [
        f"{content['name']}: {content['state']}{reason}",
        f"  trials: {by_state or 'none yet'}",
    ]
    if content["finals"]["launches"]:
        finals = content["finals"]
        lines.append(f"  finals: round {finals['round']}, {counted(finals['launches'], 'launch')}")
    if content["best"] is not None:
        lines.append(f"  {_best_line(content)}")
    if content["eta"] is not None:
        lines.append(f"  about {duration(content['eta'])} left")
    for each in content["running"]:
        again = f" again (round {each['round']})" if each["round"] else ""
        lines.append(f"  trial {each['trial']}{again} {each['state']} {each['note']}".rstrip())
    if content["state"] in _BROKEN_OFF:
        gone = "its driver is gone; " if content["state"] == "LOST" else ""
        lines.append(f"  {gone}to go on: autotuner resume {content['name']}")
    return lines


def _best_line(content: Json) -> str:
    """The best so far; of a study that has ended, what its finals found."""
    best = content["best"]
    value = measured(best["value"], content["objectives"][0]["name"])
    said = f"trial {best['number']}, {value} ({percent(content['gain'])})"
    if content["state"] not in _ENDED:
        return f"best so far: {said}"
    finding = content["finals"].get("finding")  # no key: of a service of an earlier version
    if finding == Finding.NO_GAIN:
        return f"{finding}: keep the defaults, {value}"
    named = finding in (Finding.GAIN, Finding.NO_BASELINE)
    return f"{'winner' if named else 'best'}: {said}"


LIST_HEADING = (
    f"{'study':<32} {'state':<10} {'engine':<10} {'trials':>6} {'finals':>6} {'gain':>8}  created"
)


def list_line(content: Json) -> str:
    """A row as `autotuner list` says it: trials as `limits.trials` counts them, then the launches
    of the finals."""
    trials = sum(each["number"] != BASELINE for each in content["blocks"]) + content["more"]
    return (
        f"{content['name']:<32} {content['state']:<10} {content['engine']:<10} {trials:>6} "
        f"{content['finals']['launches']:>6} {percent(content['gain']):>8}  "
        f"{content['created_at'][:19]}Z"
    )
