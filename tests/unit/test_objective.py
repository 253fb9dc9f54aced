"""Objectives and constraints: directions, bounds, and violations at the worst load point."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.study.metrics import METRICS
from autotuner.study.objective import (
    PENALTY_LIMIT,
    Constraint,
    Severity,
    at_max_load,
    constraints_of,
    evaluated,
    hard_failure,
    latency_bounds,
    loads_met,
    objective_name,
    objective_values,
    penalisable,
    penalised,
    penalty,
    severity,
    violations,
)
from autotuner.study.slo import SLOSpec


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


@dataclass(frozen=True)
class At:
    """A load point: a concurrency, a TTFT and what else was measured."""

    concurrency: int
    metrics: dict[str, float | None]


def at(concurrency: int, ttft: float | None, **more: float) -> At:
    return At(concurrency, {"ttft_p99": ttft, **more})


P50, P90, P99 = "e2e_latency_p50", "e2e_latency_p90", "e2e_latency_p99"

CURVE = [
    # metric -> (bound, weight, actual), steepness, multiplier: the predecessor's own table
    ({P50: (2.0, 1, 1.5), P90: (5.0, 2, 4.0)}, 0.1, 1.0),
    ({P50: (2.0, 1, 2.2)}, 0.1, 3.7183),
    ({P90: (5.0, 2, 6.25)}, 0.1, 25.365),
    (
        {
            P50: (2.0, 1, 2.3),
            P90: (5.0, 2, 5.5),
            P99: (10.0, 3, 11.0),
            "ttft_mean": (1.0, 2, 1.2),
        },
        0.1,
        33.851,
    ),
    ({P90: (5.0, 2, 6.0)}, 0.05, 110.196),
    ({P90: (5.0, 2, 6.0)}, 0.1, 15.778),
    ({P90: (5.0, 2, 6.0)}, 0.2, 6.437),
    ({"tpot_mean": (0.05, 2, 0.06)}, 0.1, 15.7781),
    ({"ttft_mean": (1.0, 2, 1.2), "tpot_mean": (0.05, 1.5, 0.055)}, 0.1, 19.8555),
    ({"ttft_mean": (1.0, 2, 1.2), "tpot_mean": (0.05, 2, 0.055)}, 0.1, 21.2147),
    ({"tpot_mean": (0.05, 2, 0.04)}, 0.1, 1.0),
    # Where its own table was wrong: 3.72, 595.5 and 297.4.
    ({"tpot_mean": (0.05, 2, 0.055)}, 0.1, 6.4366),
    ({"tpot_mean": (0.05, 2, 0.075)}, 0.1, 297.826),
    ({P90: (5.0, 2, 7.5)}, 0.1, 297.826),
]


def multiplier(rows: Mapping[str, tuple[float, float, float]], steepness: float = 0.1) -> float:
    rows_of = {name: {"max": bound, "weight": weight} for name, (bound, weight, _) in rows.items()}
    constraints = constraints_of({}, SLOSpec.model_validate(rows_of))
    measured = {name: value for name, (_, _, value) in rows.items()}
    return penalty(constraints, violations(constraints, [measured]), steepness)


@pytest.mark.parametrize(("rows", "steepness", "expected"), CURVE)
def test_the_penalty_is_the_predecessors_curve(
    rows: Mapping[str, tuple[float, float, float]], steepness: float, expected: float
) -> None:
    assert multiplier(rows, steepness) == pytest.approx(expected, rel=2e-5, abs=6e-4)


def test_the_curve_jumps_at_the_bound_as_it_always_did() -> None:
    assert multiplier({P50: (2.0, 3, 2.0)}) == 1.0
    assert multiplier({P50: (2.0, 3, 2.0 + 1e-9)}) == pytest.approx(4.0)


def test_without_service_levels_and_of_what_was_not_measured_nothing_is_asked() -> None:
    constraints = constraints_of({"ttft_p99": 1.0})
    assert penalty((), {}, 0.1) == penalty((), {"ttft_p99": 9.0}, 0.1) == 1.0
    assert penalty(constraints, {}, 0.1) == 1.0
    assert hard_failure(constraints, {}) is None


@given(st.floats(0, 1e300), st.floats(1e-6, 10), st.floats(1e-3, 1e300))
def test_no_penalty_is_ever_infinite(violation: float, steepness: float, weight: float) -> None:
    constraints = [Constraint(METRICS[name], 1.0, weight) for name in ("ttft_p99", "tpot_p99")]
    found = penalty(constraints, {"ttft_p99": violation, "tpot_p99": violation}, steepness)
    assert 1.0 <= found <= PENALTY_LIMIT
    for name in ("ttft_p99", "output_throughput"):
        value = penalised(name, 1234.5, found)
        assert math.isfinite(value)
        assert value > 0


@pytest.mark.parametrize("steepness", [0.1, 0.001])
def test_beyond_all_measure_more_is_still_worse(steepness: float) -> None:
    """The tester's four: throughput that grew with the violation came to rank by itself."""
    constraints = constraints_of({"ttft_p90": 0.001})
    scores = [
        penalised(
            "output_throughput", value, penalty(constraints, {"ttft_p90": violation}, steepness)
        )
        for value, violation in ((100, 319), (200, 639), (400, 1279), (800, 2559))
    ]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == len(scores)


@given(
    st.sampled_from(["ttft_p99", "e2e_latency_mean", "output_throughput", "goodput", "max_load"]),
    st.floats(1e-3, 1e6),
    st.floats(1e-6, 10),
    st.floats(1e-3, 10),
)
def test_a_violation_is_always_worse(
    name: str, value: float, violation: float, weight: float
) -> None:
    constraint = Constraint(METRICS["tpot_p99"], 0.05, weight)
    worse = penalised(name, value, penalty([constraint], {"tpot_p99": violation}, 0.1))
    assert METRICS[name].is_better(value, worse), "the predecessor rewarded it for throughputs"
    assert worse > 0
    assert penalised(name, value, 1.0) == value


