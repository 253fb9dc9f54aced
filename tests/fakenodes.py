"""A Ray cluster of several nodes on this machine, with GPUs that are numbers.

    python -m tests.fakenodes GPUS GPUS ...

is a program that is one: it says its address and ends when its input does. The first node has no
GPUs; the others have addresses of their own, 127.0.0.2 and up, so that they can be told apart.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.brief import installed
from tests.processes import alive, command_holds, tree, wait_for

CPUS = 64
"""Of each node, as Ray counts them."""
STORE_BYTES = 100 * 2**20
START_SECONDS, STOP_SECONDS = 120.0, 20.0
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class FakeNodes:
    """A running cluster. `environment` is that of its clients."""

    program: int
    environment: dict[str, str]

    def kill(self, node: str) -> None:
        """As when the machine of that address is switched off: all of its processes at once."""
        for process in self._of(node):
            with suppress(psutil.NoSuchProcess):  # it ended when its raylet did
                process.kill()

    def _of(self, node: str) -> list[psutil.Process]:
        raylets = [
            process
            for process in tree(self.program)
            if command_holds(process, "raylet/raylet")
            and command_holds(process, f"--node_ip_address={node}")
        ]
        assert len(raylets) == 1, f"{len(raylets)} raylets at {node}"
        return tree(raylets[0].pid)


@contextmanager
def fake_nodes(*gpus: int, directory: Path) -> Iterator[FakeNodes]:
    """A cluster with so many GPUs on each of its nodes; nothing of it is left after the block.

    The load generator `tests.brief` is a kind of benchmark on it.
    """
    paths = [str(installed(directory / "installed")), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    with (directory / "nodes.txt").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakenodes", *map(str, gpus)],
            env={**{k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, (directory / "nodes.txt").read_text()
        yield FakeNodes(process.pid, {**environment, "RAY_ADDRESS": address})
    finally:
        family = tree(process.pid)
        process.kill()
        for each in family:
            if alive(each):
                each.kill()
        process.communicate(timeout=STOP_SECONDS)
        assert wait_for(lambda: not any(map(alive, family)), STOP_SECONDS)


def main() -> None:
    from ray.cluster_utils import Cluster

    # Ray's sockets lie in there, and a socket's path has 107 characters at most.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as directory:
        own = {
            "num_cpus": 1,
            "num_gpus": 0,
            "object_store_memory": STORE_BYTES,
            "include_dashboard": False,
            "temp_dir": directory,
        }
        cluster = Cluster(initialize_head=True, head_node_args=own)
        for index, gpus in enumerate(map(int, sys.argv[1:]), start=2):
            cluster.add_node(
                num_cpus=CPUS,
                num_gpus=gpus,
                object_store_memory=STORE_BYTES,
                node_ip_address=f"127.0.0.{index}",
            )
        print(cluster.address, flush=True)
        sys.stdin.read()
        cluster.shutdown()


if __name__ == "__main__":
    main()
