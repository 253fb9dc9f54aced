"""Studies: create, list, show, edit, delete, and what their state allows."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse

from autotuner.api import documents, examples, schemas
from autotuner.api.problems import answers
from autotuner.api.security import needs
from autotuner.api.service import Asked, Service
from autotuner.api.tokens import Role
from autotuner.errors import AutotunerError, ConfigError, MissingStudyError, StudyStateError
from autotuner.export import exported, launch_json
from autotuner.job import Job, checked
from autotuner.plan import first_plan
from autotuner.plan import plan as plan_of
from autotuner.report import page as report_page
from autotuner.studies import Studies
from autotuner.study.loading import yaml_text
from autotuner.study.study import Study

router = APIRouter(tags=["studies"])

VIEWER, OPERATOR = [Depends(needs(Role.VIEWER))], [Depends(needs(Role.OPERATOR))]

Sort = Literal[
    "name", "-name", "state", "-state", "gain", "-gain", "created_at", "-created_at",
    "started_at", "-started_at", "ended_at", "-ended_at", "seconds", "-seconds",
]  # fmt: skip
PerPage = Annotated[int, Query(ge=1, le=500)]
Page = Annotated[int, Query(ge=1, le=1_000_000)]
Form = Literal["command", "args", "docker", "compose", "ome", "json", "study"]

BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A study, or a task of the earlier system.",
        "content": {
            "application/json": {
                "schema": {"type": "object"},
                "examples": {"study": {"summary": "A study", "value": examples.STUDY}},
            },
            "application/yaml": {
                "schema": {"type": "string"},
                "examples": {"study": {"summary": "The same", "value": examples.YAML}},
            },
        },
    }
}


@router.get("/studies", dependencies=VIEWER, response_model=schemas.StudyPage)
def list_studies(
    asked: Asked,
    state: Annotated[list[schemas.Standing] | None, Query()] = None,
    engine: Annotated[str | None, Query(max_length=64)] = None,
    q: Annotated[str | None, Query(max_length=200, description="In name or description.")] = None,
    sort: Sort = "-created_at",
    page: Page = 1,
    per_page: PerPage = 50,
) -> Response:
    """All studies that the caller sees, filtered, sorted, by pages. A token of a team sees those
    of its team: here and below, others are not there."""
    rows = [
        row
        for row in asked.reads.rows()
        if (not state or row["state"] in state)
        and (not engine or engine in row["engine"].split(" / "))
        and (not q or q.lower() in f"{row['name']} {row['description']}".lower())
    ]
    return JSONResponse(paged(rows, sort, page, per_page))


@router.post(
    "/studies",
    dependencies=OPERATOR,
    status_code=201,
    response_model=schemas.StudyCreated,
    responses=answers(409, 413, 415, 429, 503),
    openapi_extra=BODY,
)
async def create(
    request: Request, asked: Asked, start: Annotated[bool, Query()] = False
) -> Response:
    """Store a study, which belongs to the caller's team, and start it where that is asked."""
    read = await documents.sent(request)

    def made() -> Response:
        job = documents.job(asked, read)
        _prepared(asked, asked.studies, job)
        study = asked.studies.create(job)
        if start:
            try:
                asked.studies.start(study.name)
            except AutotunerError:
                # What was refused has left nothing, and may be sent again as it is.
                asked.studies.delete(study.name)
                raise
        row = {**asked.reads.row(study.name), "notes": list(job.notes)}
        return JSONResponse(row, status_code=201, headers=_location(study))

    return await run_in_threadpool(made)


@router.get(
    "/studies/{name}",
    dependencies=VIEWER,
    response_model=schemas.StudyDetail,
    responses=answers(404),
)
def show(name: str, asked: Asked) -> Response:
    """A study, with what was asked."""
    study, _ = asked.reads.study(name)
    text = asked.reads.made(name, "yaml", lambda study, _: yaml_text(stored(study)))
    command = asked.reads.made(
        name, "command", lambda study, trials: asked.studies.command_of(study.spec, trials)
    )
    return JSONResponse(
        {
            **asked.reads.row(name),
            "spec": stored(study),
            "yaml": text,
            "job": study.job,
            "driver": study.driver,
            "command": command,
            "directory": study.directory,
        }
    )


