"""A report's charts: which values are drawn, with which marks, lines and legend."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from autotuner.report.plots import (
    ROLES,
    Axis,
    Interval,
    Line,
    Mark,
    Rule,
    chart,
    glyph,
    interval_chart,
)
from autotuner.report.summary import parameters_text
from autotuner.report.words import (
    COMPARED,
    UNENDED,
    Json,
    all_loads,
    broken,
    candidate,
    load_points,
    measured,
    percent,
    span,
    title,
    unit_of,
)
from autotuner.study.metrics import METRICS, Better

_LOAD_SHAPES = ("circle", "square", "triangle", "diamond", "wedge", "pentagon")
_CURVED = ("best", "baseline")
_MEANINGS = {
    "best": "best",
    "baseline": "baseline",
    "front": "on the front",
    "": "other trials",
    "hollow": "not feasible or stopped",
    "lost": "stopped or failed",
}


@dataclass(frozen=True)
class Figure:
    """A chart with its heading and the rows of its legend: glyphs and their meanings."""

    heading: str
    svg: str
    legend: list[list[tuple[str, str]]]


def figures(summary: Json) -> Iterator[Figure]:
    """The charts of the search; repeats for the verdict are in `standings` alone."""
    searched = [trial for trial in summary["trials"] if trial["searched"]]
    summary = {**summary, "trials": searched}
    names = [objective["name"] for objective in summary["study"]["objectives"]]
    if any(trial["state"] not in UNENDED for trial in searched):
        yield from (_progress(summary, name) for name in names)
    if any(trial["load_points"] for trial in searched):
        yield _loads(summary)
        yield from (_trade(summary, *pair) for pair in combinations(names, 2))
        yield from (_predictions(summary, name) for name in names if name in summary["accuracy"])


def standings(summary: Json) -> Figure:
    """The gain of each finalist with its interval, over the baseline at 0."""
    found = summary["verdict"]
    name = summary["study"]["objectives"][0]["name"]
    confident = f"{found['confidence'] * 100:g}\N{NO-BREAK SPACE}% CI"
    rows = [
        Interval(
            name=f"trial {each['candidate']}",
            href=f"#trial-{each['candidate']}",
            title=f"Trial {each['candidate']}: {percent(each['gain'])}, "
            f"{confident} {span(each['low'], each['high'])}",
            value=each["gain"],
            low=each["low"],
            high=each["high"],
            role="best" if each["candidate"] == summary["best"] else "",
            told=percent(each["gain"]) if each["gain"] is not None else "not compared yet",
        )
        for each in found["standings"]
        if each["candidate"] != found["reference"]
    ]
    reference = found["reference"]
    zero = "the reference" if reference is None else candidate(summary, reference)
    heading = f"Gain in {title(name)} over {zero}, {confident}"
    axis = Axis("gain", "share")
    return Figure(heading, interval_chart(heading, axis, rows, zero), [])


def _progress(summary: Json, name: str) -> Figure:
    """One objective over the trials, in order of asking."""
    ended = [t for t in summary["trials"] if t["state"] not in UNENDED]
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
    axes = Axis("trial", whole=True), Axis(title(name), unit_of(name))
    heading = f"{title(name)} over trials"
    return Figure(heading, chart(heading, *axes, marks, lines), [legend])


def _loads(summary: Json) -> Figure:
    """Output throughput over latency, one mark per trial and load point."""
    across, up = "ttft_p90", "output_throughput"
    loads = all_loads(summary)
    points = [(t, point) for t in summary["trials"] for point in load_points(t).values()]
    if not any(point["metrics"].get(across) is not None for _, point in points):
        across = "e2e_latency_p90"
    marks: list[Mark] = []
    curves: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for trial, point in points:
        x, y = (_finite(point["metrics"].get(name)) for name in (across, up))
        if x is not None and y is not None:
            shape = _load_shape(loads.index(point["name"]))
            marks.append(_mark(summary, trial, x, y, point, shape))
            curves.setdefault((marks[-1].role, point["scenario"]), []).append((x, y))
    lines: list[Line | Rule] = [
        Line(curve, f"of-{role}") for (role, _), curve in curves.items() if role in _CURVED
    ]
    legend = _legend(marks, "circle")
    shapes = [(glyph(_load_shape(place), "plain"), name) for place, name in enumerate(loads)]
    bound = summary["study"]["bounds"].get(across)
    if bound is not None:
        lines.append(Rule(bound, "bound", upright=True))
        legend.append((glyph("line", "bound"), f"bound: {measured(bound, across)}"))
    axes = Axis(title(across), unit_of(across), log=True), Axis(title(up), unit_of(up), log=True)
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
    axes = Axis(title(one), unit_of(one), log=True), Axis(title(other), unit_of(other), log=True)
    heading = f"{title(other)} over {title(one)}, per trial"
    return Figure(heading, chart(heading, *axes, marks, lines), [legend])


def _predictions(summary: Json, name: str) -> Figure:
    """One objective as it was predicted against as it was measured."""
    known = {
        trial["number"]: (trial, said, found)
        for trial in summary["trials"]
        if (said := _finite(trial["predicted"].get(name))) is not None
        and (found := _finite(trial["objectives"].get(name))) is not None
    }
    marks = [_mark(summary, *each) for each in known.values()]
    both = [value for _, said, found in known.values() for value in (said, found)]
    reach = (min(both), max(both))
    lines = [Line([(each, each) for each in reach], "reference")]
    legend = [*_legend(marks), (glyph("line", "reference"), "as predicted")]
    axes = (
        Axis(f"predicted {title(name)}", unit_of(name), log=True, reach=reach),
        Axis("measured", unit_of(name), log=True, reach=reach),
    )
    heading = f"{title(name)}: predicted and measured"
    return Figure(heading, chart(heading, *axes, marks, lines), [legend])


def _mark(
    summary: Json,
    trial: Json,
    x: float,
    y: float | None,
    point: Json | None = None,
    shape: str = "",
) -> Mark:
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
        shape=shape,
    )


def _load_shape(place: int) -> str:
    return _LOAD_SHAPES[place % len(_LOAD_SHAPES)]


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
        lines.append(point["name"])
        values = {name: point["metrics"].get(name) for name in COMPARED}
    lines += [f"{title(name)}: {measured(v, name)}" for name, v in values.items() if v is not None]
    if point is None:
        said = {name: trial["predicted"].get(name) for name in values}
        lines += [f"predicted {title(n)}: {measured(v, n)}" for n, v in said.items() if v]
    lines += broken(trial, summary["study"]["bounds"])
    lines += [text for text in (trial["failure"], trial["reason"]) if text]
    return "\n".join(lines)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
