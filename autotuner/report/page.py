"""The report as one self-contained HTML file: no script, no network, light and dark."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from typing import Any, TypeAlias

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from autotuner.report.plots import Axis, Line, Mark, chart, glyph
from autotuner.report.summary import parameters_text
from autotuner.study.metrics import METRICS, Better
from autotuner.study.space import identity

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
_LOAD_SHAPES = ("circle", "square", "triangle", "diamond", "wedge", "pentagon")
_ONGOING = ("DEPLOYING", "BENCHMARKING")
_ANSWERED = ("COMPLETE", "INFEASIBLE", "STOPPED")
_ONE_RUN = (
    "Both were measured once (one run each): the spread of repeated runs is not in this figure."
)
_MEANINGS = {
    "best": "best",
    "baseline": "baseline",
    "front": "Pareto front",
    "hollow": "breaks a constraint",
    "": "other trials",
    "lost": "no result",
}


def html(summary: Json) -> str:
    """The page of one study.

    Args:
        summary: what `summary.summary` returns, or the same read back from JSON.
    """
    return _ENVIRONMENT.get_template("page.html.j2").render(_view(summary))


@dataclass(frozen=True)
class Verdict:
    """What the measurements allow us to say, and what must be said beside it."""

    sentence: str
    notes: tuple[str, ...]


def verdict(summary: Json) -> Verdict:
    """The study's answer in one sentence."""
    study = summary["study"]
    best, baseline = _trial(summary, "best"), _trial(summary, "baseline")
    objectives = [objective["name"] for objective in study["objectives"]]
    defaults = f"{_engine(summary)}'s defaults"
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
    if value == round(value) or abs(rounded) >= 100:
        text = f"{value:,.0f}"
    elif abs(rounded) < 1e-3:
        text = f"{value:.3g}"
    else:
        text = f"{value:.{2 - math.floor(math.log10(abs(rounded)))}f}"
    return (text.replace("-", "\N{MINUS SIGN}") + f"\N{NO-BREAK SPACE}{unit}").rstrip()


def measured(value: float | None, name: str) -> str:
    """A metric's value with its unit."""
    return quantity(value, _unit(name))


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


def _view(summary: Json) -> dict[str, Any]:
    """What the template shows beside the summary itself."""
    study, trials = summary["study"], summary["trials"]
    best, baseline = _trial(summary, "best"), _trial(summary, "baseline")
    columns = [trial for trial in (best, baseline) if trial is not None]
    columns = columns[:1] if best is baseline else columns
    return {
        "summary": summary,
        "study": study,
        "spec": study["spec"],
        "engine": _engine(summary),
        "objectives": [objective["name"] for objective in study["objectives"]],
        "asked": [f"{title(o['name'])} ({o['better']} is better)" for o in study["objectives"]],
        "speed": any(objective["unit"] == "s" for objective in study["objectives"]),
        "counted": ", ".join(
            f"{count}\N{NO-BREAK SPACE}{state}" for state, count in summary["counts"].items()
        ),
        "best": best,
        "baseline": baseline,
        "columns": columns,
        "at_loads": [
            (name, [_metrics(trial, index) for trial in columns])
            for index, name in enumerate(study["loads"])
        ],
        "varied": list(dict.fromkeys(name for trial in columns for name in trial["parameters"])),
        "verdict": verdict(summary),
        "failures": _failures(trials),
        "figures": list(_figures(summary)),
    }


def _trial(summary: Json, role: str) -> Json | None:
    """The trial that is ``best`` or ``baseline``."""
    number = summary[role]
    return next((trial for trial in summary["trials"] if trial["number"] == number), None)


def _metrics(trial: Json, load: int) -> Json:
    points = (point for point in trial["load_points"] if point["index"] == load)
    return next((dict(point["metrics"]) for point in points), {})


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
    if baseline["state"] in ("PENDING", *_ONGOING):
        return [f"{defaults} have not been measured yet: the gain is unknown."]
    if baseline["state"] != "COMPLETE":
        why = [text for text in (baseline["failure"], baseline["reason"]) if text]
        told = ": ".join(why) or baseline["state"]
        return [f"{defaults} gave no measurement, so the gain is unknown ({told})."]
    failed = broken(baseline, bounds)
    return [f"{defaults} break a constraint: {', '.join(failed)}."] if failed else []


