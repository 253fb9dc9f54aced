"""One trial on the simulated engine and real genai-bench, without Ray."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autotuner.errors import FailureClass, InfrastructureError
from autotuner.execution.trial import Assignment, Kinds
from autotuner.plugins import load_kind
from autotuner.settings import Site
from autotuner.study.spec import StudySpec
from autotuner.study.trial import Outcome, TrialState
from tests.processes import ours
from tests.simulated import study_file
from tests.trials import run_trial

pytestmark = pytest.mark.slow


def run(directory: Path, parameters: dict[str, Any], **changes: Any) -> tuple[Outcome, Path]:
    spec = StudySpec.model_validate(
        json.loads(study_file(directory, name="one-trial", **changes).read_text())
    )
    kinds = Kinds(
        load_kind("engine", "simulated"),
        load_kind("backend", "process").open({}, Site()),
        load_kind("benchmark", "genai-bench"),
    )
    place = directory / "trial"
    try:
        return run_trial(Assignment(spec, 1, parameters, str(place)), kinds), place
    finally:
        assert ours("one-trial") == []


def test_a_trial_measures_every_load_point_and_keeps_everything(tmp_path: Path) -> None:
    workload = {
        "scenarios": ["D(50,20)", "U(20,60)/(10,20)"],
        "concurrency": [1, 8],
        "max_requests": 20,
        "max_seconds": 5,
        "request": {"temperature": 0.0},
    }
    outcome, place = run(tmp_path, {"max-num-seqs": 8}, workload=workload)
    assert outcome.state is TrialState.COMPLETE, outcome
    assert [point.name for point in outcome.load_points] == [
        "D(50,20) x 1",
        "D(50,20) x 8",
        "U(20,60)/(10,20) x 1",
        "U(20,60)/(10,20) x 8",
    ]
    for point in outcome.load_points:
        assert point.metrics["requests"] is not None
        assert point.metrics["requests"] >= 20 or point.seconds >= 5
        assert point.metrics["error_rate"] == 0
        assert (point.metrics["output_throughput"] or 0) > 0
        overlap = point.metrics["prompt_overlap"]
        assert overlap is not None, "prompts are compared"
        assert 0 <= overlap < 0.3, "and differ from their beginning on"
    assert [phase.name for phase in outcome.phases] == [
        "deploy",
        *(point.name for point in outcome.load_points),
        "stop",
    ]
    assert json.loads((place / "plan.json").read_text())["backend"] == "process"
    assert (place / "server.log").stat().st_size > 0
    assert (place / "load-3" / "genai-bench.log").stat().st_size > 0
    assert list((place / "load-3" / "results").glob("U*_time_*s.json"))


def test_max_load_is_sought_by_bisection_on_one_server(tmp_path: Path) -> None:
    """One sequence at a time: at two in flight the second waits for the whole of the first."""
    workload = {
        "scenarios": ["D(50,20)"],
        "concurrency": [1, 16],
        "max_requests": 30,
        "max_seconds": 5,
        "request": {"temperature": 0.0},
    }
    outcome, place = run(
        tmp_path,
        {"max-num-seqs": 1},
        workload=workload,
        objectives=["max_load"],
        slo={"ttft_p50": {"max": 0.02}},
        engine={"kind": "simulated", "arguments": {"speed": 10, "noise": 0}},
    )
    assert outcome.state is TrialState.COMPLETE, outcome
    levels = [point.concurrency for point in outcome.load_points]
    assert len(levels) == len(set(levels))
    # A machine that has much else to do may bear none of them: 9, 5, 3, 2, 1.
    assert 2 <= len(levels) <= 5
    assert [phase.name for phase in outcome.phases].count("deploy") == 1
    assert json.loads((place / "plan.json").read_text())["backend"] == "process"


def test_the_window_holds_the_cap_or_the_seconds_exactly(tmp_path: Path) -> None:
    workload = {
        "scenarios": ["D(50,40)"],
        "concurrency": [2],
        "max_requests": 10_000,
        "max_seconds": 1.5,
    }
    outcome, _ = run(tmp_path, {}, workload=workload)
    (point,) = outcome.load_points
    assert point.seconds == pytest.approx(1.5, abs=0.3)


def test_a_flag_the_program_refuses_is_infeasible_with_its_own_words(tmp_path: Path) -> None:
    engine = {"kind": "simulated", "arguments": {"fail-at-start": "argument"}}
    outcome, place = run(tmp_path, {}, engine=engine)
    assert (outcome.state, outcome.failure) == (TrialState.INFEASIBLE, FailureClass.ARGUMENT)
    assert outcome.reason
    assert outcome.reason in (place / "server.log").read_text()
    assert outcome.log_tail


@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        ("memory", FailureClass.MEMORY_AT_LOAD),
        ("kv-cache", FailureClass.KV_CACHE),
        ("crash", FailureClass.CRASH),
    ],
)
def test_a_death_at_start_has_its_class(tmp_path: Path, fault: str, failure: FailureClass) -> None:
    engine = {"kind": "simulated", "arguments": {"fail-at-start": fault}}
    outcome, _ = run(tmp_path, {}, engine=engine)
    assert (outcome.state, outcome.failure) == (TrialState.INFEASIBLE, failure)


def test_a_taken_port_is_the_machines_fault(tmp_path: Path) -> None:
    engine = {"kind": "simulated", "arguments": {"fail-at-start": "port"}}
    with pytest.raises(InfrastructureError, match="port"):
        run(tmp_path, {}, engine=engine)


def test_a_death_under_load_ends_the_trial_at_once(tmp_path: Path) -> None:
    engine = {"kind": "simulated", "arguments": {"die-at-request": 12}}
    workload = {
        "scenarios": ["D(50,20)"],
        "concurrency": [4],
        "max_requests": 500,
        "max_seconds": 60,
    }
    outcome, _ = run(tmp_path, {}, engine=engine, workload=workload)
    assert outcome.state is TrialState.INFEASIBLE
    assert outcome.failure is FailureClass.CRASH
    assert outcome.phases[-1].end < 45


def test_a_server_that_is_never_ready_is_a_timeout(tmp_path: Path) -> None:
    engine = {"kind": "simulated", "arguments": {"start-seconds": 60}}
    outcome, _ = run(tmp_path, {}, engine=engine, limits={"ready_seconds": 2})
    assert (outcome.state, outcome.failure) == (TrialState.INFEASIBLE, FailureClass.TIMEOUT)
    assert "2 s" in outcome.reason


def test_a_server_that_hangs_is_not_measured_as_zero(tmp_path: Path) -> None:
    engine = {"kind": "simulated", "arguments": {"hang-at-request": 1}}
    workload = {
        "scenarios": ["D(50,20)"],
        "concurrency": [2],
        "max_requests": 10,
        "max_seconds": 2,
        "warmup_requests": 0,
    }
    outcome, _ = run(tmp_path, {}, engine=engine, workload=workload)
    assert (outcome.state, outcome.failure) == (TrialState.INFEASIBLE, FailureClass.BENCHMARK)
    assert "no request finished" in outcome.reason


def test_half_the_requests_failing_is_not_a_measurement(tmp_path: Path) -> None:
    engine = {"kind": "simulated", "arguments": {"error-rate": 0.5, "speed": 20}}
    outcome, _ = run(tmp_path, {}, engine=engine)
    assert (outcome.state, outcome.failure) == (TrialState.INFEASIBLE, FailureClass.BENCHMARK)
    assert "500" in outcome.reason


def test_a_few_failing_requests_are_counted(tmp_path: Path) -> None:
    engine = {"kind": "simulated", "arguments": {"error-rate": 0.1, "speed": 20}}
    workload = {
        "scenarios": ["D(50,20)"],
        "concurrency": [4],
        "max_requests": 60,
        "max_seconds": 10,
        "max_error_rate": 0.2,
    }
    outcome, _ = run(tmp_path, {}, engine=engine, workload=workload)
    assert outcome.state is TrialState.COMPLETE, outcome.reason
    assert outcome.load_points[0].metrics["error_rate"] == pytest.approx(0.1, abs=0.06)


def test_a_program_that_does_not_exist_is_the_operators_to_install(tmp_path: Path) -> None:
    engine = {"kind": "simulated", "command": ["/no/such/program"]}
    with pytest.raises(InfrastructureError, match="/no/such/program"):
        run(tmp_path, {}, engine=engine)


def test_an_earlier_attempt_is_kept_aside(tmp_path: Path) -> None:
    engine = {"kind": "simulated", "arguments": {"fail-at-start": "crash"}}
    run(tmp_path, {}, engine=engine)
    run(tmp_path, {}, engine=engine)
    assert (tmp_path / "trial.attempt-1" / "server.log").exists()
    assert (tmp_path / "trial" / "server.log").exists()
