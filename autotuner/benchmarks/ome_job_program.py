"""Runs load points as BenchmarkJobs of OME: creates each, waits, fetches its results, deletes it.

    ome_job_program.py run --into DIRECTORY --job JSON (--helper JSON | --mounted DIRECTORY) ...
    ome_job_program.py serve      (commands on standard input, see Benchmark.runner)

What it creates is owned by the InferenceService that the load is put on, in Kubernetes' sense: it
goes when that goes, whoever deletes it. So nobody needs to sweep for it, and a job cannot outlive
the lease of its server.

Exit codes say how a command ended and nobody reads them; the files do. Where the cluster is at
fault (it does not answer, refuses, cannot start a pod) this program ends: its last line says why,
and whoever runs it takes that for the machine's fault, not for the parameters'.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import contextlib
import gzip
import io
import json
import os
import re
import secrets
import signal
import sys
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from autotuner.errors import InfrastructureError
from autotuner.kube import POD, Changed, Kind, Kube, Missing, looks

MARK = "$MARK"
LOG, WINDOW, RESULTS = "genai-bench.log", "window.json", "results"
LOG_LINES = 2000
"""Of a job's log, the last; genai-bench writes several for each request."""

PATIENCE_SECONDS = 60.0
"""An API server may be away so long."""

MOUNT_SECONDS = 60.0
"""A network file system shows another machine's new files so late, at most."""

EXIT_NO_RESULT, EXIT_FAILED, EXIT_LATE = 3, 4, 5

BENCHMARK_JOB = Kind("BenchmarkJob", "ome.io", "v1beta1", "benchmarkjobs")
SERVICE = Kind("InferenceService", "ome.io", "v1beta1", "inferenceservices")
OUR_LABELS = "autotuner.io/"

STUCK = frozenset(
    (
        *("ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"),
        *("CreateContainerConfigError", "CreateContainerError", "RunContainerError"),
    )
)
"""What a container waits for in vain. ErrImagePull is not here: the next try may succeed, and
if not it becomes ImagePullBackOff."""

Object = Mapping[str, Any]


# What objects and files say: functions of values.


def marked(text: str, mark: str) -> Any:
    """An object from its JSON, with its names made new."""
    return json.loads(text.replace(MARK, mark))


