"""What lies around every request: roles, hosts, sites, limits, headers.

The middleware is plain ASGI: streams pass through it as they come.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any, Protocol
from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from autotuner.addresses import is_loopback
from autotuner.api.problems import ProblemError, of_error
from autotuner.api.tokens import CALLER, Caller, Gate, Role, unauthorized
from autotuner.errors import AutotunerError, InfrastructureError
from autotuner.settings import Settings

OPEN = frozenset({"/", "/healthz", "/readyz", "/v1/version", "/openapi.json"})
"""What needs no token, besides the page's files: nothing in it is of a study."""
PAGE = "/static/"

READING = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""

BODIES = frozenset(
    ("application/json", "application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")
)
"""A page elsewhere can have a browser send none of these without asking us first."""

POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
"""Where an answer says none of its own."""

BURST_SECONDS = 2.0
"""A caller that was silent may send what so many seconds allow at once."""

CALLERS = 10_000
"""Whose requests are counted at the same time; beyond it the first of them is forgotten."""

LONGEST_KEY = 64
"""Letters of a key that is said in a refusal."""


class Gated(Protocol):
    """The service, as far as it matters here; it is the application's `state.service`."""

    @property
    def settings(self) -> Settings: ...

    @property
    def gate(self) -> Gate: ...


def needs(role: Role) -> Callable[[Request], Awaitable[Caller]]:
    """A dependency: the caller, who has that role at least."""

    async def allowed(request: Request) -> Caller:
        service: Gated = request.app.state.service
        caller = service.gate.caller(request)
        if not caller.role.may(role):
            raise ProblemError(
                403,
                "forbidden",
                f"this needs the role {role}, and the token {caller.name!r} has {caller.role}",
            )
        return caller

    return allowed


def is_elsewhere(scope: Scope) -> bool:
    """Whether a request came from another machine, as far as its address says.

    Who listens need not be who was asked about it: Ray Serve is told its address by others.
    """
    address = (scope.get("client") or ("",))[0]
    try:
        ip_address(address)
    except ValueError:  # a socket of this machine, or a test
        return False
    return not is_loopback(address)


def foreign(method: str, headers: Headers, settings: Settings) -> ProblemError | None:
    """Why a request is refused that a page of another site may have a browser send, or None.

    A name that an attacker has lead to this machine (DNS rebinding) is seen by its Host, a form
    or script of another site by its Origin.
    """
    host = headers.get("host", "")
    origins = {each.lower().rstrip("/") for each in settings.cors_origins}
    names = {_name(each.partition("//")[2]) for each in origins}
    if is_loopback(settings.service_host) and not (
        is_loopback(_name(host)) or _name(host) in names - {""}
    ):
        return ProblemError(
            400,
            "host",
            f"this service is asked as 127.0.0.1 or localhost, not as {host!r}; a name that leads "
            "here is told to it in AUTOTUNER_CORS_ORIGINS",
        )
    origin = headers.get("origin", "").lower()
    if not origin or method in READING or origin in origins:
        return None
    if host and origin.partition("//")[2] == host.lower():
        return None
    return ProblemError(
        403,
        "host",
        f"a page of {origin!r} may change nothing here; its site is told to this service in "
        "AUTOTUNER_CORS_ORIGINS",
    )


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


class Buckets:
    """A bucket of requests for each caller, filled at a rate.

    Args:
        clock: monotonic, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._levels: dict[str, tuple[float, float]] = {}

    def wait(self, key: str, rate: float) -> float:
        """Take one request out of a caller's bucket; 0, or the seconds until there is one."""
        now, most = self._clock(), max(1.0, rate * BURST_SECONDS)
        level, then = self._levels.pop(key, (most, now))
        level = min(most, level + (now - then) * rate)
        short = level < 1.0
        # The one who asked last stands last, so that the first has been silent longest.
        self._levels[key] = (level if short else level - 1.0, now)
        if len(self._levels) > CALLERS:
            del self._levels[next(iter(self._levels))]
        return (1.0 - level) / rate if short else 0.0


def install(app: FastAPI, *, clock: Callable[[], float] = time.monotonic) -> None:
    """Put limits and headers around an application, whose service is in `app.state`.

    Args:
        clock: of the limit of requests; monotonic, in seconds.
    """
    # The last is the first that a request meets.
    app.add_middleware(_Limits, buckets=Buckets(clock))
    app.add_middleware(_Sites)
    app.add_middleware(_Headers)


class _Headers:
    """Says what a browser may do with an answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        said = dict(HEADERS)
        # The page's modules fit each other in one version only, so browsers ask each time.
        said["cache-control"] = "no-store" if _path(scope).startswith("/v1") else "no-cache"

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in said.items():
                    headers.setdefault(name, value)
            await send(message)

        return await self._app(scope, receive, with_headers)


class _Sites:
    """Lets pages of the sites that the operator names read answers; of none by default."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._sharing: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not (origins := _service(scope).settings.cors_origins):
            return await self._app(scope, receive, send)
        if self._sharing is None:
            self._sharing = CORSMiddleware(
                self._app,
                allow_origins=[each.rstrip("/") for each in origins],
                allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
                allow_headers=["Authorization", "Content-Type", "Last-Event-ID"],
                expose_headers=["Location", "Retry-After"],
            )
        return await self._sharing(scope, receive, send)


