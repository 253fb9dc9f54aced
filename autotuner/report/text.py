"""Reports for a terminal, with rich: tables that fit the window and stay plain in a pipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from autotuner.report.sentences import statement
from autotuner.report.summary import SEEN, parameters_text, value_text
from autotuner.report.words import (
    Json,
    accuracy_line,
    apart,
    broken,
    candidate,
    command_line,
    cost_text,
    counted,
    difference,
    duration,
    gpu_hours,
    load_points,
    measured,
    percent,
    quantity,
    shortened,
    span,
    title,
)
from autotuner.serving import Inspection

LONGEST_VALUE = 32
"""Characters of a parameter's value in a table; longer ones are written once, below it."""

LONGEST_REASON = 240

SHOWN = 10
"""Reasons, or sets of flags, that are listed."""

_STYLES = {
    "COMPLETE": "green",
    "INFEASIBLE": "yellow",
    "FAILED": "red",
    "CANCELLED": "magenta",
    "STOPPED": "dim",
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
    """One row a trial of the search, refused points left out; the best marked."""
    objectives = report["study"]["objectives"]
    bounds = report["study"]["bounds"]
    trials = [trial for trial in report["trials"] if trial["searched"] and not trial["refused"]]
    letters = _letters(trials)
    predicted = [
        o["name"] for o in objectives if any(t["predicted"].get(o["name"]) for t in trials)
    ]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, caption_justify="left")
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("parameters", overflow="fold")
    for objective in objectives:
        table.add_column(_header(objective["name"], objective["unit"]), justify="right")
        if objective["name"] in predicted:
            table.add_column("predicted", justify="right")
    table.add_column("time", justify="right")
    for trial in trials:
        best = trial["number"] == report["best"]
        cells: list[str | Text] = []
        for name in (objective["name"] for objective in objectives):
            cells.append(plain(quantity(trial["objectives"].get(name))))
            if name in predicted:
                cells.append(Text(plain(quantity(trial["predicted"].get(name))), style="dim"))
        table.add_row(
            ("* " if best else "") + str(trial["number"]),
            Text(trial["state"], style=_STYLES.get(trial["state"], "")),
            _point(trial, letters, _lines(remark(trial, bounds), trial["why"])),
            *cells,
            plain(duration(trial["seconds"] if trial["phases"] else None)),
            style="bold" if best else "dim" if trial["state"] == "STOPPED" else "",
        )
    if letters:
        named = (f"{letter} = {value}" for value, letter in letters.items())
        table.caption = Text("\n".join(named), style="dim")
    return table


def _header(name: str, unit: str) -> str:
    """A metric one word a line: columns are to be narrow."""
    return "\n".join(filter(None, [*title(name).split(), unit]))


def _letters(trials: Sequence[Json]) -> dict[str, str]:
    """A letter for each long value, such as a flag in JSON: it is written once, below."""
    values = (value_text(value) for trial in trials for value in trial["parameters"].values())
    long = dict.fromkeys(text for text in values if len(text) > LONGEST_VALUE)
    return {text: _letter(place) for place, text in enumerate(long)}


def _letter(place: int) -> str:
    """A to Z, then AA, AB, ..."""
    before, last = divmod(place, 26)
    return (_letter(before - 1) if before else "") + chr(ord("A") + last)


def _point(trial: Json, letters: Mapping[str, str], said: str) -> Text:
    parameters = {
        name: f"<{letters[text]}>" if (text := value_text(value)) in letters else text
        for name, value in trial["parameters"].items()
    }
    point = Text(parameters_text(parameters))
    if said:
        point.append("\n" + said, style="dim not bold")
    return point


def _lines(*said: str) -> str:
    return "\n".join(plain(each) for each in said if each)


def remark(trial: Json, bounds: Mapping[str, float]) -> str:
    """What a person should know of a trial besides its numbers."""
    if trial["failure"]:
        return f"{trial['failure']}: {trial['reason']}"
    missed = broken(trial, bounds)
    said = trial["note"] or trial["reason"].removeprefix("stopped ")
    return plain(", ".join(missed)) if missed else said


def finals_table(report: Json) -> Table | None:
    """The candidates of the verdict as they were measured again; None without finals."""
    found = report["verdict"]
    if found is None:
        return None
    objective = report["study"]["objectives"][0]
    confident = f"{found['confidence'] * 100:g} % CI"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title="\nFinals", title_justify="left")
    table.add_column("candidate")
    for column in ("launches", _header(objective["name"], objective["unit"]), "gain", confident):
        table.add_column(column, justify="right")
    table.add_column("", overflow="fold")
    for each in found["standings"]:
        winner = each["candidate"] == report["best"]
        table.add_row(
            ("* " if winner else "") + candidate(report, each["candidate"]),
            str(each["repeats"]),
            plain(quantity(each["value"])),
            plain(percent(each["gain"])),
            plain(span(each["low"], each["high"])),
            Text(apart(each, found["reference"]), style="dim not bold"),
            style="bold" if winner else "",
        )
    return table


