"""Load points as BenchmarkJobs, all the way: through the load runner and the real client, against
the API server of the tests. A hook plays OME's controller and the kubelet; it leaves recorded files
of genai-bench in a directory that stands for the volume, and runs the helper pod's own script."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autotuner.addresses import free_port
from autotuner.benchmarks.ome_job import OME_JOB
from autotuner.errors import FailureClass, InfrastructureError, TrialError
from autotuner.execution.loadrunner import LoadRunner
from autotuner.execution.trial import Assignment, Kinds
from autotuner.plugins import load_kind
from autotuner.serving import Endpoint
from autotuner.settings import Site
from autotuner.study.workload import Load
from tests.builders import spec
from tests.fakes.crd import MISSING, Object, Resource, have_schemas, ome_resource, ome_resources
from tests.fakes.kube import Change, FakeKube, Refused
from tests.fakes.ome import FakeOME, serves
from tests.processes import wait_for
from tests.simulated import TOKENIZER
from tests.trials import run_trial

pytestmark = pytest.mark.skipif(not have_schemas(), reason=MISSING)

RECORDED = Path(__file__).parents[1] / "data" / "genai-bench" / "load-0" / "results"
RESULT = "D100_20_text-to-text_num_concurrency_4_time_1s.json"
NS, SERVER, PATH = "autotuner", "at-small-0003-ab12c", "bench/small"
LABELS = {"autotuner.io/study": "small", "autotuner.io/trial": "0003"}
JOBS = "benchmarkjobs"
LOAD = Load(0, "D(100,20)", 4, 40, 30.0, 0, 7)
HELD = ["tests/kubelet"]

Behaviour = Callable[["Cluster", Object, Object], None]
"""What becomes of a job and its pod; called in the controller's thread."""


