"""What goes on, as server-sent events: a study's events, a log's lines; the past, then the rest.

All who follow one thing share one reader of it. Each pulls: who is slow, or has just come, reads
for itself from where it is until it has caught up, so that nothing is kept for it or waits for it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import zlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from autotuner.api.logfiles import CHUNK_BYTES, Found, Log, opened, read, start_of_last
from autotuner.errors import InfrastructureError, MissingStudyError
from autotuner.store import Event, Store

EVENTS_SECONDS = 0.25
LINES_SECONDS = 0.2
"""Between two looks, and so between two events with lines of one log, at least."""
ENDED_SECONDS = 1.0
"""Between two questions whether what writes a log has ended."""
KEEP_ALIVE_SECONDS = 15.0
KEPT_BYTES = 2**20
"""Kept of what was read last of one thing, for those who come a little later."""
PAGE = 500
"""Events read at once."""
LARGEST = 2**63 - 1
"""Of the numbers that a database and a file take."""

KEEP_ALIVE = b": keep-alive\n\n"
RESTART = b"id: 0\nevent: restart\ndata: {}\n\n"
END = b"event: end\ndata: {}\n\n"

_CHECKED = 64

Frames = AsyncGenerator[bytes, None]
Key = TypeVar("Key")
Thing = TypeVar("Thing", bound="_Shared")


class EventStream(StreamingResponse):
    """Frames as a response; who is gone is no follower any more, at once."""

    media_type = "text/event-stream"

    def __init__(self, frames: Frames) -> None:
        unbuffered = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(frames, headers=unbuffered)
        self._frames = frames

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._frames):
            await super().__call__(scope, receive, send)


def last_event_id(request: Request) -> str | None:
    """Where a client was when its stream broke, as its header says: see `_lines_id`, or a number
    alone."""
    said = request.headers.get("last-event-id", "").strip()
    return said if re.fullmatch("[0-9]+(-[0-9a-f]{8})?", said) else None


def position_of(id: str) -> int:
    """The number of an event, or the byte after lines."""
    return min(int(id.partition("-")[0][:20]), LARGEST)


class Followers:
    """All who follow something of one service.

    Args:
        kept: bytes kept of each thing, see KEPT_BYTES.
        chunk: bytes read at once.
    """

    def __init__(
        self,
        *,
        events_seconds: float = EVENTS_SECONDS,
        lines_seconds: float = LINES_SECONDS,
        ended_seconds: float = ENDED_SECONDS,
        keep_alive: float = KEEP_ALIVE_SECONDS,
        kept: int = KEPT_BYTES,
        chunk: int = CHUNK_BYTES,
    ) -> None:
        self.count = 0
        self._events_seconds = events_seconds
        self._lines_seconds = lines_seconds
        self._ended_seconds = ended_seconds
        self._keep_alive = keep_alive
        self._kept, self._chunk = kept, chunk
        self._studies: dict[str, _Events] = {}
        self._logs: dict[Path, _Lines] = {}

    async def events(
        self, store: Store, study: str, *, after: int = 0, follow: bool = True
    ) -> Frames:
        """A study's events after that number, or after the last where there is none so high; ends
        when the study is deleted, whether or not another has its name already."""
        # All share one reader, which begins where the first of them is: never beyond the others.
        position = min(after, await asyncio.to_thread(store.last_event, study)) if after else 0
        while found := await asyncio.to_thread(store.events, study, after=position, limit=PAGE):
            past = _events_frame(found)
            yield past.text
            position = past.end
            if past.last:
                return
        if not follow:
            return

        def make() -> _Events:
            return _Events(store, study, position, self._events_seconds, self._kept)

        with self._joined(self._studies, study, make) as shared:
            async with aclosing(self._followed(shared, position, shared.generation)) as frames:
                async for frame in frames:
                    yield frame

    async def lines(self, log: Log, *, after: str | None = None, tail: int | None = None) -> Frames:
        """A log's lines, after those of that id or the last ones; ends when its writer has ended
        and all is read."""

        def make() -> _Lines:
            return _Lines(log, self._lines_seconds, self._ended_seconds, self._kept, self._chunk)

        with self._joined(self._logs, log.path, make) as shared:
            await shared.begun()
            # Before the file is looked at: should it be replaced meanwhile, that is noticed.
            generation = shared.generation
            position = await asyncio.to_thread(_start, log, after, tail)
            if after and position_of(after) and not position:
                yield RESTART
            async with aclosing(self._followed(shared, position, generation)) as frames:
                async for frame in frames:
                    yield frame
            yield END

    @contextmanager
    def _joined(
        self, all_shared: dict[Key, Thing], key: Key, make: Callable[[], Thing]
    ) -> Iterator[Thing]:
        """One more follower of what is shared under a key, which ends with its last one."""
        shared = all_shared.get(key)
        if shared is None or shared.ended:
            shared = all_shared[key] = make()
            shared.start()
        shared.followers += 1
        self.count += 1
        try:
            yield shared
        finally:
            self.count -= 1
            shared.followers -= 1
            if not shared.followers:
                shared.stop()
                if all_shared.get(key) is shared:
                    del all_shared[key]

    async def _followed(self, shared: _Shared, position: int, generation: int) -> Frames:
        while True:
            if generation != shared.generation:
                yield RESTART
                generation, position = shared.generation, 0
            frame = shared.frames.get(position)
            if frame is None and position < shared.end:
                frame = await shared.read(position)
                if generation != shared.generation:
                    continue
            if frame is not None:
                yield frame.text
                position = frame.end
                if frame.last:
                    return
            elif shared.ended:
                shared.check()
                return
            elif not await shared.rung(self._keep_alive):
                yield KEEP_ALIVE


async def followers(request: Request) -> Followers:
    """Those of the application; asked on its event loop, so that there is one."""
    state = request.app.state
    if not hasattr(state, "followers"):
        state.followers = Followers()
    found: Followers = state.followers
    return found


Following = Annotated[Followers, Depends(followers)]
"""Parameter of a route: all who follow something."""


@dataclass(frozen=True)
class _Frame:
    """Encoded once for all: what follows one position, up to the next.

    Attributes:
        last: what comes after it is of something else, and nothing for who follows this.
    """

    end: int
    text: bytes
    last: bool = False


class _Shared:
    """Something read once for all who follow it, by a task of its own.

    Attributes:
        frames: what was read last, by the position it begins at.
        end: position up to which it was read.
        generation: how often it began anew.
    """

    def __init__(self, end: int, kept: int) -> None:
        self.followers = 0
        self.frames: OrderedDict[int, _Frame] = OrderedDict()
        self.end = end
        self.generation = 0
        self._kept, self._bytes = kept, 0
        self._bell = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._ringing())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self._task is not None and self._task.done()

    def check(self) -> None:
        """Raise what ended the reading before its time."""
        if self._task is not None and not self._task.cancelled():
            self._task.result()

    async def rung(self, seconds: float) -> bool:
        """Wait until there is something new; False when there was nothing for so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._bell.wait()
        except TimeoutError:
            return False
        return True

    async def read(self, position: int) -> _Frame | None:
        """Read for one follower that is behind; None where it must wait."""
        raise NotImplementedError

    async def _run(self) -> None:
        raise NotImplementedError

    async def _ringing(self) -> None:
        try:
            await self._run()
        finally:
            self._ring()

    def _ring(self) -> None:
        self._bell.set()
        self._bell = asyncio.Event()

    def _keep(self, frame: _Frame) -> None:
        self.frames[self.end] = frame
        self.end = frame.end
        self._bytes += len(frame.text)
        while self._bytes > self._kept:
            _, gone = self.frames.popitem(last=False)
            self._bytes -= len(gone.text)

    def _begin_anew(self) -> None:
        self.frames.clear()
        self.end, self._bytes = 0, 0
        self.generation += 1


