"""`autotuner serve` as its users start it, for tests and benchmarks."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from autotuner.addresses import free_port
from tests.processes import alive, started, tree, wait_for

GONE_SECONDS = 20.0
PORTS = 3000, 6399
"""Below those of other tests' Rays."""


@dataclass(frozen=True)
class Served:
    """A service that runs.

    Attributes:
        seconds: from the command to the line that says where it serves.
    """

    process: subprocess.Popen[str]
    address: str
    client: httpx.Client
    seconds: float

    def family(self) -> list[psutil.Process]:
        """Every process of the service: its local Ray, replicas, jobs and their servers."""
        found = {each.pid: each for each in tree(self.process.pid)}
        for process in psutil.process_iter():
            try:
                owner = process.environ().get("AUTOTUNER_OWNER", "")
            except psutil.Error:
                continue
            if owner.partition(":")[0] == str(self.process.pid):
                found.update({each.pid: each for each in tree(process.pid)})
        return list(found.values())

    def one(self, text: str) -> psutil.Process:
        """The one process of the service whose command line, or title, holds a text."""
        found = [each for each in self.family() if alive(each) and text in _title(each)]
        assert len(found) == 1, (text, [_title(each) for each in found])
        return found[0]

    def ask(self, method: str, path: str, **more: Any) -> Any:
        """The JSON of an answer that says yes."""
        answer = self.client.request(method, path, **more)
        assert answer.is_success, answer.text
        return answer.json()

    def state(self, name: str) -> str:
        state: str = self.ask("GET", f"/v1/studies/{name}")["state"]
        return state

    def trials(self, name: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.ask("GET", f"/v1/studies/{name}/trials")["items"]
        return items

    def events(self, name: str, after: int = 0) -> Iterator[dict[str, Any]]:
        """What happens to a study: the events' content, with their number as `id`."""
        path = f"/v1/studies/{name}/events?after={after}"
        with self.client.stream("GET", path, timeout=httpx.Timeout(10, read=600)) as answer:
            event: dict[str, Any] = {}
            for line in answer.iter_lines():
                word, _, rest = line.partition(": ")
                if word == "id":
                    event["id"] = int(rest)
                elif word == "event":
                    event["kind"] = rest
                elif word == "data":
                    event |= json.loads(rest)
                elif not line and event:
                    yield event
                    event = {}


@contextmanager
def served(home: Path, **variables: str) -> Iterator[Served]:
    """`autotuner serve` on a free port, ended with the block if it still runs."""
    home.mkdir(exist_ok=True)
    began = time.monotonic()
    with started("serve", "--port", str(service_port()), home=home, **variables) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert "serves at" in said, (home / "stderr.txt").read_text()
        address = said.split()[-1]
        with httpx.Client(base_url=address, trust_env=False, timeout=30) as client:
            service = Served(process, address, client, time.monotonic() - began)
            family = service.family()
            try:
                yield service
            finally:
                process.terminate()
                process.wait(timeout=90)
                assert wait_for(lambda: not any(map(alive, family)), GONE_SECONDS)


def service_port() -> int:
    """A free one. Not one that the kernel gives to connections: while a killed replica is replaced,
    one would take it."""
    return free_port(PORTS)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
