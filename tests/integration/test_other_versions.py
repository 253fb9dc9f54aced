"""Over HTTP: studies that another version of autotuner stored, and that this one cannot read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from autotuner.api.app import application
from autotuner.api.schemas import StudyRow
from autotuner.api.service import Service, service
from autotuner.settings import Settings
from autotuner.study.study import StudyState
from tests.builders import study_content, trial
from tests.unit.test_lifecycle import DEAD, Jobs, driven, unreadable

CONTENT = study_content(name="asked", model={"path": "organisation/model"})


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


@pytest.fixture
def served(tmp_path: Path, jobs: Jobs) -> Iterator[Service]:
    settings = Settings(
        home=tmp_path, service_directory=tmp_path, store=f"sqlite:///{tmp_path / 'store.db'}"
    )
    made = service(settings, runner=jobs)
    yield made
    made.studies.store.close()


@pytest.fixture
def client(served: Service) -> Iterator[TestClient]:
    with TestClient(application(served), base_url="http://127.0.0.1:8000") as client:
        yield client


def test_one_is_cancelled_and_that_is_said(
    client: TestClient, served: Service, jobs: Jobs, tmp_path: Path
) -> None:
    client.post("/v1/studies?start=true", json=CONTENT)
    driven(served.studies, "asked")
    served.studies.store.save("asked", trial(0))
    unreadable(served.studies, tmp_path, "asked")
    asked = client.post("/v1/studies/asked/cancel")
    assert (asked.status_code, asked.json()["state"]) == (202, "RUNNING"), asked.text
    assert len(jobs.stopped) == 1
    served.studies.store.set_state("asked", StudyState.RUNNING, driver=DEAD)
    jobs.living.clear()
    lost = client.post("/v1/studies/asked/cancel")
    assert (lost.status_code, lost.json()["state"]) == (202, "CANCELLED")
    row = StudyRow.model_validate(lost.json())
    assert (row.name, row.reason, row.counts) == (
        "asked",
        "cancelled when it was lost",
        {"COMPLETE": 1},
    )
    again = client.post("/v1/studies/asked/cancel")
    assert again.status_code == 409
    assert "is CANCELLED" in again.json()["detail"]
    assert client.get("/v1/studies/asked").status_code == 409, "nobody here can read it"


def test_one_is_replaced_where_it_is_not_under_way(
    client: TestClient, served: Service, tmp_path: Path
) -> None:
    client.post("/v1/studies?start=true", json=CONTENT)
    served.studies.store.save("asked", trial(0))
    unreadable(served.studies, tmp_path, "asked")
    refused = client.put("/v1/studies/asked", json=CONTENT)
    assert refused.status_code == 409
    assert "STARTING; cancel it before you edit it" in refused.json()["detail"]
    assert client.post("/v1/studies/asked/cancel").json()["state"] == "CANCELLED"
    replaced = client.put("/v1/studies/asked", json=CONTENT)
    assert (replaced.status_code, replaced.json()["state"]) == (200, "PENDING"), replaced.text
    assert served.studies.store.trials("asked") == []
    assert client.get("/v1/studies/asked").json()["model"] == "organisation/model"
    assert client.put("/v1/studies/nothing", json=CONTENT).status_code == 404