class Cluster:
    """The API server, OME's BenchmarkJob controller, a kubelet, and the volume."""

    def __init__(self, kube: FakeKube, volume: Path) -> None:
        self.kube, self.volume = kube, volume
        self.behave: Behaviour = completes
        self.script: list[str] | None = None
        """What the helper's pod runs instead of its own command."""
        self.asked: list[Object] = []
        """The BenchmarkJobs that there were."""
        kube.on_change(self._controller)

    def folder(self, job: Object) -> Path:
        """Where a job leaves its results."""
        claim, _, path = job["spec"]["outputLocation"]["storageUri"][len("pvc://") :].partition("/")
        assert claim == "results"
        return Path(self.volume, path, job["spec"]["resultFolderName"])

    def state(self, job: Object, state: str, **more: str) -> None:
        self.kube.set_status(JOBS, job["metadata"]["name"], {"state": state, **more}, NS)

    def pod(self, pod: Object, phase: str, log: str | None = None, **more: Any) -> None:
        name, container = pod["metadata"]["name"], pod["spec"]["containers"][0]["name"]
        if log is not None:
            self.kube.set_log(NS, name, container, log)
        self.kube.set_status("pods", name, {"phase": phase, **more}, NS)

    @property
    def left(self) -> list[str]:
        """What there is beside the server."""
        return [
            f"{plural} {each['metadata']['name']}"
            for plural in (JOBS, "jobs", "pods")
            for each in self.kube.find(plural)
        ]

    def _controller(self, change: Change) -> None:
        item, metadata = change.object, change.object["metadata"]
        if change.plural == "pods" and metadata.get("deletionTimestamp"):
            with contextlib.suppress(Refused):  # gone already
                self.kube.patch("pods", metadata["name"], {"metadata": {"finalizers": None}}, NS)
        elif change.type == "ADDED" and change.plural == JOBS:
            self.asked.append(item)
            self.behave(self, item, self._run(item))
        elif change.type == "ADDED" and change.plural == "pods" and "volumes" in item["spec"]:
            self._help(item)

    def _run(self, job: Object) -> Object:
        """A Job of the same name and its pod, as OME and Kubernetes make them."""
        name = job["metadata"]["name"]
        owner = {"name": name, "uid": job["metadata"]["uid"], "kind": "BenchmarkJob"}
        made = self.kube.create(
            "jobs", {"metadata": {"name": name, "namespace": NS, "ownerReferences": [owner]}}
        )
        pod = self.kube.create(
            "pods",
            {
                "metadata": {
                    "name": f"{name}-x7k2p",
                    "namespace": NS,
                    "labels": {"job-name": name, "benchmark": name},
                    "finalizers": HELD,
                    "ownerReferences": [
                        {"name": name, "uid": made["metadata"]["uid"], "kind": "Job"}
                    ],
                },
                "spec": {"containers": [{"name": "genai-bench", "image": "genai-bench"}]},
                "status": {"phase": "Pending"},
            },
        )
        self.state(job, "Running")
        return pod

    def _help(self, pod: Object) -> None:
        """Run the pod's own command, on the directory that stands for its volume."""
        (container,) = pod["spec"]["containers"]
        (mount,) = container["volumeMounts"]
        command = self.script or container["command"]
        argv = [each.replace(f"{mount['mountPath']}/", f"{self.volume}/") for each in command]
        done = subprocess.run(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        self.pod(pod, "Failed" if done.returncode else "Succeeded", done.stdout)


def service() -> Object:
    return {
        "metadata": {"name": SERVER, "namespace": NS, "labels": {**LABELS, "team": "a"}},
        "spec": {"model": {"name": "tiny"}, "runtime": {"name": "vllm-tiny"}, "engine": {}},
    }


def completes(cluster: Cluster, job: Object, pod: Object) -> None:
    """genai-bench measures, and leaves what it leaves."""
    cluster.pod(pod, "Running", "INFO starting\n")
    folder = cluster.folder(job)
    folder.mkdir(parents=True)
    shutil.copy(RECORDED / RESULT, folder)
    (folder / "experiment_metadata.json").write_text("{}", encoding="utf-8")
    (folder / "summary.xlsx").write_bytes(os.urandom(100_000))
    cluster.pod(pod, "Succeeded", "INFO starting\nINFO the whole experiment has finished\n")
    cluster.state(job, "Completed")


def all_failed(cluster: Cluster, job: Object, pod: Object) -> None:
    """Every request is answered 404, which older versions call a success."""
    completes(cluster, job, pod)
    result = cluster.folder(job) / RESULT
    content = json.loads(result.read_text(encoding="utf-8"))
    content["aggregated_metrics"]["run_duration"] = 0
    for row in content["individual_request_metrics"]:
        row.update(dict.fromkeys(row), error_code=404, error_message="no such model")
    (result.parent / "debug_for_run_D100_20_4.json").write_text(json.dumps(content))
    result.unlink()


def really(url: str) -> Behaviour:
    """Run the real genai-bench on a server, with the command line that OME makes of a job."""

    def behave(cluster: Cluster, job: Object, pod: Object) -> None:
        cluster.pod(pod, "Running", "")
        asked, folder = job["spec"], cluster.folder(job)
        folder.parent.mkdir(parents=True)
        argv = [
            *(str(Path(sys.executable).with_name("genai-bench")), "benchmark"),
            *("--api-backend", "vllm", "--api-base", url, "--api-key", "sample-key"),
            *("--api-model-name", "vllm-model", "--model-tokenizer", str(TOKENIZER)),
            *("--task", asked["task"]),
            *("--max-time-per-run", str(asked["maxTimePerIteration"])),
            *("--max-requests-per-run", str(asked["maxRequestsPerIteration"])),
            *(each for item in asked["trafficScenarios"] for each in ("--traffic-scenario", item)),
            *(
                each
                for item in asked["numConcurrency"]
                for each in ("--num-concurrency", str(item))
            ),
            *("--experiment-base-dir", str(folder.parent)),
            *("--experiment-folder-name", folder.name),
            *("--log-dir", str(cluster.volume)),
        ]
        done = subprocess.run(
            argv,
            env={**os.environ, "ENABLE_UI": "false", "HF_HUB_OFFLINE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=90,
        )
        cluster.pod(pod, "Failed" if done.returncode else "Succeeded", done.stdout)
        if done.returncode:
            cluster.state(job, "Failed", failureMessage="Job has failed")
        else:
            cluster.state(job, "Completed")

    return behave


def fails(cluster: Cluster, job: Object, pod: Object) -> None:
    line = "INFO Received error response from server. Error code: 404, message: no\n"
    cluster.pod(pod, "Failed", line * 3 + "ValueError: No values found for metric 'ttft'\n")
    cluster.state(job, "Failed", failureMessage="Job has reached the specified backoff limit")


def runs_on(cluster: Cluster, job: Object, pod: Object) -> None:
    cluster.pod(pod, "Running", "INFO starting\n")


def waits(cluster: Cluster, job: Object, pod: Object) -> None:
    said = "0/3 nodes are available: persistentvolumeclaim not found"
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    cluster.pod(pod, "Pending", conditions=[{**condition, "message": said}])


def has_no_image(cluster: Cluster, job: Object, pod: Object) -> None:
    waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
    container = {"name": "genai-bench", "state": {"waiting": waiting}}
    cluster.pod(pod, "Pending", containerStatuses=[container])


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    resources = [ome_resource("inferenceservices", strict=False), ome_resource(JOBS)]
    with FakeKube(resources) as kube:
        config = kube.kubeconfig(tmp_path / "kubeconfig")
        monkeypatch.setenv("KUBECONFIG", str(config))
        kube.create("inferenceservices", service())
        yield Cluster(kube, tmp_path / "volume")


class Trial:
    """The part of a trial that loads its server."""

    def __init__(self, directory: Path, **options: Any) -> None:
        study = spec(
            backend={"kind": "ome", "ome": {"model": "tiny", "runtime": "vllm-tiny"}},
            benchmark={"kind": "ome-job", "pvc": "results", "path": PATH, **options},
        )
        self.benchmark: Any = OME_JOB.open(study, Site())
        self.directory = directory
        self.runner = LoadRunner(
            self.benchmark.runner("/models/tiny"), directory, study="small", trial=3, site=Site()
        )

    def run(self, load: Load = LOAD, **changes: str) -> Path:
        """Run a load point; its directory. `changes` are of the command's options."""
        into = self.directory / f"load-{load.index}"
        into.mkdir()
        endpoint = Endpoint("http://127.0.0.1:1", "tiny", SERVER)
        argv = self.benchmark.command(endpoint, load, into, api="vllm", tokenizer="/models/tiny")
        for name, value in changes.items():
            argv[argv.index(f"--{name.replace('_', '-')}") + 1] = value
        deadline = time.monotonic() + 90
        code = self.runner.run(
            argv, into, deadline=deadline, clock=time.monotonic, watch=lambda: None
        )
        assert code is not None, "it did not answer"
        assert (code == 0) == (into / "window.json").exists()
        return into

    def refusal(self, into: Path) -> TrialError:
        with pytest.raises(TrialError) as caught:
            self.benchmark.read(into, max_error_rate=0.05)
        assert caught.value.failure is FailureClass.BENCHMARK
        return caught.value


@pytest.fixture
def started(tmp_path: Path, cluster: Cluster) -> Iterator[Callable[..., Trial]]:
    trials: list[Trial] = []

    def start(**options: Any) -> Trial:
        directory = tmp_path / f"trial-{len(trials)}"
        directory.mkdir()
        trials.append(Trial(directory, **options))
        return trials[-1]

    yield start
    for each in trials:
        each.runner.stop(10)


def test_a_load_point_is_measured_and_nothing_is_left(
    cluster: Cluster, started: Callable[..., Trial]
) -> None:
    trial = started()
    into = trial.run()
    measured = trial.benchmark.read(into, max_error_rate=0.05)
    assert len(measured.completed) == 41
    assert measured.seconds == 1.2580978949999917
    names = {each.name for each in (into / "results").iterdir()}
    assert names == {RESULT, "experiment_metadata.json"}
    assert "experiment has finished" in (into / "genai-bench.log").read_text(encoding="utf-8")
    assert cluster.left == []
    (job,) = cluster.asked
    assert job["metadata"]["labels"] == LABELS
    (owner,) = job["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("InferenceService", SERVER)
    made = [each for each in cluster.kube.requests if each.method == "POST"]
    assert len(made) == 2, "a job and a helper"
    assert all(each.query["fieldValidation"] == "Strict" for each in made)


def test_each_load_point_has_a_folder_of_its_own_on_the_volume(
    cluster: Cluster, started: Callable[..., Trial]
) -> None:
    trial = started()
    trial.run()
    # As when a study is deleted and begun again: all names would be the same.
    again = started()
    again.run()
    again.run(Load(1, "D(100,20)", 4, 40, 30.0, 0, 7))
    assert len({cluster.folder(job) for job in cluster.asked}) == 3
    assert cluster.left == []


def test_a_mounted_volume_is_read_without_a_helper(
    cluster: Cluster, started: Callable[..., Trial]
) -> None:
    trial = started(mounted=str(cluster.volume))
    into = trial.run()
    assert len(trial.benchmark.read(into, max_error_rate=0.05).completed) == 41
    made = [each.body["kind"] for each in cluster.kube.requests if each.method == "POST"]
    assert made == ["BenchmarkJob"]
    assert cluster.left == []


def test_a_failed_job_is_told_at_once_with_its_words(
    cluster: Cluster, started: Callable[..., Trial]
) -> None:
    cluster.behave = fails
    trial = started()
    error = trial.refusal(trial.run())
    assert "Job has reached the specified backoff limit" in error.reason
    assert "404: 3" in error.reason
    assert "vllm-model" in error.advice
    assert "No values found" in error.log_tail
    assert cluster.left == []


def test_requests_that_all_failed_are_no_measurement_whatever_ome_says(
    cluster: Cluster, started: Callable[..., Trial]
) -> None:
    cluster.behave = all_failed
    trial = started()
    error = trial.refusal(trial.run())
    assert "41 of 41 requests failed (404: 41)" in error.reason
    assert "vllm-model" in error.advice


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (None, "no results on the volume"),
        (["sh", "-c", "echo H4sIAAAA"], "are not whole"),
        (["sh", "-c", "tar -cf - --files-from /dev/null | gzip -c | base64"], "left no result"),
    ],
)
def test_a_volume_without_results_is_no_measurement(
    cluster: Cluster, started: Callable[..., Trial], script: list[str] | None, said: str
) -> None:
    def loses(cluster: Cluster, job: Object, pod: Object) -> None:
        completes(cluster, job, pod)
        shutil.rmtree(cluster.folder(job))

    cluster.behave, cluster.script = loses, script
    trial = started()
    assert said in trial.refusal(trial.run()).reason
    assert cluster.left == []


def test_a_job_that_does_not_end_is_deleted(
    cluster: Cluster, started: Callable[..., Trial]
) -> None:
    cluster.behave = runs_on
    trial = started()
    error = trial.refusal(trial.run(run_seconds="1"))
    assert "did not end within 1 s" in error.reason
    assert cluster.left == []


@pytest.mark.parametrize(
    ("behave", "said"),
    [
        (has_no_image, "ImagePullBackOff: no such image"),
        (waits, "Unschedulable: 0/3 nodes are available: persistentvolumeclaim not found"),
    ],
)
def test_a_pod_that_cannot_start_is_the_clusters_fault(
    cluster: Cluster, started: Callable[..., Trial], behave: Behaviour, said: str
) -> None:
    cluster.behave = behave
    trial = started(start_seconds=1)
    with pytest.raises(InfrastructureError, match=said):
        trial.run()
    assert wait_for(lambda: cluster.left == [], 5)


def test_what_a_webhook_refuses_is_the_operators(
    cluster: Cluster, started: Callable[..., Trial]
) -> None:
    def webhook(resource: Resource, item: Object) -> None:
        if resource.plural == JOBS:
            raise Refused(403, "Forbidden", 'admission webhook "b" denied the request: no PVC')

    cluster.kube.admission.append(webhook)
    with pytest.raises(InfrastructureError, match="denied the request: no PVC"):
        started().run()


def test_a_right_that_is_lacking_is_said(cluster: Cluster, started: Callable[..., Trial]) -> None:
    cluster.kube.denied.add(("create", "pods"))
    with pytest.raises(InfrastructureError, match='cannot create resource "pods"'):
        started().run()
    assert wait_for(lambda: cluster.left == [], 5)


def test_a_cluster_without_the_kind_is_said(
    cluster: Cluster, started: Callable[..., Trial]
) -> None:
    del cluster.kube.resources[JOBS]
    with pytest.raises(InfrastructureError, match=r"creating BenchmarkJob .*no such kind"):
        started().run()


@pytest.mark.parametrize("text", [None, "clusters: [\n"])
def test_without_a_cluster_the_runner_says_so(
    started: Callable[..., Trial], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None
) -> None:
    config = tmp_path / "broken"
    if text is not None:
        config.write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(config))
    with pytest.raises(InfrastructureError, match="no Kubernetes cluster is configured"):
        started().run()


