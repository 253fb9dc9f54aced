"""What the service says to Prometheus: studies, trials, requests, followers.

A running study says more itself, by Ray's endpoint: `execution.prometheus`. Numbers are made when
they are asked for; only requests are counted as they come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from autotuner.api.schemas import Standing, TrialStateName

if TYPE_CHECKING:
    from prometheus_client import Metric  # which nobody needs who does not ask

Requests = Counter[tuple[str, str, str]]
"""Method, route and status -> how many."""

ELSEWHERE = "none"
"""In place of the route, of what was refused before one was found, or of the page's files."""


class Counted:
    """Counts requests by route, when their answer begins; in `requests` of the app's state."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                key = (_method(scope), _route(scope), str(message["status"]))
                requests_of(scope["app"].state)[key] += 1
            await send(message)

        return await self._app(scope, receive, counting)


def requests_of(state: Any) -> Requests:
    """Those counted so far, of an application's state."""
    if not hasattr(state, "requests"):
        state.requests = Counter()
    found: Requests = state.requests
    return found


def text(rows: Sequence[Mapping[str, Any]], requests: Requests, followers: int) -> bytes:
    """Everything in Prometheus' text format.

    Args:
        rows: of studies, as a list shows them.
        followers: streams that are open.
    """
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.registry import Collector

    class Now(Collector):
        def collect(self) -> Iterator[Metric]:
            yield from _metrics(rows, requests, followers)

    registry = CollectorRegistry()  # not the process's own, where Ray's may be as well
    registry.register(Now())
    return generate_latest(registry)


def _metrics(
    rows: Sequence[Mapping[str, Any]], requests: Requests, followers: int
) -> Iterator[Metric]:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    studies = Counter(row["state"] for row in rows)
    trials = sum((Counter(row["counts"]) for row in rows), Counter[str]())
    by_state = (
        ("autotuner_service_studies", "Studies in each state.", Standing, studies),
        (
            "autotuner_service_trials",
            "Trials of all studies in each state.",
            TrialStateName,
            trials,
        ),
    )
    for name, help, states, counts in by_state:
        gauge = GaugeMetricFamily(name, help, labels=["state"])
        # One without any is 0: an alert can tell that from a service that does not answer.
        for state in get_args(states):
            gauge.add_metric([state], counts[state])
        yield gauge
    refused = GaugeMetricFamily("autotuner_service_refused", "Points refused before a launch.")
    refused.add_metric([], trials["REFUSED"])
    yield refused
    counter = CounterMetricFamily(
        "autotuner_service_requests", "Requests answered.", labels=["method", "route", "status"]
    )
    for labels, count in sorted(requests.items()):
        counter.add_metric(labels, count)
    yield counter
    streams = GaugeMetricFamily("autotuner_service_followers", "Streams that are open.")
    streams.add_metric([], followers)
    yield streams


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _method(scope: Scope) -> str:
    # Anybody may send any word, and each would be a series of its own.
    return scope["method"] if scope["method"] in _METHODS else "OTHER"


def _route(scope: Scope) -> str:
    path = getattr(scope.get("route"), "path", None)
    if path is None:
        return ELSEWHERE
    versioned = scope["path"].startswith("/v1/") and not path.startswith("/v1/")
    return f"/v1{path}" if versioned else str(path)
