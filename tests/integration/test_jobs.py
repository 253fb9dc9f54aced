"""Studies as Ray jobs: a real cluster, and job servers that do not answer."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from autotuner.api.tokens import Role, issue
from autotuner.errors import InfrastructureError
from autotuner.execution import jobs as module
from autotuner.execution.jobs import RayJobs, entrypoint, environment
from autotuner.job import load_job
from autotuner.store import Store
from autotuner.studies import Studies
from autotuner.study.study import StudyState
from tests.processes import ours, wait_for
from tests.raycluster import RayCluster, two_nodes
from tests.serving import service_port
from tests.simulated import study_file


def test_a_job_is_the_driver_of_its_study_and_no_shell() -> None:
    said = entrypoint("llama", "autotuner-llama-1")
    assert said == f"exec {sys.executable} -m autotuner resume llama --job autotuner-llama-1"


def test_a_job_is_told_the_settings_that_are_no_secrets_and_how_it_is_stopped() -> None:
    secrets = ("STORE", "HF_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "OPTUNA_STORAGE")
    variables = {f"AUTOTUNER_{name}": "secret" for name in (*secrets, "MLFLOW")}
    variables |= {"AUTOTUNER_HOME": "/home", "AUTOTUNER_PORTS": "", "PATH": "/bin", "HF_TOKEN": "s"}
    assert environment(variables) == {
        "AUTOTUNER_HOME": "/home",
        "RAY_JOB_STOP_SIGNAL": "SIGINT",
        "RAY_JOB_STOP_WAIT_TIME_S": "60",
    }


def test_nobody_there_is_said_at_once_with_what_to_do() -> None:
    jobs = RayJobs(f"http://127.0.0.1:{service_port()}")
    with pytest.raises(InfrastructureError, match="ray job list"):
        jobs.start("llama", "autotuner-llama-1")
    assert "Ray's job server" in jobs.problem()


def test_no_job_is_not_alive_and_nobody_is_asked() -> None:
    assert not RayJobs(f"http://127.0.0.1:{service_port()}").alive("")


def test_a_job_server_that_never_answers_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CALL_SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        jobs = RayJobs(f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(InfrastructureError, match="timed out"):
            jobs.alive("autotuner-llama-1")
    assert time.monotonic() - began < 5


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def cluster(home: Path) -> Iterator[RayCluster]:
    with two_nodes(AUTOTUNER_HOME=str(home)) as running:
        yield running


def asked(cluster: RayCluster, what: str) -> Any:
    """What an expression with `jobs` gives in a process that knows the cluster's token."""
    program = (
        "import json; from autotuner.execution.jobs import RayJobs; "
        f"jobs = RayJobs({cluster.dashboard!r}); print(json.dumps({what}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **cluster.environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_job_is_started_once_lives_and_is_stopped_in_order(
    cluster: RayCluster, home: Path, tmp_path: Path
) -> None:
    path = study_file(tmp_path, name="job", workload={
        "scenarios": ["D(50,20)"], "concurrency": [4], "max_requests": 100_000, "max_seconds": 60,
        "request": {"temperature": 0.0},
    })  # fmt: skip
    store = Store(f"sqlite:///{home / 'autotuner.db'}")
    study = Studies(store, home / "studies").create(load_job(path))
    store.hand_over(study, "autotuner-job-1")
    start = "jobs.start('job', 'autotuner-job-1')"
    assert asked(cluster, f"[{start}, {start}, jobs.alive('autotuner-job-1')]") == [
        None,
        None,
        True,
    ]
    assert [each["metadata"] for each in listed(cluster)] == [{"study": "job"}]
    assert wait_for(lambda: store.study("job").state is StudyState.RUNNING, 60)
    assert wait_for(lambda: any(t.state == "BENCHMARKING" for t in store.trials("job")), 60)
    asked(cluster, "jobs.stop('autotuner-job-1')")
    assert wait_for(lambda: store.study("job").state.ended, 60)
    study = store.study("job")
    store.close()
    assert (study.state, study.reason) == (StudyState.CANCELLED, "cancelled by SIGINT")
    assert wait_for(lambda: not asked(cluster, "jobs.alive('autotuner-job-1')"), 30)
    assert asked(cluster, "[jobs.alive('autotuner-none'), jobs.problem()]") == [False, ""]
    assert ours("job") == []


def listed(cluster: RayCluster) -> list[dict[str, Any]]:
    """The cluster's submitted jobs."""
    found = httpx.get(
        f"{cluster.dashboard}/api/jobs/",
        headers={"Authorization": f"Bearer {cluster.token}"},
        trust_env=False,
    ).json()
    return [each for each in found if each["submission_id"]]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_cluster_that_serves_others_says_what_is_missing_until_there_is_a_token(
    cluster: RayCluster, home: Path, tmp_path: Path
) -> None:
    # Who deploys has a token, and settings of their own; the cluster's say nothing of others.
    issue(tmp_path / "tokens.json", "deployer", Role.ADMIN)
    port = service_port()
    done = subprocess.run(
        [sys.executable, "-m", "autotuner", "serve", "--host", "0.0.0.0", "--port", str(port)],
        env={
            **os.environ,
            **cluster.environment,
            "RAY_ADDRESS": cluster.address,
            "AUTOTUNER_HOME": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "serve shutdown" in done.stdout
    address = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=address, trust_env=False, timeout=30) as client:
        refused = client.get("/v1/studies")
        assert refused.status_code == 503, refused.text
        assert refused.headers["content-type"] == "application/problem+json"
        assert "token" in refused.json()["detail"]
        token = issue(home / "tokens.json", "anna", Role.OPERATOR)
        assert wait_for(lambda: client.get("/readyz").status_code == 200, 60, every=0.5)
        assert client.get("/v1/studies").status_code == 401
        client.headers["Authorization"] = f"Bearer {token}"
        assert client.get("/v1/studies").json()["items"] is not None
        assert wait_for(lambda: len(client.get("/v1/cluster").json()["nodes"]) == 2, 30, every=1)
