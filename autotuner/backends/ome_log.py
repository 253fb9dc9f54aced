"""A log that is read whole, again and again, as a file that only ever grows. No Kubernetes."""

from __future__ import annotations

import contextlib
from pathlib import Path

OVERLAP = 1024
"""Characters by which a log is known again whose beginning was rotated away."""

ANEW = "--- the log begins anew"


class Log:
    """What a server has said so far, and the file that has it, for whoever follows it by bytes."""

    def __init__(self, file: Path) -> None:
        self._file = file
        with contextlib.suppress(OSError):
            file.write_bytes(b"")
        self._kept = ""
        self._begins = 0
        self._unfinished = ""

    @property
    def text(self) -> str:
        return self._kept + self._unfinished

    def heard(self, text: str) -> None:
        """Take the log as it reads now. A line goes into the file once it is whole: the end of
        what was read may be half a character."""
        known = self._kept[self._begins :]
        if known.startswith(text):
            return
        more = added(known, text)
        if more is None:
            self.close()
            ended = self._kept.endswith("\n")
            self._keep(f"{ANEW}\n" if ended else f"\n{ANEW}\n")
            self._begins, more = len(self._kept), text
        lines, newline, self._unfinished = more.rpartition("\n")
        self._keep(lines + newline)

    def close(self) -> None:
        """Keep the last line too, although nothing ended it."""
        self._keep(self._unfinished)
        self._unfinished = ""

    def _keep(self, text: str) -> None:
        self._kept += text
        # A full disk: what was heard is still known here.
        with contextlib.suppress(OSError), self._file.open("ab") as file:
            file.write(text.encode())


def added(known: str, text: str) -> str | None:
    """What of `text` is new to who knew the log until `known`; None: it is another log."""
    if text.startswith(known):
        return text[len(known) :]
    tail = known[-OVERLAP:]
    at = text.rfind(tail)
    return text[at + OVERLAP :] if at >= 0 and len(tail) == OVERLAP else None
