"""`ray job submit` on a real Ray cluster of two nodes, with a token, as its users type it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autotuner.store import Store
from autotuner.study.study import StudyState
from autotuner.study.trial import Trial, TrialState
from tests.e2e.test_vllm import MODEL, VLLM
from tests.processes import alive, ours, wait_for
from tests.raycluster import BIN, RayCluster, two_nodes
from tests.simulated import study_file

pytestmark = pytest.mark.slow

REAL = pytest.mark.skipif(not VLLM.exists() or not MODEL.exists(), reason="run `make vllm model`")

GONE_SECONDS = 10.0
"""From the typing of `ray job stop` until nothing of the study is left."""

SHORT_LAPTOP = """
name: laptop-job
model: {{path: {model}, served_name: tiny-llama}}
engine:
  kind: vllm
  version: 0.32.0
  command: [{python}, -m, vllm.entrypoints.openai.api_server]
  arguments: {{max-model-len: 2048, enforce-eager: true}}
  environment:
    VLLM_CPU_KVCACHE_SPACE: 1
    HF_HUB_OFFLINE: 1
    OMP_NUM_THREADS: 1
    OMP_WAIT_POLICY: passive
    NUMBA_NUM_THREADS: 1
space:
  env:VLLM_ENABLE_V1_MULTIPROCESSING: [1, 0]
workload:
  scenarios: ["D(64,128)"]
  concurrency: [8]
  max_requests: 100
  max_seconds: {seconds}
  warmup_requests: 8
  request: {{temperature: 0.0}}
objectives: [output_throughput]
search: {{kind: grid, parallel: {parallel}}}
verdict: {{finalists: 0}}
limits: {{ready_seconds: 240, trial_seconds: 400}}
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with two_nodes() as running:
        yield running


def submitted(
    cluster: RayCluster, directory: Path, *entrypoint: str, wait: bool = False, **variables: str
) -> subprocess.CompletedProcess[str]:
    """`ray job submit --working-dir . -- ENTRYPOINT`, given in `directory`."""
    environment = {"HF_HUB_OFFLINE": "1", **variables}
    return cluster.command(
        *("job", "submit", "--address", cluster.dashboard, "--log-color", "false"),
        *("--runtime-env-json", json.dumps({"env_vars": environment})),
        *("--working-dir", "."),
        *(() if wait else ("--no-wait",)),
        *("--", *entrypoint),
        directory=directory,
    )


def job_of(said: str) -> str:
    found = re.search(r"raysubmit_\w+", said)
    assert found, said
    return found.group()


def trials(home: Path, name: str) -> list[Trial]:
    if not (home / "autotuner.db").exists():
        return []
    store = Store(f"sqlite:///{home / 'autotuner.db'}")
    try:
        return store.trials(name)
    finally:
        store.close()


@pytest.mark.timeout(300)
def test_a_job_shows_its_trials_as_actors_their_states_in_its_log_and_its_metrics_to_prometheus(
    cluster: RayCluster, tmp_path: Path
) -> None:
    directory, home = tmp_path / "directory", tmp_path / "home"
    directory.mkdir()
    workload = {
        "scenarios": ["D(50,20)"],
        "concurrency": [4],
        "max_requests": 100_000,
        "max_seconds": 12,
        "request": {"temperature": 0.0},
    }
    study_file(directory, name="seen", space={"max-num-seqs": [1, 4, 16]}, workload=workload)
    # What is ignored is not uploaded: the job would fail on a directory of this size.
    shutil.copytree(directory, directory / ".venv")
    (directory / ".rayignore").write_text(".venv/\n.env\n")
    (directory / ".env").write_text("HF_TOKEN=hf_not_for_upload\n")
    job = job_of(
        submitted(
            cluster, directory, "autotuner", "run", "study.json", AUTOTUNER_HOME=str(home)
        ).stdout
    )
    actors: dict[str, dict[str, Any]] = {}
    scraped: list[str] = []

    def over() -> bool:
        for actor in cluster.listed("actors"):
            if actor["repr_name"]:
                actors[actor["repr_name"]] = actor
        scraped.append(cluster.scraped())
        return cluster.job(job)["status"] in ("SUCCEEDED", "FAILED", "STOPPED")

    assert wait_for(over, 240, every=2)
    log = cluster.command("job", "logs", job).stdout
    assert cluster.job(job)["status"] == "SUCCEEDED", log
    assert {
        "seen/0 baseline",
        "seen/1 max-num-seqs=1",
        "seen/2 max-num-seqs=4",
        "seen/3 max-num-seqs=16",
    } == set(actors)
    for actor in actors.values():
        assert actor["job_id"] == cluster.job(job)["job_id"]
    for number in range(4):
        for state in ("DEPLOYING", "BENCHMARKING", "COMPLETE"):
            assert f"trial {number} {state}" in log
    assert re.search(r"trial 3 COMPLETE  output_throughput [\d,.]+ tok/s", log)
    assert "seen  COMPLETE" in log
    assert str(home / "studies" / "seen" / "report.html") in log
    found = trials(home, "seen")
    assert [trial.state for trial in found] == [TrialState.COMPLETE] * 4
    # Each trial took the CPUs of a whole node, and both nodes were used at the same time.
    nodes = {actor["node_id"] for actor in actors.values()}
    assert len(nodes) == 2
    last = [text for text in scraped if "ray_autotuner_best" in text][-1]
    metrics = {
        (name, labels["state"] if "state" in labels else labels.get("objective", "")): value
        for name, labels, value in series(last)
        if labels.get("study") == "seen"
    }
    states = {state for name, state in metrics if name == "ray_autotuner_trials"}
    assert states == {state.value for state in TrialState}
    best = max(trial.objectives["output_throughput"] or 0 for trial in found)
    seen = metrics["ray_autotuner_best", "output_throughput"]
    assert seen in {trial.objectives["output_throughput"] for trial in found}
    assert seen <= best
    assert metrics["ray_autotuner_gpus", ""] == 0
    assert metrics["ray_autotuner_output_throughput", ""] > 0
    assert metrics["ray_autotuner_trial_seconds_count", "COMPLETE"] >= 1
    assert any(
        name == "ray_autotuner_trials" and labels["state"] == "BENCHMARKING" and value >= 1
        for text in scraped
        for name, labels, value in series(text)
        if labels.get("study") == "seen"
    )


