"""Trials of a study: their measurements, launches, telemetry and files."""

from __future__ import annotations

import csv
import io
import json
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse

from autotuner.api import schemas
from autotuner.api.logfiles import CHUNK_BYTES, Log, below, text
from autotuner.api.problems import NotFound, answers
from autotuner.api.routes.studies import Page, PerPage, paged
from autotuner.api.security import needs
from autotuner.api.service import Asked
from autotuner.api.tokens import Role
from autotuner.benchmarks.base import is_recorded
from autotuner.errors import ConfigError, MissingStudyError
from autotuner.export import command_text, launch_of
from autotuner.report.summary import trial_summary
from autotuner.report.words import load_points
from autotuner.study.files import PLAN, RUNNER_LOG, SERVER_LOG, TELEMETRY, load_directory
from autotuner.study.study import Study
from autotuner.study.trial import Trial

router = APIRouter(tags=["trials"])

VIEWER = [Depends(needs(Role.VIEWER))]
Number = Annotated[int, Query(ge=0)]
Source = Literal["server", "benchmark", "trial"]

LOGS = {"server": SERVER_LOG, "benchmark": RUNNER_LOG}
"""In a trial's directory."""

LARGEST_BYTES = 2**24
"""Of a file that is shown parsed: servers may write there too."""

Sort = Literal[
    "number", "-number", "state", "-state", "seconds", "-seconds", "started_at", "-started_at",
    "ended_at", "-ended_at",
]  # fmt: skip


@router.get(
    "/studies/{name}/trials",
    dependencies=VIEWER,
    response_model=schemas.TrialPage,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}, **answers(404)},
)
def list_trials(
    name: str,
    asked: Asked,
    state: Annotated[list[schemas.TrialStateName] | None, Query()] = None,
    sort: Sort = "number",
    page: Page = 1,
    per_page: PerPage = 100,
    format: Annotated[
        Literal["json", "csv"], Query(description="CSV holds them all, whatever the page.")
    ] = "json",
) -> Response:
    """The trials of a study, filtered, sorted, by pages."""
    rows: list[dict[str, Any]] = asked.reads.made(name, "trials", _rows)
    chosen = [row for row in rows if not state or row["state"] in state]
    if format == "csv":
        return Response(
            _csv(paged(chosen, sort, 1, max(1, len(chosen)))["items"]),
            media_type="text/csv",
            headers={"Content-Disposition": f'attachment; filename="{name}-trials.csv"'},
        )
    return JSONResponse(paged(chosen, sort, page, per_page))


@router.get(
    "/studies/{name}/trials/{number}",
    dependencies=VIEWER,
    response_model=schemas.TrialDetail,
    responses=answers(404),
)
def show_trial(name: str, number: int, asked: Asked) -> Response:
    """A trial with its launch, its telemetry and its files."""
    study, trials = asked.reads.study(name)
    trial = trial_of(name, trials, number)
    directory = _directory(study, trial)
    return JSONResponse(
        {
            **trial_summary(trial, study.spec.bounds),
            **_launch(study, trial),
            "plan": _json(directory, PLAN),
            "telemetry": _telemetry(trial, directory),
            "files": _files(directory),
            "logs": {
                **{source: _size(directory, file) for source, file in LOGS.items()},
                "trial": 0,
            },
        }
    )


def trial_of(name: str, trials: list[Trial], number: int) -> Trial:
    """Raises MissingStudyError where there is none of that number."""
    found = next((each for each in trials if each.number == number), None)
    if found is None:
        raise MissingStudyError(f"study {name!r} has no trial {number}")
    return found


def _rows(study: Study, trials: list[Trial]) -> list[dict[str, Any]]:
    bounds = study.spec.bounds
    return [json.loads(json.dumps(trial_summary(trial, bounds))) for trial in trials]


def _launch(study: Study, trial: Trial) -> dict[str, Any]:
    """As it is to be served. A recorded benchmark's trials need not be launchable."""
    if is_recorded(study.spec):
        return {"argv": [], "command": ""}
    try:
        launch = launch_of(study.spec, trial.parameters)
    except (ConfigError, ValueError):
        return {"argv": [], "command": ""}
    return {"argv": list(launch.argv), "command": command_text(launch)}


def _directory(study: Study, trial: Trial) -> Path | None:
    """Where a trial's files are; None where it has none, or they are none of its study's."""
    try:
        return below(study.directory, trial.directory) if trial.directory else None
    except NotFound:
        return None


def _telemetry(trial: Trial, directory: Path | None) -> list[dict[str, Any]]:
    found = []
    for point in trial.load_points:
        said = _json(directory, f"{load_directory(point.index)}/{TELEMETRY}")
        if said is not None:
            found.append({"load": point.name, "index": point.index, **said})
    return found


def _json(directory: Path | None, file: str) -> dict[str, Any] | None:
    if directory is None:
        return None
    parts = text(Log(directory / file, directory, ended=lambda: True))
    try:
        content = json.loads(b"".join(islice(parts, LARGEST_BYTES // CHUNK_BYTES)))
    except (ValueError, RecursionError):
        return None  # not there, or being written at this moment
    return content if isinstance(content, dict) else None


def _files(directory: Path | None) -> list[str]:
    """Without links, which may lead anywhere."""
    if directory is None or not directory.is_dir():
        return []
    return sorted(
        str(each.relative_to(directory))
        for each in directory.rglob("*")
        if each.is_file() and not each.is_symlink()
    )


def _size(directory: Path | None, file: str) -> int | None:
    try:
        return below(directory, file).stat().st_size if directory else None
    except (OSError, NotFound):
        return None


def _csv(rows: list[dict[str, Any]]) -> str:
    """Parameters, objectives and load points each in columns of their own; without probes, which
    are other measurements of the same points."""
    flat = [_flat(row) for row in rows]
    columns = list(dict.fromkeys(column for row in flat for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in flat)
    return text.getvalue()


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    plain = ("number", "state", "feasible", "repeat_of", "round", "failure", "reason", "why")
    return {
        **{name: row[name] for name in plain},
        **{f"parameter.{name}": value for name, value in row["parameters"].items()},
        **{f"objective.{name}": value for name, value in row["objectives"].items()},
        **{
            f"{name} {metric}": value
            for name, point in load_points(row).items()
            for metric, value in point["metrics"].items()
        },
        **{name: row[name] for name in ("seconds", "gpu_hours", "started_at", "ended_at", "node")},
    }


def _cell(value: Any) -> Any:
    """Text that a spreadsheet takes for a formula is quoted (OWASP, CSV injection)."""
    if isinstance(value, dict | list):
        value = json.dumps(value)
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value
