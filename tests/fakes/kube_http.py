"""The HTTP front of a Kubernetes API server: paths to verbs, watches as streams, port-forwards."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.fakes import websocket
from tests.fakes.crd import Object, Resource
from tests.fakes.kube_state import (
    Change,
    KubeState,
    Refused,
    Request,
    field_problem,
    selected,
)

VERSION = {"major": "1", "minor": "33", "gitVersion": "v1.33.0-fake"} | dict.fromkeys(
    ("gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"), ""
)
PORT_FORWARD = "v4.channel.k8s.io"


class Front:
    """The listening socket and the threads of its connections."""

    def __init__(self, kube: KubeState) -> None:
        self._connections: set[socket.socket] = set()
        connections = self._connections

        class Handler(_Handler):
            def setup(self) -> None:
                connections.add(self.request)
                super().setup()

            def finish(self) -> None:
                connections.discard(self.request)
                with contextlib.suppress(OSError):
                    super().finish()

        Handler.kube = kube
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)


@dataclass(frozen=True)
class _Path:
    """What a path names. `name` and `sub` may be empty."""

    resource: Resource
    namespace: str
    name: str
    sub: str

    @property
    def right(self) -> str:
        return self.resource.plural + (f"/{self.sub}" if self.sub else "")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    kube: KubeState
    path: str

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def _answer(self) -> None:
        url = urlsplit(self.path)
        self.query = dict(parse_qsl(url.query))
        length = int(self.headers.get("Content-Length") or 0)
        content = self.rfile.read(length)
        self.body: Any = json.loads(content) if content else None
        self.kube.requests.append(Request(self.command, url.path, self.query, self.body))
        try:
            self._route(url.path)
        except Refused as refused:
            self._json(refused.code, refused.to_json())
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _route(self, path: str) -> None:
        if path in ("/version", "/version/"):
            return self._json(200, VERSION)
        if path.endswith("/authorization.k8s.io/v1/selfsubjectaccessreviews"):
            return self._json(201, self._review())
        place = self._place(path)
        watching = self.query.get("watch") in ("true", "True", "1")
        verb = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(
            self.command, "get" if place.name else "watch" if watching else "list"
        )
        if verb == "delete" and not place.name:
            verb = "deletecollection"
        self.kube.allow(verb, place.right)
        if place.sub == "portforward":
            # A WebSocket begins with GET; since 1.35 that alone does not suffice.
            self.kube.allow("create", place.right)
            return self._port_forward(place)
        if place.sub == "log":
            return self._log(place)
        if verb == "watch":
            return self._watch(place)
        code = 201 if verb == "create" else 200
        return self._json(code, getattr(self, f"_{verb}")(place))

    def _place(self, path: str) -> _Path:
        parts = path.strip("/").split("/")
        group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
        namespace = ""
        if rest[0] == "namespaces" and len(rest) >= 3:
            namespace, rest = rest[1], rest[2:]
        resource = self.kube.resource(rest[0])
        if resource.group != group or not 1 <= len(rest) <= 3:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        if len(rest) > 1 and resource.namespaced != bool(namespace):
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        name, sub = (*rest[1:], "", "")[:2]
        return _Path(resource, namespace, name, sub)

    def _get(self, place: _Path) -> Object:
        return self.kube.get(place.resource.plural, place.name, place.namespace)

    def _list(self, place: _Path) -> Object:
        labels, fields = self._selectors(place)
        with self.kube.changed:
            found = self.kube.find(place.resource.plural, labels=labels, fields=fields)
            return {
                "kind": f"{place.resource.kind}List",
                "apiVersion": place.resource.api_version,
                "metadata": {"resourceVersion": str(self.kube.version)},
                "items": [each for each in found if _within(place, each)],
            }

    def _create(self, place: _Path) -> Object:
        item = self.body
        if place.resource.namespaced:
            own = item.setdefault("metadata", {}).setdefault("namespace", place.namespace)
            if own != place.namespace:
                raise Refused(
                    400,
                    "BadRequest",
                    "the namespace of the provided object does not match the namespace sent on "
                    "the request",
                )
        return self.kube.create(
            place.resource.plural, item, strict=self._strict, dry="dryRun" in self.query
        )

    def _update(self, place: _Path) -> Object:
        if place.sub == "status":
            item = self._get(place) | {"status": self.body.get("status")}
        else:
            item = self.body
        return self.kube.replace(place.resource.plural, item, place.namespace, strict=self._strict)

    def _patch(self, place: _Path) -> Object:
        if not isinstance(self.body, dict):
            raise Refused(415, "UnsupportedMediaType", "only merge patches are known here")
        return self.kube.patch(
            place.resource.plural,
            place.name,
            self.body,
            place.namespace,
            status=place.sub == "status",
            strict=self._strict,
        )

    def _delete(self, place: _Path) -> Object:
        options = (self.body or {}) | {
            key: self.query[key] for key in ("propagationPolicy",) if key in self.query
        }
        return self.kube.delete(place.resource.plural, place.name, place.namespace, options=options)

    def _deletecollection(self, place: _Path) -> Object:
        found = self._list(place)
        for each in found["items"]:
            metadata = each["metadata"]
            with contextlib.suppress(Refused):  # gone with its owner
                self.kube.delete(
                    place.resource.plural, metadata["name"], metadata.get("namespace", "")
                )
        return found

    @property
    def _strict(self) -> bool:
        return self.query.get("fieldValidation") == "Strict"

    def _selectors(self, place: _Path) -> tuple[str, str]:
        fields = self.query.get("fieldSelector", "")
        if problem := field_problem(place.resource, fields):
            raise Refused(400, "BadRequest", problem)
        return self.query.get("labelSelector", ""), fields

    def _review(self) -> Object:
        asked = self.body["spec"]["resourceAttributes"]
        resource = asked["resource"] + (
            f"/{asked['subresource']}" if asked.get("subresource") else ""
        )
        denied = (asked["verb"], resource) in self.kube.denied
        return {**self.body, "status": {"allowed": not denied}}

    def _log(self, place: _Path) -> None:
        content = self.kube.log_of(
            place.namespace,
            place.name,
            self.query.get("container", ""),
            previous=self.query.get("previous") in ("true", "True"),
        )
        if "tailLines" in self.query:
            lines = content.splitlines(keepends=True)
            content = b"".join(lines[-int(self.query["tailLines"]) :])
        self._send(200, content, "text/plain")

    def _watch(self, place: _Path) -> None:
        labels, fields = self._selectors(place)
        end = time.monotonic() + float(self.query.get("timeoutSeconds") or 300)
        asked = int(self.query.get("resourceVersion") or 0)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with self.kube.changed:
            first = self._list(place)["items"] if not asked else []
            version = asked or self.kube.version
            too_old = version < self.kube.oldest
        for each in first:
            self._event("ADDED", each)
        if too_old:
            gone = Refused(410, "Expired", f"too old resource version: {version}")
            self._event("ERROR", gone.to_json())
            end = 0
        while time.monotonic() < end:
            with self.kube.changed:
                if not (changes := self.kube.since(version)):
                    self.kube.changed.wait(max(0, min(0.5, end - time.monotonic())))
            for change in changes:
                version = change.version
                if change.plural == place.resource.plural and _within(place, change.object):
                    self._tell(change, labels, fields)
        self.wfile.write(b"0\r\n\r\n")

    def _tell(self, change: Change, labels: str, fields: str) -> None:
        """A change as this watch sees it: what leaves its selection is DELETED for it."""
        before = change.before is not None and selected(change.before, labels, fields)
        after = change.type != "DELETED" and selected(change.object, labels, fields)
        if after:
            self._event("MODIFIED" if before else "ADDED", change.object)
        elif before:
            self._event("DELETED", change.object)

    def _event(self, type: str, item: Object) -> None:
        line = json.dumps({"type": type, "object": item}).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.flush()

    def _port_forward(self, place: _Path) -> None:
        """Channels 2n and 2n+1 carry a port's data and errors; each first names its port."""
        self.kube.get("pods", place.name, place.namespace)
        offered = self.headers.get("Sec-WebSocket-Protocol", "")
        if PORT_FORWARD not in offered or not self.headers.get("Sec-WebSocket-Key"):
            raise Refused(400, "BadRequest", "unable to upgrade: unsupported protocol")
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header(
            "Sec-WebSocket-Accept", websocket.accept_key(self.headers["Sec-WebSocket-Key"])
        )
        self.send_header("Sec-WebSocket-Protocol", PORT_FORWARD)
        self.end_headers()
        self.close_connection = True
        port = int(self.query["ports"].split(",")[0])
        for channel in (b"\0", b"\1"):
            self.wfile.write(websocket.frame(channel + port.to_bytes(2, "little")))
        target = self.kube.ports.get((place.namespace, place.name, port))
        try:
            if target is None:
                raise ConnectionRefusedError("connection refused")
            there = socket.create_connection(target, timeout=10)
        except OSError as error:
            said = f"error forwarding port {port} to pod {place.name}: {error}"
            self.wfile.write(websocket.frame(b"\1" + said.encode()))
            self.wfile.write(websocket.frame(b"\x03\xe8", websocket.CLOSE))
            return
        there.settimeout(None)
        with there:
            back = threading.Thread(target=self._bring_back, args=(there,), daemon=True)
            back.start()
            with contextlib.suppress(EOFError, OSError):
                while True:
                    opcode, content = websocket.receive(self.rfile)  # type: ignore[arg-type]
                    if opcode == websocket.CLOSE:
                        break
                    if opcode == websocket.BINARY and content[:1] == b"\0":
                        there.sendall(content[1:])
            with contextlib.suppress(OSError):
                there.shutdown(socket.SHUT_RDWR)
            back.join(10)

    def _bring_back(self, there: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := there.recv(1 << 16):
                self.wfile.write(websocket.frame(b"\0" + content))
            self.wfile.write(websocket.frame(b"\x03\xe8", websocket.CLOSE))

    def _json(self, code: int, content: object) -> None:
        self._send(code, json.dumps(content).encode(), "application/json")

    def _send(self, code: int, content: bytes, type: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _within(place: _Path, item: Object) -> bool:
    return not place.namespace or item["metadata"].get("namespace") == place.namespace
