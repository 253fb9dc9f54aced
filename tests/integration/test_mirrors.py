"""Studies mirrored to an Optuna storage, and read there by optuna-dashboard itself."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import optuna
import pytest
from optuna.trial import TrialState as Theirs

from autotuner.errors import FailureClass, InfrastructureError, StudyStateError
from autotuner.execution.loggers import LoggerMirror, Shown, mirrors
from autotuner.masking import without_passwords
from autotuner.mirrors.base import Mirroring
from autotuner.mirrors.optuna import OptunaMirror, copied, distribution, opened
from autotuner.store import Store
from autotuner.study.space import Choice, Float, Int
from autotuner.study.study import Study, StudyState
from autotuner.study.trial import LoadPoint, Trial, TrialState
from tests import postgres
from tests.builders import spec, trial
from tests.processes import wait_for
from tests.replays import replayed

AT = "2026-01-02T03:04:05.000+00:00"


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'optuna.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, url: str) -> Iterator[str]:
    if request.param == "sqlite":
        yield url
        return
    programs = postgres.programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    with postgres.running(programs) as url:
        yield url


def study_of(**changes: Any) -> Study:
    return Study(spec(**changes), "/nowhere", StudyState.RUNNING, created_at=AT, started_at=AT)


def mirrored(url: str, study: Study, *trials: Trial) -> None:
    mirror = OptunaMirror(url)
    mirror.begun(study, trials)
    mirror.ended()


@dataclass(frozen=True)
class There:
    """A study as Optuna has it."""

    id: int
    trials: list[optuna.trial.FrozenTrial]
    directions: list[optuna.study.StudyDirection]
    metric_names: list[str] | None


def shown(url: str, name: str = "small") -> There:
    door = opened(url)
    found = optuna.load_study(study_name=name, storage=door)
    there = There(found._study_id, found.trials, found.directions, found.metric_names)
    door.engine.dispose()
    return there


SPACE = {
    "max-num-seqs": {"type": "int", "low": 8, "high": 64, "step": 8},
    "dtype": [None, "half", {"of": "float"}],
    "chunk": {"type": "float", "low": 0.1, "high": 1.0, "log": True},
    "deep": {"values": [1, 2], "when": {"dtype": "half"}},
}


def complete(number: int, value: float = 100.0, **more: Any) -> Trial:
    parameters = more.pop("parameters", {"max-num-seqs": 8, "dtype": None, "chunk": 0.5})
    return trial(
        number,
        parameters,
        objectives={"output_throughput": value},
        started_at=AT,
        ended_at=AT,
        **more,
    )


class TestTrials:
    def test_what_was_measured(self, url: str) -> None:
        points = (
            LoadPoint(0, "D(100,20)", 4, 1.0, {"output_throughput": 90.0}),
            LoadPoint(1, "D(100,20)", 8, 1.0, {"output_throughput": 110.0}),
            LoadPoint(2, "D(100,20)", 9, 1.0, {"output_throughput": 999.0}, probe=True),
        )
        one = complete(0, load_points=points, violations={"ttft_p99": -0.5}, why="it is so")
        mirrored(url, study_of(space=SPACE), one)
        found = shown(url)
        (there,) = found.trials
        assert found.directions == [optuna.study.StudyDirection.MAXIMIZE]
        assert found.metric_names == ["output_throughput"]
        assert (there.state, there.values) == (Theirs.COMPLETE, [100.0])
        assert there.params == {"max-num-seqs": 8, "dtype": "null", "chunk": 0.5}
        assert there.intermediate_values == {0: 90.0, 1: 110.0}
        assert there.constraints == {"0": -0.5}
        assert there.user_attrs["why"] == "it is so"
        assert there.user_attrs["parameters"] == one.parameters

    @pytest.mark.parametrize(
        ("ours", "theirs"),
        [
            (trial(0, state=TrialState.PENDING), Theirs.WAITING),
            (trial(0, state=TrialState.DEPLOYING), Theirs.RUNNING),
            (trial(0, state=TrialState.BENCHMARKING), Theirs.RUNNING),
            (trial(0, state=TrialState.STOPPED), Theirs.PRUNED),
            (trial(0, state=TrialState.INFEASIBLE, reason="crashed"), Theirs.FAIL),
            (trial(0, state=TrialState.FAILED), Theirs.FAIL),
            (trial(0, state=TrialState.CANCELLED), Theirs.FAIL),
            # Measured, but its objective cannot be said.
            (trial(0, objectives={"output_throughput": None}), Theirs.FAIL),
        ],
    )
    def test_states(self, url: str, ours: Trial, theirs: Theirs) -> None:
        mirrored(url, study_of(space=SPACE), ours)
        (there,) = shown(url).trials
        assert there.state is theirs
        assert there.user_attrs.get("reason", "") == ours.reason

    def test_a_broken_bound_that_is_paid_for_is_feasible(self, url: str) -> None:
        broken = {"ttft_p99": 0.5}
        mirrored(
            url,
            study_of(space=SPACE),
            complete(0, violations=broken),
            complete(1, violations=broken, penalty=2.0),
        )
        plain, paid = shown(url).trials
        assert (plain.constraints, paid.constraints) == ({"0": 0.5}, {"0": 0.0})
        assert paid.values == [50.0]
        assert paid.user_attrs["objectives"] == {"output_throughput": 100.0}

    def test_a_point_outside_of_the_space_keeps_its_number(self, url: str) -> None:
        """The baseline is one."""
        mirrored(url, study_of(space=SPACE), complete(0, parameters={"other": 1}), complete(1))
        baseline, one = shown(url).trials
        assert (baseline.number, baseline.params) == (0, {})
        assert (one.number, one.user_attrs["number"]) == (1, 1)

    def test_categories(self) -> None:
        def choices(*values: Any) -> Any:
            return distribution(Choice(values)).choices  # type: ignore[attr-defined]

        assert choices(1, 2.5) == (1, 2.5)
        assert choices("a", "b") == ("a", "b")
        assert choices(True, 1) == ("true", "1")
        assert choices(None, "null") == ("null", '"null"')
        assert choices([1], {"a": None}) == ("[1]", '{"a":null}')

    def test_numbers(self) -> None:
        assert distribution(Int(1, 10, step=4)) == optuna.distributions.IntDistribution(
            1, 9, step=4
        )
        assert distribution(Float(0.1, 1.0, log=True)) == (
            optuna.distributions.FloatDistribution(0.1, 1.0, log=True)
        )


class TestAgain:
    def test_changes_nothing(self, url: str, tmp_path: Path) -> None:
        study = study_of(space=SPACE)
        trials = [
            complete(0, violations={"ttft_p99": -1.0}),
            trial(1, {"dtype": "half", "deep": 2}, TrialState.INFEASIBLE, reason="a\0b"),
            trial(2, state=TrialState.BENCHMARKING),
        ]
        mirrored(url, study, *trials)
        before = (tmp_path / "optuna.db").read_bytes()
        mirrored(url, study, *trials)
        assert (tmp_path / "optuna.db").read_bytes() == before

    def test_copied_by_hand(self, url: str) -> None:
        studies = [
            (study_of(space=SPACE), [complete(0)]),
            (study_of(name="other"), [trial(0, state=TrialState.STOPPED)]),
        ]
        for _ in range(2):
            assert [each.name for each in copied(url, studies)] == ["small", "other"]
        assert [each.state for each in shown(url, "other").trials] == [Theirs.PRUNED]
        with pytest.raises(InfrastructureError, match="cannot be used"):
            list(copied("sqlite:////nowhere/at/all.db", studies))

    def test_a_trial_goes_through_its_states(self, database: str) -> None:
        url = database
        mirror = OptunaMirror(url)
        mirror.begun(study_of(space=SPACE), [])
        half = {"dtype": "half"}
        for state in (TrialState.PENDING, TrialState.DEPLOYING, TrialState.BENCHMARKING):
            mirror.changed(trial(0, half, state))
        id = shown(url).id
        point = LoadPoint(0, "D(100,20)", 4, 1.0, {"output_throughput": 90.0})
        mirror.changed(trial(0, half, TrialState.BENCHMARKING, load_points=(point,)))
        assert shown(url).trials[0].intermediate_values == {0: 90.0}
        mirror.changed(trial(0, half, TrialState.PENDING))  # broken by the machine: once more
        mirror.changed(complete(0, parameters=half, violations={"ttft_p99": 0.1}))
        mirror.ended()
        (there,) = shown(url).trials
        assert (there.state, there.values) == (Theirs.COMPLETE, [100.0])
        assert there.constraints == {"0": 0.1}
        assert shown(url).id == id

    def test_a_resumed_study_goes_on(self, database: str) -> None:
        """Trials that are run again under their numbers had ended in Optuna."""
        url = database
        study = study_of(space=SPACE)
        mirrored(url, study, complete(0), trial(1, state=TrialState.CANCELLED))
        mirrored(url, study, complete(0), complete(1, 120.0), complete(2))
        assert [each.values for each in shown(url).trials] == [[100.0], [120.0], [100.0]]

    def test_a_restart_replaces(self, url: str) -> None:
        mirrored(url, study_of(space=SPACE), complete(0), complete(1))
        again = Study(spec(space=SPACE), "", created_at=AT, started_at="2026-01-03T00:00:00+00:00")
        mirrored(url, again, complete(0, 7.0))
        assert [each.values for each in shown(url).trials] == [[7.0]]

    def test_what_is_not_ours_is_left_alone(self, url: str) -> None:
        door = opened(url)
        theirs = optuna.create_study(study_name="small", storage=door)
        theirs.add_trial(optuna.trial.create_trial(value=1.0))
        door.engine.dispose()
        with pytest.raises(StudyStateError, match="did not make"):
            mirrored(url, study_of(space=SPACE), complete(0))
        assert len(shown(url).trials) == 1

    def test_no_storage(self, tmp_path: Path) -> None:
        with pytest.raises(InfrastructureError, match="cannot be used") as caught:
            mirrored("nodb://me:hunter2@host/x", study_of())
        assert "hunter2" not in str(caught.value)


class _Slow:
    """A mirror that does what it is told to, and remembers what it heard."""

    name = "slow"

    def __init__(self, error: Exception | None = None, gate: threading.Event | None = None) -> None:
        self.heard: list[Any] = []
        self._error = error
        self._gate = gate

    def begun(self, study: Study, trials: Any) -> None:
        if self._gate is not None:
            self._gate.wait(10)
        self.heard.append("begun")

    def changed(self, trial: Trial) -> None:
        self.heard.append((trial.number, trial.state))
        if self._error is not None:
            raise self._error

    def ended(self) -> None:
        self.heard.append("ended")


class TestMirroring:
    def test_a_mirror_that_fails_is_said_once_and_the_others_go_on(self) -> None:
        said: list[str] = []
        bad, good = _Slow(ValueError("no route to http://me:hunter2@host/x")), _Slow()
        mirroring = Mirroring([bad, good], said.append)
        mirroring.begun(study_of(), [])
        for number in range(3):
            mirroring.changed(trial(number))
        mirroring.ended()
        assert len(said) == 1
        assert "slow is told nothing more" in said[0]
        assert "http://***@host" in said[0]
        assert good.heard[0] == "begun"
        assert good.heard[-2:] == [(2, TrialState.COMPLETE), "ended"]
        assert "ended" not in bad.heard

    def test_a_mirror_that_hangs_holds_nobody_up(self) -> None:
        gate, said = threading.Event(), list[str]()
        slow = _Slow(gate=gate)
        mirroring = Mirroring([slow], said.append, last_seconds=0.01)
        mirroring.begun(study_of(), [])
        for state in (TrialState.DEPLOYING, TrialState.BENCHMARKING, TrialState.COMPLETE):
            mirroring.changed(trial(0, state=state))
        mirroring.ended()
        assert said == ["slow has not taken all of the study's end in time"]
        gate.set()
        assert wait_for(lambda: "ended" in slow.heard, 5, every=0.01)
        # What it missed meanwhile it hears of in one word.
        assert slow.heard == ["begun", (0, TrialState.COMPLETE), "ended"]

    def test_passwords(self) -> None:
        assert without_passwords("at postgresql://u:p@h/db") == "at postgresql://***@h/db"


class _Logger:
    """A logger callback that remembers what it was told, configurations as they then were."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def setup(self) -> None:
        self.heard.append(("setup",))

    def log_trial_start(self, shown: Shown) -> None:
        self.heard.append(("start", shown.name, dict(shown.config)))

    def log_trial_result(self, iteration: int, shown: Shown, result: dict[str, Any]) -> None:
        assert result["training_iteration"] == iteration
        told = {k: v for k, v in result.items() if k != "training_iteration"}
        self.heard.append((iteration, shown.name, told))

    def log_trial_end(self, shown: Shown, failed: bool = False) -> None:
        self.heard.append(("failed" if failed else "end", shown.name, dict(shown.config)))

    def on_experiment_end(self, trials: Any) -> None:
        self.heard.append(("over",))


