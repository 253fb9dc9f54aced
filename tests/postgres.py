"""A PostgreSQL server of the tests' own, where its programs are installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def programs() -> Path | None:
    """The directory of `initdb` and `postgres`; Debian keeps it off the path."""
    found = shutil.which("initdb")
    candidates = [Path(found).parent] if found else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((each for each in candidates if (each / "initdb").exists()), None)


@contextmanager
def running(directory: Path) -> Iterator[str]:
    """The URL of a fresh database on a server that ends with the block."""
    user = ["setpriv", "--reuid=nobody", "--clear-groups"] if os.geteuid() == 0 else []
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o777)  # PostgreSQL does not run as root
        cluster = f"{place}/cluster"
        initdb = [f"{directory}/initdb", "-D", cluster, "-A", "trust", "-U", "tests"]
        subprocess.run([*user, *initdb], check=True, stdout=subprocess.DEVNULL, cwd=place)
        options = f"-p {port} -k {place} -c listen_addresses=127.0.0.1 -c fsync=off"
        control = [*user, f"{directory}/pg_ctl", "-D", cluster, "-w"]
        start = [*control, "-o", options, "-l", f"{place}/log", "start"]
        subprocess.run(start, check=True, stdout=subprocess.DEVNULL, cwd=place)
        try:
            yield f"postgresql+psycopg://tests@127.0.0.1:{port}/postgres"
        finally:
            stop = [*control, "-m", "immediate", "stop"]
            subprocess.run(stop, check=True, stdout=subprocess.DEVNULL, cwd=place)
