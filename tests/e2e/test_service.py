"""`autotuner serve` as a process, and what must not be lost when parts of it are killed."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from autotuner.store import Store
from autotuner.study.study import StudyState
from autotuner.terminal import EXIT_OPERATOR, EXIT_USER
from tests.e2e.test_vllm import MODEL, ROOT, VLLM
from tests.processes import alive, ours, wait_for
from tests.serving import GONE_SECONDS, Served, served, service_port
from tests.simulated import study_file

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

REAL = pytest.mark.skipif(not VLLM.exists() or not MODEL.exists(), reason="run `make vllm model`")

WORKLOAD = {
    "scenarios": ["D(50,20)"],
    "concurrency": [4],
    "max_requests": 100_000,
    "max_seconds": 4,
    "request": {"temperature": 0.0},
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("home")) as running:
        print(f"up after {running.seconds:.1f} s")
        yield running


def create(service: Served, directory: Path, name: str, **changes: Any) -> None:
    path = study_file(directory, **{"name": name, "workload": WORKLOAD, **changes})
    service.ask("POST", "/v1/studies", json=json.loads(path.read_text()))


def until(service: Served, name: str, *states: str, after: int = 0) -> list[dict[str, Any]]:
    """The events of a study up to the one that says one of these states."""
    found = []
    for event in service.events(name, after):
        found.append(event)
        if event["kind"] == "study" and event["state"] in states:
            return found
    raise AssertionError(f"the stream of {name} ended before {states}")


def running(service: Served, name: str) -> bool:
    """Whether a trial of the study measures."""
    return any(each["state"] == "BENCHMARKING" for each in service.trials(name))


def answers(service: Served) -> bool:
    try:
        return service.client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def ended_well(service: Served, name: str, launches: int) -> None:
    """Every trial is there once, with its measurement, and nothing of it is left."""
    events = service.ask("GET", f"/v1/studies/{name}")
    assert (events["state"], events["reason"]) == ("COMPLETE", "")
    trials = service.trials(name)
    assert [each["number"] for each in trials] == list(range(launches))
    assert all(each["state"] == "COMPLETE" and each["load_points"] for each in trials)
    assert wait_for(lambda: ours(name) == [], GONE_SECONDS)


def test_of_many_starts_at_once_one_starts_the_study_and_it_runs_once(
    service: Served, tmp_path: Path
) -> None:
    create(service, tmp_path, "raced", space={"max-num-seqs": [1]})

    def start(_: int) -> int:
        with httpx.Client(base_url=service.address, trust_env=False, timeout=30) as client:
            return client.post("/v1/studies/raced/start").status_code

    with ThreadPoolExecutor(8) as pool:
        codes = Counter(pool.map(start, range(8)))
    assert codes == {202: 1, 409: 7}
    events = until(service, "raced", "COMPLETE", "FAILED")
    numbers = [event["id"] for event in events]
    assert numbers == list(range(1, len(numbers) + 1)), "without gap or repeat"
    deployed = Counter(
        event["number"]
        for event in events
        if event["kind"] == "trial" and event["state"] == "DEPLOYING"
    )
    assert deployed == {0: 1, 1: 1}
    ended_well(service, "raced", 2)


def test_a_study_outlives_the_replica_and_the_next_one_serves_it(
    service: Served, tmp_path: Path
) -> None:
    create(service, tmp_path, "outlives", space={"max-num-seqs": [1, 16]})
    service.ask("POST", "/v1/studies/outlives/start")
    assert wait_for(lambda: running(service, "outlives"), 60)
    driver = service.ask("GET", "/v1/studies/outlives")["driver"]
    killed = service.one("ray::ServeReplica")
    killed.kill()
    began = time.monotonic()
    assert wait_for(lambda: not answers(service), 10, every=0.01)
    # Connections of the killed one linger for a minute, and must not be in the way.
    assert wait_for(lambda: answers(service), 50)
    print(f"served again {time.monotonic() - began:.1f} s after the replica was killed")
    assert service.ask("GET", "/v1/studies/outlives")["driver"] == driver
    until(service, "outlives", "COMPLETE", "FAILED")
    ended_well(service, "outlives", 3)


def test_a_study_whose_driver_is_killed_is_lost_and_ends_once_resumed(
    service: Served, tmp_path: Path
) -> None:
    create(service, tmp_path, "resumed", space={"max-num-seqs": [1, 16]}, search={"kind": "grid"})
    service.ask("POST", "/v1/studies/resumed/start")

    def one_is_measured() -> bool:
        return any(each["state"] == "COMPLETE" for each in service.trials("resumed"))

    assert wait_for(one_is_measured, 90)
    measured = {t["number"]: t for t in service.trials("resumed") if t["state"] == "COMPLETE"}
    service.one("-m autotuner resume resumed --job").kill()
    assert wait_for(lambda: service.state("resumed") == "LOST", 10)
    assert wait_for(lambda: ours("resumed") == [], GONE_SECONDS)
    before = service.ask("GET", "/v1/studies/resumed")["event"]
    service.ask("POST", "/v1/studies/resumed/resume")
    until(service, "resumed", "COMPLETE", "FAILED", after=before)
    ended_well(service, "resumed", 3)
    after = {t["number"]: t for t in service.trials("resumed")}
    assert {n: after[n]["objectives"] for n in measured} == {
        n: t["objectives"] for n, t in measured.items()
    }, "what was measured is kept"


def test_a_cancelled_study_ends_in_order(service: Served, tmp_path: Path) -> None:
    create(service, tmp_path, "cancelled", workload={**WORKLOAD, "max_seconds": 60})
    service.ask("POST", "/v1/studies/cancelled/start")
    assert wait_for(lambda: running(service, "cancelled"), 60)
    service.ask("POST", "/v1/studies/cancelled/cancel")
    last = until(service, "cancelled", "CANCELLED")[-1]
    assert last["reason"] == "cancelled by SIGINT"
    assert wait_for(lambda: ours("cancelled") == [], GONE_SECONDS)


def test_who_ends_the_service_ends_its_studies_in_order(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with served(home) as service:
        create(service, tmp_path, "going", workload={**WORKLOAD, "max_seconds": 60})
        service.ask("POST", "/v1/studies/going/start")
        assert wait_for(lambda: running(service, "going"), 60)
        family = service.family()
        began = time.monotonic()
        service.process.terminate()
        assert service.process.wait(timeout=90) == 0
        print(f"ended in {time.monotonic() - began:.1f} s")
        assert wait_for(lambda: not any(map(alive, family)) and not ours("going"), GONE_SECONDS)
    store = Store(f"sqlite:///{home / 'autotuner.db'}")
    study = store.study("going")
    store.close()
    assert (study.state, study.reason) == (StudyState.CANCELLED, "cancelled by SIGINT")


def test_a_killed_service_leaves_no_process(tmp_path: Path) -> None:
    with served(tmp_path / "home") as service:
        create(service, tmp_path, "killed", workload={**WORKLOAD, "max_seconds": 60})
        service.ask("POST", "/v1/studies/killed/start")
        assert wait_for(lambda: running(service, "killed"), 60)
        family = service.family()
        assert len(family) > 10
        service.process.kill()
        began = time.monotonic()
        gone = wait_for(lambda: not any(map(alive, family)) and not ours("killed"), GONE_SECONDS)
        print(f"gone {time.monotonic() - began:.1f} s after the service was killed")
        assert gone, [each.cmdline() for each in family if alive(each)]


def refused(home: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and words of an `autotuner serve` that must not serve."""
    done = subprocess.run(
        [sys.executable, "-m", "autotuner", "serve", *arguments],
        env={**os.environ, "AUTOTUNER_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


def test_a_taken_port_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        code, said = refused(tmp_path, "--port", port)
    assert code == EXIT_OPERATOR
    assert f"nothing can listen on 127.0.0.1:{port}" in said
    assert "--port" in said


def test_a_service_for_others_needs_tokens(tmp_path: Path) -> None:
    code, said = refused(tmp_path, "--host", "0.0.0.0", "--port", str(service_port()))
    assert code == EXIT_USER
    assert "token" in said


LAPTOP = "examples/01-laptop/study.yaml"
SHORTER = {
    "trials: 6,": "trials: 1,",
    "rounds: 5}": "rounds: 2}",
    "concurrency: [1, 8]": "concurrency: [8]",
    "max_seconds: 8": "max_seconds: 5",
}


def commands(page: str) -> list[str]:
    """The lines of a page that are for a service which runs."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def shell(line: str) -> str:
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT
    )
    return done.stdout


@REAL
@pytest.mark.vllm
@pytest.mark.timeout(1800)
def test_the_laptop_study_by_http_on_real_vllm_though_replica_and_driver_are_killed(
    tmp_path: Path,
) -> None:
    shorter = tmp_path / "study.yaml"
    text = (ROOT / LAPTOP).read_text()
    for said, shown in SHORTER.items():
        assert said in text
        text = text.replace(said, shown)
    shorter.write_text(text)
    name = "tiny-llama-cpu"
    with served(tmp_path / "home", AUTOTUNER_SERVICE_DIRECTORY=str(ROOT)) as service:
        # The commands of the README, but for the port and a study that ends sooner.
        post, events, read = (
            line.replace("http://127.0.0.1:8000", service.address).replace(LAPTOP, str(shorter))
            for line in commands("README.md")
        )
        assert json.loads(shell(post))["state"] == "STARTING"
        assert wait_for(lambda: running(service, name), 240, every=0.5)
        service.one("ray::ServeReplica").kill()
        assert wait_for(lambda: answers(service), 60, every=0.2)

        def one_is_measured() -> bool:
            return any(each["state"] == "COMPLETE" for each in service.trials(name))

        assert wait_for(one_is_measured, 240, every=0.5)
        service.one(f"-m autotuner resume {name} --job").kill()
        assert wait_for(lambda: service.state(name) == "LOST", 10)
        before = service.ask("GET", f"/v1/studies/{name}")["event"]
        service.ask("POST", f"/v1/studies/{name}/resume")
        until(service, name, "COMPLETE", "FAILED", after=before)
        study = service.ask("GET", f"/v1/studies/{name}")
        report = service.ask("GET", f"/v1/studies/{name}/report")
        assert study["state"] == "COMPLETE", study["reason"]
        numbers = [each["number"] for each in service.trials(name)]
        assert numbers == list(range(len(numbers)))
        searched = [each for each in report["trials"] if each["repeat_of"] is None]
        assert len([each for each in searched if not each["refused"]]) == 2
        assert all(each["state"] == "COMPLETE" for each in searched if not each["refused"])
        assert report["verdict"]["statement"]
        print(report["verdict"]["statement"])
        assert json.loads(shell(read))["statement"] == report["statement"]
        assert '"state":"COMPLETE"' in shell(events).replace('": "', '":"')
        assert wait_for(lambda: ours(name) == [], GONE_SECONDS)
