"""The load as a BenchmarkJob: manifests by equality and against OME's schema, studies that it
cannot measure, and what objects, logs and files say."""

from __future__ import annotations

import base64
import gzip
import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from autotuner import kube
from autotuner.benchmarks import ome_job_program as program
from autotuner.benchmarks.ome_job import OME_JOB, Options, benchmark_job, helper_pod
from autotuner.errors import ConfigError, FailureClass, InfrastructureError, TrialError
from autotuner.serving import Endpoint
from autotuner.settings import Site
from autotuner.study.workload import Load
from tests.builders import spec
from tests.fakes.crd import MISSING, have_schemas, ome_resource, strict_problems

RECORDED = Path(__file__).parents[1] / "data" / "genai-bench" / "load-0"
RESULT = "D100_20_text-to-text_num_concurrency_4_time_1s.json"
SERVER = "at-small-0003-ab12c"
LOAD = Load(2, "D(100,20)", 4, 200, 90.0, 0, 7)
OPTIONS = Options(pvc="results", path="bench/small")
BENCHMARK = {"kind": "ome-job", "pvc": "results", "path": "bench/small"}


def study(**changes: Any) -> Any:
    """A study that a BenchmarkJob can measure."""
    content = {
        "backend": {"kind": "ome", "ome": {"namespace": "tuning", "model": "m", "runtime": "r"}},
        "benchmark": BENCHMARK,
        "workload": {"scenarios": ["D(100,20)"], "concurrency": [4], "warmup_requests": 0},
    }
    return spec(**{**content, **changes})


def command(load: Load = LOAD, site: Site | None = None, **options: Any) -> list[str]:
    benchmark = OME_JOB.open(study(benchmark={**BENCHMARK, **options}), site or Site())
    endpoint = Endpoint("http://10.0.0.1:8080", "tiny", SERVER)
    return benchmark.command(endpoint, load, Path("/out"), api="vllm", tokenizer="/models/tiny")


def option(argv: list[str], name: str) -> str:
    assert argv.count(name) == 1
    return argv[argv.index(name) + 1]


def test_the_job_of_a_load_point() -> None:
    assert benchmark_job(SERVER, LOAD, OPTIONS, "tuning") == {
        "apiVersion": "ome.io/v1beta1",
        "kind": "BenchmarkJob",
        "metadata": {"name": "at-small-0003-ab12c-l2-$MARK", "namespace": "tuning"},
        "spec": {
            "endpoint": {"inferenceService": {"name": SERVER, "namespace": "tuning"}},
            "task": "text-to-text",
            "trafficScenarios": ["D(100,20)"],
            "numConcurrency": [4],
            "maxTimePerIteration": 2,
            "maxRequestsPerIteration": 200,
            "outputLocation": {"storageUri": "pvc://results/bench/small"},
            "resultFolderName": "at-small-0003-ab12c-l2-$MARK",
        },
    }


@pytest.mark.parametrize(
    ("seconds", "minutes"), [(0.5, 1), (60.0, 1), (60.1, 2), (120.0, 2), (600.0, 10)]
)
def test_the_window_is_in_whole_minutes_and_at_least_one(seconds: float, minutes: int) -> None:
    job = benchmark_job(SERVER, Load(0, "D(1,2)", 1, 9, seconds, 0, 0), OPTIONS, "tuning")
    assert job["spec"]["maxTimePerIteration"] == minutes
    assert type(job["spec"]["maxTimePerIteration"]) is int


def test_image_and_secret_are_said_only_where_a_study_names_them() -> None:
    options = Options(pvc="p", path="b", image="reg/genai-bench:0.0.5", huggingface_secret="hf")
    job = benchmark_job(SERVER, LOAD, options, "tuning")["spec"]
    assert job["podOverride"] == {"image": "reg/genai-bench:0.0.5"}
    assert job["huggingFaceSecretReference"] == {"name": "hf"}


@pytest.mark.skipif(not have_schemas(), reason=MISSING)
@pytest.mark.parametrize("more", [{}, {"image": "reg/g:1", "huggingface_secret": "hf"}])
def test_a_strict_api_server_takes_the_job(more: dict[str, Any]) -> None:
    options = Options(pvc="results", path="bench/small", **more)
    text = json.dumps(benchmark_job(SERVER, LOAD, options, "tuning"))
    job = program.owned(program.marked(text, "a1b2c"), service())
    assert strict_problems(ome_resource("benchmarkjobs"), job) == []
    job["spec"]["apiKey"] = "x"
    assert strict_problems(ome_resource("benchmarkjobs"), job), "the check checks"