def failures_table(report: Json) -> Table | None:
    """Why trials failed, by class, and which way to move; None where none did."""
    if not report["failures"]:
        return None
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title="\nFailures", title_justify="left")
    table.add_column("failure")
    table.add_column("trials", justify="right")
    table.add_column("most frequent reason", overflow="fold")
    for each in report["failures"]:
        said = Text(
            shortened(each["reasons"][0]["reason"], LONGEST_REASON) if each["reasons"] else ""
        )
        for advice in each["advice"]:
            said.append(f"\n-> {advice}", style="cyan")
        table.add_row(f"{each['failure']}", str(each["count"]), said)
    return table


def accuracy_text(report: Json) -> Text | None:
    """How well the prior predicted, per metric; None where it did not."""
    lines = [accuracy_line(name, each) for name, each in report["accuracy"].items()]
    return (
        Text(plain("\n".join(["", "Predictions", *(f"  {line}" for line in lines)])))
        if lines
        else None
    )


BAR = 20
"""Characters of a bar that stands for all of the spread."""


def importance_text(report: Json) -> Text | None:
    """What the spread of the first objective comes from; None where nothing is asked."""
    shares, needed = report["importance"], report["importance_needs"]
    if needed is None:
        return None
    objective = title(report["study"]["objectives"][0]["name"])
    head = f"\nWhere the differences in {objective} come from"
    if importance_trials(report) < needed:
        said = f"can be said from {needed} complete trials on, the baseline not counted"
        return Text(f"{head} {said}", style="dim")
    if not shares:
        return Text(f"{head}: no parameter can be told from noise", style="dim")
    width = max(map(len, shares))
    rows = [
        f"  {name:<{width}}  {'#' * round(share * BAR):<{BAR}}  {quantity(share, 'share')}"
        for name, share in shares.items()
    ]
    return Text(plain("\n".join([head, *rows])))


def importance_trials(report: Json) -> int:
    """Trials that importance is said of."""
    name = report["study"]["objectives"][0]["name"]
    return sum(
        trial["state"] == "COMPLETE"
        and trial["searched"]
        and not trial["baseline"]
        and trial["objectives"].get(name) is not None
        for trial in report["trials"]
    )


def refused_text(report: Json) -> Text | None:
    """What was refused before launch, and why; None where nothing was."""
    if not report["refused"]:
        return None
    total = sum(each["count"] for each in report["refused"])
    points = "1 point was" if total == 1 else f"{total:,} points were"
    lines = ["", f"{points} refused before launch", *_reasons(report["refusals"])]
    return Text("\n".join(lines), style="dim")


