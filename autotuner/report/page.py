"""The report as one self-contained HTML file: no script, no network, light and dark."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, tzinfo
from functools import partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from autotuner.report.figures import figures, standings
from autotuner.report.sentences import statement
from autotuner.report.summary import SEEN, parameters_text, value_text
from autotuner.report.words import (
    COMPARED,
    MISSING,
    Json,
    accuracy_line,
    all_loads,
    apart,
    candidate,
    cost_text,
    difference,
    duration,
    engine_name,
    gain,
    load_points,
    measured,
    misses,
    moment,
    percent,
    phases,
    quantity,
    span,
    title,
    trial_in,
)


def html(summary: Json, zone: tzinfo = UTC) -> str:
    """The page of one study.

    Args:
        summary: what `summary.summary` returns, or the same read back from JSON.
        zone: of the times shown.
    """
    return _ENVIRONMENT.get_template("page.html.j2").render(_view(summary, zone))


def _view(summary: Json, zone: tzinfo) -> dict[str, Any]:
    """What the template shows beside the summary itself."""
    study, trials, found = summary["study"], summary["trials"], summary["verdict"]
    best, baseline = trial_in(summary, "best"), trial_in(summary, "baseline")
    columns = [trial for trial in (best, baseline) if trial is not None]
    columns = columns[:1] if best is baseline else columns
    return {
        "summary": summary,
        "study": study,
        "started": moment(study["started_at"], zone),
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
            (name, [load_points(trial).get(name, {}) for trial in columns])
            for name in all_loads(summary)
        ],
        "varied": list(dict.fromkeys(name for trial in columns for name in trial["parameters"])),
        "said": statement(summary),
        "found": found,
        "standings": standings(summary) if found and found["standings"] else None,
        "cost": cost_text(summary["cost"]) if summary["cost"]["launches"] else MISSING,
        "searched": [t for t in trials if t["searched"] and not t["refused"]],
        "repeats": [trial for trial in trials if not trial["searched"]],
        "refused": [trial for trial in trials if trial["refused"]],
        "standing_value": partial(_standing_value, summary),
        "predicted": any(trial["predicted"] for trial in trials),
        "figures": list(figures(summary)),
    }


def _standing_value(summary: Json, trial: Json, name: str) -> float | None:
    """What a gain is made of: the mean of the repeats where it comes from the verdict."""
    value: float | None = trial["objectives"].get(name)
    if summary["gain_interval"] is None or name != summary["study"]["objectives"][0]["name"]:
        return value
    standings = summary["verdict"]["standings"]
    return next((e["value"] for e in standings if e["candidate"] == trial["number"]), value)


def _coded(text: str) -> Markup:
    """A sentence whose words in backquotes are an engine's own."""
    plain = (escape(part) for part in text.split("`"))
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else part
        for place, part in enumerate(plain)
    )


def _listed(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{key}={value_text(each)}" for key, each in value.items()) or MISSING
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(value_text, value)) or MISSING
    return MISSING if value is None else value_text(value)


_ENVIRONMENT = Environment(
    loader=PackageLoader("autotuner.report", "."),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.globals.update(
    compared=COMPARED,
    seen=SEEN,
    missing=MISSING,
    svg=Markup,
    shown=value_text,
    listed=_listed,
    coded=_coded,
    **{
        each.__name__: each
        for each in (
            *(measured, quantity, percent, span, duration, gain, difference, phases),
            *(accuracy_line, apart, candidate, misses),
        )
    },
    title_of=title,
    parameters_text=parameters_text,
)