@pytest.mark.parametrize("length", [5, 50, 63, 200])
def test_names_fit_into_a_label(length: int) -> None:
    load = Load(123, "D(1,2)", 1, 9, 60.0, 0, 0)
    job = benchmark_job("a" * length, load, OPTIONS, "tuning")
    job = program.marked(json.dumps(job), "a1b2c")
    assert len(job["metadata"]["name"]) <= 63
    assert job["metadata"]["name"].endswith("-l123-a1b2c")
    assert job["spec"]["endpoint"]["inferenceService"]["name"] == "a" * length


def test_the_helper_reads_the_volume_and_cannot_write_it() -> None:
    pod = helper_pod("job", "bench/small/job", OPTIONS)
    assert pod["metadata"] == {"name": "job-results"}
    (container,) = pod["spec"]["containers"]
    assert container["command"][-1] == "/results/bench/small/job"
    assert container["volumeMounts"] == [
        {"name": "results", "mountPath": "/results", "readOnly": True}
    ]
    (volume,) = pod["spec"]["volumes"]
    assert volume["persistentVolumeClaim"] == {"claimName": "results"}
    assert pod["spec"]["restartPolicy"] == "Never"
    assert pod["spec"]["activeDeadlineSeconds"] > 0


def test_the_command_is_a_whole_line_of_text_items() -> None:
    argv = command(site=Site(kube_context="prod"))
    assert all(isinstance(item, str) for item in argv)
    assert argv[0] == sys.executable
    assert Path(argv[2]).is_file()
    assert option(argv, "--context") == "prod"
    assert option(argv, "--into") == "/out"
    assert json.loads(option(argv, "--job")) == benchmark_job(SERVER, LOAD, OPTIONS, "tuning")
    folder = "bench/small/at-small-0003-ab12c-l2-$MARK"
    name = "at-small-0003-ab12c-l2-$MARK"
    assert json.loads(option(argv, "--helper")) == helper_pod(name, folder, OPTIONS)
    assert "--mounted" not in argv
    assert argv == command(site=Site(kube_context="prod"))


def test_a_mounted_volume_needs_no_helper() -> None:
    argv = command(mounted="/mnt/results")
    assert option(argv, "--mounted") == "/mnt/results/bench/small/at-small-0003-ab12c-l2-$MARK"
    assert "--helper" not in argv


def test_the_namespace_is_that_of_the_servers() -> None:
    here = {"kind": "ome", "ome": {"model": "m", "runtime": "r"}}
    benchmark = OME_JOB.open(study(backend=here), Site(ome_namespace="site"))
    argv = benchmark.command(Endpoint("", "t", SERVER), LOAD, Path("/o"), api="", tokenizer="")
    assert json.loads(option(argv, "--job"))["metadata"]["namespace"] == "site"


def test_the_runner_gives_up_later_than_its_command() -> None:
    benchmark: Any = OME_JOB.open(study(), Site())
    argv = command()
    own = sum(float(option(argv, f"--{each}-seconds")) for each in ("start", "run", "results"))
    assert float(option(argv, "--run-seconds")) >= 1.5 * 120
    assert benchmark.seconds_at_most(LOAD) > own
    assert benchmark.runner("/models/tiny")[:3] == argv[:3]


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"backend": {"kind": "process"}}, "benchmark.kind"),
        ({"benchmark": {"kind": "ome-job", "path": "b"}}, "benchmark.pvc"),
        ({"benchmark": {"kind": "ome-job", "pvc": "p"}}, "benchmark.path"),
        ({"benchmark": {**BENCHMARK, "path": "/b"}}, "benchmark.path"),
        ({"benchmark": {**BENCHMARK, "path": "a/../b"}}, "benchmark.path"),
        ({"benchmark": {**BENCHMARK, "path": "a b"}}, "benchmark.path"),
        ({"benchmark": {**BENCHMARK, "pvc": "My_PVC"}}, "benchmark.pvc"),
        ({"benchmark": {**BENCHMARK, "mounted": "mnt"}}, "benchmark.mounted"),
        ({"benchmark": {**BENCHMARK, "request": {}}}, "benchmark.request"),
        ({"model": {"path": "/models/tiny", "tokenizer": "/other"}}, "model.tokenizer"),
    ],
)
def test_a_study_it_cannot_measure_is_refused(changes: dict[str, Any], where: str) -> None:
    OME_JOB.check(study())
    with pytest.raises(ConfigError) as caught:
        OME_JOB.check(study(**changes))
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("work", "where"),
    [
        ({"warmup_requests": None}, "workload.warmup_requests"),
        ({"warmup_requests": 4}, "workload.warmup_requests"),
        ({"request": {"temperature": 0.5}}, "workload.request"),
    ],
)
def test_a_load_it_cannot_make_is_refused(work: dict[str, Any], where: str) -> None:
    whole = {"scenarios": ["D(100,20)"], "concurrency": [4], "warmup_requests": 0, **work}
    with pytest.raises(ConfigError) as caught:
        OME_JOB.check(study(workload=whole))
    assert caught.value.where == where
    assert "genai-bench" in caught.value.hint


