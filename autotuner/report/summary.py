"""A study and its trials as one JSON value: what the command line, the page and the API show."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from autotuner.report.accuracy import accuracies
from autotuner.report.importance import importance, trials_needed
from autotuner.report.sentences import statement
from autotuner.report.words import by_cause, gain
from autotuner.study.budget import gpu_hours
from autotuner.study.finals import verdict, winner_by
from autotuner.study.metrics import METRICS
from autotuner.study.objective import Constraint, severity
from autotuner.study.pareto import best_of, pareto_front
from autotuner.study.space import Parameters, identity
from autotuner.study.spec import StudySpec
from autotuner.study.study import Study, seconds_between
from autotuner.study.trial import Trial, TrialState, baseline_of
from autotuner.study.verdict import Finding, Verdict


def summary(study: Study, trials: Sequence[Trial], *, command: str = "") -> dict[str, Any]:
    """Everything a report shows, as JSON.

    Keys, beside those of `overview`: ``verdict`` (None without finals; else what
    `study.verdict.Verdict` holds, and its ``statement``), ``statement`` (what can be said, with or
    without finals: ``sentence`` and ``notes``), ``winner`` (the trial to serve with;
    ``best`` is the same one here), ``gain_interval`` (low and high, of the first objective; None
    where it was measured once), ``failures`` (by class, with their trials, reasons and advice),
    ``refused`` (by reason), ``refusals`` (by cause, see `words.by_cause`), ``accuracy`` (of
    predictions, per metric), ``importance`` (share of each parameter in the spread of the first
    objective; empty where nothing can be said) and
    ``importance_needs`` (how many complete trials it takes; None where one parameter varies at
    most), ``command``.

    Args:
        command: launch command of the winner, made by its engine.
    """
    spec = study.spec
    found = verdict(spec, trials)
    chosen = winner_by(found, spec, trials)
    gain, interval = _gain(spec, trials, found, chosen)
    content = overview(study, trials) | {
        "verdict": None if found is None else _verdict_summary(found),
        "winner": chosen.number if chosen else None,
        "best": chosen.number if chosen else None,
        "gain": gain,
        "gain_interval": interval,
        "failures": failures(trials),
        "refused": refused(trials),
        "refusals": by_cause(Counter(trial.reason for trial in trials if trial.refused)),
        "accuracy": {name: each._asdict() for name, each in accuracies(trials).items()},
        "importance": importance(spec, trials),
        "importance_needs": trials_needed(spec) if _varied(spec) > 1 else None,
        "command": command,
    }
    said = statement(content)
    content["statement"] = {"sentence": said.sentence, "notes": list(said.notes)}
    if content["verdict"] is not None:
        content["verdict"]["statement"] = said.sentence
    return content


def answer(
    spec: StudySpec, trials: Sequence[Trial]
) -> tuple[Trial | None, dict[str, float | None], Verdict | None]:
    """The trial to serve with, its gains and the verdict, as `summary` has them."""
    found = verdict(spec, trials)
    chosen = winner_by(found, spec, trials)
    return chosen, _gain(spec, trials, found, chosen)[0], found


def overview(study: Study, trials: Sequence[Trial]) -> dict[str, Any]:
    """How a study stands, without its verdict: cheap enough to be made twice a second.

    Keys: ``study`` (what was asked), ``counts`` (trials by state), ``baseline``, ``best`` and
    ``front`` (trial numbers of the search), ``gain`` (relative, per objective, of the best over
    the baseline; None where either is missing), ``cost``, ``trials``.
    """
    objectives = study.spec.objectives
    best, baseline = best_of(trials, objectives), baseline_of(trials)
    bounds = study.spec.bounds
    return {
        "study": study_summary(study),
        "counts": counts(trials),
        "baseline": baseline.number if baseline else None,
        "best": best.number if best else None,
        "front": [trial.number for trial in pareto_front(trials, objectives)],
        "gain": gains(best, baseline, objectives),
        "cost": cost(trials),
        "trials": [trial_summary(trial, bounds) for trial in trials],
    }


SEEN = {
    "running_mean": ("requests running, mean", ""),
    "waiting_max": ("requests waiting, most", ""),
    "queued": ("time with a queue", "share"),
    "kv_usage_max": ("KV cache in use, most", "share"),
    "preemptions": ("preemptions", ""),
    "prefix_hit_rate": ("prefix cache hits", "share"),
    "gpu_utilisation_mean": ("GPUs computing, mean", "share"),
    "gpu_memory_gib_max": ("GPU memory, most", "GiB"),
    "gpu_power_w_mean": ("GPU power, mean", "W"),
    "host_cpu_mean": ("machine's CPUs, mean", "share"),
    "load_cpu_mean": ("load generator, mean", "cores"),
}
"""What of a load point's telemetry is shown beside its metrics, in words and with its unit."""


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
        "objectives": objectives_of(spec),
        "constraints": [each.text + (" (hard)" if each.hard else "") for each in spec.bounds],
        "bounds": {each.metric.name: each.bound for each in spec.bounds},
        "slo_mode": spec.slo.mode if spec.slo else None,
        "loads": load_names(spec),
        "directory": study.directory,
        "created_at": study.created_at,
        "started_at": study.started_at,
        "ended_at": study.ended_at,
        "seconds": seconds_between(study.started_at, study.ended_at),
        "spec": spec.model_dump(mode="json"),
    }


