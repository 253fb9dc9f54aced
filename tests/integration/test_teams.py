"""Teams: every route below a study asked by another team, and what lists, views and problems say.

Routes are found, not listed: one that is new and looks a study up by itself fails here.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient

from autotuner.api.app import application
from autotuner.api.follow import Followers
from autotuner.api.routes.cluster import ANOTHERS
from autotuner.api.routes.streams import _own
from autotuner.api.service import Service, service
from autotuner.api.tokens import Caller, Role, issue, token_file
from autotuner.backends.guarded import this_process
from autotuner.benchmarks.replay import REPLAY
from autotuner.execution.virtual import replay_study
from autotuner.job import Job, checked
from autotuner.settings import Settings
from autotuner.study.files import STUDY_LOG
from autotuner.study.study import StudyState
from autotuner.study.trial import TrialState
from tests.builders import spec, study_content, trial
from tests.integration.test_roles import FILLED, FLAG, HERE, ROWS, Idle
from tests.replays import table

WHOLE = "/v1/presets"
"""Below it nothing is a team's."""

TOKENS: Mapping[str, tuple[Role, str]] = {
    "chat": (Role.OPERATOR, "chat"),
    "reader": (Role.VIEWER, "chat"),
    "search": (Role.OPERATOR, "search"),
    "whole": (Role.OPERATOR, ""),
    "admin": (Role.ADMIN, ""),
}


@dataclass(frozen=True)
class House:
    """A service, and a token of each kind for it."""

    service: Service
    app: FastAPI
    tokens: Mapping[str, str]
    table: Path

    def client(self, who: str) -> TestClient:
        headers = {"Authorization": f"Bearer {self.tokens[who]}"}
        return TestClient(self.app, base_url=HERE, headers=headers, raise_server_exceptions=False)

    def content(self, name: str, **more: Any) -> dict[str, Any]:
        replayed = {"kind": "replay", "table": str(self.table)}
        grid = {"space": {FLAG: [8, 16, 32]}, "search": {"kind": "grid"}, "benchmark": replayed}
        return study_content(name=name, **{**grid, **more})

    def job(self, name: str, **more: Any) -> Job:
        return checked(spec(**self.content(name, **more)))

    def study(self, name: str, team: str, *, done: bool = False) -> None:
        """One that has never run; or that is complete, with logs."""
        job = self.job(name)
        study = self.service.studies.of(team).create(job)
        if done:
            replay_study(study, self.service.studies.store, job.searcher(), job.rules, REPLAY)
            Path(study.directory, STUDY_LOG).write_text("a line\n")


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    allow = tmp_path / "allow.yaml"
    allow.write_text("everything: true\n")
    said = Settings(
        _env_file=None, home=tmp_path, allow=allow, requests_per_second=1e6, studies_at_once=1
    )
    tokens = {
        name: issue(token_file(said), name, role, team) for name, (role, team) in TOKENS.items()
    }
    nodes = {"nodes": [], "problem": ""}
    made = service(said, runner=Idle(), cluster=lambda: nodes)
    yield House(made, application(made), tokens, table(tmp_path / "table.csv", ROWS))
    made.studies.store.close()


# Every route


def below_a_study(app: FastAPI) -> list[tuple[str, str]]:
    """Methods and paths of the routes that name a study."""
    return sorted(
        (method, str(route.path))
        for route in iter_route_contexts(app.routes)
        for method in route.methods or ()
        if "{name" in str(route.path) and not str(route.path).startswith(WHOLE)
    )


def answer(house: House, who: str, route: tuple[str, str], name: str) -> Any:
    """What a route says of a study; streams, of what is there already."""
    method, path = route
    filled = re.sub(r"{(\w+)(:\w+)?}", lambda part: FILLED.get(part[1], name), path)
    body = None if method in ("GET", "HEAD", "DELETE") else house.content(name)
    return house.client(who).request(method, filled, json=body, params={"follow": "false"})


def test_every_route_says_of_another_teams_study_what_it_says_of_none(house: House) -> None:
    routes = below_a_study(house.app)
    assert len(routes) > 15
    for number, route in enumerate(routes):
        name = f"study-{number}"
        house.study(name, "chat", done=route[0] in ("GET", "HEAD"))
        before = house.service.studies.store.study(name)
        theirs, missing = (answer(house, "search", route, each) for each in (name, "no-such"))
        assert theirs.status_code == missing.status_code == 404, (route, theirs.text)
        assert theirs.text == missing.text.replace("no-such", name), route
        lengths = {("content-length", theirs.headers["content-length"])}
        assert theirs.headers.items() - missing.headers.items() <= lengths, route
        assert house.service.studies.store.study(name) == before, route
        own = answer(house, "chat", route, name)
        assert own.status_code in (200, 201, 202, 204, 409, 429), (route, own.text)


def test_whoever_is_of_no_team_finds_what_is_a_teams(house: House) -> None:
    house.study("theirs", "chat", done=True)
    for route in below_a_study(house.app):
        if route[0] == "GET":
            for who in ("whole", "admin", "reader"):
                assert answer(house, who, route, "theirs").status_code == 200, (who, route)