def _failures(trials: Sequence[Json]) -> list[tuple[str, list[Json]]]:
    """Trials without an answer by failure class, the most frequent first."""
    groups: dict[str, list[Json]] = {}
    for trial in trials:
        if trial["state"] in ("INFEASIBLE", "FAILED"):
            unnamed = "infrastructure" if trial["state"] == "FAILED" else "unknown"
            groups.setdefault(trial["failure"] or unnamed, []).append(trial)
    return sorted(groups.items(), key=lambda group: -len(group[1]))


@dataclass(frozen=True)
class Figure:
    """A chart with its heading and legend of (glyph, meaning)."""

    heading: str
    svg: str
    legend: list[tuple[str, str]]


def _figures(summary: Json) -> Iterator[Figure]:
    names = [objective["name"] for objective in summary["study"]["objectives"]]
    for name in names:
        yield _progress(summary, name)
    yield _loads(summary)
    for pair in combinations(names, 2):
        yield _trade(summary, *pair)


def _progress(summary: Json, name: str) -> Figure:
    ended = [t for t in summary["trials"] if t["state"] not in ("PENDING", *_ONGOING)]
    marks = [
        Mark(
            x=trial["number"],
            y=_finite(trial["objectives"].get(name)),
            title=_story(summary, trial),
            href=f"#trial-{trial['number']}",
            kind=(kind := _kind(summary, trial, trial["objectives"].get(name))),
            shape=_shape(kind),
        )
        for trial in ended
    ]
    better = max if METRICS[name].better is Better.HIGHER else min
    found: list[tuple[float | None, float | None]] = []
    for trial in sorted(ended, key=lambda trial: int(trial["number"])):
        value = trial["objectives"].get(name) if trial["feasible"] else None
        previous = found[-1][1] if found else None
        known = [v for v in (value, previous) if v is not None]
        if known:
            found.append((trial["number"], better(known)))
    lines = [Line(found, "record", step=True)] if len(found) > 1 else []
    legend = _legend(marks) + [(glyph("line", "record"), "best so far")] * bool(lines)
    reference = next((mark.y for mark in marks if mark.x == summary["baseline"]), None)
    if reference is not None:
        lines.append(Line([(None, reference)], "reference"))
        legend.append((glyph("line", "reference"), "baseline's value"))
    heading = f"{title(name)} over trials"
    axis = Axis(title(name), _unit(name))
    return Figure(heading, chart(heading, Axis("trial", whole=True), axis, marks, lines), legend)


def _loads(summary: Json) -> Figure:
    """Output throughput over latency, one mark per trial and load point."""
    across, up = "ttft_p90", "output_throughput"
    points = [(trial, point) for trial in summary["trials"] for point in trial["load_points"]]
    if not any(point["metrics"].get(across) is not None for _, point in points):
        across = "e2e_latency_p90"
    marks: list[Mark] = []
    curves: dict[tuple[str, str], list[tuple[float | None, float | None]]] = {}
    for trial, point in points:
        x, y = (_finite(point["metrics"].get(name)) for name in (across, up))
        if x is None or y is None:
            continue
        kind = _kind(summary, trial, y).replace("front", "").strip()
        shape = _LOAD_SHAPES[point["index"] % len(_LOAD_SHAPES)]
        story = _story(summary, trial, point)
        marks.append(Mark(x, y, story, f"#trial-{trial['number']}", kind, shape))
        if kind.partition(" ")[0] in ("best", "baseline"):
            curves.setdefault((kind.partition(" ")[0], point["scenario"]), []).append((x, y))
    lines = [Line(curve, f"of-{kind}") for (kind, _), curve in curves.items() if len(curve) > 1]
    loads = summary["study"]["loads"]
    legend = _legend(marks, "circle") + [
        (glyph(_LOAD_SHAPES[index % len(_LOAD_SHAPES)], "plain"), name)
        for index, name in enumerate(loads)
    ] * (len(loads) > 1)
    bound = summary["study"]["spec"]["constraints"].get(across)
    if bound is not None:
        lines.append(Line([(bound, None)], "bound"))
        legend.append((glyph("line", "bound"), f"bound: {measured(bound, across)}"))
    heading = f"{title(up)} over {title(across)}, per load point"
    axes = Axis(title(across), _unit(across), log=True), Axis(title(up), _unit(up), log=True)
    return Figure(heading, chart(heading, *axes, marks, lines), legend)


