"""The metrics against values computed by hand, and percentiles against numpy's."""

from __future__ import annotations

import math

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.study.metrics import (
    METRICS,
    Better,
    Combine,
    combined,
    metric,
    metrics_of,
    percentile,
)
from autotuner.study.workload import Load
from tests.builders import measurement, request

FIVE = measurement(
    request(0.1, 0.010, 1.0, tokens=(100, 20)),
    request(0.2, 0.020, 2.0, tokens=(100, 10)),
    request(0.4, None, 0.4, tokens=(50, 5)),
    request(0.3, 0.040, 3.0, tokens=(150, 25)),
    request(error="500"),
    seconds=2.5,
    gpus=2,
    latency_bounds={"ttft": 0.3, "e2e_latency": 2.5},
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ttft_mean", 0.25),
        ("ttft_p50", 0.25),
        ("ttft_p90", 0.37),
        ("ttft_p99", 0.397),
        ("tpot_mean", 0.07 / 3),
        ("tpot_p50", 0.020),
        ("tpot_p90", 0.036),
        ("e2e_latency_mean", 1.6),
        ("e2e_latency_p95", 2.85),
        ("output_throughput", 24.0),
        ("input_throughput", 160.0),
        ("total_throughput", 184.0),
        ("output_throughput_per_gpu", 12.0),
        ("request_throughput", 1.6),
        ("request_throughput_per_gpu", 0.8),
        ("goodput", 0.8),  # the third misses ttft, the fourth e2e latency, the fifth failed
        ("goodput_per_gpu", 0.4),
        ("error_rate", 0.2),
        ("requests", 4.0),
    ],
)
def test_each_metric_is_what_it_is_by_hand(name: str, value: float) -> None:
    assert metrics_of(FIVE)[name] == pytest.approx(value, rel=1e-12)


def test_every_metric_of_an_empty_measurement_is_none_but_what_was_counted() -> None:
    values = metrics_of(measurement(seconds=2.0, gpus=1))
    latencies = [name for name in METRICS if METRICS[name].unit == "s"]
    assert all(values[name] is None for name in latencies)
    assert values["error_rate"] is None
    assert values["requests"] == 0.0
    assert values["output_throughput"] == 0.0


def test_a_window_without_length_has_no_rates() -> None:
    values = metrics_of(measurement(request(), seconds=0.0, gpus=1))
    rates = [name for name in METRICS if "throughput" in name or "goodput" in name]
    assert len(rates) == 10
    assert all(values[name] is None for name in rates)


def test_without_gpus_there_is_no_value_per_gpu() -> None:
    values = metrics_of(measurement(request()))
    assert all(values[name] is None for name in METRICS if name.endswith("_per_gpu"))


def test_failed_requests_are_no_zeros_in_the_latencies() -> None:
    values = metrics_of(measurement(request(0.2), request(error="500"), request(error="timeout")))
    assert values["ttft_mean"] == values["ttft_p50"] == 0.2
    assert values["error_rate"] == pytest.approx(2 / 3)


def test_when_all_failed_the_latencies_are_none_and_the_error_rate_one() -> None:
    values = metrics_of(measurement(request(error="404"), request(error="404")))
    assert values["ttft_p99"] is None
    assert values["error_rate"] == 1.0
    assert values["goodput"] == 0.0


def test_a_latency_nobody_has_is_none_beside_others() -> None:
    values = metrics_of(measurement(request(tpot=None), request(tpot=None)))
    assert values["tpot_p50"] is None
    assert values["tpot_mean"] is None
    assert values["ttft_p50"] == 0.1


@pytest.mark.parametrize(("failed", "total"), [(1, 20), (3, 10), (7, 100), (0, 7), (7, 7)])
def test_the_error_rate_is_exactly_failed_over_total(failed: int, total: int) -> None:
    good = [request()] * (total - failed)
    value = metrics_of(measurement(*good, *[request(error="500")] * failed))["error_rate"]
    assert value == failed / total, "0.05 must meet a bound of 0.05"


def test_goodput_counts_errors_as_misses_and_the_bound_itself_as_met() -> None:
    requests = [request(ttft=0.1), request(ttft=0.2), request(ttft=0.3), request(error="500")]
    load = measurement(*requests, seconds=1.0, latency_bounds={"ttft": 0.2})
    assert metrics_of(load)["goodput"] == 2.0


def test_goodput_without_bounds_is_every_completed_request() -> None:
    load = measurement(request(), request(error="500"), seconds=0.5)
    assert metrics_of(load)["goodput"] == metrics_of(load)["request_throughput"] == 2.0


VALUES = st.lists(st.floats(1e-6, 1e4), min_size=1, max_size=60)


