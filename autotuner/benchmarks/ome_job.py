"""The load as an OME BenchmarkJob: genai-bench in a pod of the cluster, its results on a volume.

For clusters in which load must come from inside. It measures less carefully than `genai-bench`
beside the tuner, because OME starts genai-bench as it is: no warm-up, prompts that differ from
trial to trial, whole minutes, and what is in flight at the end is lost. So the two are not to be
compared with each other. Pure: manifests and a command line; the program beside it does the rest.
"""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from autotuner.benchmarks.base import Benchmark, Opened
from autotuner.benchmarks.genai_bench import GENAI_BENCH
from autotuner.errors import ConfigError, TrialError
from autotuner.serving import Endpoint
from autotuner.settings import Site
from autotuner.study.metrics import Measurement
from autotuner.study.spec import StudySpec, options_of
from autotuner.study.workload import Load

PROGRAM = Path(__file__).with_name("ome_job_program.py")
# -P: the program's directory holds modules that are named as others' packages are.
_PYTHON = (sys.executable, "-P", str(PROGRAM))

MARK = "$MARK"
"""Stands in names for what the program puts there, new each time: a folder on the volume must be
fresh, and what a killed attempt left must not be taken for this."""

LONGEST_NAME = 63
"""OME puts the job's name into a label."""

RESULTS_SECONDS = 120.0
"""A helper pod's image, start and output."""

GONE_SECONDS = 60.0
"""Deleted to gone: Kubernetes grants a pod 30 s to end by itself."""

_VOLUME = "/results"
_NAME = r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"
_STEP = r"[A-Za-z0-9_][A-Za-z0-9._-]*"

_HELPER = 'cd "$0" && tar -cf - *.json 2>/dev/null | gzip -c | base64'
"""Its log is the results. Plots and workbooks stay where they are: a log holds some 10 MiB."""

_OTHER_NAME = (
    "OME before v1.2 asks every server for the model 'vllm-model': "
    "with it, set model.served_name: vllm-model"
)


