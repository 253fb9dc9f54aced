"""Who owns what, as far as can be told from here; and the daemon that removes the rest."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autotuner.backends import owners, reaper
from autotuner.backends.guarded import process_identity
from autotuner.backends.owners import lives, this_owner
from autotuner.backends.reaper import DEAF_SECONDS, EVERY_SECONDS, QUIET_SECONDS, Post, reap
from autotuner.errors import InfrastructureError


def changed(part: int, value: str) -> str:
    parts = this_owner().split(" ")
    parts[part] = value
    return " ".join(parts)


def test_an_owner_is_a_process_of_this_boot_and_namespace() -> None:
    assert lives(this_owner()) is True
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    theirs = changed(3, process_identity(child.pid))
    before = lives(theirs)
    child.communicate(b"\n")
    assert before is True
    assert lives(theirs) is False
    assert lives(changed(3, f"{os.getpid()}:1")) is False  # the PID is used again


def test_what_cannot_be_told_from_here_is_not_told() -> None:
    assert lives("") is None
    assert lives("whatever") is None
    assert lives(changed(2, "pid:[1]")) is None  # a container of this machine
    assert lives(" ".join(("elsewhere", "its-boot", *this_owner().split(" ")[2:]))) is None


def test_nobody_outlives_a_boot_of_the_machine() -> None:
    assert lives(changed(1, "an-earlier-boot")) is False


def test_a_machine_is_known_by_its_boot_and_not_by_its_name() -> None:
    assert lives(changed(0, "the-name-of-a-pod-on-it")) is True


def test_without_proc_a_name_must_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "_BOOT", tmp_path / "none")
    monkeypatch.setattr(owners, "_NAMESPACE", tmp_path / "none")
    assert lives(this_owner()) is True
    assert lives(changed(0, "elsewhere")) is None


class Place:
    """A backend as far as a reaper knows it, and the time that passes there."""

    def __init__(self, *sweeps: list[str] | Exception) -> None:
        self._sweeps = list(sweeps)
        self.now = 0.0
        self.asked = 0
        self.said: list[str] = []

    def sweep(self, study: str | None = None, *, owned: bool = False) -> list[str]:
        assert (study, owned) == (None, False)
        self.asked += 1
        answer = self._sweeps.pop(0) if self._sweeps else []
        if isinstance(answer, Exception):
            raise answer
        return answer

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def reap(self, wanted: Callable[[], bool]) -> float:
        """Seconds until the reaper ended."""
        backend: Any = self
        reap(backend, wanted, self.said.append, clock=lambda: self.now, sleep=self.sleep)
        return self.now


def test_it_sweeps_as_long_as_it_is_wanted_and_a_while_longer() -> None:
    place = Place([], ["a container"])
    assert place.reap(lambda: place.now < 100) == 100 - EVERY_SECONDS + QUIET_SECONDS
    assert place.said == ["removed a container"]
    assert place.asked > 50


def test_it_ends_no_earlier_than_there_was_nothing_to_remove() -> None:
    place = Place(["one"], ["two"], ["three"])
    assert place.reap(lambda: False) == 2 * EVERY_SECONDS + QUIET_SECONDS


def test_what_goes_wrong_is_said_once_and_borne() -> None:
    down = [InfrastructureError("no daemon")] * 3
    place = Place(*down, RuntimeError("a mistake of ours"), ["one"])
    place.reap(lambda: False)
    assert place.said == [
        "cannot sweep: no daemon",
        "cannot sweep: RuntimeError('a mistake of ours')",
        "removed one",
    ]


def test_it_does_not_wait_for_ever_for_a_place_that_is_gone() -> None:
    place = Place(*[InfrastructureError("no daemon")] * 10_000)
    assert place.reap(lambda: False) == DEAF_SECONDS


def test_one_reaper_at_a_time_holds_a_post(tmp_path: Path) -> None:
    post, same = Post(tmp_path / "reaper"), Post(tmp_path / "reaper")
    assert not post.is_held()
    held = post.hold()
    assert held is not None
    assert same.is_held()
    assert same.hold() is None
    os.close(held)
    assert not same.is_held()


def test_a_post_remembers_the_living_who_asked(tmp_path: Path) -> None:
    post = Post(tmp_path / "reaper")
    assert post.owners() == []
    post.add(changed(3, "1:1"))
    post.add(this_owner())
    post.add(this_owner())
    assert post.owners() == [this_owner()]


def test_places_have_posts_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaper, "runtime_directory", lambda: tmp_path)
    assert Post.of("docker", "unix:///a").log != Post.of("docker", "unix:///b").log
    assert Post.of("docker", "unix:///a").log == Post.of("docker", "unix:///a").log