@router.put(
    "/studies/{name}",
    dependencies=OPERATOR,
    response_model=schemas.StudyCreated,
    responses=answers(404, 409, 413, 415),
    openapi_extra=BODY,
)
async def edit(name: str, request: Request, asked: Asked) -> Response:
    """Put another study in the place of one that is not under way. Its results are deleted; with
    another name in it, it is renamed. It stays its team's."""
    read = await documents.sent(request)

    def made() -> Response:
        was = asked.studies.stored(name)  # by whatever version: it goes
        job = documents.job(asked, read)
        _prepared(asked, asked.studies.of(was.team), job)
        study = asked.studies.edit(name, job)
        row = {**asked.reads.row(study.name), "notes": list(job.notes)}
        return JSONResponse(row, headers=_location(study))

    return await run_in_threadpool(made)


@router.delete(
    "/studies/{name}", dependencies=OPERATOR, status_code=204, responses=answers(404, 409)
)
def delete(name: str, asked: Asked) -> Response:
    """Remove a study that is not under way, with its trials and files."""
    asked.studies.delete(name)
    return Response(status_code=204)


_MOVED: dict[str, Any] = {
    "dependencies": OPERATOR,
    "status_code": 202,
    "response_model": schemas.StudyRow,
    "responses": answers(404, 409, 429, 503),
}


@router.post("/studies/{name}/start", **_MOVED)
def start(name: str, asked: Asked) -> Response:
    """Run a study that never was, as a Ray job of its own."""
    return _moved(asked, _allowed(asked, name).start(name))


@router.post("/studies/{name}/cancel", **_MOVED)
def cancel(name: str, asked: Asked) -> Response:
    """End a study in order: its servers are stopped, what was measured is kept."""
    asked.studies.cancel(name)
    return JSONResponse(asked.reads.any_row(name), status_code=202)


@router.post("/studies/{name}/resume", **_MOVED)
def resume(name: str, asked: Asked) -> Response:
    """Go on with a study that was cancelled, failed or lost its driver; trials that ended stay."""
    return _moved(asked, _allowed(asked, name).resume(name))


@router.post("/studies/{name}/restart", **_MOVED)
def restart(name: str, asked: Asked) -> Response:
    """Run an ended study from its beginning, at once; its trials and files are deleted."""
    return _moved(asked, _allowed(asked, name).restart(name))


@router.post(
    "/studies/{name}/duplicate",
    dependencies=OPERATOR,
    status_code=201,
    response_model=schemas.StudyRow,
    responses=answers(404, 409),
)
def duplicate(name: str, asked: Asked) -> Response:
    """Store a new study that asks the same, under a name of its own; it is the caller's team's."""
    study = _allowed(asked, name).duplicate(name)
    return JSONResponse(asked.reads.row(study.name), status_code=201, headers=_location(study))


@router.post(
    "/plan",
    dependencies=OPERATOR,
    response_model=schemas.Planned,
    responses=answers(413, 415),
    openapi_extra=BODY,
)
async def plan_sent(
    request: Request, asked: Asked, trials: Annotated[int, Query(ge=0, le=20)] = 3
) -> Response:
    """What a study would do: launches, refused points, cost. Nothing is stored or started."""
    read = await documents.sent(request)

    def made() -> Response:
        job = documents.job(asked, read)
        return JSONResponse(plan_of(job, trials=trials, site=asked.settings.site))

    return await run_in_threadpool(made)


@router.get(
    "/studies/{name}/plan",
    dependencies=VIEWER,
    response_model=schemas.Planned,
    responses=answers(404),
)
def plan_stored(
    name: str, asked: Asked, trials: Annotated[int, Query(ge=0, le=20)] = 3
) -> Response:
    """What a stored study would do, from its beginning."""
    job = checked(asked.studies.study(name).spec)
    return JSONResponse(plan_of(job, trials=trials, site=asked.settings.site))