def series(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Name, labels and value of each of our series in Prometheus' text format."""
    for line in text.splitlines():
        matched = re.fullmatch(r"(ray_autotuner_\w+)\{(.*)\} (\S+)", line)
        if matched:
            labels = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', matched[2]))
            yield matched[1], labels, float(matched[3])


@REAL
@pytest.mark.vllm
@pytest.mark.timeout(600)
def test_the_laptop_study_shortened_runs_as_a_job_on_real_vllm(
    cluster: RayCluster, tmp_path: Path
) -> None:
    directory, home = tmp_path / "directory", tmp_path / "home"
    directory.mkdir()
    (directory / "study.yaml").write_text(
        SHORT_LAPTOP.format(model=MODEL.parent, python=VLLM, seconds=6, parallel=1)
    )
    done = submitted(
        cluster,
        directory,
        *("autotuner", "run", "study.yaml"),
        wait=True,
        AUTOTUNER_HOME=str(home),
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    found = trials(home, "laptop-job")
    assert [trial.state for trial in found] == [TrialState.COMPLETE] * len(found)
    assert [trial.parameters for trial in found] == [
        {},
        {"env:VLLM_ENABLE_V1_MULTIPROCESSING": 1},
        {"env:VLLM_ENABLE_V1_MULTIPROCESSING": 0},
    ]
    assert "trial 0 COMPLETE  output_throughput" in done.stdout
    assert "-m vllm.entrypoints.openai.api_server" in done.stdout, "the winner's command line"
    assert ours("laptop-job") == []


@REAL
@pytest.mark.vllm
@pytest.mark.timeout(420)
def test_a_stopped_job_leaves_no_process_and_a_cancelled_study(
    cluster: RayCluster, tmp_path: Path
) -> None:
    directory, home, name = tmp_path / "directory", tmp_path / "home", "laptop-job"
    directory.mkdir()
    (directory / "study.yaml").write_text(
        SHORT_LAPTOP.format(model=MODEL.parent, python=VLLM, seconds=120, parallel=1)
    )
    job = job_of(
        submitted(
            cluster,
            directory,
            *("autotuner", "run", "study.yaml"),
            AUTOTUNER_HOME=str(home),
        ).stdout
    )
    loading = home / "studies" / name / "trials" / "0000" / "load-0" / "genai-bench.log"
    assert wait_for(loading.exists, 240), cluster.command("job", "logs", job).stdout
    processes = ours(name)
    # The server, its engine core, the load generator and the two guards.
    assert len(processes) >= 5, [process.cmdline() for process in processes]
    began = time.monotonic()
    # As it comes: SIGTERM, and SIGKILL 3 s later.
    stopping = subprocess.Popen(
        [str(BIN / "ray"), "job", "stop", "--no-wait", job],
        env={**os.environ, **cluster.environment, "RAY_API_SERVER_ADDRESS": cluster.dashboard},
        stdout=subprocess.DEVNULL,
    )
    gone = wait_for(lambda: not any(map(alive, processes)) and not ours(name), GONE_SECONDS)
    took = time.monotonic() - began
    assert stopping.wait(timeout=30) == 0
    assert gone, [(each.pid, each.cmdline()) for each in processes if alive(each)]
    print(f"gone {took:.1f} s after `ray job stop` was typed")
    assert wait_for(lambda: cluster.job(job)["status"] == "STOPPED", 30)
    store = Store(f"sqlite:///{home / 'autotuner.db'}")
    study, found = store.study(name), store.trials(name)
    store.close()
    # Though the driver may not have come to its end.
    assert (study.state, study.reason) == (StudyState.CANCELLED, "cancelled by SIGTERM")
    assert found
    assert all(trial.state is TrialState.CANCELLED for trial in found)
