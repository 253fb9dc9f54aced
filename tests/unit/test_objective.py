"""Objectives and constraints: directions, bounds, and violations at the worst load point."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.study.objective import (
    constraints_of,
    latency_bounds,
    objective_values,
    violations,
)


def one(name: str, bound: float, value: float) -> float:
    (constraint,) = constraints_of({name: bound})
    return constraint.violation(value)


@pytest.mark.parametrize(
    ("name", "bound", "value", "violation"),
    [
        ("ttft_p99", 0.5, 0.75, 0.5),
        ("ttft_p99", 0.5, 0.5, 0.0),
        ("ttft_p99", 0.5, 0.25, -0.5),
        ("output_throughput", 100.0, 50.0, 0.5),
        ("output_throughput", 100.0, 100.0, 0.0),
        ("output_throughput", 100.0, 200.0, -1.0),
        ("error_rate", 0.0, 0.1, 0.1),
        ("error_rate", 0.0, 0.0, 0.0),
        ("goodput", 0.0, 3.0, -3.0),
    ],
)
def test_a_violation_is_the_relative_distance_beyond_the_bound(
    name: str, bound: float, value: float, violation: float
) -> None:
    assert one(name, bound, value) == pytest.approx(violation)


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_a_constraint_is_met_exactly_up_to_its_bound(bound: float, value: float) -> None:
    assert (one("ttft_p99", bound, value) <= 0) == (value <= bound)
    assert (one("goodput", bound, value) <= 0) == (value >= bound)


@given(st.floats(1e-3, 1e3), st.floats(1.001, 10.0), st.floats(1e-3, 1e3))
def test_violations_weigh_alike_whatever_the_unit(bound: float, beyond: float, unit: float) -> None:
    assert one("ttft_p99", bound, bound * beyond) == pytest.approx(
        one("ttft_p99", bound * unit, bound * unit * beyond), rel=1e-6
    )


def test_a_constraint_reads_as_a_person_would_write_it() -> None:
    bounds = {"ttft_p99": 0.5, "output_throughput": 1000.0, "error_rate": 0.01}
    assert [constraint.text for constraint in constraints_of(bounds)] == [
        "ttft_p99 <= 0.5 s",
        "output_throughput >= 1000 tok/s",
        "error_rate <= 0.01",
    ]


def test_goodput_takes_the_tightest_bound_on_each_latency() -> None:
    constraints = constraints_of(
        {"ttft_p99": 1.0, "ttft_p50": 0.4, "e2e_latency_mean": 9.0, "output_throughput": 5.0}
    )
    assert latency_bounds(constraints) == {"ttft": 0.4, "e2e_latency": 9.0}
    assert latency_bounds(()) == {}


def test_every_load_point_must_meet_every_constraint() -> None:
    constraints = constraints_of({"ttft_p99": 1.0, "output_throughput": 100.0})
    points = [
        {"ttft_p99": 0.5, "output_throughput": 80.0},
        {"ttft_p99": 1.5, "output_throughput": 400.0},
    ]
    assert violations(constraints, points) == pytest.approx(
        {"ttft_p99": 0.5, "output_throughput": 0.2}
    )


def test_a_missing_metric_says_nothing_about_its_bound() -> None:
    constraints = constraints_of({"ttft_p99": 1.0})
    assert violations(constraints, [{"ttft_p99": None}, {}]) == {}
    assert violations(constraints, [{"ttft_p99": None}, {"ttft_p99": 0.5}]) == {}
    assert violations((), [{"ttft_p99": 2.0}]) == {}


def test_a_bound_broken_at_one_load_point_is_broken_whatever_is_missing_at_another() -> None:
    constraints = constraints_of({"ttft_p99": 1.0})
    broken, missing = {"ttft_p99": 2.0}, {"ttft_p99": None}
    assert violations(constraints, [broken, missing]) == {"ttft_p99": 1.0}
    assert violations(constraints, [missing, broken]) == {"ttft_p99": 1.0}
    assert violations(constraints, [broken, {}]) == {"ttft_p99": 1.0}


def test_objectives_combine_all_load_points() -> None:
    points = [
        {"output_throughput": 100.0, "ttft_p99": 0.1},
        {"output_throughput": 400.0, "ttft_p99": 0.4},
    ]
    values = objective_values(["output_throughput", "ttft_p99"], points)
    assert values == pytest.approx({"output_throughput": 200.0, "ttft_p99": 0.2})
    assert list(values) == ["output_throughput", "ttft_p99"]


def test_an_objective_missing_at_one_load_point_is_none() -> None:
    points: list[dict[str, float | None]] = [{"ttft_p99": 0.1}, {"ttft_p99": None}, {}]
    assert objective_values(["ttft_p99"], points) == {"ttft_p99": None}
    assert objective_values(["ttft_p99"], []) == {"ttft_p99": None}
