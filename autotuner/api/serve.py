"""What `autotuner serve` does: a local Ray with the service on it, or the service on a cluster."""

from __future__ import annotations

import os
import secrets
import select
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import click

from autotuner.backends.guarded import Guarded, ray_labels
from autotuner.errors import InfrastructureError
from autotuner.execution.cluster import AT_NO_DISADVANTAGE, ON_LOOPBACK
from autotuner.settings import Settings

PROGRAM = "autotuner.api.local_service"
LABEL = "of autotuner serve"
"""In place of a study's name, which has no spaces."""

START_SECONDS, END_SECONDS, STOP_SECONDS = 120.0, 75.0, 15.0
"""Until the service answers; for studies to end in order; for the guard to end the rest."""

HANDED_OUT = Path("/proc/sys/net/ipv4/ip_local_port_range")

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_LOG_TO_STDERR": "0",
}


def serve(settings: Settings, host: str, port: int) -> int:
    """Serve until SIGINT or SIGTERM; with RAY_ADDRESS, deploy to that cluster.

    Returns:
        The exit code.

    Raises:
        ConfigError: the service would be open to others.
        InfrastructureError: it cannot be served here, or ended by itself.
    """
    _check(settings.model_copy(update={"service_host": host, "service_port": port}))
    if os.environ.get("RAY_ADDRESS"):
        _deploy(host, port)
        return 0
    _refuse_if_taken(host, port)
    if warning := lent(port):
        click.echo(f"warning: {warning}", err=True)
    click.echo("starting Ray and the service, which may take a minute", err=True)
    with _interruptible():
        return _serve_here(host, port)


def direct(port: int) -> dict[str, str]:
    """Variables of Ray Serve by which the replica itself listens on the service's port.

    Ray's proxy costs a request more than its answer does: see docs/benchmarks.md.
    """
    return {
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(port),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(port + 1),  # not in it
        # The port is the next replica's at once.
        "RAY_SERVE_PORT_QUARANTINE_S": "0",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
    }


def lent(port: int, handed_out: Path = HANDED_OUT) -> str:
    """What may come of a port that the kernel hands out to connections, or nothing.

    Args:
        handed_out: the file of the first and the last of those ports.
    """
    try:
        first, last = map(int, handed_out.read_text(encoding="ascii").split())
    except OSError:
        return ""
    if not first <= port <= last:
        return ""
    return (
        f"port {port} may go to somebody's connection while the service is replaced; "
        f"choose one below {first}"
    )


def _check(settings: Settings) -> None:
    """What can be said before Ray starts, which takes seconds."""
    missing = [name for name in ("ray.serve", "fastapi") if not _is_there(name)]
    if missing:
        raise InfrastructureError(
            f"the service needs {' and '.join(missing)}, not installed\n"
            "  install autotuner with its extra serve"
        )
    from autotuner.api.tokens import Gate
    from autotuner.store import Store

    Gate(settings).check()
    Store(settings.store_url).close()


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package it would be in
        return False


def _refuse_if_taken(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As the service itself will: what has just ended is not in its way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            said = getattr(error, "strerror", None) or error
            raise InfrastructureError(
                f"nothing can listen on {host}:{port}: {said}\n"
                "  choose another port: autotuner serve --port PORT"
            ) from error


def _serve_here(host: str, port: int) -> int:
    # Of another cluster they would be.
    others = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_JOB_ID")
    environment = {
        **_QUIET,
        **AT_NO_DISADVANTAGE,
        **{name: value for name, value in os.environ.items() if name not in others},
        **direct(port),
        **ON_LOOPBACK,
        **ray_labels(LABEL),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "AUTOTUNER_SERVICE_HOST": host,
        "AUTOTUNER_SERVICE_PORT": str(port),
    }
    with (
        tempfile.TemporaryFile() as errors,
        # Ray's sockets lie in there, and a socket's path has 107 characters at most.
        tempfile.TemporaryDirectory(
            prefix="autotuner-", dir="/tmp", ignore_cleanup_errors=True
        ) as scratch,
    ):
        local = Guarded(
            [sys.executable, "-m", PROGRAM, host, str(port), scratch],
            environment=environment,
            directory=str(Path.cwd()),
            output=errors,
            talk=True,
        )
        assert local.stdout is not None
        serving = False
        try:
            if not _heard(local.stdout, START_SECONDS):
                raise InfrastructureError(f"the service did not start: {_last(errors)}")
            serving = True
            click.echo(f"autotuner serves at {url(host, port)}")
            _heard(local.stdout, None)
            raise InfrastructureError(f"the service ended: {_last(errors)}")
        except KeyboardInterrupt:
            if serving:
                _end(local)
            return 0
        finally:
            local.stop(STOP_SECONDS)


def _end(local: Guarded) -> None:
    """Let studies end in order; another interrupt ends them at once."""
    assert local.stdin is not None
    assert local.stdout is not None
    click.echo("ending the studies that run here; again: at once", err=True)
    try:
        local.stdin.write(b"end\n")
        local.stdin.flush()
        while _heard(local.stdout, END_SECONDS):
            pass
    except (KeyboardInterrupt, OSError):
        return


def _heard(stream: IO[bytes], seconds: float | None) -> bytes:
    """A line of the program; nothing when it has ended, or said nothing in time."""
    readable, _, _ = select.select([stream], [], [], seconds)
    return stream.readline() if readable else b""


def _last(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def url(host: str, port: int) -> str:
    """Where a browser on this machine finds the service."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM is taken as SIGINT is."""

    def interrupt(number: int, frame: object) -> None:  # noqa: ARG001
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _deploy(host: str, port: int) -> None:
    """Like `serve deploy configs/serve.yaml`."""
    from ray import serve as ray_serve

    from autotuner.api.deployment import NAME, app
    from autotuner.execution.nodes import connected

    with connected(None):
        began = time.monotonic()
        try:
            ray_serve.start(http_options={"host": host, "port": port}, proxy_location="HeadOnly")
            ray_serve.run(app, name=NAME, route_prefix="/")
        except RuntimeError as error:
            raise InfrastructureError(f"the service was not deployed: {error}") from error
        seconds = time.monotonic() - began
    click.echo(
        f"deployed in {seconds:.0f} s; it serves on port {port} of the cluster's head. "
        "Down again: serve shutdown"
    )
