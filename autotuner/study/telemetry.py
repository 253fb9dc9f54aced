"""What was seen of server, machine and load generator while a load point ran, and what it says of
what held the trial back. Pure: who samples is `execution.sampling`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autotuner.study.trial import LoadPoint

KV_USAGE, RUNNING, WAITING = "kv_usage", "running", "waiting"
PREEMPTIONS, PREFIX_HITS, PREFIX_QUERIES = "preemptions", "prefix_hits", "prefix_queries"
GPU_MEMORY, GPU_UTILISATION, GPU_POWER = "gpu_memory_gib", "gpu_utilisation", "gpu_power_w"
HOST_CPU, HOST_MEMORY, LOAD_CPU = "host_cpu", "host_memory_gib", "load_cpu"

COUNTERS = (PREEMPTIONS, PREFIX_HITS, PREFIX_QUERIES)
"""Signals that only grow, until their server starts anew."""

GAUGES = (
    *(KV_USAGE, RUNNING, WAITING),
    *(GPU_MEMORY, GPU_UTILISATION, GPU_POWER),
    *(HOST_CPU, HOST_MEMORY, LOAD_CPU),
)

SIGNALS = (*GAUGES, *COUNTERS)

PREFIX_HIT_RATE, QUEUED = "prefix_hit_rate", "queued"

FULL = 0.95
"""Share from which on a KV cache, or a machine's CPUs, are as good as full."""

FULL_CORE = 0.9
"""Of a core: the load generator is one thread, and requests queue for it from here on."""

ROOMY = 0.8
"""Share of a KV cache in use, up to which the next prompt surely fits."""

STANDING = 0.3
"""Share of the samples in which requests waited, from which on there was a queue: those of users
who run in step all wait for a moment, again and again."""

IDLE = 0.5
"""Share of the time that GPUs compute, up to which they idle."""

KEPT_BUSY = 0.9
"""Share of the load's concurrency that is in the server unless its client is slow."""


