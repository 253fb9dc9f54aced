"""The engine that docs/extending.md shows: what is written there is all that it needs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from autotuner.engines.base import LOWER, Engine
from autotuner.engines.catalog import Catalog, Flag, FlagKind, write_catalog
from autotuner.errors import FailureClass
from autotuner.study.spec import StudySpec
from tests.builders import spec

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


@pytest.fixture
def mine() -> Engine:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    (block,) = [each for each in blocks if "class _Mine" in each]
    names: dict[str, Any] = {}
    exec(compile(block, "mine.py", "exec", dont_inherit=True), names)
    found: Engine = names["MINE"]
    return found


@pytest.fixture
def study(tmp_path: Path) -> StudySpec:
    numbers = ("gpus", "kv-share", "max-tokens", "prefill-tokens")
    flags = tuple(Flag(name, FlagKind.INT) for name in numbers)
    catalog = tmp_path / "mine-1.0.json"
    write_catalog(Catalog("mine", "1.0", flags), catalog)
    engine = {"kind": "mine", "catalog": str(catalog), "arguments": {"gpus": 2}}
    return spec(engine=engine, space={"prefill-tokens": [8, 64], "max-tokens": [32]})


def test_the_engine_on_the_page_launches(mine: Engine, study: StudySpec) -> None:
    mine.check(study)
    launch = mine.launch(study, {"prefill-tokens": 8}, port=8123)
    assert launch.command == ("mine-server",)
    assert " ".join(launch.arguments).endswith("--port 8123 --gpus 2 --prefill-tokens 8")
    assert (launch.gpus, launch.image) == (2, "mine:1.0")


def test_the_engine_on_the_page_refuses_and_reads_a_log(mine: Engine, study: StudySpec) -> None:
    assert mine.refuse(study, {"prefill-tokens": 8, "max-tokens": 32}) is None
    assert "64" in (mine.refuse(study, {"prefill-tokens": 64, "max-tokens": 32}) or "")
    found = mine.diagnose("[12:00] out of memory: 3 GiB are missing")
    assert found.failure is FailureClass.MEMORY_AT_LOAD
    assert found.moves == {"kv-share": LOWER}
    assert mine.observe("KV cache of 4,096 tokens") == {"kv_tokens": 4096}
    assert mine.memory(study, {}) is None
