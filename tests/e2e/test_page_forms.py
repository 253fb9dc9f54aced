"""The page's form, presets, timeline, cluster and trial in a browser, against the true service."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect
from pydantic import BaseModel
from ruamel.yaml import YAML

from autotuner.api.routes.cluster import ANOTHERS
from autotuner.backends.container import DockerOptions
from autotuner.backends.ome_manifest import OMEOptions
from autotuner.benchmarks.ome_job import Options as OMEJobOptions
from autotuner.benchmarks.replay import Options as ReplayOptions
from autotuner.search.hyperopt import Options as HyperoptOptions
from autotuner.search.optuna import Options as OptunaOptions
from autotuner.shipped import shipped
from autotuner.study.metrics import METRICS
from autotuner.study.quantization import ALLOWED, PRESETS
from autotuner.study.slo import SLO, SLOSpec
from autotuner.study.spec import EngineSettings, StudySpec
from autotuner.study.trial import TrialState
from tests.pagehost import (
    ROOT,
    Hosted,
    Watched,
    chromium,
    example_content,
    fill,
    hosted,
    job_for,
    replayed,
    violations,
    waiting,
    watched,
)

LINES = 100_000

VIEWS = {
    "new": "/new",
    "edit": "/edit/quantized-formats",
    "duplicate": "/duplicate/quantized-formats",
    "presets": "/presets",
    "timeline": "/timeline?hours=24",
    "cluster": "/cluster",
    "trial": "/studies/running-now/trials/3",
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    with hosted(tmp_path_factory.mktemp("home")) as found:
        fill(found.service)
        dress(found, "running-now", 3)
        yield found


@pytest.fixture
def page(browser: Browser, host: Hosted) -> Iterator[Watched]:
    with watched(browser, host.url, width=1440) as found:
        yield found


def dress(host: Hosted, name: str, number: int) -> None:
    """Give a trial of a replayed study what a launched one leaves behind."""
    trial = next(each for each in host.service.studies.store.trials(name) if each.number == number)
    directory = Path(trial.directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "server.log").write_text(
        "".join(
            f"{'WARNING' if at % 1000 == 0 else 'INFO'} step {at} of the engine\n"
            for at in range(LINES)
        )
    )
    (directory / "runner.log").write_text("the load generator begins\nand ends\n")
    (directory / "plan.json").write_text(json.dumps({"argv": ["vllm", "serve"], "gpus": ["0"]}))
    seconds = list(range(30))
    for point in trial.load_points:
        series = {
            "kv_usage": [min(0.99, at / 40) for at in seconds],
            "running": [min(point.concurrency, 64)] * 30,
            "waiting": [max(0, point.concurrency - 64)] * 30,
            "preemptions": [at // 10 for at in seconds],
            "prefix_hits": [at * 3 for at in seconds],
            "prefix_queries": [at * 10 for at in seconds],
            "gpu_utilisation": [0.8] * 29 + [None],
        }
        place = directory / f"load-{point.index}"
        place.mkdir(exist_ok=True)
        (place / "telemetry.json").write_text(json.dumps({"seconds": seconds, "series": series}))


def module(page: Page, name: str, expression: str, given: Any = None) -> Any:
    """An expression over one of the page's modules, `it`, and a value, `given`."""
    return page.evaluate(
        f"async (given) => {{ const it = await import('/static/{name}.js'); return {expression} }}",
        given,
    )


def yaml_of(page: Page) -> Any:
    return YAML(typ="safe").load(page.locator(".yaml-text").input_value())


def says(page: Page, *patterns: str) -> None:
    """Wait until the YAML has all of these."""
    for pattern in patterns:
        expect(page.locator(".yaml-text")).to_have_value(re.compile(pattern))


def control(page: Page, where: str) -> Any:
    return page.locator(f'[data-key="{where}"]').first


def section(page: Page, name: str) -> Any:
    """A part of the form, opened."""
    found = page.locator(f"#section-{name}")
    if found.get_attribute("open") is None:
        found.locator("> summary").click()
    return found


def begun(page: Watched, name: str, **more: str) -> Page:
    """A new study with the least that it needs."""
    opened = page.go("/new")
    for where, text in {"name": name, "model.path": "Qwen/Qwen3-8B", **more}.items():
        control(opened, where).fill(text)
    says(opened, f"name: {name}")
    return opened


# What the form knows


def test_every_field_of_the_study_file_is_in_the_form(page: Watched) -> None:
    opened = page.go("/new")
    kinds = {
        "backend": ["docker", "ome"],
        "search": ["optuna", "hyperopt"],
        "benchmark": ["replay", "ome-job"],
    }
    known = {".".join(each) for each in module(opened, "form_fields", "it.knownPlaces({})")}
    for block, names in kinds.items():
        for kind in names:
            content = {block: {"kind": kind}}
            found = module(opened, "form_fields", "it.knownPlaces(given)", content)
            known |= {".".join(each) for each in found}
    wanted = set(_places(StudySpec))
    wanted |= {f"backend.docker.{each}" for each in DockerOptions.model_fields}
    wanted |= {f"backend.ome.{each}" for each in OMEOptions.model_fields}
    wanted |= {f"search.{each}" for each in OptunaOptions.model_fields}
    wanted |= {f"search.{each}" for each in HyperoptOptions.model_fields}
    wanted |= {f"benchmark.{each}" for each in ReplayOptions.model_fields}
    wanted |= {f"benchmark.{each}" for each in OMEJobOptions.model_fields}
    covered = [each for each in wanted if any(_within(each, place) for place in known)]
    assert sorted(wanted - set(covered)) == []
    several = {"engine": {"kind": ["vllm", "sglang"]}}
    settings = {
        ".".join(each) for each in module(opened, "form_fields", "it.knownPlaces(given)", several)
    }
    assert {f"engine.settings.sglang.{each}" for each in EngineSettings.model_fields} <= settings


