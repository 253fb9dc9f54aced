"""Keys and tokens of the machine are in none of a trial's files."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from autotuner.execution.trial import Assignment, Kinds
from autotuner.plugins import load_kind
from autotuner.settings import Site
from autotuner.study.spec import StudySpec
from autotuner.study.trial import TrialState
from tests.processes import ours, wait_for
from tests.simulated import study_file
from tests.trials import run_trial

pytestmark = pytest.mark.slow

SECRETS = {
    "MODEL_API_KEY": "model-key-5f1e",
    "AWS_ACCESS_KEY_ID": "aws-id-5f1e0c",
    "AWS_SECRET_ACCESS_KEY": "aws-secret-5f1e",
    "GITHUB_TOKEN": "github-token-5f1e",
    "AZURE_STORAGE_CONNECTION_STRING": "azure-connection-5f1e",
}


def test_what_genai_bench_would_write_of_its_environment_is_in_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without our part it logs each of these as an option, and most of them in its metadata."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    site = Site.model_validate(
        {"hf_token": "hf_5f1e0c5f1e0c", "https_proxy": "http://reader:proxy-pass-5f1e@proxy:3128"}
    )
    spec = StudySpec.model_validate(
        json.loads(study_file(tmp_path, name="secrets").read_text(encoding="utf-8"))
    )
    kinds = Kinds(
        load_kind("engine", "simulated"),
        load_kind("backend", "process").open({}, site),
        load_kind("benchmark", "genai-bench"),
    )
    place = tmp_path / "trial"
    outcome = run_trial(Assignment(spec, 1, {"max-num-seqs": 8}, str(place)), kinds)
    assert ours("secrets") == []
    assert outcome.state is TrialState.COMPLETE, outcome
    (metadata,) = place.glob("load-0/results/experiment_metadata.json")
    assert "--api-key EMPTY" in metadata.read_text(), "the command line is there, with no key in it"
    assert "aws_secret_access_key: None" in (place / "load-0" / "genai-bench.log").read_text()
    values = [*SECRETS.values(), "hf_5f1e0c5f1e0c", "proxy-pass-5f1e"]
    leaks = [
        (path.relative_to(place), value)
        for path in place.rglob("*")
        if path.is_file()
        for value in values
        if value.encode() in path.read_bytes()
    ]
    assert leaks == []


OWNER = """
import os, sys, time
from pathlib import Path
from autotuner.backends.process import PROCESS
from autotuner.serving import Plan
from autotuner.settings import Site

server = PROCESS.open({}, Site()).start(Plan("process", {
    "argv": ["sh", "-c", "echo token is $HF_TOKEN; sleep 600"],
    "environment": {}, "directory": sys.argv[1], "port": 1, "study": "clear", "trial": 0,
}))
time.sleep(600)
"""


def test_a_log_is_for_its_owner_only_and_masked_though_that_was_killed(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)], env={**os.environ, "HF_TOKEN": "hf_5f1e0c"}
    )
    try:
        assert wait_for(lambda: log.exists() and "hf_5f1e0c" in log.read_text(), 60)
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    assert wait_for(lambda: log.read_text() == "token is ***\n", 20)
    assert wait_for(lambda: ours("clear") == [], 20)
    (other := tmp_path / "other").touch()
    assert log.stat().st_mode == other.stat().st_mode, "others may read it as any file"
