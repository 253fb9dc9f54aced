"""A report's numbers and sentences: what the terminal and the page say in the same words."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any, TypeAlias

from autotuner.study import reasons
from autotuner.study.metrics import METRICS, Better

Json: TypeAlias = Mapping[str, Any]

COMPARED = (
    *("output_throughput", "request_throughput", "goodput"),
    *("ttft_p50", "ttft_p90", "ttft_p99", "tpot_p50", "tpot_p90"),
    *("e2e_latency_p90", "e2e_latency_p99", "error_rate", "requests"),
)
"""Metrics shown per load point for the best trial and the baseline."""

MISSING = "\N{EN DASH}"
_ENGINES = {"vllm": "vLLM", "sglang": "SGLang"}
_WORDS = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "E2E", "gpu": "GPU"}
UNENDED = ("PENDING", "DEPLOYING", "BENCHMARKING")
ANSWERED = ("COMPLETE", "INFEASIBLE", "STOPPED")


def quantity(value: float | None, unit: str = "") -> str:
    """A measured value to three significant digits with its unit; seconds below 1 in ms."""
    if value is None or not math.isfinite(value):
        return MISSING
    if unit == "share":
        value, unit = value * 100, "%"
    elif unit == "s" and float(f"{abs(value):.3g}") < 1:
        value, unit = value * 1000, "ms"
    rounded = float(f"{value:.3g}")
    if abs(rounded) >= 100 or value == 0 or (not unit and value == round(value)):
        text = f"{value:,.0f}"
    elif abs(rounded) < 1e-3:
        text = f"{value:.3g}"
    else:
        text = f"{value:.{2 - math.floor(math.log10(abs(rounded)))}f}"
    return (text.replace("-", "\N{MINUS SIGN}") + f"\N{NO-BREAK SPACE}{unit}").rstrip()


def measured(value: float | None, name: str) -> str:
    """A metric's value with its unit."""
    return quantity(value, unit_of(name))


