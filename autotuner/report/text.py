"""Reports for a terminal, with rich: tables that fit the window and stay plain in a pipe."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from autotuner.report.summary import parameters_text

NOTHING = "-"
_STYLES = {
    "COMPLETE": "green",
    "INFEASIBLE": "yellow",
    "FAILED": "red",
    "CANCELLED": "magenta",
    "DEPLOYING": "cyan",
    "BENCHMARKING": "cyan",
}


def number_text(value: float | None, unit: str = "") -> str:
    """Three significant digits and the unit; seconds below one in milliseconds."""
    if value is None:
        return NOTHING
    if unit == "s" and abs(value) < 1:
        return f"{number_text(value * 1000)} ms"
    if abs(value) < 1:
        return f"{value:.3g} {unit}".strip()
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f} {unit}".strip()


def gain_text(gain: float | None) -> str:
    return NOTHING if gain is None else f"{gain:+.1%}"


def duration_text(seconds: float | None) -> str:
    """``1 h 02 min``, ``3 min 05 s``, ``42 s``."""
    if seconds is None:
        return NOTHING
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def trials_table(report: Mapping[str, Any]) -> Table:
    """One row a trial, refused points left out; the best marked."""
    objectives = report["study"]["objectives"]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("parameters", overflow="fold")
    for objective in objectives:
        table.add_column(f"{objective['name']}\n{objective['unit']}", justify="right")
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for trial in report["trials"]:
        if trial["refused"]:
            continue
        best = trial["number"] == report["best"]
        table.add_row(
            ("* " if best else "") + str(trial["number"]),
            Text(trial["state"], style=_STYLES.get(trial["state"], "")),
            Text(parameters_text(trial["parameters"])),
            *(number_text(trial["objectives"].get(o["name"])) for o in objectives),
            duration_text(trial["seconds"]) if trial["phases"] else NOTHING,
            Text(remark(trial), style="dim"),
            style="bold" if best else "",
        )
    return table


def remark(trial: Mapping[str, Any]) -> str:
    """What a person should know of a trial besides its numbers."""
    if trial["failure"]:
        return f"{trial['failure']}: {trial['reason']}"
    broken = [
        f"{name} {value:.0%} over" for name, value in trial["violations"].items() if value > 0
    ]
    if broken:
        return "out of bounds: " + ", ".join(broken)
    return str(trial["note"] or trial["reason"])


COMPARED = (
    ("output_throughput", "tok/s"),
    ("request_throughput", "req/s"),
    ("ttft_p50", "s"),
    ("ttft_p90", "s"),
    ("tpot_p50", "s"),
    ("e2e_latency_p90", "s"),
    ("error_rate", ""),
)


def comparison_table(report: Mapping[str, Any]) -> Table | None:
    """The best beside the baseline, per load point; None where either is missing."""
    by_number = {trial["number"]: trial for trial in report["trials"]}
    best, baseline = by_number.get(report["best"]), by_number.get(report["baseline"])
    if best is None or baseline is None or not baseline["load_points"] or best is baseline:
        return None
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("load point", "metric"):
        table.add_column(column, no_wrap=True)
    for column in ("engine defaults", f"trial {best['number']}", "difference"):
        table.add_column(column, justify="right", no_wrap=True)
    for ours, theirs in zip(best["load_points"], baseline["load_points"], strict=False):
        name = f"{ours['scenario']} x {ours['concurrency']}"
        for metric, unit in COMPARED:
            value, reference = ours["metrics"].get(metric), theirs["metrics"].get(metric)
            if value is None or reference is None:
                continue
            difference = f"{value / reference - 1:+.0%}" if reference else NOTHING
            table.add_row(
                name, metric, number_text(reference, unit), number_text(value, unit), difference
            )
            name = ""
    return table


def verdict_text(report: Mapping[str, Any]) -> str:
    """The result in a sentence or two."""
    study = report["study"]
    if report["best"] is None:
        reason = study["reason"] or "see the reasons above"
        return "No feasible trial: " + reason.removeprefix("no feasible trial: ")
    best = next(t for t in report["trials"] if t["number"] == report["best"])
    values = [
        f"{o['name']} {number_text(best['objectives'][o['name']], o['unit'])}"
        + (f" ({gain_text(gain)} against the engine's defaults)" if gain is not None else "")
        for o in study["objectives"]
        for gain in [report["gain"].get(o["name"])]
    ]
    if best["baseline"]:
        return "Nothing tried beats the engine's defaults: " + ", ".join(
            f"{o['name']} {number_text(best['objectives'][o['name']], o['unit'])}"
            for o in study["objectives"]
        )
    text = f"Best: trial {best['number']}, {'; '.join(values)}."
    text += "\nMeasured once each; a repeated run may differ."
    if len(report["front"]) > 1:
        others = ", ".join(str(number) for number in report["front"])
        text += f"\nPareto front: trials {others}."
    return text


def report_text(report: Mapping[str, Any]) -> list[RenderableType]:
    """The whole report, part by part."""
    study = report["study"]
    head = (
        f"{study['name']}  {study.get('state_text', study['state'])}  "
        f"{study['engine']} on {study['model']}, {', '.join(study['loads'])}"
    )
    parts: list[RenderableType] = [Text(head, style="bold")]
    if study["constraints"]:
        parts.append(Text("constraints: " + ", ".join(study["constraints"])))
    if study["seconds"] is not None:
        parts.append(Text("took " + duration_text(study["seconds"])))
    parts.append(trials_table(report))
    refused = report["counts"].get("REFUSED", 0)
    if refused:
        parts.append(Text(f"{refused} points were refused before launch; see --json", style="dim"))
    comparison = comparison_table(report)
    if comparison is not None:
        parts.append(comparison)
    parts.append(Text(verdict_text(report), style="bold"))
    if report["command"]:
        parts.append(Text("\n" + report["command"]))
    return parts


def plan_text(plan: Mapping[str, Any]) -> RenderableType:
    """A plan as text: what would be launched, and what is refused."""
    size = "infinite" if plan["size"] is None else f"{plan['size']:,} points"
    trials = "as many as the space holds" if plan["trials"] is None else str(plan["trials"])
    lines = [
        f"study        {plan['name']}",
        f"space        {size}",
        f"launches     the baseline and {trials} trials",
        f"load points  {', '.join(plan['load_points'])}, "
        f"{duration_text(plan['load_seconds_at_most'])} a trial at most",
        f"duration     {duration_text(plan['seconds_at_most'])} at most, one trial at a time",
    ]
    total = sum(plan["refused"].values())
    lines.append(f"refused      {total:,} of {plan['looked_at']:,} points looked at")
    lines += [f"  {count:>6,}  {reason}" for reason, count in list(plan["refused"].items())[:10]]
    if len(plan["refused"]) > 10:
        lines.append(f"          and {len(plan['refused']) - 10} more reasons; see --json")
    for launch in plan["launches"]:
        gpus = f"{launch['gpus']} GPU" + ("s" if launch["gpus"] != 1 else "")
        lines += ["", f"{launch['name']}: {parameters_text(launch['parameters'])}  ({gpus})"]
        lines.append("  " + command_line(launch["argv"], launch["environment"]))
    return Text("\n".join(lines))


def command_line(argv: Sequence[str], environment: Mapping[str, str]) -> str:
    """A launch as a line a shell would take."""
    return " ".join([*(f"{k}={shlex.quote(v)}" for k, v in environment.items()), shlex.join(argv)])


def show(*parts: RenderableType) -> None:
    """Print to standard output; a pipe gets wide plain lines, and text is never cut by us."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, Text))
