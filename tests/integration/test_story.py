"""The story of a trial as a stream: its own events only, up to its end, however that comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from zoneinfo import ZoneInfo

from autotuner.api.follow import END, KEEP_ALIVE, Followers
from autotuner.api.story import Story
from autotuner.store import Store
from autotuner.study.study import StudyState
from autotuner.study.trial import TrialState
from tests.builders import trial
from tests.integration.test_follow import parsed, quick, run, store

__all__ = ["store"]

ZONE = ZoneInfo("Europe/Berlin")


def told(store: Store, number: int = 1) -> Story:
    return Story(store, "small", number, ZONE)


def has_ended(store: Store, number: int = 1) -> Callable[[], bool]:
    return lambda: any(t.number == number and t.state.ended for t in store.trials("small"))


def said(chunks: list[bytes]) -> list[tuple[int, str]]:
    """Number and state of each line; of the end nothing."""
    return [
        (int(id or 0), line.split()[1])
        for chunk in chunks
        for id, kind, lines in parsed(chunk)
        if kind == "lines"
        for line in lines
    ]


def test_past_and_live_up_to_the_end_of_the_trial(store: Store) -> None:
    store.save("small", trial(1, {"x": 1}, TrialState.DEPLOYING))  # event 2
    store.save("small", trial(2, {"x": 2}, TrialState.DEPLOYING))

    async def test() -> None:
        followers = quick()
        chunks: list[bytes] = []
        async with aclosing(told(store).frames(followers, None, None, has_ended(store))) as frames:
            chunks.append(await anext(frames))
            waiting = asyncio.ensure_future(anext(frames))
            while not followers.count:
                await asyncio.sleep(0.01)
            store.save("small", trial(2, {"x": 2}, TrialState.BENCHMARKING))
            store.save("small", trial(1, {"x": 1}, TrialState.BENCHMARKING))  # event 5
            chunks.append(await waiting)
            store.save("small", trial(1, {"x": 1}, TrialState.COMPLETE))
            chunks += [chunk async for chunk in frames]
        assert said(chunks) == [(2, "DEPLOYING"), (5, "BENCHMARKING"), (6, "COMPLETE")]
        assert chunks[-1] == END
        assert followers.count == 0

    run(test)


def test_it_goes_on_after_an_event_and_from_its_end(store: Store) -> None:
    for state in (TrialState.DEPLOYING, TrialState.BENCHMARKING, TrialState.COMPLETE):
        store.save("small", trial(1, {"x": 1}, state))

    async def frames(after: int | None, tail: int | None) -> list[tuple[int, str]]:
        found = told(store).frames(quick(), after, tail, has_ended(store))
        return said([chunk async for chunk in found])

    async def test() -> None:
        whole = [(2, "DEPLOYING"), (3, "BENCHMARKING"), (4, "COMPLETE")]
        assert await frames(None, None) == whole
        assert await frames(2, None) == whole[1:]
        assert await frames(2, 1) == whole[1:], "who comes again has had what was before"
        assert await frames(None, 1) == whole[2:]
        assert await frames(None, 0) == []

    run(test)


def test_what_is_said_while_the_end_is_asked_for_is_told(store: Store) -> None:
    store.save("small", trial(1, {"x": 1}, TrialState.DEPLOYING))

    def ended() -> bool:
        if not has_ended(store)():
            store.save("small", trial(1, {"x": 1}, TrialState.COMPLETE))
        return True

    async def test() -> None:
        chunks = [chunk async for chunk in told(store).frames(quick(), None, None, ended)]
        assert said(chunks) == [(2, "DEPLOYING"), (3, "COMPLETE")]
        assert chunks[-1] == END

    run(test)


def test_one_whose_driver_is_lost_ends_without_an_event(store: Store) -> None:
    store.save("small", trial(1, {"x": 1}, TrialState.DEPLOYING))

    async def test() -> None:
        lost = False
        followers: Followers = quick(keep_alive=0.02)
        async with aclosing(told(store).frames(followers, None, None, lambda: lost)) as frames:
            assert said([await anext(frames)]) == [(2, "DEPLOYING")]
            assert await anext(frames) == KEEP_ALIVE
            lost = True
            assert await anext(frames) == END

    run(test)


def test_that_of_a_deleted_study_ends(store: Store) -> None:
    store.save("small", trial(1, {"x": 1}, TrialState.DEPLOYING))

    async def test() -> None:
        frames = told(store).frames(quick(), None, None, lambda: False)
        assert said([await anext(frames)]) == [(2, "DEPLOYING")]
        waiting = asyncio.ensure_future(anext(frames))
        store.set_state("small", StudyState.CANCELLED)
        store.delete(store.study("small"))
        assert await waiting == END
        assert [chunk async for chunk in frames] == []

    run(test)


def test_its_times_are_in_the_zone_of_the_service(store: Store) -> None:
    store.save("small", trial(1, {"x": 1}, TrialState.DEPLOYING))
    ((event,), _) = told(store).past()
    line = told(store).line(event)
    assert line.split()[0][-6:] in ("+01:00", "+02:00")
    assert event.at.endswith("+00:00")
    (moment, *_) = Story(store, "small", 1, ZoneInfo("UTC")).line(event).split()
    assert moment == event.at, "as it is stored"