def _reasons(rows: Sequence[Json]) -> list[str]:
    """Of reasons that differ in their numbers only, one stands for all."""
    lines = [
        f"  {each['count']:>6,}  {'e.g. ' if each['reasons'] > 1 else ''}{each['reason']}"
        for each in rows[:SHOWN]
    ]
    if len(rows) > SHOWN:
        more = plain(counted(len(rows) - SHOWN, "more reason"))
        lines.append(f"          and {more}; see --json")
    return lines


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
    table.add_column("load point", no_wrap=True)
    for column in ("defaults", f"trial {best['number']}", "difference"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    measured_too = load_points(baseline)
    for load, point in load_points(best).items():
        if load not in measured_too:
            continue
        table.add_row(Text(load, style="bold"))
        for metric in COMPARED:
            value = point["metrics"].get(metric)
            reference = measured_too[load]["metrics"].get(metric)
            if value is None or reference is None:
                continue
            change, word = difference(metric, value, reference)
            cells = (measured(reference, metric), measured(value, metric), change)
            table.add_row(f"  {metric}", *map(plain, cells), word)
        for name, (words, unit) in SEEN.items():
            seen = [each["telemetry"].get(name) for each in (measured_too[load], point)]
            if seen != [None, None]:
                table.add_row(f"  {words}", *(plain(quantity(each, unit)) for each in seen), "", "")
    return table


def verdict_text(report: Json) -> str:
    """The result, and what must be said beside it."""
    said = statement(report)
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
    took = [] if study["seconds"] is None else [f"took {duration(study['seconds'])}"]
    spent = [cost_text(report["cost"])] if report["cost"]["launches"] else []
    if took or spent:
        parts.append(Text(plain("; ".join([*took, *spent]))))
    parts.append(trials_table(report))
    further = (
        *(refused_text, failures_table, accuracy_text, importance_text),
        *(comparison_table, finals_table),
    )
    parts += [part for each in further if (part := each(report)) is not None]
    parts.append(Text("\n" + verdict_text(report), style="bold"))
    if report["command"]:
        parts.append(Text("\n" + report["command"]))
    return parts


def plan_text(plan: Json) -> RenderableType:
    """A plan as text: what would be launched, what it costs, and what is refused."""
    size = "infinite" if plan["size"] is None else plain(counted(plan["size"], "point"))
    trials = "as many trials as the space holds"
    if plan["trials"] is not None:
        trials = plain(counted(plan["trials"], "trial"))
    baseline = "" if plan["baseline_refused"] else "the baseline and "
    finals = f", then {plan['finals']} or more for the verdict" if plan["finals"] else ""
    lines = [
        f"study        {plan['name']}",
        f"space        {size}",
        f"launches     {baseline}{trials}{finals}",
        f"load points  {', '.join(plan['load_points'])}, "
        f"{plain(duration(plan['load_seconds_at_most']))} measured a trial at most",
        f"duration     about {plain(duration(plan['seconds_expected']))} with a minute a start, "
        f"{plain(duration(plan['seconds_at_most']))} at most, one trial at a time",
    ]
    if plan["gpu_hours_expected"]:
        lines.append(f"cost         about {plain(gpu_hours(plan['gpu_hours_expected']))}")
    lines.append(f"limits       {plain(_limits(plan['limits']))}")
    total = sum(plan["refused"].values())
    lines.append(f"refused      {total:,} of {plan['looked_at']:,} points looked at")
    lines += _reasons(plan["refusals"])
    if plan["doubted"]:
        doubted = plain(counted(sum(plan["doubted"].values()), "point"))
        lines.append(f"doubted      {doubted}, tried last")
        lines += _reasons(plan["doubts"])
    lines += _quantization(plan["quantization"])
    lines += [f"note         {note}" for note in plan["notes"]]
    for launch in plan["launches"]:
        lines += ["", *_launch(launch)]
    return Text("\n".join(lines))


def _launch(launch: Json) -> list[str]:
    """A launch of a plan, and its command line; of a runtime's server, what comes after that."""
    gpus = plain(counted(launch["gpus"], "GPU"))
    where = f", in {launch['image']}" if launch["image"] else ""
    line = command_line(launch["argv"], launch["environment"])
    if launch["runtime"] is not None:
        where = f", image: that of the runtime {launch['runtime']}"
        variables = command_line([], launch["environment"]).strip()
        parts = (variables, "[the runtime's command]", command_line(launch["argv"], {}))
        line = " ".join(filter(None, parts))
    head = f"{launch['name']}: {parameters_text(launch['parameters'])}  ({gpus}{where})"
    return [head, "  " + line]


def _limits(limits: Json) -> str:
    parts = [] if limits["trials"] is None else [counted(limits["trials"], "trial")]
    parts.append(duration(limits["hours"] * 3600))
    if limits["gpu_hours"] is not None:
        parts.append(gpu_hours(limits["gpu_hours"]))
    return ", ".join(parts)


def _quantization(engines: Json) -> list[str]:
    """Per engine: how many sets of flags a quantization block comes to, and the first of them."""
    lines = []
    for kind, each in engines.items():
        shown = each["arguments"][:SHOWN]
        sets = "1 set of flags" if each["count"] == 1 else f"{each['count']:,} sets of flags"
        lines.append(f"quantization {kind}: {sets}")
        lines += [f"          {parameters_text(arguments)}" for arguments in shown]
        if each["count"] > len(shown):
            lines.append(f"          ... and {each['count'] - len(shown):,} more")
        lines += [f"          note: {note}" for note in each["notes"]]
    return lines


def inspections_table(node: str, inspections: Sequence[Inspection]) -> Table:
    """What `autotuner doctor` found on one node."""
    table = Table(box=SIMPLE_HEAD, title=node, title_justify="left")
    table.add_column("")
    table.add_column("what", no_wrap=True)
    table.add_column("found", overflow="fold")
    table.add_column("what to do", overflow="fold")
    for each in inspections:
        mark, style = _MARKS[each.ok]
        table.add_row(Text(mark, style), *map(Text, (each.name, each.said, each.hint)))
    return table


_MARKS = {True: ("ok", "green"), False: ("NO", "red"), None: ("-", "dim")}


def show(*parts: RenderableType) -> None:
    """Print to standard output; a pipe gets wide plain lines, and text is never cut by us."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, Text))
