"""The Ray cluster of a study: the one we were given, or a local one that ends with us."""

from __future__ import annotations

import os
import secrets
import select
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from autotuner.backends.guarded import Guarded, ray_labels
from autotuner.errors import InfrastructureError

_PROGRAM = Path(__file__).with_name("local_ray.py")
START_SECONDS, STOP_SECONDS = 120.0, 15.0
REACH_SECONDS = 10.0

# Ray reads these when it is imported; what the user has set stays.
_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "60",
}

AT_NO_DISADVANTAGE = {"RAY_worker_niceness": "0"}
"""For the Ray that we start: its workers, and so the servers that are measured, run at the priority
they would have without Ray, which gives way to every other process of the machine (15) unless told
otherwise."""

ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""For the Ray that we start, and whoever connects to it: its node's address is 127.0.0.1, and so
nothing of it listens elsewhere. That is what Ray does on macOS and Windows, where it is of one
machine. On Linux it otherwise takes 127.0.0.1 for the machine's address in the network, even where
--node-ip-address says it."""


@contextmanager
def address(
    study: str, directory: Path, *, meanwhile: Callable[[], object]
) -> Iterator[str | None]:
    """The address to connect to: None where the environment says it (RAY_ADDRESS, a Ray job).

    Must be entered before Ray is imported: a local Ray listens on this machine's own address only,
    and gets a token of its own, so that nobody else on this machine may talk to it and nothing is
    written to the user's home.

    Args:
        directory: where a local Ray starts in.
        meanwhile: done while a local Ray starts, such as importing Ray here as well.

    Raises:
        InfrastructureError: a local Ray did not start.
    """
    for name, value in (_QUIET | AT_NO_DISADVANTAGE).items():
        os.environ.setdefault(name, value)
    if os.environ.get("RAY_ADDRESS"):
        meanwhile()
        yield None
        return
    os.environ.update(ON_LOOPBACK)
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    with tempfile.TemporaryFile() as errors:
        ray = Guarded(
            [sys.executable, str(_PROGRAM)],
            environment={**os.environ, **ray_labels(study)},
            directory=str(directory),
            output=errors,
            talk=True,
        )
        try:
            meanwhile()
            yield _said(ray, errors)
        finally:
            ray.stop(STOP_SECONDS)


def reached(place: str) -> None:
    """Whether somebody listens at a cluster's address, as far as it names a host and a port.

    Ray itself asks a place where nobody is for minutes, and says so in its own log only.

    Raises:
        InfrastructureError: nobody does.
    """
    host, _, port = place.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
    except OSError as error:
        hint = "  unset RAY_ADDRESS, or start the cluster"
        ours = place == os.environ.get("RAY_ADDRESS")
        raise InfrastructureError(
            f"there is no Ray cluster at {place}: {error.strerror or error}"
            + (f"\n{hint}" if ours else "")
        ) from error


def _said(ray: Guarded, errors: IO[bytes]) -> str:
    """The address a local Ray prints once it is up."""
    assert ray.stdout is not None
    deadline = time.monotonic() + START_SECONDS
    heard = b""
    while not heard.endswith(b"\n"):
        readable, _, _ = select.select([ray.stdout], [], [], max(0, deadline - time.monotonic()))
        more = os.read(ray.stdout.fileno(), 4096) if readable else b""
        if not more:
            errors.seek(0)
            lines = errors.read().decode(errors="replace").strip().splitlines()
            said = lines[-1] if lines else "it said nothing"
            raise InfrastructureError(f"a local Ray did not start: {said}")
        heard += more
    return heard.decode().split()[-1]
