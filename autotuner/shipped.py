"""Where the files are that come with autotuner: presets, SLO profiles, workloads."""

from __future__ import annotations

from pathlib import Path


def shipped(name: str) -> Path:
    """A file or directory below ``configs/``, such as ``slo``; of the installed package, or
    of the repository it is developed in."""
    package = Path(__file__).absolute().parent
    installed = package / "configs" / name
    return installed if installed.exists() else package.parent / "configs" / name
