"""Who is let in, and what is around every request: an application of a few routes, in process."""

from __future__ import annotations

import asyncio
import json
import logging
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from fastapi import Depends, FastAPI, Request
from fastapi.testclient import TestClient
from starlette.datastructures import Headers
from starlette.responses import StreamingResponse
from starlette.types import Message

from autotuner.api import problems, security
from autotuner.api.problems import ProblemError
from autotuner.api.security import Buckets, needs
from autotuner.api.tokens import Caller, Gate, Role, Token, issue, listed, revoke, token_file
from autotuner.cli import cli
from autotuner.errors import ConfigError, InfrastructureError
from autotuner.settings import Settings

HERE = "http://127.0.0.1:8000"
THERE = "http://tuner.example:8000"


@dataclass
class Clock:
    """A clock that stands still until it is told to go on."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class House:
    """An application with the limits around it."""

    settings: Settings
    clock: Clock = field(default_factory=Clock)
    bodies: list[bytes] = field(default_factory=list)

    def client(self, base_url: str = HERE, token: str = "") -> TestClient:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return TestClient(self.app(), base_url=base_url, headers=headers)

    def app(self) -> FastAPI:
        app = FastAPI()
        app.state.service = SimpleNamespace(settings=self.settings, gate=Gate(self.settings))
        problems.install(app)
        security.install(app, clock=self.clock)

        @app.get("/v1/studies", dependencies=[Depends(needs(Role.VIEWER))])
        def studies() -> list[str]:
            return []

        @app.post("/v1/studies", dependencies=[Depends(needs(Role.OPERATOR))])
        async def create(request: Request) -> dict[str, int]:
            self.bodies.append(await request.body())
            return {"bytes": len(self.bodies[-1])}

        @app.get("/v1/tokens", dependencies=[Depends(needs(Role.ADMIN))])
        def tokens() -> list[str]:
            return []

        @app.get("/v1/version")
        def version() -> str:
            return "1"

        @app.get("/v1/forgotten")
        def forgotten() -> str:
            return "a route that names no role"

        @app.get("/v1/stream", dependencies=[Depends(needs(Role.VIEWER))])
        def stream() -> StreamingResponse:
            own = {"Cache-Control": "no-cache"}
            return StreamingResponse(iter(["a", "b"]), headers=own)

        return app


def settings(home: Path, **more: Any) -> Settings:
    return Settings(_env_file=None, home=home, **more)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(settings(tmp_path))


@pytest.fixture
def tokens(house: House) -> Mapping[Role, str]:
    path = token_file(house.settings)
    return {role: issue(path, role.value, role) for role in Role}


# Tokens


def test_a_token_is_kept_as_its_hash_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "tokens.json"
    token = issue(path, "ci", Role.OPERATOR)
    assert token.startswith("att_")
    assert len(token) == 4 + 43  # 256 bits
    assert token not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (held,) = listed(path)
    assert (held.name, held.role) == ("ci", Role.OPERATOR)
    assert held.created_at.endswith("+00:00")


def test_a_name_has_one_token(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    issue(path, "ci", Role.VIEWER)
    with pytest.raises(ConfigError, match="already is a token named 'ci'"):
        issue(path, "ci", Role.ADMIN)
    assert [each.role for each in listed(path)] == [Role.VIEWER]


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "a\n", "x" * 64])
def test_a_name_can_be_read_in_a_log(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no name for a token"):
        issue(tmp_path / "tokens.json", name, Role.VIEWER)


def test_a_token_may_be_of_a_team_and_without_one_the_file_is_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    issue(path, "ci", Role.OPERATOR)
    assert "team" not in path.read_text(), "an older service would not read it"
    issue(path, "anna", Role.OPERATOR, "chat")
    assert [(each.name, each.team) for each in listed(path)] == [("ci", ""), ("anna", "chat")]


@pytest.mark.parametrize("team", ["a b", "../x", "-x", "a\n", "x" * 64])
def test_a_team_is_named_like_a_token(team: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no name for a team"):
        issue(tmp_path / "tokens.json", "anna", Role.VIEWER, team)


def test_an_admin_is_of_no_team(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    with pytest.raises(ConfigError, match="an admin is of the whole service"):
        issue(path, "root", Role.ADMIN, "chat")
    assert not path.exists()
    issue(path, "anna", Role.VIEWER, "chat")
    path.write_text(path.read_text().replace("viewer", "admin"))
    with pytest.raises(ConfigError, match="'anna' is an admin, and so of no team"):
        listed(path)


def test_the_gate_knows_a_callers_team(house: House) -> None:
    token = issue(token_file(house.settings), "anna", Role.OPERATOR, "chat")
    known = Gate(house.settings).known_by(f"Bearer {token}")
    assert known == Caller("anna", Role.OPERATOR, "chat")


def test_the_command_line_makes_tokens_of_a_team_and_shows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOTUNER_HOME", str(tmp_path))

    def said(*words: str) -> str:
        done = CliRunner().invoke(cli, ["token", *words])
        assert done.exit_code == 0, done.output
        return done.output

    assert said("add", "anna", "--role", "viewer", "--team", "chat").startswith("att_")
    said("add", "ci")
    rows = json.loads(said("list", "--json"))
    assert [(row["name"], row["role"], row["team"]) for row in rows] == [
        ("anna", "viewer", "chat"),
        ("ci", "operator", ""),
    ]
    assert {name for row in rows for name in row} == {"name", "role", "created_at", "team"}
    anna, ci = (line.split() for line in said("list").splitlines())
    assert (anna[:3], ci[:3]) == (["anna", "viewer", "chat"], ["ci", "operator", "-"])
    refused = CliRunner().invoke(cli, ["token", "add", "x", "--role", "admin", "--team", "chat"])
    assert isinstance(refused.exception, ConfigError)


def test_revoking_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    for name in ("a", "b"):
        issue(path, name, Role.VIEWER)
    revoke(path, "a")
    assert [each.name for each in listed(path)] == ["b"]
    with pytest.raises(ConfigError, match="no token named 'a'") as told:
        revoke(path, "a")
    assert told.value.allowed == ("b",)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["tokens.json", "tokens.json.lock"]


@pytest.mark.parametrize(
    "text",
    ["{", "{}", '[{"name": "a"}]', '[{"name":"a","role":"king","hash":"x","created_at":""}]'],
)
def test_a_broken_file_lets_nobody_in(text: str, house: House) -> None:
    path = token_file(house.settings)
    path.write_text(text)
    with pytest.raises(ConfigError, match="holds no tokens") as told:
        Gate(house.settings).check()
    assert told.value.file == str(path)
    answer = house.client().get("/v1/studies")
    assert answer.status_code == 503
    assert answer.json()["type"] == "urn:autotuner:problem:infrastructure"


def test_a_place_that_cannot_be_written_is_the_operators(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InfrastructureError, match="cannot be written"):
        issue(tmp_path / "file" / "tokens.json", "ci", Role.VIEWER)


# The gate


def test_on_this_machine_nobody_needs_a_token_until_there_is_one(house: House) -> None:
    client = house.client()
    assert client.get("/v1/tokens").status_code == 200
    token = issue(token_file(house.settings), "ci", Role.VIEWER)
    assert client.get("/v1/studies").status_code == 401
    answer = client.get("/v1/studies", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200


def test_a_revoked_token_is_refused_at_once_and_the_last_one_opens_nothing(house: House) -> None:
    path = token_file(house.settings)
    token = issue(path, "ci", Role.VIEWER)
    client = house.client(token=token)
    assert client.get("/v1/studies").status_code == 200
    revoke(path, "ci")
    assert client.get("/v1/studies").status_code == 401
    path.unlink()
    assert client.get("/v1/studies").status_code == 401


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "tuner.example", ""])
def test_a_service_for_others_needs_a_token_before_it_starts(host: str, tmp_path: Path) -> None:
    open_to_all = Settings(_env_file=None, home=tmp_path).model_copy(update={"service_host": host})
    gate = Gate(open_to_all)
    assert gate.tokens_on
    with pytest.raises(ConfigError, match="nobody has a token") as told:
        gate.check()
    assert "autotuner token add" in told.value.hint
    issue(token_file(open_to_all), "ci", Role.VIEWER)
    gate.check()


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.9.1", "localhost", "::1", "[::1]", "::ffff:127.0.0.1"]
)
def test_a_service_for_this_machine_needs_none(host: str, tmp_path: Path) -> None:
    gate = Gate(settings(tmp_path, service_host=host))
    gate.check()
    assert gate.known_by("") == Caller("local", Role.ADMIN)


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("127.0.0.1", 200),
        ("::1", 200),
        ("::ffff:127.0.0.1", 200),
        ("192.168.1.7", 401),
        ("::ffff:10.0.0.1", 401),
        ("2001:db8::1", 401),
    ],
)
def test_without_tokens_only_this_machine_is_answered_whoever_listens(
    address: str, status: int, house: House
) -> None:
    client = TestClient(house.app(), base_url=HERE, client=(address, 50000))
    assert client.get("/v1/studies").status_code == status
    assert client.get("/v1/version").status_code == 200
    token = issue(token_file(house.settings), "ci", Role.VIEWER)
    said = client.get("/v1/studies", headers={"Authorization": f"Bearer {token}"})
    assert said.status_code == 200


ALLOWED = {
    Role.VIEWER: {"GET /v1/studies"},
    Role.OPERATOR: {"GET /v1/studies", "POST /v1/studies"},
    Role.ADMIN: {"GET /v1/studies", "POST /v1/studies", "GET /v1/tokens"},
}


@pytest.mark.parametrize("role", Role)
def test_each_role_may_what_those_before_it_may(
    role: Role, house: House, tokens: Mapping[Role, str]
) -> None:
    client = house.client(token=tokens[role])
    for said in ALLOWED[Role.ADMIN]:
        answer = client.request(*said.split())
        assert answer.status_code == (200 if said in ALLOWED[role] else 403), said
        if answer.status_code == 403:
            assert f"has {role}" in answer.json()["detail"]


@pytest.mark.parametrize(
    "said",
    ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer att_wrong", "Bearer \xff", "Bearer {hash}"],
)
def test_what_is_no_token_is_refused(said: str, house: House, tokens: Mapping[Role, str]) -> None:
    kept = listed(token_file(house.settings))[0].hash
    text = said.format(hash=kept).encode("latin-1")
    headers = {b"Authorization": text} if said else {}
    answer = house.client().get("/v1/studies", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    assert "autotuner token add" in answer.json()["detail"]


def test_a_route_that_names_no_role_needs_a_token_all_the_same(
    house: House, tokens: Mapping[Role, str]
) -> None:
    assert house.client().get("/v1/forgotten").status_code == 401
    assert house.client().get("/v1/no-such-route").status_code == 401
    assert house.client().get("/v1/version").status_code == 200


def test_no_token_is_in_a_log_or_an_answer(
    house: House, tokens: Mapping[Role, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said = [*tokens.values(), "att_somebody-elses"]
    for token in said:
        client = house.client(token=token)
        answers = [client.get("/v1/tokens"), client.post("/v1/studies", content=b"x")]
        for answer in answers:
            assert token not in answer.text
            assert token not in str(answer.headers)
    assert not any(token in caplog.text for token in said)


# Other sites


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8000", "[::1]:8000", "LOCALHOST"])
def test_this_machine_by_its_names(host: str, house: House) -> None:
    assert house.client().get("/v1/studies", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", "", "[", "a@b"],
)
def test_a_name_that_was_led_here_is_refused(host: str, house: House) -> None:
    answer = house.client().get("/v1/studies", headers={"Host": host})
    assert answer.status_code == 400
    assert answer.json()["type"] == "urn:autotuner:problem:host"


def test_a_name_may_lead_here_where_the_operator_says_so(tmp_path: Path) -> None:
    house = House(settings(tmp_path, cors_origins=("https://tuner.example",)))
    client = house.client()
    headers = {"Host": "tuner.example", "Origin": "https://tuner.example"}
    assert client.post("/v1/studies", headers=headers).status_code == 200
    assert client.get("/v1/studies", headers={"Host": "evil.example"}).status_code == 400


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (HERE, 200),
        ("https://127.0.0.1:8000", 200),
        ("http://127.0.0.1:9000", 403),
        ("http://localhost:8000", 403),
        ("http://evil.example", 403),
        ("null", 403),
    ],
)
def test_a_page_of_another_site_changes_nothing(origin: str, status: int, house: House) -> None:
    client = house.client()
    assert client.post("/v1/studies", headers={"Origin": origin}).status_code == status
    assert client.get("/v1/studies", headers={"Origin": origin}).status_code == 200
    assert len(house.bodies) == (status == 200)


def test_answers_are_shared_with_no_site_but_those_named(tmp_path: Path) -> None:
    alone = House(settings(tmp_path)).client()
    sharing = House(settings(tmp_path, cors_origins=("https://ci.example",))).client()
    ask = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    for origin, shared in (("https://ci.example", True), ("https://evil.example", False)):
        headers = {"Origin": origin}
        said = sharing.get("/v1/studies", headers=headers).headers
        assert ("access-control-allow-origin" in said) is shared
        assert "access-control-allow-credentials" not in said
        asked = sharing.options("/v1/studies", headers={**headers, **ask})
        assert (asked.status_code == 200) is shared
        assert (
            "access-control-allow-origin" not in alone.get("/v1/studies", headers=headers).headers
        )


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("application/yaml", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        (None, 415),
    ],
)
def test_a_body_is_of_no_kind_that_a_form_sends(
    kind: str | None, status: int, house: House
) -> None:
    headers = {"Content-Type": kind} if kind else {}
    answer = house.client().post("/v1/studies", content=b"{}", headers=headers)
    assert answer.status_code == status
    assert house.bodies == ([b"{}"] if status == 200 else [])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"a": "\xc3\xa9\\u00e9\\ud83d\\ude00"}', 200),
        (b"{", 200),  # its route says what is wrong with it
        (b'{"a": NaN}', 422),
        (b'{"a": -Infinity}', 422),
        (b'{"a": 1e999}', 422),
        (b'{"a": "\\ud800"}', 422),
        (b'{"\\udfff": 1}', 422),
        (b'"\xff"', 422),
        (b"1" + b"0" * 5000, 422),
        (b"[" * 100_000, 422),
        (b'{"a":' * 100_000, 422),
        (b'{"a": 1, "b": {"a": 1}}', 200),
        (b'{"a": 1, "b": 2, "a": 1}', 422),
        (b'[{"b": {"\\ud800": 1, "\\ud800": 2}}]', 422),
    ],
)
def test_json_that_only_python_reads_is_refused(body: bytes, status: int, house: House) -> None:
    headers = {"Content-Type": "application/json"}
    answer = house.client().post("/v1/studies", content=body, headers=headers)
    assert answer.status_code == status
    if status == 422:
        assert answer.json()["type"] == "urn:autotuner:problem:invalid"
        assert not house.bodies


# How much, how often


def chunks(size: int) -> Iterator[bytes]:
    for _ in range(size // 256):
        yield b"x" * 256


@pytest.mark.parametrize(("size", "status"), [(2048, 200), (2304, 413)])
@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_is_counted_whether_or_not_it_says_its_size(
    size: int, status: int, chunked: bool, tmp_path: Path
) -> None:
    house = House(settings(tmp_path, largest_request=2048))
    content = chunks(size) if chunked else b"x" * size
    headers = {"Content-Type": "application/json"}
    answer = house.client().post("/v1/studies", content=content, headers=headers)
    assert answer.status_code == status
    assert [len(body) for body in house.bodies] == ([size] if status == 200 else [])


def test_what_is_too_large_is_not_read_to_its_end() -> None:
    read = 0

    async def endless() -> Message:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"x" * 256, "more_body": True}

    with pytest.raises(ProblemError):
        asyncio.run(security._read(endless, Headers({}), 2048))
    assert read == 9


def test_a_caller_is_limited_alone(tmp_path: Path) -> None:
    house = House(settings(tmp_path, requests_per_second=2))
    path = token_file(house.settings)
    one, other = (issue(path, name, Role.VIEWER) for name in "ab")
    client = house.client()

    def ask(token: str) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        return client.get("/v1/studies", headers=headers).status_code

    assert [ask(one) for _ in range(5)] == [200] * 4 + [429]  # two seconds' worth at once
    assert ask(other) == 200
    house.clock.now += 0.5
    assert [ask(one) for _ in range(2)] == [200, 429]
    answer = client.get("/v1/studies", headers={"Authorization": f"Bearer {one}"})
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["type"] == "urn:autotuner:problem:rate"


def test_guessing_tokens_is_limited_by_address(tmp_path: Path) -> None:
    house = House(settings(tmp_path, requests_per_second=2))
    issue(token_file(house.settings), "ci", Role.VIEWER)
    client = house.client()
    guesses = [
        client.get("/v1/studies", headers={"Authorization": f"Bearer att_{n}"}) for n in range(5)
    ]
    assert [each.status_code for each in guesses] == [401] * 4 + [429]


def test_buckets_are_not_kept_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "CALLERS", 3)
    buckets = Buckets(Clock())
    assert [buckets.wait("first", 0.5) for _ in range(2)] == [0.0, 2.0]
    for name in "abc":
        buckets.wait(name, 0.5)
    assert buckets.wait("first", 0.5) == 0.0  # forgotten, so it is as new


# Headers


def test_headers_of_every_answer(house: House) -> None:
    client = house.client()
    for path in ("/v1/studies", "/v1/nothing", "/v1/version"):
        said = client.get(path).headers
        assert "default-src 'self'" in said["content-security-policy"]
        assert "unsafe-inline" not in said["content-security-policy"]
        assert said["x-content-type-options"] == "nosniff"
        assert said["referrer-policy"] == "no-referrer"
        assert said["cache-control"] == "no-store"


def test_the_page_is_never_of_two_versions(house: House) -> None:
    for path in ("/", "/static/study.js", "/healthz"):
        assert house.client().get(path).headers["cache-control"] == "no-cache"


def test_a_refusal_has_them_too(house: House) -> None:
    said = house.client().get("/v1/studies", headers={"Host": "evil.example"}).headers
    assert said["x-content-type-options"] == "nosniff"


def test_a_stream_keeps_its_own_word(house: House) -> None:
    answer = house.client().get("/v1/stream")
    assert (answer.text, answer.headers["cache-control"]) == ("ab", "no-cache")


def test_a_token_shows_nothing_of_itself_in_an_error() -> None:
    with pytest.raises(ValueError) as told:
        Token(name="a", role=Role.VIEWER, hash="att_secret", created_at="")
    assert "att_secret" not in str(told.value)


def test_the_file_is_json_by_the_contract(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    issue(path, "ci", Role.VIEWER)
    (kept,) = json.loads(path.read_text())
    assert set(kept) == {"name", "role", "hash", "created_at"}
