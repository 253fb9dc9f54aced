"""A study and its trials as one JSON value: what the command line, the page and the API show."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

from autotuner.study.metrics import METRICS
from autotuner.study.pareto import best_of, pareto_front
from autotuner.study.space import Parameters, identity
from autotuner.study.study import Study, seconds_between
from autotuner.study.trial import Trial, TrialState, baseline_of


def summary(study: Study, trials: Sequence[Trial], *, command: str = "") -> dict[str, Any]:
    """Everything a report shows, as JSON.

    Keys: ``study`` (what was asked), ``counts`` (trials by state), ``baseline``, ``best`` and
    ``front`` (trial numbers), ``gain`` (relative, per objective, of the best over the baseline;
    None where either is missing), ``command`` (the best trial's launch command), ``trials``.

    Args:
        command: launch command of the best trial, made by its engine.
    """
    objectives = study.spec.objectives
    best, baseline = best_of(trials, objectives), baseline_of(trials)
    return {
        "study": study_summary(study),
        "counts": counts(trials),
        "baseline": baseline.number if baseline else None,
        "best": best.number if best else None,
        "front": [trial.number for trial in pareto_front(trials, objectives)],
        "gain": gains(best, baseline, objectives),
        "command": command,
        "trials": [trial_summary(trial) for trial in trials],
    }


def study_summary(study: Study) -> dict[str, Any]:
    spec = study.spec
    return {
        "name": study.name,
        "description": spec.description,
        "state": study.state.value,
        "reason": study.reason,
        "model": spec.model.path,
        "engine": " / ".join(spec.engine.kinds),
        "engine_version": spec.engine.version,
        "backend": spec.backend.kind,
        "search": spec.search.kind,
        "objectives": [
            {"name": name, "unit": METRICS[name].unit, "better": METRICS[name].better.value}
            for name in spec.objectives
        ],
        "constraints": [constraint.text for constraint in spec.bounds],
        "loads": [load.name for load in spec.loads()],
        "directory": study.directory,
        "created_at": study.created_at,
        "started_at": study.started_at,
        "ended_at": study.ended_at,
        "seconds": seconds_between(study.started_at, study.ended_at),
        "spec": spec.model_dump(mode="json"),
    }


def trial_summary(trial: Trial) -> dict[str, Any]:
    return {
        **dataclasses.asdict(trial),
        "state": trial.state.value,
        "failure": trial.failure.value if trial.failure else None,
        "baseline": trial.is_baseline,
        "refused": trial.refused,
        "feasible": trial.feasible,
        "seconds": trial.seconds,
    }


def counts(trials: Sequence[Trial]) -> dict[str, int]:
    """Trials by state, refused points apart from those that were launched."""
    return dict(Counter("REFUSED" if t.refused else t.state.value for t in trials))


def gains(
    best: Trial | None, baseline: Trial | None, objectives: Sequence[str]
) -> dict[str, float | None]:
    """Relative gain of the best over the baseline: 0.25 is 25 % better.

    None where there is no measured baseline. One run each: the spread of repeated runs is not
    in it.
    """
    gained: dict[str, float | None] = {}
    for name in objectives:
        value = best.objectives.get(name) if best else None
        reference = None
        if baseline is not None and baseline.state is TrialState.COMPLETE:
            reference = baseline.objectives.get(name)
        known = value is not None and reference is not None
        gained[name] = METRICS[name].gain(value, reference) if known else None  # type: ignore[arg-type]
    return gained


def parameters_text(parameters: Parameters) -> str:
    """A point in one line; the baseline says so."""
    return (
        " ".join(f"{k}={v if isinstance(v, str) else identity(v)}" for k, v in parameters.items())
        or "(engine defaults)"
    )
