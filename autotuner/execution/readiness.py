"""Waiting until a server can serve, while watching that it lives."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable

from autotuner.backends.base import Server

POLL_SECONDS = 0.1
TIMEOUT_SECONDS = 2.0

READ_SECONDS = 5.0
"""Between two readings of the log of a server that starts."""

# No proxy: a server of ours is on this machine or in this cluster.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ServerDied(Exception):
    """The server's program ended; its log says why."""


class NotReady(Exception):
    """The deadline passed, or the server is doomed; it lives, but does not serve."""


def wait_ready(
    server: Server,
    model: str,
    health_path: str,
    *,
    deadline: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    doomed: Callable[[], bool] = lambda: False,
) -> None:
    """Return once the health path answers 200 and the model's name is served.

    Both are asked for: another program, left on the port, may be healthy too.

    Args:
        model: its name in requests.
        deadline: on `clock`, in seconds.
        doomed: whether its log says that it will never serve, though it may live on; asked now and
            then.

    Raises:
        ServerDied, NotReady.
    """
    read = clock()
    while True:
        if not server.alive():
            raise ServerDied
        url = server.url
        if url and _status(url + health_path) == 200 and model in models(url):
            return
        now = clock()
        if now >= deadline:
            raise NotReady
        if now >= read + READ_SECONDS:
            read = now
            if doomed():
                raise NotReady
        sleep(POLL_SECONDS)


def models(url: str) -> list[str]:
    """Names the server at a base URL answers to; none where it does not answer."""
    try:
        with _OPENER.open(url + "/v1/models", timeout=TIMEOUT_SECONDS) as answer:
            return [str(each["id"]) for each in json.load(answer)["data"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _status(url: str) -> int | None:
    try:
        with _OPENER.open(url, timeout=TIMEOUT_SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError):
        return None