def _places(model: type[BaseModel], place: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if f"{place}{name}" == "engine.settings":  # looked at by kind
            continue
        inner = [
            each
            for each in (field.annotation, *getattr(field.annotation, "__args__", ()))
            if isinstance(each, type) and issubclass(each, BaseModel)
        ]
        if inner:
            yield from _places(inner[0], f"{place}{name}.")
        else:
            yield f"{place}{name}"


def _within(place: str, known: str) -> bool:
    return place == known or place.startswith(f"{known}.")


def test_the_words_of_the_form_are_those_of_the_study_file(page: Watched) -> None:
    opened = page.go("/new")
    said = module(opened, "form_fields", "({...it})")
    metrics = {name: [each.unit, each.better.value] for name, each in METRICS.items()}
    assert {name: each[1:] for name, each in said["METRICS"].items()} == metrics
    assert said["FORMATS"] == {field: list(values) for field, values in ALLOWED.items()}
    assert list(said["FORMAT_PRESETS"]) == list(PRESETS)
    assert set(said["SLO_KEYS"]) == set(SLOSpec.model_fields)
    assert set(said["SLO_ROW"]) == set(SLO.model_fields)
    profiles = {each.stem for each in shipped("slo").glob("*.yaml")}
    assert set(said["SLO_PROFILES"]) == profiles


VALUES: list[Any] = [
    *(1, 0.5, -3, 1e-3, 1e21, True, False, None),
    *(
        "8",
        "8k",
        "true",
        "null",
        "",
        "a, b",
        " x",
        "a:b",
        "x;y",
        "[",
        "{x",
        '"',
        '"a"',
        'a"b',
        "\\",
    ),
    *({"a": [1, "2"], "b": None}, [1, [2]], "D(512,128)", "99999999999999999999"),
]


def test_what_is_typed_is_what_is_shown(page: Watched) -> None:
    """Every value of JSON, alone, in lists and in conditions, comes back as it was."""
    opened = page.go("/new")
    lists = [[one, other] for one in VALUES for other in VALUES] + [[one] for one in VALUES]
    conditions = [
        {"flag": one, "env:OTHER": [one, other]} for one, other in itertools.pairwise(VALUES)
    ]
    for name, given in (("", VALUES), ("Values", lists), ("Condition", conditions)):
        reader = {"": "valueOf", "Values": "valuesOf", "Condition": "conditionOf"}[name]
        back = module(
            opened, "form_values", f"given.map((each) => it.{reader}(it.textOf{name}(each)))", given
        )
        assert back == given
    read = {
        "1, 2, 4": [1, 2, 4],
        "0.8,0.9": [0.8, 0.9],
        "true, False": [True, False],
        "true, auto": ["true", "auto"],
        "2048, 8k,, ": [2048, "8k"],
        "D(512,128), N(1,2)/(3,4)": ["D(512,128)", "N(1,2)/(3,4)"],
        "null, {a: 1}": [None, "{a: 1}"],
        "": [],
    }
    for text, values in read.items():
        assert module(opened, "form_values", "it.valuesOf(given)", text) == values, text


# Writing a study


def test_a_study_is_written_in_the_form_and_started(page: Watched, host: Hosted) -> None:
    opened = begun(page, "from-the-form", description="Written by hand")
    picker = control(opened, "preset-add")
    picker.select_option("vllm/throughput")
    says(opened, r"max-num-seqs: \[128")
    picker.select_option("vllm/memory")
    expect(opened.get_by_label("Merged as")).to_have_value("union")
    control(opened, "workload.concurrency").fill("4, 16")
    opened.get_by_label("Bound TTFT p90").check()
    control(opened, "slo.ttft_p90-bound").fill("0.5")
    formats = section(opened, "quantization")
    formats.get_by_label("Single formats").check()
    formats.locator('[data-where="quantization.gemm"] [data-value="fp8"]').check()
    formats.locator('[data-where="quantization.kv_cache"] [data-value="fp8"]').check()
    formats.locator('[data-where="quantization.gemm"] [data-value="auto"]').uncheck()
    control(opened, "search.kind").select_option("random")
    section(opened, "limits")
    control(opened, "limits.trials").fill("7")
    says(opened, "trials: 7", "gemm: fp8", r"kv_cache: \[auto, fp8\]")
    expect(opened.locator(".plan-numbers")).to_contain_text("Points")
    expect(opened.locator(".mapped")).to_contain_text("Mapped arguments for vLLM (1 combination)")
    # The presets vary kv-cache-dtype as a flag, which goes before the block.
    expect(opened.locator(".mapped")).to_contain_text("--quantization fp8")
    opened.get_by_role("button", name="Create and start").click()
    opened.wait_for_url("**/#/studies/from-the-form")

    study = host.service.studies.store.study("from-the-form")
    assert ("from-the-form", host.runs.started[-1][1]) == host.runs.started[-1]
    spec = study.spec
    assert spec.description == "Written by hand"
    assert spec.workload.concurrency == [4, 16]
    assert spec.slo is not None
    assert spec.slo.rows["ttft_p90"].max == 0.5
    assert spec.quantization is not None
    assert spec.quantization.gemm == ["fp8"]
    assert spec.search.kind == "random"
    assert spec.limits.trials == 7
    assert {"max-num-seqs", "tensor-parallel-size"} <= set(spec.space)


def test_conflicts_of_presets_are_said_and_edited_rows_stay(page: Watched) -> None:
    opened = begun(page, "merging")
    picker = control(opened, "preset-add")
    picker.select_option("vllm/throughput")
    says(opened, r"max-num-seqs: \[128")
    control(opened, "space.max-num-seqs-values").fill("17, 19")
    picker.select_option("vllm/latency")
    opened.get_by_label("Merged as").select_option("intersection")
    expect(opened.locator(".conflicts li").first).to_be_visible()
    says(opened, r"max-num-seqs: \[17, 19\]")
    opened.get_by_label("Remove the preset vllm/latency").click()
    opened.get_by_label("Remove the preset vllm/throughput").click()
    expect(opened.locator('[data-where="space.kv-cache-dtype"]')).to_have_count(0)
    says(opened, r"max-num-seqs: \[17, 19\]")
    opened.get_by_role("link", name="Discard").click()
    opened.get_by_role("button", name="Leave").click()


def test_presets_named_by_a_file_become_rows(page: Watched) -> None:
    opened = begun(page, "named-presets")
    typed = opened.locator(".yaml-text").input_value() + "presets: [vllm/latency]\n"
    opened.locator(".yaml-text").fill(typed)
    opened.get_by_role("button", name="Turn them into rows").click()
    says(opened, "performance-mode")
    assert "presets" not in yaml_of(opened)
    _discard(opened)


def test_rows_of_the_space(page: Watched) -> None:
    opened = begun(page, "rows")
    space = section(opened, "space")
    chip = space.get_by_role("button", name="max-num-seqs", exact=True)
    chip.click()
    expect(chip).to_be_disabled()
    values = control(opened, "space.max-num-seqs-values")
    expect(values).to_be_focused()
    values.fill("16, 32, auto")
    says(opened, r"max-num-seqs: \[16, 32, auto\]")
    space.get_by_role("button", name="enable-prefix-caching", exact=True).click()
    says(opened, r"enable-prefix-caching: \[true, false\]")
    space.get_by_role("button", name="Add a flag").click()
    name = space.get_by_label("Name of a flag")
    name.fill("--gpu_memory_utilization")
    name.press("Enter")
    row = opened.locator('[data-where="space.gpu-memory-utilization"]')
    row.get_by_label("gpu-memory-utilization: kind of values").select_option("float")
    row.get_by_label("gpu-memory-utilization: low").fill("0.8")
    row.get_by_label("gpu-memory-utilization: high").fill("0.9")
    row.get_by_label("gpu-memory-utilization: step").fill("0.05")
    row.locator(".condition > summary").click()
    row.get_by_label("gpu-memory-utilization: only when").fill("enable-prefix-caching: true")
    expect(row.locator(".count")).to_have_text("3 values")
    says(opened, "when")
    assert yaml_of(opened)["space"]["gpu-memory-utilization"] == {
        "type": "float",
        "low": 0.8,
        "high": 0.9,
        "step": 0.05,
        "when": {"enable-prefix-caching": True},
    }
    opened.get_by_label("Remove enable-prefix-caching").click()
    expect(row.locator(".field-problem")).to_contain_text("enable-prefix-caching")
    page.excuse("422")
    _discard(opened)


UNKNOWN: dict[str, Any] = {
    "name": "kept-as-written",
    "model": {"path": "Qwen/Qwen3-8B", "revision": "main"},
    "engine": {"kind": "vllm", "arguments": {"max-model-len": "8k", "json": {"a": [1, None]}}},
    "backend": {"kind": "elsewhere", "elsewhere": {"rack": 7}},
    "space": {"max-num-seqs": {"values": ["8", 8.5, None], "when": {"x": [True]}}},
    "workload": {"scenarios": ["D(512,128)"], "concurrency": [8], "request": {"stop": ["a", "1"]}},
    "search": {"kind": "of-a-plugin", "depth": 3, "nested": {"deep": [{"er": True}]}},
    "later": {"added": [1, {"two": None}]},
}


def test_what_the_form_does_not_know_stays_as_it_is(page: Watched) -> None:
    opened = page.go("/new")
    opened.locator(".yaml-text").fill(json.dumps(UNKNOWN, indent=1))
    expect(control(opened, "name")).to_have_value("kept-as-written")
    kept = opened.locator(".kept")
    expect(kept).to_contain_text("later")
    expect(kept).to_contain_text("model.revision")
    expect(kept).to_contain_text("backend.elsewhere")
    control(opened, "description").fill("now with a description")
    control(opened, "workload.max_requests").fill("50")
    says(opened, "now with a description", "max_requests: 50")
    wanted = {**UNKNOWN, "description": "now with a description"}
    wanted["workload"] = {**UNKNOWN["workload"], "max_requests": 50}
    assert yaml_of(opened) == wanted
    _discard(opened)


GARBAGE: list[Any] = [None, "text", 3, True, [], [1, {}], {}, {"x": [None, {"y": 1}]}]


@pytest.mark.parametrize("value", GARBAGE, ids=json.dumps)
def test_content_of_a_wrong_kind_is_neither_lost_nor_in_the_way(page: Watched, value: Any) -> None:
    opened = page.go("/new")
    blocks = {name: value for name in StudySpec.model_fields if name not in ("name", "engine")}
    nested = {
        "engine": {"kind": "vllm", **dict.fromkeys(EngineSettings.model_fields, value)},
        "backend": {"kind": "docker", "docker": value},
        "space": {"max-num-seqs": value, "other": {"type": "int", "low": value, "when": value}},
        "slo": {"ttft_p90": value, "mode": value},
        "workload": {"scenarios": value, "concurrency": value, "request": value},
        "quantization": {"gemm": value, "presets": value},
        "search": {"kind": value, "trials": value},
    }
    for round_, content in enumerate(({"engine": value, **blocks}, nested)):
        written = {"name": f"round-{round_}", **content}
        opened.locator(".yaml-text").fill(json.dumps(written))
        expect(control(opened, "name")).to_have_value(f"round-{round_}")
        control(opened, "description").fill("so it is")
        says(opened, "so it is")
        kept = yaml_of(opened)
        assert {**written, "description": "so it is"} == kept
    _discard(opened)


def test_a_task_of_the_earlier_system_becomes_a_study(page: Watched) -> None:
    opened = page.go("/new")
    task = sorted((ROOT / "tests" / "data" / "tasks").glob("*.json"))[0].read_text()
    opened.locator(".yaml-text").fill(task)
    says(opened, "scenarios:", "name:")
    expect(control(opened, "name")).not_to_have_value("")
    expect(opened.locator("#toasts")).to_contain_text("Read as a study")
    _discard(opened)


def test_a_line_of_yaml_begins_where_the_last_one_did(page: Watched) -> None:
    opened = page.go("/new")
    text = opened.locator(".yaml-text")
    text.fill("limits:\n  hours: 2")
    text.press("End")
    text.press("Enter")
    text.press_sequentially("trials: 4")
    section(opened, "limits")
    expect(control(opened, "limits.trials")).to_have_value("4")
    text.press("Tab")
    expect(text).not_to_be_focused()
    _discard(opened)


def test_problems_stand_at_their_field_and_line(page: Watched) -> None:
    opened = begun(page, "wrong")
    text = opened.locator(".yaml-text").input_value().replace("D(512,128)", "D(512)")
    opened.locator(".yaml-text").fill(text)
    field = opened.locator('[data-where="workload.scenarios"]')
    expect(field.locator(".field-problem")).to_contain_text("is not a traffic scenario")
    expect(field.locator("input")).to_have_attribute("aria-invalid", "true")
    wrong = text.splitlines().index(next(each for each in text.splitlines() if "D(512)" in each))
    expect(opened.locator(".gutter .bad")).to_have_text(str(wrong + 1))
    opened.get_by_role("button", name="Create", exact=True).click()
    expect(field.locator("input")).to_be_focused()
    control(opened, "workload.scenarios").fill("D(512,64)")
    expect(field.locator(".field-problem")).to_have_count(0)
    expect(opened.locator(".yaml-problems li")).to_have_count(0)
    _discard(opened)


def test_a_flag_that_the_engine_does_not_have_is_said_at_its_row(page: Watched) -> None:
    opened = begun(page, "misspelt")
    space = section(opened, "space")
    space.get_by_role("button", name="Add a flag").click()
    name = space.get_by_label("Name of a flag")
    name.fill("max-num-sequences")
    name.press("Enter")
    control(opened, "space.max-num-sequences-values").fill("8, 16")
    row = opened.locator('[data-where="space.max-num-sequences"]')
    expect(row.locator(".field-problem")).to_contain_text("max-num-seqs")
    opened.get_by_role("button", name="Create", exact=True).click()
    expect(row.locator("[aria-invalid=true]")).to_be_focused()
    page.excuse("422")
    _discard(opened)


def test_mapped_arguments_are_listed_up_to_ten_and_counted(page: Watched) -> None:
    opened = begun(page, "many-formats")
    formats = section(opened, "quantization")
    formats.get_by_label("Single formats").check()
    for value in ("float16", "bfloat16", "fp8"):
        formats.locator(f'[data-where="quantization.gemm"] [data-value="{value}"]').check()
    for value in ("fp8_e4m3", "fp8_e5m2", "fp8"):
        formats.locator(f'[data-where="quantization.kv_cache"] [data-value="{value}"]').check()
    mapped = opened.locator(".mapped")
    expect(mapped).to_contain_text("(16 combinations)")
    expect(mapped.locator("li")).to_have_count(10)
    expect(mapped).to_contain_text("… and 6 more combinations")
    formats.get_by_label("Ready-made").check()
    formats.get_by_label("kv-cache-fp8").check()
    formats.get_by_label("dynamic-fp8").check()
    expect(mapped).to_contain_text("(2 combinations)")
    assert yaml_of(opened)["quantization"] == {"presets": ["kv-cache-fp8", "dynamic-fp8"]}
    formats.get_by_label("None").check()
    expect(mapped).to_have_count(0)
    _discard(opened)


def test_a_service_level_has_its_statistic_and_hardness(page: Watched) -> None:
    opened = begun(page, "levels")
    opened.get_by_label("Bound TPOT p90").check()
    opened.get_by_label("Statistic of TPOT").select_option("tpot_p99")
    row = opened.locator('[data-where="slo.tpot_p99"]')
    fails = row.get_by_label("TPOT p99: fails beyond this share over the bound")
    expect(fails).to_be_disabled()
    row.get_by_label("TPOT p99: hard").check()
    fails.fill("0.2")
    opened.get_by_label("Another bound").select_option("output_throughput")
    opened.get_by_label("Output throughput: bound").fill("1000")
    opened.get_by_label("What breaking one does").select_option("penalty")
    opened.get_by_label("Steepness").fill("0.2")
    says(opened, "steepness: 0.2", "fail_ratio: 0.2", "min: 1000")
    assert yaml_of(opened)["slo"] == {
        "tpot_p99": {"max": 0.05, "weight": 2, "hard": True, "fail_ratio": 0.2},
        "output_throughput": {"min": 1000},
        "mode": "penalty",
        "steepness": 0.2,
    }
    rows = opened.locator(".slo-rows tbody tr")
    order = [each.get_attribute("data-where") for each in rows.all()]
    assert order[:2] == ["slo.ttft_p90", "slo.tpot_p99"]
    assert order[2:5] == [f"slo.e2e_latency_{each}" for each in ("p50", "p90", "p99")]
    _discard(opened)


def test_yaml_that_cannot_be_read_changes_nothing(page: Watched) -> None:
    opened = begun(page, "unreadable")
    opened.locator(".yaml-text").fill("name: [unreadable\n  x: 1\n")
    expect(opened.locator(".yaml-problems .line")).to_be_visible()
    expect(control(opened, "name")).to_have_value("unreadable")
    opened.get_by_role("button", name="Create", exact=True).click()
    assert opened.url.endswith("#/new")
    page.excuse("422")
    _discard(opened)


def test_refused_points_are_shown_with_their_reason(page: Watched) -> None:
    opened = begun(page, "refusing")
    opened.locator(".yaml-text").fill(
        opened.locator(".yaml-text").input_value()
        + "space: {max-num-seqs: [512], max-num-batched-tokens: [256, 4096]}\n"
    )
    refused = opened.locator(".plan details", has_text="Refused without a launch")
    expect(refused.locator("summary")).to_contain_text("1 of 2 points")
    refused.locator("summary").click()
    expect(refused.locator("li")).to_contain_text("max-num-batched-tokens")
    _discard(opened)


def test_several_engines_have_settings_and_spaces_of_their_own(page: Watched) -> None:
    opened = begun(page, "two-engines")
    control(opened, "engine.version").fill("0.32.0")
    section(opened, "space").get_by_role("button", name="max-num-seqs", exact=True).click()
    control(opened, "space.max-num-seqs-values").fill("16, 32")
    says(opened, r"\[16, 32\]")
    control(opened, "engine-add").select_option("sglang")
    says(opened, "settings", r"kind: \[vllm, sglang\]")
    content = yaml_of(opened)
    assert content["engine"] == {
        "kind": ["vllm", "sglang"],
        "settings": {"vllm": {"version": "0.32.0"}},
    }
    assert content["space"] == {"vllm": {"max-num-seqs": [16, 32]}}
    opened.get_by_label("Take SGLang out").click()
    says(opened, "kind: vllm")
    assert yaml_of(opened)["engine"] == {"kind": "vllm", "version": "0.32.0"}
    assert yaml_of(opened)["space"] == {"max-num-seqs": [16, 32]}
    _discard(opened)


def test_an_edit_of_a_measured_study_asks_before_its_results_go(
    page: Watched, host: Hosted
) -> None:
    store = host.service.studies.store
    replayed(host.service, example_content(name="measured", verdict={"finalists": 0}))
    assert store.trials("measured")
    opened = page.go("/edit/measured")
    control(opened, "description").fill("another question")
    says(opened, "another question")
    opened.get_by_role("button", name="Save", exact=True).click()
    opened.get_by_role("button", name="Keep the results").click()
    assert store.trials("measured")
    opened.get_by_role("button", name="Save", exact=True).click()
    opened.get_by_role("button", name="Save and delete the results").click()
    opened.wait_for_url("**/#/studies/measured")
    assert store.study("measured").spec.description == "another question"
    assert store.trials("measured") == []


def test_what_could_not_be_converted_is_converted_before_it_is_saved(
    page: Watched, host: Hosted
) -> None:
    waiting(host.service, "half-heard")
    opened = page.go("/edit/half-heard")
    says(opened, "name: half-heard")
    opened.route("**/v1/convert", lambda route: route.fulfill(status=503, json={"title": "Busy"}))
    save = opened.get_by_role("button", name="Save", exact=True)
    toasts = opened.locator("#toasts")
    control(opened, "description").fill("said while nobody heard")
    expect(toasts).to_contain_text("Busy")
    toasts.get_by_role("button", name="Close this message").click()
    save.click()
    expect(toasts).to_contain_text("Busy")  # asked for again, and still not: nothing is saved
    assert opened.url.endswith("#/edit/half-heard")
    opened.unroute("**/v1/convert")
    save.click()
    opened.wait_for_url("**/#/studies/half-heard")
    description = host.service.studies.store.study("half-heard").spec.description
    assert description == "said while nobody heard"
    host.service.studies.delete("half-heard")
    page.excuse("503")
    page.excuse("404")


def test_an_edit_asks_before_it_deletes_results_that_came_after_it_began(
    page: Watched, host: Hosted
) -> None:
    made, store = host.service, host.service.studies.store
    content = example_content(name="measured-meanwhile", verdict={"finalists": 0})
    made.studies.create(job_for(made, content))
    opened = page.go("/edit/measured-meanwhile")
    says(opened, "name: measured-meanwhile")
    made.studies.delete("measured-meanwhile")
    replayed(made, content)
    count = len(store.trials("measured-meanwhile"))
    opened.get_by_role("button", name="Save", exact=True).click()
    asks = opened.get_by_role("dialog", name="Save measured-meanwhile and delete its results?")
    expect(asks).to_contain_text("It has changed since this form was opened, and is complete now.")
    expect(asks).to_contain_text(re.compile(rf"Its {count}\strials"))
    asks.get_by_role("button", name="Keep the results").click()
    expect(asks).to_have_count(0)
    assert len(store.trials("measured-meanwhile")) == count
    made.studies.delete("measured-meanwhile")


def test_an_edit_asks_before_it_replaces_what_another_wrote(page: Watched, host: Hosted) -> None:
    made = waiting(host.service, "two-tabs").spec.model_dump(exclude_unset=True)
    opened = page.go("/edit/two-tabs")
    control(opened, "description").fill("of the first tab")
    says(opened, "of the first tab")
    other = job_for(host.service, {**made, "description": "of the second tab"})
    host.service.studies.edit("two-tabs", other)
    opened.get_by_role("button", name="Save", exact=True).click()
    asks = opened.get_by_role("dialog", name="Save two-tabs over what it is now?")
    expect(asks).to_contain_text("It was edited elsewhere since this form was opened.")
    asks.get_by_role("button", name="Do not save").click()
    store = host.service.studies.store
    assert store.study("two-tabs").spec.description == "of the second tab"
    opened.get_by_role("button", name="Save", exact=True).click()
    asks.get_by_role("button", name="Save over it").click()
    opened.wait_for_url("**/#/studies/two-tabs")
    assert store.study("two-tabs").spec.description == "of the first tab"
    host.service.studies.delete("two-tabs")
    page.excuse("404")


def test_an_edit_may_rename(page: Watched, host: Hosted) -> None:
    waiting(host.service, "to-be-renamed")
    opened = page.go("/edit/to-be-renamed")
    control(opened, "name").fill("renamed")
    says(opened, "name: renamed")
    opened.get_by_role("button", name="Save", exact=True).click()
    opened.wait_for_url("**/#/studies/renamed")
    assert "to-be-renamed" not in host.service.studies.store.names()


def test_a_duplicate_has_a_free_name_and_is_saved_only_when_it_is_submitted(
    page: Watched, host: Hosted
) -> None:
    waiting(host.service, "original")
    waiting(host.service, "original-copy")
    opened = page.go("/duplicate/original")
    expect(control(opened, "name")).to_have_value("original-copy-2")
    assert "original-copy-2" not in host.service.studies.store.names()
    opened.get_by_role("button", name="Create", exact=True).click()
    opened.wait_for_url("**/#/studies/original-copy-2")
    made = host.service.studies.store.study("original-copy-2").spec
    first = host.service.studies.store.study("original").spec
    assert made.model_copy(update={"name": "original"}) == first


def test_a_name_that_is_taken_is_said_in_the_service_s_words(page: Watched) -> None:
    opened = begun(page, "quantized-formats")
    opened.get_by_role("button", name="Create", exact=True).click()
    expect(opened.locator("#toasts")).to_contain_text("quantized-formats")
    assert opened.url.endswith("#/new")
    page.excuse("409")
    _discard(opened)


def test_leaving_with_unsaved_changes_asks(page: Watched) -> None:
    opened = begun(page, "unsaved")
    opened.get_by_role("link", name="Cluster").click()
    opened.get_by_role("button", name="Stay").click()
    expect(opened).to_have_url(re.compile("#/new$"))
    expect(control(opened, "name")).to_have_value("unsaved")
    opened.get_by_role("link", name="Cluster").click()
    opened.get_by_role("button", name="Leave").click()
    expect(opened.locator("h1")).to_have_text("Cluster")


def test_leaving_what_was_not_changed_does_not_ask(page: Watched) -> None:
    opened = page.go("/edit/quantized-formats")
    expect(control(opened, "name")).to_have_value("quantized-formats")
    opened.get_by_role("link", name="Cluster").click()
    expect(opened.locator("h1")).to_have_text("Cluster")


def _discard(page: Page) -> None:
    page.get_by_role("link", name="Discard").click()
    page.get_by_role("button", name="Leave").click()


# Presets


def test_presets_are_made_changed_exchanged_and_deleted(
    page: Watched, host: Hosted, tmp_path: Path
) -> None:
    opened = page.go("/presets")
    opened.get_by_role("button", name="New preset").click()
    dialog = opened.locator("dialog")
    dialog.get_by_label("Name", exact=True).fill("team/long")
    dialog.get_by_label("Engine").select_option("vllm")
    dialog.get_by_role("button", name="max-num-seqs", exact=True).click()
    dialog.locator('[data-key="space.max-num-seqs-values"]').fill("64, 128")
    dialog.get_by_role("button", name="Save").click()
    card = opened.get_by_role("article", name="team/long", exact=True)
    expect(card).to_contain_text("2 values")
    expect(card).to_contain_text("vLLM")

    card.get_by_role("button", name="Edit team/long").click()
    dialog.get_by_label("Why").fill("for long prompts")
    with opened.expect_request(lambda request: request.method == "PATCH") as changed:
        dialog.get_by_role("button", name="Save").click()
    assert json.loads(changed.value.post_data or "") == {"why": "for long prompts"}
    expect(card).to_contain_text("for long prompts")

    with opened.expect_download() as saved:
        card.get_by_role("button", name="Export team/long").click()
    path = tmp_path / "presets.yaml"
    saved.value.save_as(path)
    card.get_by_role("button", name="Delete team/long").click()
    opened.get_by_role("button", name="Delete", exact=True).click()
    expect(card).to_have_count(0)
    opened.get_by_label("File of presets").set_input_files(path)
    expect(card).to_contain_text("for long prompts")
    assert [each.name for each in (host.service.presets / "team").iterdir()] == ["long.yaml"]


def test_a_preset_with_a_mistake_is_not_saved(page: Watched) -> None:
    opened = page.go("/presets")
    opened.get_by_role("button", name="New preset").click()
    dialog = opened.locator("dialog")
    dialog.get_by_label("Name", exact=True).fill("../escape")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.locator(".field-problem, .note.bad").first).to_be_visible()
    page.excuse("422")