def test_a_team_finds_no_study_of_nobodys(house: House) -> None:
    house.study("older", "", done=True)
    assert answer(house, "chat", ("GET", "/v1/studies/{name}"), "older").status_code == 404
    assert house.client("chat").get("/v1/studies").json()["total"] == 0


# Lists and views


def test_lists_and_their_counts_and_pages_are_of_ones_own(house: House) -> None:
    for number in range(6):
        house.study(f"study-{number}", ("chat", "search", "")[number % 3])

    def page(who: str, **query: Any) -> tuple[list[str], int]:
        found = house.client(who).get("/v1/studies", params={"sort": "name", **query}).json()
        return [row["name"] for row in found["items"]], found["total"]

    assert page("chat") == (["study-0", "study-3"], 2)
    assert page("chat", per_page=1, page=2) == (["study-3"], 2)
    assert page("chat", per_page=1, page=3) == ([], 2)
    assert page("search", q="study-0") == ([], 0)
    assert page("whole")[1] == page("admin")[1] == 6


def test_numbers_for_prometheus_are_of_ones_own(house: House) -> None:
    house.study("ours", "chat")
    house.study("theirs", "search", done=True)

    def told(who: str, state: str) -> str:
        text = house.client(who).get("/metrics").text
        assert "theirs" not in text
        (line,) = re.findall(rf'^autotuner_service_studies{{state="{state}"}} (.*)$', text, re.M)
        return str(line)

    assert [told(who, "COMPLETE") for who in ("chat", "search", "whole")] == ["0.0", "1.0", "1.0"]


def under_way(house: House, name: str, team: str, node: str) -> None:
    house.study(name, team)
    store = house.service.studies.store
    since = "2026-01-01T00:00:00.000+00:00"
    place = {"node": node, "gpu_ids": ("0",), "started_at": since, "note": f"of {name}"}
    store.save(name, trial(0, {}, TrialState.BENCHMARKING, **place))
    store.save(name, trial(1, {FLAG: 8}, TrialState.PENDING, note=f"of {name}"))
    store.set_state(name, StudyState.RUNNING, driver=this_process(), started_at=since)


def test_of_others_the_cluster_says_where_they_are_and_no_more(house: House) -> None:
    under_way(house, "ours", "chat", "n1")
    under_way(house, "theirs", "search", "n2")
    found = house.client("chat").get("/v1/cluster")
    said = found.json()
    assert "theirs" not in found.text
    holds = {each["node"]: each for each in said["holds"]}
    assert (holds["n1"]["study"], holds["n1"]["trial"]) == ("ours", 0)
    assert holds["n2"] == {
        "node": "n2", "gpu_ids": ["0"], "study": ANOTHERS, "trial": None, "state": "HELD",
        "since": "",
    }  # fmt: skip
    waits = {each["study"]: each for each in said["queue"]}
    assert waits["ours"]["trial"] == 1
    assert waits[ANOTHERS] == {
        "study": ANOTHERS, "trial": None, "gpus": None, "waiting": "its turn",
    }  # fmt: skip
    assert said["studies"] == {"RUNNING": 1}
    whole = house.client("whole").get("/v1/cluster").json()
    assert {each["study"] for each in whole["holds"]} == {"ours", "theirs"}
    assert whole["studies"] == {"RUNNING": 2}


def test_the_timeline_is_of_ones_own(house: House) -> None:
    under_way(house, "ours", "chat", "n1")
    under_way(house, "theirs", "search", "n2")

    def spans(who: str, **query: Any) -> list[str]:
        found = house.client(who).get("/v1/timeline", params={"hours": 8000, **query}).json()
        return [each["study"] for each in found["trials"]]

    assert spans("chat") == ["ours"]
    assert spans("whole") == ["ours", "theirs"]
    theirs, none = (
        house.client("chat").get("/v1/timeline", params={"study": name})
        for name in ("theirs", "nothing")
    )
    assert theirs.status_code == 404
    assert theirs.text == none.text.replace("nothing", "theirs")


def test_one_is_told_ones_team_and_an_admin_everybodys(house: House) -> None:
    assert house.client("reader").get("/v1/me").json() == {
        "name": "reader", "role": "viewer", "team": "chat", "tokens": True,
    }  # fmt: skip
    listed = house.client("admin").get("/v1/tokens").json()["items"]
    assert {each["name"]: each["team"] for each in listed} == {
        name: team for name, (_, team) in TOKENS.items()
    }


# What is sent


def test_a_study_is_of_the_team_of_whoever_posts_or_duplicates_it(house: House) -> None:
    def teams() -> dict[str, str]:
        return {each.name: each.team for each in house.service.studies.store.studies()}

    for who in ("chat", "whole"):
        posted = house.client(who).post("/v1/studies", json=house.content(f"by-{who}"))
        assert posted.status_code == 201, posted.text
    assert teams() == {"by-chat": "chat", "by-whole": ""}
    edited = house.client("whole").put("/v1/studies/by-chat", json=house.content("renamed"))
    assert edited.status_code == 200, edited.text
    for who in ("chat", "whole"):
        assert house.client(who).post("/v1/studies/renamed/duplicate").status_code == 201
    copies = {"renamed-copy": "chat", "renamed-copy-2": ""}
    assert teams() == {"renamed": "chat", "by-whole": "", **copies}


