"""The story of a trial: what its study's events say of it, each as a line of a log."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import aclosing
from datetime import datetime
from zoneinfo import ZoneInfo

from fastapi.concurrency import run_in_threadpool

from autotuner.api.follow import END, KEEP_ALIVE, Followers, Frames
from autotuner.store import Event, Store


class Story:
    """That of one trial.

    Args:
        zone: of the times in it.
    """

    def __init__(self, store: Store, name: str, number: int, zone: ZoneInfo) -> None:
        self._store, self._name, self._number, self._zone = store, name, number, zone

    def past(self, after: int = 0, tail: int | None = None) -> tuple[list[Event], int]:
        """The trial's events after that number, or the last of them; and the number of the last
        event of its study."""
        told = list[Event]()
        while found := self._store.events(self._name, after=after):
            after = found[-1].number
            told += [each for each in found if self._has(each)]
        return told if tail is None else told[max(0, len(told) - tail) :], after

    def line(self, event: Event) -> str:
        said = event.content
        at = datetime.fromisoformat(event.at).astimezone(self._zone)
        parts = (said["state"], said["failure"], said["note"], said["reason"])
        values = [f"{k}={v:g}" for k, v in said["objectives"].items() if v is not None]
        when = at.isoformat(timespec="milliseconds")
        return " ".join(str(each) for each in (when, *parts, *values) if each)

    async def frames(
        self, following: Followers, after: int | None, tail: int | None, ended: Callable[[], bool]
    ) -> Frames:
        """Its lines, after that event or the last ones only; ends when the trial has ended."""
        kept = tail if after is None else None
        told, looked = await run_in_threadpool(self.past, after or 0, kept)
        for event in told:
            yield self._frame(event)
        over = await run_in_threadpool(ended)
        async with aclosing(following.events(self._store, self._name, after=looked)) as live:
            while not over and (frame := await anext(live, None)) is not None:
                events = list(_events_in(frame))
                looked = events[-1].number if events else looked
                for event in filter(self._has, events):
                    yield self._frame(event)
                if frame == KEEP_ALIVE:
                    yield frame
                # A trial whose driver is lost ends without an event.
                if frame == KEEP_ALIVE or any(map(self._concerns, events)):
                    over = await run_in_threadpool(ended)
        # What was said before the end, and not heard of yet.
        told, _ = await run_in_threadpool(self.past, looked)
        for event in told:
            yield self._frame(event)
        yield END

    def _has(self, event: Event) -> bool:
        return event.kind == "trial" and event.content["number"] == self._number

    def _concerns(self, event: Event) -> bool:
        return event.kind == "study" or self._has(event)

    def _frame(self, event: Event) -> bytes:
        line = json.dumps([self.line(event)])
        return f"id: {event.number}\nevent: lines\ndata: {line}\n\n".encode()


def _events_in(frames: bytes) -> Iterator[Event]:
    """The events that `Followers.events` says; none in what only keeps the connection."""
    for each in frames.decode().split("\n\n"):
        said = dict(line.partition(": ")[::2] for line in each.split("\n"))
        if "id" in said:
            content = json.loads(said["data"])
            yield Event(int(said["id"]), content["at"], said["event"], content)
