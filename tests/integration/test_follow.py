"""Streams of events and of logs: nothing twice, nothing left out, nothing left behind."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from autotuner.api.follow import (
    KEEP_ALIVE,
    EventStream,
    Followers,
    Following,
    Frames,
    last_event_id,
    position_of,
)
from autotuner.api.logfiles import Log, below, text
from autotuner.api.problems import NotFound
from autotuner.errors import InfrastructureError, MissingStudyError
from autotuner.store import Store
from autotuner.study.study import Study, StudyState
from tests.builders import spec, trial

SECONDS = 20.0
"""For what should happen at once."""


@dataclass
class Writer:
    """A log, and who writes it."""

    path: Path
    over: bool = False

    @property
    def log(self) -> Log:
        return Log(self.path, self.path.parent, lambda: self.over)

    def write(self, more: str | bytes) -> None:
        with self.path.open("ab") as file:
            file.write(more.encode() if isinstance(more, str) else more)


@dataclass
class Reader:
    """What one follower has received, and where it is."""

    frames: Frames
    lines: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    at: str = "0"

    async def all(self) -> Reader:
        async with aclosing(self.frames):
            async for chunk in self.frames:
                self.take(chunk)
        return self

    async def until(self, true: Callable[[Reader], bool]) -> Reader:
        while not true(self):
            self.take(await anext(self.frames))
        return self

    async def has(self, count: int) -> Reader:
        return await self.until(lambda reader: len(reader.lines) >= count)

    def take(self, chunk: bytes) -> None:
        for id, kind, content in parsed(chunk):
            self.kinds.append(kind)
            if id is not None:
                self.at = id
            if kind == "lines":
                self.lines += content
            if kind == "restart":
                self.lines = []


def parsed(chunk: bytes) -> list[tuple[str | None, str, Any]]:
    """The events of frames: id, kind, content."""
    found = []
    for frame in chunk.decode().removesuffix("\n\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in frame.split("\n"))
        if "event" in fields:
            found.append((fields.get("id"), fields["event"], json.loads(fields["data"])))
    return found


def quick(**changes: Any) -> Followers:
    return Followers(
        **{"events_seconds": 0.01, "lines_seconds": 0.01, "ended_seconds": 0.01, **changes}
    )


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(SECONDS):
            await test()
        assert await settled() == set(), "a task was left"

    asyncio.run(limited())


async def settled() -> set[asyncio.Task[Any]]:
    """Tasks but this one, once those that were cancelled have ended."""
    for _ in range(100):
        left = asyncio.all_tasks() - {current()}
        if not left:
            return left
        await asyncio.sleep(0.01)
    return left


def current() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(tmp_path / "server.log")


def numbered(first: int, last: int) -> list[str]:
    return [f"line {number}" for number in range(first, last)]


def lines(first: int, last: int) -> str:
    return "".join(f"{line}\n" for line in numbered(first, last))


def test_past_and_live_without_a_gap_or_a_repeat(writer: Writer) -> None:
    writer.write(lines(0, 50))

    async def test() -> None:
        followers = quick()
        reader = Reader(followers.lines(writer.log))
        await reader.has(50)
        for first in range(50, 1000, 50):
            writer.write(lines(first, first + 50))
            if first % 100:
                await reader.has(first)
        writer.over = True
        await reader.all()
        assert reader.lines == numbered(0, 1000)
        assert reader.kinds[-1] == "end"
        assert reader.kinds.count("end") == 1

    run(test)


WRITINGS = st.lists(
    st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\n", b"\xff", b"\0", b"\r"]), max_size=30).map(
        b"".join
    ),
    max_size=12,
)


@given(writings=WRITINGS, chunk=st.sampled_from([4, 64, 10_000]), kept=st.sampled_from([0, 500]))
@settings(max_examples=60)
def test_whatever_is_written_and_however_it_is_read_it_is_the_same(
    writings: list[bytes], chunk: int, kept: int
) -> None:
    """One follower is there from the start, one comes in the middle, one leaves and returns."""
    with tempfile.TemporaryDirectory() as directory:
        writer = Writer(Path(directory, "server.log"))

        async def test() -> None:
            followers = quick(lines_seconds=0, ended_seconds=0, chunk=chunk, kept=kept)
            first = asyncio.create_task(Reader(followers.lines(writer.log)).all())
            gone = Reader(followers.lines(writer.log))
            reading = asyncio.create_task(gone.all())
            late: list[asyncio.Task[Reader]] = []
            for number, each in enumerate(writings):
                writer.write(each)
                await asyncio.sleep(0.001)
                if number == len(writings) // 2:
                    late.append(asyncio.create_task(Reader(followers.lines(writer.log)).all()))
                    reading.cancel()
            writer.over = True
            await asyncio.wait([reading])
            back = await Reader(followers.lines(writer.log, after=gone.at)).all()
            content = b"".join(writings).decode("utf-8", "replace")
            lines = content.split("\n")[: None if not content.endswith("\n") else -1]
            for read in (
                (await first).lines,
                gone.lines + back.lines,
                *[(await each).lines for each in late],
            ):  # fmt: skip
                assert "".join(read) == content.replace("\n", "")
                if chunk == 10_000:
                    assert read == (lines if content else [])

        run(test)


def test_it_goes_on_after_the_last_event_id(writer: Writer) -> None:
    writer.write(lines(0, 10))

    async def test() -> None:
        followers = quick()
        first = Reader(followers.lines(writer.log))
        await first.has(10)
        await first.frames.aclose()
        writer.write(lines(10, 20))
        writer.over = True
        second = await Reader(followers.lines(writer.log, after=first.at)).all()
        assert second.lines == numbered(10, 20)
        again = await Reader(followers.lines(writer.log, after=second.at)).all()
        assert again.kinds == ["end"]

    run(test)


@pytest.mark.parametrize("tail", [0, 1, 7, 5000])
def test_the_tail_is_that_many_lines(writer: Writer, tail: int) -> None:
    content = lines(0, 20_000)  # several blocks
    writer.write(content)
    writer.over = True

    async def test() -> None:
        reader = await Reader(quick().lines(writer.log, tail=tail)).all()
        assert reader.lines == numbered(20_000 - tail, 20_000)

    run(test)
    assert b"".join(text(writer.log, tail=tail)).decode() == lines(20_000 - tail, 20_000)
    assert b"".join(text(writer.log)).decode() == content


def test_a_partial_line_waits_for_its_end_or_that_of_its_writer(writer: Writer) -> None:
    writer.write("whole\nha")

    async def test() -> None:
        reader = Reader(quick().lines(writer.log))
        await reader.has(1)
        assert reader.lines == ["whole"]
        writer.write("lf\nnever en")
        await reader.has(2)
        assert reader.lines == ["whole", "half"]
        writer.write("ded")
        writer.over = True
        await reader.all()
        assert reader.lines == ["whole", "half", "never ended"]

    run(test)


def test_what_is_no_utf_8_is_replaced_even_where_a_chunk_ends_in_a_letter(writer: Writer) -> None:
    writer.write(b"bad \xff byte\n" + "äöü\n".encode() * 200)
    writer.over = True

    async def test() -> None:
        reader = await Reader(quick(chunk=64).lines(writer.log)).all()
        assert reader.lines == ["bad \N{REPLACEMENT CHARACTER} byte", *["äöü"] * 200]

    run(test)
    assert b"".join(text(writer.log)).decode().splitlines()[1:] == ["äöü"] * 200


def test_a_line_longer_than_what_is_read_at_once_is_cut_and_stops_nothing(writer: Writer) -> None:
    writer.write("x" * 1000 + "\nshort\n")

    async def test() -> None:
        reader = Reader(quick(chunk=64).lines(writer.log))
        await reader.until(lambda r: r.lines[-1:] == ["short"])
        writer.write("y" * 1000 + "\nlast\n")
        writer.over = True
        await reader.all()
        assert "".join(reader.lines) == "x" * 1000 + "short" + "y" * 1000 + "last"

    run(test)


def test_a_file_that_is_not_there_yet_is_waited_for(writer: Writer) -> None:
    async def test() -> None:
        frames = quick(keep_alive=0.01).lines(writer.log)
        assert await anext(frames) == KEEP_ALIVE
        writer.write("at last\n")
        writer.over = True
        reader = await Reader(frames).all()
        assert reader.lines == ["at last"]
        assert "restart" not in reader.kinds

    run(test)


def test_one_that_never_came_ends_with_its_writer(writer: Writer) -> None:
    writer.over = True

    async def test() -> None:
        assert (await Reader(quick().lines(writer.log)).all()).kinds == ["end"]

    run(test)


def truncated(path: Path, content: str) -> None:
    path.write_text(content)


def replaced(path: Path, content: str) -> None:
    other = path.with_suffix(".new")
    other.write_text(content)
    other.replace(path)


@pytest.mark.parametrize("anew", [truncated, replaced])
@pytest.mark.parametrize("count", [1, 5, 50])
def test_a_file_written_anew_is_begun_again(
    writer: Writer, anew: Callable[[Path, str], None], count: int
) -> None:
    """Also where it is as long as before, or longer."""
    writer.write(lines(0, 5))

    async def test() -> None:
        reader = Reader(quick().lines(writer.log))
        await reader.has(5)
        anew(writer.path, lines(100, 100 + count))
        await reader.until(lambda r: "restart" in r.kinds)
        await reader.has(count)
        writer.write("more\n")
        writer.over = True
        await reader.all()
        assert reader.lines == [*numbered(100, 100 + count), "more"]
        assert reader.kinds.count("restart") == 1

    run(test)


def test_a_file_that_went_and_came_is_begun_again(writer: Writer) -> None:
    writer.write(lines(0, 5))

    async def test() -> None:
        reader = Reader(quick(keep_alive=0.1).lines(writer.log))
        await reader.has(5)
        writer.path.unlink()
        reader.take(await anext(reader.frames))
        writer.write("new\n")
        writer.over = True
        await reader.all()
        assert (reader.lines, reader.kinds.count("restart")) == (["new"], 1)

    run(test)


def test_who_was_further_than_the_file_goes_begins_again(writer: Writer) -> None:
    writer.write(lines(0, 3))
    writer.over = True

    async def test() -> None:
        reader = await Reader(quick().lines(writer.log, after="10000")).all()
        assert (reader.kinds[0], reader.lines) == ("restart", numbered(0, 3))

    run(test)


@pytest.mark.parametrize("anew", [truncated, replaced])
def test_a_file_written_anew_while_its_follower_is_away_is_begun_again(
    writer: Writer, anew: Callable[[Path, str], None]
) -> None:
    writer.write(lines(0, 40))

    async def test() -> None:
        followers = quick(kept=0, chunk=100)
        gone = Reader(followers.lines(writer.log))
        await gone.has(20)
        await gone.frames.aclose()
        anew(writer.path, lines(0, 60))  # longer, but nobody has missed anything
        grown = Reader(followers.lines(writer.log, after=gone.at))
        grown.take(await anext(grown.frames))
        await grown.frames.aclose()
        anew(writer.path, lines(100, 200))
        writer.over = True
        for after in (gone.at, grown.at):
            back = await Reader(followers.lines(writer.log, after=after)).all()
            assert (back.kinds[0], back.lines) == ("restart", numbered(100, 200))
        assert "restart" not in grown.kinds
        assert grown.lines[0] == f"line {len(gone.lines)}"
        byte, _, _ = gone.at.partition("-")
        assert (await Reader(followers.lines(writer.log, after=byte)).all()).kinds[0] == "lines"

    run(test)


def test_a_slow_follower_gets_everything_though_little_is_kept(writer: Writer) -> None:
    async def test() -> None:
        followers = quick(kept=200, chunk=500)
        slow, fast = (Reader(followers.lines(writer.log)) for _ in range(2))
        writer.write(lines(0, 1))
        await slow.has(1)
        for first in range(1, 500):
            writer.write(lines(first, first + 1))
            await fast.has(first)
        writer.over = True
        await fast.all()
        (shared,) = followers._logs.values()
        assert sum(len(frame.text) for frame in shared.frames.values()) <= 200
        await slow.all()
        assert slow.lines == fast.lines == numbered(0, 500)

    run(test)


def test_a_hundred_followers_cost_one_reading(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.write(lines(0, 10))
    preads = []
    pread = os.pread

    def counted(file: int, length: int, start: int) -> bytes:
        preads.append(start)
        return pread(file, length, start)

    async def test() -> None:
        followers = quick()
        readers = [Reader(followers.lines(writer.log, tail=1)) for _ in range(100)]
        # Where a follower begins is read for it alone, and on a busy machine late.
        await asyncio.gather(*(reader.has(1) for reader in readers))
        waiting = [asyncio.create_task(reader.has(301)) for reader in readers]
        monkeypatch.setattr(os, "pread", counted)
        for first in range(10, 310, 100):
            writer.write(lines(first, first + 100))
            await asyncio.sleep(0.05)
        await asyncio.gather(*waiting)
        assert all(reader.lines == numbered(9, 310) for reader in readers)
        assert 3 <= len(preads) < 100, "each of 100 followers would have read three times"
        for reader in readers:
            await reader.frames.aclose()

    run(test)


def test_a_hundred_followers_come_and_go(writer: Writer) -> None:
    writer.write(lines(0, 10))

    async def test() -> None:
        followers = quick()
        for _ in range(3):
            readers = [Reader(followers.lines(writer.log)) for _ in range(100)]
            reading = [asyncio.create_task(reader.all()) for reader in readers]
            while not all(reader.lines for reader in readers):
                await asyncio.sleep(0.01)
            assert followers.count == 100
            assert len(followers._logs) == 1
            for each in reading:
                each.cancel()
            await asyncio.wait(reading)
            assert followers.count == 0
            assert not followers._logs
        assert await settled() == set()

    run(test)


def test_who_comes_to_a_log_whose_writer_goes_on_again_does_not_hear_its_end(
    writer: Writer,
) -> None:
    writer.write(lines(0, 3))
    writer.over = True

    async def test() -> None:
        followers = quick()
        slow = Reader(followers.lines(writer.log))
        await slow.has(3)
        await (await settled_lines(followers))
        writer.over = False
        late = Reader(followers.lines(writer.log))
        await late.has(3)
        writer.write(lines(3, 4))
        await late.has(4)
        assert "end" not in late.kinds
        await late.frames.aclose()
        await slow.all()
        assert slow.kinds[-1] == "end"

    run(test)


async def settled_lines(followers: Followers) -> Awaitable[None]:
    """The task that reads a log, to wait for its end."""
    (shared,) = followers._logs.values()
    assert shared._task is not None
    return shared._task


def test_a_store_that_is_away_does_not_end_a_log_and_a_deleted_study_does(tmp_path: Path) -> None:
    said = [InfrastructureError("away"), InfrastructureError("away"), MissingStudyError("gone")]
    path = tmp_path / "server.log"
    path.write_text("one\n")

    def ended() -> bool:
        raise said.pop(0)

    async def test() -> None:
        reader = await Reader(quick().lines(Log(path, tmp_path, ended))).all()
        assert (reader.lines, reader.kinds[-1], said) == (["one"], "end", [])

    run(test)


def test_only_files_below_the_directory_are_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret\n")
    study = tmp_path / "study"
    (study / "trial-1").mkdir(parents=True)
    (study / "trial-1" / "server.log").write_text("server\n")
    (study / "out").symlink_to(tmp_path)
    (study / "log").symlink_to(study / "trial-1" / "server.log")
    (study / "loop").symlink_to(study / "loop")
    os.mkfifo(study / "fifo")

    assert below(study, "trial-1", "server.log").read_text() == "server\n"
    for parts in (("..", "secret"), ("out", "secret"), ("/etc/passwd",)):
        with pytest.raises(NotFound):
            below(study, *parts)
        assert list(text(Log(study.joinpath(*parts), study, lambda: True))) == []
    for name in ("loop", "fifo", "trial-1"):
        assert list(text(Log(study / name, study, lambda: True))) == []
    assert list(text(Log(study / "log", study, lambda: True))) == [b"server\n"]


@pytest.fixture
def store(tmp_path: Path) -> Any:
    found = Store(f"sqlite:///{tmp_path}/store.db")
    found.create(Study(spec(), str(tmp_path), created_at="2026-01-01T00:00:00+00:00"))
    yield found
    found.close()


def numbers(chunks: list[bytes]) -> list[int]:
    return [int(id or 0) for chunk in chunks for id, _, _ in parsed(chunk)]


async def taken(frames: AsyncIterator[bytes], last: int) -> list[bytes]:
    """Frames up to that of an event."""
    chunks: list[bytes] = []
    while last not in numbers(chunks):
        chunks.append(await anext(frames))
    return chunks


def test_events_past_and_live_up_to_the_last(store: Store) -> None:
    store.save("small", trial(0))

    async def test() -> None:
        followers = quick()
        frames = followers.events(store, "small")
        late = followers.events(store, "small", after=1)
        assert numbers(await taken(frames, 2)) == [1, 2]
        for number in range(1, 20):
            store.save("small", trial(number, {"x": number}))
        chunks = await taken(frames, 21)
        assert numbers(chunks) == list(range(3, 22))
        kind, content = parsed(chunks[-1])[-1][1:]
        assert (kind, content["parameters"]) == ("trial", {"x": 19})
        assert content["at"].endswith("+00:00")
        assert numbers(await taken(late, 21)) == list(range(2, 22))
        store.delete(store.study("small"))
        for each in (frames, late):
            rest = [chunk async for chunk in each]
            (last,) = [event for chunk in rest for event in parsed(chunk)]
            assert (last[0], last[1], last[2]["state"]) == ("22", "study", "DELETED")
        assert not followers._studies
        gone = [chunk async for chunk in followers.events(store, "small")]
        assert numbers(gone) == [22]

    run(test)


def test_events_go_on_where_a_study_was_begun_anew(store: Store) -> None:
    async def test() -> None:
        followers = quick()
        frames = followers.events(store, "small")
        await taken(frames, 1)
        was = store.study("small")
        store.replace(was, was)
        store.set_state("small", StudyState.RUNNING)
        assert numbers(await taken(frames, 3)) == [2, 3]
        await frames.aclose()

    run(test)


def test_a_number_that_was_never_told_holds_up_nobody(store: Store) -> None:
    async def test() -> None:
        followers = quick()
        ahead = followers.events(store, "small", after=999_999)
        first = asyncio.create_task(anext(ahead))
        while "small" not in followers._studies:
            await asyncio.sleep(0.01)
        frames = followers.events(store, "small")
        await taken(frames, 1)
        store.save("small", trial(0))
        assert numbers([await anext(frames)]) == [2]
        assert numbers([await first]) == [2]
        for each in (ahead, frames):
            await each.aclose()

    run(test)


def test_who_follows_a_deleted_study_is_not_led_to_the_next_of_its_name(store: Store) -> None:
    """However soon that comes: here both happen between two looks."""
    was = store.study("small")

    async def test() -> None:
        followers = quick(events_seconds=0.05)
        frames, behind = followers.events(store, "small"), followers.events(store, "small")
        for each in (frames, behind):
            await taken(each, 1)
        waiting = asyncio.create_task(anext(frames))
        while "small" not in followers._studies:
            await asyncio.sleep(0.01)
        store.delete(was)
        store.create(was)
        # Of the new one from the first event on, at the same reader, and not ended by the old's.
        fresh = followers.events(store, "small")
        assert numbers([await anext(fresh)]) == [3]
        assert numbers([await waiting, *[chunk async for chunk in frames]]) == [2]
        assert numbers([chunk async for chunk in behind]) == [2]
        back = [chunk async for chunk in followers.events(store, "small", after=1)]
        assert [parsed(chunk)[0][2]["state"] for chunk in back] == ["DELETED"]
        store.save("small", trial(0))
        assert numbers([await anext(fresh)]) == [4]
        await fresh.aclose()

    run(test)


def test_without_following_the_past_is_all(store: Store) -> None:
    async def test() -> None:
        chunks = [c async for c in quick().events(store, "small", follow=False)]
        assert numbers(chunks) == [1]

    run(test)


def test_a_hundred_followers_of_a_study_ask_the_store_as_one(store: Store) -> None:
    async def test() -> None:
        followers = quick(events_seconds=0.05)
        everyone = [followers.events(store, "small") for _ in range(100)]
        for each in everyone:
            await taken(each, 1)
        waiting = [asyncio.create_task(taken(each, 2)) for each in everyone]
        while followers.count < 100:
            await asyncio.sleep(0.01)
        asked = []
        events = store.events
        lock = threading.Lock()

        def counted(*arguments: Any, **named: Any) -> Any:
            with lock:
                asked.append(named)
            return events(*arguments, **named)

        store.events = counted  # type: ignore[method-assign]
        store.save("small", trial(0))
        await asyncio.gather(*waiting)
        assert 1 <= len(asked) < 10
        for each in everyone:
            await each.aclose()

    run(test)


def test_a_store_that_is_away_for_a_while_loses_no_event(store: Store) -> None:
    async def test() -> None:
        frames = quick(keep_alive=0.05).events(store, "small")
        await taken(frames, 1)
        assert await anext(frames) == KEEP_ALIVE
        events = store.events
        away = threading.Event()

        def broken(*arguments: Any, **named: Any) -> Any:
            away.set()
            raise InfrastructureError("away")

        store.events = broken  # type: ignore[method-assign]
        store.save("small", trial(0))
        assert await anext(frames) == KEEP_ALIVE
        assert away.is_set()
        store.events = events  # type: ignore[method-assign]
        assert numbers(await taken(frames, 2)) == [2]
        await frames.aclose()

    run(test)


def test_who_hangs_up_is_no_follower_any_more(writer: Writer) -> None:
    """Through a real application, spoken to in ASGI."""
    writer.write("one\n")
    app = FastAPI()

    @app.get("/log")
    async def log(following: Following) -> EventStream:
        return EventStream(following.lines(writer.log))

    async def test() -> None:
        sent: list[Any] = []
        left = asyncio.Event()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "path": "/log",
            "raw_path": b"/log",
            "query_string": b"",
            "headers": [],
            "state": {},
        }
        asked = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> Any:
            for message in asked:
                return message
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)
            if message.get("body"):
                left.set()

        await app(scope, receive, send)
        headers = dict(sent[0]["headers"])
        assert headers[b"content-type"].startswith(b"text/event-stream")
        assert headers[b"cache-control"] == b"no-cache"
        assert headers[b"x-accel-buffering"] == b"no"
        ((id, *said),) = parsed(sent[1]["body"])
        assert (position_of(id or ""), said) == (4, ["lines", ["one"]])
        assert app.state.followers.count == 0
        assert not app.state.followers._logs

    run(test)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        *[(said, 12) for said in ("12", " 12 ", "12-00ff00ff")],
        ("9" * 30, 2**63 - 1),
        *[(said, None) for said in ("", "-1", "x", "²", "12-", "12-xyz", "12-00ff00ff0")],
    ],
)
def test_a_last_event_id_begins_with_a_number_or_is_nothing(
    header: str, expected: int | None
) -> None:
    headers = [(b"last-event-id", header.encode("latin-1"))]
    id = last_event_id(Request({"type": "http", "headers": headers}))
    assert (None if id is None else position_of(id)) == expected
