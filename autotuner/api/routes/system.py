"""The service itself: whether it is well, what it is, and who asks."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from autotuner import __version__
from autotuner.api import examples, metrics
from autotuner.api.examples import shown
from autotuner.api.follow import Following
from autotuner.api.problems import ProblemError, answers
from autotuner.api.security import needs
from autotuner.api.service import Asked, Service, Serving
from autotuner.api.tokens import Caller, Role, listed, token_file
from autotuner.errors import AutotunerError
from autotuner.plugins import kinds

router = APIRouter(tags=["service"])


class Health(BaseModel):
    """It answers."""

    model_config = ConfigDict(json_schema_extra=shown({"status": "ok"}))

    status: Literal["ok"]


class Readiness(BaseModel):
    """It can do its work."""

    model_config = ConfigDict(
        json_schema_extra=shown({"status": "ready", "checks": {"store": "ok", "runner": "ok"}})
    )

    status: Literal["ready"]
    checks: dict[str, str] = Field(examples=[{"store": "ok", "runner": "ok"}])


class ServiceVersion(BaseModel):
    """What serves, and what it knows."""

    model_config = ConfigDict(json_schema_extra=shown(examples.VERSION))

    name: Literal["autotuner"]
    version: str
    python: str
    ray: str = Field(description="Empty where Ray is not installed.")
    engines: list[str]
    timezone: str = Field(description="IANA name, for the times that are shown.")


class CallerRow(BaseModel):
    """Who asks."""

    model_config = ConfigDict(json_schema_extra=shown(examples.CALLER))

    name: str
    role: Role
    team: str = Field(description="Whose studies are all that one sees; empty: one sees all.")
    tokens: bool = Field(description="Whether tokens are needed here.")


class TokenRow(BaseModel):
    """Who has a token; the token itself is kept nowhere."""

    name: str
    role: Role
    team: str = Field(description="Whose studies are all that it sees; empty: it sees all.")
    created_at: str


class TokenList(BaseModel):
    """Everybody who has a token."""

    model_config = ConfigDict(json_schema_extra=shown({"items": [examples.TOKEN]}))

    items: list[TokenRow]


@router.get("/healthz", response_model=Health)
async def health() -> Response:
    """Whether the service answers at all. Needs no token."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz", response_model=Readiness, responses=answers(503))
def readiness(asked: Serving) -> Response:
    """Whether the service reaches its store and its cluster. Needs no token."""
    found = asked.ready()
    if "store" not in found:
        found = {"store": _store(asked), **found}
    wrong = [name for name, problem in found.items() if problem]
    if wrong:
        # Whoever asks is a stranger: why it is so is for those who may ask more.
        raise ProblemError(503, "infrastructure", f"no answer from: {', '.join(wrong)}")
    return JSONResponse({"status": "ready", "checks": dict.fromkeys(found, "ok")})


@router.get(
    "/metrics",
    dependencies=[Depends(needs(Role.VIEWER))],
    response_class=Response,
    responses={
        200: {
            "description": "In Prometheus' text format",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    },
)
def prometheus(request: Request, asked: Asked, following: Following) -> Response:
    """Studies, trials, requests and followers, counted; of a team's token, its own studies and
    trials."""
    requests = metrics.requests_of(request.app.state).copy()
    said = metrics.text(asked.reads.rows(), requests, following.count)
    return Response(said, media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/v1/version", response_model=ServiceVersion)
def version(asked: Serving) -> Response:
    """What serves. Needs no token."""
    return JSONResponse(
        {
            "name": "autotuner",
            "version": __version__,
            "python": platform.python_version(),
            "ray": _ray(),
            "engines": _engines(),
            "timezone": asked.settings.timezone,
        }
    )


@router.get("/v1/me", response_model=CallerRow)
def me(asked: Asked, caller: Annotated[Caller, Depends(needs(Role.VIEWER))]) -> Response:
    """Who asks, as the token says it."""
    return JSONResponse(
        {
            "name": caller.name,
            "role": caller.role.value,
            "team": caller.team,
            "tokens": asked.gate.tokens_on,
        }
    )


@router.get("/v1/tokens", dependencies=[Depends(needs(Role.ADMIN))], response_model=TokenList)
def tokens(asked: Asked) -> Response:
    """Who has a token."""
    held = listed(token_file(asked.settings))
    names = {"name", "role", "team", "created_at"}
    return JSONResponse({"items": [each.model_dump(mode="json", include=names) for each in held]})


def _store(asked: Service) -> str:
    """What is wrong with the store, or empty."""
    try:
        asked.studies.store.names()
    except AutotunerError as error:
        return str(error).splitlines()[0]
    return ""


@cache
def _engines() -> list[str]:
    """What is installed does not change while this process runs."""
    return kinds("engine")


@cache
def _ray() -> str:
    try:
        return installed("ray")
    except PackageNotFoundError:
        return ""
