"""Studies as jobs of the Ray cluster that this process is part of: a job is a study's driver."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
from pydantic import SecretStr
from ray.job_submission import JobStatus, JobSubmissionClient

from autotuner.errors import InfrastructureError
from autotuner.settings import Settings

CALL_SECONDS = 10.0
"""For one answer of Ray's job server, which is there within some milliseconds."""

ORDERLY_SECONDS = 60
"""From the SIGINT of a job that is stopped until it is killed: servers are ended in that time."""

ENDED = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED})


class RayJobs:
    """See `studies.Runner`. Jobs run where the cluster's head is, as `autotuner resume`.

    Args:
        address: HOST:PORT of the cluster's control store, or the URL of its dashboard; that of
            the cluster this process is connected to by default.
    """

    def __init__(self, address: str = "") -> None:
        self._address = address
        self._made: _Client | None = None

    def start(self, study: str, job: str) -> None:
        with self._asked() as client:
            try:
                client.submit_job(
                    entrypoint=entrypoint(study, job),
                    submission_id=job,
                    runtime_env={"env_vars": environment(os.environ)},
                    metadata={"study": study},
                )
            except RuntimeError as error:
                if "already exists" not in str(error):
                    raise

    def stop(self, job: str) -> None:
        with self._asked() as client:
            client.stop_job(job)

    def alive(self, job: str) -> bool:
        if not job:  # Ray would be asked for all of them, and answer nothing that is a job
            return False
        with self._asked() as client:
            try:
                return client.get_job_status(job) not in ENDED
            except RuntimeError as error:
                if "404" in str(error):
                    return False
                raise

    def problem(self) -> str:
        """Why no job could be started now; empty when one could."""
        try:
            with self._asked() as client:
                client.get_version()
        except InfrastructureError as error:
            return str(error).splitlines()[0]
        return ""

    @contextmanager
    def _asked(self) -> Iterator[_Client]:
        try:
            if self._made is None:
                self._made = _Client(self._address or ray.get_runtime_context().gcs_address)
            yield self._made
        # Ray says each of them where no dashboard answers, or not as it should.
        except (RuntimeError, OSError, ValueError) as error:
            self._made = None  # a head that came back has its dashboard elsewhere
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise InfrastructureError(
                f"Ray's job server: {(lines or [repr(error)])[-1].strip()[:300]}\n"
                "  it is part of the dashboard on the cluster's head (package ray[default]); "
                "ask it: ray job list"
            ) from error


class _Client(JobSubmissionClient):  # type: ignore[misc]
    """Ray's own waits for ever."""

    def _do_request(self, method: str, endpoint: str, **more: Any) -> Any:
        return super()._do_request(method, endpoint, timeout=CALL_SECONDS, **more)


def entrypoint(study: str, job: str) -> str:
    """The shell command of a study's job."""
    command = [sys.executable, "-m", "autotuner", "resume", study, "--job", job]
    return f"exec {shlex.join(command)}"  # else the shell is one more process to stop


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Variables of a job, of those of this process. Whoever sees the dashboard sees them, so
    secrets are not among them: a node's own environment has those."""
    stop = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": str(ORDERLY_SECONDS)}
    return stop | {name: variables[name] for name in sorted(_OPEN) if variables.get(name)}


def _is_secret(annotation: Any) -> bool:
    return SecretStr in (annotation, *getattr(annotation, "__args__", ()))


_OPEN = frozenset(
    f"AUTOTUNER_{field.upper()}"
    for field, said in Settings.model_fields.items()
    if not _is_secret(said.annotation)
)
"""Variables of settings that are no secrets."""