def read(into: Path, rate: float = 0.05) -> Any:
    return OME_JOB.open(study(), Site()).read(into, max_error_rate=rate)


def test_its_files_are_read_as_genai_benchs() -> None:
    assert len(read(RECORDED).completed) == 41


def test_a_server_that_does_not_know_the_model_is_told_of_omes_name(tmp_path: Path) -> None:
    (tmp_path / "genai-bench.log").write_text(
        "Error: BenchmarkJob x failed: no; requests failed with 404: 434\n", encoding="utf-8"
    )
    with pytest.raises(TrialError) as caught:
        read(tmp_path)
    assert caught.value.failure is FailureClass.BENCHMARK
    assert "404: 434" in caught.value.reason
    assert "vllm-model" in caught.value.advice
    (tmp_path / "genai-bench.log").write_text("Error: failed with 500: 404\n", encoding="utf-8")
    with pytest.raises(TrialError) as caught:
        read(tmp_path)
    assert caught.value.advice == ""


# What the program makes of objects, logs and files.


def service(name: str = SERVER) -> dict[str, Any]:
    return {
        "apiVersion": "ome.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": name,
            "namespace": "tuning",
            "uid": "u-1",
            "labels": {"autotuner.io/study": "small", "autotuner.io/trial": "0003", "team": "a"},
        },
    }


def test_what_is_made_belongs_to_the_server_and_carries_our_labels_only() -> None:
    pod = program.owned({"kind": "Pod", "metadata": {"name": "p"}, "spec": {}}, service())
    assert pod["metadata"] == {
        "name": "p",
        "namespace": "tuning",
        "labels": {"autotuner.io/study": "small", "autotuner.io/trial": "0003"},
        "ownerReferences": [
            {
                "apiVersion": "ome.io/v1beta1",
                "kind": "InferenceService",
                "name": SERVER,
                "uid": "u-1",
            }
        ],
    }
    assert pod["spec"] == {}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"status": {"phase": "Pending", "containerStatuses": [{"name": "a", "state": state}]}}


def ended(how: str, **status: Any) -> dict[str, Any]:
    state = {"terminated": {"reason": how, "exitCode": 1}}
    containers = [{"name": "a", "state": state}]
    return {"status": {"phase": "Failed", "containerStatuses": containers, **status}}


UNSCHEDULED = {
    "status": {
        "phase": "Pending",
        "conditions": [
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": 'persistentvolumeclaim "results" not found',
            }
        ],
    }
}


def test_a_pod_says_why_it_does_not_start() -> None:
    assert program.stuck(waiting("ImagePullBackOff", 'image "x"\nis not')) == (
        'ImagePullBackOff: image "x" is not'
    )
    for passing in ("ContainerCreating", "ErrImagePull", "PodInitializing"):
        assert program.stuck(waiting(passing)) is None
    assert program.stuck(UNSCHEDULED) is None, "it may pass"
    assert "results" in program.delay(UNSCHEDULED)
    assert program.delay(waiting("ContainerCreating")) == "ContainerCreating"
    assert program.delay({}) == program.delay({"status": {"phase": "Running"}}) == ""
    assert not program.has_started({})
    assert not program.has_started(UNSCHEDULED)
    assert all(
        program.has_started({"status": {"phase": each}})
        for each in ("Running", "Succeeded", "Failed")
    )


def test_a_pod_that_its_node_ended_is_no_fault_of_the_server() -> None:
    assert program.broken(ended("OOMKilled")) == "OOMKilled"
    assert program.broken(ended("", reason="Evicted", message="disk")) == "Evicted: disk"
    assert program.broken(ended("Error")) is None
    assert program.broken({"status": {"phase": "Succeeded"}}) is None


