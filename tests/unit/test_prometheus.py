"""What a study's trials say to Prometheus, as values; Ray's own part with a recording gauge."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from autotuner.errors import FailureClass
from autotuner.execution import prometheus
from autotuner.execution.prometheus import GAUGES, HISTOGRAM, METRICS, Sample, Telemetry, samples
from autotuner.study.trial import LoadPoint, Phase, Trial, TrialState
from tests.builders import trial

DASHBOARD = Path(__file__).parent.parent.parent / "cluster" / "grafana.json"
NAMES = ("output_throughput",)


def measured(number: int, throughput: float, *, ended_at: str = "", gpus: int = 1) -> Trial:
    return trial(
        number,
        {"max-num-seqs": number},
        objectives={"output_throughput": throughput},
        load_points=(
            LoadPoint(0, "D(1,1)", 4, 1.0, {"output_throughput": throughput / 2}, probe=True),
            LoadPoint(1, "D(1,1)", 8, 9.0, {"output_throughput": throughput}),
        ),
        phases=(Phase("deploy", 0, 60), Phase("D(1,1) x 8", 60, 70), Phase("stop", 70, 72)),
        gpu_ids=tuple(map(str, range(gpus))),
        ended_at=ended_at or f"2026-01-05T12:00:{number:02}+00:00",
    )


def values(found: list[Sample], name: str) -> dict[str, float]:
    """The values of one metric by its label."""
    return {"".join(each.labels.values()): each.value for each in found if each.name == name}


def test_every_state_and_every_class_of_failure_is_counted_zeros_too() -> None:
    found = samples([], NAMES)
    assert values(found, "autotuner_trials") == {state.value: 0 for state in TrialState}
    assert values(found, "autotuner_failures") == {each.value: 0 for each in FailureClass}
    assert values(found, "autotuner_gpus") == {"": 0}
    assert values(found, "autotuner_best") == {}, "nothing is said of what is not known"


def test_states_failures_gpus_and_phases_are_those_of_the_trials() -> None:
    crashed = trial(
        2, state=TrialState.INFEASIBLE, failure=FailureClass.CRASH, gpu_ids=("0", "1", "2")
    )
    running = trial(3, state=TrialState.BENCHMARKING, gpu_ids=("0", "1"))
    deploying = trial(4, state=TrialState.DEPLOYING, gpu_ids=("2",))
    waiting = trial(5, state=TrialState.PENDING)
    found = samples(
        [measured(0, 100), measured(1, 150), crashed, running, deploying, waiting], NAMES
    )
    states = values(found, "autotuner_trials")
    assert {state: count for state, count in states.items() if count} == {
        "COMPLETE": 2,
        "INFEASIBLE": 1,
        "BENCHMARKING": 1,
        "DEPLOYING": 1,
        "PENDING": 1,
    }
    assert values(found, "autotuner_failures")[FailureClass.CRASH] == 1
    assert sum(values(found, "autotuner_failures").values()) == 1
    assert values(found, "autotuner_gpus") == {"": 3}, "of those that run"
    assert values(found, "autotuner_gpu_hours") == {"": pytest.approx(2 * 72 / 3600)}
    assert values(found, "autotuner_phase_seconds") == {"deploy": 120, "load": 20, "stop": 4}


def test_the_best_is_said_with_its_gain_over_the_baseline() -> None:
    found = samples([measured(0, 100), measured(1, 150), measured(2, 120)], NAMES)
    assert values(found, "autotuner_best") == {"output_throughput": 150}
    assert values(found, "autotuner_gain") == {"output_throughput": pytest.approx(0.5)}


def test_without_a_baseline_a_best_is_said_and_no_gain() -> None:
    found = samples([measured(1, 150)], NAMES)
    assert values(found, "autotuner_best") == {"output_throughput": 150}
    assert values(found, "autotuner_gain") == {}


def test_throughput_is_that_of_the_trial_that_ended_last_and_no_probe_of_it() -> None:
    late = measured(1, 150, ended_at="2026-01-05T13:00:00+00:00")
    assert values(samples([late, measured(2, 90)], NAMES), "autotuner_output_throughput") == {
        "D(1,1) x 8": 150
    }


class Recorder:
    """Stands in for Ray's gauges and histograms: keeps what it was told, by labels."""

    made: dict[str, Recorder]

    def __init__(self, name: str, description: str, *more: Any) -> None:
        assert description
        self.labels = more[-1]
        self.values: dict[tuple[tuple[str, str], ...], list[float]] = {}
        Recorder.made[name] = self

    def set(self, value: float, labels: Mapping[str, str]) -> None:
        assert set(labels) == set(self.labels), "all labels are said, and no others"
        self.values.setdefault(tuple(sorted(labels.items())), []).append(value)

    observe = set


