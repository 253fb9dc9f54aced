"""A server that spans nodes: its first part here, the others wherever their GPUs are. No Ray."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Protocol

from autotuner.backends.base import Server
from autotuner.serving import Ending

LAST_WORDS_SECONDS = 3.0
"""For the other parts of a server to end, once one has."""


class Part(Protocol):
    """One further part, on another node. The methods are those of `Server`."""

    def prepare(self, meeting: str) -> str:
        """What comes before its launch, to meet the others at HOST:PORT.

        Returns:
            What still holds its GPUs, in words; see `gate.wait_clear`.
        """

    def start(self) -> None:
        """Start it; returns at once."""

    def alive(self) -> bool: ...

    def log(self) -> str: ...

    def ending(self) -> Ending: ...

    def stop(self, seconds: float) -> None: ...


class SpanningServer:
    """All parts as one `Server`: it lives while all of them do."""

    def __init__(
        self,
        first: Server,
        others: Sequence[Part],
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._first = first
        self._others = others
        self._parts: list[Server | Part] = [first, *others]

    @property
    def name(self) -> str:
        return self._first.name

    @property
    def url(self) -> str | None:
        return self._first.url

    @property
    def node(self) -> str | None:
        """The first part's; the others' say theirs themselves."""
        return self._first.node

    def alive(self) -> bool:
        if all(part.alive() for part in self._parts):
            return True
        # What was lost is best said by the parts that lost it: they end a moment later.
        deadline = self._clock() + LAST_WORDS_SECONDS
        while any(part.alive() for part in self._parts) and self._clock() < deadline:
            self._sleep(LAST_WORDS_SECONDS / 20)
        return False

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
