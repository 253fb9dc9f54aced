"""Reports for a terminal, with rich: tables that fit the window and stay plain in a pipe."""

from __future__ import annotations

from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from autotuner.report.summary import parameters_text
from autotuner.report.words import (
    Json,
    broken,
    command_line,
    difference,
    duration,
    measured,
    quantity,
    verdict,
)

_STYLES = {
    "COMPLETE": "green",
    "INFEASIBLE": "yellow",
    "FAILED": "red",
    "CANCELLED": "magenta",
    "DEPLOYING": "cyan",
    "BENCHMARKING": "cyan",
}


def plain(text: str) -> str:
    """The words of a report with the characters of a keyboard, for pipes, grep and old consoles."""
    return text.translate(_KEYBOARD)


_KEYBOARD = str.maketrans(
    {
        "\N{NO-BREAK SPACE}": " ",
        "\N{MINUS SIGN}": "-",
        "\N{EN DASH}": "-",
        "\N{LEFT DOUBLE QUOTATION MARK}": '"',
        "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
        "\N{PLUS-MINUS SIGN}": "+",
    }
)


def trials_table(report: Json) -> Table:
    """One row a trial, refused points left out; the best marked."""
    objectives = report["study"]["objectives"]
    bounds = report["study"]["spec"]["constraints"]
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
            *(plain(quantity(trial["objectives"].get(o["name"]))) for o in objectives),
            plain(duration(trial["seconds"] if trial["phases"] else None)),
            Text(remark(trial, bounds), style="dim"),
            style="bold" if best else "",
        )
    return table


def remark(trial: Json, bounds: Mapping[str, float]) -> str:
    """What a person should know of a trial besides its numbers."""
    if trial["failure"]:
        return f"{trial['failure']}: {trial['reason']}"
    missed = broken(trial, bounds)
    return plain(", ".join(missed)) if missed else str(trial["note"] or trial["reason"])


COMPARED = (
    *("output_throughput", "request_throughput"),
    *("ttft_p50", "ttft_p90", "tpot_p50", "e2e_latency_p90", "error_rate"),
)


def comparison_table(report: Json) -> Table | None:
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
    table.add_column("", no_wrap=True)
    for ours, theirs in zip(best["load_points"], baseline["load_points"], strict=False):
        name = f"{ours['scenario']} x {ours['concurrency']}"
        for metric in COMPARED:
            value, reference = ours["metrics"].get(metric), theirs["metrics"].get(metric)
            if value is None or reference is None:
                continue
            change, word = difference(metric, value, reference)
            cells = (measured(reference, metric), measured(value, metric), change)
            table.add_row(name, metric, *map(plain, cells), word)
            name = ""
    return table


def verdict_text(report: Json) -> str:
    """The result, and what must be said beside it."""
    said = verdict(report)
    return plain("\n".join([said.sentence, *said.notes]))


def report_text(report: Json) -> list[RenderableType]:
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
        parts.append(Text("took " + plain(duration(study["seconds"]))))
    parts.append(trials_table(report))
    refused = report["counts"].get("REFUSED", 0)
    if refused:
        points = "1 point was" if refused == 1 else f"{refused} points were"
        parts.append(Text(f"{points} refused before launch; see --json", style="dim"))
    comparison = comparison_table(report)
    if comparison is not None:
        parts.append(comparison)
    parts.append(Text(verdict_text(report), style="bold"))
    if report["command"]:
        parts.append(Text("\n" + report["command"]))
    return parts


def plan_text(plan: Json) -> RenderableType:
    """A plan as text: what would be launched, and what is refused."""
    size = "infinite" if plan["size"] is None else f"{plan['size']:,} points"
    trials = "as many as the space holds" if plan["trials"] is None else str(plan["trials"])
    lines = [
        f"study        {plan['name']}",
        f"space        {size}",
        f"launches     the baseline and {trials} trials",
        f"load points  {', '.join(plan['load_points'])}, "
        f"{plain(duration(plan['load_seconds_at_most']))} measured a trial at most",
        f"duration     about {plain(duration(plan['seconds_expected']))} with a minute a start, "
        f"{plain(duration(plan['seconds_at_most']))} at most, one trial at a time",
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


def show(*parts: RenderableType) -> None:
    """Print to standard output; a pipe gets wide plain lines, and text is never cut by us."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, Text))
