"""A program that is a local Ray with the service on it, until it is told to end.

    local_service.py HOST PORT DIRECTORY

Run under a guard, which ends all of it, with the variables of `serve.direct`. DIRECTORY is for
Ray's own files. It says ``ready`` on its standard output once the service answers; a line on its
standard input has it end the studies that run here in order, and then itself.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import ray
from ray import serve

from autotuner.addresses import LOOPBACK, free_ports
from autotuner.api import deployment
from autotuner.api.serve import url
from autotuner.errors import AutotunerError
from autotuner.execution.jobs import ORDERLY_SECONDS, RayJobs
from autotuner.settings import Settings
from autotuner.store import Store
from autotuner.studies import Studies

STORE_BYTES = 100 * 2**20
"""Ray's shared memory: trials pass a few kilobytes."""

START_SECONDS, READY_SECONDS = 60.0, 45.0
"""Until Ray listens; then, once the service is deployed, until it and Ray's job server answer."""

WATCH_SECONDS = 0.2


def main(host: str, port: int, directory: str) -> None:
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Ray prints is no answer to who started us
    control, dashboard, agent, client, other = free_ports(5)
    head = _head(directory, control, dashboard, agent, client)
    _connect(head, control)
    _serve(host, other)
    _wait_ready(url(host, port))
    said.write("ready\n")
    said.flush()
    while not select.select([sys.stdin], [], [], WATCH_SECONDS)[0]:
        if head.poll() is not None:
            sys.exit("a part of Ray died")
    _end_studies(RayJobs(f"http://{LOOPBACK}:{dashboard}"))
    sys.stderr.flush()
    os._exit(0)  # what Ray does at its end takes long, and the guard does it in two seconds


def _head(
    directory: str, control: int, dashboard: int, agent: int, client: int
) -> subprocess.Popen[bytes]:
    """`ray start --head`; the guard ends it and all that it starts."""
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *(f"--node-ip-address={LOOPBACK}", f"--port={control}", f"--temp-dir={directory}"),
        *("--include-dashboard=true", f"--dashboard-host={LOOPBACK}"),
        *(f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"),
        *(f"--ray-client-server-port={client}", f"--object-store-memory={STORE_BYTES}"),
        "--disable-usage-stats",
    ]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL)


def _connect(head: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        if head.poll() is not None or time.monotonic() > deadline:
            sys.exit("Ray did not start")
        try:
            socket.create_connection((LOOPBACK, port), 1).close()
            break
        except OSError:
            time.sleep(0.05)
    ray.init(address=f"{LOOPBACK}:{port}", logging_level="ERROR", log_to_driver=False)


def _serve(host: str, port: int) -> None:
    # The replica itself listens on the service's port. Ray's proxy, which nobody asks here, has
    # to listen on another.
    serve.start(http_options={"host": host, "port": port}, proxy_location="HeadOnly")
    serve.run(deployment.app, name=deployment.NAME, route_prefix="/")


def _wait_ready(address: str) -> None:
    """Until all that the service needs is there; its own words where it is not in time."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + READY_SECONDS
    said = ""
    while time.monotonic() < deadline:
        try:
            opener.open(f"{address}/readyz", timeout=5).close()
        except urllib.error.HTTPError as error:
            said = str(json.loads(error.read()).get("detail", error))
        except OSError as error:
            said = str(error)
        else:
            return
        time.sleep(WATCH_SECONDS)
    sys.exit("; ".join(said.splitlines()))


def _end_studies(jobs: RayJobs) -> None:
    """Cancel what runs as jobs here, and wait for their ends."""
    settings = Settings()
    store = Store(settings.store_url)
    studies = Studies(store, settings.studies, runner=jobs)
    ending = []
    for study in store.all_stored():
        try:
            if studies.under_way(study) and study.job and jobs.alive(study.job):
                ending.append(study.job)
                studies.cancel(study.name)
        except AutotunerError as error:
            sys.stderr.write(f"{study.name}: {error}\n")
    deadline = time.monotonic() + ORDERLY_SECONDS
    while any(map(jobs.alive, ending)) and time.monotonic() < deadline:
        time.sleep(WATCH_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
