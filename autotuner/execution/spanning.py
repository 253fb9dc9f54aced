"""A server that spans nodes: its first part here, the others wherever their GPUs are. No Ray."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Protocol

from autotuner.backends.base import Server
from autotuner.serving import Ending


class Part(Protocol):
    """One further part, on another node. The methods are those of `Server`."""

    def start(self, meeting: str) -> None:
        """Start it, to meet the others at HOST:PORT; returns at once."""

    def alive(self) -> bool: ...

    def log(self) -> str: ...

    def ending(self) -> Ending: ...

    def stop(self, seconds: float) -> None: ...


class SpanningServer:
    """All parts as one `Server`: it lives while all of them do."""

    def __init__(self, first: Server, others: Sequence[Part]) -> None:
        self._first = first
        self._others = others
        self._parts: list[Server | Part] = [first, *others]

    @property
    def name(self) -> str:
        return self._first.name

    @property
    def url(self) -> str | None:
        return self._first.url

    def alive(self) -> bool:
        return all(part.alive() for part in self._parts)

    def log(self) -> str:
        """The first part's last, for it says best why all of them ended."""
        if not self._others:
            return self._first.log()
        others = [f"--- part {rank}\n{part.log()}" for rank, part in enumerate(self._others, 1)]
        return "\n".join([*others, "--- part 0", self._first.log()])

    def ending(self) -> Ending:
        for part in self._parts:
            if not part.alive():
                return part.ending()
        return Ending()

    def stop(self, seconds: float) -> None:
        with ExitStack() as stack:  # whichever fails, all are asked
            for part in self._parts:
                stack.callback(part.stop, seconds)
