"""What the tests know about processes: which are ours, and when they are gone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from autotuner.backends.guarded import labelled


@contextmanager
def started(*arguments: str, home: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """`autotuner ARGUMENTS` as a process of its own; killed, with what it left, at the end."""
    with (home / "stderr.txt").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "autotuner", *arguments],
            env={**os.environ, "AUTOTUNER_HOME": str(home), **environment},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        family = tree(process.pid)
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=30)
        for each in family:
            if alive(each):
                each.kill()


def tree(pid: int) -> list[psutil.Process]:
    """A process and all below it."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def ours(study: str) -> list[psutil.Process]:
    """Everything on this machine that carries the labels of a study."""
    return [process for process, _ in labelled(study)]


def local_ray(study: str) -> list[psutil.Process]:
    """The processes of a study's local Ray; its workers' titles overwrite their labels."""
    roots = [p for p, labels in labelled(study, ray=True) if "AUTOTUNER_STUDY" not in labels]
    found = {each.pid: each for root in roots for each in tree(root.pid)}
    return [each for each in found.values() if each not in ours(study)]


def command_holds(process: psutil.Process, text: str) -> bool:
    try:
        return text in " ".join(process.cmdline())
    except psutil.Error:
        return False


def wait_for(what: Callable[[], object], seconds: float, *, every: float = 0.1) -> bool:
    """Whether something becomes true in time. Real processes have no clock to inject."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True
