"""The service about itself: well or not, what it is, who asks, what Prometheus hears."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from autotuner import __version__
from autotuner.api.app import application
from autotuner.api.metrics import Counted, requests_of
from autotuner.api.service import Service, service
from autotuner.api.tokens import Role, issue, token_file
from autotuner.errors import InfrastructureError
from autotuner.plugins import kinds
from autotuner.settings import Settings
from autotuner.study.study import Study, StudyState
from autotuner.study.trial import TrialState
from tests.builders import spec, trial

ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Service]:
    found = service(Settings(home=tmp_path, timezone="Europe/Berlin"))
    yield found
    found.studies.store.close()


def client_of(made: Service) -> TestClient:
    return TestClient(application(made), base_url=ADDRESS)


def scraped(client: TestClient) -> dict[tuple[str, tuple[str, ...]], float]:
    """What Prometheus reads: (name, values of the labels) -> number."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_it_is_well_and_ready(made: Service) -> None:
    client = client_of(made)
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()) == (
        200,
        {"status": "ready", "checks": {"store": "ok"}},
    )


def test_what_is_wrong_is_said_and_it_is_still_well(
    made: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> Any:
        raise InfrastructureError("the store is away\nand more")

    broken = replace(made, ready=lambda: {"runner": "no dashboard"})
    monkeypatch.setattr(broken.studies.store, "names", away)
    client = client_of(broken)
    assert client.get("/healthz").status_code == 200
    refused = client.get("/readyz")
    assert refused.status_code == 503
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["detail"] == "no answer from: store, runner"


def test_what_it_is(made: Service) -> None:
    found = client_of(made).get("/v1/version").json()
    assert (found["name"], found["version"]) == ("autotuner", __version__)
    assert (found["engines"], found["timezone"]) == (kinds("engine"), "Europe/Berlin")
    assert set(found) == {"name", "version", "python", "ray", "engines", "timezone"}


def test_who_asks(made: Service) -> None:
    client = client_of(made)
    assert client.get("/v1/me").json() == {
        "name": "local", "role": "admin", "team": "", "tokens": False,
    }  # fmt: skip
    assert client.get("/v1/tokens").json() == {"items": []}
    path = token_file(made.settings)
    said = {name: issue(path, name, Role(name)) for name in ("viewer", "operator", "admin")}

    def asked(name: str, address: str) -> Any:
        return client.get(address, headers={"Authorization": f"Bearer {said[name]}"})

    assert asked("operator", "/v1/me").json() == {
        "name": "operator", "role": "operator", "team": "", "tokens": True,
    }  # fmt: skip
    assert client.get("/v1/me").status_code == 401
    for open_to_all in ("/healthz", "/readyz", "/v1/version"):
        assert client.get(open_to_all).status_code == 200
    assert client.get("/metrics").status_code == 401
    assert asked("viewer", "/metrics").status_code == 200
    assert asked("operator", "/v1/tokens").status_code == 403
    listed = asked("admin", "/v1/tokens")
    assert [each["name"] for each in listed.json()["items"]] == ["viewer", "operator", "admin"]
    assert "hash" not in listed.text
    assert not any(token in listed.text for token in said.values())


def test_prometheus_hears_of_studies_trials_requests_and_followers(made: Service) -> None:
    store = made.studies.store
    for name, state in (("a", StudyState.RUNNING), ("b", StudyState.PENDING)):
        store.create(Study(spec(name=name), "/nowhere", state, created_at="2026-01-01T00:00:00Z"))
    for number, trial_state in enumerate((TrialState.INFEASIBLE, TrialState.PENDING)):
        store.save("a", trial(number, {}, trial_state))
    app = application(made)
    app.state.requests = Counter({("GET", "/v1/studies", "200"): 3})
    found = scraped(TestClient(app, base_url=ADDRESS))
    assert found["autotuner_service_studies", ("LOST",)] == 1
    assert found["autotuner_service_studies", ("PENDING",)] == 1
    assert found["autotuner_service_studies", ("COMPLETE",)] == 0
    assert found["autotuner_service_trials", ("INFEASIBLE",)] == 1
    assert found["autotuner_service_trials", ("DEPLOYING",)] == 0
    assert found["autotuner_service_requests_total", ("GET", "/v1/studies", "200")] >= 3
    assert found["autotuner_service_followers", ()] == 0


def test_requests_are_counted_by_route_not_by_address() -> None:
    router = APIRouter()

    @router.get("/things/{name:path}")
    def thing(name: str) -> str:
        return name

    app = FastAPI()
    app.include_router(router, prefix="/v1")
    app.add_middleware(Counted)
    client = TestClient(app)
    for number in range(3):
        client.get(f"/v1/things/{number}/more")
    client.get("/nowhere")
    client.request("SHOUT", "/nowhere")
    assert requests_of(app.state) == {
        ("GET", "/v1/things/{name:path}", "200"): 3,
        ("GET", "none", "404"): 1,
        ("OTHER", "none", "404"): 1,
    }