class Options(BaseModel):
    """Options of ``benchmark: {kind: ome-job}``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    pvc: str = Field(
        pattern=_NAME,
        description="PersistentVolumeClaim for results, in the namespace of the servers; "
        "ReadWriteMany where trials run on several nodes.",
    )
    path: str = Field(
        pattern=rf"^{_STEP}(/{_STEP})*$",
        description="Directory on it. Each load point gets a new one in it, which stays.",
    )
    image: str | None = Field(
        default=None, min_length=1, description="Image with genai-bench; OME's own by default."
    )
    huggingface_secret: str | None = Field(
        default=None, pattern=_NAME, description="Secret that OME gives to genai-bench."
    )
    mounted: str | None = Field(
        default=None,
        description="Where every machine that runs trials has the volume mounted; by default a "
        "helper pod reads it.",
    )
    helper_image: str = Field(
        default="busybox:1.37",
        min_length=1,
        description="Image of that pod: any with sh, tar, gzip and base64.",
    )
    start_seconds: float = Field(
        default=300.0,
        gt=0,
        description="Until a job's pod runs, at most; its image may have to be pulled.",
    )

    @field_validator("mounted")
    @classmethod
    def _absolute(cls, mounted: str | None) -> str | None:
        if mounted is not None and not mounted.startswith("/"):
            raise ValueError("must be an absolute path")
        return mounted


class _OMEJob:
    """The kind; `open` gives the benchmark of a study."""

    def check(self, spec: StudySpec) -> None:
        _options(spec)
        if spec.backend.kind != "ome":
            raise ConfigError(
                f"'ome-job' puts its load on an InferenceService; backend.kind is "
                f"{spec.backend.kind!r}",
                where="benchmark.kind",
                hint="use backend.kind: ome, or benchmark.kind: genai-bench",
            )
        if spec.workload.warmup_requests != 0:
            raise ConfigError(
                "a BenchmarkJob cannot warm up before it measures",
                where="workload.warmup_requests",
                hint="write `warmup_requests: 0`, or use benchmark.kind: genai-bench",
            )
        if spec.workload.request:
            raise ConfigError(
                f"{', '.join(sorted(spec.workload.request))}: OME takes fields of requests in a "
                "BenchmarkJob, but never passes them on",
                where="workload.request",
                hint="leave them out, or use benchmark.kind: genai-bench",
            )
        if spec.model.tokenizer not in (None, spec.model.path):
            raise ConfigError(
                f"{spec.model.tokenizer!r}: a BenchmarkJob counts with the model's own tokenizer",
                where="model.tokenizer",
                hint="leave it out, or use benchmark.kind: genai-bench",
            )

    def open(self, spec: StudySpec, site: Site) -> Benchmark:
        """The benchmark of this study, for machines such as these."""
        namespace = spec.backend.options.get("namespace") or site.ome_namespace
        return _OpenOMEJob(_options(spec), namespace=namespace, context=site.kube_context)


class _OpenOMEJob(_OMEJob):
    def __init__(self, options: Options, *, namespace: str, context: str) -> None:
        self._options = options
        self._namespace = namespace
        self._context = context

    def command(
        self,
        endpoint: Endpoint,
        load: Load,
        into: Path,
        *,
        api: str,  # noqa: ARG002 - OME chooses by the variable PROTOCOL_VERSION of the server
        tokenizer: str,  # noqa: ARG002 - OME's
    ) -> list[str]:
        options = self._options
        job = benchmark_job(endpoint.server, load, options, self._namespace)
        folder = f"{options.path}/{job['spec']['resultFolderName']}"
        source = (
            ("--mounted", f"{options.mounted}/{folder}")
            if options.mounted
            else ("--helper", _json(helper_pod(job["metadata"]["name"], folder, options)))
        )
        return [
            *_PYTHON,
            "run",
            *("--context", self._context),
            *("--start-seconds", str(options.start_seconds)),
            *("--run-seconds", str(run_seconds(load))),
            *("--results-seconds", str(RESULTS_SECONDS)),
            *("--gone-seconds", str(GONE_SECONDS)),
            *("--into", str(into)),
            *("--job", _json(job)),
            *source,
        ]

    def runner(self, tokenizer: str) -> list[str]:  # noqa: ARG002
        return [*_PYTHON, "serve", "--context", self._context]

    def seconds_at_most(self, load: Load) -> float:
        """All of a load point: pod, window, results, and gone; then the runner is given up."""
        return self._options.start_seconds + run_seconds(load) + RESULTS_SECONDS + GONE_SECONDS

    def read(self, into: Path, *, max_error_rate: float) -> Measurement:
        try:
            return GENAI_BENCH.read(into, max_error_rate=max_error_rate)
        except TrialError as error:
            if not re.search(r"\b404: \d", error.reason):
                raise
            raise TrialError(error.failure, error.reason, error.log_tail, _OTHER_NAME) from error


def minutes(load: Load) -> int:
    """The window in the whole minutes that a BenchmarkJob knows."""
    return max(1, math.ceil(load.max_seconds / 60))


def run_seconds(load: Load) -> float:
    """A running pod to its end, at most: genai-bench's minute is longer on a busy machine, and
    imports, plots and sleeps come on top."""
    return minutes(load) * 90.0 + 60.0


def benchmark_job(server: str, load: Load, options: Options, namespace: str) -> dict[str, Any]:
    """The BenchmarkJob of one load point, with `MARK` in its names.

    Only fields that every generation of OME's v1beta1 has and passes on to genai-bench.
    """
    end = f"-l{load.index}-{MARK}"
    room = LONGEST_NAME - len(end)  # the mark itself is not longer than its placeholder
    name = server[:room].rstrip("-") + end
    spec: dict[str, Any] = {
        "endpoint": {"inferenceService": {"name": server, "namespace": namespace}},
        "task": "text-to-text",
        "trafficScenarios": [load.scenario],
        "numConcurrency": [load.concurrency],
        "maxTimePerIteration": minutes(load),
        "maxRequestsPerIteration": load.max_requests,
        "outputLocation": {"storageUri": f"pvc://{options.pvc}/{options.path}"},
        "resultFolderName": name,
    }
    if options.image:
        spec["podOverride"] = {"image": options.image}
    if options.huggingface_secret:
        spec["huggingFaceSecretReference"] = {"name": options.huggingface_secret}
    return {
        "apiVersion": "ome.io/v1beta1",
        "kind": "BenchmarkJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def helper_pod(job: str, folder: str, options: Options) -> dict[str, Any]:
    """The pod that says what a job left in a folder of the volume."""
    amounts = {"cpu": "100m", "memory": "64Mi"}
    container = {
        "name": "results",
        "image": options.helper_image,
        "command": ["sh", "-c", _HELPER, f"{_VOLUME}/{folder}"],
        "resources": {"requests": amounts, "limits": dict(amounts)},
        "securityContext": {"allowPrivilegeEscalation": False},
        "volumeMounts": [{"name": "results", "mountPath": _VOLUME, "readOnly": True}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{job}-results"},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "activeDeadlineSeconds": int(RESULTS_SECONDS),
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            "volumes": [{"name": "results", "persistentVolumeClaim": {"claimName": options.pvc}}],
        },
    }


def _options(spec: StudySpec) -> Options:
    found: Options = options_of(Options, spec.benchmark.options, "benchmark")
    return found


def _json(content: object) -> str:
    return json.dumps(content, sort_keys=True)


OME_JOB: Opened = _OMEJob()