def test_a_whole_trial_on_the_ome_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A reaper would look for this server long after it has closed.
    monkeypatch.setattr("autotuner.backends.reaper.watch", lambda *_: None)
    study = spec(
        engine={"kind": "vllm"},
        backend={"kind": "ome", "ome": {"model": "tiny", "runtime": "vllm-tiny"}},
        benchmark={"kind": "ome-job", "pvc": "results", "path": PATH},
        workload={
            "scenarios": ["D(100,20)"],
            "concurrency": [1, 4],
            "max_requests": 40,
            "warmup_requests": 0,
        },
    )
    OME_JOB.check(study)
    kinds = Kinds(
        engine=load_kind("engine", "vllm"),
        backend=load_kind("backend", "ome").open(study.backend.options, Site()),
        benchmark=OME_JOB.open(study, Site()),
    )
    with FakeKube(ome_resources()) as kube, FakeOME(kube, serves):
        monkeypatch.setenv("KUBECONFIG", str(kube.kubeconfig(tmp_path / "kubeconfig")))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        cluster = Cluster(kube, tmp_path / "volume")
        outcome = run_trial(Assignment(study, 3, {}, str(tmp_path / "trial-3")), kinds)
        assert cluster.left == []
        assert kube.find("inferenceservices") == []
    assert outcome.reason == ""
    assert [point.concurrency for point in outcome.load_points] == [1, 4]
    assert all(point.metrics["requests"] == 41 for point in outcome.load_points)
    for job in cluster.asked:
        server = job["spec"]["endpoint"]["inferenceService"]
        (owner,) = job["metadata"]["ownerReferences"]
        assert server == {"name": owner["name"], "namespace": NS}
        assert job["metadata"]["labels"]["autotuner.io/study"] == "small"
        assert job["metadata"]["labels"]["autotuner.io/trial"] == "0003"