def owned(item: Object, service: Object) -> dict[str, Any]:
    """An object that goes when the InferenceService goes, and carries its labels of ours."""
    metadata = service["metadata"]
    ours = {k: v for k, v in metadata.get("labels", {}).items() if k.startswith(OUR_LABELS)}
    owner = {
        "apiVersion": service["apiVersion"],
        "kind": service["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
    return {
        **item,
        "metadata": {
            **item["metadata"],
            "namespace": metadata["namespace"],
            "labels": ours,
            "ownerReferences": [owner],
        },
    }


def has_started(pod: Object) -> bool:
    return phase(pod) not in ("", "Pending")


def phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase") or "")


def stuck(pod: Object) -> str | None:
    """Why a pod will not start; None where it has, or may."""
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in STUCK:
            return f"{waiting['reason']}: {_line(waiting.get('message'))}"
    return None


def delay(pod: Object) -> str:
    """What a pod that has not started waits for; may be empty."""
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason')}: {_line(condition.get('message'))}"
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason"):
            return f"{waiting['reason']}: {_line(waiting.get('message'))}".rstrip(": ")
    return ""


def broken(pod: Object) -> str | None:
    """Why a pod ended that is no fault of its program's; None where it is, or may be."""
    status = pod.get("status") or {}
    if phase(pod) != "Failed":
        return None
    if status.get("reason"):  # Evicted, Preempting, NodeShutdown
        return f"{status['reason']}: {_line(status.get('message'))}".rstrip(": ")
    for container in status.get("containerStatuses") or ():
        ended = (container.get("state") or {}).get("terminated") or {}
        if ended.get("reason") in ("OOMKilled", "StartError", "ContainerCannotRun"):
            return f"{ended['reason']}: {_line(ended.get('message'))}".rstrip(": ")
    return None


def http_errors(log: str) -> str:
    """The codes of failed requests, as genai-bench's log counts them; empty where it has none."""
    codes = Counter(re.findall(r"Error code: (\d+)", log))
    return ", ".join(f"{code}: {count}" for code, count in codes.most_common(5))


def unpacked(log: str) -> dict[str, bytes]:
    """The files in a helper pod's log, by name.

    Raises:
        ValueError: it is not whole.
    """
    try:
        packed = gzip.decompress(base64.b64decode("".join(log.split()), validate=True))
        if not packed:
            return {}
        files = {}
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None:
                    files[Path(member.name).name] = content.read()
        return files
    except (binascii.Error, zlib.error, OSError, EOFError, tarfile.TarError) as error:
        raise ValueError(f"the results in its log are not whole: {error}") from error


def window_of(files: Mapping[str, bytes], job: Object) -> dict[str, Any] | None:
    """The measured window by genai-bench's own clock; None where it gives none.

    Where all requests failed it gives none, and none is needed: those are no measurement.
    """
    names = sorted(name for name in files if re.search(r"_time_\d+s\.json$", name))
    names += sorted(name for name in files if name.startswith("debug_for_run_"))
    if not names:
        return None
    try:
        content = json.loads(files[names[0]])
        rows = content["individual_request_metrics"]
        seconds = float(content["aggregated_metrics"]["run_duration"] or 0)
        failed = sum(row.get("error_code") is not None for row in rows)
        unit = content.get("_time_unit", "s")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if rows and failed == len(rows) and seconds <= 0:
        seconds = job["spec"]["maxTimePerIteration"] * 60.0
    if seconds <= 0 or unit != "s":
        return None
    return {"seconds": seconds, "warmup_seconds": 0.0, "requests": len(rows)}


def _line(text: object) -> str:
    return " ".join(str(text or "").split())[:300]


# What is asked of the cluster.


class Cluster:
    """An API server, see `Kube`. None: there is no such object."""

    def __init__(self, context: str) -> None:
        self._kube = Kube(context, patience=PATIENCE_SECONDS)

    def service(self, name: str, namespace: str) -> Object | None:
        return self._found(SERVICE, name, namespace)

    def job(self, name: str, namespace: str) -> Object | None:
        return self._found(BENCHMARK_JOB, name, namespace)

    def create(self, item: Object) -> None:
        namespace = item["metadata"]["namespace"]
        try:
            # Its name is new: where it is there, an answer was lost on the way, and this is the
            # second asking.
            with contextlib.suppress(Changed):
                self._kube.create(_kind(item), namespace, item)
        except Missing as error:
            said = f"the cluster has no such kind, or namespace {namespace}"
            raise InfrastructureError(f"{error}; {said}") from error

    def delete(self, item: Object, *, patience: float = PATIENCE_SECONDS) -> None:
        name, namespace = item["metadata"]["name"], item["metadata"]["namespace"]
        with contextlib.suppress(Missing):
            self._kube.delete(_kind(item), namespace, name, patience=patience)

    def pods(self, namespace: str, *, labels: str = "", name: str = "") -> list[Any]:
        with contextlib.suppress(Missing):
            return self._kube.pods(namespace, labels=labels, name=name)
        return []

    def log(self, pod: Object, lines: int | None = None) -> str:
        """What its first container printed; empty where there is none."""
        metadata, container = pod["metadata"], pod["spec"]["containers"][0]["name"]
        more = {"tail_lines": lines} if lines else {}
        return self._kube.log(metadata["namespace"], metadata["name"], container, **more)

    def _found(self, kind: Kind, name: str, namespace: str) -> Object | None:
        with contextlib.suppress(Missing):
            return self._kube.find(kind, namespace, name)
        return None


def _kind(item: Object) -> Kind:
    return POD if item["kind"] == "Pod" else BENCHMARK_JOB


# One load point.


class BenchmarkJob:
    """One command: a BenchmarkJob from its creation until nothing of it is left."""

    def __init__(self, cluster: Cluster, options: argparse.Namespace) -> None:
        mark = secrets.token_hex(3)[: len(MARK)]
        self._cluster = cluster
        self._options = options
        self._job = marked(options.job, mark)
        self._helper = marked(options.helper, mark) if options.helper else None
        self._mounted = Path(options.mounted.replace(MARK, mark)) if options.mounted else None
        self._into = Path(options.into)
        self._made: list[Object] = []

    def run(self) -> int:
        """Raises InfrastructureError."""
        try:
            code = self._measured()
        except BaseException:
            # Told to stop, or the cluster is at fault: ask once; its owner takes the rest along.
            for each in reversed(self._made):
                try:
                    self._cluster.delete(each, patience=0)
                except InfrastructureError as error:
                    _note(str(error))
            raise
        for each in reversed(self._made):
            self._remove(each)
        return code

    def _measured(self) -> int:
        endpoint = self._job["spec"]["endpoint"]["inferenceService"]
        service = self._cluster.service(endpoint["name"], endpoint["namespace"])
        if service is None:
            return self._say(EXIT_FAILED, f"InferenceService {endpoint['name']} has gone")
        self._job = self._create(owned(self._job, service))
        status = self._ended()
        log = self._keep_log()
        if status is None:
            seconds = self._options.run_seconds
            return self._say(EXIT_LATE, f"{self._named} did not end within {seconds:.0f} s")
        if status["state"] == "Failed":
            if lost := next(filter(None, map(broken, self._pods())), None):
                raise InfrastructureError(f"the pod of {self._named} failed: {lost}")
            errors = http_errors(log)
            why = _line(status.get("failureMessage")) or "it does not say why"
            counted = f"; requests failed with {errors}" if errors else ""
            return self._say(EXIT_FAILED, f"{self._named} failed: {why}{counted}")
        try:
            files = self._fetched(service)
        except ValueError as error:
            return self._say(EXIT_NO_RESULT, f"{self._named}: {error}")
        return self._keep(files)

    @property
    def _named(self) -> str:
        return f"BenchmarkJob {self._job['metadata']['name']}"

    def _create(self, item: dict[str, Any]) -> dict[str, Any]:
        self._made.append(item)  # before: an answer may be lost
        self._cluster.create(item)
        _note(f"{item['kind']} {item['metadata']['name']} created")
        return item

    def _ended(self) -> Object | None:
        """Wait; the status of the job that ended, None where it does not in time.

        Raises:
            InfrastructureError: it does not start, or somebody deleted it.
        """
        metadata = self._job["metadata"]
        name, namespace = metadata["name"], metadata["namespace"]
        started: float | None = None
        for seconds in looks():
            job = self._cluster.job(name, namespace)
            if job is None:
                raise InfrastructureError(f"{self._named} was deleted by somebody else")
            status: Object = job.get("status") or {}
            if status.get("state") in ("Completed", "Failed"):
                return status
            pods = self._pods()
            for pod in pods:
                if said := stuck(pod):
                    raise InfrastructureError(f"the pod of {self._named} cannot start: {said}")
            if started is None and any(map(has_started, pods)):
                started = seconds
            if started is None and seconds >= self._options.start_seconds:
                waits = next(filter(None, map(delay, pods)), "")
                waits = waits or ("its pod is pending" if pods else "OME has made no pod for it")
                said = f"{self._named} did not start within {seconds:.0f} s: {waits}"
                raise InfrastructureError(said)
            if started is not None and seconds - started >= self._options.run_seconds:
                break
        return None

    def _pods(self) -> list[Any]:
        metadata = self._job["metadata"]
        return self._cluster.pods(metadata["namespace"], labels=f"job-name={metadata['name']}")

    def _keep_log(self) -> str:
        """What genai-bench said, where the reader looks for it."""
        said = "".join(self._cluster.log(pod, LOG_LINES) for pod in self._pods())
        with (self._into / LOG).open("a", encoding="utf-8") as file:
            file.write(said if said.endswith("\n") or not said else said + "\n")
        return said

    def _fetched(self, service: Object) -> dict[str, bytes]:
        """The results by file name. ValueError: they are not whole."""
        if self._mounted is not None:
            return self._found(self._mounted)
        helper = self._create(owned(self._helper or {}, service))
        log = self._cluster.log(self._finished(helper))
        return unpacked(log)

    def _finished(self, helper: Object) -> Object:
        metadata = helper["metadata"]
        for seconds in looks():
            pods = self._cluster.pods(metadata["namespace"], name=metadata["name"])
            pod = pods[0] if pods else None
            if pod is not None and phase(pod) == "Succeeded":
                return dict(pod)
            said = (stuck(pod) or broken(pod)) if pod is not None else "somebody deleted it"
            if pod is not None and phase(pod) == "Failed" and not said:
                raise ValueError(f"no results on the volume: {_line(self._cluster.log(pod))}")
            if not said and seconds >= self._options.results_seconds:
                said = (delay(pod) if pod is not None else "") or "it does not end"
            if said:
                raise InfrastructureError(f"the pod {metadata['name']} gives no results: {said}")
        raise AssertionError("looks do not end")

    def _found(self, folder: Path) -> dict[str, bytes]:
        files: dict[str, bytes] = {}
        for seconds in looks():
            files = {each.name: each.read_bytes() for each in sorted(folder.glob("*.json"))}
            if window_of(files, self._job) or seconds >= MOUNT_SECONDS:
                break
        return files

    def _keep(self, files: Mapping[str, bytes]) -> int:
        results = self._into / RESULTS
        results.mkdir(exist_ok=True)
        for name, content in files.items():
            (results / name).write_bytes(content)
        window = window_of(files, self._job)
        if window is None:
            return self._say(EXIT_NO_RESULT, f"{self._named} left no result on its volume")
        partial = self._into / f"{WINDOW}.partial"
        partial.write_text(json.dumps(window), encoding="utf-8")
        partial.replace(self._into / WINDOW)
        return 0

    def _say(self, code: int, why: str) -> int:
        with (self._into / LOG).open("a", encoding="utf-8") as file:
            file.write(f"Error: {why}\n")
        return code

    def _remove(self, item: Object) -> None:
        """Delete it and wait: the next load point is not to be disturbed by this one."""
        metadata, kind = item["metadata"], item["kind"]
        self._cluster.delete(item)
        if kind != "BenchmarkJob":
            return
        for seconds in looks():
            if not (self._pods() or self._cluster.job(metadata["name"], metadata["namespace"])):
                return
            if seconds >= self._options.gone_seconds:
                raise InfrastructureError(f"{self._named} was deleted, and is still there")


# The program.


def run(argv: list[str], clusters: Callable[[str], Cluster]) -> int:
    parser = argparse.ArgumentParser("ome_job_program run")
    parser.add_argument("--context", default="")
    for name in ("start", "run", "results", "gone"):
        parser.add_argument(f"--{name}-seconds", type=float, required=True)
    parser.add_argument("--into", required=True)
    parser.add_argument("--job", required=True)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--helper")
    source.add_argument("--mounted")
    options = parser.parse_args(argv)
    return BenchmarkJob(clusters(options.context), options).run()


def serve(argv: list[str]) -> None:
    """Run commands from standard input until it ends."""
    # What libraries print must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    parser = argparse.ArgumentParser("ome_job_program serve")
    parser.add_argument("--context", default="")
    cluster = Cluster(parser.parse_args(argv).context)
    _answer(answers, {"ready": True})
    while line := sys.stdin.readline():
        given = json.loads(line)["argv"]
        # The whole command line is sent; from "run" on it is this program's.
        code = run(given[given.index("run") + 1 :], lambda context: cluster)
        _answer(answers, {"exit": code})


def _note(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _answer(answers: TextIO, content: dict[str, Any]) -> None:
    print(json.dumps(content), file=answers, flush=True)


def _told_to_stop(number: int, frame: object) -> None:  # noqa: ARG001
    signal.signal(number, signal.SIG_IGN)  # once is enough, and what follows is not to be broken
    raise SystemExit(128 + number)


def main() -> None:
    signal.signal(signal.SIGTERM, _told_to_stop)
    try:
        if sys.argv[1] == "serve":
            serve(sys.argv[2:])
        else:
            raise SystemExit(run(sys.argv[2:], Cluster))
    except InfrastructureError as fault:
        # Said before standard output closes: whoever reads it then asks for the last line.
        _note(str(fault))
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
