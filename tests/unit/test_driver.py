"""The end of a study, whatever its backend answers; the rest of the driver runs in integration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autotuner.backends.base import Backend
from autotuner.errors import InfrastructureError
from autotuner.execution.driver import _ended
from autotuner.execution.loop import StudyLoop
from autotuner.plugins import load_kind
from autotuner.settings import Site
from autotuner.store import Store
from autotuner.study.study import StudyState
from tests.unit.test_loop import loop_of, play, study_of


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'store.db'}")
    yield store
    store.close()


class _Daemon:
    """A backend of processes whose daemon went away before the study's end."""

    def __init__(self, silent: str) -> None:
        self._silent = silent
        self._true: Backend = load_kind("backend", "process").open({}, Site())

    def left(self, study: str) -> list[str]:
        return self._answer("left", lambda: self._true.left(study))

    def sweep(self, study: str | None, *, owned: bool) -> list[str]:
        return self._answer("sweep", lambda: self._true.sweep(study, owned=owned))

    def _answer(self, call: str, answer: Callable[[], list[str]]) -> list[str]:
        if call == self._silent:
            raise InfrastructureError("the Docker daemon does not answer\n  start it")
        return answer()


@pytest.mark.parametrize("silent", ["left", "sweep"])
@pytest.mark.parametrize("cancelled", ["", "cancelled by SIGINT"])
def test_a_daemon_that_does_not_answer_at_the_end_takes_nothing_from_a_study(
    tmp_path: Path, store: Store, silent: str, cancelled: str
) -> None:
    loop: StudyLoop = loop_of(study_of(tmp_path, space={}), store)
    play(loop)
    if cancelled:
        loop.cancel(cancelled)
        loop.close()
    _ended(loop, _Daemon(silent), "quick")  # type: ignore[arg-type]
    study = store.study("quick")
    assert study.state is (StudyState.CANCELLED if cancelled else StudyState.COMPLETE)
    assert study.reason.startswith(cancelled)
    assert study.reason.endswith("the Docker daemon does not answer")
    assert (study.driver, bool(study.ended_at)) == ("", True)
    states = [each.content["state"] for each in store.events("quick") if each.kind == "study"]
    assert "RUNNING" not in states[states.index("CANCELLED") :] if cancelled else True


def test_a_study_whose_trials_left_nothing_has_nothing_remarked(
    tmp_path: Path, store: Store
) -> None:
    loop = loop_of(study_of(tmp_path, space={}), store)
    play(loop)
    _ended(loop, _Daemon(""), "quick")  # type: ignore[arg-type]
    assert (store.study("quick").state, store.study("quick").reason) == (StudyState.COMPLETE, "")
