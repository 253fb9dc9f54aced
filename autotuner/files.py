"""Files that several processes read and write: whole or not at all, and one writer at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

STAGED = ".new"
"""What the name of a file ends with that is not in its place yet."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file's lock, waiting for it; the file is made if missing, and stays.

    Raises:
        OSError: it cannot be made or opened.
    """
    held = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def replace(contents: Mapping[Path, bytes], *, mode: int = 0o600) -> None:
    """Write files that others may be reading: each sees the old content or the new one.

    All are written before the first takes its place, so that what commonly fails, such as a full
    disk, leaves all as they were.

    Raises:
        OSError: one cannot be written.
    """
    staged: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            staged[path] = _staged(path, content, mode)
        for path, new in staged.items():
            new.replace(path)
    except BaseException:
        for new in staged.values():
            new.unlink(missing_ok=True)
        raise


def _staged(path: Path, content: bytes, mode: int) -> Path:
    if path.is_dir():
        raise IsADirectoryError(0, "is a directory", str(path))
    # Readable by its owner only, until it is as it shall be.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=STAGED)
    new = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    return new
