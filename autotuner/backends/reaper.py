"""A program that removes what has lost its owner, from whatever backend: a container, an
InferenceService.

    python -m autotuner.backends.reaper KIND PLACE < what `watch` writes

One runs for each kind and place on a machine. It is a daemon in a session of its own, so that it
outlives actor, driver and raylet, whose deaths it is there for. It sweeps every two seconds, and
ends when no process that asked for it is left and there is nothing more to sweep. SIGTERM makes
it hurry.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from autotuner.backends.base import Backend
from autotuner.backends.owners import here, lives, this_owner
from autotuner.errors import AutotunerError, InfrastructureError
from autotuner.files import locked
from autotuner.plugins import load_kind
from autotuner.settings import Site

EVERY_SECONDS, HURRY_SECONDS = 2.0, 0.1
QUIET_SECONDS = 10.0
"""So long nobody was left and nothing removed: a daemon may still be carrying out the last
request of a process that was killed."""
DEAF_SECONDS = 600.0
"""So long the place did not answer, and nobody was left to whom it matters."""

_PACKAGES = Path(__file__).parent.parent.parent
_NOT_INHERITED = ("AUTOTUNER_", "RAY_", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "PYTHONPATH")
"""Beginnings of names. With the labels of a process of ours it would be swept like one."""


def watch(kind: str, options: Mapping[str, Any], site: Site, place: str = "") -> None:
    """Have what this process starts removed when this process is gone, however it died.

    To be called before anything is started; again does no harm.

    Args:
        kind, options, site: what a backend is opened with. They go through a pipe, for the site
            knows secrets.
        place: tells daemons, clusters and the like apart, where a kind knows several.

    Raises:
        InfrastructureError: the reaper cannot be started.
    """
    post = Post.of(kind, place)
    with post.closed():
        post.add(this_owner())
        if not post.is_held():
            _begin(kind, options, site, place, post)


class Post:
    """The files of one reaper: its lock, who asked for it, and what it did."""

    def __init__(self, stem: Path) -> None:
        self._gate = stem.with_name(f"{stem.name}.gate")
        self._lock = stem.with_name(f"{stem.name}.lock")
        self._owners = stem.with_name(f"{stem.name}.owners")
        self.log = stem.with_name(f"{stem.name}.log")

    @classmethod
    def of(cls, kind: str, place: str) -> Post:
        """Those for a kind and a place, as this PID namespace sees it."""
        digest = hashlib.sha256("\n".join((place, *here())).encode()).hexdigest()[:8]
        return cls(runtime_directory() / f"reaper-{kind}-{digest}")

    @contextlib.contextmanager
    def closed(self) -> Iterator[None]:
        """Nobody else comes or goes meanwhile."""
        with locked(self._gate):
            yield

    def add(self, owner: str) -> None:
        owners = {each for each in self.owners() if lives(each)} | {owner}
        self._owners.write_text("".join(f"{each}\n" for each in sorted(owners)), encoding="utf-8")

    def owners(self) -> list[str]:
        try:
            return self._owners.read_text(encoding="utf-8").splitlines()
        except OSError:
            return []

    def is_held(self) -> bool:
        """Whether a reaper is at work."""
        held = self.hold()
        if held is not None:
            os.close(held)
        return held is None

    def hold(self) -> int | None:
        """A descriptor that is this reaper's as long as it is open; None where another has it."""
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        return descriptor


def reap(
    backend: Backend,
    wanted: Callable[[], bool],
    say: Callable[[str], None],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Sweep until it is no longer wanted, and a while longer.

    Args:
        wanted: whether anybody is left whose death must be noticed.
    """
    quiet = heard = clock()
    trouble = ""
    while True:
        try:
            removed, error = backend.sweep(), ""
        except AutotunerError as caught:
            removed, error = [], str(caught)
        except Exception as caught:  # noqa: BLE001 - nobody is left to start another reaper
            removed, error = [], repr(caught)
        for each in removed:
            say(f"removed {each}")
        if error not in ("", trouble):
            say(f"cannot sweep: {error}")
        trouble, now = error, clock()
        if not error:
            heard = now
        if removed or error or wanted():
            quiet = now
        deaf = now - heard >= DEAF_SECONDS and not wanted()
        if deaf or now - quiet >= QUIET_SECONDS:
            return
        sleep(EVERY_SECONDS)


def main() -> None:
    if os.fork():
        os._exit(0)
    os.setsid()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Whoever ends everything on the machine, or below a study's guard, ends the owners too.
    hurry = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: hurry.set())
    kind, options, site, place = pickle.load(sys.stdin.buffer)
    post = Post.of(kind, place)
    with post.closed():
        held = post.hold()
    if held is None:
        return
    with post.log.open("a", encoding="utf-8") as log:

        def say(text: str) -> None:
            print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {text}", file=log, flush=True)

        def pause(seconds: float) -> None:
            if hurry.wait(seconds):
                time.sleep(HURRY_SECONDS)

        backend = load_kind("backend", kind).open(options, site)
        while True:
            reap(backend, lambda: any(lives(each) for each in post.owners()), say, sleep=pause)
            with post.closed():
                # Whoever came since then found the lock held, and relies on it.
                if not any(lives(each) for each in post.owners()):
                    os.close(held)
                    return


def _begin(kind: str, options: Mapping[str, Any], site: Site, place: str, post: Post) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(_NOT_INHERITED)}
    path = [str(_PACKAGES), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    with post.log.open("ab") as log:
        try:
            done = subprocess.run(
                [sys.executable, "-m", "autotuner.backends.reaper", kind, place],
                input=pickle.dumps((kind, dict(options), site, place)),
                stdout=log,
                stderr=log,
                env=environment,
                cwd="/",
                check=False,
            )
        except OSError as error:
            raise InfrastructureError(f"the reaper could not start: {error}") from error
    if done.returncode:
        raise InfrastructureError(f"the reaper could not start; {post.log} says why")


def runtime_directory() -> Path:
    """A directory of this user's on this machine, for locks; made if missing.

    Raises:
        InfrastructureError: the one in the temporary directory is somebody else's.
    """
    user = Path(f"/run/user/{os.getuid()}")
    base = user if os.access(user, os.W_OK) else Path(tempfile.gettempdir())
    directory = base / f"autotuner-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.is_symlink() or directory.stat().st_uid != os.getuid():
        raise InfrastructureError(f"{directory} belongs to another user")
    return directory


if __name__ == "__main__":
    main()