@dataclass(frozen=True)
class Samples:
    """Values by signal, one a sample; None where one could not be had.

    Attributes:
        seconds: of each sample, since the sampling began.
    """

    seconds: tuple[float, ...] = ()
    series: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As it is kept in ``telemetry.json``."""
        return {
            "seconds": [round(each, 3) for each in self.seconds],
            "series": {
                signal: [None if value is None else float(f"{value:.6g}") for value in values]
                for signal, values in self.series.items()
            },
        }


@dataclass(frozen=True)
class Levers:
    """What bounds how much a server does at once, in its engine's own words.

    Attributes:
        sequences: the flag that bounds the sequences that run at the same time; empty, as each
            of these, where there is none.
        most: those of all replicas together, at most; None: left to the engine.
        tokens: the flag that bounds the tokens of one step.
        memory: the flag that gives the KV cache more room.
    """

    sequences: str = ""
    most: int | None = None
    tokens: str = ""
    memory: str = ""


def summed(samples: Samples, *, window: float) -> dict[str, float | None]:
    """A load point's telemetry in single numbers; what was never seen is left out.

    Of a gauge ``_mean`` and ``_max``, of a counter its growth; ``prefix_hit_rate``, the share of
    the prompts' tokens that were found in the prefix cache; ``queued``, the share of the samples
    in which requests waited (both 0 to 1).

    Args:
        window: seconds that were measured, up to the load's end. What came before warmed up.
    """
    if not samples.seconds:
        return {}
    ended = _ended(samples)
    opened = samples.seconds[ended] - window
    inside = [place for place, at in enumerate(samples.seconds[:ended]) if at >= opened]
    inside = inside or [max(ended - 1, 0)]
    # What a counter stood at when the window opened is the sample before it.
    counted = range(max(inside[0] - 1, 0), len(samples.seconds))
    found: dict[str, float | None] = {}
    for signal, values in samples.series.items():
        if signal in COUNTERS:
            grown = growth([values[place] for place in counted])
            if grown is not None:
                found[signal] = grown
        elif seen := [value for place in inside if (value := values[place]) is not None]:
            found[f"{signal}_mean"] = sum(seen) / len(seen)
            found[f"{signal}_max"] = max(seen)
            if signal == WAITING:
                found[QUEUED] = sum(value > 0 for value in seen) / len(seen)
    hits, queries = found.get(PREFIX_HITS), found.get(PREFIX_QUERIES)
    if hits is not None and queries:
        found[PREFIX_HIT_RATE] = min(hits / queries, 1.0)
    return found


def _ended(samples: Samples) -> int:
    """The first sample after the load: the last one is, and those before it in which the server
    had nothing left to do while the load generator wrote its results."""
    last = len(samples.seconds) - 1
    running = samples.series.get(RUNNING, ())
    busy = max((place for place, value in enumerate(running) if value), default=last)
    return min(busy + 1, last)


def growth(values: Sequence[float | None]) -> float | None:
    """How much a counter grew; None where it was seen less than twice. A counter that falls was
    started anew, at 0."""
    seen = [value for value in values if value is not None]
    if len(seen) < 2:
        return None
    return sum(
        after - before if after >= before else after for before, after in itertools.pairwise(seen)
    )


def why(load_points: Sequence[LoadPoint], levers: Levers) -> str:
    """What held a trial back, as far as its telemetry shows, in one sentence; else nothing.

    Looked at is the heaviest load: what bounds a server shows there first.
    """
    heaviest = _heaviest(load_points)
    several = len({point.name for point in load_points}) > 1
    for rule in _RULES:
        for point in heaviest:
            if said := rule(point, levers):
                return f"at {point.name}, {said}" if several else said
    return ""


def _heaviest(load_points: Sequence[LoadPoint]) -> list[LoadPoint]:
    """The load points with the most requests in flight; probes only where there is nothing else."""
    points = [point for point in load_points if not point.probe] or list(load_points)
    most = max((point.concurrency for point in points), default=0)
    return [point for point in points if point.concurrency == most]


Rule = Callable[[LoadPoint, Levers], str]
"""What telemetry says of one thing; nothing where that was not it."""


def _load_generator(point: LoadPoint, levers: Levers) -> str:  # noqa: ARG001
    used = point.telemetry.get("load_cpu_mean")
    if used is None or used < FULL_CORE:
        return ""
    return (
        f"the load generator was the bottleneck: it used {used:.2f} of a core, and what was "
        "measured is a lower bound"
    )


def _kv_cache(point: LoadPoint, levers: Levers) -> str:
    """A queue before a full KV cache, or sequences that were thrown out of one."""
    seen = point.telemetry
    waited, usage = seen.get("waiting_max") or 0, seen.get("kv_usage_max") or 0
    preempted = seen.get(PREEMPTIONS) or 0
    lost = f"{_counted(preempted, 'sequence was', 'sequences were')} preempted"
    if usage >= FULL and _queued(point):
        and_lost = f", and {lost}" if preempted else ""
        return (
            f"the queue grew to {waited:.0f} while the KV cache stood at {usage * 100:.0f} %"
            f"{and_lost}" + _advice("more {} cannot help", levers.sequences)
        )
    if not preempted:
        return ""
    return f"{lost} and computed again for want of KV cache" + _advice(
        "less {} or more {} may help", levers.sequences, levers.memory
    )


def _sequences(point: LoadPoint, levers: Levers) -> str:
    """A queue before a KV cache that is not full: as many run as may."""
    running = point.telemetry.get("running_max")
    if not _queued(point) or running is None or not _at_its_most(point, levers):
        return ""
    allowed = f", as many as `{levers.sequences}` allows," if levers.sequences else ""
    said = f"{_waited(point)} while {running:.0f} ran{allowed}{_room(point)}"
    if (point.telemetry.get("kv_usage_max") or 0) > ROOMY:
        return said + _advice("more need more {} too", levers.memory)
    return said + _advice("raise it", levers.sequences)


def _tokens(point: LoadPoint, levers: Levers) -> str:
    """A queue although there is room and more may run: prompts wait for their turn in a step."""
    running, usage = point.telemetry.get("running_max"), point.telemetry.get("kv_usage_max")
    if not _queued(point) or running is None or levers.most is None:
        return ""
    if usage is None or usage > ROOMY:
        return ""
    return (
        f"{_waited(point)} while {running:.0f} of at most {levers.most} ran{_room(point)}, so that "
        "prompts waited for their turn in a step"
    ) + _advice("more {} may help", levers.tokens)


def _host(point: LoadPoint, levers: Levers) -> str:  # noqa: ARG001
    used = point.telemetry.get("host_cpu_mean")
    if used is None or used < FULL:
        return ""
    share = f"{used * 100:.0f} %"
    if point.telemetry.get("gpu_utilisation_mean") is None:
        return f"the machine's CPUs, on which the engine computes, were busy to {share}"
    return f"the machine's CPUs were busy to {share}: GPUs wait for what CPUs prepare"


def _idle(point: LoadPoint, levers: Levers) -> str:  # noqa: ARG001
    """GPUs that idle although nothing waits."""
    seen = point.telemetry
    used, running = seen.get("gpu_utilisation_mean"), seen.get("running_mean")
    if used is None or used > IDLE or _queued(point):
        return ""
    idle = f"the GPU idled {(1 - used) * 100:.0f} % of the time and nothing waited"
    if running is None or running >= KEPT_BUSY * point.concurrency:
        return f"{idle}: it could serve more than {point.concurrency} at once"
    return (
        f"{idle}: only {running:.1f} of {point.concurrency} requests were in the server, "
        "so the client kept it waiting"
    )


# The first to say something is heard: what makes the numbers doubtful before what explains them,
# and the surer before the likelier.
_RULES: tuple[Rule, ...] = (_load_generator, _kv_cache, _sequences, _tokens, _host, _idle)


def _queued(point: LoadPoint) -> bool:
    return (point.telemetry.get(QUEUED) or 0) >= STANDING


def _at_its_most(point: LoadPoint, levers: Levers) -> bool:
    """Whether as many sequences ran as may; where that number is the engine's secret, whether it
    was always the same."""
    running, mean = point.telemetry.get("running_max"), point.telemetry.get("running_mean")
    if running is None or mean is None:
        return False
    return running >= levers.most if levers.most is not None else mean >= KEPT_BUSY * running


def _waited(point: LoadPoint) -> str:
    most = point.telemetry.get("waiting_max") or 0
    return f"up to {_counted(most, 'request', 'requests')} waited"


def _room(point: LoadPoint) -> str:
    usage = point.telemetry.get("kv_usage_max")
    return "" if usage is None else f" with the KV cache at {usage * 100:.0f} %"


def _advice(text: str, *flags: str) -> str:
    """What to move, where the engine has a word for it."""
    return ": " + text.format(*(f"`{flag}`" for flag in flags)) if all(flags) else ""


def _counted(count: float, one: str, more: str) -> str:
    return f"{count:.0f} {one if round(count) == 1 else more}"