class TestLoggers:
    """Tune's callbacks, told of our trials."""

    def test_a_trial_from_start_to_end(self, tmp_path: Path) -> None:
        logger = _Logger()
        mirror = LoggerMirror("logger", lambda study: logger)
        mirror.begun(Study(spec(), str(tmp_path), created_at=AT, started_at=AT), [])
        parameters = {"max-num-seqs": 8, "chunk": {"of": None}}
        metrics = {"output_throughput": 90.0, "ttft_p99": None}
        points = (
            LoadPoint(0, "D(100,20)", 4, 2.0, metrics),
            LoadPoint(1, "D(100,20)", 2, 2.0, metrics, probe=True),
        )
        mirror.changed(trial(0, parameters, TrialState.PENDING))
        for state, measured in (("DEPLOYING", ()), ("BENCHMARKING", points)):
            for _ in range(2):
                mirror.changed(trial(0, parameters, TrialState(state), load_points=measured))
        done = complete(0, 90.0, parameters=parameters, load_points=points, why="it is so")
        for _ in range(2):
            mirror.changed(done)
        mirror.ended()
        said = {"trial.state": "COMPLETE", "trial.why": "it is so"}
        shown = {"max-num-seqs": 8, "chunk": '{"of":null}'}
        came_to = {
            "objective/output_throughput": 90.0,
            "feasible": 1.0,
            "trial_seconds": 0.0,
            "gpu_hours": 0.0,
            "config": said,
        }
        assert logger.heard == [
            ("setup",),
            ("start", "small-0", shown),
            (1, "small-0", {"output_throughput": 90.0, "seconds": 2.0}),
            (2, "small-0", came_to),
            ("end", "small-0", {**shown, **said}),
            ("over",),
        ]

    def test_only_what_was_launched_now(self, tmp_path: Path) -> None:
        logger = _Logger()
        mirror = LoggerMirror("logger", lambda study: logger)
        mirror.begun(Study(spec(), str(tmp_path)), [complete(0), trial(1, state=TrialState.FAILED)])
        mirror.changed(complete(0))
        refused = FailureClass.REFUSED
        mirror.changed(trial(2, state=TrialState.INFEASIBLE, failure=refused, reason="no"))
        mirror.changed(trial(1, state=TrialState.DEPLOYING))
        mirror.changed(trial(1, state=TrialState.INFEASIBLE, reason="x" * 9999))
        mirror.changed(trial(3, state=TrialState.DEPLOYING))
        mirror.ended()
        about = [(each[0], each[1]) for each in logger.heard if len(each) > 1]
        assert about == [
            ("start", "small-1"),
            (1, "small-1"),
            ("failed", "small-1"),
            ("start", "small-3"),
            ("failed", "small-3"),
        ]
        reason = next(each[2]["trial.reason"] for each in logger.heard if each[0] == "failed")
        assert len(reason) == 500

    def test_asked_for(self) -> None:
        assert mirrors() == []
        (found,) = mirrors(optuna="sqlite://")
        assert found.name == "Optuna"

    def test_for_real_with_mlflow(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        tracking = pytest.importorskip("mlflow.tracking", reason="MLflow is not installed")
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        (mirror,) = mirrors(mlflow=f"file://{tmp_path / 'runs'}")
        mirror.begun(Study(spec(), str(tmp_path), created_at=AT, started_at=AT), [])
        mirror.changed(complete(0, parameters={"max-num-seqs": 8}))
        mirror.ended()
        server = tracking.MlflowClient(f"file://{tmp_path / 'runs'}")
        experiment = server.get_experiment_by_name("small")
        (run,) = server.search_runs([experiment.experiment_id])
        assert run.data.params == {"max-num-seqs": "8", "trial.state": "COMPLETE"}
        assert run.data.metrics["objective/output_throughput"] == 100.0
        assert run.info.status == "FINISHED"


def test_the_dashboard_reads_a_finished_study(tmp_path: Path, url: str) -> None:
    """A study over a table, mirrored as it runs and asked for through the dashboard's own API."""
    if shutil.which("optuna-dashboard", path=str(Path(sys.executable).parent)) is None:
        pytest.skip("optuna-dashboard is not installed")
    rows = [
        {"max-num-seqs": value, "output_throughput": speed, "ttft_p99": ttft, "tpot_p50": 0.01}
        for value, speed, ttft in ((8, 90, 0.1), (16, 150, 0.2), (32, 200, 0.9))
    ]
    rows.append({"output_throughput": 80, "ttft_p99": 0.1, "tpot_p50": 0.01})  # the baseline
    store = Store("sqlite://")
    _, studied, trials = replayed(
        tmp_path,
        rows,
        space={"max-num-seqs": [8, 16, 32]},
        search={"kind": "grid"},
        constraints={"ttft_p99": 0.5},
        store=store,
    )
    mirrored(url, store.study(studied.name), *trials)
    store.close()
    with dashboard(url) as address:
        (row,) = asked(f"{address}/api/studies")["study_summaries"]
        assert row["study_name"] == studied.name
        found = asked(f"{address}/api/studies/{row['study_id']}")
    assert [each["number"] for each in found["trials"]] == [each.number for each in trials]
    states = {TrialState.COMPLETE: "Complete", TrialState.INFEASIBLE: "Fail"}
    assert [each["state"] for each in found["trials"]] == [states[each.state] for each in trials]
    assert found["objective_names"] == ["output_throughput"]
    for there, ours in zip(found["trials"], trials, strict=True):
        feasible = all(value <= 0 for value in there["constraints"])
        assert feasible == ours.feasible
        assert there.get("values") == list(ours.objectives.values())
    assert any(not each.feasible for each in trials)


@contextmanager
def dashboard(url: str) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = str(Path(sys.executable).with_name("optuna-dashboard"))
    process = subprocess.Popen(
        [program, url, "--host", "127.0.0.1", "--port", str(port), "--server", "wsgiref"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, "the dashboard has ended"
        try:
            return bool(asked(f"{address}/api/meta"))
        except URLError:
            return False

    try:
        assert wait_for(answers, 60)
        yield address
    finally:
        process.terminate()
        process.wait(10)


def asked(address: str) -> Any:
    with urlopen(address) as answer:
        return json.load(answer)
