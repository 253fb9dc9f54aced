"""The page as its users use it: real vLLM behind `autotuner serve`, a real browser before it.

`make pictures` has it write what it sees to docs/img.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.test_page_forms import control, says, section, yaml_of
from tests.e2e.test_vllm import MODEL, ROOT, VLLM
from tests.pagehost import Watched, chromium, watched
from tests.processes import ours, wait_for
from tests.serving import GONE_SECONDS, Served, served, service_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not VLLM.exists() or not MODEL.exists(), reason="run `make vllm model`"),
]

PICTURES = ROOT / "docs" / "img"
PLACE = Path("/srv/autotuner")
"""What pictures show as the place of the studies' files, instead of where this lies."""

STUDY = f"""
name: laptop
description: From the form, on real vLLM
model: {{path: .cache/tiny-llama, served_name: tiny-llama}}
engine:
  kind: vllm
  version: 0.32.0
  command: [{VLLM.relative_to(ROOT)}, -m, vllm.entrypoints.openai.api_server]
  arguments: {{max-model-len: 2048, enforce-eager: true}}
  environment: {{VLLM_CPU_KVCACHE_SPACE: 1, HF_HUB_OFFLINE: 1, OMP_NUM_THREADS: 1}}
workload:
  scenarios: ["D(64,64)"]
  concurrency: [2, 8]
  max_requests: 100000
  max_seconds: 8
  request: {{temperature: 0.0}}
search: {{kind: grid}}
verdict: {{finalists: 0}}
limits: {{ready_seconds: 240, trial_seconds: 400}}
"""
NGRAM = {"method": "ngram", "num_speculative_tokens": 8, "prompt_lookup_max": 3}
PRESET = {
    "name": "laptop/guessing",
    "engine": "vllm",
    "category": "performance",
    "why": "A tiny model repeats itself, so guessing pays; one sequence at a time does not.",
    "parameters": {"max-num-seqs": [1, 32], "speculative-config": [NGRAM]},
}
"""Of the service's own: those that come with autotuner are for GPUs."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home, place = tmp_path_factory.mktemp("home"), ROOT
    if os.environ.get("AUTOTUNER_PICTURES"):
        PLACE.symlink_to(ROOT)
        place = PLACE
    try:
        with served(home, AUTOTUNER_SERVICE_DIRECTORY=str(place)) as running:
            running.ask("POST", "/v1/presets", json=PRESET)
            yield running
    finally:
        if place is PLACE:
            PLACE.unlink()


@pytest.fixture
def page(browser: Browser, service: Served) -> Iterator[Watched]:
    with watched(browser, service.address, width=1440, height=1000) as found:
        yield found


def picture(page: Page, name: str, *, whole: bool = True) -> None:
    """Keep what the page shows, where pictures were asked for."""
    if not os.environ.get("AUTOTUNER_PICTURES"):
        return
    PICTURES.mkdir(exist_ok=True)
    page.evaluate("window.scrollTo(0, 0)")
    page.wait_for_timeout(1000)  # charts are drawn after their data has come
    size = page.viewport_size
    assert size is not None
    height = size["height"]
    if whole:  # what is outside the window is not drawn at all
        height = page.evaluate(
            "Math.max(...[...document.querySelectorAll('main *')]"
            ".map((each) => each.getBoundingClientRect().bottom))"
        )
        height = min(2600, max(420, int(height) + 40))
        page.set_viewport_size({"width": size["width"], "height": height})
        page.wait_for_timeout(1000)
    page.screenshot(path=PICTURES / f"{name}.png")
    page.set_viewport_size(size)


def test_a_study_from_the_form_to_its_winners_command(
    page: Watched, service: Served, tmp_path: Path
) -> None:
    # Written in the form, with a preset and number formats, beside its YAML.
    opened = page.go("/new")
    opened.locator(".yaml-text").fill(STUDY)
    expect(control(opened, "name")).to_have_value("laptop")
    control(opened, "preset-add").select_option("laptop/guessing")
    says(opened, r"max-num-seqs: \[1, 32\]")
    formats = section(opened, "quantization")
    formats.get_by_label("Single formats").check()
    box = '[data-where="quantization.{}"] [data-value="{}"]'
    formats.locator(box.format("gemm", "bfloat16")).check()
    formats.locator(box.format("gemm", "auto")).uncheck()
    formats.locator(box.format("kv_cache", "fp8")).check()
    says(opened, r"kv_cache: \[auto, fp8\]")
    expect(opened.locator(".mapped")).to_contain_text("--kv-cache-dtype fp8")
    expect(opened.locator(".mapped")).to_contain_text("2 combinations")
    picture(opened, "new", whole=False)
    formats.locator(box.format("kv_cache", "fp8")).uncheck()
    says(opened, r"quantization: \{gemm: bfloat16\}")
    expect(opened.locator(".plan-numbers")).to_contain_text("Points")
    assert yaml_of(opened)["space"] == PRESET["parameters"]
    opened.get_by_role("button", name="Create and start").click()
    opened.wait_for_url("**/#/studies/laptop")

    # Its first trial goes through its states while one looks, and its log is read as it grows.
    assert wait_for(lambda: service.trials("laptop") != [], 90, every=0.2)
    opened = page.go("/studies/laptop/trials/0")
    seen = states_seen(opened)
    log = opened.get_by_role("log")
    expect(log).to_contain_text("vLLM", timeout=120_000)
    expect(log).to_contain_text("Application startup complete", timeout=180_000)
    assert wait_for(lambda: {"deploying", "benchmarking"} <= seen(), 180, every=0.5), seen()
    assert wait_for(lambda: "complete" in seen(), 120, every=0.5), seen()
    assert wait_for(lambda: service.state("laptop") != "RUNNING", 420, every=1)
    assert service.state("laptop") == "COMPLETE"
    picture(page.go("/studies/laptop/trials/1"), "trial")

    # The trials side by side, the winner, and its command, which runs.
    opened = page.go("/studies/laptop")
    expect(opened.locator("main .state").first).to_contain_text("complete")
    report = service.ask("GET", "/v1/studies/laptop/report")
    assert report["best"] in (0, 2), "one sequence at a time is slowest"
    launched = service.ask("GET", "/v1/studies/laptop/trials/2")["command"]
    assert "--max-num-seqs 32" in launched
    assert "--dtype bfloat16" in launched, "what the number formats are mapped to"
    for trial in report["trials"]:
        assert trial["state"] == "COMPLETE", trial
        assert trial["load_points"][-1]["telemetry"], "the engine said how it was"
    assert report["trials"][1]["why"], "one sequence at a time leaves a queue"
    picture(opened, "study")
    opened.get_by_role("button", name=re.compile("Copy the (launch|command|shell)")).first.click()
    copied = opened.evaluate("navigator.clipboard.readText()")
    assert copied.strip() == report["command"]
    it_serves(copied, tmp_path)
    for name, address in (
        ("studies", "/studies"),
        ("timeline", "/timeline?hours=1"),
        ("cluster", "/cluster"),
        ("presets", "/presets"),
    ):
        picture(page.go(address), name)


def states_seen(page: Page) -> Callable[[], set[str]]:
    """The states that the page itself has shown, noted as they change."""
    page.evaluate(
        """() => {
          window.seenStates = new Set();
          const note = () => document.querySelectorAll("main .state")
            .forEach((each) => window.seenStates.add(each.lastChild.textContent.trim()));
          const all = {subtree: true, childList: true, characterData: true};
          new MutationObserver(note).observe(document.body, all);
          note();
        }"""
    )
    return lambda: set(page.evaluate("[...window.seenStates]"))


def it_serves(command: str, directory: Path) -> None:
    """The copied line, in a shell, on a free port: it must become ready and answer."""
    port = service_port()
    line = command.strip().replace("--port 8000", f"--port {port}")
    assert line != command.strip()
    with (directory / "copied.log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", f"exec env {line}"], cwd=ROOT, stdout=log, stderr=log
        )
        try:

            def ready() -> bool:
                try:
                    return httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).is_success
                except httpx.TransportError:
                    return False

            assert wait_for(ready, 180, every=0.5), (directory / "copied.log").read_text()[-2000:]
        finally:
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(True)]
            process.terminate()
            psutil.wait_procs(family, timeout=20)
            for each in family:
                if each.is_running():
                    each.kill()
            process.wait()


def test_a_study_is_cancelled_edited_restarted_and_duplicated(
    page: Watched, service: Served
) -> None:
    long = STUDY.replace("name: laptop", "name: long").replace("max_seconds: 8", "max_seconds: 200")
    text = f"{long}space: {{max-num-seqs: [1, 32]}}\n"
    yaml = {"Content-Type": "application/yaml"}
    service.ask("POST", "/v1/studies?start=true", content=text, headers=yaml)

    opened = page.go("/studies/long")
    cancel = opened.get_by_role("button", name="Cancel", exact=True)
    expect(cancel).to_be_visible(timeout=60_000)
    # A study that is cancelled before its first trial has no results to be asked about.
    assert wait_for(lambda: service.trials("long") != [], 60)
    cancel.click()
    opened.get_by_role("button", name="Cancel the study").click()
    assert wait_for(lambda: service.state("long") == "CANCELLED", 60)
    expect(opened.locator("main .state").first).to_contain_text("cancelled", timeout=30_000)
    assert wait_for(lambda: ours("long") == [], GONE_SECONDS)

    opened = page.go("/edit/long")
    expect(control(opened, "name")).to_have_value("long")
    section(opened, "limits")
    control(opened, "limits.trials").fill("1")
    says(opened, "trials: 1")
    opened.get_by_role("button", name="Save", exact=True).click()
    opened.get_by_role("button", name="Save and delete the results").click()
    assert wait_for(lambda: service.ask("GET", "/v1/studies/long")["budget"] == 1, 20)
    assert service.state("long") == "PENDING"
    assert service.trials("long") == []

    opened = page.go("/studies/long")
    opened.get_by_role("button", name="Start", exact=True).click()
    assert wait_for(lambda: service.state("long") == "RUNNING", 60)
    service.ask("POST", "/v1/studies/long/cancel")
    assert wait_for(lambda: service.state("long") == "CANCELLED", 60)
    expect(opened.locator("main .state").first).to_contain_text("cancelled", timeout=30_000)
    before = service.ask("GET", "/v1/studies/long")["event"]
    opened.get_by_role("button", name="Restart", exact=True).click()
    opened.get_by_role("button", name="Delete the results and restart").click()
    assert wait_for(lambda: service.state("long") == "RUNNING", 90)
    assert service.ask("GET", "/v1/studies/long")["event"] > before
    service.ask("POST", "/v1/studies/long/cancel")
    assert wait_for(lambda: service.state("long") == "CANCELLED", 60)

    opened = page.go("/duplicate/long")
    expect(control(opened, "name")).to_have_value("long-copy")
    assert service.client.get("/v1/studies/long-copy").status_code == 404
    opened.get_by_role("button", name="Create", exact=True).click()
    opened.wait_for_url("**/#/studies/long-copy")
    page.excuse("404")
    assert service.ask("GET", "/v1/studies/long-copy")["spec"]["limits"]["trials"] == 1
    assert wait_for(lambda: ours("long") == [], GONE_SECONDS)