def test_presets_are_filtered(page: Watched) -> None:
    opened = page.go("/presets")
    opened.get_by_label("Engine").select_option("vllm")
    expect(opened.get_by_role("article", name="sglang/balanced")).to_have_count(0)
    opened.get_by_label("Category").select_option("memory")
    expect(opened.get_by_role("article", name="vllm/memory")).to_be_visible()
    expect(opened.get_by_role("article", name="vllm/latency")).to_have_count(0)
    assert "engine=vllm" in opened.url


def test_a_preset_begins_a_study(page: Watched) -> None:
    opened = page.go("/presets")
    card = opened.get_by_role("article", name="sglang/latency")
    card.get_by_role("link", name="Use in a new study").click()
    says(opened, "chunked-prefill-size", "kind: sglang")
    expect(opened.get_by_label("Remove the preset sglang/latency")).to_be_visible()
    _discard(opened)


# The timeline and the cluster


def test_ticks_of_the_time_axis(page: Watched) -> None:
    opened = page.go("/presets")
    minute = 60_000
    lengths = {8: 1, 60: 10, 90: 15, 240: 30, 480: 60, 1440: 120}
    for minutes, tick in lengths.items():
        found = module(opened, "gantt", "it.tickLength(given)", minutes * minute)
        assert found == tick * minute, minutes
    found = module(opened, "gantt", "it.ticks(...given)", [90 * minute, 240 * minute, 30 * minute])
    assert [at // minute % 30 for at in found] == [0] * len(found)
    assert module(opened, "gantt", "it.zoneOffset('Asia/Kolkata', 0)") == 330 * minute


def test_a_server_over_several_nodes_is_in_the_lanes_of_its_own_gpus(page: Watched) -> None:
    opened = page.go("/presets")
    start, end = "2026-11-22T10:00:00+00:00", "2026-11-22T11:00:00+00:00"
    spans: list[tuple[str, tuple[str, ...]]] = [
        ("10.0.0.1, 10.0.0.2", ("0", "10.0.0.2/0")),
        ("10.0.0.2, 10.0.0.3", ()),
        ("10.0.0.3", ("nvidia.com/gpu/0",)),
    ]
    trials = [
        {"node": node, "gpu_ids": list(ids), "started_at": start, "ended_at": end}
        for node, ids in spans
    ]
    found = module(opened, "gantt", "it.lanes(given)", trials)
    assert [(lane["node"], lane["gpu"]) for lane in found] == [
        ("10.0.0.1", "0"),
        ("10.0.0.2", None),
        ("10.0.0.2", "0"),
        ("10.0.0.3", None),
        ("10.0.0.3", "nvidia.com/gpu/0"),
    ]
    assert [lane["label"] for lane in found[:3]] == ["GPU 0", "CPU", "GPU 0"]
    deploying = {**trials[1], "node": "", "state": "DEPLOYING"}
    (lane,) = module(opened, "gantt", "it.lanes(given)", [deploying])
    assert lane["label"] == "deploying"


def test_a_phone_shows_the_latest_of_the_timeline_and_whose_lane_it_is(
    browser: Browser, host: Hosted
) -> None:
    with watched(browser, host.url, width=390) as found:
        opened = found.go("/timeline?hours=24")
        opened.locator(".gantt-lane").first.wait_for()
        hidden, label, now = opened.evaluate(
            """() => {
                const at = (place) => document.querySelector(place).getBoundingClientRect();
                const hidden = document.querySelector(".gantt-scroll").scrollLeft;
                return [hidden, at(".gantt-label").left, at(".gantt-axis .end").right];
            }"""
        )
        assert hidden > 100
        assert 0 <= label < now <= 390


def test_the_timeline_shows_trials_by_gpu_and_opens_them(page: Watched) -> None:
    opened = page.go("/timeline?hours=24")
    lanes = opened.locator(".gantt-lane")
    expect(lanes.first).to_be_visible()
    expect(opened.locator(".gantt-label").filter(has_text="GPU")).not_to_have_count(0)
    opened.get_by_label("Study").select_option("running-now")
    expect(opened.locator("h1 + span")).not_to_have_text("")
    bar = opened.get_by_role("link", name=re.compile("running-now, trial 3:")).first
    assert "deploy" in (bar.get_attribute("title") or "")
    expect(bar.locator("i")).not_to_have_count(0)
    opened.locator("summary", has_text="As a table").click()
    expect(opened.get_by_role("table")).to_contain_text("running-now 3")
    bar.focus()
    bar.press("Enter")
    expect(opened.locator("h1")).to_have_text("Trial 3")
    server = opened.get_by_role("tab", name="Server")
    expect(server).to_have_attribute("aria-selected", "true")
    expect(server).to_be_in_viewport()
    expect(opened.locator(".log-box")).to_be_in_viewport()
    opened.get_by_role("tab", name="Trial").click()
    assert opened.url.endswith("/trials/3?log=trial")
    opened.reload()
    expect(opened.get_by_role("tab", name="Trial")).to_have_attribute("aria-selected", "true")
    expect(opened.get_by_role("tab", name="Trial")).to_be_in_viewport()


CLUSTER: dict[str, Any] = {
    "nodes": [
        {
            "id": "n1",
            "name": "alpha",
            "alive": True,
            "cpus": 32,
            "cpus_used": 4,
            "gpus": 2,
            "gpus_used": 1,
            "memory_gib": 256,
            "memory_used_gib": 200,
            "devices": [
                {
                    "index": 0,
                    "uuid": "GPU-a",
                    "name": "H100",
                    "memory_gib": 80,
                    "memory_used_gib": 76,
                    "utilisation": 0.75,
                    "temperature_c": 88,
                    "power_w": 610,
                },
                {
                    "index": 1,
                    "uuid": "GPU-b",
                    "name": "H100",
                    "memory_gib": 80,
                    "memory_used_gib": None,
                    "utilisation": None,
                    "temperature_c": None,
                    "power_w": None,
                },
            ],
        }
    ],
    "holds": [
        {
            "node": "alpha",
            "gpu_ids": ["0"],
            "study": "running-now",
            "trial": 3,
            "state": "BENCHMARKING",
            "since": "2026-11-22T12:00:00+00:00",
        }
    ],
    "queue": [{"study": "not-started-yet", "trial": None, "gpus": 4, "waiting": "a free place"}],
    "studies": {"RUNNING": 1},
    "problem": "",
}


def test_the_cluster_says_who_holds_what(page: Watched) -> None:
    page.page.route("**/v1/cluster", lambda route: _answer(route, CLUSTER))
    opened = page.go("/cluster")
    first, second = opened.get_by_label("GPU 0"), opened.get_by_label("GPU 1")
    expect(first.locator(".meter.bad")).to_contain_text("nearly full")
    expect(first.locator(".meter.warn")).to_contain_text("busy")
    expect(first.locator(".heat.bad")).to_contain_text("88 °C")
    expect(first).to_contain_text("running-now, trial 3")
    expect(second).to_contain_text("free")
    expect(second).to_contain_text("Utilisationnot known")
    expect(first).to_contain_text("76.0 of 80.0")
    expect(opened.get_by_role("table", name="Waiting")).to_contain_text("a free place")


def test_what_ended_is_counted_by_the_hour_of_the_clock(page: Watched) -> None:
    opened = page.go("/presets")
    at = datetime(2026, 11, 22, 10, 20, tzinfo=UTC)
    ends = {"now": 0, "an hour": 60, "the hour's first": 20, "yesterday": 24 * 60, "last": 1399}
    trials: list[dict[str, Any]] = [
        {"started_at": str(end - timedelta(minutes=4)), "ended_at": str(end)}
        for end in (at - timedelta(minutes=minutes) for minutes in ends.values())
    ]
    trials.append({"started_at": str(at - timedelta(minutes=50)), "ended_at": ""})
    now = at.timestamp() * 1000
    found = module(opened, "activity", "it.hourly(...given)", [trials, now])
    assert [each["ended"] for each in found["hours"]] == [1, *[0] * 21, 1, 2]
    assert (found["ended"], found["mean"]) == (4, 240)
    assert found["hours"][-1]["start"] == now - 20 * 60_000
    india = module(opened, "activity", "it.hourly(...given)", [trials, now, 330 * 60_000])
    assert [each["ended"] for each in india["hours"]] == [1, *[0] * 21, 1, 2]
    assert india["hours"][-1]["start"] == now - 50 * 60_000  # 15:00 there
    none = module(opened, "activity", "it.hourly(...given)", [[], now])
    assert (none["ended"], none["mean"]) == (0, None)


def test_the_cluster_says_how_many_ended_and_how_long_one_took(page: Watched) -> None:
    opened = page.go("/cluster")
    card = opened.locator(".card", has_text="The last 24 hours")
    expect(card.locator(".hour")).to_have_count(24)
    opened.get_by_text("As a table").click()
    rows = card.get_by_role("table", name="Trials by hour").locator("tbody td").all_inner_texts()
    said = card.locator("dd").first.inner_text()
    assert int(said) == sum(map(int, rows)) > 0
    expect(card).to_contain_text(re.compile(r"mean duration\s*\d"))


def test_of_another_team_is_said_that_it_holds_and_waits_and_no_more(page: Watched) -> None:
    hold = {**CLUSTER["holds"][0], "study": ANOTHERS, "trial": None, "state": "HELD", "since": ""}
    waits = {"study": ANOTHERS, "trial": None, "gpus": None, "waiting": "its turn"}
    answer = {**CLUSTER, "holds": [hold], "queue": [waits]}
    page.page.route("**/v1/cluster", lambda route: _answer(route, answer))
    opened = page.go("/cluster")
    expect(opened.get_by_label("GPU 0").locator(".gpu-holder")).to_have_text(ANOTHERS)
    for name in ("Waiting", "Held now"):
        table = opened.get_by_role("table", name=name)
        expect(table).to_contain_text(ANOTHERS)
        expect(table.get_by_role("link")).to_have_count(0)
    assert "null" not in opened.locator("main").inner_text()


def test_a_service_without_a_cluster_says_so(page: Watched) -> None:
    opened = page.go("/cluster")
    expect(opened.locator(".note")).to_contain_text("no Ray cluster")


def _answer(route: Route, content: Mapping[str, Any]) -> None:
    route.fulfill(json=dict(content))


# A trial


def test_a_trial_shows_what_it_ran_and_what_was_seen(page: Watched) -> None:
    opened = page.go("/studies/running-now/trials/3")
    expect(opened.get_by_role("table", name="Load points", exact=True)).to_contain_text("x 256")
    expect(opened.locator(".phase-list")).to_contain_text("deploy")
    plots = opened.locator(".telemetry-plots figure")
    expect(plots).to_have_count(5)
    expect(plots.first.locator("canvas")).to_be_visible()
    plots.first.locator("summary").click()
    expect(plots.first.get_by_role("table")).to_contain_text("72.5")
    opened.get_by_label("Load point", exact=True).select_option("D(1024,256) x 4")
    expect(plots.first.locator("tbody tr")).to_have_count(1)
    opened.get_by_text("Plan: the exact request").click()
    expect(opened.get_by_role("region", name="plan", exact=True)).to_contain_text("vllm")


def test_signals_are_on_the_trial_s_own_time(page: Watched) -> None:
    opened = page.go("/presets")
    telemetry = [
        {
            "load": "b",
            "index": 1,
            "seconds": [0, 1, 2],
            "series": {
                "preemptions": [5, 5, 9],
                "prefix_hits": [0, 5, 5],
                "prefix_queries": [0, 10, 10],
            },
        }
    ]
    phases = [{"name": "deploy", "start": 0, "end": 40}, {"name": "b", "start": 40, "end": 50}]
    points = [{"name": "b", "index": 1, "probe": False}]
    (found,) = module(opened, "telemetry", "it.onOneAxis(...given)", [telemetry, phases, points])
    assert found["label"] == "b"
    assert found["seconds"] == [40, 41, 42]
    assert found["series"] == {"preemptions": [0, 0, 4], "prefix_hit_rate": [None, 0.5, None]}


def test_probes_begin_where_their_own_phases_do(page: Watched) -> None:
    opened = page.go("/presets")
    points = [{"name": "b", "index": at, "probe": at < 2} for at in range(3)]
    phases = [
        {"name": "deploy", "start": 0, "end": 40},
        *({"name": "b", "start": 40 + 10 * at, "end": 49 + 10 * at} for at in range(3)),
    ]
    telemetry = [  # the first probe's was not kept
        {"load": "b", "index": at, "seconds": [0, 1], "series": {"running": [at, at]}}
        for at in (1, 2)
    ]
    found = module(opened, "telemetry", "it.onOneAxis(...given)", [telemetry, phases, points])
    assert [each["seconds"] for each in found] == [[50, 51], [60, 61]]
    assert [each["label"] for each in found] == ["b, probe 2", "b"]
    assert [each["index"] for each in found] == [1, 2]


def test_a_failed_trial_says_why(page: Watched, host: Hosted) -> None:
    trials = host.service.studies.store.trials("qwen3-30b-moe-limits")
    broken = next(each for each in trials if each.failure and not each.refused)
    host.service.studies.store.save(
        "qwen3-30b-moe-limits",
        replace(broken, advice="lower mem-fraction-static", log_tail="CUDA out of memory\n" * 5),
    )
    opened = page.go(f"/studies/qwen3-30b-moe-limits/trials/{broken.number}")
    diagnosis = opened.locator(".diagnosis")
    expect(diagnosis).to_contain_text(broken.reason[:40])
    expect(diagnosis).to_contain_text("lower mem-fraction-static")
    diagnosis.get_by_text("End of its log").click()
    expect(diagnosis.locator("pre")).to_contain_text("CUDA out of memory")


def test_a_long_log_is_read_searched_and_wrapped_without_freezing(page: Watched) -> None:
    opened = page.go("/studies/running-now/trials/3")
    expect(opened.locator(".log-state")).to_contain_text(f"{LINES:,}", timeout=20_000)
    box = opened.locator(".log-box")
    assert _scrolled(opened) > 0.99
    search = opened.get_by_label("Search the log")
    search.fill("warning")
    expect(opened.locator(".found")).to_have_text("1 of 100")
    follow = opened.get_by_role("button", name="Follow")
    expect(follow).to_have_attribute("aria-pressed", "false")
    opened.get_by_label("Previous match").click()
    expect(opened.locator(".found")).to_have_text("100 of 100")
    search.press("Enter")
    search.press("Enter")
    expect(opened.locator(".found")).to_have_text("2 of 100")
    assert 0.005 < _scrolled(opened) < 0.02
    assert opened.evaluate("[...CSS.highlights.get('log-current')].length") == 1
    opened.get_by_role("button", name="Wrap").click()
    follow.click()
    expect(follow).to_have_attribute("aria-pressed", "true")
    # A frame must not wait for all the lines: this one would take seconds if it did.
    took = opened.evaluate(
        "async () => { const began = performance.now();"
        " document.querySelector('.log-box').scrollTop = 100_000;"
        " await new Promise(requestAnimationFrame); await new Promise(requestAnimationFrame);"
        " return performance.now() - began; }"
    )
    assert took < 1000
    box.hover()
    opened.mouse.wheel(0, -4000)
    expect(follow).to_have_attribute("aria-pressed", "false")


def test_a_log_goes_on_while_it_is_written(page: Watched, host: Hosted) -> None:
    store = host.service.studies.store
    trial = next(each for each in store.trials("running-now") if not each.state.ended)
    directory = Path(trial.directory or store.study("running-now").directory) / "trials" / "live"
    directory.mkdir(parents=True, exist_ok=True)
    store.save(
        "running-now",
        replace(trial, state=TrialState.BENCHMARKING, directory=str(directory), note="x 16"),
    )
    log = directory / "server.log"
    log.write_text("the first line\n")
    opened = page.go(f"/studies/running-now/trials/{trial.number}")
    expect(opened.locator(".log-text")).to_contain_text("the first line")
    expect(opened.locator(".log-state")).to_contain_text("live")
    with log.open("a") as file:
        file.write("the second line\n")
    expect(opened.locator(".log-text")).to_contain_text("the second line")
    with opened.expect_download() as saved:
        opened.get_by_role("button", name="Download").click()
    assert Path(saved.value.path()).read_text() == "the first line\nthe second line\n"
    opened.get_by_role("tab", name="Trial").click()
    expect(opened.locator(".log-text")).to_contain_text("BENCHMARKING")


# What holds for every view


@pytest.mark.parametrize("name", VIEWS)
def test_every_view_is_accessible(page: Watched, name: str) -> None:
    opened = page.go(VIEWS[name])
    opened.wait_for_timeout(500)  # charts are drawn when they are drawn
    assert violations(opened) == []


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize(("width", "dark"), [(360, True), (1920, False)])
def test_every_view_fits_phone_and_wide_screen(
    browser: Browser, host: Hosted, name: str, width: int, dark: bool
) -> None:
    with watched(browser, host.url, width=width, dark=dark) as found:
        opened = found.go(VIEWS[name])
        over = opened.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert over <= 0


def _scrolled(page: Page) -> float:
    """How far down the log is, 0 to 1."""
    return float(
        page.evaluate(
            "(() => { const box = document.querySelector('.log-box');"
            " return (box.scrollTop + box.clientHeight) / box.scrollHeight; })()"
        )
    )
