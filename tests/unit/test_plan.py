"""What a plan says of a study: its baseline, its cost, its reasons, the request of a launch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from autotuner.cli import cli
from autotuner.job import load_job
from autotuner.plan import plan
from autotuner.report.text import plan_text
from autotuner.settings import Site
from tests.builders import LLAMA_8B, study_content

ROOT = Path(__file__).parents[2]
VLLM = {"kind": "vllm", "version": "0.32.0"}


def study_of(directory: Path, **changes: Any) -> Path:
    """A study of vLLM and a model with eight billion weights, 15 GiB of them."""
    (directory / "config.json").write_text(json.dumps(dict(LLAMA_8B)), encoding="utf-8")
    content = {
        "engine": VLLM,
        "model": {"path": str(directory)},
        "space": {"tensor-parallel-size": [2, 4]},
        "search": {"kind": "grid"},
        **changes,
    }
    path = directory / "study.json"
    path.write_text(json.dumps(study_content(**content)), encoding="utf-8")
    return path


# A baseline that cannot start.


def test_a_baseline_that_cannot_start_is_said_and_is_no_launch(tmp_path: Path) -> None:
    fits, small = ({"hardware": {"gpu_memory_gib": gib}} for gib in (80, 14))
    whole = plan(load_job(study_of(tmp_path, **fits)))
    planned = plan(load_job(study_of(tmp_path, **small)))
    assert whole["baseline_refused"] is None
    assert not any("baseline" in note for note in whole["notes"])
    assert "the baseline and 2 trials" in str(plan_text(whole))

    assert "the weights take at least" in planned["baseline_refused"]
    assert planned["refused"] == {}, "it is no point of the space"
    assert [each["name"] for each in planned["launches"]] == ["trial 1", "trial 2"]
    (note,) = planned["notes"]
    assert note.startswith("the baseline cannot start: the weights take at least")
    assert note.endswith("; fix it under engine.arguments")
    said = str(plan_text(planned))
    assert note in said
    assert "launches     2 trials, then 6 or more" in said
    assert (whole["finals"], planned["finals"]) == (8, 6), "it is no candidate of the verdict"
    each = whole["seconds_expected"] / 11
    assert planned["seconds_expected"] == pytest.approx(8 * each)


def test_check_warns_of_a_baseline_that_cannot_start(tmp_path: Path) -> None:
    path = str(study_of(tmp_path, hardware={"gpu_memory_gib": 14}))
    said = CliRunner().invoke(cli, ["check", path])
    assert said.exit_code == 0
    assert "warning: the baseline cannot start: the weights" in said.output
    assert "is valid" in said.output
    (warning,) = json.loads(CliRunner().invoke(cli, ["check", path, "--json"]).output)["warnings"]
    assert "engine.arguments" in warning
    path = str(
        study_of(tmp_path, engine={**VLLM, "arguments": {"tensor-parallel-size": 2}}, space={})
    )
    assert "warning" not in CliRunner().invoke(cli, ["check", path]).output


# What ends a study.


@pytest.mark.parametrize(
    ("limits", "gpu_hours", "after"),
    [
        ({"gpu_hours": 0.01}, 0.01, "0.01 GPU-hours ends the search after the baseline"),
        # Two minutes a launch, 4 GPUs each: 11 launches, of which the verdict takes 8.
        ({"gpu_hours": 1.5}, 1.5, "1.5 GPU-hours ends the search after about 2 trials"),
        ({"gpu_hours": 1.35}, 1.35, "1.35 GPU-hours ends the search after about 1 trial,"),
        ({"hours": 0.37, "gpu_hours": 9}, 1.48, "0.37 h ends the search after about 2 trials"),
        ({"gpu_hours": 2.0}, 12 * 4 / 30, ""),
    ],
)
def test_the_limit_that_ends_a_study_is_said(
    tmp_path: Path, limits: dict[str, Any], gpu_hours: float, after: str
) -> None:
    engine = {**VLLM, "arguments": {"tensor-parallel-size": 4}}
    space = {"max-num-seqs": [16, 32, 64]}
    planned = plan(load_job(study_of(tmp_path, engine=engine, space=space, limits=limits)))
    assert planned["gpu_hours_expected"] == pytest.approx(gpu_hours)
    assert planned["seconds_expected"] == pytest.approx(gpu_hours * 900)
    assert planned["seconds_expected"] <= planned["seconds_at_most"]
    if after:
        (note,) = planned["notes"]
        assert after in note
    else:
        assert planned["notes"] == []


@pytest.mark.parametrize("example", ["03-a-search-in-a-table", "05-simulated"])
def test_a_study_that_computes_on_no_gpu_is_charged_none(
    monkeypatch: pytest.MonkeyPatch, example: str
) -> None:
    monkeypatch.chdir(ROOT)
    planned = plan(load_job(Path("examples", example, "study.yaml")))
    assert planned["gpu_hours_expected"] == 0
    assert {each["gpus"] for each in planned["launches"]} == {0}
    said = str(plan_text(planned))
    assert "GPU-hour" not in said
    assert "(0 GPUs)" in said


# Reasons that differ in their numbers only.


def test_refusals_of_one_cause_are_one_line_with_an_example(tmp_path: Path) -> None:
    space = {
        "gpu-memory-utilization": {"type": "float", "low": 0.5, "high": 0.9, "step": 0.01},
        "tensor-parallel-size": [1, 2, 3],
    }
    path = study_of(tmp_path, space=space, hardware={"gpu_memory_gib": 16})
    planned = plan(load_job(path))
    heads, memory = sorted(planned["refusals"], key=lambda each: each["reason"])
    assert (memory["count"], heads["count"], heads["reasons"]) == (41, 41, 1)
    assert memory["reasons"] == sum("weights" in reason for reason in planned["refused"]) > 10
    assert memory["reason"] in planned["refused"]
    said = str(plan_text(planned))
    assert "refused      82 of 123 points looked at" in said
    assert f"      41  e.g. {memory['reason']}\n" in said
    assert f"      41  {heads['reason']}\n" in said
    assert "more reasons" not in said


# The request of a launch.


def test_the_text_shows_the_image_of_the_operators_registry(tmp_path: Path) -> None:
    path = study_of(tmp_path, backend={"kind": "docker"})
    planned = plan(load_job(path), site=Site(registry="mirror.local:5000"))
    for launch in planned["launches"]:
        create = launch["request"]["create"]
        assert launch["image"] == create["Image"] == "mirror.local:5000/vllm/vllm-openai:v0.32.0"
        assert launch["argv"] == [*create["Entrypoint"], *create["Cmd"]]
    assert "in mirror.local:5000/vllm/vllm-openai:v0.32.0)" in str(plan_text(planned))


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_the_text_of_a_service_is_what_its_manifest_holds(tmp_path: Path, engine: str) -> None:
    backend = {"kind": "ome", "ome": {"model": "llama", "runtime": "autotuner-one"}}
    changes = {"engine": {"kind": engine}, "space": {"tensor-parallel-size": [2]}}
    planned = plan(load_job(study_of(tmp_path, backend=backend, **changes)))
    said = str(plan_text(planned))
    trial = planned["launches"][1]
    runner = trial["request"]["manifest"]["spec"]["engine"]["runner"]
    assert trial["argv"] == runner["args"]
    assert trial["image"] is None
    assert "image: that of the runtime autotuner-one)" in said
    assert "lmsysorg" not in said
    assert "vllm-openai" not in said
    (line,) = (each for each in said.splitlines() if "size 2" in each)
    assert f"PROTOCOL_VERSION={engine} [the runtime's command] --" in line
    assert ("--host" in line) == (engine == "vllm"), "SGLang's runtime keeps its own launch line"
