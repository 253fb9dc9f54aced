"""Events and logs: the past, then what comes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse, StreamingResponse

from autotuner.api import examples, schemas
from autotuner.api.follow import (
    EventStream,
    Following,
    Frames,
    last_event_id,
    position_of,
)
from autotuner.api.logfiles import Log, below, text
from autotuner.api.problems import NotFound, answers
from autotuner.api.routes.trials import LOGS, Source, trial_of
from autotuner.api.security import needs
from autotuner.api.service import Asked, Service
from autotuner.api.story import Story
from autotuner.api.tokens import Gate, Role
from autotuner.errors import AutotunerError, InfrastructureError, MissingStudyError
from autotuner.masking import secrets_in, without
from autotuner.study.files import STUDY_LOG
from autotuner.study.trial import Trial

router = APIRouter(tags=["streams"])

VIEWER = [Depends(needs(Role.VIEWER))]
Follow = Annotated[bool, Query(description="Go on after the past, until it ends.")]
Tail = Annotated[int | None, Query(ge=0, le=1_000_000, description="Only the last lines.")]
Download = Annotated[bool, Query(description="As a file.")]
_ID = "As the header Last-Event-ID: the id of the lines read last, or the byte in it alone."
After = Annotated[int | None, Query(ge=0, le=2**53, description="As the header Last-Event-ID.")]
AfterLines = Annotated[str | None, Query(pattern="^[0-9]{1,16}(-[0-9a-f]{8})?$", description=_ID)]

LONGEST_LINE = 2**20
"""Bytes of a log without a line's end that are held back, to be shown in one piece."""


def _stream_of(
    data: Mapping[str, dict[str, Any]], example: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """What a document says of a stream: the schema of each of its events, and one of them.

    Args:
        data: event -> schema of its data, which is JSON.
    """
    schema = {
        "title": "Event",
        "description": "The fields of each event. What only keeps the connection has none.",
        "type": "object",
        "properties": {
            "id": {"type": "string", "description": "For `Last-Event-ID`, to go on after it."},
            "event": {"type": "string", "enum": list(data)},
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": {"anyOf": list(data.values())},
            },
        },
        "required": ["event", "data"],
    }
    return {"text/event-stream": {"schema": schema, "example": example}}


_NOTHING = {"type": "object", "maxProperties": 0}
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events",
        "content": _stream_of(
            {
                "study": schemas.StudyEvent.model_json_schema(),
                "trial": schemas.TrialEvent.model_json_schema(),
            },
            {"id": "17", "event": "trial", "data": json.dumps(examples.TRIAL_EVENT)},
        ),
    },
    **answers(404),
}
LINES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events while it is followed, else text",
        "content": {
            **_stream_of(
                {
                    "lines": {"type": "array", "items": {"type": "string"}},
                    "restart": _NOTHING,
                    "end": _NOTHING,
                },
                {"id": "46-5f1e0c5f", "event": "lines", "data": json.dumps(examples.LINES)},
            ),
            "text/plain": {
                "schema": {"type": "string"},
                "example": "".join(f"{each}\n" for each in examples.LINES),
            },
        },
    },
    **answers(404),
}


@router.get(
    "/studies/{name}/events",
    dependencies=VIEWER,
    response_class=StreamingResponse,
    responses=EVENTS,
)
async def events(
    name: str,
    request: Request,
    asked: Asked,
    following: Following,
    after: After = None,
    follow: Follow = True,
) -> Response:
    """What happens to a study and its trials: `id` is the event's number, `event` is `study` or
    `trial`, `data` what it is now. Ends when the study is deleted."""
    await run_in_threadpool(asked.reads.study, name)
    since = position_of(last_event_id(request) or str(after or 0))
    frames = following.events(asked.studies.store, name, after=since, follow=follow)
    return _stream(asked, request, name, frames)


@router.get("/studies/{name}/logs", dependencies=VIEWER, response_class=Response, responses=LINES)
async def study_log(
    name: str,
    request: Request,
    asked: Asked,
    following: Following,
    after: AfterLines = None,
    follow: Follow = False,
    tail: Tail = None,
    download: Download = False,
) -> Response:
    """The study's own log. Followed: events `lines` with an array of lines, whose `id` is the
    byte after them and, after a hyphen, a checksum of what precedes it; `restart`, and then the
    whole file, where it was replaced, also while nobody followed; `end` once the study has
    ended."""
    study, _ = await run_in_threadpool(asked.reads.study, name)

    def ended() -> bool:
        return not asked.studies.under_way(asked.reads.study(name)[0])

    directory = Path(study.directory)
    log = Log(below(directory, STUDY_LOG), directory, ended)
    if follow:
        lines = following.lines(log, after=last_event_id(request) or after, tail=tail)
        return _stream(asked, request, name, _shown(asked, lines))
    return _file(asked, log, tail, f"{name}.log" if download else None)


