"""The report as one self-contained HTML file: no script, no network, light and dark."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from autotuner.report.figures import figures
from autotuner.report.summary import parameters_text
from autotuner.report.words import (
    COMPARED,
    MISSING,
    Json,
    broken,
    difference,
    duration,
    engine_name,
    gain,
    measured,
    moment,
    percent,
    phases,
    title,
    trial_in,
    verdict,
)
from autotuner.study.space import identity


def html(summary: Json) -> str:
    """The page of one study.

    Args:
        summary: what `summary.summary` returns, or the same read back from JSON.
    """
    return _ENVIRONMENT.get_template("page.html.j2").render(_view(summary))


def _view(summary: Json) -> dict[str, Any]:
    """What the template shows beside the summary itself."""
    study, trials = summary["study"], summary["trials"]
    best, baseline = trial_in(summary, "best"), trial_in(summary, "baseline")
    columns = [trial for trial in (best, baseline) if trial is not None]
    columns = columns[:1] if best is baseline else columns
    return {
        "summary": summary,
        "study": study,
        "spec": study["spec"],
        "spec_text": json.dumps(study["spec"], indent=2, ensure_ascii=False),
        "engine": engine_name(summary),
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
        "figures": list(figures(summary)),
    }


def _metrics(trial: Json, load: int) -> Json:
    points = (point for point in trial["load_points"] if point["index"] == load)
    return next((dict(point["metrics"]) for point in points), {})


def _failures(trials: Sequence[Json]) -> list[tuple[str, list[Json]]]:
    """Trials without an answer by failure class, the most frequent first."""
    groups: dict[str, list[Json]] = {}
    for trial in trials:
        if trial["state"] in ("INFEASIBLE", "FAILED"):
            unnamed = "infrastructure" if trial["state"] == "FAILED" else "unknown"
            groups.setdefault(trial["failure"] or unnamed, []).append(trial)
    return sorted(groups.items(), key=lambda group: -len(group[1]))


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
