"""A trial's files on their way from the node it ran on to the driver's machine."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from autotuner.study.files import DRIVER_FILE

LARGEST_FILE = 8 * 2**20
LARGEST_PARCEL = 64 * 2**20
"""Bytes, before compression: it travels through Ray's memory."""


def files_for(driver: str, directory: Path) -> bytes:
    """The files of a trial that a driver elsewhere lacks; none where it sees this directory.

    Args:
        driver: what it wrote into its study's `DRIVER_FILE`; empty: nobody asks.
        directory: the trial's, two levels below its study's.
    """
    try:
        seen = (directory.parents[1] / DRIVER_FILE).read_text(encoding="utf-8")
    except OSError:
        seen = ""
    return packed(directory) if driver and seen != driver and directory.is_dir() else b""


def packed(directory: Path) -> bytes:
    """The files below a directory as one archive; of large files their first and last part.

    What does not fit any more is left out, the large and late ones first: plans and logs are
    small, and a load generator's records of every request are not.
    """
    files = sorted(
        (each for each in directory.rglob("*") if each.is_file() and not each.is_symlink()),
        key=lambda each: each.stat().st_size,
    )
    archive, size = io.BytesIO(), 0
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for each in files:
            content = _shortened(each)
            size += len(content)
            if size > LARGEST_PARCEL:
                break
            entry = tarfile.TarInfo(str(each.relative_to(directory)))
            entry.size = len(content)
            entry.mtime = int(each.stat().st_mtime)
            tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def unpack(parcel: bytes, directory: Path) -> None:
    """Put a parcel's files into a directory; nothing outside of it."""
    directory.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(parcel), mode="r:gz") as tar:
        tar.extractall(directory, filter="data")


def _shortened(path: Path) -> bytes:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= LARGEST_FILE:
            return file.read()
        first = file.read(LARGEST_FILE // 2)
        file.seek(-LARGEST_FILE // 2, io.SEEK_END)
        left_out = f"\n... {size - LARGEST_FILE} bytes left out ...\n".encode()
        return first + left_out + file.read()
