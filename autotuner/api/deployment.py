"""The service as a Ray Serve application: `serve deploy configs/serve.yaml`, or `autotuner serve`.

Nothing of a study is in the replica: it may die at any moment, and the next one knows as much.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

from ray import serve
from ray.serve._private import replica
from ray.serve.context import _get_global_client
from starlette.types import ASGIApp, Receive, Scope, Send

from autotuner.addresses import is_loopback
from autotuner.api.app import application
from autotuner.api.problems import of_error
from autotuner.api.service import Service, service
from autotuner.errors import AutotunerError, InfrastructureError
from autotuner.execution.jobs import RayJobs
from autotuner.execution.observed import Observed
from autotuner.settings import Settings

NAME = "autotuner"
"""Of the application on the cluster."""

ONGOING = 1000
"""Requests answered at the same time: each who follows a log or a study is one."""

LOOK_SECONDS = 1.0
"""Between two looks of Ray at the replica: so long nobody serves before it hears of its death."""

RETRY_SECONDS = 10.0
"""Between two tries of a service that could not start: its database may come later than it."""


def composed(settings: Settings) -> Service:
    """The service on the cluster that this process is part of.

    Raises:
        ConfigError, InfrastructureError: it cannot serve.
    """
    jobs = RayJobs()

    def ready() -> dict[str, str]:
        return {"runner": jobs.problem()}

    made = service(settings, runner=jobs, ready=ready, cluster=Observed())
    made.gate.check()
    return made


def _heard_at(settings: Settings) -> Settings:
    """The settings, with the address that Ray Serve truly listens on, where that is open to
    others: else a cluster whose settings say nothing of it would be open without a token."""
    host = _get_global_client().http_config.host or "0.0.0.0"
    return settings if is_loopback(host) else settings.model_copy(update={"service_host": host})


def unavailable(error: AutotunerError) -> ASGIApp:
    """Answers everything with why there is no service: Ray lets whoever asks an application that
    could not be deployed wait without end."""
    said = InfrastructureError(f"the service could not start: {error}")

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await of_error(said, scope["path"])(scope, receive, send)

    return answer


def _bind_at_once() -> None:
    """Have Ray Serve bind the replica's port though connections of a killed one linger there.

    The kernel keeps those for a minute, in which no replica could start. Ray asks for the address
    to be used again where its proxy listens, not where a replica does (2.60, `replica.py`).
    """
    begun = replica.start_asgi_http_server

    async def start(*arguments: Any, enable_so_reuseport: bool = False, **more: Any) -> Any:  # noqa: ARG001
        return await begun(*arguments, enable_so_reuseport=True, **more)

    replica.start_asgi_http_server = start


def _rooted() -> asyncio.Task[bool]:
    """Give AnyIO, which runs all that blocks, a task of this event loop that does not end.

    It looks for the one the loop was started for, and Ray's loop was started for none: it then
    goes through all tasks at every request, and makes and ends a thread for it. With 100
    followers that was half of the replica's time (anyio 4, `find_root_task`).
    """
    task = asyncio.get_running_loop().create_task(asyncio.Event().wait())
    with suppress(ImportError):  # a later AnyIO may have another way; ours is only a shorter one
        from anyio._backends._asyncio import _root_task

        _root_task.set(task)
    return task


@serve.deployment(
    name="api",
    num_replicas=1,
    max_ongoing_requests=ONGOING,
    # It waits for others most of the time, and must find a place on a cluster that is full.
    ray_actor_options={"num_cpus": 0},
    health_check_period_s=LOOK_SECONDS,
    graceful_shutdown_timeout_s=5,
)
@serve.ingress()
class Replica:
    """One process that serves; where it cannot, it says why, and tries again."""

    def __init__(self) -> None:
        _bind_at_once()
        self._root: asyncio.Task[bool] | None = None
        self._compose()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            self._root = self._root or _rooted()
            await self._app(scope, receive, send)

        return answer

    def check_health(self) -> None:
        if self._problem and time.monotonic() - self._tried >= RETRY_SECONDS:
            self._compose()

    def _compose(self) -> None:
        self._tried = time.monotonic()
        self._problem = False
        try:
            self._app: ASGIApp = application(composed(_heard_at(Settings())))
        except AutotunerError as error:
            self._problem = True
            self._app = unavailable(error)


app = Replica.bind()  # type: ignore[attr-defined]