@contextlib.contextmanager
def simulated(served_name: str) -> Iterator[str]:
    """The simulated engine's server; its URL."""
    port = free_port()
    argv = [sys.executable, "-m", "autotuner.engines.simulated_server", "--model", str(TOKENIZER)]
    argv += ["--served-model-name", served_name, "--port", str(port), "--speed", "20"]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        url = f"http://127.0.0.1:{port}"
        try:
            assert wait_for(lambda: answers(f"{url}/health"), 30)
            yield url
        finally:
            server.kill()


def answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
        return bool(answer.status == 200)
    return False


@pytest.mark.slow
def test_the_real_genai_bench_leaves_what_is_read(
    cluster: Cluster, started: Callable[..., Trial]
) -> None:
    with simulated("vllm-model") as url:
        cluster.behave = really(url)
        trial = started()
        into = trial.run()
        measured = trial.benchmark.read(into, max_error_rate=0.0)
    assert len(measured.completed) >= LOAD.max_requests
    assert {each.output_tokens for each in measured.completed} == {20}
    assert 0 < measured.seconds < 60
    assert cluster.left == []


@pytest.mark.slow
def test_a_server_that_is_called_otherwise_is_told_by_the_codes_of_its_answers(
    cluster: Cluster, started: Callable[..., Trial]
) -> None:
    with simulated("tiny") as url:
        cluster.behave = really(url)
        trial = started()
        error = trial.refusal(trial.run())
    assert "Job has failed; requests failed with 404: " in error.reason
    assert "vllm-model" in error.advice