class _Events(_Shared):
    """A study's events, and those of the next of its name; positions are their numbers."""

    def __init__(self, store: Store, study: str, after: int, every: float, kept: int) -> None:
        super().__init__(after, kept)
        self._store, self._study, self._every = store, study, every

    async def read(self, position: int) -> _Frame | None:
        found = await self._found(position)
        return _events_frame(found) if found else None

    async def _run(self) -> None:
        while True:
            try:
                found = await self._found(self.end)
            except InfrastructureError:
                found = []  # the database may be back soon, and nobody has missed anything
            for each in found:
                self._keep(_events_frame([each]))
            if found:
                self._ring()
            if len(found) < PAGE:
                await asyncio.sleep(self._every)

    async def _found(self, after: int) -> Sequence[Event]:
        return await asyncio.to_thread(self._store.events, self._study, after=after, limit=PAGE)


def _events_frame(found: Sequence[Event]) -> _Frame:
    """Of events, but none after the study's end."""
    end = next((place for place, each in enumerate(found) if each.is_end), len(found) - 1)
    told = found[: end + 1]
    return _Frame(told[-1].number, b"".join(map(_event_frame, told)), last=told[-1].is_end)


def _event_frame(event: Event) -> bytes:
    return _frame(event.number, event.kind, {**event.content, "at": event.at})


def _frame(id: int | str, kind: str, content: Mapping[str, Any] | Sequence[str]) -> bytes:
    # JSON has no bare line ends, which would end the frame's line.
    said = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return f"id: {id}\nevent: {kind}\ndata: {said}\n\n".encode()


_NEVER_THERE, _GONE = 0, -1
"""In place of a file's inode."""


