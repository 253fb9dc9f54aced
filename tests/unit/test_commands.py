"""What commands that start nothing print, where a person would be left guessing otherwise."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from autotuner.cli import cli
from autotuner.errors import ConfigError
from autotuner.shipped import shipped
from tests.simulated import study_file


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUTOTUNER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def said(*command: str) -> Result:
    return CliRunner().invoke(cli, command)


def test_a_preset_is_printed_with_the_reason_of_each_parameter(home: Path) -> None:
    written = (shipped("presets") / "vllm" / "balanced.yaml").read_text()
    assert said("presets", "vllm/balanced").stdout == written
    assert "  # Splits every layer" in written
    own = home / "presets" / "vllm" / "balanced.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("why: mine\nparameters: {block-size: [16]}  # because\n")
    assert said("presets", "vllm/balanced").stdout == own.read_text()
    assert said("presets", str(own)).stdout == own.read_text()


def test_a_search_that_finds_no_flag_says_so() -> None:
    nothing = said("catalog", "vllm", "--version", "0.32.0", "--search", "zzz")
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    assert nothing.stderr == "no flag of vllm 0.32.0 has 'zzz' in its name\n"
    found = said("catalog", "vllm", "--version", "0.32.0", "--search", "seqs")
    assert (found.stderr, "--max-num-seqs" in found.stdout) == ("", True)


@pytest.mark.parametrize("verb", ["run", "report"])
def test_a_page_goes_into_a_directory_that_is_there(verb: str, home: Path, tmp_path: Path) -> None:
    what = str(study_file(tmp_path)) if verb == "run" else "quick"
    done = said(verb, what, "--html", str(tmp_path / "nope" / "report.html"))
    assert isinstance(done.exception, ConfigError)
    assert f"there is no directory {tmp_path}/nope" in str(done.exception)
    assert not (tmp_path / "nope").exists()
    assert not home.exists(), "before anything is stored or run"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ([], "anna: operator\n"),
        (["--role", "viewer", "--team", "chat"], "anna: viewer of the team chat\n"),
    ],
)
def test_a_new_tokens_role_is_said_beside_it(home: Path, options: list[str], line: str) -> None:
    done = said("token", "add", "anna", *options)
    assert home.is_dir()
    assert done.stderr == line
    assert len(done.stdout.split()) == 1, "the token alone, for scripts"


def test_converting_what_is_not_there_asks_for_no_study_file(tmp_path: Path) -> None:
    done = said("convert", str(tmp_path / "nope.json"))
    assert done.exit_code == 2
    assert "does not exist" in done.stderr
    assert "study" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["--search", "seqs", "--version", "0.32.0"], "--search, --version"),
        (["--output", "made.json"], "--output"),
        (["vllm", "--output", "made.json"], "--output"),
        (["vllm", "--from-python", sys.executable, "--version", "9"], "--version"),
        (["vllm", "--against", "sglang", "--search", "seqs"], "--search"),
    ],
)
def test_catalog_refuses_an_option_that_it_would_ignore(arguments: list[str], option: str) -> None:
    said = CliRunner().invoke(cli, ["catalog", *arguments])
    assert said.exit_code == 2
    assert f"{option} means nothing" in said.output
