"""A whole study of real vLLM in containers, on a Docker daemon of the tests' own; takes minutes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import dockerd
from tests.dockerd import daemon
from tests.processes import ours
from tests.shapes import shape

__all__ = ["daemon"]

ROOT = Path(__file__).parent.parent.parent
VLLM = ROOT / ".venv-vllm" / "bin" / "python"
MODEL = ROOT / ".cache" / "tiny-llama" / "config.json"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.vllm,
    pytest.mark.skipif(not VLLM.exists() or not MODEL.exists(), reason="run `make vllm model`"),
]

# The example's, smaller; it says nothing of where its servers run.
STUDY = """
name: same
model: {{path: {model}, served_name: tiny-llama}}
engine:
  kind: vllm
  version: 0.32.0
  command: [{python}, -m, vllm.entrypoints.openai.api_server]
  image: {image}
  arguments: {{max-model-len: 2048, enforce-eager: true}}
  environment: {{VLLM_CPU_KVCACHE_SPACE: 1, HF_HUB_OFFLINE: 1, OMP_NUM_THREADS: 1}}
backend: {{docker: {{memory: 12g}}}}
space: {{env:VLLM_ENABLE_V1_MULTIPROCESSING: [0]}}
workload:
  scenarios: ["D(64,64)"]
  concurrency: [4]
  max_requests: 40
  max_seconds: 8
  request: {{temperature: 0.0}}
search: {{kind: grid}}
verdict: {{finalists: 0}}
limits: {{ready_seconds: 240, trial_seconds: 600}}
"""


@pytest.fixture(scope="module")
def image(daemon: str) -> str:
    return dockerd.python_image(daemon, VLLM)


def study_file(directory: Path, image: str) -> Path:
    file = directory / "same.yaml"
    file.write_text(STUDY.format(model=MODEL.parent, python=VLLM, image=image))
    return file


def settings(home: Path) -> dict[str, str]:
    return {
        "AUTOTUNER_HOME": str(home),
        "AUTOTUNER_MOUNTS": ",".join(dockerd.python_mounts(VLLM)),
        "HF_HUB_OFFLINE": "1",
        "HF_TOKEN": "hf_a-token-of-the-tests",
    }


def autotuner(home: Path, *arguments: str, seconds: float = 60) -> tuple[int, str, str]:
    """Run a command; its exit code, and what it said and complained of."""
    done = subprocess.run(
        [sys.executable, "-m", "autotuner", *arguments],
        cwd=ROOT,
        env={**os.environ, **settings(home)},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.timeout(1800)
def test_the_same_study_runs_in_containers_and_as_processes(
    daemon: str, image: str, tmp_path: Path
) -> None:
    reports: dict[str, dict[str, Any]] = {}
    file = study_file(tmp_path, image)
    for kind in ("docker", "process"):
        home = tmp_path / kind
        home.mkdir()
        code, out, said = autotuner(
            home, "run", str(file), "--backend", kind, "--json", seconds=880
        )
        assert code == 0, said
        reports[kind] = json.loads(out)
        assert dockerd.containers(daemon) == []
        assert ours("same") == []
    docker, process = reports["docker"], reports["process"]
    assert shape(docker) == shape(process)
    assert [t["state"] for t in docker["trials"]] == [t["state"] for t in process["trials"]]
    assert {t["state"] for t in docker["trials"]} == {"COMPLETE"}
    trials = tmp_path / "docker" / "studies" / "same" / "trials"
    for trial in docker["trials"]:
        directory = trials / f"{trial['number']:04d}"
        plan = json.loads((directory / "plan.json").read_text())
        assert plan["backend"] == "docker"
        assert plan["request"]["create"]["Image"] == image
        log = (directory / "server.log").read_text()
        assert "Application startup complete" in log
        assert "Application shutdown complete" in log
    kept = [each.read_bytes() for each in (tmp_path / "docker").rglob("*") if each.is_file()]
    assert not any(b"hf_a-token-of-the-tests" in each for each in kept)
    code, out, _ = autotuner(tmp_path / "docker", "report", "same")
    assert code == 0
    assert out
