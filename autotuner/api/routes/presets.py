"""Presets: list, keep, change, exchange, merge."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from autotuner.api import documents, examples
from autotuner.api.examples import shown
from autotuner.api.presets import Presets, checked, content_of, refuse_unsayable
from autotuner.api.problems import answers
from autotuner.api.security import needs
from autotuner.api.service import Asked
from autotuner.api.tokens import Role
from autotuner.errors import ConfigError
from autotuner.study.domains import canonical_keys, space_of
from autotuner.study.loading import yaml_text
from autotuner.study.presets import How, Preset, merged

router = APIRouter(tags=["presets"])

VIEWER, OPERATOR = [Depends(needs(Role.VIEWER))], [Depends(needs(Role.OPERATOR))]

MANY = 200
"""Presets that are taken in, merged or given out at once, at most."""


class PresetBody(BaseModel):
    """A preset without its name."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra=shown({k: v for k, v in examples.PRESET.items() if k != "name"}),
    )

    why: str = ""
    engine: str | None = Field(default=None, description="Null: for every engine.")
    category: str = "general"
    parameters: dict[str, Any] = Field(
        examples=[{"max-num-seqs": [64, 128, 256]}],
        description="Flag -> values or a domain, as under `space` of a study.",
    )


class NewPreset(PresetBody):
    """A preset as it is sent."""

    model_config = ConfigDict(json_schema_extra=shown(examples.PRESET))

    name: str = Field(examples=["team/long-prompts"], description="Parts joined by /.")


class PresetChanges(BaseModel):
    """What is to be another; the rest stays."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra=shown({"name": "team/longer", "why": "Ours."})
    )

    name: str | None = Field(default=None, description="Another name.")
    why: str | None = None
    engine: str | None = None
    category: str | None = None
    parameters: dict[str, Any] | None = None


class PresetRow(BaseModel):
    """A preset, and whose it is."""

    model_config = ConfigDict(json_schema_extra=shown(examples.PRESET_ROW))

    name: str
    why: str
    engine: str | None
    category: str
    parameters: dict[str, Any]
    own: bool = Field(description="Of this service, not shipped.")
    shadows: bool = Field(description="Goes before a shipped one of its name.")


class PresetList(BaseModel):
    """Presets, and every category that there is."""

    model_config = ConfigDict(
        json_schema_extra=shown(
            {"items": [examples.PRESET_ROW], "categories": ["memory", "team"], "problems": []}
        )
    )

    items: list[PresetRow]
    categories: list[str]
    problems: list[str] = Field(description="Files in the service's directory that are none.")


class PresetsTaken(BaseModel):
    """What became of presets that were sent."""

    model_config = ConfigDict(
        json_schema_extra=shown({"items": [examples.PRESET_ROW], "skipped": ["vllm/latency"]})
    )

    items: list[PresetRow]
    skipped: list[str] = Field(description="Names that are there already; see `replace`.")


class PresetMerge(BaseModel):
    """Presets to make one space of."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra=shown(
            {
                "names": ["vllm/throughput", "team/long-prompts"],
                "how": "union",
                "space": {"block-size": [16, 32]},
            }
        ),
    )

    names: list[str] = Field(max_length=MANY)
    how: How = How.UNION
    space: dict[str, Any] | None = Field(
        default=None, description="The study's own, which goes over them."
    )


class MergedSpace(BaseModel):
    """One space out of several presets."""

    model_config = ConfigDict(
        json_schema_extra=shown(
            {
                "parameters": {"max-num-seqs": [64, 128, 256], "block-size": [16, 32]},
                "conflicts": ["stream-interval: only in vllm/throughput; left out"],
            }
        )
    )

    parameters: dict[str, Any]
    conflicts: list[str] = Field(description="What could not be agreed on, and what was done.")


_TAKEN: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A preset with its name, or a list of them.",
        "content": {
            "application/json": {
                "schema": {"anyOf": [{"type": "object"}, {"type": "array", "items": {}}]},
                "example": [examples.PRESET],
            },
            "application/yaml": {"schema": {"type": "string"}, "example": examples.PRESETS_YAML},
        },
    }
}


_LIST = {"type": "array", "items": {"type": "object"}}


async def _presets(asked: Asked) -> Presets:
    return Presets(asked.presets, lambda: asked.allowed)


Ours = Annotated[Presets, Depends(_presets)]