@router.post(
    "/convert",
    dependencies=VIEWER,
    response_model=schemas.Converted,
    responses=answers(413, 415),
)
def convert(document: schemas.Document) -> Response:
    """A study in its other form, and everything that is wrong with it: for whoever is writing
    one. Nothing of this machine is looked at; `/plan` says the rest."""
    return JSONResponse(documents.both_forms(document.yaml, document.content))


@router.get(
    "/studies/{name}/report",
    dependencies=VIEWER,
    response_model=schemas.Report,
    responses={
        200: {"content": {"text/html": {"schema": {"type": "string"}}}},
        **answers(404),
    },
)
def report(name: str, asked: Asked, format: Literal["json", "html"] = "json") -> Response:
    """The whole report: verdict, trials, failures, importance."""
    if format == "html":
        content = asked.reads.made(
            name,
            "html",
            lambda study, trials: report_page.html(
                asked.studies.report_of(study, trials), asked.settings.zone
            ),
        )
        return HTMLResponse(content, headers={"Content-Security-Policy": _STYLED})
    return Response(asked.reads.report(name), media_type="application/json")


@router.get(
    "/studies/{name}/export",
    dependencies=VIEWER,
    response_model=dict[str, Any],
    responses={
        200: {
            "content": {
                "text/plain": {"schema": {"type": "string"}, "example": examples.COMMAND},
                "application/json": {"example": examples.LAUNCH},
            }
        },
        **answers(404, 409),
    },
)
def export(
    name: str,
    asked: Asked,
    format: Form = "command",
    trial: Annotated[int | None, Query(ge=0, description="The best by default.")] = None,
) -> Response:
    """The launch of the best trial, to serve with: for a shell, Docker, compose, OME."""
    if format == "study":
        study = asked.studies.study(name)
        return PlainTextResponse(yaml_text(stored(study)))
    spec, point = asked.studies.chosen(name, trial)
    if format == "json":
        return JSONResponse(launch_json(spec, point))
    return PlainTextResponse(exported(spec, point, format, asked.settings.site) + "\n")


# The report is one file, with its style in it and no script.
_STYLED = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"


def paged(rows: list[dict[str, Any]], sort: str, page: int, per_page: int) -> dict[str, Any]:
    """A page of rows; those without a value come last, whichever way they are sorted."""
    key = sort.removeprefix("-")
    known = [row for row in rows if row[key] not in (None, "")]
    unknown = [row for row in rows if row[key] in (None, "")]
    known.sort(key=lambda row: row[key], reverse=sort.startswith("-"))
    first = (page - 1) * per_page
    items = (known + unknown)[first : first + per_page]
    return {"items": items, "total": len(rows), "page": page, "per_page": per_page}


def stored(study: Study) -> dict[str, Any]:
    """The study's content as a person would write it: without what is said by default."""
    content = study.spec.model_dump(mode="json", exclude_unset=True, exclude_defaults=True)
    # What tells the others' meaning comes first.
    content["engine"] = {"kind": study.spec.engine.kind, **content["engine"]}
    return content


def _allowed(asked: Service, name: str) -> Studies:
    """The studies, for one of them to be run or copied that may still choose what it chooses."""
    documents.refuse_stored(asked, asked.studies.study(name))
    return asked.studies


def _moved(asked: Service, study: Study) -> Response:
    return JSONResponse(asked.reads.row(study.name), status_code=202)


def _location(study: Study) -> dict[str, str]:
    return {"Location": f"/v1/studies/{study.name}"}


def _prepared(asked: Service, seen: Studies, job: Job) -> None:
    """What only its launch shows is said before the study is stored.

    Args:
        seen: studies that its team sees, among which its prior is.
    """
    if job.spec.prior is not None and job.spec.prior.study is not None:
        try:
            seen.with_prior(job)
        except StudyStateError as error:
            said = error.said if isinstance(error, MissingStudyError) else str(error)
            raise ConfigError(said, where="prior.study") from error
    first_plan(job, asked.settings.site)
