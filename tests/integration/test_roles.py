"""Every route of the service, as each role and as nobody; no route is listed by hand."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient

from autotuner.api.app import application
from autotuner.api.security import is_open
from autotuner.api.service import Service, service
from autotuner.api.tokens import Role, issue, token_file
from autotuner.benchmarks.replay import REPLAY
from autotuner.execution.virtual import replay_study
from autotuner.job import checked
from autotuner.settings import Settings
from autotuner.store import Store
from autotuner.studies import Studies
from autotuner.study.study import StudyState
from tests.builders import spec
from tests.replays import table

FLAG = "max-num-seqs"
ROWS = [
    {FLAG: value, "output_throughput": speed, "ttft_p99": 0.1, "tpot_p50": 0.01}
    for value, speed in ((None, 80), (8, 90), (16, 150), (32, 120))
]
HERE = "http://127.0.0.1:8000"

COMPUTING = frozenset(
    (
        "/v1/convert",
        "/v1/presets/merge",
        "/v1/engines/{kind}/{version}/validate",
    )
)
"""What is sent to be answered and is kept nowhere: a viewer may."""
ADMINS = frozenset(("/v1/tokens",))

FILLED: Mapping[str, str] = {
    "number": "1",
    "kind": "vllm",
    "version": "0.32.0",
    "source": "trial",
}
"""For parts of a path; every other is a name."""


@dataclass
class Idle:
    """A runner whose jobs never do anything."""

    jobs: set[str] = field(default_factory=set)

    def start(self, study: str, job: str) -> None:
        self.jobs.add(job)

    def stop(self, job: str) -> None:
        self.jobs.discard(job)

    def alive(self, job: str) -> bool:
        return job in self.jobs


def seeded(settings: Settings) -> Service:
    """A service with a preset, and a study that is complete, one that failed, one that has just
    been started, and one that never was."""
    settings.home.mkdir(parents=True, exist_ok=True)
    rows = table(settings.home / "table.csv", ROWS)
    store = Store(settings.store_url)
    studies = Studies(store, settings.studies)
    for name in ("done", "fresh", "failed", "busy"):
        job = checked(
            spec(
                name=name,
                space={FLAG: [8, 16, 32]},
                search={"kind": "grid"},
                benchmark={"kind": "replay", "table": str(rows)},
            )
        )
        study = studies.create(job)
        directory = Path(study.directory)
        (directory / "study.log").write_text("a line\nanother\n")
        if name == "done":
            replay_study(study, store, job.searcher(), job.rules, REPLAY)
        if name == "failed":
            store.set_state(name, StudyState.FAILED, reason="no trial was feasible")
    store.close()
    own = settings.home / "presets" / "team" / "own.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(f"why: a test\ncategory: general\nparameters: {{{FLAG}: [8, 16]}}\n")
    made = service(settings, runner=Idle())
    made.studies.start("busy")
    return made


@dataclass(frozen=True)
class House:
    """The service with a token of each role, and clients of each."""

    app: FastAPI
    service: Service
    tokens: Mapping[Role, str]

    def client(self, token: str = "") -> TestClient:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return TestClient(self.app, base_url=HERE, headers=headers, raise_server_exceptions=False)

    def routes(self) -> list[tuple[str, str]]:
        """Every method of every path; of a directory, one that is in none."""
        found = set()
        for route in iter_route_contexts(self.app.routes):
            if route.methods:
                found |= {(method, str(route.path)) for method in route.methods}
            else:
                found.add(("GET", f"{route.path}/no-such-file"))
        return sorted(found)

    def state(self) -> list[tuple[str, str]]:
        return [(each.name, each.state) for each in self.service.studies.store.studies()]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    home = tmp_path_factory.mktemp("home")
    settings = Settings(_env_file=None, home=home, requests_per_second=1e6)
    tokens = {role: issue(token_file(settings), role.value, role) for role in Role}
    made = seeded(settings)
    yield House(application(made), made, tokens)
    made.studies.store.close()


def ask(client: TestClient, method: str, path: str, name: str = "done") -> int:
    """The status of an answer; streams are asked for what is there already."""
    filled = re.sub(r"{(\w+)(:\w+)?}", lambda part: FILLED.get(part[1], name), path)
    return client.request(method, filled, params={"follow": "false"}).status_code


def needed(method: str, path: str) -> Role | None:
    """The least role for a route, by the rules that are promised; None: anybody."""
    if is_open(path):
        return None
    if path in ADMINS:
        return Role.ADMIN
    return Role.VIEWER if method in ("GET", "HEAD") or path in COMPUTING else Role.OPERATOR


def test_there_are_routes_of_every_kind(house: House) -> None:
    routes = house.routes()
    assert len(routes) > 30
    assert {path for _, path in routes} >= COMPUTING
    roles = {needed(*route) for route in routes}
    assert {None, Role.VIEWER, Role.OPERATOR} <= roles


@pytest.mark.parametrize("token", ["", "att_wrong", "att_" + "A" * 43])
def test_nobody_gets_anywhere_but_to_what_is_open(house: House, token: str) -> None:
    before, client = house.state(), house.client(token)
    wrong = [
        (method, path, status)
        for method, path in house.routes()
        if ((status := ask(client, method, path)) == 401) is not (needed(method, path) is not None)
    ]
    assert wrong == []
    assert house.state() == before


@pytest.mark.parametrize("role", Role)
def test_a_role_is_refused_what_is_beyond_it_and_nothing_changes(house: House, role: Role) -> None:
    before, client = house.state(), house.client(house.tokens[role])
    beyond = [each for each in house.routes() if (least := needed(*each)) and not role.may(least)]
    wrong = [(*each, status) for each in beyond if (status := ask(client, *each)) != 403]
    assert wrong == []
    assert bool(beyond) is (role is not Role.ADMIN) or role is Role.OPERATOR
    assert house.state() == before


@pytest.mark.parametrize("role", Role)
def test_a_role_is_let_in_where_it_may(house: House, role: Role) -> None:
    """Where it changes something it names a study that there is not, which is another refusal."""
    client, wrong = house.client(house.tokens[role]), []
    for method, path in house.routes():
        least = needed(method, path)
        if least is not None and not role.may(least):
            continue
        name = "done" if method == "GET" else "no-such"
        status = ask(client, method, path, name)
        if status in (401, 403) or status >= 500:
            wrong.append((method, path, status))
    assert wrong == []


def test_a_readiness_probe_needs_no_token(house: House) -> None:
    assert {path for _, path in house.routes()} >= {"/healthz", "/readyz"}
