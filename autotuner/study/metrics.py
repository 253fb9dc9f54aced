"""The metrics: functions of one load point's requests, each with a unit and a direction.

Percentiles are computed here from the single requests, with linear interpolation between
order statistics (the default of ``numpy.percentile``), over the requests that completed; what
failed counts in `error_rate` and against `goodput`, never as a zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Better(StrEnum):
    """The direction of a metric."""

    LOWER = "lower"
    HIGHER = "higher"


class Combine(StrEnum):
    """How a metric's values at several load points become the trial's one value.

    GEOMETRIC gives a relative change the same weight at every load point: with plain means a
    trial that is 5 % faster at concurrency 64 hides being twice as slow at 1. MEAN and SUM are
    for what may be zero. HIGHEST is for what only all load points together can say.
    """

    GEOMETRIC = "geometric mean"
    MEAN = "mean"
    SUM = "sum"
    HIGHEST = "highest that meets every bound"


@dataclass(frozen=True)
class Request:
    """One request as the client saw it; times in seconds.

    Attributes:
        ttft: request sent to first token.
        tpot: (e2e latency - TTFT) / (output tokens - 1); None where all tokens arrived at once.
        e2e_latency: request sent to last token.
        error: None, or the status code or message of the failure.
    """

    ttft: float | None
    tpot: float | None
    e2e_latency: float | None
    input_tokens: int
    output_tokens: int
    error: str | None = None


@dataclass(frozen=True)
class Measurement:
    """What the load generator saw at one load point.

    Attributes:
        seconds: length of the measured window.
        requests: requests that ended inside the window, errors included, in order of completion.
        gpus: GPUs the server held (0 on a CPU).
        prompt_overlap: share of the prompts' text that begins another prompt, 0 to 1.
        latency_bounds: upper bounds in seconds on `ttft`, `tpot` or `e2e_latency` that a single
            request must meet to count as goodput.
    """

    seconds: float
    requests: tuple[Request, ...]
    gpus: int = 0
    latency_bounds: Mapping[str, float] | None = None
    prompt_overlap: float | None = None

    @property
    def completed(self) -> tuple[Request, ...]:
        return tuple(request for request in self.requests if request.error is None)


@dataclass(frozen=True)
class Metric:
    """A named function of a measurement; None means that it cannot be said.

    Attributes:
        compute: None where no single load point has a value, only the trial.
    """

    name: str
    unit: str
    better: Better
    combine: Combine
    compute: Callable[[Measurement], float | None] | None

    def is_better(self, one: float, other: float) -> bool:
        return one > other if self.better is Better.HIGHER else one < other

    def gain(self, value: float, reference: float) -> float | None:
        """Relative improvement over a reference: 0.25 is 25 % better, whatever the direction.

        For a latency this is the speed-up, reference / value - 1, so that halving it is +100 %
        as doubling a throughput is. None where the divisor is not positive.
        """
        top, bottom = (value, reference) if self.better is Better.HIGHER else (reference, value)
        return top / bottom - 1 if bottom > 0 else None


METRICS: dict[str, Metric] = {}
"""Every metric by name; a study may name any of them as objective or constraint."""

LATENCIES = ("ttft", "tpot", "e2e_latency")
STATISTICS = ("mean", "p50", "p90", "p95", "p99")


def metric(
    name: str, *, unit: str, better: Better, combine: Combine
) -> Callable[[Callable[[Measurement], float | None]], Callable[[Measurement], float | None]]:
    """Register a function of a measurement under `name`."""

    def register(
        compute: Callable[[Measurement], float | None],
    ) -> Callable[[Measurement], float | None]:
        if name in METRICS:
            raise ValueError(f"metric {name!r} is registered twice")
        METRICS[name] = Metric(name, unit, better, combine, compute)
        return compute

    return register


def metrics_of(measurement: Measurement) -> dict[str, float | None]:
    """Every metric that one load point has."""
    return {name: each.compute(measurement) for name, each in METRICS.items() if each.compute}


def combined(name: str, values: Sequence[float | None]) -> float | None:
    """One value for a trial out of one per load point; None when any is missing.

    A trial that could not be measured at one load point is not comparable with one that was.
    """
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    how = METRICS[name].combine
    if how is Combine.HIGHEST:
        return max(known)
    if how is Combine.SUM:
        return math.fsum(known)
    if how is Combine.MEAN:
        return math.fsum(known) / len(known)
    if min(known) <= 0:
        return 0.0
    return math.exp(math.fsum(math.log(value) for value in known) / len(known))


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Percentile by linear interpolation; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _latency(field: str, statistic: str) -> Callable[[Measurement], float | None]:
    def compute(measurement: Measurement) -> float | None:
        values = [
            value
            for request in measurement.completed
            if (value := getattr(request, field)) is not None
        ]
        if not values:
            return None
        if statistic == "mean":
            return math.fsum(values) / len(values)
        return percentile(values, float(statistic.removeprefix("p")))

    return compute


for _field in LATENCIES:
    for _statistic in STATISTICS:
        metric(
            f"{_field}_{_statistic}",
            unit="s",
            better=Better.LOWER,
            combine=Combine.GEOMETRIC,
        )(_latency(_field, _statistic))


def _tokens_per_second(measurement: Measurement, *fields: str) -> float | None:
    if measurement.seconds <= 0:
        return None
    tokens = sum(getattr(request, field) for request in measurement.completed for field in fields)
    return float(tokens / measurement.seconds)


def _throughput(name: str, *fields: str) -> None:
    def whole(measurement: Measurement) -> float | None:
        return _tokens_per_second(measurement, *fields)

    def per_gpu(measurement: Measurement) -> float | None:
        value = whole(measurement)
        return None if value is None or measurement.gpus < 1 else value / measurement.gpus

    for suffix, compute, unit in (("", whole, "tok/s"), ("_per_gpu", per_gpu, "tok/s/GPU")):
        metric(name + suffix, unit=unit, better=Better.HIGHER, combine=Combine.GEOMETRIC)(compute)


_throughput("output_throughput", "output_tokens")
_throughput("input_throughput", "input_tokens")
_throughput("total_throughput", "input_tokens", "output_tokens")


@metric("request_throughput", unit="req/s", better=Better.HIGHER, combine=Combine.GEOMETRIC)
def request_throughput(measurement: Measurement) -> float | None:
    if measurement.seconds <= 0:
        return None
    return len(measurement.completed) / measurement.seconds


@metric(
    "request_throughput_per_gpu", unit="req/s/GPU", better=Better.HIGHER, combine=Combine.GEOMETRIC
)
def request_throughput_per_gpu(measurement: Measurement) -> float | None:
    value = request_throughput(measurement)
    return None if value is None or measurement.gpus < 1 else value / measurement.gpus


@metric("goodput", unit="req/s", better=Better.HIGHER, combine=Combine.MEAN)
def goodput(measurement: Measurement) -> float | None:
    """Requests per second that met every latency bound; errored requests are misses.

    Requests cut off by the end of the window count neither way (guidellm's definition).
    """
    if measurement.seconds <= 0:
        return None
    bounds = measurement.latency_bounds or {}
    good = sum(
        all(
            # A TPOT that is missing was too short to be told.
            (value := getattr(request, field)) is None or value <= bound
            for field, bound in bounds.items()
        )
        for request in measurement.completed
    )
    return good / measurement.seconds


@metric("goodput_per_gpu", unit="req/s/GPU", better=Better.HIGHER, combine=Combine.MEAN)
def goodput_per_gpu(measurement: Measurement) -> float | None:
    value = goodput(measurement)
    return None if value is None or measurement.gpus < 1 else value / measurement.gpus


@metric("error_rate", unit="", better=Better.LOWER, combine=Combine.MEAN)
def error_rate(measurement: Measurement) -> float | None:
    """Failed requests over all that ended; genai-bench's own figure is always 0."""
    if not measurement.requests:
        return None
    failed = len(measurement.requests) - len(measurement.completed)
    return failed / len(measurement.requests)


@metric("requests", unit="", better=Better.HIGHER, combine=Combine.SUM)
def requests(measurement: Measurement) -> float | None:
    """Requests completed in the window."""
    return float(len(measurement.completed))


@metric("prompt_overlap", unit="", better=Better.LOWER, combine=Combine.MEAN)
def prompt_overlap(measurement: Measurement) -> float | None:
    """Share of the prompts' text that is the beginning of another prompt: what a prefix cache
    could have known. Of the load, not of the server."""
    return measurement.prompt_overlap


MAX_LOAD = "max_load"
METRICS[MAX_LOAD] = Metric(
    MAX_LOAD, "requests in flight", Better.HIGHER, Combine.HIGHEST, compute=None
)
"""The highest concurrency at which every bound is met; see `objective.at_max_load`."""
