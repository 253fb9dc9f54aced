"""The examples of the OpenAPI document: everything has one, and each is what it is one of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import BaseModel
from ruamel.yaml import YAML

from autotuner.api import examples, schemas
from autotuner.api.app import ROUTES, application, document
from autotuner.api.documents import read_text
from autotuner.api.presets import checked
from autotuner.api.service import service
from autotuner.settings import Settings
from autotuner.study.loading import parse_study
from tests.integration.test_api_studies import measured, posted
from tests.integration.test_follow import parsed

DOCUMENT = document()
SHOWN = ("application/json", "application/yaml", "text/event-stream")
"""Types of which an example is asked for."""


def media() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every body and every answer that is no problem, with its place in the document."""
    for path, operations in DOCUMENT["paths"].items():
        for method, operation in operations.items():
            place = f"{method.upper()} {path}"
            for kind, content in operation.get("requestBody", {}).get("content", {}).items():
                yield f"{place}, body as {kind}", content
            for status, answer in operation["responses"].items():
                if status < "300":
                    for kind, content in answer.get("content", {}).items():
                        yield f"{place}, {status} as {kind}", content


def of(content: Mapping[str, Any]) -> list[Any]:
    """The examples of a body or an answer, its own or its schema's."""
    own = [content["example"]] if "example" in content else []
    own += [each["value"] for each in content.get("examples", {}).values()]
    schema = content.get("schema", {})
    if "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return own or schema.get("examples", [])


def test_every_body_and_every_answer_has_an_example() -> None:
    places = dict(media())
    assert len(places) > 50
    assert [place for place in places if place.endswith(SHOWN) and not of(places[place])] == []


def models() -> dict[str, type[BaseModel]]:
    """Those of every body and every answer, and of what is in streams."""
    routers = [import_module(f"autotuner.api.routes.{name}").router for name in (*ROUTES, "system")]
    found: list[Any] = [schemas.StudyEvent, schemas.TrialEvent]
    for route in (route for router in routers for route in router.routes):
        asked = route.body_field.field_info.annotation if route.body_field else None
        found += [route.response_model, asked]
    return {
        each.__name__: each
        for each in found
        if isinstance(each, type) and issubclass(each, BaseModel)
    }


@pytest.mark.parametrize("model", models().values(), ids=models())
def test_an_example_is_what_it_is_an_example_of(model: type[BaseModel]) -> None:
    given = model.model_json_schema()["examples"]
    assert given
    for example in given:
        model.model_validate(example)
        if model.model_config.get("extra") != "allow":
            assert unknown(example, model) == []


def unknown(example: Mapping[str, Any], model: type[BaseModel]) -> list[str]:
    known = {field.alias or name for name, field in model.model_fields.items()}
    return sorted(example.keys() - known)


def test_the_examples_of_studies_and_presets_can_be_sent() -> None:
    parse_study(read_text(examples.YAML))
    assert read_text(examples.YAML).content == examples.STUDY
    assert read_text(examples.PRESETS_YAML).content == [examples.PRESET]
    checked(examples.PRESET)
    assert YAML(typ="safe", pure=True).load(examples.PRESETS_YAML) == [examples.PRESET]


def test_an_event_holds_what_the_document_says(tmp_path: Path) -> None:
    made = service(Settings(home=tmp_path, service_directory=tmp_path))
    with TestClient(application(made), base_url="http://127.0.0.1:8000") as client:
        posted(client)
        measured(made)
        frames = client.get("/v1/studies/small/events?follow=false").content
    made.studies.store.close()
    kinds: dict[str, type[BaseModel]] = {"study": schemas.StudyEvent, "trial": schemas.TrialEvent}
    found = parsed(frames)
    assert {kind for _, kind, _ in found} == set(kinds)
    for _, kind, said in found:
        kinds[kind].model_validate(said)
        assert said.keys() == kinds[kind].model_fields.keys()
    schemas.StudyEvent.model_validate({"state": "DELETED", "at": found[0][2]["at"]})


def test_the_example_of_a_stream_is_one_of_its_events() -> None:
    streams = [content for place, content in media() if place.endswith("event-stream")]
    assert len(streams) == 3
    for content in streams:
        (example,) = of(content)
        fields = content["schema"]["properties"]
        assert example["event"] in fields["event"]["enum"]
        assert example.keys() <= fields.keys()
        assert json.loads(example["data"])