@router.get(
    "/studies/{name}/trials/{number}/logs/{source}",
    dependencies=VIEWER,
    response_class=Response,
    responses=LINES,
)
async def trial_log(
    name: str,
    number: int,
    source: Source,
    request: Request,
    asked: Asked,
    following: Following,
    after: AfterLines = None,
    follow: Follow = False,
    tail: Tail = None,
    download: Download = False,
) -> Response:
    """A log of a trial: its server's, its load generator's, or its own story; see the study's."""
    study, trials = await run_in_threadpool(asked.reads.study, name)
    trial = trial_of(name, trials, number)
    filename = f"{name}-{number}-{source}.log" if download else None
    ended = _ended(asked, name, number)
    if source == "trial":
        story = Story(asked.studies.store, name, number, asked.settings.zone)
        if follow:
            id = last_event_id(request) or after
            since = position_of(id) if id else None
            return _stream(asked, request, name, story.frames(following, since, tail, ended))
        told, _ = await run_in_threadpool(story.past, 0, tail)
        lines = "".join(f"{story.line(each)}\n" for each in told)
        return PlainTextResponse(lines, headers=_as(filename))
    if not trial.directory:
        raise NotFound(f"trial {number} of study {name!r} was refused, so it has no logs")
    directory = Path(study.directory)
    log = Log(below(directory, trial.directory, LOGS[source]), directory, ended)
    if follow:
        followed = following.lines(log, after=last_event_id(request) or after, tail=tail)
        return _stream(asked, request, name, _shown(asked, followed))
    return _file(asked, log, tail, filename)


def _stream(asked: Service, request: Request, name: str, frames: Frames) -> EventStream:
    own = frames if asked.reads.sees_all else _own(asked, name, frames)
    return EventStream(_known_still(asked.gate, request.headers.get("authorization", ""), own))


async def _known_still(gate: Gate, authorization: str, frames: Frames) -> Frames:
    """Frames until the gate would not let in any more who asked for them; there is one every few
    seconds, if only to keep the connection."""
    async with aclosing(frames):
        async for frame in frames:
            try:
                gate.known_by(authorization)  # looks at one file's date, as each request does
            except AutotunerError:
                return
            yield frame


async def _own(asked: Service, name: str, frames: Frames) -> Frames:
    """Frames until the study is another team's: of one that was deleted its name may be given
    away at once, and whoever followed the old one would be told of the new one."""
    async with aclosing(frames):
        async for frame in frames:
            if await run_in_threadpool(asked.reads.is_anothers, name):
                return
            yield frame


def _file(asked: Service, log: Log, tail: int | None, filename: str | None) -> Response:
    hidden = secrets_in(_known(asked))
    shown = (without(each, hidden) for each in _by_lines(text(log, tail=tail)))
    return StreamingResponse(shown, media_type="text/plain; charset=utf-8", headers=_as(filename))


def _by_lines(parts: Iterable[bytes]) -> Iterator[str]:
    """A text cut only where lines end, so that what is looked for in it is in one piece."""
    rest = b""
    for part in parts:
        whole, end, rest = (rest + part).rpartition(b"\n")
        if len(rest) > LONGEST_LINE:
            whole, end, rest = whole + end + rest, b"", b""
        yield (whole + end).decode("utf-8", "replace")
    yield rest.decode("utf-8", "replace")


async def _shown(asked: Service, frames: Frames) -> Frames:
    """Frames of a log's lines without secrets."""
    # As they are in JSON.
    hidden = [json.dumps(each, ensure_ascii=False)[1:-1] for each in secrets_in(_known(asked))]
    async with aclosing(frames):
        async for frame in frames:
            yield without(frame.decode(), hidden).encode()


def _known(asked: Service) -> Mapping[str, str]:
    """What a server may have been given that writes its log at this moment. Its backend knows
    better, and masks what it leaves."""
    return {**os.environ, **asked.settings.site.environment()}


def _as(filename: str | None) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{filename}"'} if filename else {}


def _ended(asked: Service, name: str, number: int) -> Callable[[], bool]:
    def ended() -> bool:
        try:
            study, trials = asked.reads.study(name)
        except MissingStudyError:
            return True
        except InfrastructureError:
            return False  # nobody can tell just now
        found: Trial | None = next((each for each in trials if each.number == number), None)
        return found is None or found.state.ended or not asked.studies.under_way(study)

    return ended
