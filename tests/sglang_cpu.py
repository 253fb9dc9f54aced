"""A real SGLang for CPUs: where this machine has one, or why the tests that need it are skipped."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
VARIABLE = "AUTOTUNER_TEST_SGLANG"
RECIPE = ROOT.parent / "shared" / "tools" / "sglang-cpu" / "install.sh"
PLACE = ROOT / ".cache" / "sglang-0.5.23"

ENVIRONMENT = {
    "SGLANG_USE_CPU_ENGINE": "1",
    "HF_HUB_OFFLINE": "1",
    # Few cores: waiting threads must not spin on those that work.
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
}
"""What SGLang needs on a CPU beside its flags."""


def sglang_python() -> Path:
    """The Python that has SGLang; installed on the first call, which takes minutes and 3 GB."""
    python, why_not = _sglang()
    if python is None:
        pytest.skip(why_not)
    return python


@cache
def _sglang() -> tuple[Path | None, str]:
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named), ""
    if "avx512f" not in Path("/proc/cpuinfo").read_text(encoding="utf-8"):
        return None, "SGLang's CPU build needs AVX-512, which this machine has not"
    if not RECIPE.exists():
        return None, f"no SGLang for CPUs: name a Python that has it in {VARIABLE}"
    installed = PLACE / ".installed"
    if not installed.exists():
        done = subprocess.run(
            ["bash", str(RECIPE), str(PLACE)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            return None, "SGLang cannot be installed: " + done.stderr.strip()[-200:]
        installed.touch()
    return PLACE / "bin" / "python", ""
