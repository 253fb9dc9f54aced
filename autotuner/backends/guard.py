"""A program that runs another and never lets it outlive its owner.

    guard.py LEASE_FD STATUS_FD GRACE_SECONDS LOG PROGRAM [ARGUMENT...]

The owner holds the other end of the lease pipe. When the pipe closes, because the owner let go
or because it was killed, the guard ends the program and all its descendants: SIGTERM first,
SIGKILL after the grace. It daemonizes itself, because Ray kills a worker's direct children and
would kill a guard before it could do its work; and it is a subreaper, so that descendants whose
parents died, or that moved to sessions of their own, are still found. The status pipe tells the
owner ``started PID``, ``failed MESSAGE`` or ``exited CODE``; its end means that nothing is left.

A program may print the secrets it was given: where LOG is named, they are masked in that file once
nothing writes it any more, and only then may others read it.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36

REAPER = "autotuner.backends.reaper"
"""It comes to us when the trial that began it dies, and must outlive us: that death is what it is
there for."""


def main(lease: int, status: int, grace: float, log: str, argv: list[str]) -> None:
    if os.fork():
        os._exit(0)
    os.setsid()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        program = subprocess.Popen(argv, start_new_session=True, preexec_fn=_die_with_guard)
    except OSError as error:
        _say(status, f"failed {error}")
        return
    _detach_standard_streams()
    _say(status, f"started {program.pid}")
    while True:
        readable, _, _ = select.select([lease], [], [], 0.1)
        if readable and not os.read(lease, 1):
            break
        if program.poll() is not None:
            _say(status, f"exited {program.returncode}")
            break
    _end_all(program, grace)
    if log:
        with contextlib.suppress(OSError):  # its directory may be gone
            _mask(Path(log))


def _mask(log: Path) -> None:
    """Rewrite a log without the secrets of this process's environment, which was the program's."""
    # The package of this very file, wherever it lies: we were started apart from all others.
    sys.path.append(str(Path(__file__).parents[2]))
    from autotuner.files import replace
    from autotuner.masking import masked

    said = log.read_text(encoding="utf-8", errors="surrogateescape")
    mode = 0o666 & ~_umask()
    if (clean := masked(said, os.environ)) == said:
        log.chmod(mode)
    else:
        replace({log: clean.encode("utf-8", errors="surrogateescape")}, mode=mode)


def _umask() -> int:
    os.umask(mask := os.umask(0o077))
    return mask


def _die_with_guard() -> None:
    # Runs in the child: should the guard itself be killed, its program dies with it.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _detach_standard_streams() -> None:
    """Let go of the program's streams, so that their end is the program's end."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)


def _say(status: int, text: str) -> None:
    with contextlib.suppress(OSError):  # the owner may be gone
        os.write(status, (text + "\n").encode())


def _end_all(program: subprocess.Popen[bytes], grace: float) -> None:
    # The program alone first: engines shut their own children down in order.
    _signal_until_gone(program, signal.SIGTERM, grace / 2, only_program=True)
    _signal_until_gone(program, signal.SIGTERM, grace / 2)
    # Without end: a process the kernel keeps (a driver that hangs) still holds its GPU, and the
    # owner must not hear that nothing is left. The owner has a deadline of its own.
    _signal_until_gone(program, signal.SIGKILL, math.inf)


def _signal_until_gone(
    program: subprocess.Popen[bytes], number: int, seconds: float, *, only_program: bool = False
) -> None:
    """Signal what is left, once each (again and again for SIGKILL), until `seconds` passed."""
    deadline = time.monotonic() + seconds
    signalled: set[int] = set()
    pause = 0.02
    while left := _left(program):
        if only_program and program.poll() is not None:
            return
        for process in left:
            again = number == signal.SIGKILL or process.pid not in signalled
            if again and (not only_program or process.pid == program.pid):
                signalled.add(process.pid)
                with contextlib.suppress(psutil.Error):
                    process.send_signal(number)
        if time.monotonic() >= deadline:
            return
        time.sleep(pause)
        pause = min(2 * pause, 0.5)


def _left(program: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """What is still running below the guard; the dead are reaped."""
    program.poll()
    left = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                if REAPER not in process.cmdline():
                    left.append(process)
            elif process.pid != program.pid:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(process.pid, os.WNOHANG)
    return left


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4], sys.argv[5:])