def test_codes_of_failed_requests_are_counted_in_a_log() -> None:
    line = "INFO Received error response from server. Error code: {}, message: no\n"
    assert program.http_errors(line.format(404) * 3 + line.format(500)) == "404: 3, 500: 1"
    assert program.http_errors("ValueError: 1 must be greater than 2") == ""


def answering(*errors: Exception) -> Any:
    """A call that fails so, once each, and then answers."""
    left = list(errors)

    def call() -> str:
        if left:
            raise left.pop(0)
        return "answer"

    return call


def test_an_api_server_may_be_away_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube, "FIRST_PAUSE", 0.0)
    away = (ApiException(status=503), HTTPError("refused"), ApiException(status=429), OSError())
    assert kube.asked("it", answering(*away), patience=60) == "answer"
    for error in away:
        with pytest.raises(InfrastructureError, match="it"):
            kube.asked("it", answering(error))
    with pytest.raises(kube.Missing):
        kube.asked("it", answering(ApiException(status=404)), patience=60)


@pytest.mark.parametrize(
    ("status", "known"),
    [
        (400, kube.NotNow),
        (401, kube.Denied),
        (403, kube.Denied),
        (409, kube.Changed),
        (422, InfrastructureError),
        (0, InfrastructureError),
    ],
)
def test_what_it_refuses_it_refuses_again(status: int, known: type[Exception]) -> None:
    error = ApiException(status=status)
    error.body = json.dumps({"message": "no, and why"})
    with pytest.raises(InfrastructureError, match="no, and why") as raised:
        kube.asked("it", answering(error), patience=60)
    assert type(raised.value) is known


def packed(files: dict[str, bytes], **kinds: bytes) -> str:
    """Files as a helper pod prints them."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.type = len(content), kinds.get("type", tarfile.REGTYPE)
            archive.addfile(member, io.BytesIO(content))
    return base64.encodebytes(gzip.compress(out.getvalue())).decode()


def test_results_come_whole_out_of_a_log_or_not_at_all() -> None:
    files = {"a.json": b"{}", "b.json": bytes(range(256)) * 300}
    log = packed(files)
    assert program.unpacked(log) == files
    lines = log.splitlines(keepends=True)
    rotated, cut = "".join(lines[5:]), "".join(lines[:-5])
    for broken in (rotated, cut, "sh: tar: not found\n" + log):
        with pytest.raises(ValueError, match="not whole"):
            program.unpacked(broken)
    assert program.unpacked(packed({})) == {}


def test_results_stay_in_their_directory() -> None:
    assert program.unpacked(packed({"../../etc/a.json": b"1"})) == {"a.json": b"1"}
    assert program.unpacked(packed({"a.json": b""}, type=tarfile.SYMTYPE)) == {}


JOB = {"spec": {"maxTimePerIteration": 2}}


def results(**changes: Any) -> dict[str, bytes]:
    content = json.loads((RECORDED / "results" / RESULT).read_text(encoding="utf-8"))
    rows = content["individual_request_metrics"]
    if "failed" in changes:
        for row in rows[: changes["failed"]]:
            row["error_code"] = 404
    if "seconds" in changes:
        content["aggregated_metrics"]["run_duration"] = changes["seconds"]
    content["_time_unit"] = changes.get("unit", "s")
    name = changes.get("name", RESULT)
    return {"experiment_metadata.json": b"{}", name: json.dumps(content).encode()}


def test_the_window_is_genai_benchs_own() -> None:
    assert program.window_of(results(), JOB) == {
        "seconds": 1.2580978949999917,
        "warmup_seconds": 0.0,
        "requests": 41,
    }


def test_a_run_of_failures_has_a_window_so_that_they_are_told() -> None:
    debug = results(name="debug_for_run_D100_20_4.json", seconds=0, failed=41)
    window = program.window_of(debug, JOB)
    assert window is not None
    assert window["seconds"] == 120.0


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"experiment_metadata.json": b"{}"},
        {RESULT: b"{"},
        {RESULT: b"null"},
        {RESULT: b"[]"},
        results(seconds=0),
        results(seconds=0, failed=40),
        results(seconds=None),
        results(unit="ms"),
    ],
)
def test_without_a_duration_there_is_no_window(files: dict[str, bytes]) -> None:
    assert program.window_of(files, JOB) is None


def test_a_result_goes_before_a_debug_file() -> None:
    both = {**results(), **results(name="debug_for_run_D100_20_4.json", seconds=9)}
    window = program.window_of(both, JOB)
    assert window is not None
    assert window["seconds"] == 1.2580978949999917
