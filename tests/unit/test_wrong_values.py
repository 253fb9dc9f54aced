"""Values of another form at every key of a study file: each is told in the file's own words."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from autotuner.backends.container import DockerOptions
from autotuner.backends.ome_manifest import OMEOptions
from autotuner.benchmarks.ome_job import Options as OMEJobOptions
from autotuner.benchmarks.replay import Options as ReplayOptions
from autotuner.errors import ConfigError
from autotuner.job import checked, job_of
from autotuner.search.hyperopt import Options as HyperOptOptions
from autotuner.search.optuna import Options as OptunaOptions
from autotuner.study.loading import StudyFile, parse_study, read_study_text
from autotuner.study.slo import SLO
from autotuner.study.spec import StudySpec
from tests.builders import study_content
from tests.simulated import TOKENIZER

Place = tuple[str, ...]

VALUES: tuple[Any, ...] = (
    *(5, -5, 0, 5.5, 10**30, "x", "", True, None),
    *([], [5], ["x"], [None], [[]], [{}]),
    *({}, {"x": 1}, {"x": None}, {"x": [1]}, {"simulated": 5}),
)

NOT_OURS = re.compile(
    r"should (be|have|match)|\bInput\b|validation|Value error|Field required|\bunion\b(?!')|\bstr\b"
    r"|valid (string|integer|number|list|dictionary)|pydantic|type="
)
"""Words of pydantic's and of Python's. `union` in quotes is a value of the file."""


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from models_in(each)


def keys_below(model: type[BaseModel], at: Place = ()) -> Iterator[Place]:
    for name, field in model.model_fields.items():
        yield (*at, name)
        for each in models_in(field.annotation):
            yield from keys_below(each, (*at, name))


OF_DOMAINS = ("type", "low", "high", "log", "step", "values", "when")

BLOCKS: dict[str, tuple[list[Place], dict[str, Any]]] = {
    "study": (list(keys_below(StudySpec)), {}),
    "slo": ([("slo", "ttft_p90"), *(("slo", "ttft_p90", key) for key in SLO.model_fields)], {}),
    "constraints": ([("constraints", "ttft_p90")], {}),
    "space": (
        [("space", "max-num-seqs"), *(("space", "max-num-seqs", key) for key in OF_DOMAINS)],
        {},
    ),
    "several": (
        [("engine", "settings", "vllm"), ("space", "vllm"), ("space", "vllm", "max-num-seqs")],
        {"engine": {"kind": ["simulated", "vllm"]}},
    ),
    "docker": (
        [
            ("backend", "docker"),
            *(("backend", "docker", key) for key in DockerOptions.model_fields),
        ],
        {"backend": {"kind": "docker"}},
    ),
    "ome": (
        [("backend", "ome"), *(("backend", "ome", k) for k in OMEOptions.model_fields)],
        {"backend": {"kind": "ome", "ome": {"model": "m", "runtime": "r"}}},
    ),
    "replay": (
        [("benchmark", key) for key in ReplayOptions.model_fields],
        {"benchmark": {"kind": "replay"}},
    ),
    "ome-job": (
        [("benchmark", key) for key in OMEJobOptions.model_fields],
        {
            "benchmark": {"kind": "ome-job"},
            "backend": {"kind": "ome", "ome": {"model": "m", "runtime": "r"}},
        },
    ),
    "optuna": (
        [("search", key) for key in OptunaOptions.model_fields],
        {"search": {"kind": "optuna"}},
    ),
    "hyperopt": (
        [("search", key) for key in HyperOptOptions.model_fields],
        {"search": {"kind": "hyperopt"}},
    ),
}
"""Keys, and what a study has to say for them to count."""


def with_value(content: Mapping[str, Any], place: Place, value: Any) -> dict[str, Any]:
    changed = block = copy.deepcopy(dict(content))
    for key in place[:-1]:
        if not isinstance(block.get(key), dict):
            block[key] = {}
        block = block[key]
    block[place[-1]] = copy.deepcopy(value)
    return changed


def errors_in(content: Mapping[str, Any]) -> tuple[ConfigError, ...]:
    """What `check` finds in a file that says so, each mistake on its own."""
    return errors_of(read_study_text(json.dumps(content, indent=1), "study.json"))


def errors_of(file: StudyFile) -> tuple[ConfigError, ...]:
    try:
        job_of(file)
    except ConfigError as error:
        return (error, *error.others)
    return ()


@pytest.mark.parametrize("block", BLOCKS)
def test_no_value_at_any_key_is_answered_in_words_of_our_libraries(block: str) -> None:
    places, needed = BLOCKS[block]
    model = {"path": str(TOKENIZER)}
    refused = 0
    for place in places:
        for value in VALUES:
            content = with_value(study_content(model=model, **needed), place, value)
            found = errors_of(StudyFile("", content, None))  # without lines, which take long
            refused += bool(found)
            where = [(each.where, each.problem) for each in found]
            assert len(set(where)) == len(where), "one mistake is said once"
            for each in found:
                assert not NOT_OURS.search(each.problem), f"{place} = {value!r}: {each}"
    assert refused >= 5 * len(places), "most of them are no values of most keys"


@pytest.mark.parametrize("kind", [5, {"a": 1}, None, True, [5], ["vllm", 5], [["vllm"]]])
def test_a_kind_of_engine_that_is_no_name_is_said_once_with_those_there_are(kind: Any) -> None:
    (found,) = errors_in(study_content(engine={"kind": kind}))
    assert found.where == "engine.kind"
    assert found.line is not None
    assert found.problem.startswith(f"{kind!r} is not allowed: it must be the name of an engine")
    assert found.problem.endswith("allowed: vllm, sglang, simulated")


def test_every_mistake_in_a_kinds_options_is_said() -> None:
    search = {"kind": "optuna", "sampler": 5, "startup_trials": "x", "sede": 3}
    found = errors_in(study_content(model={"path": str(TOKENIZER)}, search=search))
    assert {each.where for each in found} == {
        "search.sampler",
        "search.startup_trials",
        "search.sede",
    }
    (unknown,) = [each for each in found if each.where == "search.sede"]
    assert {"seed", "trials", "sampler"} <= set(unknown.allowed)


# Which GPUs: each trial is given its own.


@pytest.mark.parametrize("name", ["CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"])
@pytest.mark.parametrize("backend", ["process", "docker", "ome"])
def test_a_study_that_chooses_gpus_is_refused_by_check(backend: str, name: str) -> None:
    several = {
        "kind": ["vllm", "sglang"],
        "settings": {"sglang": {"environment": {name: 0}}},
    }
    varied = {f"env:{name}": ["0", "1"]}
    for place, changes in (
        (f"engine.environment.{name}", {"engine": {"kind": "vllm", "environment": {name: "0"}}}),
        (f"engine.settings.sglang.environment.{name}", {"engine": several}),
        (f"space.env:{name}", {"space": varied}),
        (
            f"space.vllm.env:{name}",
            {"engine": {"kind": ["vllm", "sglang"]}, "space": {"vllm": varied}},
        ),
    ):
        (found,) = errors_in(study_content(backend={"kind": backend}, **changes))
        assert (found.where, found.file) == (place, "study.json")
        assert found.line is not None
        assert "each trial is given GPUs of its own" in found.problem
        assert "Leave it out" in found.problem


def test_a_variable_that_is_about_devices_only_by_its_name_is_the_studys() -> None:
    environment = {"CUDA_DEVICE_MAX_CONNECTIONS": "1"}
    content = study_content(engine={"kind": "vllm", "environment": environment})
    spec = parse_study(read_study_text(json.dumps(content), "study.json"))
    assert checked(spec).spec.engine.environment == environment
