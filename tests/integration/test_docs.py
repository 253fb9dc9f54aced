"""What the pages say can be done: every command in them is run, every study file is checked."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autotuner.job import checked
from autotuner.study.loading import parse_study, read_study_text

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])

RUN_ELSEWHERE = {
    "make demo": "tests/e2e/test_vllm.py runs its study",
    "make pictures": "tests/e2e/test_page_live.py, with pictures",
    "make bench-api": "a benchmark, not a test",
    "make test": "runs this test",
    "make test-fast": "part of `make test`",
    "make test-faults": "runs a part of the tests",
    "make bench-packing": "a benchmark, not a test",
    "make check": "continuous integration runs it before the tests",
    "make bench-overhead": "a benchmark, not a test",
    "make format": "changes files",
    "make docs": "changes files; `make check` says whether it would",
    "make install": "what `make test` does first",
    "make vllm": "what `make test` does first",
    "make model": "what `make test` does first",
}


def fences(language: str) -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for block in re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL):
            yield str(page.relative_to(ROOT)), block


@pytest.mark.slow
def test_every_command_on_the_pages_works(tmp_path: Path) -> None:
    # In the order of the pages: a report follows the run it reports.
    order = [
        (page, line.strip())
        for page, block in fences("bash")
        for line in block.splitlines()
        if line.strip() and not line.startswith("#")
    ]
    assert order
    environment = {
        **os.environ,
        "AUTOTUNER_HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    for page, line in order:
        if line in RUN_ELSEWHERE:
            continue
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, f"{page}: {line}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize(
    ("page", "text"), [each for each in fences("yaml") if "workload:" in each[1]]
)
def test_every_study_file_on_the_pages_is_valid(page: str, text: str) -> None:
    checked(parse_study(read_study_text(text, page)))


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in PAGES:
        prose = re.sub(r"`[^`\n]*`", "", page.read_text())
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose):
            if not target.startswith(("http://", "https://")):
                assert (page.parent / target).exists(), f"{page}: {target}"
