"""Studies on the simulated engine, for tests that start processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TOKENIZER = Path(__file__).parent / "data" / "tokenizer"


def study_file(directory: Path, **changes: Any) -> Path:
    """A study file of a quick study on the simulated engine; `changes` replace its blocks."""
    content: dict[str, Any] = {
        "name": "quick",
        "model": {"path": str(TOKENIZER), "served_name": "simulated"},
        "engine": {"kind": "simulated", "arguments": {"speed": 20}},
        "space": {"max-num-seqs": [1, 16]},
        "workload": {
            "scenarios": ["D(50,20)"],
            "concurrency": [4],
            "max_requests": 20,
            "max_seconds": 5,
            "request": {"temperature": 0.0},
        },
        "search": {"kind": "grid"},
        "verdict": {"finalists": 0},
        "limits": {"ready_seconds": 30, "trial_seconds": 90},
        **changes,
    }
    path = directory / "study.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
