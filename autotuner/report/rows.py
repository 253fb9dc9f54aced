"""A study at a glance, as lists and `status` show it; the same value here and from the service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autotuner.report.summary import answer, counts, objectives_of
from autotuner.report.words import Json, counted, duration, measured, percent
from autotuner.study.study import Study
from autotuner.study.trial import BASELINE, Trial, TrialState, baseline_of

BLOCKS = 50
"""Trials of a study that are shown one by one."""


def row(study: Study, trials: Sequence[Trial]) -> dict[str, Any]:
    """All of it that changes with an event only; see `Studies.moment` for the rest."""
    spec = study.spec
    (best, gained), baseline = answer(spec, trials), baseline_of(trials)
    first = spec.objectives[0]
    return {
        **bare_row(study, trials, backend=spec.backend.kind),
        "description": spec.description,
        "model": spec.model.path,
        "engine": " / ".join(spec.engine.kinds),
        "objectives": objectives_of(spec),
        "budget": spec.budget,
        "best": None if best is None else {"number": best.number, "value": best.objectives[first]},
        "baseline": baseline.objectives.get(first)
        if baseline is not None and baseline.state is TrialState.COMPLETE
        else None,
        "gain": gained[first],
    }


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
        "counts": counts(trials),
        "blocks": [_block(trial) for trial in shown[:BLOCKS]],
        "more": max(0, len(shown) - BLOCKS),
        "running": [_running(trial) for trial in trials if not trial.state.ended],
        "finals": {
            "round": max((trial.round for trial in trials), default=0),
            "launches": sum(not trial.searched for trial in trials),
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
        best = content["best"]
        value = measured(best["value"], content["objectives"][0]["name"])
        lines.append(f"  best so far: trial {best['number']}, {value} ({percent(content['gain'])})")
    if content["eta"] is not None:
        lines.append(f"  about {duration(content['eta'])} left")
    for each in content["running"]:
        again = f" again (round {each['round']})" if each["round"] else ""
        lines.append(f"  trial {each['trial']}{again} {each['state']} {each['note']}".rstrip())
    if content["state"] == "LOST":
        lines.append(f"  its driver is gone; to go on: autotuner resume {content['name']}")
    return lines


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
