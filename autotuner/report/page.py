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

from autotuner.report.plots import ROLES, Axis, Line, Mark, Rule, chart, glyph
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
_UNENDED = ("PENDING", "DEPLOYING", "BENCHMARKING")
_ANSWERED = ("COMPLETE", "INFEASIBLE", "STOPPED")
_ONE_RUN = (
    "Both were measured once (one run each): the spread of repeated runs is not in this figure."
)
_CURVED = ("best", "baseline")
_MEANINGS = {
    "best": "best",
    "baseline": "baseline",
    "front": "on the front",
    "": "other trials",
    "hollow": "not feasible",
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
    if abs(rounded) >= 100 or value == 0 or (not unit and value == round(value)):
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
        "spec_text": json.dumps(study["spec"], indent=2, ensure_ascii=False),
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
    if baseline["state"] in _UNENDED:
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
    """A chart with its heading and the rows of its legend: glyphs and their meanings."""

    heading: str
    svg: str
    legend: list[list[tuple[str, str]]]


def _figures(summary: Json) -> Iterator[Figure]:
    names = [objective["name"] for objective in summary["study"]["objectives"]]
    if any(trial["state"] not in _UNENDED for trial in summary["trials"]):
        yield from (_progress(summary, name) for name in names)
    if any(trial["load_points"] for trial in summary["trials"]):
        yield _loads(summary)
        yield from (_trade(summary, *pair) for pair in combinations(names, 2))


def _progress(summary: Json, name: str) -> Figure:
    """One objective over the trials, in order of asking."""
    ended = [t for t in summary["trials"] if t["state"] not in _UNENDED]
    values = {t["number"]: _finite(t["objectives"].get(name)) for t in ended}
    marks = [_mark(summary, t, t["number"], values[t["number"]]) for t in ended]
    better = max if METRICS[name].better is Better.HIGHER else min
    record: list[tuple[float, float]] = []
    for trial in ended:
        value = values[trial["number"]]
        if value is not None and trial["feasible"]:
            reached = better(value, record[-1][1]) if record else value
            record.append((trial["number"], reached))
    lines: list[Line | Rule] = []
    legend = _legend(marks)
    if len(record) > 1:
        lines.append(Line(record, "record", step=True))
        legend.append((glyph("line", "record"), "best so far"))
    reference = values.get(summary["baseline"])
    if reference is not None:
        lines.append(Rule(reference, "reference"))
        legend.append((glyph("line", "reference"), "baseline's value"))
    axes = Axis("trial", whole=True), Axis(title(name), _unit(name))
    heading = f"{title(name)} over trials"
    return Figure(heading, chart(heading, *axes, marks, lines), [legend])


def _loads(summary: Json) -> Figure:
    """Output throughput over latency, one mark per trial and load point."""
    across, up = "ttft_p90", "output_throughput"
    points = [(trial, point) for trial in summary["trials"] for point in trial["load_points"]]
    if not any(point["metrics"].get(across) is not None for _, point in points):
        across = "e2e_latency_p90"
    marks: list[Mark] = []
    curves: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for trial, point in points:
        x, y = (_finite(point["metrics"].get(name)) for name in (across, up))
        if x is not None and y is not None:
            marks.append(_mark(summary, trial, x, y, point))
            curves.setdefault((marks[-1].role, point["scenario"]), []).append((x, y))
    lines: list[Line | Rule] = [
        Line(curve, f"of-{role}") for (role, _), curve in curves.items() if role in _CURVED
    ]
    legend = _legend(marks, "circle")
    shapes = [
        (glyph(_load_shape(index), "plain"), name)
        for index, name in enumerate(summary["study"]["loads"])
    ]
    bound = summary["study"]["spec"]["constraints"].get(across)
    if bound is not None:
        lines.append(Rule(bound, "bound", upright=True))
        legend.append((glyph("line", "bound"), f"bound: {measured(bound, across)}"))
    axes = Axis(title(across), _unit(across), log=True), Axis(title(up), _unit(up), log=True)
    heading = f"{title(up)} over {title(across)}, per load point"
    return Figure(heading, chart(heading, *axes, marks, lines), [legend, shapes])


def _trade(summary: Json, one: str, other: str) -> Figure:
    """Two objectives against each other, with the Pareto front where there are only two."""
    known = {
        trial["number"]: (trial, x, y)
        for trial in summary["trials"]
        if (x := _finite(trial["objectives"].get(one))) is not None
        and (y := _finite(trial["objectives"].get(other))) is not None
    }
    marks = [_mark(summary, *each) for each in known.values()]
    front = [known[number][1:] for number in summary["front"] if number in known]
    legend, lines = _legend(marks), []
    if len(summary["study"]["objectives"]) == 2 and len(front) > 1:
        lines.append(Line(front, "record"))
        legend.append((glyph("line", "record"), "Pareto front"))
    axes = Axis(title(one), _unit(one), log=True), Axis(title(other), _unit(other), log=True)
    heading = f"{title(other)} over {title(one)}, per trial"
    return Figure(heading, chart(heading, *axes, marks, lines), [legend])


def _mark(summary: Json, trial: Json, x: float, y: float | None, point: Json | None = None) -> Mark:
    """A trial's mark, or that of one of its load points, which then says which by its shape."""
    number, several = trial["number"], len(summary["study"]["objectives"]) > 1
    role = "front" if several and number in summary["front"] and point is None else ""
    role = "baseline" if number == summary["baseline"] else role
    return Mark(
        x,
        y,
        title=_story(summary, trial, point),
        href=f"#trial-{number}",
        role="best" if number == summary["best"] else role,
        hollow=y is not None and not trial["feasible"],
        shape=_load_shape(point["index"]) if point else "",
    )


def _load_shape(index: int) -> str:
    return _LOAD_SHAPES[index % len(_LOAD_SHAPES)]


def _legend(marks: Sequence[Mark], shape: str = "") -> list[tuple[str, str]]:
    """The roles that occur, each with its own mark (or one shape for all)."""
    kinds = {"lost" if mark.y is None else mark.role for mark in marks}
    kinds |= {"hollow" for mark in marks if mark.hollow}
    return [
        (glyph(shape or ROLES.get(k, "circle"), k), _MEANINGS[k]) for k in _MEANINGS if k in kinds
    ]


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
    **{
        each.__name__: each
        for each in (measured, percent, duration, moment, gain, difference, broken, phases)
    },
    title_of=title,
    parameters_text=parameters_text,
)
