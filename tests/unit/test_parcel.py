"""A trial's files travel whole, or say what was left out."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from autotuner.execution import parcel
from autotuner.study.files import DRIVER_FILE


def test_files_arrive_as_they_were(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    (there / "load-0").mkdir(parents=True)
    (there / "server.log").write_text("first\nlast\n")
    (there / "load-0" / "requests.json").write_bytes(b"\x00\xff")
    parcel.unpack(parcel.packed(there), here)
    assert (here / "server.log").read_text() == "first\nlast\n"
    assert (here / "load-0" / "requests.json").read_bytes() == b"\x00\xff"


def test_a_large_file_keeps_its_beginning_and_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parcel, "LARGEST_FILE", 10)
    (tmp_path / "server.log").write_text("first" + "x" * 100 + "final")
    parcel.unpack(parcel.packed(tmp_path), tmp_path / "here")
    text = (tmp_path / "here" / "server.log").read_text()
    assert text == "first\n... 100 bytes left out ...\nfinal"


def test_what_does_not_fit_is_left_out_the_largest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parcel, "LARGEST_PARCEL", 10)
    (tmp_path / "a-large").write_text("x" * 9)
    (tmp_path / "b-small").write_text("x" * 2)
    parcel.unpack(parcel.packed(tmp_path), tmp_path / "here")
    assert [each.name for each in (tmp_path / "here").iterdir()] == ["b-small"]


def test_nothing_is_written_outside(tmp_path: Path) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("../outside"))
    with pytest.raises(tarfile.TarError):
        parcel.unpack(archive.getvalue(), tmp_path / "here")
    assert not (tmp_path / "outside").exists()


def test_files_are_sent_only_to_a_driver_that_does_not_see_them(tmp_path: Path) -> None:
    trial = tmp_path / "trials" / "0001"
    trial.mkdir(parents=True)
    (trial / "server.log").write_text("said")
    assert parcel.files_for("host 1:2", trial)
    (tmp_path / DRIVER_FILE).write_text("host 9:9")
    assert parcel.files_for("host 1:2", trial)
    (tmp_path / DRIVER_FILE).write_text("host 1:2")
    assert parcel.files_for("host 1:2", trial) == b""
    assert parcel.files_for("", trial) == b""
