"""A port of this machine that leads to one of a pod."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable
from typing import NamedTuple

from autotuner.errors import InfrastructureError

_BYTES = 1 << 16


class Far(NamedTuple):
    """The far end of a connection; `clear` is to be called once it is closed."""

    socket: socket.socket
    clear: Callable[[], None]


class Forward:
    """Listens on 127.0.0.1, and joins each connection to one of its own from `connect`.

    In threads, because what connects there may be any program. A benchmark's connections are as
    many as its requests in flight; each costs two threads, the client library's among them.
    """

    def __init__(self, connect: Callable[[], Far]) -> None:
        self._connect = connect
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, name="port-forward", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def close(self) -> None:
        """End the listening and every connection; may be called twice."""
        with contextlib.suppress(OSError):
            # A thread in accept() does not notice a close.
            self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._listening.close()
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        with near:
            try:
                far, clear = self._connect()
            except InfrastructureError:
                return  # whoever connected sees it closed, as from a server that is down
            with self._lock:
                self._open |= {near, far}
            try:
                _carry(near, far)
            finally:
                with self._lock:
                    self._open -= {near, far}
                far.close()
                near.close()
                clear()


def _carry(near: socket.socket, far: socket.socket) -> None:
    """Bytes both ways until one side ends. HTTP needs no half-open connections."""
    other = {near: far, far: near}
    with selectors.DefaultSelector() as ready:
        ready.register(near.fileno(), selectors.EVENT_READ, near)
        ready.register(far.fileno(), selectors.EVENT_READ, far)
        while True:
            for key, _ in ready.select():
                try:
                    content = key.data.recv(_BYTES)
                    if not content:
                        return
                    other[key.data].sendall(content)
                except OSError:
                    return