class _Limits:
    """Refuses what no route should see: strangers, too much, too often, in another form."""

    def __init__(self, app: ASGIApp, buckets: Buckets) -> None:
        self._app = app
        self._buckets = buckets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        try:
            found = await self._taken(scope, receive)
        except AutotunerError as error:
            return await _refusal(error, scope)(scope, receive, send)
        return None if found is None else await self._app(scope, found, send)

    async def _taken(self, scope: Scope, receive: Receive) -> Receive | None:
        """Where to read the request from; None where its sender went away."""
        service, headers, method = _service(scope), Headers(scope=scope), scope["method"]
        if (strange := foreign(method, headers, service.settings)) is not None:
            raise strange
        unknown = self._name(scope, service.gate, headers)
        rate = service.settings.requests_per_second
        if wait := self._buckets.wait(_bucket(scope), rate):
            raise ProblemError(
                429,
                "rate",
                f"more than {rate:g} requests in a second (AUTOTUNER_REQUESTS_PER_SECOND)",
                headers={"Retry-After": str(math.ceil(wait))},
            )
        if unknown is not None and not is_open(_path(scope)):
            raise unknown
        if method in READING:
            return receive
        body = await _read(receive, headers, service.settings.largest_request)
        if body:
            _refuse_form(headers)
            _refuse_unsayable(body, headers)
        return None if body is None else _again(body, receive)

    def _name(self, scope: Scope, gate: Gate, headers: Headers) -> AutotunerError | None:
        """Note the caller in the scope; or why they are not known."""
        try:
            caller = gate.known_by(headers.get("authorization", ""))
        except (ProblemError, InfrastructureError) as error:
            return error
        if not gate.tokens_on and is_elsewhere(scope):
            return unauthorized(
                "this service has no tokens, so it answers only whoever is on its machine"
            )
        scope[CALLER] = caller
        return None


def is_open(path: str) -> bool:
    """Whether a path needs no token."""
    return path in OPEN or path.startswith(PAGE)


def _bucket(scope: Scope) -> str:
    """Whose requests are counted: a token's, else an address's."""
    caller: Caller | None = scope.get(CALLER)
    if caller is not None:
        return f"token {caller.name}"
    return f"address {(scope.get('client') or ('unknown',))[0]}"


async def _read(receive: Receive, headers: Headers, most: int) -> bytes | None:
    """The body, counted while it is read; None where its sender went away.

    Raises:
        ProblemError: it is larger than `most` bytes.
    """
    said = headers.get("content-length", "")
    body = bytearray()
    size = int(said) if said.isdecimal() else 0
    while size <= most:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        size = max(size, len(body))
        if size <= most and not message.get("more_body", False):
            return bytes(body)
    raise ProblemError(
        413,
        "too-large",
        f"a request is at most {most} bytes (AUTOTUNER_LARGEST_REQUEST)",
        # What is left of it is not read, so nothing can follow on this connection.
        headers={"Connection": "close"},
    )


def _kind(headers: Headers) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _refuse_form(headers: Headers) -> None:
    """Raises ProblemError for a body that a form of another site could send."""
    kind = _kind(headers)
    if kind not in BODIES:
        raise ProblemError(
            415,
            "media-type",
            f"{kind or 'no content type'!r} is not allowed; send application/json or "
            "application/yaml",
        )


def _refuse_unsayable(body: bytes, headers: Headers) -> None:
    """Raises ProblemError for JSON that Python reads and nobody else would: what is not a number,
    half a character, levels without end, a key given twice. What is no JSON at all its route says
    better."""
    if _kind(headers) != "application/json":
        return
    try:
        content = json.loads(body.decode("utf-8"), object_pairs_hook=_once)
        json.dumps(content, allow_nan=False, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError:
        return
    except RecursionError:
        problem = "it has too many levels"
    except ValueError as error:
        problem = str(error)
    else:
        return
    raise ProblemError(422, "invalid", f"the body is not JSON that can be kept: {problem}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises ValueError for a key given twice, of which Python would take the last."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:LONGEST_KEY]!r} is given twice")
        found[key] = value
    return found


def _again(body: bytes, receive: Receive) -> Receive:
    """Says the body, then what comes after it."""
    left = [body]

    async def said() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return said


def _refusal(error: AutotunerError, scope: Scope) -> Response:
    return of_error(error, _path(scope))


def _service(scope: Scope) -> Gated:
    found: Gated = scope["app"].state.service
    return found


def _path(scope: Scope) -> str:
    """The path below where the application is mounted."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
