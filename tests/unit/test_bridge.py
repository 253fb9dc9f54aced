"""Between Tune and the loop: what is asked of the cluster for a trial. No Ray is started."""

from __future__ import annotations

from pathlib import Path

from autotuner.engines.rules import rules_of
from autotuner.execution.actor import ASSIGNMENT, RESERVATION
from autotuner.execution.bridge import Asker
from autotuner.execution.loop import StudyLoop
from autotuner.execution.reservation import Node, reservation
from autotuner.plugins import load_kind
from autotuner.store import Store
from autotuner.study.study import Study
from tests.builders import spec


def test_each_trial_of_several_engines_reserves_the_gpus_of_its_own_launch(tmp_path: Path) -> None:
    study = spec(
        engine={"kind": ["vllm", "sglang"]},
        space={"vllm": {"tensor-parallel-size": [2, 4]}, "sglang": {"tp-size": [8]}},
        search={"kind": "grid"},
    )
    rules = rules_of(study)
    store = Store("sqlite://")
    kept = Study(study, str(tmp_path))
    store.create(kept)
    loop = StudyLoop(kept, store, load_kind("search", "grid").build(study), rules)
    loop.begin()
    nodes = [Node(cpus=64, gpus=8)]
    asker = Asker(loop, lambda point: reservation(rules.launch(study, point, port=0), nodes))
    reserved = []
    for number in range(4):
        asked = asker.suggest(str(number))
        assert asked[ASSIGNMENT].number == number
        reserved.append((asked[ASSIGNMENT].spec.engine.kind, asked[RESERVATION].gpus))
    assert reserved == [("vllm", 1), ("vllm", 2), ("vllm", 4), ("sglang", 8)]
    store.close()
