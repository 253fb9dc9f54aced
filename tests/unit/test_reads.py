"""What is kept of studies for the service's answers, and that many may ask at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autotuner.api.reads import Reads
from autotuner.job import load_job
from autotuner.store import Store
from autotuner.studies import Studies
from tests.simulated import study_file


@pytest.fixture
def studies(tmp_path: Path) -> Iterator[Studies]:
    store = Store(f"sqlite:///{tmp_path / 'store.db'}")
    yield Studies(store, tmp_path / "studies")
    store.close()


def test_rows_are_kept_under_the_lock_that_others_go_through_them_with(
    studies: Studies, tmp_path: Path
) -> None:
    studies.create(load_job(study_file(tmp_path, name="asked")))
    reads = Reads(studies)
    kept = list[bool]()

    class Rows(dict[str, Any]):
        def __setitem__(self, name: str, row: Any) -> None:
            kept.append(reads._lock.locked())
            super().__setitem__(name, row)

    reads._rows = Rows()
    assert [each["name"] for each in reads.rows()] == ["asked"]
    assert reads.row("asked") == reads.rows()[0]
    assert kept == [True]
