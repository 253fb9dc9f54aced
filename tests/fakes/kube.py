"""A small true Kubernetes API server for tests: real HTTP, watches, selectors, rights.

It keeps what the tests' clients rely on: answers and errors as the real one words them, defaults
and strict validation from real schemas, the status subresource, finalizers, owner references,
pod logs, and port-forwards over WebSocket. There is no controller in it: a test plays that by a
hook, which hears of every change in a thread of its own, and by the methods of `KubeState`, which
do what requests do.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.fakes.kube_http import Front
from tests.fakes.kube_state import Change, KubeState, Refused, Request

__all__ = ["Change", "FakeKube", "Refused", "Request"]


class FakeKube(KubeState):
    """The server; a context manager."""

    def __enter__(self) -> FakeKube:
        self._front = Front(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._front.close()
        self.close()

    @property
    def url(self) -> str:
        return self._front.url

    def kubeconfig(self, file: Path, *, namespace: str = "default") -> Path:
        """Write the file that a client needs to come here; its path."""
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "tester", "user": {"token": "none"}}],
            "contexts": [
                {
                    "name": "fake",
                    "context": {"cluster": "fake", "user": "tester", "namespace": namespace},
                }
            ],
        }
        file.write_text(json.dumps(content), encoding="utf-8")
        return file
