"""A report's numbers and sentences: what the terminal and the page say in the same words."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

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
_ANSWERED = ("COMPLETE", "INFEASIBLE", "STOPPED")
_ONE_RUN = (
    "Both were measured once (one run each): the spread of repeated runs is not in this figure."
)


@dataclass(frozen=True)
class Verdict:
    """What the measurements allow us to say, and what must be said beside it."""

    sentence: str
    notes: tuple[str, ...]


def verdict(summary: Json) -> Verdict:
    """The study's answer in one sentence."""
    study = summary["study"]
    best, baseline = trial_in(summary, "best"), trial_in(summary, "baseline")
    objectives = [objective["name"] for objective in study["objectives"]]
    defaults = f"{engine_name(summary)}'s defaults"
    so_far = " so far" if study["state"] in ("PENDING", "RUNNING") else ""
    notes = [study["reason"]] if study["reason"] else []
    if best is None:
        sentence, note = _nothing_found(summary["trials"], study["spec"]["constraints"], so_far)
        return Verdict(sentence, (*notes, *note))
    values = [f"{measured(best['objectives'][name], name)} {title(name)}" for name in objectives]
    if best is baseline:
        tried = any(t["state"] in _ANSWERED for t in summary["trials"] if not t["baseline"])
        sentence = f"Only {defaults} were measured{so_far}"
        if tried:
            where = f" in {title(objectives[0])}" if len(objectives) > 1 else ""
            sentence = f"Nothing tried{so_far} beats {defaults}{where}"
        sentence += f": {', '.join(values)}."
    else:
        gained = [summary["gain"].get(name) for name in objectives]
        for place, name in enumerate(objectives):
            if (change := gained[place]) is not None and baseline is not None:
                over = f"over {defaults} " if place == 0 else ""
                speed = " in speed" if METRICS[name].unit == "s" else ""
                reference = measured(baseline["objectives"][name], name)
                values[place] += f", {percent(change)}{speed} {over}({reference})"
        sentence = f"Trial {best['number']} reaches{so_far} {'; '.join(values)}."
        notes += _caveats(baseline, defaults, study["spec"]["constraints"])
        notes += [_ONE_RUN] if gained[0] is not None else []
    others = [str(number) for number in summary["front"] if number != summary["best"]]
    if len(objectives) > 1 and others:
        named = ", ".join(others)
        notes.append(f"“Best” goes by the first objective; also on the Pareto front: {named}.")
    return Verdict(sentence, tuple(notes))


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


def percent(gain: float | None) -> str:
    """A relative gain with its sign: +74 %."""
    if gain is None or not math.isfinite(gain):
        return MISSING
    if abs(gain) < 0.0005:
        return "±0\N{NO-BREAK SPACE}%"
    digits = 1 if abs(gain) < 0.0995 else 0
    return f"{gain * 100:+,.{digits}f}\N{NO-BREAK SPACE}%".replace("-", "\N{MINUS SIGN}")


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


def moment(stored: str) -> str:
    """A stored time, to the minute."""
    if not stored:
        return MISSING
    return datetime.fromisoformat(stored).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


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


def broken(trial: Json, bounds: Mapping[str, float]) -> list[str]:
    """The constraints a trial breaks, and by how much of the bound."""
    return [
        f"{title(name)} {percent(beyond)[1:] if bounds.get(name) else measured(beyond, name)} "
        f"{'above' if METRICS[name].better is Better.LOWER else 'below'} its bound"
        for name, beyond in trial["violations"].items()
        if beyond > 0
    ]


def phases(trial: Json) -> dict[str, float]:
    """Seconds spent in deploy, load and stop; what is not deploy or stop is a load point."""
    spent: dict[str, float] = {}
    for phase in trial["phases"]:
        name = phase["name"] if phase["name"] in ("deploy", "stop") else "load"
        spent[name] = spent.get(name, 0.0) + phase["end"] - phase["start"]
    return spent


def trial_in(summary: Json, role: str) -> Json | None:
    """The trial that is ``best`` or ``baseline``."""
    number = summary[role]
    return next((trial for trial in summary["trials"] if trial["number"] == number), None)


def unit_of(name: str) -> str:
    """A metric's unit; ``share`` for what is shown in percent."""
    return "share" if name == "error_rate" else METRICS[name].unit


def engine_name(summary: Json) -> str:
    kind = str(summary["study"]["engine"])
    return _ENGINES.get(kind, kind)


def _nothing_found(
    trials: Sequence[Json], bounds: Mapping[str, float], so_far: str
) -> tuple[str, list[str]]:
    complete = [trial for trial in trials if trial["state"] == "COMPLETE"]
    if not complete:
        return f"No trial was {'measured' if trials else 'started'}{so_far}.", []
    missed = [trial for trial in complete if broken(trial, bounds)]
    if not missed:
        return f"No trial has a value for every objective{so_far}.", []
    close = min(missed, key=lambda trial: max(trial["violations"].values()))
    note = f"Closest is trial {close['number']}: {', '.join(broken(close, bounds))}."
    return f"No trial met every constraint{so_far}.", [note]


def _caveats(baseline: Json | None, defaults: str, bounds: Mapping[str, float]) -> list[str]:
    """Why the baseline is no reference, or not a fair one."""
    if baseline is None:
        return [f"{defaults} were not tried: the gain is unknown."]
    if baseline["state"] in UNENDED:
        return [f"{defaults} have not been measured yet: the gain is unknown."]
    if baseline["state"] != "COMPLETE":
        why = [text for text in (baseline["failure"], baseline["reason"]) if text]
        told = ": ".join(why) or baseline["state"]
        return [f"{defaults} gave no measurement, so the gain is unknown ({told})."]
    failed = broken(baseline, bounds)
    return [f"{defaults} break a constraint: {', '.join(failed)}."] if failed else []


def command_line(argv: Sequence[str], environment: Mapping[str, str]) -> str:
    """A launch as a line a shell would take."""
    return " ".join([*(f"{k}={shlex.quote(v)}" for k, v in environment.items()), shlex.join(argv)])
