"""Programs started under a guard, so that they end when their owner does; and labels to find
whatever a guard could not end."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from autotuner.errors import InfrastructureError

LABEL_STUDY, LABEL_TRIAL, LABEL_OWNER = "AUTOTUNER_STUDY", "AUTOTUNER_TRIAL", "AUTOTUNER_OWNER"
LABEL_RAY = "AUTOTUNER_RAY"
GRACE_SECONDS = 3.0
"""SIGTERM to SIGKILL. With the guard's own checks this keeps the promise of 10 s to spare."""

_GUARD = Path(__file__).with_name("guard.py")


class Guarded:
    """A running program and its guard. The caller's process is the owner."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        directory: str,
        output: IO[bytes],
        errors: IO[bytes] | None = None,
        log: Path | None = None,
        talk: bool = False,
    ) -> None:
        """Start `argv`.

        Args:
            environment: the whole environment, labels included (see `labels`).
            output: file for what it prints; errors go there too unless `errors` is given.
            log: a file that the guard masks once nobody writes it any more, by that environment.
            talk: keep a pipe to its standard input and one from its standard output; `output`
                is then only for errors.

        Raises:
            InfrastructureError: the guard itself could not start.
        """
        self._gone = True  # until there is a status to close
        lease_read, self._lease = os.pipe()
        self._status, status_write = os.pipe()
        self._gone = False
        try:
            guard = subprocess.Popen(
                [
                    *(sys.executable, "-I", str(_GUARD)),
                    *(str(lease_read), str(status_write), str(GRACE_SECONDS), str(log or "")),
                    *argv,
                ],
                stdin=subprocess.PIPE if talk else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talk else output,
                stderr=errors or output,
                env=dict(environment),
                cwd=directory,
                pass_fds=(lease_read, status_write),
            )
        except OSError as error:
            self._release()
            self._lost()
            raise InfrastructureError(f"the guard could not start: {error}") from error
        finally:
            os.close(lease_read)
            os.close(status_write)
        self.stdin, self.stdout = guard.stdin, guard.stdout
        self.failure: str | None = None
        self.exit_code: int | None = None
        self.pid: int | None = None
        self._heard = b""
        guard.wait()  # its first process only forks
        os.set_blocking(self._status, False)

    def alive(self) -> bool:
        """Whether the program still runs."""
        self._listen()
        return not self._gone and self.exit_code is None and self.failure is None

    def stop(self, seconds: float) -> None:
        """Let go of the lease and wait until nothing is left; may be called twice.

        Raises:
            InfrastructureError: something is left after `seconds`.
        """
        self._release()
        deadline = time.monotonic() + seconds
        while not self._gone:
            left = deadline - time.monotonic()
            if left <= 0:
                raise InfrastructureError(
                    f"process {self.pid} was told to stop and is still there after {seconds:g} s"
                )
            select.select([self._status], [], [], left)
            self._listen()
        for pipe in (self.stdin, self.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _release(self) -> None:
        if self._lease >= 0:
            os.close(self._lease)
            self._lease = -1

    def _lost(self) -> None:
        """Nothing more will be heard of it. Closed once: the number may soon be another file's."""
        if not self._gone:
            self._gone = True
            os.close(self._status)

    def _listen(self) -> None:
        while not self._gone:
            try:
                heard = os.read(self._status, 4096)
            except BlockingIOError:
                break
            self._heard += heard
            if not heard:
                self._lost()
        *lines, self._heard = self._heard.split(b"\n")
        for line in lines:
            word, _, rest = line.decode(errors="replace").partition(" ")
            if word == "started":
                self.pid = int(rest)
            elif word == "exited":
                self.exit_code = int(rest)
            else:
                self.failure = rest
        if self._gone and self.pid is None and self.failure is None:
            self.failure = "its guard did not start; its log says why"

    def __del__(self) -> None:
        if hasattr(self, "_lease"):
            self._release()
            self._lost()


def labels(study: str, trial: int) -> dict[str, str]:
    """Environment variables that mark a process as ours, with this process as its owner."""
    return {
        LABEL_STUDY: study,
        LABEL_TRIAL: str(trial),
        LABEL_OWNER: process_identity(os.getpid()),
    }


def ray_labels(study: str) -> dict[str, str]:
    """Environment variables that mark the processes of a study's local Ray."""
    return {LABEL_RAY: study, LABEL_OWNER: process_identity(os.getpid())}


def process_identity(pid: int) -> str:
    """``PID:START`` with the start in whole seconds since the epoch: PIDs are used again."""
    return f"{pid}:{psutil.Process(pid).create_time():.0f}"


def this_process() -> str:
    """``HOST PID:START``."""
    return f"{socket.gethostname()} {process_identity(os.getpid())}"


def is_running(identity: str) -> bool:
    """Whether the very process of `process_identity` still runs on this machine."""
    pid, _, start = identity.partition(":")
    try:
        process = psutil.Process(int(pid))
        # Start times are read off the boot time, which may be set anew by a second.
        return (
            abs(process.create_time() - float(start)) <= 2
            and process.status() != psutil.STATUS_ZOMBIE
        )
    except (psutil.Error, ValueError):
        return False


def labelled(
    study: str | None = None, *, ray: bool = False
) -> Iterator[tuple[psutil.Process, Mapping[str, str]]]:
    """This machine's processes that carry our labels, of one study or of any.

    Args:
        ray: also those of a local Ray.
    """
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            environment = process.environ()
            zombie = process.status() == psutil.STATUS_ZOMBIE
        except (psutil.Error, OSError):
            continue
        name = environment.get(LABEL_STUDY) or (environment.get(LABEL_RAY) if ray else None)
        if name and not zombie and study in (None, name):
            yield process, environment


def sweep_processes(study: str | None, *, owned: bool) -> list[str]:
    """Kill labelled processes whose owner is gone (or all of them); say which."""
    found = [
        (process, environment)
        for process, environment in labelled(study, ray=True)
        if owned or _is_lost(process, environment)
    ]
    texts = []
    for process, environment in found:
        with contextlib.suppress(psutil.Error):
            texts.append(said(process, environment))
            process.kill()
    psutil.wait_procs([process for process, _ in found], timeout=5)
    return texts


def _is_lost(process: psutil.Process, environment: Mapping[str, str]) -> bool:
    """Whether its owner is gone. One in a container names its owner by the container's PIDs, which
    are others' here; it is left alone."""
    try:
        here, there = (Path(f"/proc/{pid}/ns/pid").readlink() for pid in ("self", process.pid))
    except OSError:
        return False
    return here == there and not is_running(environment.get(LABEL_OWNER, ""))


def said(process: psutil.Process, environment: Mapping[str, str]) -> str:
    """A labelled process in words."""
    what = f"process {process.pid} ({process.name()}) of study "
    if LABEL_STUDY in environment:
        return f"{what}{environment[LABEL_STUDY]}, trial {environment.get(LABEL_TRIAL, '?')}"
    return f"{what}{environment[LABEL_RAY]}, its local Ray"