@given(VALUES, st.sampled_from([0, 1, 25, 50, 90, 95, 99, 99.9, 100]))
def test_percentiles_are_those_of_numpy(values: list[float], percent: float) -> None:
    ours = percentile(values, percent)
    assert ours == pytest.approx(float(numpy.percentile(values, percent)), rel=1e-9)


@given(VALUES)
def test_the_percentile_metrics_are_those_of_numpy(values: list[float]) -> None:
    found = metrics_of(measurement(*(request(ttft=value) for value in values)))
    for statistic in (50, 90, 95, 99):
        expected = float(numpy.percentile(values, statistic))
        assert found[f"ttft_p{statistic}"] == pytest.approx(expected, rel=1e-9)
    assert found["ttft_mean"] == pytest.approx(float(numpy.mean(values)), rel=1e-9)


def test_a_percentile_of_nothing_is_none() -> None:
    assert percentile([], 50) is None


def test_load_points_are_combined_by_the_rule_of_their_metric() -> None:
    assert combined("output_throughput", [100.0, 400.0]) == pytest.approx(200.0)
    assert combined("ttft_p99", [0.1, 0.4]) == pytest.approx(0.2)
    assert combined("goodput", [0.0, 4.0]) == 2.0
    assert combined("error_rate", [0.0, 0.1]) == pytest.approx(0.05)
    assert combined("requests", [10.0, 20.0]) == 30.0
    assert combined("output_throughput", [7.0]) == pytest.approx(7.0)


@pytest.mark.parametrize("name", ["output_throughput", "goodput", "requests", "ttft_p99"])
def test_a_missing_load_point_makes_the_whole_unknown_and_not_zero(name: str) -> None:
    assert combined(name, [1.0, None]) is None
    assert combined(name, [None]) is None
    assert combined(name, []) is None


def test_a_throughput_of_zero_at_one_load_point_is_zero() -> None:
    assert combined("output_throughput", [0.0, 100.0]) == 0.0


@given(st.lists(st.floats(0.001, 1000.0), min_size=1, max_size=5), st.floats(0.1, 10.0))
def test_a_geometric_mean_grows_as_its_values_do(values: list[float], factor: float) -> None:
    before = combined("output_throughput", values)
    after = combined("output_throughput", [value * factor for value in values])
    assert before is not None
    assert after is not None
    assert after / before == pytest.approx(factor)
    assert min(values) <= before * (1 + 1e-9)
    assert before <= max(values) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("name", "value", "reference", "gain"),
    [
        ("output_throughput", 150.0, 100.0, 0.5),
        ("output_throughput", 50.0, 100.0, -0.5),
        ("ttft_p99", 0.5, 1.0, 1.0),
        ("ttft_p99", 2.0, 1.0, -0.5),
        ("output_throughput", 50.0, 0.0, None),
        ("ttft_p99", 0.0, 1.0, None),
    ],
)
def test_halving_a_latency_is_as_much_gain_as_doubling_a_throughput(
    name: str, value: float, reference: float, gain: float | None
) -> None:
    assert METRICS[name].gain(value, reference) == gain


def test_better_is_lower_for_latencies_and_errors_and_higher_for_rates() -> None:
    lower = {name for name, each in METRICS.items() if each.better is Better.LOWER}
    seconds = {name for name in METRICS if METRICS[name].unit == "s"}
    assert lower == seconds | {"error_rate", "prompt_overlap"}
    assert METRICS["ttft_p50"].is_better(0.1, 0.2)
    assert METRICS["goodput"].is_better(2.0, 1.0)
    assert not METRICS["goodput"].is_better(1.0, 1.0)


def test_what_may_be_zero_is_not_combined_by_its_logarithm() -> None:
    for name in ("goodput", "goodput_per_gpu", "error_rate"):
        assert METRICS[name].combine is Combine.MEAN


def test_max_load_is_a_metric_of_a_trial_and_of_no_load_point() -> None:
    assert METRICS["max_load"].better is Better.HIGHER
    assert "max_load" not in metrics_of(FIVE)
    assert combined("max_load", [8.0, 64.0, 16.0]) == 64.0
    assert combined("max_load", [0.0]) == 0.0
    assert combined("max_load", [None]) is None


def test_a_metric_is_registered_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        metric("goodput", unit="", better=Better.HIGHER, combine=Combine.MEAN)(lambda _: None)


def test_no_metric_is_ever_infinite_or_not_a_number() -> None:
    for load in (FIVE, measurement(), measurement(request(None, None, None))):
        known = [value for value in metrics_of(load).values() if value is not None]
        assert all(math.isfinite(value) for value in known)


def test_a_load_has_a_short_name() -> None:
    assert Load(0, "D(64,16)", 8, 10, 5.0, 4, 0).name == "D(64,16) x 8"
