"""Studies and trials over HTTP, in process: the application over a true store, jobs as values."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from autotuner.api import reads
from autotuner.api.app import application
from autotuner.api.follow import Followers
from autotuner.api.logfiles import CHUNK_BYTES
from autotuner.api.service import Service, service
from autotuner.api.tokens import Role, issue, revoke, token_file
from autotuner.errors import FailureClass
from autotuner.settings import Settings
from autotuner.study.study import StudyState
from autotuner.study.trial import LoadPoint, Phase, TrialState
from tests.builders import study_content, trial
from tests.unit.test_lease import ago
from tests.unit.test_lifecycle import DEAD, Jobs

YAML = {"Content-Type": "application/yaml"}


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


@pytest.fixture
def served(tmp_path: Path, jobs: Jobs) -> Iterator[Service]:
    made = service(
        Settings(home=tmp_path, service_directory=tmp_path, studies_at_once=2), runner=jobs
    )
    yield made
    made.studies.store.close()


@pytest.fixture
def client(served: Service) -> Iterator[TestClient]:
    with TestClient(application(served), base_url="http://127.0.0.1:8000") as client:
        yield client


def content(name: str = "small", **changes: Any) -> dict[str, Any]:
    model = {"path": "organisation/model"}
    return study_content(
        **{"name": name, "model": model, "space": {"max-num-seqs": [1, 2, 4]}, **changes}
    )


def posted(client: TestClient, name: str = "small", **changes: Any) -> dict[str, Any]:
    answer = client.post("/v1/studies", json=content(name, **changes))
    assert answer.status_code == 201, answer.text
    row: dict[str, Any] = answer.json()
    return row


def measured(served: Service, name: str = "small") -> None:
    """As if it had run: a baseline, a better trial, one that failed, one refused."""

    def points(throughput: float) -> tuple[LoadPoint, ...]:
        return (LoadPoint(0, "D(100,20)", 4, 10.0, {"output_throughput": throughput}),)

    for number, throughput in enumerate((100.0, 150.0)):
        served.studies.store.save(
            name,
            trial(
                number,
                {"max-num-seqs": 2} if number else {},
                objectives={"output_throughput": throughput},
                load_points=points(throughput),
                phases=(Phase("deploy", 0.0, 5.0), Phase("D(100,20) x 4", 5.0, 15.0)),
                directory=f"{served.studies.store.study(name).directory}/trials/{number:04}",
            ),
        )
    died = {"failure": FailureClass.CRASH, "reason": "=it died", "log_tail": "boom"}
    served.studies.store.save(name, trial(2, {"max-num-seqs": 1}, TrialState.INFEASIBLE, **died))
    served.studies.store.set_state(
        name, StudyState.COMPLETE, driver="", started_at=ago(60), ended_at=ago(1)
    )


def test_a_study_is_posted_as_json_as_yaml_and_as_the_predecessors_task(
    client: TestClient,
) -> None:
    posted(client)
    text = "# kept by nobody\nname: other\n" + "\n".join(
        f"{key}: {json.dumps(value)}" for key, value in content().items() if key != "name"
    )
    answer = client.post("/v1/studies", content=text, headers=YAML)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == "/v1/studies/other"
    task = json.loads(
        (Path(__file__).parent.parent / "data/tasks/simple_task.json").read_text(encoding="utf-8")
    )
    task |= {"model": {"id_or_path": "organisation/model"}, "deployment_mode": "docker"}
    converted = client.post("/v1/studies", json=task)
    assert converted.status_code == 201, converted.text
    assert converted.json()["notes"], "each name that changed is said"
    assert client.get("/v1/studies").json()["total"] == 3


def test_a_posted_study_may_start_at_once_or_leaves_nothing(client: TestClient, jobs: Jobs) -> None:
    started = client.post("/v1/studies?start=true", json=content("one"))
    assert started.json()["state"] == "STARTING"
    jobs.refusal = "the cluster is away"
    refused = client.post("/v1/studies?start=true", json=content("two"))
    assert refused.status_code == 503
    assert "the cluster is away" in refused.json()["detail"]
    assert client.get("/v1/studies/two").status_code == 404


def test_every_mistake_is_said_with_its_place(client: TestClient) -> None:
    answer = client.post("/v1/studies", json=content(workload={"scenarios": ["X"]}, nonsense=1))
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "urn:autotuner:problem:config"
    places = {each["where"] for each in problem["errors"]}
    assert {"nonsense", "workload.concurrency"} <= places
    lines = client.post("/v1/studies", content="name: a\nnonsense: 1\n", headers=YAML).json()
    assert ("nonsense", 2) in {(each["where"], each["line"]) for each in lines["errors"]}
    assert client.get("/v1/studies").json()["total"] == 0


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"{"),
        ("application/json", b"\xff"),
        ("application/json", b"[1]"),
        ("application/json", b"[" * 5000 + b"]" * 5000),
        ("application/json", b'{"name": NaN}'),
        ("application/json", b'{"name": "a", "description": "\\ud800"}'),
        ("application/json", b'{"\\ud800": 1}'),
        ("application/yaml", b"name: [a"),
        ("application/yaml", b"name: a\nname: b"),
        (
            "application/yaml",
            b"a: &a [x]\n" + b"".join(b"%c: [*a, *a]\n" % i for i in b"bcdefghijklm"),
        ),
        ("application/yaml", b"presets: [/etc/passwd.yaml]\nname: a\nengine: {kind: vllm}"),
        ("application/yaml", b"name: \x00"),
        ("application/yaml", b"[" * 20000),
        ("application/yaml", b"name: [" + b"1," * 40000 + b"1]"),
        ("application/yaml", b"!!python/object/apply:os.system ['true']"),
        ("application/yaml", b""),
    ],
)
def test_what_is_no_study_is_refused_and_breaks_nothing(
    client: TestClient, kind: str, body: bytes
) -> None:
    for path in ("/v1/studies", "/v1/plan"):
        answer = client.post(path, content=body, headers={"Content-Type": kind})
        assert answer.status_code == 422, answer.text
        assert answer.json()["detail"]


def test_only_studies_as_yaml_or_json_are_read(client: TestClient) -> None:
    answer = client.post("/v1/studies", content="name: a", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415


def test_a_list_is_filtered_sorted_and_paged(client: TestClient, served: Service) -> None:
    for name in ("a-one", "b-two", "c-three"):
        posted(client, name, description=f"about {name[2:]}")
    measured(served, "b-two")

    def names(query: str) -> list[str]:
        return [row["name"] for row in client.get(f"/v1/studies?{query}").json()["items"]]

    assert names("sort=name") == ["a-one", "b-two", "c-three"]
    assert names("sort=-name&per_page=2") == ["c-three", "b-two"]
    assert names("sort=-name&per_page=2&page=2") == ["a-one"]
    assert names("state=COMPLETE") == ["b-two"]
    assert names("state=COMPLETE&state=PENDING&sort=name") == ["a-one", "b-two", "c-three"]
    assert names("q=ABOUT%20THREE") == ["c-three"]
    assert names("engine=vllm") == []
    assert names("engine=simulated&sort=-gain")[0] == "b-two", "those without a gain come last"
    assert client.get("/v1/studies?sort=nonsense").status_code == 422
    assert client.get("/v1/studies?page=0").status_code == 422


def test_a_row_says_how_a_study_stands(client: TestClient, served: Service) -> None:
    posted(client)
    measured(served)
    row = client.get("/v1/studies").json()["items"][0]
    assert row["state"] == "COMPLETE"
    assert row["counts"] == {"COMPLETE": 2, "INFEASIBLE": 1}
    assert [(each["number"], each["state"]) for each in row["blocks"]] == [
        (0, "COMPLETE"),
        (1, "COMPLETE"),
        (2, "INFEASIBLE"),
    ]
    assert row["best"] == {"number": 1, "value": 150.0}
    assert (row["baseline"], row["gain"]) == (100.0, 0.5)
    assert row["eta"] is None
    served.studies.store.set_state("small", StudyState.RUNNING, driver=DEAD, ended_at="")
    assert client.get("/v1/studies/small").json()["state"] == "LOST"


def test_blocks_are_the_first_fifty(client: TestClient, served: Service) -> None:
    posted(client)
    for number in range(53):
        served.studies.store.save("small", trial(number, objectives={"output_throughput": 1.0}))
    row = client.get("/v1/studies/small").json()
    assert (len(row["blocks"]), row["more"]) == (50, 3)


def test_what_is_shown_can_be_posted_again(client: TestClient) -> None:
    posted(client, space={"max-num-seqs": [1, None]}, objectives=["output_throughput"])
    shown = client.get("/v1/studies/small").json()
    assert "null" in shown["yaml"]
    text = shown["yaml"].replace("name: small", "name: again")
    assert client.post("/v1/studies", content=text, headers=YAML).status_code == 201
    again = client.get("/v1/studies/again").json()
    assert {**again["spec"], "name": "small"} == shown["spec"]


def test_an_edited_study_keeps_its_place_and_loses_its_results(
    client: TestClient, served: Service
) -> None:
    posted(client)
    measured(served)
    renamed = client.put("/v1/studies/small", json=content("renamed"))
    assert renamed.status_code == 200, renamed.text
    assert renamed.json()["counts"] == {}
    assert client.get("/v1/studies/small").status_code == 404
    assert client.put("/v1/studies/none", json=content("x")).status_code == 404
    posted(client, "other")
    assert client.put("/v1/studies/renamed", json=content("other")).status_code == 409
    assert client.get("/v1/studies/renamed").status_code == 200


def test_states_are_moved_by_their_verbs(client: TestClient, jobs: Jobs, served: Service) -> None:
    posted(client)

    def post(verb: str) -> int:
        return client.post(f"/v1/studies/small/{verb}").status_code

    assert post("cancel") == post("restart") == post("resume") == 409
    assert post("start") == 202
    assert post("start") == 409
    assert client.delete("/v1/studies/small").status_code == 409
    assert post("cancel") == 202
    assert client.get("/v1/studies/small").json()["state"] == "CANCELLED"
    assert post("resume") == 202
    assert len(jobs.started) == 2
    measured(served)
    assert post("resume") == 409
    assert post("restart") == 202
    assert client.get("/v1/studies/small/trials").json()["items"] == []
    served.studies.store.set_state("small", StudyState.FAILED, driver="")
    assert client.delete("/v1/studies/small").status_code == 204
    assert client.get("/v1/studies/small").status_code == 404


def test_one_study_too_many_is_told_to_come_again(client: TestClient) -> None:
    for name in ("one", "two", "three"):
        posted(client, name)
    answers = [client.post(f"/v1/studies/{name}/start") for name in ("one", "two", "three")]
    assert [each.status_code for each in answers] == [202, 202, 429]
    assert int(answers[2].headers["retry-after"]) > 0
    assert answers[2].json()["type"].endswith("too-many")


def test_duplicates_wait_under_names_of_their_own(client: TestClient) -> None:
    posted(client)
    names = [client.post("/v1/studies/small/duplicate").json()["name"] for _ in range(2)]
    assert names == ["small-copy", "small-copy-2"]


def test_a_plan_stores_nothing(client: TestClient) -> None:
    answer = client.post("/v1/plan?trials=2", json=content())
    assert answer.status_code == 200, answer.text
    plan = answer.json()
    assert (plan["size"], len(plan["launches"])) == (3, 3)
    assert client.get("/v1/studies").json()["total"] == 0
    posted(client)
    assert client.get("/v1/studies/small/plan?trials=2").json()["launches"] == plan["launches"]


def test_both_forms_of_a_study_while_it_is_written(client: TestClient) -> None:
    made = client.post("/v1/convert", json={"content": content()}).json()
    assert made["problems"] == []
    back = client.post("/v1/convert", json={"yaml": made["yaml"]}).json()
    assert back["content"] == content()
    wrong = client.post("/v1/convert", json={"yaml": "name: x\nspace: 3\n"}).json()
    assert wrong["content"] == {"name": "x", "space": 3}
    assert ("space", 2) in {(each["where"], each["line"]) for each in wrong["problems"]}
    broken = client.post("/v1/convert", json={"yaml": "name: [x"}).json()
    assert (broken["content"], broken["yaml"]) == (None, "name: [x")
    assert broken["problems"][0]["line"]
    scalar = client.post("/v1/convert", json={"yaml": "hello"}).json()
    assert scalar["content"] is None
    assert scalar["problems"]


def test_a_report_is_json_and_a_page(client: TestClient, served: Service) -> None:
    posted(client)
    measured(served)
    report = client.get("/v1/studies/small/report").json()
    assert report["standing"] == "COMPLETE"
    assert (report["best"], report["baseline"]) == (1, 0)
    assert report["verdict"] is None or report["verdict"]["statement"]
    page = client.get("/v1/studies/small/report?format=html")
    assert page.headers["content-type"].startswith("text/html")
    assert "'unsafe-inline'" in page.headers["content-security-policy"]
    assert "script" not in page.headers["content-security-policy"]


def test_what_is_read_follows_what_changes(client: TestClient, served: Service) -> None:
    posted(client)
    for number in range(3):
        assert len(client.get("/v1/studies/small/report").json()["trials"]) == number
        assert client.get("/v1/studies/small/trials").json()["total"] == number
        served.studies.store.save("small", trial(number, objectives={"output_throughput": 1.0}))


def test_the_launch_is_exported_in_every_form(client: TestClient, served: Service) -> None:
    posted(client, backend={"kind": "process", "ome": {"model": "tiny", "runtime": "r"}})
    assert client.get("/v1/studies/small/export").status_code == 409
    measured(served)

    def export(form: str, more: str = "") -> str:
        answer = client.get(f"/v1/studies/small/export?format={form}{more}")
        assert answer.status_code == 200, answer.text
        return answer.text

    assert "--max-num-seqs 2" in export("command")
    assert "--max-num-seqs" not in export("command", "&trial=0")
    assert export("docker").startswith("docker run")
    assert "network_mode: host" in export("compose")
    assert "kind: InferenceService" in export("ome")
    assert json.loads(export("json"))["arguments"]
    assert "name: small" in export("study")
    assert client.get("/v1/studies/small/export?trial=77").status_code == 404
    assert client.get("/v1/studies/small/export?format=x").status_code == 422


def test_a_trial_is_shown_with_its_launch_and_its_files(
    client: TestClient, served: Service
) -> None:
    posted(client)
    measured(served)
    directory = Path(served.studies.store.trials("small")[1].directory)
    (directory / "load-0").mkdir(parents=True)
    (directory / "server.log").write_text("ready\n", encoding="utf-8")
    (directory / "plan.json").write_text('{"backend": "process"}', encoding="utf-8")
    seen = {"seconds": [0.0, 1.0], "series": {"kv_usage": [0.1, None]}}
    (directory / "load-0" / "telemetry.json").write_text(json.dumps(seen), encoding="utf-8")
    shown = client.get("/v1/studies/small/trials/1").json()
    assert shown["feasible"] is True
    assert "--max-num-seqs" in shown["argv"]
    assert shown["plan"] == {"backend": "process"}
    assert shown["telemetry"] == [{"load": "D(100,20) x 4", "index": 0, **seen}]
    assert shown["logs"]["server"] == 6
    assert shown["logs"]["benchmark"] is None
    assert "load-0/telemetry.json" in shown["files"]
    assert client.get("/v1/studies/small/trials/9").status_code == 404
    assert client.get("/v1/studies/small/trials/x").status_code == 422


def test_trials_come_as_a_table(client: TestClient, served: Service) -> None:
    posted(client)
    measured(served)
    answer = client.get("/v1/studies/small/trials?format=csv&per_page=1")
    assert "attachment" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == 3, "all of them, whatever the page"
    assert rows[1]["parameter.max-num-seqs"] == "2"
    assert rows[1]["objective.output_throughput"] == "150.0"
    assert rows[1]["D(100,20) x 4 output_throughput"] == "150.0"
    assert rows[2]["reason"] == "'=it died", "no spreadsheet takes it for a formula"
    some = client.get("/v1/studies/small/trials?state=INFEASIBLE&sort=-number").json()
    assert [each["number"] for each in some["items"]] == [2]


def test_a_probe_is_no_column_of_the_csv(client: TestClient, served: Service) -> None:
    posted(client)
    point = LoadPoint(0, "D(100,20)", 4, 10.0, {"output_throughput": 90.0})
    probe = dataclasses.replace(point, index=1, metrics={"output_throughput": 5.0}, probe=True)
    other = dataclasses.replace(probe, index=2, concurrency=64)
    served.studies.store.save("small", trial(0, {}, load_points=(point, probe, other)))
    (row,) = csv.DictReader(io.StringIO(client.get("/v1/studies/small/trials?format=csv").text))
    assert row["D(100,20) x 4 output_throughput"] == "90.0"
    assert not any("x 64" in column for column in row)


def test_logs_are_read_whole_by_their_end_and_as_files(client: TestClient, served: Service) -> None:
    posted(client)
    measured(served)
    study = served.studies.store.study("small")
    Path(study.directory, "study.log").write_text("a\nb\nc\n", encoding="utf-8")
    assert client.get("/v1/studies/small/logs").text == "a\nb\nc\n"
    assert client.get("/v1/studies/small/logs?tail=1").text == "c\n"
    saved = client.get("/v1/studies/small/logs?download=true")
    assert 'filename="small.log"' in saved.headers["content-disposition"]
    followed = client.get("/v1/studies/small/logs?follow=true").text
    assert 'data: ["a", "b", "c"]' in followed.replace('","', '", "')
    assert "event: end" in followed
    story = client.get("/v1/studies/small/trials/2/logs/trial").text
    assert "INFEASIBLE crash" in story
    assert client.get("/v1/studies/small/trials/2/logs/trial?tail=0").text == ""
    told = client.get("/v1/studies/small/trials/2/logs/trial?follow=true").text
    assert "event: end" in told
    assert client.get("/v1/studies/small/trials/1/logs/server").text == ""
    assert client.get("/v1/studies/small/trials/2/logs/server").status_code == 404
    assert client.get("/v1/studies/small/trials/1/logs/passwd").status_code == 422


def test_no_link_leads_out_of_a_studys_directory(client: TestClient, served: Service) -> None:
    posted(client)
    measured(served)
    directory = Path(served.studies.store.trials("small")[1].directory)
    directory.mkdir(parents=True)
    (directory / "server.log").symlink_to("/etc/passwd")
    answer = client.get("/v1/studies/small/trials/1/logs/server")
    assert "root:" not in answer.text
    for name in ("..", "%2e%2e", "..%2f..%2fetc", "small%00"):
        assert client.get(f"/v1/studies/{name}/logs").status_code in (404, 422)
        assert client.get(f"/static/{name}/{name}/pyproject.toml").status_code in (404, 422)


def test_what_is_beside_a_log_is_guarded_as_the_log_is(
    client: TestClient, served: Service, tmp_path: Path
) -> None:
    posted(client)
    measured(served)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "plan.json").write_text('{"secret": 1}')
    (elsewhere / "telemetry.json").write_text('{"seconds": [0.0], "series": {"secret": [1.0]}}')
    directory = Path(served.studies.store.trials("small")[1].directory)
    (directory / "load-0").mkdir(parents=True)
    plan, telemetry = directory / "plan.json", directory / "load-0" / "telemetry.json"

    def shown() -> dict[str, Any]:
        answer = client.get("/v1/studies/small/trials/1")
        assert answer.status_code == 200
        found: dict[str, Any] = answer.json()
        return found

    plan.write_text('{"backend": "process"}')
    telemetry.write_text('{"seconds": [0.0], "series": {}}')
    (directory / "server.log").write_text("12345")
    known = shown()
    assert (known["plan"], known["logs"]["server"]) == ({"backend": "process"}, 5)
    assert known["telemetry"][0]["seconds"] == [0.0]
    assert known["files"] == ["load-0/telemetry.json", "plan.json", "server.log"]
    for path in (plan, telemetry, directory / "server.log"):
        path.unlink()
        path.symlink_to(elsewhere / ("plan.json" if path.suffix == ".log" else path.name))
    (directory / "etc").symlink_to("/etc")
    (directory / "round").symlink_to(directory / "round")
    linked = shown()
    assert (linked["plan"], linked["telemetry"], linked["files"]) == (None, [], [])
    assert linked["logs"]["server"] is None
    (directory / "server.log").unlink()
    (directory / "server.log").symlink_to(directory / "server.log")
    assert client.get("/v1/studies/small/trials/1/logs/server").status_code == 404
    plan.unlink()
    os.mkfifo(plan)
    telemetry.unlink()
    telemetry.write_text("[" * 100_000)
    hostile = shown()
    assert (hostile["plan"], hostile["telemetry"]) == (None, [])


def test_a_trial_whose_directory_is_elsewhere_has_no_files(
    client: TestClient, served: Service, tmp_path: Path
) -> None:
    posted(client)
    (tmp_path / "plan.json").write_text("{}")
    served.studies.store.save("small", trial(1, directory=str(tmp_path)))
    shown = client.get("/v1/studies/small/trials/1").json()
    assert (shown["plan"], shown["files"]) == (None, [])


def test_events_are_the_past_and_go_on_where_one_was(client: TestClient, served: Service) -> None:
    posted(client)
    measured(served)
    past = client.get("/v1/studies/small/events?follow=false").text
    assert [line[4:] for line in past.splitlines() if line.startswith("id: ")] == list("12345")
    rest = client.get("/v1/studies/small/events?follow=false", headers={"Last-Event-ID": "3"})
    assert [line[4:] for line in rest.text.splitlines() if line.startswith("id: ")] == ["4", "5"]
    assert client.get("/v1/studies/none/events").status_code == 404


def test_a_prior_that_is_not_there_is_said_at_once(client: TestClient) -> None:
    answer = client.post("/v1/studies", json=content(prior={"study": "nobodys"}))
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["where"] == "prior.study"
    assert client.get("/v1/studies").json()["total"] == 0


def test_no_answer_tells_where_the_store_is(client: TestClient, served: Service) -> None:
    for method, path in (("POST", "start"), ("POST", "cancel"), ("GET", "plan"), ("GET", "export")):
        answer = client.request(method, f"/v1/studies/nobodys/{path}")
        assert answer.status_code == 404
        assert "sqlite" not in answer.text


def test_a_text_that_stands_for_far_more_is_refused_in_no_time(client: TestClient) -> None:
    levels = "".join(f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in itertools.pairwise("abcdefg"))
    text = f"a: &a [{'1, ' * 5000}1]\n{levels}"
    answer = client.post("/v1/convert", json={"yaml": text})
    assert "values" in answer.json()["problems"][0]["problem"]
    answer = client.post("/v1/convert", json={"content": {"name": "x" * 50_000}})
    assert "characters" in answer.json()["problems"][0]["problem"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: &a [*a]", "stands for what it is in"),
        ("a: &a {<<: *a}", "stands for what it is in"),
        ("a: &a 1\nb: &a {c: [*a]}", "stands for what it is in"),
        ("a: *nobody", "undefined alias"),
        (f"a: &a [{'1, ' * 8000}1]\nb: *a", ""),
        (f"a: &a [{'1, ' * 8000}1]\nb: *a\nc: *a", "20,000 values"),
        (f"a: &a 1\nb: [{'*a, ' * 21}]", "20 aliases"),
        (f"a: {'[' * 45}{']' * 45}", "40 levels"),
    ],
)
def test_what_a_text_may_hold(client: TestClient, text: str, problem: str) -> None:
    answer = client.post("/v1/convert", json={"yaml": text}).json()
    said = [each["problem"] for each in answer["problems"]]
    assert (problem in said[0]) if problem else (answer["content"]["b"][0] == 1), said


@pytest.mark.parametrize("count", [45, 400, 900])
def test_levels_of_json_are_counted_too(client: TestClient, count: int) -> None:
    deep: Any = 1
    for _ in range(count):
        deep = [deep]
    answer = client.post("/v1/convert", json={"content": {"a": deep}})
    problems = [each["problem"] for each in answer.json().get("problems", [])]
    assert (answer.status_code, problems) == (200, ["has more than 40 levels"]), answer.text


def test_a_number_that_browsers_round_is_refused_with_its_place(client: TestClient) -> None:
    said = json.dumps(content())
    huge = said.replace('"max-num-seqs": [1,', f'"max-num-seqs": [0x{"f" * 5000},')
    assert huge != said
    answer = client.post("/v1/studies", content=huge, headers=YAML)
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert (error["where"], "2^53" in error["problem"]) == ("space.max-num-seqs.0", True)
    assert "sqlite" not in answer.text


def test_a_stream_ends_once_its_token_is_revoked(client: TestClient, served: Service) -> None:
    posted(client)
    path = token_file(served.settings)
    tokens = {name: issue(path, name, Role.OPERATOR) for name in ("anna", "ci")}
    app = application(served)
    followers = app.state.followers = Followers(events_seconds=0.01, keep_alive=0.01)

    def revoked() -> None:
        while not followers.count:
            time.sleep(0.01)
        revoke(path, "ci")

    headers = {"Authorization": f"Bearer {tokens['ci']}"}
    with TestClient(app, base_url="http://127.0.0.1:8000", headers=headers) as ci:
        other = threading.Thread(target=revoked)
        other.start()
        told = ci.get("/v1/studies/small/events")  # returns when the stream ends
        other.join()
        assert (told.status_code, told.text.count("event: study")) == (200, 1)
        assert ci.get("/v1/studies/small/events").status_code == 401
    assert followers.count == 0


def test_a_story_is_followed_from_its_end(client: TestClient, served: Service) -> None:
    posted(client)
    measured(served)
    served.studies.store.save("small", trial(1, objectives={"output_throughput": 1.0}))
    told = client.get("/v1/studies/small/trials/1/logs/trial?follow=true&tail=1").text
    assert told.count("event: lines") == 1
    whole = client.get("/v1/studies/small/trials/1/logs/trial?follow=true").text
    assert whole.count("event: lines") == 2


def test_of_many_studies_only_some_are_kept_with_their_trials(
    client: TestClient, served: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "KEPT_AT_MOST", 2)
    for number in range(5):
        posted(client, f"study-{number}")
        measured(served, f"study-{number}")
    rows = {row["name"]: row for row in client.get("/v1/studies").json()["items"]}
    assert len(served.reads._kept) == 2
    shown = [rows[f"study-{n}"]["best"] for n in range(5)]
    assert shown == [{"number": 1, "value": 150.0}] * 5
    assert client.get("/v1/studies/study-0/report").json()["best"] == 1


def test_a_list_that_was_tightened_holds_for_what_is_stored(
    served: Service, jobs: Jobs, tmp_path: Path
) -> None:
    allow = tmp_path / "allow.yaml"
    settings = served.settings.model_copy(update={"allow": allow})
    app = application(dataclasses.replace(served, settings=settings))
    loose = "models: [organisation/*]\n"
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        allow.write_text(loose)
        posted(client)
        allow.write_text("models: [others/*]\n")
        for verb in ("start", "duplicate"):
            refused = client.post(f"/v1/studies/small/{verb}")
            assert refused.status_code == 422
            assert refused.json()["errors"][0]["where"] == "model.path"
        measured(served)
        served.studies.store.set_state("small", StudyState.CANCELLED)
        for verb in ("resume", "restart"):
            assert client.post(f"/v1/studies/small/{verb}").status_code == 422
        assert jobs.started == []
        assert len(client.get("/v1/studies/small/trials").json()["items"]) == 3
        assert client.get("/v1/studies").json()["total"] == 1
        assert client.post("/v1/studies/nobodys/start").status_code == 404
        allow.write_text(loose)
        assert client.post("/v1/studies/small/resume").status_code == 202


@pytest.fixture
def telling(served: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Secrets of this service, told by a server that runs, and where its log is."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-5f1e0c")
    given = served.settings.model_copy(
        update={
            "hf_token": SecretStr("hf_5f1e0c"),
            "https_proxy": SecretStr('http://me:pass-"5f1e0c@proxy:1'),
        }
    )
    app = application(dataclasses.replace(served, settings=given))
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        posted(client)
        measured(served)
        directory = Path(served.studies.store.trials("small")[1].directory)
        directory.mkdir(parents=True)
        text = 'first\nHF_TOKEN=hf_5f1e0c AWS=aws-5f1e0c\nhttp://me:pass-"5f1e0c@proxy:1\nlast'
        log = directory / "server.log"
        log.write_bytes(b"x" * (CHUNK_BYTES - 10) + text.encode() + b" \xff")
        yield "".join(
            client.get(f"/v1/studies/small/trials/1/logs/server{query}").text
            for query in ("", "?tail=2", "?follow=true", "?download=true")
        )


def test_no_log_shows_a_secret_of_the_service(telling: str) -> None:
    assert telling.count("last") == 4
    assert telling.count("HF_TOKEN=*** AWS=***") == 4
    assert telling.count("first") == 3, "the line that is read in two pieces is whole"
    assert "5f1e0c" not in telling
