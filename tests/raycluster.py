"""A real Ray cluster of two nodes on this machine: two `ray start`, each in a session of its own.

With token authentication, ports and a directory of its own, and ended by the processes' ids: `ray
stop` would end every Ray of this user on this machine.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from autotuner.addresses import LOOPBACK, free_ports
from tests.processes import alive, tree, wait_for

BIN = Path(sys.executable).parent
HOST = LOOPBACK
STORE_BYTES = 100 * 2**20
START_SECONDS, STOP_SECONDS = 90.0, 20.0
PORTS = 6400, 9899
"""Below Ray's workers' ports and those of trials' servers."""


@dataclass(frozen=True)
class RayCluster:
    """What a client must know of a cluster.

    Attributes:
        address: of its control store, HOST:PORT.
        dashboard: its URL, for jobs too.
        metrics: each node's Prometheus endpoint; the head's is the first.
    """

    address: str
    dashboard: str
    metrics: tuple[str, ...]
    token: str

    @property
    def environment(self) -> dict[str, str]:
        """What a client's environment needs, besides an address."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}

    def command(
        self, *arguments: str, directory: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`ray ARGUMENTS` as a user of the cluster types it, in a directory."""
        return subprocess.run(
            [str(BIN / "ray"), *arguments],
            env={**os.environ, **self.environment, "RAY_API_SERVER_ADDRESS": self.dashboard},
            capture_output=True,
            text=True,
            cwd=directory,
            timeout=500,
            check=False,
        )

    def listed(self, what: str) -> list[dict[str, Any]]:
        """The state API: `nodes`, `actors` or `placement_groups`, with all that it knows."""
        answer = self._asked(f"v0/{what}?detail=1&limit=1000")
        content: list[dict[str, Any]] = answer["data"]["result"]["result"]
        return content

    def job(self, submission: str) -> dict[str, Any]:
        """What the job API says of a submitted job."""
        content: dict[str, Any] = self._asked(f"jobs/{submission}")
        return content

    def scraped(self) -> str:
        """What Prometheus would read of all nodes."""
        texts = []
        for url in self.metrics:
            with urllib.request.urlopen(url, timeout=10) as answer:
                texts.append(answer.read().decode())
        return "\n".join(texts)

    def _asked(self, path: str) -> Any:
        request = urllib.request.Request(
            f"{self.dashboard}/api/{path}", headers={"Authorization": f"Bearer {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)


@contextmanager
def two_nodes(*, cpus: Sequence[int] = (2, 2), **environment: str) -> Iterator[RayCluster]:
    """A cluster that ends with the block, all of its processes gone.

    Args:
        cpus: of the head and of the other node, as Ray counts them.
        environment: of all nodes, and so of all that runs on them.
    """
    # Ray's sockets lie in there, and a socket's path has 107 characters at most.
    directory = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    ports = iter(free_ports(7, PORTS))
    head, dashboard = next(ports), next(ports)
    token = secrets.token_hex(32)
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    # Entrypoints of jobs look for `autotuner` there.
    path = f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"
    # As the files in cluster/ start it.
    usual = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    own = {**os.environ, "PATH": path, **usual, **environment, **auth}
    own.pop("RAY_ADDRESS", None)
    metrics = [next(ports), next(ports)]
    cluster = RayCluster(
        address=f"{HOST}:{head}",
        dashboard=f"http://{HOST}:{dashboard}",
        metrics=tuple(f"http://{HOST}:{port}/metrics" for port in metrics),
        token=token,
    )
    first = [
        *("--head", f"--port={head}", f"--temp-dir={directory}/1"),
        *("--include-dashboard=true", f"--dashboard-host={HOST}", f"--dashboard-port={dashboard}"),
        f"--ray-client-server-port={next(ports)}",
    ]
    # Not the head's: a node deletes a job's files from its directory once it needs them no more.
    second = [f"--address={cluster.address}", f"--temp-dir={directory}/2"]
    try:
        with ExitStack() as nodes:
            for number, arguments in enumerate((first, second)):
                more = [
                    f"--num-cpus={cpus[number]}",
                    f"--metrics-export-port={metrics[number]}",
                    f"--dashboard-agent-listen-port={next(ports)}",
                ]
                log = Path(directory) / f"node-{number}.log"
                node = nodes.enter_context(_node([*arguments, *more], own, log))
                up = partial(_is_up, node, cluster, number + 1)
                assert wait_for(up, START_SECONDS, every=1), log.read_text()
            yield cluster
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _is_up(node: subprocess.Popen[bytes], cluster: RayCluster, count: int) -> bool:
    """Whether the cluster has so many nodes.

    Raises:
        ChildProcessError: the last one that was started has ended.
    """
    if node.poll() is not None:
        raise ChildProcessError(" ".join(map(str, node.args)))  # type: ignore[arg-type]
    try:
        return [node["state"] for node in cluster.listed("nodes")].count("ALIVE") == count
    except (OSError, ValueError, KeyError, TypeError):  # the dashboard is not up yet
        return False


@contextmanager
def _node(
    arguments: Sequence[str], environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        *(str(BIN / "ray"), "start", "--block", f"--node-ip-address={HOST}"),
        *("--num-gpus=0", f"--object-store-memory={STORE_BYTES}"),
        *("--min-worker-port=0", "--max-worker-port=0"),
        *arguments,
    ]
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        family = tree(process.pid)
        for each in family:
            if alive(each):
                each.kill()
        process.wait(timeout=STOP_SECONDS)
        wait_for(lambda: not any(map(alive, family)), STOP_SECONDS)