@pytest.fixture
def ray_metrics(monkeypatch: pytest.MonkeyPatch) -> dict[str, Recorder]:
    Recorder.made = {}
    monkeypatch.setattr(prometheus, "Gauge", Recorder)
    monkeypatch.setattr(prometheus, "Histogram", Recorder)
    return Recorder.made


class Known:
    """A loop with the trials of an earlier run."""

    def __init__(self, *trials: Trial) -> None:
        self.trials = list(trials)


def test_a_resumed_study_counts_on_and_a_trial_is_timed_once(
    ray_metrics: dict[str, Recorder],
) -> None:
    said = Telemetry("small", NAMES)
    said.begun(Known(measured(0, 100)))
    said.changed(trial(1, state=TrialState.DEPLOYING))
    said.changed(measured(1, 150))
    said.changed(measured(1, 150))
    complete = (("state", "COMPLETE"), ("study", "small"))
    assert ray_metrics["autotuner_trials"].values[complete] == [1, 1, 2, 2]
    assert ray_metrics["autotuner_trial_seconds"].values == {complete: [72]}
    deploying = (("state", "DEPLOYING"), ("study", "small"))
    assert ray_metrics["autotuner_trials"].values[deploying][-1] == 0, "no gauge keeps a state"


def test_a_refused_point_has_no_length(ray_metrics: dict[str, Recorder]) -> None:
    said = Telemetry("small", NAMES)
    said.changed(trial(1, state=TrialState.INFEASIBLE, failure=FailureClass.REFUSED))
    assert ray_metrics["autotuner_trial_seconds"].values == {}


def test_each_metric_is_in_the_table_of_the_module() -> None:
    assert prometheus.__doc__ is not None
    told = set(re.findall(r"^(autotuner_\w+)", prometheus.__doc__, re.M))
    assert told == {metric.name for metric in METRICS}


def test_and_in_the_docs_with_its_labels() -> None:
    docs = (DASHBOARD.parent.parent / "docs" / "cluster.md").read_text()
    rows = re.findall(r"^\| `ray_(autotuner_\w+)` \|[^|]+\|(.+)\|$", docs, re.M)
    told = {name: set(re.findall(r"`(\w+)`", said)) for name, said in rows}
    assert told == {metric.name: set(metric.labels) for metric in METRICS}


def expressions(content: Any) -> Iterator[str]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            if key in ("expr", "definition", "query") and isinstance(value, str):
                yield value
            else:
                yield from expressions(value)
    elif isinstance(content, list):
        for each in content:
            yield from expressions(each)


def test_the_dashboard_asks_for_metrics_and_labels_that_there_are() -> None:
    labels = {f"ray_{metric.name}": {"study", *metric.labels} for metric in GAUGES}
    for suffix in ("_bucket", "_sum", "_count"):
        labels[f"ray_{HISTOGRAM.name}{suffix}"] = {"study", "le", *HISTOGRAM.labels}
    asked: set[str] = set()
    for expression in expressions(json.loads(DASHBOARD.read_text())):
        names = re.findall(r"\bray_autotuner_\w+", expression)
        asked.update(names)
        assert set(names) <= set(labels), expression
        if not names:
            continue
        used = set(re.findall(r"(\w+)=~?\"", expression))
        used |= {
            each.strip()
            for group in re.findall(r"by \(([^)]*)\)", expression)
            for each in group.split(",")
        }
        assert used <= labels[names[0]], expression
    shown = {name.removeprefix("ray_") for name in asked}
    assert {metric.name for metric in GAUGES} <= shown, "and for all of them"
    assert any(name.startswith(HISTOGRAM.name) for name in shown)