class _Lines(_Shared):
    """A log's lines; positions are bytes. The last line is held back until it is ended."""

    def __init__(self, log: Log, every: float, ended: float, kept: int, chunk: int) -> None:
        super().__init__(0, kept)
        self._log, self._every, self._ended_every, self._chunk = log, every, ended, chunk
        self._inode = _NEVER_THERE
        self._before = b""
        self._begun = asyncio.Event()

    async def begun(self) -> None:
        """Until it is known how much of the file there is."""
        await self._begun.wait()

    async def read(self, position: int) -> _Frame | None:
        end = min(self.end, position + self._chunk)
        start = max(0, position - _CHECKED)
        found = await asyncio.to_thread(read, self._log, start, end)
        if found is None or found.inode != self._inode or found.size < self.end:
            return None  # replaced just now, as will be said
        before, content = found.content[: position - start], found.content[position - start :]
        whole = end == self.end or self._long(content)
        return _lines_frame(content, position, before, whole=whole)

    async def _run(self) -> None:
        try:
            await asyncio.to_thread(self._begin)
        finally:
            self._begun.set()
        told, asked = False, -self._ended_every
        loop = asyncio.get_running_loop()
        while True:
            if not told and loop.time() - asked >= self._ended_every:
                asked = loop.time()
                # Before the file is read: what was written before the end is then in it.
                told = await asyncio.to_thread(_has_ended, self._log)
            start = self.end - len(self._before)
            found = await asyncio.to_thread(read, self._log, start, self.end + self._chunk)
            if self._replaced(found):
                self._begin_anew()
                self._before = b""
                self._ring()
                continue
            if found is not None and self._take(found, whole=told):
                self._ring()
                if self.end < found.size and len(found.content) >= self._chunk:
                    continue
            if told and (found is None or self.end >= found.size):
                return
            await asyncio.sleep(self._every)

    def _begin(self) -> None:
        """Begin where whole lines end: what is before that, each follower reads for itself."""
        with opened(self._log) as file:
            if file is None:
                return
            there = os.fstat(file)
            self._inode = there.st_ino
            self.end = start_of_last(file, there.st_size, 0)
            self._before = _before(file, self.end)

    def _replaced(self, found: Found | None) -> bool:
        """Whether it is another file than that which was read, or was written anew."""
        was = self._inode
        if found is None:
            self._inode = _NEVER_THERE if was == _NEVER_THERE else _GONE
            return False
        self._inode = found.inode
        if was == _NEVER_THERE:
            return False
        # An inode may be used again, and a truncated file may soon be as long as it was.
        rewritten = found.size < self.end or not found.content.startswith(self._before)
        return was != found.inode or rewritten

    def _long(self, content: bytes) -> bool:
        """Whether it is part of a line that is too long to be read at once."""
        return len(content) >= self._chunk and b"\n" not in content

    def _take(self, found: Found, *, whole: bool) -> bool:
        """Keep the new lines; whether there are any. `whole`: its last line will not go on."""
        fresh = found.content[len(self._before) :]
        at_end = self.end + len(fresh) >= found.size
        whole = (whole and at_end) or self._long(fresh)
        frame = _lines_frame(fresh, self.end, self._before, whole=whole)
        if frame is None:
            return False
        taken = len(self._before) + frame.end - self.end
        self._before = found.content[max(0, taken - _CHECKED) : taken]
        self._keep(frame)
        return True


def _lines_frame(content: bytes, start: int, before: bytes, *, whole: bool) -> _Frame | None:
    """The lines that are ended; with `whole`, the last one too. `before`: what precedes them."""
    length = len(content) if whole else content.rfind(b"\n") + 1
    if not length:
        return None
    lines = content[:length].decode("utf-8", "replace").removesuffix("\n").split("\n")
    end = start + length
    return _Frame(end, _frame(_lines_id(end, before + content[:length]), "lines", lines))


def _lines_id(end: int, before: bytes) -> str:
    """``BYTE-CHECKSUM``: where lines end, and what precedes that, so that a log which was written
    anew is told. Lines have times in them, and are seldom alike."""
    return f"{end}-{zlib.crc32(before[-_CHECKED:]):08x}"


def _has_ended(log: Log) -> bool:
    try:
        return log.ended()
    except MissingStudyError:
        return True
    except InfrastructureError:
        return False  # nobody can tell just now


def _start(log: Log, after: str | None, tail: int | None) -> int:
    """Where a follower begins; 0 for one that was in another file than this."""
    with opened(log) as file:
        if file is None:
            return 0
        size = os.fstat(file).st_size
        if after is not None:
            byte = position_of(after)
            same = "-" not in after or after == _lines_id(byte, _before(file, byte))
            return byte if byte <= size and same else 0
        return 0 if tail is None else start_of_last(file, size, tail)


def _before(file: int, position: int) -> bytes:
    start = max(0, position - _CHECKED)
    return os.pread(file, position - start, start)