def begun(cluster: Cluster, trial: Trial) -> None:
    """Have a job running that does not end, and nobody waiting for it."""
    cluster.behave = runs_on
    into = trial.directory / "load-0"
    into.mkdir()
    endpoint = Endpoint("http://127.0.0.1:1", "tiny", SERVER)
    argv = trial.benchmark.command(endpoint, LOAD, into, api="vllm", tokenizer="")

    class Enough(Exception):
        pass

    def watch() -> None:
        if any("x7k2p" in each for each in cluster.left):
            raise Enough

    deadline = time.monotonic() + 60
    with pytest.raises(Enough):
        trial.runner.run(argv, into, deadline=deadline, clock=time.monotonic, watch=watch)


def test_a_load_that_is_stopped_leaves_nothing(
    cluster: Cluster, started: Callable[..., Trial]
) -> None:
    trial = started()
    begun(cluster, trial)
    trial.runner.stop(10)
    assert wait_for(lambda: cluster.left == [], 5)


def test_a_load_whose_runner_is_killed_goes_with_its_server(
    cluster: Cluster, started: Callable[..., Trial]
) -> None:
    trial = started()
    begun(cluster, trial)
    assert trial.runner._program.alive()
    pid = trial.runner._program.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    trial.runner.stop(10)
    assert cluster.left, "nobody was left to delete it"
    cluster.kube.delete("inferenceservices", SERVER, NS)
    assert wait_for(lambda: cluster.left == [], 5)
