"""Engines: the flags of each version, which are commonly tuned, and whether a value fits one."""

from __future__ import annotations

import dataclasses
from functools import cache, lru_cache
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from autotuner.api import examples
from autotuner.api.examples import shown
from autotuner.api.problems import NotFound, answers
from autotuner.api.security import needs
from autotuner.api.tokens import Role
from autotuner.engines.catalog import Catalog, Flag, known_engines, known_versions, load_catalog
from autotuner.engines.catalog.tuned import commonly_tuned
from autotuner.engines.compatibility import compatibility
from autotuner.errors import ConfigError
from autotuner.plugins import kinds
from autotuner.study.space import canonical_name

router = APIRouter(tags=["engines"])

VIEWER = [Depends(needs(Role.VIEWER))]

Version = Annotated[str | None, Query(max_length=64, description="The newest by default.")]


class EngineRow(BaseModel):
    """An engine that studies may name."""

    kind: str = Field(examples=["vllm"])
    versions: list[str] = Field(description="Whose flags are known, the oldest first.")
    default: str | None = Field(description="Taken where a study says none.")


class EngineList(BaseModel):
    """Every engine."""

    model_config = ConfigDict(
        json_schema_extra=shown(
            {"items": [{"kind": "vllm", "versions": ["0.10.0", "0.32.0"], "default": "0.32.0"}]}
        )
    )

    items: list[EngineRow]


class FlagRow(BaseModel):
    """A flag, as the engine's own parser takes it."""

    name: str = Field(description="Canonical: without dashes in front, - for _.")
    aliases: list[str]
    kind: str = Field(examples=["int", "switch", "text"])
    choices: list[Any] | None = Field(description="Null: not a closed set.")
    default: Any
    suffixes: bool = Field(description="Takes human numbers, such as 8k.")
    auto: bool = Field(description="Takes `auto` for a number.")
    deprecated: bool
    commonly_tuned: bool


class FlagList(BaseModel):
    """Flags of one version of an engine."""

    model_config = ConfigDict(
        json_schema_extra=shown(
            {"engine": "vllm", "version": "0.32.0", "count": 1, "flags": [examples.FLAG]}
        )
    )

    engine: str
    version: str
    count: int
    flags: list[FlagRow]


class CatalogSide(BaseModel):
    """One of two versions that are compared."""

    engine: str
    version: str
    flags: int = Field(description="How many it has.")
    only: list[str] = Field(description="Those the other has not.")


class CommonFlag(BaseModel):
    """A flag of both."""

    names: list[str] = Field(description="What each calls it.")
    differs: str = Field(description="Where a value of one may be none of the other; or empty.")


class CatalogComparison(BaseModel):
    """Flags of two engines, or of two versions of one."""

    model_config = ConfigDict(json_schema_extra=shown(examples.COMPARISON))

    engines: list[CatalogSide]
    common: list[CommonFlag]


class FlagValue(BaseModel):
    """A flag and a value for it."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra=shown({"name": "max-num-seqs", "value": 256})
    )

    name: str = Field(max_length=200, examples=["max-num-seqs"])
    value: Any = Field(examples=[256])


class FlagValidity(BaseModel):
    """Whether an engine's parser would take a flag with a value."""

    model_config = ConfigDict(
        json_schema_extra=shown(
            {"name": "max-num-seqs", "valid": True, "problem": "", "suggestion": ""}
        )
    )

    name: str = Field(description="Canonical.")
    valid: bool
    problem: str
    suggestion: str


@router.get("/engines", dependencies=VIEWER, response_model=EngineList)
def engines() -> Response:
    """The engines that studies may name."""
    items = []
    for kind in _kinds():
        versions = known_versions(kind) if kind in known_engines() else []
        default = versions[-1] if versions else None
        items.append({"kind": kind, "versions": versions, "default": default})
    return JSONResponse({"items": items})


@router.get(
    "/engines/compatibility",
    dependencies=VIEWER,
    response_model=CatalogComparison,
    responses=answers(404),
)
def compare(
    one: Annotated[str, Query(max_length=64)],
    other: Annotated[str, Query(max_length=64)],
    one_version: Version = None,
    other_version: Version = None,
) -> Response:
    """Which flags two engines, or two versions of one, have in common."""
    found = compatibility(_catalog(one, one_version), _catalog(other, other_version))
    return JSONResponse(found.to_json())


@router.get(
    "/engines/{kind}/{version}/flags",
    dependencies=VIEWER,
    response_model=FlagList,
    responses=answers(404),
)
def flags(
    kind: str,
    version: str,
    q: Annotated[str | None, Query(max_length=100, description="In name or aliases.")] = None,
    commonly_tuned: Annotated[
        bool, Query(description="Only these, the most telling first; else all by name.")
    ] = False,
) -> Response:
    """The flags of a version, as its own parser says them."""
    catalog = _catalog(kind, version)
    wanted = canonical_name(q or "").lower()
    shown = [
        each
        for each in _flags(catalog.engine, catalog.version, commonly_tuned)
        if any(wanted in name.lower() for name in (each["name"], *each["aliases"]))
    ]
    return JSONResponse(
        {
            "engine": catalog.engine,
            "version": catalog.version,
            "count": len(shown),
            "flags": shown,
        }
    )


@router.post(
    "/engines/{kind}/{version}/validate",
    dependencies=VIEWER,
    response_model=FlagValidity,
    responses=answers(404, 413, 415),
)
def validate(kind: str, version: str, sent: FlagValue) -> Response:
    """Whether a version takes a flag with a value; nothing is kept."""
    catalog = _catalog(kind, version)
    name = canonical_name(sent.name)
    problem = suggestion = ""
    try:
        catalog.check(name, sent.value, where="")
    except ConfigError as error:
        problem = error.problem
        suggestion = f"one of {', '.join(error.allowed)}" if error.allowed else error.hint
    said = {"name": name, "valid": not problem, "problem": problem, "suggestion": suggestion}
    return JSONResponse(said)


@cache
def _kinds() -> list[str]:
    """What is installed does not change while this process runs."""
    return kinds("engine")


def _catalog(kind: str, version: str | None) -> Catalog:
    """Raises NotFound where the flags of an engine, or of a version of it, are not known."""
    if kind not in known_engines():
        raise NotFound(f"no flags are known of an engine {kind!r}: {', '.join(known_engines())}")
    try:
        return load_catalog(kind, version)
    except ConfigError as error:
        raise NotFound(error.text()) from error


@lru_cache(maxsize=32)
def _flags(kind: str, version: str, only_tuned: bool) -> list[dict[str, Any]]:
    catalog = load_catalog(kind, version)
    tuned = commonly_tuned(catalog)
    names = {flag.name for flag in tuned}
    return [_flag(each, each.name in names) for each in (tuned if only_tuned else catalog.flags)]


def _flag(flag: Flag, tuned: bool) -> dict[str, Any]:
    said = dataclasses.asdict(flag)
    return {**said, "kind": flag.kind.value, "commonly_tuned": tuned}
