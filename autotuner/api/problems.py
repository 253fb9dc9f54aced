"""Errors as RFC 9457 problem details, by who must act."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from autotuner.errors import (
    AutotunerError,
    ConfigError,
    InfrastructureError,
    MissingStudyError,
    StudyStateError,
    TooManyStudiesError,
)

MEDIA_TYPE = "application/problem+json"

RETRY_SECONDS = 30
"""When to ask again while too many studies are under way."""


class Mistake(BaseModel):
    """One thing that is wrong with what was sent."""

    where: str = Field(description="Place in it, such as `space.max-num-seqs`.")
    problem: str
    allowed: list[str] = []
    hint: str = ""
    line: int | None = Field(default=None, description="Of a YAML text, counted from 1.")


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str = Field(examples=["urn:autotuner:problem:study-state"])
    title: str = Field(examples=["The study's state does not allow it"])
    status: int = Field(examples=[409])
    detail: str = Field(examples=["study 'llama' is RUNNING; cancel it before you edit it"])
    instance: str = Field(examples=["/v1/studies/llama"])
    errors: list[Mistake] = []


class ProblemError(AutotunerError):
    """An answer that is a problem: for what only the service refuses."""

    def __init__(
        self, status: int, kind: str, detail: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        self.status = status
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})
        super().__init__(detail)


class NotFound(ProblemError):
    """There is nothing of that name."""

    def __init__(self, detail: str) -> None:
        super().__init__(404, "not-found", detail)


TITLES = {
    "config": "The study cannot be used as it is",
    "invalid": "The request cannot be understood",
    "study-state": "The study's state does not allow it",
    "too-many": "Too many studies are under way",
    "infrastructure": "The service's machines cannot do it",
    "not-found": "There is no such thing",
    "unauthorized": "A token is needed",
    "forbidden": "The token's role does not allow it",
    "too-large": "The request is too large",
    "media-type": "The request is in no form that is understood",
    "rate": "Too many requests",
    "host": "The request came by another name or site",
    "method": "The address does not take this method",
    "internal": "The service has failed",
}
"""By kind, the end of a problem's type."""

STATUSES = {
    400: "invalid",
    401: "unauthorized",
    403: "forbidden",
    404: "not-found",
    405: "method",
    409: "study-state",
    413: "too-large",
    415: "media-type",
    422: "config",
    429: "rate",
    503: "infrastructure",
}


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route that may answer with these problems."""
    return {
        status: {"description": TITLES[STATUSES[status]], "content": {MEDIA_TYPE: {"schema": _REF}}}
        for status in statuses
    }


_REF = {"$ref": "#/components/schemas/Problem"}


def problem(
    status: int,
    kind: str,
    detail: str,
    instance: str,
    *,
    errors: Sequence[Mistake] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """A problem as a response."""
    content = Problem(
        type=f"urn:autotuner:problem:{kind}",
        title=TITLES[kind],
        status=status,
        detail=detail,
        instance=instance,
        errors=list(errors),
    )
    return JSONResponse(
        content.model_dump(), status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {})
    )


def of_error(error: AutotunerError, instance: str) -> JSONResponse:
    """The problem that one of our errors is."""
    if isinstance(error, ProblemError):
        return problem(error.status, error.kind, error.detail, instance, headers=error.headers)
    if isinstance(error, ConfigError):
        return problem(422, "config", error.text(), instance, errors=mistakes(error))
    if isinstance(error, TooManyStudiesError):
        again = {"Retry-After": str(RETRY_SECONDS)}
        return problem(429, "too-many", str(error), instance, headers=again)
    if isinstance(error, MissingStudyError):
        return problem(404, "not-found", error.said, instance)
    if isinstance(error, StudyStateError):
        return problem(409, "study-state", str(error), instance)
    if isinstance(error, InfrastructureError):
        return problem(503, "infrastructure", str(error), instance)
    raise error


def mistakes(error: ConfigError) -> list[Mistake]:
    """An error with those found beside it, one by one."""
    return [mistake(each) for each in (error, *error.others)]


def mistake(error: ConfigError) -> Mistake:
    """One error, without those found beside it."""
    return Mistake(
        where=error.where,
        problem=error.problem,
        allowed=list(error.allowed),
        hint=error.hint,
        line=error.line,
    )


def install(app: FastAPI) -> None:
    """Have every error of an application answered as a problem."""

    async def ours(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, AutotunerError)
        return of_error(error, request.url.path)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        found = [
            Mistake(where=".".join(map(str, each["loc"])), problem=each["msg"])
            for each in error.errors()
        ]
        detail = "; ".join(f"{each.where}: {each.problem}" for each in found)
        return problem(422, "invalid", detail, request.url.path, errors=found)

    async def other(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        kind = STATUSES.get(error.status_code, "invalid")
        detail = str(error.detail)
        if error.status_code == 404:
            detail = f"there is nothing at {request.url.path}; see /openapi.json"
        headers = dict(error.headers or {})
        return problem(error.status_code, kind, detail, request.url.path, headers=headers)

    async def unforeseen(request: Request, _: Exception) -> JSONResponse:
        # What it was is in the service's log, and may hold what is nobody's business.
        detail = "a mistake of autotuner's own; its operator finds it in the service's log"
        return problem(500, "internal", detail, request.url.path)

    app.add_exception_handler(AutotunerError, ours)
    app.add_exception_handler(Exception, unforeseen)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, other)