@router.get("/presets", dependencies=VIEWER, response_model=PresetList)
def list_presets(
    ours: Ours,
    engine: Annotated[
        str | None, Query(max_length=64, description="Those for it, and those for every engine.")
    ] = None,
    category: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """The shipped presets and the service's own, by name."""
    found, problems = ours.all()
    shown = [
        each.to_json()
        for each in found
        if (not engine or each.preset.engine in (None, engine))
        and (not category or each.preset.category == category)
    ]
    categories = sorted({each.preset.category for each in found})
    return JSONResponse({"items": shown, "categories": categories, "problems": problems})


@router.post(
    "/presets",
    dependencies=OPERATOR,
    status_code=201,
    response_model=PresetRow,
    responses=answers(409, 413, 415),
)
def create(ours: Ours, new: NewPreset) -> Response:
    """Keep a preset. One of a shipped one's name goes before it."""
    kept = ours.create(checked(new.model_dump()))
    location = {"Location": f"/v1/presets/{kept.preset.name}"}
    return JSONResponse(kept.to_json(), status_code=201, headers=location)


@router.post(
    "/presets/import",
    dependencies=OPERATOR,
    response_model=PresetsTaken,
    responses=answers(413, 415),
    openapi_extra=_TAKEN,
)
async def take(
    request: Request,
    ours: Ours,
    replace: Annotated[bool, Query(description="Also those whose name is there already.")] = False,
) -> Response:
    """Keep presets of a file, all or none: a preset with its name, or a list of them."""
    read = await documents.sent(request)

    def taken() -> Response:
        items, skipped = ours.take(_given(read.content), replace=replace)
        return JSONResponse({"items": [each.to_json() for each in items], "skipped": skipped})

    return await run_in_threadpool(taken)


@router.get(
    "/presets/export",
    dependencies=VIEWER,
    response_class=Response,
    responses={
        200: {
            "description": "A file that `import` takes",
            "content": {
                "application/yaml": {"schema": _LIST, "example": [examples.PRESET]},
                "application/json": {"schema": _LIST, "example": [examples.PRESET]},
            },
        },
        **answers(404),
    },
)
def export(
    ours: Ours,
    name: Annotated[
        list[str] | None, Query(max_length=MANY, description="Every own one by default.")
    ] = None,
    format: Literal["yaml", "json"] = "yaml",
) -> Response:
    """Presets as a file."""
    found = [ours.find(each) for each in name] if name else [p for p in ours.all()[0] if p.own]
    content = [content_of(each.preset) for each in found]
    if format == "json":
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    else:
        text = "".join(_item(each) for each in content) or "[]\n"
    named = {"Content-Disposition": f'attachment; filename="presets.{format}"'}
    return Response(text, media_type=f"application/{format}", headers=named)


@router.post(
    "/presets/merge", dependencies=VIEWER, response_model=MergedSpace, responses=answers(415)
)
def merge(ours: Ours, merging: PresetMerge) -> Response:
    """One space out of several presets, as a study that names them gets it. Nothing is kept."""
    there = {each.preset.name: each.preset for each in ours.all()[0]}
    unknown = [name for name in merging.names if name not in there]
    if unknown:
        raise ConfigError(
            f"there is no preset {unknown[0]!r}", where="names", allowed=sorted(there)
        )
    named = [there[name] for name in merging.names]
    engines = sorted({each.engine for each in named if each.engine})
    if len(engines) > 1:
        raise ConfigError(
            f"these presets are for {' and '.join(engines)}",
            where="names",
            hint="merge those of one engine at a time",
        )
    merge = merged(named, merging.how)
    parameters = {**merge.parameters, **_own(merging.space or {})}
    return JSONResponse({"parameters": parameters, "conflicts": list(merge.conflicts)})


@router.get(
    "/presets/{name:path}", dependencies=VIEWER, response_model=PresetRow, responses=answers(404)
)
def show(ours: Ours, name: str) -> Response:
    """A preset."""
    return JSONResponse(ours.find(name).to_json())


@router.put(
    "/presets/{name:path}",
    dependencies=OPERATOR,
    response_model=PresetRow,
    responses=answers(404, 413, 415),
)
def put(ours: Ours, name: str, said: PresetBody) -> Response:
    """Keep a preset in the place of that of its name. A shipped one stays, below it."""
    ours.find_own(name)
    return JSONResponse(ours.put(checked({"name": name, **said.model_dump()})).to_json())


@router.patch(
    "/presets/{name:path}",
    dependencies=OPERATOR,
    response_model=PresetRow,
    responses=answers(404, 409, 413, 415),
)
def change(ours: Ours, name: str, changes: PresetChanges) -> Response:
    """Change what is sent of a preset, and leave the rest."""
    sent = changes.model_dump(exclude_unset=True)
    for key in ("name", "parameters"):
        if key in sent and sent[key] is None:
            raise ConfigError("cannot be null; leave it out to keep it", where=key)
    return JSONResponse(ours.change(name, sent).to_json())


@router.delete(
    "/presets/{name:path}", dependencies=OPERATOR, status_code=204, responses=answers(404, 409)
)
def delete(ours: Ours, name: str) -> Response:
    """Remove an own preset; a shipped one of its name is there again."""
    ours.delete(name)
    return Response(status_code=204)


def _given(content: Any) -> list[Preset]:
    """The presets of a file that was sent.

    Raises:
        ConfigError: one of them is none.
    """
    given = content if isinstance(content, list) else [content]
    if len(given) > MANY:
        raise ConfigError(f"{len(given)} presets are more than {MANY}", hint="send fewer at once")
    found: dict[str, Preset] = {}
    for number, each in enumerate(given):
        place = f"[{number}]" if isinstance(content, list) else ""
        if not isinstance(each, Mapping):
            raise ConfigError("a preset is a mapping with a name", where=place)
        try:
            preset = checked(each)
        except ConfigError as error:
            where = ".".join(part for part in (place, error.where) if part)
            raise ConfigError(
                error.problem, where=where, allowed=error.allowed, hint=error.hint
            ) from error
        if preset.name in found:
            raise ConfigError(f"{preset.name!r} is there twice", where=place)
        found[preset.name] = preset
    return list(found.values())


def _item(content: Mapping[str, Any]) -> str:
    """A mapping as an item of a YAML list."""
    first, *rest = yaml_text(content).splitlines()
    return "\n".join([f"- {first}", *(f"  {line}" for line in rest)]) + "\n"


def _own(space: Mapping[str, Any]) -> dict[str, Any]:
    refuse_unsayable(space, "space")
    try:
        space_of(space)
        return canonical_keys(space)
    except ValueError as error:
        raise ConfigError(str(error), where="space") from error