def by_cause(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """Reasons with how often each was given, those together that differ in their numbers only.

    Keys: ``reason`` (one of them, the commonest), ``count`` of them all, ``reasons`` (how many
    different ones); the largest first.
    """
    alike = Counter(map(reasons.cause, counts))
    return [
        {"reason": reason, "count": count, "reasons": alike[reasons.cause(reason)]}
        for reason, count in reasons.by_cause(Counter(counts).elements())
    ]


def percent(gain: float | None) -> str:
    """A relative gain with its sign: +74 %."""
    if gain is None or not math.isfinite(gain):
        return MISSING
    if abs(gain) < 0.0005:
        return "±0\N{NO-BREAK SPACE}%"
    digits = 1 if abs(gain) < 0.0995 else 0
    return f"{gain * 100:+,.{digits}f}\N{NO-BREAK SPACE}%".replace("-", "\N{MINUS SIGN}")


def span(low: float | None, high: float | None) -> str:
    """A confidence interval of a gain: 181 to 217 %, with signs where it reaches below 0."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return MISSING
    sign = "+" if low < 0 else ""
    low_text, high_text = (
        f"{each * 100:{sign},.{1 if abs(each) < 0.0995 else 0}f}" for each in (low, high)
    )
    written = f"{low_text} to {high_text}\N{NO-BREAK SPACE}%"
    return written.replace("-", "\N{MINUS SIGN}")


def duration(seconds: float | None) -> str:
    """A stretch of time in its two largest units."""
    if seconds is None:
        return MISSING
    if seconds < 9.95:
        return f"{seconds:.1f}\N{NO-BREAK SPACE}s"
    whole = round(seconds)
    parts = {"h": whole // 3600, "min": whole // 60 % 60, "s": whole % 60}
    largest = [f"{amount} {unit}" for unit, amount in parts.items() if amount][:2]
    return " ".join(largest).replace(" ", "\N{NO-BREAK SPACE}")


def moment(stored: str, zone: tzinfo = UTC) -> str:
    """A stored time to the minute, in a time zone and with its name: stored are UTC's."""
    if not stored:
        return MISSING
    return datetime.fromisoformat(stored).astimezone(zone).strftime("%Y-%m-%d %H:%M %Z")


def title(metric: str) -> str:
    """A metric's name for people: ``ttft_p90`` is TTFT p90."""
    return " ".join(_WORDS.get(word, word) for word in metric.split("_"))


def gain(name: str, value: float | None, reference: float | None) -> float | None:
    """Relative gain in one metric, as `Metric.gain`; None where unknown."""
    known = value is not None and reference is not None
    return METRICS[name].gain(value, reference) if known else None  # type: ignore[arg-type]


def difference(name: str, value: float | None, reference: float | None) -> tuple[str, str]:
    """How much a value differs from a reference, and whether that is better or worse."""
    if name == "requests" or value is None or not reference:
        return MISSING, ""
    change = value / reference - 1
    word = "better" if METRICS[name].is_better(value, reference) else "worse"
    return percent(change), word if abs(change) >= 0.0005 else ""


@dataclass(frozen=True)
class Miss:
    """A constraint that a trial breaks, and how badly."""

    text: str
    severity: str


def misses(trial: Json, bounds: Mapping[str, float]) -> list[Miss]:
    """The constraints a trial breaks, and by how much of the bound."""
    return [
        Miss(
            f"{title(name)} "
            f"{percent(beyond)[1:] if bounds.get(name) else measured(beyond, name)} "
            f"{'above' if METRICS[name].better is Better.LOWER else 'below'} its bound",
            trial["severity"].get(name, ""),
        )
        for name, beyond in trial["violations"].items()
        if beyond > 0
    ]


def broken(trial: Json, bounds: Mapping[str, float]) -> list[str]:
    """The same, with the severity in words."""
    return [
        f"{miss.text} ({miss.severity})" if miss.severity else miss.text
        for miss in misses(trial, bounds)
    ]


def apart(standing: Json, reference: int | None) -> str:
    """Whether a candidate of the finals was told apart from the reference."""
    if standing["out"]:
        return f"out: {standing['out']}"
    if standing["candidate"] == reference:
        return "reference"
    if standing["gain"] is None:
        return "not compared yet"
    if not standing["separated"]:
        return "not told apart"
    return "better" if standing["gain"] > 0 else "worse"


def accuracy_line(name: str, accuracy: Json) -> str:
    """How well a metric was predicted."""
    parts = [f"{title(name)}: {counted(accuracy['trials'], 'trial')}"]
    if accuracy["error"] is not None:
        parts.append(f"off by {percent(accuracy['error']).lstrip('+')} (median)")
    if accuracy["rank_correlation"] is not None:
        rank = f"{accuracy['rank_correlation']:.2f}".replace("-", "\N{MINUS SIGN}")
        parts.append(f"rank correlation {rank}")
    return ", ".join(parts)


def phases(trial: Json) -> dict[str, float]:
    """Seconds spent in deploy, load and stop; what is not deploy or stop is a load point."""
    spent: dict[str, float] = {}
    for phase in trial["phases"]:
        name = phase["name"] if phase["name"] in ("deploy", "stop") else "load"
        spent[name] = spent.get(name, 0.0) + phase["end"] - phase["start"]
    return spent


def load_points(trial: Json) -> dict[str, Json]:
    """A trial's load points by name; probes, which are in no objective, left out."""
    return {point["name"]: point for point in trial["load_points"] if not point["probe"]}


def all_loads(summary: Json) -> list[str]:
    """The load points asked for, and those that a search for the highest load came by."""
    found = (name for trial in summary["trials"] for name in load_points(trial))
    return list(dict.fromkeys([*summary["study"]["loads"], *found]))


def trial_in(summary: Json, role: str) -> Json | None:
    """The trial that is ``best`` or ``baseline``."""
    number = summary[role]
    return next((trial for trial in summary["trials"] if trial["number"] == number), None)


def unit_of(name: str) -> str:
    """A metric's unit; ``share`` for what is shown in percent."""
    return "share" if name == "error_rate" else METRICS[name].unit


def engine_name(summary: Json) -> str:
    kinds = str(summary["study"]["engine"]).split(" / ")
    return " / ".join(_ENGINES.get(kind, kind) for kind in kinds)


def defaults(summary: Json) -> str:
    """The baseline by name; of several engines it is the first one's."""
    return f"{engine_name(summary).partition(' / ')[0]}'s defaults"


def candidate(summary: Json, number: int) -> str:
    """A trial, or the defaults, within a sentence."""
    return defaults(summary) if number == summary["baseline"] else f"trial {number}"


def listed(names: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def counted(count: int, noun: str) -> str:
    """1 launch, 2 launches."""
    plural = noun + ("es" if noun.endswith("ch") else "s")
    return f"{count:,}\N{NO-BREAK SPACE}{noun if count == 1 else plural}"


def shortened(text: str, most: int) -> str:
    """The text, cut where it is longer than `most` characters."""
    return text if len(text) <= most else text[: most - 3] + "..."


def cost_text(cost: Json) -> str:
    """21 launches, 9 min of trials, 3.2 GPU-hours; the last where there are GPUs."""
    parts = [counted(cost["launches"], "launch"), f"{duration(cost['seconds'])} of trials"]
    if cost["gpu_hours"] > 0:
        parts.append(gpu_hours(cost["gpu_hours"]))
    return ", ".join(parts)


def gpu_hours(hours: float) -> str:
    return f"{quantity(hours)}\N{NO-BREAK SPACE}GPU-hours"


def command_line(argv: Sequence[str], environment: Mapping[str, str]) -> str:
    """A launch as a line a shell would take."""
    return " ".join([*(f"{k}={shlex.quote(v)}" for k, v in environment.items()), shlex.join(argv)])