def test_a_penalty_can_show_wherever_the_best_is_not_zero() -> None:
    assert penalisable("ttft_p99")
    assert penalisable("goodput")
    assert not penalisable("error_rate")


def hard(bound: float = 5.0, fail_ratio: float = 0.2, metric: str = P90) -> Constraint:
    return Constraint(METRICS[metric], bound, 2.0, hard=True, fail_ratio=fail_ratio)


def test_a_hard_constraint_fails_strictly_beyond_its_ratio() -> None:
    assert hard_failure([hard()], violations([hard()], [{P90: 6.5}])) == hard()
    assert hard_failure([hard(4.0, 0.25)], violations([hard(4.0, 0.25)], [{P90: 5.0}])) is None
    soft = Constraint(METRICS[P90], 5.0)
    assert hard_failure([soft], {P90: 9.0}) is None


def test_of_several_hard_failures_the_furthest_is_named() -> None:
    both = [hard(), hard(metric=P99)]
    assert hard_failure(both, {P90: 0.3, P99: 0.6}) == both[1]
    assert hard_failure(both, {P90: 0.3, P99: 0.1}) == both[0]


@pytest.mark.parametrize(
    ("violation", "expected"),
    [
        (0.0, None),
        (-0.5, None),
        (0.01, Severity.MINOR),
        (0.2, Severity.MINOR),
        (0.25, Severity.SEVERE),
        (0.5, Severity.SEVERE),
        (0.51, Severity.HARD_FAIL),
    ],
)
def test_violations_have_three_degrees(violation: float, expected: Severity | None) -> None:
    assert severity(hard(fail_ratio=0.5), violation) is expected
    if expected is Severity.HARD_FAIL:
        assert severity(Constraint(METRICS[P90], 5.0), violation) is Severity.SEVERE


def test_both_spellings_of_a_bound_make_one_list() -> None:
    slo = SLOSpec.model_validate(
        {"ttft_p99": {"max": 0.5, "weight": 2, "hard": True, "fail_ratio": 0.1}}
    )
    short, long = constraints_of({"error_rate": 0.01}, slo)
    assert short == Constraint(METRICS["error_rate"], 0.01, 1.0, False, 0.5)
    assert long == Constraint(METRICS["ttft_p99"], 0.5, 2.0, True, 0.1)
    assert latency_bounds([short, long]) == {"ttft": 0.5}, "goodput reads the rows as well"
    with pytest.raises(ValueError, match="ttft_p99 has a bound under constraints and another"):
        constraints_of({"ttft_p99": 1.0}, slo)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("minimize_latency", "e2e_latency_mean"),
        ("maximize_throughput", "total_throughput"),
        ("minimize_ttft", "ttft_mean"),
        ("minimize_tpot", "tpot_mean"),
        ("goodput", "goodput"),
        ("max_load", "max_load"),
    ],
)
def test_an_objective_has_its_own_name_or_the_predecessors(text: str, name: str) -> None:
    assert objective_name(text) == name


def test_an_unknown_objective_is_answered_with_names() -> None:
    with pytest.raises(ValueError, match="minimize_ttft"):
        objective_name("minimise_ttft")
    with pytest.raises(ValueError, match="'balanced' is not a metric; allowed: ttft_mean"):
        objective_name("balanced")


BOUND = constraints_of({"ttft_p99": 1.0})


def test_max_load_is_the_highest_concurrency_within_every_bound() -> None:
    points = [at(16, 0.4), at(64, 3.0), at(32, 0.9), at(45, 1.2)]
    assert loads_met(BOUND, points) == {16: True, 64: False, 32: True, 45: False}
    assert at_max_load(BOUND, points) == (32.0, [points[2]])


def test_a_load_is_met_when_every_scenario_meets_it() -> None:
    points = [at(16, 0.4), at(16, 0.5), at(32, 0.9), at(32, 1.1)]
    assert at_max_load(BOUND, points) == (16.0, points[:2])
    assert loads_met(BOUND, points[::-1]) == {16: True, 32: False}


def test_what_was_not_measured_was_not_met() -> None:
    assert loads_met(BOUND, [at(16, None)]) == {16: False}
    assert loads_met(BOUND, [At(16, {})]) == {16: False}


def test_other_objectives_and_violations_are_read_at_the_max_load() -> None:
    points = [at(16, 0.4, output_throughput=900), at(64, 3.0, output_throughput=2000)]
    found = evaluated(["max_load", "output_throughput"], BOUND, points)
    assert found.objectives == {"max_load": 16.0, "output_throughput": pytest.approx(900)}
    assert found.violations == pytest.approx({"ttft_p99": -0.6})


def test_a_trial_that_bears_no_load_says_how_far_away_it_is() -> None:
    points = [at(16, 3.0), at(4, 1.5), at(8, 2.0)]
    found = evaluated(["max_load"], BOUND, points)
    assert found.objectives == {"max_load": 0.0}
    assert found.violations == pytest.approx({"ttft_p99": 0.5})
    assert evaluated(["max_load"], BOUND, []) == ({"max_load": None}, {})


def test_without_max_load_every_load_point_counts() -> None:
    points = [at(16, 0.4), at(64, 1.6)]
    found = evaluated(["ttft_p99"], BOUND, points)
    assert found.objectives == pytest.approx({"ttft_p99": 0.8})
    assert found.violations == pytest.approx({"ttft_p99": 0.6})
