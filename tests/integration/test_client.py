"""The client and its verbs against the service itself, whose studies run over a table."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvicorn
from click.testing import CliRunner

from autotuner import remote
from autotuner.api.app import application
from autotuner.api.service import service
from autotuner.benchmarks.replay import REPLAY
from autotuner.client import Client, Detail, Row
from autotuner.errors import ConfigError, MissingStudyError, StudyStateError
from autotuner.execution.virtual import replay_study
from autotuner.job import checked
from autotuner.settings import Settings
from autotuner.store import Store
from autotuner.studies import Studies
from tests.processes import wait_for
from tests.replays import table

FLAG = "max-num-seqs"
ROWS = [
    {FLAG: value, "output_throughput": speed, "ttft_p99": 0.1, "tpot_p50": 0.01}
    for value, speed in ((None, 80), (8, 90), (16, 150), (32, 120))
]


@dataclass
class Threads:
    """Runs studies in threads of this process."""

    directory: Path
    running: dict[str, threading.Thread] = field(default_factory=dict)

    def start(self, study: str, job: str) -> None:
        thread = threading.Thread(target=self._run, args=(study, job))
        self.running[job] = thread
        thread.start()

    def stop(self, job: str) -> None:
        raise NotImplementedError

    def alive(self, job: str) -> bool:
        return job in self.running and self.running[job].is_alive()

    def _run(self, name: str, job: str) -> None:
        settings = Settings(home=self.directory)
        store = Store(settings.store_url)
        study = Studies(store, settings.studies).resumable(name, job=job)
        work = checked(study.spec)
        replay_study(study, store, work.searcher(), work.rules, REPLAY)
        store.close()


@contextmanager
def serving(home: Path, port: int = 0) -> Iterator[str]:
    """The service on a port of this machine; its address."""
    runner = Threads(home)
    served = service(Settings(home=home), runner=runner)
    config = uvicorn.Config(
        application(served),
        host="127.0.0.1",
        port=port,
        log_level="error",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert wait_for(lambda: server.started, 10, every=0.02)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        for each in runner.running.values():
            each.join()
        served.studies.store.close()


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with serving(tmp_path) as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address, timeout=10) as client:
        yield client


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rows = table(tmp_path / "table.csv", ROWS)
    study = tmp_path / "study.yaml"
    study.write_text(
        f"""\
