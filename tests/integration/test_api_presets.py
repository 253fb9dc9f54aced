"""Presets over HTTP: kept as files that the command line reads too; shipped ones never change."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from ruamel.yaml import YAML

from autotuner.api.allow_file import Allowance
from autotuner.api.app import application
from autotuner.api.presets import Presets, checked, usable
from autotuner.api.service import service
from autotuner.api.tokens import Role, issue, token_file
from autotuner.errors import InfrastructureError, StudyStateError
from autotuner.settings import Settings
from autotuner.study.presets import Preset, find_preset, presets

SHIPPED = "vllm/throughput"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def client(home: Path) -> Iterator[TestClient]:
    made = service(Settings(home=home))
    with TestClient(application(made), base_url="http://127.0.0.1:8000") as client:
        yield client
    made.studies.store.close()


def preset(name: str = "team/long", **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "why": "Long prompts.",
        "engine": "vllm",
        "category": "team",
        "parameters": {"max-num-seqs": [64, 128]},
        **changes,
    }


def own(directory: Path) -> Presets:
    return Presets(directory, Allowance.everything)


def shown(client: TestClient, **query: str) -> dict[str, Any]:
    found = client.get("/v1/presets", params=query)
    assert found.status_code == 200
    return {each["name"]: each for each in found.json()["items"]}


def test_the_shipped_ones_are_there_from_the_start(client: TestClient) -> None:
    answer = client.get("/v1/presets").json()
    assert [each["name"] for each in answer["items"]] == sorted(each.name for each in presets())
    assert not any(each["own"] or each["shadows"] for each in answer["items"])
    assert {"performance", "memory"} <= set(answer["categories"])
    assert answer["problems"] == []


def test_they_are_chosen_by_engine_and_category(client: TestClient) -> None:
    client.post("/v1/presets", json=preset("every", engine=None))
    for_vllm = shown(client, engine="vllm")
    assert "every" in for_vllm
    assert {each["engine"] for each in for_vllm.values()} == {"vllm", None}
    of_memory = shown(client, category="memory")
    assert {each["category"] for each in of_memory.values()} == {"memory"}


def test_one_is_kept_as_a_file_that_the_command_line_reads(client: TestClient, home: Path) -> None:
    ranged = {"type": "int", "low": 1, "high": 64, "log": True}
    parameters = {"max_num_seqs": [64, 128.5, "auto", None, True], "--stream-interval": ranged}
    made = client.post("/v1/presets", json=preset(parameters=parameters))
    assert made.status_code == 201
    assert made.headers["location"] == "/v1/presets/team/long"
    kept = {"max-num-seqs": [64, 128.5, "auto", None, True], "stream-interval": ranged}
    assert made.json() == preset(parameters=kept, own=True, shadows=False)
    assert client.get("/v1/presets/team/long").json() == made.json()
    found = find_preset("team/long", [home / "presets"])
    assert (found.why, found.engine, dict(found.parameters)) == ("Long prompts.", "vllm", kept)
    assert [p.name for p in (home / "presets" / "team").iterdir()] == ["long.yaml"]


def test_a_name_is_taken_once(client: TestClient) -> None:
    client.post("/v1/presets", json=preset())
    again = client.post("/v1/presets", json=preset(why="Other."))
    assert again.status_code == 409
    assert again.headers["content-type"] == "application/problem+json"
    assert client.get("/v1/presets/team/long").json()["why"] == "Long prompts."


def test_an_own_one_goes_before_a_shipped_one_and_never_changes_it(client: TestClient) -> None:
    was = client.get(f"/v1/presets/{SHIPPED}").json()
    changed = client.patch(f"/v1/presets/{SHIPPED}", json={"why": "Ours."})
    assert changed.status_code == 200
    assert changed.json() == {**was, "why": "Ours.", "own": True, "shadows": True}
    assert shown(client)[SHIPPED]["why"] == "Ours."
    assert client.delete(f"/v1/presets/{SHIPPED}").status_code == 204
    assert client.get(f"/v1/presets/{SHIPPED}").json() == was
    refused = client.delete(f"/v1/presets/{SHIPPED}")
    assert refused.status_code == 409
    assert "comes with autotuner" in refused.json()["detail"]


def test_a_patch_changes_only_what_it_says(client: TestClient) -> None:
    made = client.post("/v1/presets", json=preset()).json()
    for changes in ({"why": "New."}, {"engine": None}, {"parameters": {"seed": [1]}}, {}):
        made = {**made, **changes}
        assert client.patch("/v1/presets/team/long", json=changes).json() == made
    refused = client.patch("/v1/presets/team/long", json={"parameters": None})
    assert refused.status_code == 422
    assert client.get("/v1/presets/team/long").json() == made


def test_a_put_says_it_whole(client: TestClient) -> None:
    client.post("/v1/presets", json=preset())
    put = client.put("/v1/presets/team/long", json={"parameters": {"seed": [1, 2]}})
    assert put.status_code == 200
    whole: dict[str, Any] = {
        "why": "",
        "engine": None,
        "category": "general",
        "parameters": {"seed": [1, 2]},
    }
    assert put.json() == preset(**whole, own=True, shadows=False)
    assert client.put("/v1/presets/none", json={"parameters": {}}).status_code == 404


def test_one_can_be_renamed(client: TestClient, home: Path) -> None:
    client.post("/v1/presets", json=preset())
    client.post("/v1/presets", json=preset("other"))
    taken = client.patch("/v1/presets/team/long", json={"name": "other"})
    assert taken.status_code == 409
    renamed = client.patch("/v1/presets/team/long", json={"name": "longer"})
    assert renamed.json()["name"] == "longer"
    assert client.get("/v1/presets/team/long").status_code == 404
    assert not (home / "presets" / "team").exists(), "an empty directory was left"


def test_what_is_gone_is_not_found(client: TestClient) -> None:
    client.post("/v1/presets", json=preset())
    assert client.delete("/v1/presets/team/long").status_code == 204
    for send in (client.get, client.delete):
        assert send("/v1/presets/team/long").status_code == 404
    assert client.patch("/v1/presets/team/long", json={"why": ""}).status_code == 404


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "../x", "a/../b", "/etc/x", "a//b", "a/", ".hidden", "a/.b", "A", "a b",
        "a\\b", "a\0", "a\n", "x.yaml", "x.json", "é", "export", "import", "merge", "a" * 129,
    ],
)  # fmt: skip
def test_no_name_leads_out_of_the_directory(client: TestClient, home: Path, name: str) -> None:
    assert not usable(name)
    refused = client.post("/v1/presets", json=preset(name))
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["where"] == "name"
    client.post("/v1/presets", json=preset("mine"))
    assert client.patch("/v1/presets/mine", json={"name": name}).status_code == 422
    files = [path.name for path in home.rglob("*") if path.suffix == ".yaml"]
    assert files == ["mine.yaml"]


@pytest.mark.parametrize("name", ["a", "a/b/c", "0.5-x_y", "a.b/c"])
def test_these_are_names(client: TestClient, name: str) -> None:
    assert client.post("/v1/presets", json=preset(name)).status_code == 201
    assert client.get(f"/v1/presets/{name}").json()["name"] == name


def test_a_link_does_not_lead_out_of_the_directory(client: TestClient, home: Path) -> None:
    (home / "presets").mkdir(parents=True)
    (home / "elsewhere").mkdir()
    (home / "presets" / "out").symlink_to(home / "elsewhere")
    assert client.post("/v1/presets", json=preset("out/x")).status_code == 404
    assert list((home / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"engine": "vlm"}, "engine"),
        ({"parameters": {"x": {"type": "int", "low": 9, "high": 1}}}, "parameters"),
        ({"parameters": {"x": {"type": "what"}}}, "parameters"),
        ({"parameters": {"env:HF_TOKEN": ["x"]}}, "parameters"),
    ],
)
def test_what_is_no_preset_is_refused_with_its_place(
    client: TestClient, changes: dict[str, Any], where: str
) -> None:
    refused = client.post("/v1/presets", json=preset(**changes))
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["where"].startswith(where)


@pytest.mark.parametrize(
    "body",
    [
        b'{"name": "a", "parameters": {"x": [NaN]}}',
        b'{"name": "a", "parameters": {"x": ["\\ud800"]}}',
        b'{"name": "a", "parameters": {"\\ud800": ["x"]}}',
        b'{"name": "a", "parameters": {"x": ["\\u0000"]}, "why": "\\u0085\\u2028"}',
        b'{"name": "a", "parameters": {"x": [1]}, "unknown": 1}',
        b'{"name": "a"}',
        b"[]",
        b"",
    ],
)
def test_nothing_that_is_sent_breaks_it(client: TestClient, body: bytes) -> None:
    """What cannot be said again is refused; what is kept is what was sent."""
    for path in ("/v1/presets", "/v1/presets/import"):
        answer = client.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (200, 201, 422)
        client.delete("/v1/presets/a")
    merged = client.post(
        "/v1/presets/merge",
        content=b'{"names": [], "space": {"x": [NaN, "\\ud800"]}}',
        headers={"content-type": "application/json"},
    )
    assert merged.status_code == 422


def test_what_goes_out_comes_in_again(client: TestClient) -> None:
    parameters = {"x": [1, "two\nlines: #", None, 1.5, True], "y": {"type": "choice", "values": []}}
    first, second = preset("a", parameters=parameters), preset("b", engine=None, why="")
    for each in (first, second):
        assert client.post("/v1/presets", json=each).status_code == 201
    query = {"name": ["a", "b"]}
    as_yaml = client.get("/v1/presets/export", params=query)
    assert as_yaml.headers["content-type"].startswith("application/yaml")
    assert as_yaml.headers["content-disposition"] == 'attachment; filename="presets.yaml"'
    assert YAML(typ="safe", pure=True).load(as_yaml.text) == [first, second]
    as_json = client.get("/v1/presets/export", params={**query, "format": "json"})
    assert as_json.json() == [first, second]
    assert client.get("/v1/presets/export").text == as_yaml.text, "every own one by default"
    for name in ("a", "b"):
        client.delete(f"/v1/presets/{name}")
    for file in (as_yaml, as_json):
        taken = client.post(
            "/v1/presets/import",
            params={"replace": "true"},
            content=file.content,
            headers={"content-type": file.headers["content-type"]},
        )
        assert taken.status_code == 200
        owned = {"own": True, "shadows": False}
        assert taken.json() == {"items": [{**first, **owned}, {**second, **owned}], "skipped": []}
    assert client.get("/v1/presets/export", params={"name": "none"}).status_code == 404


def test_what_is_there_is_skipped_unless_it_is_to_be_replaced(client: TestClient) -> None:
    client.post("/v1/presets", json=preset("a"))
    given = [preset("a", why="New."), preset(SHIPPED, why="New."), preset("b", why="New.")]
    first = client.post("/v1/presets/import", json=given).json()
    assert [each["name"] for each in first["items"]] == ["b"]
    assert first["skipped"] == ["a", SHIPPED]
    assert client.get("/v1/presets/a").json()["why"] == "Long prompts."
    second = client.post("/v1/presets/import?replace=true", json=given).json()
    assert [each["why"] for each in second["items"]] == ["New."] * 3
    assert second["skipped"] == []
    assert shown(client)[SHIPPED]["shadows"]


def test_of_a_file_with_a_mistake_nothing_is_kept(client: TestClient) -> None:
    for given, where in (
        ([preset("a"), preset("b", engine="x")], "[1].engine"),
        ([preset("a"), preset("a")], "[1]"),
        ([preset("a"), 3], "[1]"),
        ({**preset(), "name": 7}, "name"),
    ):
        refused = client.post("/v1/presets/import", json=given)
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["where"] == where
    assert not any(each["own"] for each in shown(client).values())
    other = client.post("/v1/presets/import", content="x", headers={"content-type": "text/plain"})
    assert other.status_code == 415


def test_several_become_one_space(client: TestClient) -> None:
    client.post("/v1/presets", json=preset("a", parameters={"x": [1, 2], "y": [1]}))
    client.post("/v1/presets", json=preset("b", parameters={"x": [2, 3], "z": [True]}))

    def merged(**more: Any) -> Any:
        answer = client.post("/v1/presets/merge", json={"names": ["a", "b"], **more})
        assert answer.status_code == 200
        return answer.json()

    assert merged() == {"parameters": {"x": [1, 2, 3], "y": [1], "z": [True]}, "conflicts": []}
    cut = merged(how="intersection")
    assert cut["parameters"] == {"x": [2]}
    assert cut["conflicts"] == ["y: only in a; left out", "z: only in b; left out"]
    assert merged(how="last_wins")["parameters"]["x"] == [2, 3]
    assert merged(space={"X": [9], "x": [7]})["parameters"]["x"] == [7]
    for wrong in (
        {"names": ["a", "none"]},
        {"names": ["a", "sglang/latency"]},
        {"names": ["a"], "space": {"x": {"type": "what"}}},
        {"names": ["/etc/passwd.yaml"]},
        {"names": ["a"], "how": "any"},
    ):
        assert client.post("/v1/presets/merge", json=wrong).status_code == 422


def test_a_broken_file_hides_only_itself(client: TestClient, home: Path) -> None:
    client.post("/v1/presets", json=preset("a"))
    (home / "presets" / "broken.yaml").write_text("parameters: [1")
    (home / "presets" / "mine.json").write_text(json.dumps(preset("mine")))
    (home / "presets" / "notes.txt").write_text("no preset")
    answer = client.get("/v1/presets").json()
    assert {each["name"] for each in answer["items"] if each["own"]} == {"a", "mine"}
    (problem,) = answer["problems"]
    assert "broken.yaml" in problem
    assert client.get("/v1/presets/broken").status_code == 422
    mended = client.put("/v1/presets/broken", json={"parameters": {"x": [1]}})
    assert mended.status_code == 200
    assert client.get("/v1/presets").json()["problems"] == []
    client.patch("/v1/presets/mine", json={"why": "Ours."})
    assert sorted(p.name for p in (home / "presets").glob("mine*")) == ["mine.yaml"]


def test_a_file_that_a_person_changes_is_read_again(client: TestClient, home: Path) -> None:
    client.post("/v1/presets", json=preset("a"))
    path = home / "presets" / "a.yaml"
    path.write_text(path.read_text().replace("Long prompts.", "Longer prompts."))
    assert client.get("/v1/presets/a").json()["why"] == "Longer prompts."


def test_of_many_who_create_the_same_one_does(tmp_path: Path) -> None:
    kept, refused = [], []

    def create(number: int) -> None:
        try:
            kept.append(own(tmp_path).create(checked(preset("a", why=str(number)))))
        except StudyStateError:
            refused.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert (len(kept), len(refused)) == (1, 7)
    assert own(tmp_path).find("a") == kept[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "a.yaml"]


def test_several_are_kept_all_or_none(tmp_path: Path) -> None:
    given = [checked(preset(name, why="New.")) for name in ("a", "b", "c/d")]
    own(tmp_path).create(checked(preset("a")))
    (tmp_path / "b.yaml").mkdir()
    with pytest.raises(InfrastructureError):
        own(tmp_path).take(given, replace=True)
    found, _ = own(tmp_path).all()
    assert [(each.preset.name, each.preset.why) for each in found if each.own] == [
        ("a", "Long prompts.")
    ]
    assert not list(tmp_path.rglob("*.new"))
    (tmp_path / "b.yaml").rmdir()
    kept, _ = own(tmp_path).take(given, replace=True)
    assert [each.preset.why for each in kept] == ["New."] * 3


@pytest.fixture
def strict(home: Path) -> Iterator[TestClient]:
    """An operator with a token, of whom nobody says what they may choose."""
    settings = Settings(home=home)
    token = issue(token_file(settings), "anna", Role.OPERATOR)
    made = service(settings)
    headers = {"Authorization": f"Bearer {token}"}
    here = "http://127.0.0.1:8000"
    with TestClient(application(made), base_url=here, headers=headers) as client:
        yield client
    made.studies.store.close()


EVIL: dict[str, dict[str, Any]] = {
    "a switch": {"trust-remote-code": [True]},
    "a class": {"middleware": ["evil.Mod"]},
    "by another spelling": {"Trust_Remote_Code": [False, True]},
    "the second value": {"load-format": ["auto", "pt"]},
    "a variable": {"env:LD_PRELOAD": ["/tmp/evil.so"]},
    "a flag in a list": {"cuda-graph-sizes": [["--trust-remote-code"]]},
    "unheard of": {"no-such-flag": [1]},
    "a condition apart": {"middleware": {"values": ["evil.Mod"], "when": {"max-num-seqs": [64]}}},
}


@pytest.mark.parametrize("engine", ["vllm", None])
@pytest.mark.parametrize("what", EVIL)
def test_no_way_in_takes_what_no_study_from_afar_may_choose(
    strict: TestClient, home: Path, what: str, engine: str | None
) -> None:
    parameters = {"max-num-seqs": [64], **EVIL[what]}
    assert strict.post("/v1/presets", json=preset("mine")).status_code == 201
    evil = preset(SHIPPED, parameters=parameters, engine=engine)
    whole = {key: value for key, value in evil.items() if key != "name"}
    answers = [
        strict.post("/v1/presets", json=evil),
        strict.put(f"/v1/presets/{SHIPPED}", json=whole),
        strict.patch("/v1/presets/mine", json={"parameters": parameters, "engine": engine}),
        strict.patch(f"/v1/presets/{SHIPPED}", json={"parameters": parameters}),
        strict.post("/v1/presets/import?replace=true", json=[preset("other"), evil]),
    ]
    assert [each.status_code for each in answers] == [422] * 5, [each.text for each in answers]
    assert all("may not be chosen" in each.json()["detail"] for each in answers)
    places = [each.json()["errors"][0]["where"].partition(".")[0] for each in answers]
    assert places == ["parameters"] * 4 + [f"{SHIPPED}: parameters"]
    assert [p.name for p in (home / "presets").rglob("*.yaml")] == ["mine.yaml"]
    assert strict.get("/v1/presets/mine").json()["parameters"] == {"max-num-seqs": [64, 128]}


def test_what_the_operator_names_may_be_in_a_preset(strict: TestClient, home: Path) -> None:
    strict.app.state.service.settings.allow = None  # type: ignore[attr-defined]
    allow = home / "allow.yaml"
    allow.write_text("flags: [trust-remote-code]\nenvironment: [MY_OWN]\n")
    given = preset(parameters={"trust-remote-code": [True], "env:MY_OWN": ["1"]})
    assert strict.post("/v1/presets", json=given).status_code == 422
    strict.app.state.service.settings.allow = allow  # type: ignore[attr-defined]
    assert strict.post("/v1/presets", json=given).status_code == 201


@pytest.mark.parametrize("shipped", presets(), ids=lambda each: each.name)
def test_whatever_comes_with_autotuner_may_be_kept_as_ones_own(
    strict: TestClient, shipped: Preset
) -> None:
    kept = strict.patch(f"/v1/presets/{shipped.name}", json={"why": "Ours."})
    assert kept.status_code == 200, kept.text


def levels(count: int) -> Any:
    content: Any = 1
    for _ in range(count):
        content = [content]
    return content


@pytest.mark.parametrize("count", [45, 400, 900])
def test_levels_without_end_are_refused_wherever_they_come(client: TestClient, count: int) -> None:
    parameters = {"max-num-seqs": levels(count)}
    for path, body in (
        ("/v1/presets", preset(parameters=parameters)),
        ("/v1/presets/merge", {"names": [], "space": parameters}),
        ("/v1/presets/import", preset(parameters=parameters)),
    ):
        answer = client.post(path, json=body)
        assert (answer.status_code, "levels" in answer.text) == (422, True), (path, answer.text)


def test_a_number_that_browsers_round_is_refused(client: TestClient) -> None:
    for number, status in ((2**53, 201), (2**53 + 1, 422), (-(2**64), 422)):
        body = preset(parameters={"seed": [number]}, engine=None)
        assert client.post("/v1/presets", json=body).status_code == status
