"""The cluster over HTTP: nodes, who holds what, who waits, when each trial ran; and the service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from autotuner.api.app import application
from autotuner.api.service import Service, service
from autotuner.backends.guarded import this_process
from autotuner.execution.nvidia import devices
from autotuner.execution.observed import Observed, Sample, Seen
from autotuner.settings import Settings
from autotuner.study.model import GIB
from autotuner.study.study import Study, StudyState, timestamp
from autotuner.study.trial import Phase, Trial, TrialState
from tests.builders import spec, trial
from tests.raycluster import two_nodes

NODES = [
    {
        "id": "n1", "name": "10.0.0.1", "host": "one", "alive": True, "cpus": 8.0,
        "cpus_used": 1.0, "gpus": 2.0, "gpus_used": 1.0, "memory_gib": 64.0,
        "memory_used_gib": 10.0, "devices": [], "problem": "",
    }
]  # fmt: skip


def ago(**time: float) -> str:
    return (datetime.now(UTC) - timedelta(**time)).isoformat(timespec="milliseconds")


def done(number: int, **more: Any) -> Trial:
    return trial(number, {}, objectives={"output_throughput": 5.0}, **more)


@dataclass
class Served:
    """A service without Ray, and a client of it."""

    service: Service
    client: TestClient
    cluster: dict[str, Any] = field(default_factory=lambda: {"nodes": NODES, "problem": ""})

    def study(self, name: str, state: StudyState, *trials: Trial, **more: Any) -> None:
        study = Study(
            spec(name=name, **more.pop("asked", {})), f"/nowhere/{name}", state,
            created_at=ago(hours=50), **more,
        )  # fmt: skip
        store = self.service.studies.store
        store.create(study)
        for each in trials:
            store.save(name, each)

    def read(self, path: str, **query: Any) -> Any:
        answer = self.client.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    found: list[Served] = []
    made = service(
        Settings(home=tmp_path),
        cluster=lambda: found[0].cluster,
        ready=lambda: {"store": "", "runner": ""},
    )
    with TestClient(application(made), base_url="http://127.0.0.1:8000") as client:
        found.append(Served(made, client))
        yield found[0]
    made.studies.store.close()


RUNNING: Mapping[str, Any] = {"driver": this_process(), "started_at": ago(minutes=9)}


def test_the_nodes_are_those_that_were_observed(served: Served) -> None:
    found = served.read("/v1/cluster")
    assert found == {"nodes": NODES, "holds": [], "queue": [], "studies": {}, "problem": ""}


def test_without_ray_it_says_so(tmp_path: Path) -> None:
    made = service(Settings(home=tmp_path))
    with TestClient(application(made), base_url="http://127.0.0.1:8000") as client:
        found = client.get("/v1/cluster").json()
    made.studies.store.close()
    assert (found["nodes"], found["problem"]) == ([], "this service is on no Ray cluster")


def test_who_holds_what_and_who_waits(served: Served) -> None:
    since = ago(minutes=2)
    served.study(
        "running",
        StudyState.RUNNING,
        done(0, started_at=ago(minutes=9), ended_at=since, node="10.0.0.1"),
        trial(
            1, {}, TrialState.BENCHMARKING, node="10.0.0.1, 10.0.0.2", started_at=since,
            gpu_ids=("0", "nvidia.com/gpu/1", "10.0.0.2/0", "10.0.0.2/GPU-7"),
        ),
        trial(2, {"max-num-seqs": 8}, TrialState.DEPLOYING, node="10.0.0.2", started_at=since),
        trial(3, {}, TrialState.PENDING),
        asked={"engine": {"kind": "vllm", "version": "0.32.0"}},
        **RUNNING,
    )  # fmt: skip
    starting = {"job": "autotuner-starting-1", "renewed_at": timestamp()}
    served.study("starting", StudyState.PENDING, **starting)
    served.study("lost", StudyState.RUNNING, trial(0, {}, TrialState.BENCHMARKING), driver="x 1:1")
    served.study("new", StudyState.PENDING)

    found = served.read("/v1/cluster")

    hold = {"study": "running", "trial": 1, "state": "BENCHMARKING", "since": since}
    assert found["holds"] == [
        {**hold, "node": "10.0.0.1", "gpu_ids": ["0", "nvidia.com/gpu/1"]},
        {**hold, "node": "10.0.0.2", "gpu_ids": ["0", "GPU-7"]},
        {**hold, "node": "10.0.0.2", "gpu_ids": [], "trial": 2, "state": "DEPLOYING"},
    ]
    queue = {each["study"]: each for each in found["queue"]}
    assert queue["running"] == {
        "study": "running", "trial": 3, "gpus": 1, "waiting": "free GPUs",
    }  # fmt: skip
    assert queue["starting"]["trial"] is None
    assert queue["starting"]["waiting"] == "its job to begin"
    assert found["studies"] == {"RUNNING": 1, "STARTING": 1, "LOST": 1, "PENDING": 1}


def test_a_study_that_allows_few_at_once_says_so_and_one_that_cannot_be_launched_is_borne(
    served: Served,
) -> None:
    waiting = [trial(0, {}, TrialState.PENDING)]
    asked = {"engine": {"kind": "vllm", "version": "9.9"}, "search": {"parallel": 2}}
    served.study("few", StudyState.RUNNING, *waiting, asked=asked, **RUNNING)
    (found,) = served.read("/v1/cluster")["queue"]
    assert found["waiting"].endswith("or one of 2 trials to end")
    assert found["gpus"] is None


def test_a_trial_whose_answer_is_in_a_table_waits_for_no_gpu(served: Served) -> None:
    waiting = [trial(0, {}, TrialState.PENDING)]
    asked = {"benchmark": {"kind": "replay", "table": "trials.csv"}}
    served.study("told", StudyState.RUNNING, *waiting, asked=asked, **RUNNING)
    (found,) = served.read("/v1/cluster")["queue"]
    assert (found["gpus"], found["waiting"]) == (0, "a node with CPUs")


def test_the_timeline_is_of_what_ran_in_these_hours(served: Served) -> None:
    start, end = ago(hours=2), ago(hours=1)
    phases = (Phase("deploy", 0.0, 90.5), Phase("D(100,20) x 4", 90.5, 120.25))
    place: dict[str, Any] = {"node": "10.0.0.1", "gpu_ids": ("1",)}
    complete = done(0, started_at=start, ended_at=end, phases=phases, **place)
    refused = trial(1, {}, TrialState.INFEASIBLE)
    running = trial(2, {}, TrialState.BENCHMARKING, started_at=ago(hours=30), note="D x 4")
    served.study("one", StudyState.RUNNING, complete, refused, running, **RUNNING)
    old = done(0, started_at=ago(hours=40), ended_at=ago(hours=30))
    ended = {"started_at": ago(hours=40), "ended_at": ago(hours=29)}
    served.study("old", StudyState.COMPLETE, old, **ended)
    later = replace(complete, number=5, started_at=ago(minutes=30), ended_at=ago(minutes=5))
    served.study("both", StudyState.COMPLETE, old, later, started_at=ago(hours=40))

    found = served.read("/v1/timeline")

    assert [(each["study"], each["number"]) for each in found["trials"]] == [
        ("one", 2), ("one", 0), ("both", 5),
    ]  # fmt: skip
    first, second, _ = found["trials"]
    assert (first["ended_at"], first["note"], first["feasible"]) == ("", "D x 4", False)
    assert second["phases"] == [
        {"name": "deploy", "start": 0.0, "end": 90.5},
        {"name": "D(100,20) x 4", "start": 90.5, "end": 120.25},
    ]
    assert (second["node"], second["gpu_ids"], second["feasible"]) == ("10.0.0.1", ["1"], True)
    assert second["objectives"] == {"output_throughput": 5.0}
    width = datetime.fromisoformat(found["now"]) - datetime.fromisoformat(found["from"])
    assert width == timedelta(hours=24)

    shorter = served.read("/v1/timeline", hours=0.75)
    assert [(each["study"], each["number"]) for each in shorter["trials"]] == [
        ("one", 2), ("both", 5),
    ]  # fmt: skip
    of_one = served.read("/v1/timeline", study="old")
    assert of_one["from"] == of_one["trials"][0]["started_at"] == old.started_at


def test_a_trial_whose_driver_died_ended_with_its_last_sign_of_life(served: Served) -> None:
    left = trial(0, {}, TrialState.BENCHMARKING, started_at=ago(hours=3))
    seen = ago(hours=2)
    gone = {"driver": "elsewhere 1:1", "renewed_at": seen, "started_at": ago(hours=3)}
    served.study("lost", StudyState.RUNNING, left, **gone)
    (found,) = served.read("/v1/timeline")["trials"]
    assert found["ended_at"] == seen
    assert served.read("/v1/timeline", study="lost")["trials"] == [found]
    assert served.read("/v1/timeline", hours=1)["trials"] == []


@pytest.mark.parametrize(
    ("query", "status"),
    [({"study": "none"}, 404), ({"hours": "0"}, 422), ({"hours": "nan"}, 422),
     ({"hours": "1e9"}, 422)],
)  # fmt: skip
def test_a_timeline_of_nothing_is_refused(served: Served, query: Any, status: int) -> None:
    assert served.client.get("/v1/timeline", params=query).status_code == status


def seen(id: str, **more: Any) -> Seen:
    return Seen(id, f"10.0.0.{id}", f"host-{id}", alive=True, **more)


@dataclass
class Cluster:
    """A cluster that counts how often it is looked at."""

    nodes: Sequence[Seen]
    said: Mapping[str, Sample | str]
    looks: int = 0
    now: float = 0.0

    def look(self) -> Sequence[Seen]:
        self.looks += 1
        return self.nodes

    def observed(self, **more: Any) -> Observed:
        return Observed(self.look, lambda _: self.said, clock=lambda: self.now, **more)


def test_every_node_is_asked_at_most_once_in_a_while() -> None:
    cluster = Cluster([seen("1", cpus=4.0, gpus=1.0)], {"1": Sample(8.0, 2.0)})
    observed = cluster.observed(every=5.0)
    first = observed()
    cluster.now = 4.9
    assert observed() is first
    assert cluster.looks == 1
    cluster.said = {"1": "did not answer within 10 s"}
    cluster.now = 5.0
    (node,) = observed()["nodes"]
    assert cluster.looks == 2
    assert first["nodes"][0]["memory_used_gib"] == 2.0
    assert (node["memory_gib"], node["devices"]) == (None, [])
    assert node["problem"] == "did not answer within 10 s"
    assert (node["cpus"], node["gpus"]) == (4.0, 1.0)


def test_a_node_whose_gpus_cannot_be_asked_says_so_where_ray_counts_some() -> None:
    blind = Sample(8.0, 2.0, unasked="nvidia-ml-py is not installed")
    cluster = Cluster([seen("1", gpus=1.0), seen("2")], {"1": blind, "2": blind})
    with_gpu, without = cluster.observed()()["nodes"]
    assert with_gpu["problem"] == "nothing is known of its GPUs: nvidia-ml-py is not installed"
    assert (with_gpu["memory_gib"], without["problem"]) == (8.0, "")


def test_a_cluster_that_does_not_answer_keeps_nobody_waiting() -> None:
    answer = threading.Event()

    def look() -> Sequence[Seen]:
        assert answer.wait(20)
        return [seen("1")]

    observed = Observed(look, lambda _: {}, clock=lambda: 0.0, patience=0.01)
    assert observed()["nodes"] == []
    assert "not answered yet" in observed()["problem"]
    assert len([t for t in threading.enumerate() if t is observed._looking]) == 1
    answer.set()
    assert observed._looking is not None
    observed._looking.join(20)
    assert [node["id"] for node in observed()["nodes"]] == ["1"]


def test_what_is_wrong_with_the_cluster_is_said() -> None:
    def look() -> Sequence[Seen]:
        raise RuntimeError("no control store\nand more")

    said = Observed(look, lambda _: {})()
    assert said == {"nodes": [], "problem": "the Ray cluster does not answer: no control store"}


def test_a_process_on_no_cluster_starts_none() -> None:
    assert "this process is on none" in Observed()()["problem"]


_LOOK = """
import json, ray
from autotuner.execution.observed import Observed
ray.init(logging_level="ERROR", log_to_driver=False)

