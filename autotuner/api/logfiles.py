"""Files below a directory, read with care: servers write there, and may put links to elsewhere."""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from autotuner.api.problems import NotFound

CHUNK_BYTES = 2**18
"""Read at once."""

_BLOCK = 2**16


@dataclass(frozen=True)
class Log:
    """A log file, which need not be there yet.

    Attributes:
        within: the directory that it must be below, links followed.
        ended: whether what writes it has ended; may read the store.
    """

    path: Path
    within: Path
    ended: Callable[[], bool]


@dataclass(frozen=True)
class Found:
    """Bytes of a file, and which file it was."""

    inode: int
    size: int
    content: bytes


def below(directory: Path | str, *parts: str) -> Path:
    """A path below a directory.

    Raises:
        NotFound: it leads out of the directory.
    """
    path = Path(directory, *parts)
    if not _within(path, Path(directory)):
        raise NotFound(f"there is no file {'/'.join(parts)!r}")
    return path


def text(log: Log, *, tail: int | None = None) -> Iterator[bytes]:
    """What a log holds now, as UTF-8; with `tail`, its last lines."""
    with opened(log) as file:
        if file is None:
            return
        size = os.fstat(file).st_size
        start = 0 if tail is None else start_of_last(file, size, tail)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while start < size and (found := os.pread(file, min(CHUNK_BYTES, size - start), start)):
            start += len(found)
            yield decoder.decode(found, final=start >= size).encode()


def read(log: Log, start: int, end: int) -> Found | None:
    """Its bytes from `start` to `end`; None where there is no such file."""
    with opened(log) as file:
        if file is None:
            return None
        there = os.fstat(file)
        content = os.pread(file, max(0, end - start), start)
        return Found(there.st_ino, there.st_size, content)


@contextmanager
def opened(log: Log) -> Iterator[int | None]:
    """Its descriptor, or None where there is no such file to be read below its directory."""
    try:
        real = log.path.resolve(strict=True)
        if not _within(real, log.within):
            raise PermissionError
        file = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, RuntimeError):  # a loop of links is a RuntimeError
        yield None
        return
    try:
        yield file if stat.S_ISREG(os.fstat(file).st_mode) else None
    finally:
        os.close(file)


def start_of_last(file: int, size: int, lines: int) -> int:
    """Where the last lines begin that are ended; with 0, where the one begins that is not."""
    end, missing = size, lines + 1
    while end > 0:
        start = max(0, end - _BLOCK)
        block = os.pread(file, end - start, start)
        found = block.count(b"\n")
        if found >= missing:
            at = len(block)
            for _ in range(missing):
                at = block.rindex(b"\n", 0, at)
            return start + at + 1
        end, missing = start, missing - found
    return 0


def _within(path: Path, directory: Path) -> bool:
    # Servers write there: what they link to elsewhere is not theirs to show.
    try:
        return path.resolve().is_relative_to(directory.resolve())
    except (OSError, RuntimeError):  # a loop of links is a RuntimeError
        return False
