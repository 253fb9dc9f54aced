"""Who owns what was started outside this process, and whether that owner still lives.

A container and an InferenceService outlive the process that asked for them. Their label says
which process that was: on which machine, since which boot, in which PID namespace.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from autotuner.backends.guarded import is_running, process_identity

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")
_UNKNOWN = "-"


def this_owner() -> str:
    """``HOST BOOT NAMESPACE PID:START`` of this process."""
    return " ".join((socket.gethostname(), *here(), process_identity(os.getpid())))


def here() -> tuple[str, str]:
    """The machine's boot and the PID namespace: where a PID means the same process."""
    return _boot(), _namespace()


def lives(owner: str) -> bool | None:
    """Whether the process of `this_owner` still runs; None: it cannot be told from here.

    A machine's containers see its boot, but not its processes; and another boot of the same
    machine has none of them.
    """
    parts = owner.split(" ")
    if len(parts) != 4:
        return None
    host, boot, namespace, identity = parts
    if boot != _boot():
        return False if host == socket.gethostname() and _UNKNOWN not in (boot, _boot()) else None
    if boot == _UNKNOWN and host != socket.gethostname():
        return None
    return is_running(identity) if namespace == _namespace() else None


def _boot() -> str:
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return _UNKNOWN


def _namespace() -> str:
    try:
        return _NAMESPACE.readlink().name
    except OSError:
        return _UNKNOWN
