"""Files that several processes write: whole or not at all, one writer at a time."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from autotuner.files import locked, replace


def test_files_are_replaced_with_their_mode(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"old")
    replace({one: b"new", other: b"other"}, mode=0o640)
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {
        "one": b"new",
        "other": b"other",
    }
    assert [stat.S_IMODE(each.stat().st_mode) for each in (one, other)] == [0o640, 0o640]


def test_who_reads_an_old_file_still_reads_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "one"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        replace({path: b"new"})
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("wrong", ["no-such-directory/two", "directory"])
def test_all_are_replaced_or_none(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "one"
    path.write_bytes(b"old")
    (tmp_path / "directory").mkdir()
    with pytest.raises(OSError, match="irectory"):
        replace({path: b"new", tmp_path / wrong: b"new"})
    assert path.read_bytes() == b"old"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["directory", "one"]


def test_one_holds_a_lock_at_a_time(tmp_path: Path) -> None:
    order = []

    def enter() -> None:
        with locked(tmp_path / "lock"):
            order.append("second")

    other = threading.Thread(target=enter)
    with locked(tmp_path / "lock"):
        other.start()
        other.join(0.1)  # time enough to come in, if it could
        order.append("first")
    other.join()
    assert order == ["first", "second"]
