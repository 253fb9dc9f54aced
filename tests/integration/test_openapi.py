"""The service against its own document: Schemathesis sends what it allows, and what it does not.

Whatever is sent, the answer is one that the document describes: its status, type and shape, and
never an error of ours (5xx other than the 503 it may give).
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from autotuner.api.app import application, document
from autotuner.api.tokens import Role, issue, token_file
from autotuner.settings import Settings
from tests.builders import study_content
from tests.integration.test_roles import HERE, seeded

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]

STUDIES = ["done", "fresh", "failed", "busy", "no-such"]
PRESETS = ["vllm/latency", "team/own", "no-such"]
THERE: Mapping[str, list[Any]] = {
    "name": STUDIES,
    "study": STUDIES,
    "number": [0, 1, 2, 99],
    "kind": ["vllm", "sglang", "no-such"],
    "one": ["vllm", "sglang", "no-such"],
    "other": ["vllm", "sglang", "no-such"],
    "version": ["0.32.0", "0.5.23", "1.0", "9"],
}
"""Values of parameters that lead to something; left to chance none would."""


def leading() -> dict[str, Any]:
    """The document, with parameters that mostly lead to something."""
    made = copy.deepcopy(document())
    for path, operations in made["paths"].items():
        for operation in operations.values():
            for each in operation.get("parameters", []):
                if each["name"] in THERE:
                    values = PRESETS if "presets" in path else THERE[each["name"]]
                    many = each["schema"].get("type") == "array"
                    one = {"enum": values}
                    each["schema"] = {"type": "array", "items": one} if many else one
    return made


CONFIG = SchemathesisConfig.from_dict(
    {"generation": {"max-examples": 15, "deterministic": True, "allow-x00": True}}
)
SCHEMA = schemathesis.openapi.from_dict(leading(), config=CONFIG)


@dataclass(frozen=True)
class House:
    """The service, and the token of somebody who may do everything."""

    app: FastAPI
    token: str

    def verify(self, case: schemathesis.Case[Any]) -> int:
        """Send it, and compare the answer with its description; its status."""
        # A stream follows what it is of until that ends.
        case.query = {**(case.query or {}), "follow": "false"}
        headers = {"Authorization": f"Bearer {self.token}"}
        response = case.call(app=self.app, base_url=HERE, headers=headers)
        case.validate_response(response, checks=CHECKS)
        return response.status_code


@contextmanager
def built(home: Path) -> Iterator[House]:
    allow = home / "allow.yaml"
    allow.write_text("everything: true\n")
    said = Settings(_env_file=None, home=home, allow=allow, requests_per_second=1e6)
    made = seeded(said)
    yield House(application(made), issue(token_file(said), "admin", Role.ADMIN))
    made.studies.store.close()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """For routes that change nothing."""
    with built(tmp_path_factory.mktemp("home")) as found:
        yield found


@pytest.fixture
def new_house(tmp_path: Path) -> Iterator[House]:
    """For one that changes something: what it did must not be missing from the next."""
    with built(tmp_path) as found:
        yield found


@pytest.fixture
def answered() -> Iterator[set[int]]:
    """Statuses of a route's answers, of which one at least is that it did as it was asked."""
    found: set[int] = set()
    yield found
    assert any(status < 300 for status in found), f"only refused: {found}"


BOUNDED = settings(
    max_examples=15,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@SCHEMA.include(method="GET").parametrize()
@BOUNDED
def test_what_is_read_is_as_it_is_described(
    case: schemathesis.Case[Any], house: House, answered: set[int]
) -> None:
    answered.add(house.verify(case))


@SCHEMA.exclude(method="GET").parametrize()
@BOUNDED
def test_what_is_changed_is_as_it_is_described(
    case: schemathesis.Case[Any], new_house: House, answered: set[int]
) -> None:
    answered.add(new_house.verify(case))


STUDY = json.dumps(study_content(name="sent"))
UNHEARD_OF: dict[str, str | bytes] = {
    "a NaN": '{"content": {"a": NaN}}',
    "an infinity": '{"content": {"a": 1e999}}',
    "an infinity in YAML": '{"yaml": "a: .inf"}',
    "half a character": '{"yaml": "\\ud800"}',
    "half a character in a name": '{"content": {"\\ud800": 1}}',
    "half a character for a value": '{"name": "max-num-seqs", "value": "\\ud800"}',
    "a zero byte": '{"name": "\\u0000", "value": "\\u0000"}',
    "a number without end": '{"yaml": "a", "name": 1' + "0" * 5000 + "}",
    "too many levels": '{"a":' * 5000,
    "no JSON": "{",
    "not a mapping": "[]",
    "nothing": "null",
    "a text": '"study"',
    "no UTF-8": b'{"name": "\xff"}',
    "the home of nobody": STUDY.replace("/models/tiny", "~nobody-of-that-name/x"),
    "a path too long": STUDY.replace("/models/tiny", "x" * 5000),
    "a path with a zero byte": STUDY.replace("/models/tiny", "a\\u0000b"),
    "a table with a zero byte": json.dumps(
        study_content(name="sent", benchmark={"kind": "replay", "table": "a\0b"})
    ),
    "a catalog with a zero byte": json.dumps(
        study_content(name="sent", engine={"kind": "vllm", "catalog": "a\0b"})
    ),
}
"""Bodies that no schema leads to."""


def with_bodies() -> list[tuple[str, str]]:
    return [
        (method.upper(), path)
        for path, operations in document()["paths"].items()
        for method, operation in operations.items()
        if "requestBody" in operation
    ]


@pytest.mark.parametrize("what", UNHEARD_OF)
def test_nothing_that_is_sent_breaks_a_route(what: str, house: House) -> None:
    client = TestClient(house.app, base_url=HERE, raise_server_exceptions=False)
    headers = {"Authorization": f"Bearer {house.token}", "Content-Type": "application/json"}
    broken = []
    for method, path in with_bodies():
        filled = re.sub(r"{(\w+)}", lambda part: str(THERE[part[1]][0]), path)
        answer = client.request(method, filled, content=UNHEARD_OF[what], headers=headers)
        kind = answer.headers.get("content-type", "")
        told = answer.status_code < 400 or kind.startswith("application/problem+json")
        if answer.status_code >= 500 or not told or "problem:host" in answer.text:
            broken.append((method, path, answer.status_code, answer.text[:80]))
    assert broken == []