@pytest.mark.parametrize("verb", ["post", "put"])
def test_a_name_that_another_team_has_is_taken_and_that_is_all(house: House, verb: str) -> None:
    house.study("theirs", "search", done=True)
    house.study("ours", "chat")
    client = house.client("chat")
    path = "/v1/studies" if verb == "post" else "/v1/studies/ours"
    refused = client.request(verb.upper(), path, json=house.content("theirs"))
    assert refused.status_code == 409
    assert refused.json()["detail"] == "there already is a study named 'theirs'"
    assert client.get("/v1/studies/ours").status_code == 200
    assert house.service.studies.store.study("theirs").team == "search"
    assert house.service.studies.store.trials("theirs")


def test_a_prior_of_another_teams_is_one_that_is_not_there(house: House) -> None:
    house.study("theirs", "search", done=True)
    client = house.client("chat")

    def sent(verb: str, path: str, prior: str) -> Any:
        content = house.content("ours", prior={"study": prior})
        return client.request(verb, path, json=content)

    for verb, path in (("POST", "/v1/studies"), ("PUT", "/v1/studies/ours")):
        theirs, none = (sent(verb, path, name) for name in ("theirs", "nothing"))
        assert theirs.status_code == 422, theirs.text
        assert theirs.text == none.text.replace("nothing", "theirs")
        assert theirs.json()["errors"][0]["where"] == "prior.study"
        if verb == "POST":
            house.study("ours", "chat")
    for name in ("ours", "renamed"):
        content = house.content(name, prior={"study": "theirs"})
        refused = house.client("whole").put("/v1/studies/ours", json=content)
        assert refused.status_code == 422, "it is the study's team that must see it"
    own = house.client("search").post(
        "/v1/studies", json=house.content("next", prior={"study": "theirs"})
    )
    assert own.status_code == 201, own.text


def test_when_too_many_are_under_way_no_other_teams_is_named(house: House) -> None:
    for name, team in (("theirs", "search"), ("ours", "chat")):
        house.study(name, team)
    assert house.client("search").post("/v1/studies/theirs/start").status_code == 202
    refused = house.client("chat").post("/v1/studies/ours/start")
    assert refused.status_code == 429
    assert "theirs" not in refused.text


# While one looks, or follows


def test_what_was_read_for_one_team_is_not_shown_to_the_next_of_its_name(house: House) -> None:
    house.study("same", "chat", done=True)
    chat, search = house.client("chat"), house.client("search")
    assert chat.get("/v1/studies/same/report").status_code == 200
    assert chat.delete("/v1/studies/same").status_code == 204
    house.study("same", "search", done=True)
    assert search.get("/v1/studies/same/report").status_code == 200
    for path in ("same", "same/report", "same/trials", "same/events"):
        assert chat.get(f"/v1/studies/{path}").status_code == 404, path


def test_a_read_that_a_study_of_another_team_comes_between_finds_none(house: House) -> None:
    """Its event was read of one study, and its trials would be of the next."""
    house.study("same", "chat")
    store = house.service.studies.store
    seen = house.service.seen_by(Caller("anna", Role.VIEWER, "chat"))
    before = store.latest("same")["same"]
    store.delete(store.study("same"))
    house.study("same", "search")
    with pytest.raises(Exception, match="no study named 'same'"):
        seen.reads._fresh("same", before)
    with pytest.raises(Exception, match="no study named 'same'"):
        house.service.reads._row("same", before)


def test_a_stream_ends_where_its_studys_name_goes_over_to_another_team(house: House) -> None:
    house.study("same", "chat")
    store = house.service.studies.store
    seen = house.service.seen_by(Caller("anna", Role.VIEWER, "chat"))

    async def followed() -> list[bytes]:
        frames = Followers(events_seconds=0.01).events(store, "same")
        found = []
        own: AsyncGenerator[bytes, None] = _own(seen, "same", frames)
        async for frame in own:
            found.append(frame)
            if len(found) == 1:
                # At once, so that the end of the first is not seen by who follows it.
                store.delete(store.study("same"))
                house.study("same", "search")
        return found

    found = asyncio.run(asyncio.wait_for(followed(), 30))
    assert len(found) == 1
    told = [json.loads(line[6:]) for line in found[0].decode().splitlines() if "data: " in line]
    assert [each["state"] for each in told] == ["PENDING"]


def test_who_follows_a_study_to_its_end_is_told_that_it_was_deleted(house: House) -> None:
    house.study("ours", "chat")
    store = house.service.studies.store
    seen = house.service.seen_by(Caller("anna", Role.VIEWER, "chat"))

    async def followed() -> list[bytes]:
        found = []
        frames = Followers(events_seconds=0.01).events(store, "ours")
        async for frame in _own(seen, "ours", frames):
            found.append(frame)
            if len(found) == 1:
                store.delete(store.study("ours"))
        return found

    assert b"DELETED" in asyncio.run(asyncio.wait_for(followed(), 30))[-1]
