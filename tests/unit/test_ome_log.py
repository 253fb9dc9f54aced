"""A log that is read whole, again and again, as a file that a follower sees grow."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from autotuner.backends.ome_log import ANEW, OVERLAP, Log


def lines(first: int, last: int) -> str:
    return "".join(f"line {number} {'x' * 40}\n" for number in range(first, last))


def test_a_follower_by_bytes_sees_every_line_once_and_in_order(tmp_path: Path) -> None:
    file = tmp_path / "server.log"
    log, followed = Log(file), b""
    last = "first\nsecond: 1 2 \u00fc\n"
    for read in ("", "first\n", "first\nsecond: 1", f"{last}thi", "", "first\n"):
        log.heard(read)
        assert file.read_bytes().startswith(followed), "never shorter, never another"
        followed = file.read_bytes()
    assert followed == last.encode()
    assert log.text == f"{last}thi", "a shorter answer takes nothing back"


def test_the_last_line_is_kept_when_nothing_follows(tmp_path: Path) -> None:
    log = Log(tmp_path / "server.log")
    log.heard("first\nKilled")
    assert (tmp_path / "server.log").read_text() == "first\n"
    log.close()
    log.close()
    assert (tmp_path / "server.log").read_text() == log.text == "first\nKilled"


def test_where_the_beginning_was_rotated_away_nothing_comes_twice(tmp_path: Path) -> None:
    log = Log(tmp_path / "server.log")
    log.heard(lines(0, 100))
    log.heard(lines(60, 150))
    log.heard(lines(110, 151))
    assert (tmp_path / "server.log").read_text() == lines(0, 151)


def test_the_log_of_another_container_follows_and_says_so(tmp_path: Path) -> None:
    log = Log(tmp_path / "server.log")
    log.heard("one\nunfini")
    for read in ("two\n", "two\nthree\n", "two\nthree\nfour\n"):
        log.heard(read)
    said = f"one\nunfini\n{ANEW}\ntwo\nthree\nfour\n"
    assert (tmp_path / "server.log").read_text() == log.text == said


@given(st.lists(st.text(alphabet="ab\n", max_size=OVERLAP // 8), max_size=20))
def test_what_grows_is_what_was_printed(parts: list[str]) -> None:
    log = Log(Path("/dev/null"))
    for number in range(len(parts) + 1):
        log.heard("".join(parts[:number]))
    assert log.text == "".join(parts)


def test_a_full_disk_takes_nothing_from_the_diagnosis(tmp_path: Path) -> None:
    log = Log(tmp_path / "not-there" / "server.log")
    log.heard("no room\n")
    assert log.text == "no room\n"