def objectives_of(spec: StudySpec) -> list[dict[str, str]]:
    """What is sought, and which way is better."""
    return [
        {"name": name, "unit": METRICS[name].unit, "better": METRICS[name].better.value}
        for name in spec.objectives
    ]


def load_names(spec: StudySpec) -> list[str]:
    """The load points of every trial, in the order they are measured, probes left out."""
    return [load.name for load in spec.loads() if not load.probe]


def trial_summary(trial: Trial, bounds: Sequence[Constraint] = ()) -> dict[str, Any]:
    """One trial; ``severity`` per bound that it breaks."""
    severities = {
        each.metric.name: severity(each, trial.violations.get(each.metric.name, 0.0))
        for each in bounds
    }
    return {
        **dataclasses.asdict(trial),
        "load_points": [
            {**dataclasses.asdict(point), "name": point.name} for point in trial.load_points
        ],
        "state": trial.state.value,
        "failure": trial.failure.value if trial.failure else None,
        "baseline": trial.is_baseline,
        "searched": trial.searched,
        "refused": trial.refused,
        "feasible": trial.feasible,
        "scores": trial.scores,
        "severity": {name: each.value for name, each in severities.items() if each},
        "seconds": trial.seconds,
        "gpu_hours": trial.gpu_hours,
    }


def counts(trials: Sequence[Trial]) -> dict[str, int]:
    """Trials by state, refused points apart from those that were launched."""
    return dict(Counter("REFUSED" if t.refused else t.state.value for t in trials))


def cost(trials: Sequence[Trial]) -> dict[str, Any]:
    """Launches, repeats included; their seconds and GPU-hours, added up."""
    launched = [t for t in trials if not t.refused and (t.phases or t.started_at)]
    return {
        "launches": len(launched),
        "seconds": sum(trial.seconds for trial in launched),
        "gpu_hours": gpu_hours(trials),
    }


def failures(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Launched trials without an answer, by class: the most frequent class and reason first."""
    return [
        {
            "failure": failure,
            "count": len(group),
            "trials": [trial.number for trial in group],
            "reasons": by_cause(Counter(trial.reason for trial in group if trial.reason)),
            "advice": [
                said for said, _ in Counter(t.advice for t in group if t.advice).most_common()
            ],
        }
        for failure, group in _grouped(
            (trial for trial in trials if _unanswered(trial)), lambda trial: _failure(trial)
        )
    ]


def refused(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Points refused before launch, by reason, the most frequent first."""
    return [
        {"reason": reason, "count": len(group), "trials": [trial.number for trial in group]}
        for reason, group in _grouped((t for t in trials if t.refused), lambda trial: trial.reason)
    ]


def gains(
    best: Trial | None, baseline: Trial | None, objectives: Sequence[str]
) -> dict[str, float | None]:
    """Relative gain of the best over the baseline: 0.25 is 25 % better.

    None where there is no measured baseline. One run each: the spread of repeated runs is not
    in it.
    """
    reached = best.objectives if best else {}
    measured = baseline is not None and baseline.state is TrialState.COMPLETE
    reference = baseline.objectives if baseline and measured else {}
    return {name: gain(name, reached.get(name), reference.get(name)) for name in objectives}


def parameters_text(parameters: Parameters) -> str:
    """A point in one line; the baseline says so."""
    return (
        " ".join(f"{name}={value_text(value)}" for name, value in parameters.items())
        or "(engine defaults)"
    )


def value_text(value: Any) -> str:
    """A parameter's value as a person writes it."""
    return value if isinstance(value, str) else identity(value)


def _varied(spec: StudySpec) -> int:
    return sum(parameter.domain.size != 1 for parameter in spec.parameter_space.parameters)


def _gain(
    spec: StudySpec, trials: Sequence[Trial], found: Verdict | None, chosen: Trial | None
) -> tuple[dict[str, float | None], list[float] | None]:
    """The winner's gains over the baseline: in the first objective that of the repeats, with its
    interval, where they show one."""
    gained = gains(chosen, baseline_of(trials), spec.objectives)
    if found is None or chosen is None or found.finding is not Finding.GAIN:
        return gained, None
    standing = found.standing(chosen.number)
    if standing.low is None or standing.high is None:
        return gained, None
    return {**gained, spec.objectives[0]: standing.gain}, [standing.low, standing.high]


def _verdict_summary(found: Verdict) -> dict[str, Any]:
    content = dataclasses.asdict(found) | {"finding": found.finding.value}
    return {name: list(each) if isinstance(each, tuple) else each for name, each in content.items()}


def _unanswered(trial: Trial) -> bool:
    broken = trial.state in (TrialState.INFEASIBLE, TrialState.FAILED)
    return broken and not trial.refused


def _failure(trial: Trial) -> str:
    if trial.failure is not None:
        return trial.failure.value
    return "infrastructure" if trial.state is TrialState.FAILED else "unknown"


def _grouped(trials: Iterable[Trial], key: Callable[[Trial], str]) -> list[tuple[str, list[Trial]]]:
    """The largest group first."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(key(trial), []).append(trial)
    return sorted(groups.items(), key=lambda group: -len(group[1]))
