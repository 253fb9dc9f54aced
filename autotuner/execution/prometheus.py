"""What a running study says to Prometheus, through Ray's metrics endpoint on the driver's node.

All of it is a function of the trials (`samples`), so that a resumed study counts on from its store;
only the length of trials is counted as they end. Ray puts ``ray_`` before the names, and
labels of its own beside ours. Labels of all: ``study``.

=================================  =========  =====================================================
name                               unit       what; further labels
=================================  =========  =====================================================
autotuner_trials                   trials     in each state, refused points and repeats included;
                                              ``state``
autotuner_failures                 trials     that ended so; ``failure``, the class of failure
autotuner_best                     metric's   value of the best trial so far; ``objective``
autotuner_gain                     1          gain of the best over the defaults, 0.25 is 25 %;
                                              ``objective``
autotuner_output_throughput        tokens/s   of the trial measured last; ``load``
autotuner_gpus                     GPUs       held by trials now, as far as they said
autotuner_gpu_hours                GPU-hours  spent so far
autotuner_phase_seconds            s          spent by trials so far; ``phase``: deploy, load, stop
autotuner_trial_seconds            s          histogram of the trials that ended in this run;
                                              ``state``
=================================  =========  =====================================================
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ray.util.metrics import Gauge, Histogram

from autotuner.errors import FailureClass
from autotuner.report.summary import gains
from autotuner.study.budget import gpu_hours
from autotuner.study.pareto import best_of
from autotuner.study.trial import Trial, TrialState, baseline_of

STUDY = "study"

TRIAL_SECONDS = "autotuner_trial_seconds"
TRIAL_SECONDS_BOUNDS = (15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 2400.0, 3600.0)


@dataclass(frozen=True)
class Metric:
    """A metric as Prometheus hears of it; `labels` besides the study's."""

    name: str
    description: str
    labels: tuple[str, ...] = ()


GAUGES = (
    Metric("autotuner_trials", "Trials of a study in each state.", ("state",)),
    Metric("autotuner_failures", "Trials of a study that ended so.", ("failure",)),
    Metric("autotuner_best", "Objective of the best trial so far, in its unit.", ("objective",)),
    Metric("autotuner_gain", "Gain of the best trial over the defaults.", ("objective",)),
    Metric("autotuner_output_throughput", "Of the last trial measured, tokens/s.", ("load",)),
    Metric("autotuner_gpus", "GPUs that trials hold now."),
    Metric("autotuner_gpu_hours", "GPU-hours spent so far."),
    Metric("autotuner_phase_seconds", "Seconds that trials spent so far.", ("phase",)),
)
HISTOGRAM = Metric(TRIAL_SECONDS, "Seconds of a trial, from launch to server gone.", ("state",))
METRICS = (*GAUGES, HISTOGRAM)

PHASES = ("deploy", "load", "stop")


@dataclass(frozen=True)
class Sample:
    """The value of a gauge now."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def samples(trials: Sequence[Trial], objectives: Sequence[str]) -> list[Sample]:
    """All that can be said of a study's trials now."""
    return [*progress(trials), *results(trials, objectives)]


def progress(trials: Sequence[Trial]) -> list[Sample]:
    """What changes with each state of a trial.

    What is counted is said of every state and class, zeros too: a gauge keeps its last value.
    """
    return [
        *_counts("autotuner_trials", "state", TrialState, (t.state for t in trials)),
        *_counts("autotuner_failures", "failure", FailureClass, (t.failure for t in trials)),
        Sample("autotuner_gpus", sum(len(t.gpu_ids) for t in trials if _holds(t))),
    ]


def results(trials: Sequence[Trial], objectives: Sequence[str]) -> list[Sample]:
    """What changes when a trial ends."""
    return [
        *_best(trials, objectives),
        *_throughput(trials),
        Sample("autotuner_gpu_hours", gpu_hours(trials)),
        *(Sample("autotuner_phase_seconds", _spent(trials, p), {"phase": p}) for p in PHASES),
    ]


class Loop(Protocol):
    """What telemetry asks of a study's loop when it begins."""

    @property
    def trials(self) -> list[Trial]: ...


class Telemetry:
    """Hears of a study like a display, and sets Ray's metrics. To be made once Ray is there."""

    def __init__(self, study: str, objectives: Sequence[str]) -> None:
        self._study = study
        self._objectives = tuple(objectives)
        self._trials: dict[int, Trial] = {}
        self._gauges = {
            metric.name: Gauge(metric.name, metric.description, (STUDY, *metric.labels))
            for metric in GAUGES
        }
        self._seconds = Histogram(
            HISTOGRAM.name,
            HISTOGRAM.description,
            list(TRIAL_SECONDS_BOUNDS),
            (STUDY, *HISTOGRAM.labels),
        )

    def begun(self, loop: Loop) -> None:
        """The trials of an earlier run of the study count, but took no time of this one."""
        self._trials = {trial.number: trial for trial in loop.trials}
        self._say(samples(loop.trials, self._objectives))

    def changed(self, trial: Trial) -> None:
        before = self._trials.get(trial.number)
        self._trials[trial.number] = trial
        ended = trial.state.ended and not (before is not None and before.state.ended)
        if ended and trial.phases:
            self._seconds.observe(trial.seconds, {STUDY: self._study, "state": trial.state.value})
        known = list(self._trials.values())
        self._say(progress(known))
        if ended:
            self._say(results(known, self._objectives))

    def _say(self, found: Sequence[Sample]) -> None:
        for sample in found:
            self._gauges[sample.name].set(sample.value, {STUDY: self._study, **sample.labels})


def _counts(
    name: str, label: str, known: Iterable[str], found: Iterable[str | None]
) -> list[Sample]:
    counts = dict.fromkeys(known, 0)
    for each in found:
        if each is not None:
            counts[each] += 1
    return [Sample(name, count, {label: str(each)}) for each, count in counts.items()]


def _best(trials: Sequence[Trial], objectives: Sequence[str]) -> list[Sample]:
    best = best_of(trials, objectives)
    if best is None:
        return []
    gained = gains(best, baseline_of(trials), objectives)
    said = [("autotuner_best", best.objectives), ("autotuner_gain", gained)]
    return [
        Sample(name, value, {"objective": objective})
        for name, values in said
        for objective, value in values.items()
        if value is not None and math.isfinite(value)
    ]


def _throughput(trials: Sequence[Trial]) -> list[Sample]:
    """At each load point, of the trial that was measured there last."""
    ended = sorted((t for t in trials if t.state.ended), key=lambda t: (t.ended_at, t.number))
    last = {
        point.name: value
        for trial in ended
        for point in trial.load_points
        if not point.probe and (value := point.metrics.get("output_throughput")) is not None
    }
    return [
        Sample("autotuner_output_throughput", value, {"load": load}) for load, value in last.items()
    ]


def _holds(trial: Trial) -> bool:
    return trial.state in (TrialState.DEPLOYING, TrialState.BENCHMARKING)


def _spent(trials: Sequence[Trial], phase: str) -> float:
    """What is neither deploy nor stop is a load point."""
    return math.fsum(
        each.seconds
        for trial in trials
        for each in trial.phases
        if phase == (each.name if each.name in PHASES else "load")
    )
