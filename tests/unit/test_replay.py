"""Answers from a table: reading it, finding a point, noise; and studies of several engines."""

from __future__ import annotations

import statistics
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from autotuner.benchmarks.base import Answer, Launched, Recorded
from autotuner.benchmarks.replay import REPLAY, read_table
from autotuner.errors import ConfigError, FailureClass, TrialError
from autotuner.study.spec import StudySpec
from autotuner.study.study import StudyState
from autotuner.study.trial import TrialState
from tests.builders import spec
from tests.replays import replayed, table

ROWS: list[dict[str, Any]] = [
    {"output_throughput": 100.0, "ttft_p99": 0.5, "seconds": 12.0},
    {"x": 1, "flag": True, "json": {"a": [1]}, "output_throughput": 110.0, "ttft_p99": 0.4},
    {"x": 2, "failure": FailureClass.MEMORY_AT_LOAD.value, "reason": "CUDA out of memory"},
    {"x": 3, "y": "plain text", "output_throughput": 130.0},
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return table(tmp_path / "table.csv", ROWS)


def study(path: Path, noise: float = 0.0, **changes: Any) -> StudySpec:
    return spec(benchmark={"kind": "replay", "table": str(path), "noise": noise}, **changes)


def answer(study: StudySpec, parameters: dict[str, Any], trial: int = 1) -> Answer:
    (load,) = study.loads()
    return REPLAY.measure(study, parameters, load, trial=trial)


def test_it_is_a_benchmark_that_starts_nothing() -> None:
    assert isinstance(REPLAY, Recorded)


def test_a_point_is_found_by_its_values_whatever_their_order(path: Path) -> None:
    found = answer(study(path), {"json": {"a": [1]}, "flag": True, "x": 1})
    assert found.metrics["output_throughput"] == 110.0


def test_json_types_are_kept(path: Path) -> None:
    with pytest.raises(TrialError):
        answer(study(path), {"x": 1, "flag": "true", "json": {"a": [1]}})
    assert answer(study(path), {"x": 3, "y": "plain text"}).metrics["output_throughput"] == 130.0


def test_the_row_without_parameters_is_the_baseline(path: Path) -> None:
    assert answer(study(path), {}).metrics["output_throughput"] == 100.0
    assert REPLAY.deploy(study(path), {}) == Launched(12.0)


def test_an_infeasible_row_fails_as_its_launch_did(path: Path) -> None:
    error = REPLAY.deploy(study(path), {"x": 2}).error
    assert error is not None
    assert error.failure is FailureClass.MEMORY_AT_LOAD
    assert error.reason == "CUDA out of memory"


def test_what_is_not_in_the_table_is_said(path: Path) -> None:
    error = REPLAY.deploy(study(path), {"x": 99}).error
    assert error is not None
    assert "no row for" in error.reason


def test_a_metric_without_a_cell_is_unknown_never_zero(path: Path) -> None:
    assert answer(study(path), {"x": 3, "y": "plain text"}).metrics["ttft_p99"] is None


def test_rows_are_told_apart_by_their_load(tmp_path: Path) -> None:
    rows = [
        {"scenario": "D(100,20)", "concurrency": level, "output_throughput": 10.0 * level}
        for level in (1, 8)
    ]
    found = study(
        table(tmp_path / "table.csv", rows),
        workload={"scenarios": ["D(100,20)"], "concurrency": [8, 1]},
    )
    values = [REPLAY.measure(found, {}, load, trial=0).metrics for load in found.loads()]
    assert [each["output_throughput"] for each in values] == [80.0, 10.0]


def test_noise_is_as_large_as_it_is_said_and_the_same_for_the_same_trial(path: Path) -> None:
    noisy = study(path, noise=0.05)
    values = [answer(noisy, {}, trial).metrics["output_throughput"] or 0.0 for trial in range(400)]
    assert statistics.stdev(values) == pytest.approx(5.0, rel=0.15)
    assert statistics.mean(values) == pytest.approx(100.0, rel=0.02)
    assert values[7] == answer(noisy, {}, 7).metrics["output_throughput"]


def test_noise_slows_all_metrics_of_a_trial_together(path: Path) -> None:
    for trial in range(20):
        metrics = answer(study(path, noise=0.1), {}, trial).metrics
        assert metrics["output_throughput"] is not None
        assert metrics["ttft_p99"] is not None
        assert metrics["output_throughput"] * metrics["ttft_p99"] == pytest.approx(50.0)


def test_parquet_is_read_alike(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import csv, parquet

    parquet.write_table(csv.read_csv(path), tmp_path / "table.parquet")
    found = read_table(tmp_path / "table.parquet")
    assert found.of({})[0].metrics["output_throughput"] == 100.0
    assert found.of({"x": 2})[0].failure is FailureClass.MEMORY_AT_LOAD


def test_types_of_parquet_are_kept(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {
        "flag": pyarrow.array([None, True, False]),
        "x": pyarrow.array([None, 1, 2]),
        "share": pyarrow.array([None, 0.5, float("nan")]),
        "mode": pyarrow.array([None, "fast", "1"]),
        "kinds": pyarrow.array([None, ["a"], ["b"]]),
        "price": pyarrow.array([None, Decimal("0.25"), None]),
        "output_throughput": pyarrow.array([100.0, 110.0, 120.0]),
        "ttft_p99": pyarrow.array([0.5, float("nan"), None]),
    }
    path = tmp_path / "typed.parquet"
    parquet.write_table(pyarrow.table(columns), path)
    assert answer(study(path), {}).metrics["output_throughput"] == 100.0
    on = {"flag": True, "x": 1, "share": 0.5, "mode": "fast", "kinds": ["a"], "price": 0.25}
    found = answer(study(path), on).metrics
    assert (found["output_throughput"], found["ttft_p99"]) == (110.0, None)
    off = {"flag": False, "x": 2, "mode": 1, "kinds": ["b"]}
    assert answer(study(path), off).metrics["output_throughput"] == 120.0


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({}, "benchmark.table"),
        ({"table": "no/such/table.csv"}, "benchmark.table"),
        ({"table": 3}, "benchmark.table"),
        ({"noise": -1.0, "table": "t"}, "benchmark.noise"),
        ({"table": "t", "colour": "red"}, "benchmark.colour"),
    ],
)
def test_wrong_options_are_said_with_their_place(options: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        REPLAY.check(spec(benchmark={"kind": "replay", **options}))
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("row", "where"),
    [
        ({"output_throughput": "fast"}, "output_throughput"),
        ({"output_throughput": "inf"}, "output_throughput"),
        ({"failure": "bad luck"}, "failure"),
    ],
)
def test_a_wrong_cell_is_said_with_its_line(
    tmp_path: Path, row: dict[str, Any], where: str
) -> None:
    path = table(tmp_path / "table.csv", [ROWS[0], row])
    with pytest.raises(ConfigError) as caught:
        read_table(path)
    assert (caught.value.where, caught.value.line) == (where, 3)


# A whole study over it: engines of several kinds in one search.


SEVERAL: dict[str, Any] = {
    "engine": {"kind": ["vllm", "simulated"], "settings": {"vllm": {"version": "0.32.0"}}},
    "space": {
        "vllm": {"max-num-seqs": [8, 16]},
        "simulated": {"max-num-seqs": [16, 32], "block-size": [16]},
    },
}


def test_several_engines_are_one_search_and_the_first_is_the_baseline(tmp_path: Path) -> None:
    rows = [
        {"output_throughput": 100.0},
        {"max-num-seqs": 8, "output_throughput": 90.0},
        {"max-num-seqs": 16, "output_throughput": 120.0},
        {"max-num-seqs": 16, "block-size": 16, "output_throughput": 150.0},
        {"max-num-seqs": 32, "block-size": 16, "output_throughput": 140.0},
    ]
    state, study, trials = replayed(tmp_path, rows, search={"kind": "grid"}, **SEVERAL)
    assert state is StudyState.COMPLETE
    points = [each.parameters for each in trials if each.searched]
    assert points == [
        {},
        {"engine": "vllm", "vllm:max-num-seqs": 8},
        {"engine": "vllm", "vllm:max-num-seqs": 16},
        {"engine": "simulated", "simulated:max-num-seqs": 16, "simulated:block-size": 16},
        {"engine": "simulated", "simulated:max-num-seqs": 32, "simulated:block-size": 16},
    ]
    assert all(each.state is TrialState.COMPLETE for each in trials)
    best = max(trials, key=lambda each: each.objectives["output_throughput"] or 0)
    alone, own = study.at(best.parameters)
    assert alone.engine.kind == "simulated"
    assert own == {"max-num-seqs": 16, "block-size": 16}


@pytest.mark.parametrize("kind", ["random", "optuna", "hyperopt"])
def test_every_searcher_asks_for_whole_points_of_one_engine(tmp_path: Path, kind: str) -> None:
    rows = [{"output_throughput": 100.0}]
    _, study, trials = replayed(
        tmp_path, rows, search={"kind": kind}, limits={"trials": 4}, **SEVERAL
    )
    asked = [each.parameters for each in trials if each.searched and not each.is_baseline]
    assert len(asked) == 4, "the space has four points"
    for point in asked:
        alone, own = study.at(point)
        assert set(own) == set(alone.space)


@pytest.mark.parametrize(
    ("text", "problem"),
    [("x,output_throughput\n8,1,2\n", "more cells"), ("x,output_throughput\n", "no rows")],
)
def test_what_is_no_table_is_said(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(ConfigError, match=problem):
        read_table(tmp_path / "table.csv")