@ray.remote(num_cpus=1)
class Holder:
    def holds(self): pass

holder = Holder.remote()
ray.get(holder.holds.remote())
print(json.dumps(Observed(patience=60)()))
"""


@pytest.mark.slow
def test_a_real_cluster_is_seen(tmp_path: Path) -> None:
    with two_nodes(cpus=(2, 1)) as cluster:
        done = subprocess.run(
            [sys.executable, "-c", _LOOK],
            env={**os.environ, **cluster.environment, "RAY_ADDRESS": cluster.address},
            cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["problem"] == ""
    assert sorted(node["cpus"] for node in found["nodes"]) == [1, 2]
    assert sum(node["cpus_used"] for node in found["nodes"]) == 1
    for node in found["nodes"]:
        assert node["alive"]
        assert (node["problem"], node["gpus"]) == ("", 0)
        assert 0 < node["memory_used_gib"] < node["memory_gib"]


class NVMLError(Exception):
    pass


class Library:
    """NVML of a machine with a GPU, and one that says little: a part of another."""

    NVMLError = NVMLError
    NVML_TEMPERATURE_GPU = 0

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(total=80 * GIB, used=(handle + 1) * GIB)

    def nvmlDeviceGetName(self, handle: int) -> str | bytes:
        return b"NVIDIA H100" if handle else "NVIDIA H100"

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}"

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        return SimpleNamespace(gpu=self._known(handle, 93))

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        return self._known(handle, 350_500)

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        return self._known(handle, 61)

    def _known(self, handle: int, value: int) -> int:
        if handle:
            raise NVMLError
        return value


def test_devices_say_what_their_driver_knows() -> None:
    whole, part = devices(Library())
    assert (whole.index, whole.uuid, whole.name) == (0, "GPU-0", "NVIDIA H100")
    assert (whole.memory_gib, whole.memory_used_gib) == (80.0, 1.0)
    assert (whole.utilisation, whole.temperature_c, whole.power_w) == (0.93, 61, 350.5)
    assert (part.name, part.memory_used_gib) == ("NVIDIA H100", 2.0)
    assert (part.utilisation, part.temperature_c, part.power_w) == (None, None, None)


def test_a_driver_that_breaks_shows_no_devices() -> None:
    class Broken(Library):
        def nvmlDeviceGetCount(self) -> int:
            raise NVMLError

    assert devices(Broken()) == []
