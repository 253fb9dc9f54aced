"""The Ray that we start listens on this machine's own address, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
import pytest

from autotuner.addresses import is_loopback
from tests.processes import local_ray, ours, started, tree, wait_for
from tests.serving import served
from tests.simulated import study_file

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

WORKLOAD = {
    "scenarios": ["D(50,20)"],
    "concurrency": [4],
    "max_requests": 100_000,
    "max_seconds": 60,
    "request": {"temperature": 0.0},
}

PARTS = {"gcs_server", "raylet", "ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray::TrialActor"}
"""Of a Ray that runs a trial, by the beginnings of their titles; each listens."""


REPLICA = "ray::ServeReplica"
"""Ray Serve binds what its replicas ask each other by to every address (2.60, `replica.py`)."""

Listening = set[tuple[str, str, int]]
"""Title of the process, address and port of sockets."""


def listening(processes: Iterable[psutil.Process]) -> Listening:
    found = set()
    for process in processes:
        try:
            title = " ".join(process.cmdline())
            sockets = process.net_connections(kind="inet")
        except psutil.Error:  # gone meanwhile
            continue
        found |= {(title, *each.laddr) for each in sockets if each.status == psutil.CONN_LISTEN}
    return found


def elsewhere(sockets: Listening) -> Listening:
    return {each for each in sockets if not is_loopback(each[1])}


def seen(sockets: Listening, parts: set[str]) -> set[str]:
    """Those of some parts that listen at all."""
    return {part for part in parts if any(part in title for title, *_ in sockets)}


def refusal(port: int) -> str:
    """What a stranger is told who asks a replica as another of its kind does."""
    grpc: Any = import_module("grpc")  # Ray's, without types
    with (
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        channel.unary_unary("/ray.serve.ASGIService/HandleRequest")(b"", timeout=30)
    code: str = caught.value.code().name
    return code


def test_the_ray_of_a_run_listens_on_loopback(tmp_path: Path) -> None:
    file = study_file(tmp_path, name="here", workload=WORKLOAD)
    with started("run", str(file), home=tmp_path) as driver:
        log = tmp_path / "studies" / "here" / "study.log"
        assert wait_for(lambda: log.exists() and "BENCHMARKING" in log.read_text(), 120), (
            tmp_path / "stderr.txt"
        ).read_text()
        family = [*tree(driver.pid), *local_ray("here")]
        sockets = listening(family)
        driver.terminate()
        driver.wait(timeout=90)
    assert elsewhere(sockets) == set()
    assert seen(sockets, PARTS) == PARTS
    assert wait_for(lambda: ours("here") == [], 20)


def test_the_ray_of_a_service_listens_on_loopback(tmp_path: Path) -> None:
    content = json.loads(study_file(tmp_path, name="here", workload=WORKLOAD).read_text())
    with served(tmp_path / "home") as service:
        service.ask("POST", "/v1/studies?start=true", json=content)
        measuring = ["BENCHMARKING"]
        assert wait_for(
            lambda: [each["state"] for each in service.trials("here")][:1] == measuring, 120
        )
        sockets = listening(service.family())
        # The page sees its cluster through these very sockets.
        assert wait_for(lambda: service.ask("GET", "/v1/cluster")["nodes"], 60)
        (other,) = elsewhere(sockets)
        assert REPLICA in other[0]
        assert refusal(other[2]) == "UNAUTHENTICATED"
    parts = {*PARTS, "dashboard", REPLICA}
    assert seen(sockets, parts) == parts
