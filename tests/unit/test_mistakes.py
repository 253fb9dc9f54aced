"""Mistakes of a person who moves studies between machines: each gets an answer, and no secret is
shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from autotuner.cli import cli, main
from autotuner.errors import InfrastructureError
from autotuner.job import load_job
from autotuner.store import Store
from tests.simulated import study_file

TASKS = Path(__file__).parent.parent / "data" / "tasks"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://127.0.0.1:1/db?user=u&password=SECRETPW",
        "postgresql+psycopg://u:SECRETPW@127.0.0.1:1/db",
        "postgresql+psycopg://u:SEC@RETPW@127.0.0.1:1/db",
        "postgresql+psycopg://u:SECRETPW@127.0.0.1:notaport/db",
    ],
)
def test_no_part_of_a_stores_password_is_shown(url: str) -> None:
    with pytest.raises(InfrastructureError) as error:
        Store(url)
    assert "SECRETPW" not in str(error.value)
    assert "RETPW" not in str(error.value)


def test_a_task_of_ome_moves_to_processes() -> None:
    job = load_job(TASKS / "tuning_task.json", backend="process")
    assert job.spec.backend.kind == "process"
    assert any("no model and no runtime of OME" in note for note in job.notes)


def test_a_cluster_that_is_not_there_is_said_at_once_and_leaves_no_study(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("AUTOTUNER_HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["autotuner", "run", str(study_file(tmp_path))])
    began = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 3
    assert time.monotonic() - began < 60, "Ray itself takes minutes"
    said = capsys.readouterr().err
    assert "there is no Ray cluster at 127.0.0.1:1: Connection refused" in said
    assert "unset RAY_ADDRESS, or start the cluster" in said
    listed = CliRunner().invoke(cli, ["list", "--json"])
    assert json.loads(listed.output) == [], "its name is not taken"


def test_a_sweep_that_could_ask_nobody_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AUTOTUNER_HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    monkeypatch.setattr("sys.argv", ["autotuner", "sweep", "--backend", "docker"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 3
    assert "nothing was left behind" not in capsys.readouterr().out


def test_a_reader_that_has_gone_is_no_failure() -> None:
    """As `| head` is, once it has what it wants."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "autotuner", "catalog", "vllm"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")
