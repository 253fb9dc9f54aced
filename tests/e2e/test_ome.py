"""A whole study of real vLLM through the OME backend, and the same as processes: the API server is
the tests' own, OME is played by a hook that runs the rendered command, all else is real. Takes
minutes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes.crd import ome_resources
from tests.fakes.kube import FakeKube
from tests.fakes.ome import NODE, SERVICES, FakeOME, runs_for_real
from tests.places import end_reapers
from tests.processes import started, wait_for
from tests.shapes import shape

ROOT = Path(__file__).parent.parent.parent
VLLM = ROOT / ".venv-vllm" / "bin" / "python"
MODEL = ROOT / ".cache" / "tiny-llama"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.vllm,
    pytest.mark.skipif(
        not VLLM.exists() or not (MODEL / "config.json").exists(), reason="run `make vllm model`"
    ),
]

SAMPLED = frozenset({"telemetry"})
"""Of a load point: what is sampled meanwhile, on the server's own machine."""

# The example's, smaller: two trials at one concurrency. It says nothing of where its servers run.
STUDY = """
name: {name}
model: {{path: {model}, served_name: tiny-llama}}
engine:
  kind: vllm
  version: 0.32.0
  command: [{python}, -m, vllm.entrypoints.openai.api_server]
  arguments: {{max-model-len: 2048, enforce-eager: true}}
  environment: {{VLLM_CPU_KVCACHE_SPACE: 1, HF_HUB_OFFLINE: 1, OMP_NUM_THREADS: 1}}
backend: {{ome: {{model: tiny-llama, runtime: vllm-tiny, lease_seconds: 15}}}}
space: {{max-num-seqs: [1, 64]}}
workload:
  scenarios: ["D(64,64)"]
  concurrency: [4]
  max_requests: {requests}
  max_seconds: {seconds}
  request: {{temperature: 0.0}}
search: {{kind: grid}}
verdict: {{finalists: 0}}
limits: {{ready_seconds: 240, trial_seconds: 600}}
"""


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[FakeKube]:
    logs = tmp_path / "pods"
    logs.mkdir()
    with (
        FakeKube(ome_resources()) as server,
        FakeOME(server, runs_for_real([str(VLLM)], logs), models={"tiny-llama": str(MODEL)}),
    ):
        server.kubeconfig(tmp_path / "kubeconfig")
        try:
            yield server
        finally:
            end_reapers("ome", f"{server.url} autotuner")


def study_file(directory: Path, name: str, *, requests: int = 16) -> Path:
    file = directory / f"{name}.yaml"
    # So many seconds that even a busy machine gets through the requests.
    text = STUDY.format(name=name, model=MODEL, python=VLLM, requests=requests, seconds=300)
    file.write_text(text)
    return file


def settings(home: Path) -> dict[str, str]:
    return {
        "AUTOTUNER_HOME": str(home),
        "KUBECONFIG": str(home / "kubeconfig"),
        "HF_HUB_OFFLINE": "1",
        "HF_TOKEN": "hf_a-token-of-the-tests",
    }


def report_of(file: Path, home: Path, backend: str = "ome") -> tuple[int, dict[str, Any], str]:
    """Run a study through a backend; its exit code, its report and what it said."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "autotuner", "run", str(file)),
            *("--backend", backend, "--json"),
        ],
        cwd=ROOT,
        env={**os.environ, **settings(home)},
        capture_output=True,
        text=True,
        timeout=880,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr


@pytest.mark.timeout(1800)
def test_a_study_of_real_vllm_through_ome_measures_as_processes_do_and_leaves_nothing(
    kube: FakeKube, tmp_path: Path
) -> None:
    file = study_file(tmp_path, "ome-study")
    code, report, said = report_of(file, tmp_path)
    assert code == 0, said
    measured = [trial for trial in report["trials"] if trial["state"] == "COMPLETE"]
    assert len(measured) >= 2, said
    for trial in measured:
        (point,) = trial["load_points"]
        assert point["metrics"]["error_rate"] == 0
        assert point["metrics"]["requests"] >= 16
        directory = Path(trial["directory"])
        assert "Application startup complete" in (directory / "server.log").read_text()
        assert "hf_a-token-of-the-tests" not in (directory / "plan.json").read_text()
    # One InferenceService for each trial, and each strictly checked when it was made.
    made = [each for each in kube.requests if each.method == "POST" and SERVICES in each.path]
    assert len(made) == len(report["trials"])
    assert {each.query["fieldValidation"] for each in made} == {"Strict"}
    assert "hf_a-token-of-the-tests" not in repr(kube.requests)
    forwards = [each for each in kube.requests if each.path.endswith("/portforward")]
    assert len({each.path for each in forwards}) == len(made), "each by a port-forward of its own"
    assert kube.find(SERVICES) == kube.find("pods") == []
    assert {trial["node"] for trial in report["trials"]} == {NODE}
    (tmp_path / "process").mkdir()
    code, process, said = report_of(file, tmp_path / "process", "process")
    assert code == 0, said
    # Nobody samples a server that is not on this machine.
    assert shape(report, without=SAMPLED) == shape(process, without=SAMPLED)
    assert [t["state"] for t in report["trials"]] == [t["state"] for t in process["trials"]]
    for name in SAMPLED:
        assert {bool(point[name]) for point in points(report)} == {False}, name
        assert {bool(point[name]) for point in points(process)} == {True}, name
    swept = subprocess.run(
        [sys.executable, "-m", "autotuner", "sweep", "--backend", "ome"],
        env={**os.environ, **settings(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert swept.stdout.strip() == "nothing was left behind"


def points(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [point for trial in report["trials"] for point in trial["load_points"]]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_when_the_driver_dies_its_server_is_gone_within_a_lease(
    kube: FakeKube, tmp_path: Path, number: int
) -> None:
    name = f"ome-kill-{number}"
    file = study_file(tmp_path, name, requests=100_000)
    command = ("run", str(file), "--backend", "ome")
    variables = {k: v for k, v in settings(tmp_path).items() if k != "AUTOTUNER_HOME"}
    with started(*command, home=tmp_path, **variables) as driver:
        loading = tmp_path / "studies" / name / "trials" / "0000" / "load-0" / "genai-bench.log"
        assert wait_for(loading.exists, 240), (tmp_path / "stderr.txt").read_text()
        assert len(kube.find("pods")) == 1
        driver.send_signal(number)
        assert wait_for(lambda: not kube.find("pods"), 15 + 5), kube.find(SERVICES)
        assert kube.find(SERVICES) == []


def test_a_plan_shows_the_request_and_starts_nothing(kube: FakeKube, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "autotuner", "plan"),
            *(str(study_file(tmp_path, "ome-plan")), "--backend", "ome", "--json"),
        ],
        env={**os.environ, **settings(tmp_path), "KUBECONFIG": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    planned = json.loads(done.stdout)
    assert "$(MODEL_PATH)" in json.dumps(planned["launches"])
    assert kube.find(SERVICES) == []
    exported = planned.get("exports")
    if exported is not None:
        assert list(yaml.safe_load_all(exported["rbac.yaml"]))