name: small  # and a comment
model: {{path: /models/tiny}}
engine: {{kind: simulated}}
workload: {{scenarios: ["D(100,20)"], concurrency: [4]}}
space: {{{FLAG}: [8, 16, 32]}}
search: {{kind: grid}}
benchmark: {{kind: replay, table: {rows}}}
"""
    )
    return study


def test_a_study_from_submission_to_verdict(client: Client, file: Path) -> None:
    row = client.submit(file)
    assert (row["name"], row["engine"]) == ("small", "simulated")
    heard: list[int] = []
    report = client.wait("small", on_event=lambda event: heard.append(event.number))
    assert report["study"]["state"] == "COMPLETE"
    assert report["winner"] == client.study("small")["best"]["number"]  # type: ignore[index]
    assert heard == list(range(1, heard[-1] + 1))
    assert heard == [event.number for event in client.events("small", follow=False)]
    trials = client.trials("small")
    assert [trial["number"] for trial in trials] == list(range(len(trials)))
    best = client.trial("small", report["winner"])
    assert best["parameters"] == {FLAG: 16}
    assert f"--{FLAG}=16" in client.export("small").replace(" ", "=")
    assert "<html" in client.report_page("small")
    assert [each["name"] for each in client.studies(state="COMPLETE")] == ["small"]
    assert client.studies(state="FAILED") == []


def test_the_life_of_a_study(client: Client, file: Path) -> None:
    assert client.submit(file, start=False)["state"] == "PENDING"
    with pytest.raises(StudyStateError, match="there already is a study"):
        client.submit(file)
    plan = client.plan(name="small")
    assert plan["size"] == 3
    assert client.plan(file)["size"] == 3
    assert client.edit("small", file.read_text().replace("[8, 16, 32]", "[8, 16]"))
    assert client.study("small")["spec"]["space"] == {FLAG: [8, 16]}
    client.start("small")
    client.wait("small")
    assert client.restart("small")["name"] == "small"
    client.wait("small")
    copy = client.duplicate("small")
    assert (copy["name"], copy["state"]) == ("small-copy", "PENDING")
    client.delete("small-copy")
    with pytest.raises(MissingStudyError, match="small-copy"):
        client.study("small-copy")
    with pytest.raises(StudyStateError, match="COMPLETE"):
        client.cancel("small")


def test_rows_are_what_they_are_said_to_be(client: Client, file: Path) -> None:
    made = client.submit(file, start=False)
    assert set(made) == set(Row.__annotations__)
    (listed,) = client.studies()
    assert set(listed) == set(Row.__annotations__) - {"notes"}
    assert set(client.study("small")) == set(Detail.__annotations__) - {"notes"}


def test_ones_own_presets(client: Client) -> None:
    mine = {"name": "mine", "why": "to see", "engine": "vllm", "parameters": {FLAG: [8, 16]}}
    client.create_preset(mine)
    assert client.preset("mine")["own"]
    assert client.edit_preset("mine", {"parameters": {FLAG: [32]}})["why"] == "to see"
    text = client.export_presets(["mine"])
    client.delete_preset("mine")
    with pytest.raises(MissingStudyError):
        client.preset("mine")
    assert client.import_presets(text)["skipped"] == []
    assert client.import_presets(text)["skipped"] == ["mine"]
    assert client.import_presets(text, replace=True)["skipped"] == []
    merged = client.merge_presets(["mine"], space={FLAG: [64]}, how="union")
    assert set(merged) == {"parameters", "conflicts"}


def test_mistakes_have_their_line(client: Client, file: Path) -> None:
    file.write_text(file.read_text().replace("kind: grid", "kind: gird"))
    with pytest.raises(ConfigError) as caught:
        client.submit(file)
    assert caught.value.line == 6
    assert "grid" in caught.value.allowed
    assert client.studies() == []


def test_a_follower_hears_of_a_deletion(client: Client, file: Path) -> None:
    client.submit(file, start=False)
    events = client.events("small")
    assert next(events).content["state"] == "PENDING"
    client.delete("small")
    assert [event.content for event in events] == [{"state": "DELETED"}]


def test_a_follower_outlives_the_service(tmp_path: Path, file: Path) -> None:
    """No event is lost, and none comes twice, when another service takes its place."""
    with serving(tmp_path) as address:
        client = Client(address, timeout=10)
        client.submit(file, start=False)
        events = client.events("small")
        first = next(events)
    with client, serving(tmp_path, port=int(address.rpartition(":")[2])) as again:
        assert again == address
        client.start("small")
        client.wait("small")
        heard = [first]
        while heard[-1].kind != "study" or heard[-1].content["state"] != "COMPLETE":
            heard.append(next(events))
        assert heard == list(client.events("small", follow=False))
        events.close()  # type: ignore[attr-defined]


def test_what_else_the_service_knows(client: Client) -> None:
    assert client.version()["name"] == "autotuner"
    assert client.me()["role"]
    engines = {engine["kind"]: engine for engine in client.engines()}
    assert {"vllm", "sglang"} <= set(engines)
    version = engines["vllm"]["default"]
    names = [flag["name"] for flag in client.flags("vllm", version, query=FLAG)]
    assert FLAG in names
    assert client.validate("vllm", version, FLAG, 8)["valid"]
    assert not client.validate("vllm", version, FLAG, "eight")["valid"]
    assert client.compatibility("vllm", "sglang")
    assert "autotuner" in client.metrics()
    assert client.timeline(hours=1)["trials"] == []
    presets = client.presets()
    assert presets
    assert client.preset(presets[0]["name"])["name"] == presets[0]["name"]
    assert "nodes" in client.cluster()


class TestVerbs:
    def test_submit_and_follow(self, address: str, file: Path) -> None:
        done = CliRunner().invoke(
            remote.submit, [str(file), "--follow", "--json", "--address", address]
        )
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["study"]["state"] == "COMPLETE"
        assert f"{address}/#/studies/small" in done.stderr
        assert "study RUNNING" in done.stderr
        assert "output_throughput 150 tok/s" in done.stderr

    def test_submit_for_later_then_look(
        self, address: str, client: Client, file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        done = CliRunner(env={"AUTOTUNER_ADDRESS": address}).invoke(
            remote.submit, [str(file), "--no-start"]
        )
        assert done.stdout == f"small  {address}/#/studies/small\n"
        assert remote.list_studies(client, as_json=False) == 0
        assert "small " in capsys.readouterr().out
        assert remote.status(client, "small", as_json=False) == 0
        assert "small: PENDING" in capsys.readouterr().out
        client.start("small")
        client.wait("small")
        assert remote.status(client, "small", as_json=False) == 0
        assert "  winner: trial" in capsys.readouterr().out
        assert remote.export(client, "small", form="args", trial=None, as_json=False) == 0
        assert f"--{FLAG}" in capsys.readouterr().out
        page = file.with_name("report.html")
        assert remote.report(client, "small", html=page, as_json=False) == 0
        assert "small" in capsys.readouterr().out
        assert "<html" in page.read_text()

    def test_a_name_that_is_taken_has_two_ways_on(
        self, address: str, client: Client, file: Path
    ) -> None:
        given = [str(file), "--no-start", "--address", address]
        assert CliRunner().invoke(remote.submit, given).exit_code == 0
        again = CliRunner().invoke(remote.submit, given)
        assert isinstance(again.exception, StudyStateError)
        other = CliRunner().invoke(remote.submit, [*given, "--name", "other"])
        assert other.stdout.startswith("other "), other.exception
        client.start("small")
        client.wait("small")
        anew = CliRunner().invoke(remote.submit, [*given, "--restart"])
        assert anew.stdout.startswith("small "), anew.exception
        assert {row["name"]: row["state"] for row in client.studies()} == {
            "small": "PENDING",
            "other": "PENDING",
        }
        assert client.trials("small") == []
        first = CliRunner().invoke(remote.submit, [*given, "--name", "third", "--restart"])
        assert first.stdout.startswith("third "), first.exception

    def test_a_log_of_nothing_says_why(self, address: str, client: Client, file: Path) -> None:
        client.submit(file, start=False)
        log = ["small", "--address", address]
        done = CliRunner().invoke(remote.logs, log)
        assert (done.stdout, done.stderr) == (
            "",
            "study 'small' is PENDING, and has written nothing so far\n",
        )
        client.start("small")
        client.wait("small")
        done = CliRunner().invoke(remote.logs, [*log, "--trial", "2"])
        assert done.stdout == ""
        assert done.stderr == "trial 2 started no server: its answers are those of a table\n"

    def test_a_study_that_is_not_there(self, address: str, client: Client, file: Path) -> None:
        client.submit(file, start=False)
        done = CliRunner().invoke(remote.logs, ["smal", "--address", address])
        assert isinstance(done.exception, MissingStudyError)
        assert str(done.exception) == (
            f"there is no study named 'smal'\n  autotuner list shows the studies of {address}"
        )

    def test_without_an_address(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AUTOTUNER_ADDRESS", raising=False)
        done = CliRunner().invoke(remote.submit, [str(file)])
        assert isinstance(done.exception, ConfigError)
        assert "AUTOTUNER_ADDRESS" in str(done.exception)