def _trade(summary: Json, one: str, other: str) -> Figure:
    marks = [
        Mark(x, y, _story(summary, trial), f"#trial-{trial['number']}", _kind(summary, trial, y))
        for trial in summary["trials"]
        if (x := _finite(trial["objectives"].get(one))) is not None
        and (y := _finite(trial["objectives"].get(other))) is not None
    ]
    lines = []
    if len(summary["study"]["objectives"]) == 2 and len(summary["front"]) > 1:
        at = {trial["number"]: trial["objectives"] for trial in summary["trials"]}
        front = [(at[number][one], at[number][other]) for number in summary["front"]]
        lines.append(Line(front, "record"))
    heading = f"{title(other)} over {title(one)}, per trial"
    axes = Axis(title(one), _unit(one), log=True), Axis(title(other), _unit(other))
    return Figure(heading, chart(heading, *axes, marks, lines), _legend(marks, "circle"))


def _legend(marks: Sequence[Mark], shape: str = "") -> list[tuple[str, str]]:
    """The kinds that occur, each with the mark it is drawn by (or one shape for all)."""
    used = {kind: mark.shape for mark in marks for kind in (mark.kind.split() or [""])}
    return [
        (glyph(shape or used[kind], kind), meaning)
        for kind, meaning in _MEANINGS.items()
        if kind in used
    ]


def _kind(summary: Json, trial: Json, value: float | None) -> str:
    """Classes of a trial's mark; how it stands first, then whether it broke a constraint."""
    if _finite(value) is None:
        return "lost"
    number = trial["number"]
    roles = {summary["best"]: "best", summary["baseline"]: "baseline"}
    role = "best" if number == summary["best"] else roles.get(number, "")
    if not role and number in summary["front"] and len(summary["study"]["objectives"]) > 1:
        role = "front"
    return f"{role} {'' if trial['feasible'] else 'hollow'}".strip()


def _story(summary: Json, trial: Json, point: Json | None = None) -> str:
    """All of a trial, or of one of its load points, as the lines of a tooltip."""
    role = {summary["baseline"]: " (baseline)", summary["best"]: " (best)"}
    lines = [f"Trial {trial['number']}{role.get(trial['number'], '')}, {trial['state']}"]
    lines.append(parameters_text(trial["parameters"]))
    values = trial["objectives"]
    if point is not None:
        lines.append(f"{point['scenario']} x {point['concurrency']}")
        values = {name: point["metrics"].get(name) for name in COMPARED}
    lines += [f"{title(name)}: {measured(v, name)}" for name, v in values.items() if v is not None]
    lines += broken(trial, summary["study"]["spec"]["constraints"])
    lines += [text for text in (trial["failure"], trial["reason"]) if text]
    return "\n".join(lines)


def _unit(name: str) -> str:
    return "share" if name == "error_rate" else METRICS[name].unit


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _engine(summary: Json) -> str:
    kind = str(summary["study"]["engine"])
    return _ENGINES.get(kind, kind)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else identity(value)


def _listed(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{key}={_shown(each)}" for key, each in value.items()) or MISSING
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_shown, value)) or MISSING
    return MISSING if value is None else _shown(value)


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


_ENVIRONMENT = Environment(
    loader=PackageLoader("autotuner.report", "."),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.globals.update(
    compared=COMPARED,
    missing=MISSING,
    svg=Markup,
    shown=_shown,
    listed=_listed,
    as_json=_as_json,
    **{
        each.__name__: each
        for each in (measured, percent, duration, moment, gain, difference, broken, phases)
    },
    title_of=title,
    parameters_text=parameters_text,
)
