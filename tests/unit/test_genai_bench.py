"""genai-bench: its command line, and its result files read without trust."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from autotuner.benchmarks.genai_bench import GENAI_BENCH
from autotuner.errors import FailureClass, TrialError
from autotuner.serving import Endpoint
from autotuner.study.metrics import LATENCIES, STATISTICS, Measurement, metrics_of
from autotuner.study.workload import Load

RECORDED = Path(__file__).parents[1] / "data" / "genai-bench" / "load-0"
RESULT = "D100_20_text-to-text_num_concurrency_4_time_1s.json"
DEBUG = "debug_for_run_D100_20_4.json"

LOAD = Load(
    index=0,
    scenario="N(480,240)/(300,150)",
    concurrency=8,
    max_requests=50,
    max_seconds=45.0,
    warmup_requests=8,
    seed=7003,
    request={"temperature": 0.0, "ignore_eos": True, "stop": None},
)


def command(load: Load = LOAD) -> list[str]:
    endpoint = Endpoint("http://10.0.0.1:8001", "tiny")
    return GENAI_BENCH.command(endpoint, load, Path("/out"), api="vllm", tokenizer="/models/tiny")


def option(argv: Sequence[str], name: str) -> str:
    assert argv.count(name) == 1
    return argv[argv.index(name) + 1]


def test_the_command_is_a_whole_line_of_text_items() -> None:
    argv = command()
    assert all(isinstance(item, str) for item in argv)
    assert argv[0] == sys.executable
    assert Path(argv[2]).is_file()
    ours, theirs = argv[: argv.index("--")], argv[argv.index("--") + 1 :]
    assert theirs[0] == "benchmark"
    assert option(ours, "--seed") == "7003"
    assert option(ours, "--warmup-requests") == "8"
    assert option(ours, "--max-requests") == "50"
    assert float(option(ours, "--max-seconds")) == 45.0
    assert option(theirs, "--api-backend") == "vllm"
    assert option(theirs, "--api-base") == "http://10.0.0.1:8001"
    assert option(theirs, "--api-model-name") == "tiny"
    assert option(theirs, "--model-tokenizer") == "/models/tiny"
    assert option(theirs, "--traffic-scenario") == "N(480,240)/(300,150)"
    assert option(theirs, "--num-concurrency") == "8"
    assert option(theirs, "--task") == "text-to-text"
    assert json.loads(option(theirs, "--additional-request-params")) == LOAD.request
    assert option(theirs, "--experiment-base-dir") == "/out"


def test_the_command_holds_no_key_and_asks_for_no_warmup_ratio() -> None:
    argv = command()
    assert option(argv, "--api-key") == "EMPTY"
    # genai-bench's own ratios bias the throughput: they leave the run's time as it is.
    assert not any("ratio" in item for item in argv)


@pytest.mark.parametrize(("seconds", "minutes"), [(1.0, 2), (30.0, 2), (45.0, 3), (600.0, 21)])
def test_the_outer_limit_is_far_beyond_the_window(seconds: float, minutes: int) -> None:
    load = Load(0, "D(1,2)", 1, 10, seconds, 1, 0)
    assert option(command(load), "--max-time-per-run") == str(minutes)
    assert minutes * 60 > seconds * 2


def test_equal_loads_have_equal_commands_and_other_seeds_do_not() -> None:
    assert command() == command()
    other = Load(**{**vars(LOAD), "seed": 1})
    assert command(other) != command()


def test_the_runner_is_started_with_the_tokenizer() -> None:
    argv = GENAI_BENCH.runner("/models/tiny")
    assert argv[-2:] == ["serve", "/models/tiny"]
    assert argv[: len(argv) - 2] == command()[: len(argv) - 2]


# Reading. Recorded files; each case changes one thing in a copy.


def read(into: Path, max_error_rate: float = 0.05) -> Measurement:
    return GENAI_BENCH.read(into, max_error_rate=max_error_rate)


def refusal(into: Path, max_error_rate: float = 0.05) -> TrialError:
    with pytest.raises(TrialError) as caught:
        read(into, max_error_rate)
    assert caught.value.failure is FailureClass.BENCHMARK
    assert caught.value.reason
    return caught.value


@pytest.fixture
def into(tmp_path: Path) -> Path:
    shutil.copytree(RECORDED, tmp_path / "load-0")
    return tmp_path / "load-0"


Row = dict[str, Any]


def change(into: Path, edit: Callable[[int, Row], Row | None]) -> None:
    """Replace each recorded request; None removes it."""
    path = into / "results" / RESULT
    content = json.loads(path.read_text(encoding="utf-8"))
    edited = [edit(*each) for each in enumerate(content["individual_request_metrics"])]
    content["individual_request_metrics"] = [row for row in edited if row is not None]
    path.write_text(json.dumps(content), encoding="utf-8")


def failed(row: Row, code: int = 500) -> Row:
    """A request as genai-bench writes one that failed."""
    return {**dict.fromkeys(row), "error_code": code, "error_message": "said"}


def test_the_recorded_load_point_is_read_whole() -> None:
    found = read(RECORDED)
    assert found.seconds == 1.2580978949999917
    assert len(found.requests) == len(found.completed) == 41
    first = found.requests[0]
    assert first.ttft == 0.01447955899993758
    assert first.e2e_latency == 0.04912500699992961
    assert first.tpot == 0.0018234446315785278
    assert (first.input_tokens, first.output_tokens, first.error) == (107, 20, None)
    assert sum(request.tpot is None for request in found.requests) == 33, "null stays null"


def test_our_metrics_are_the_files_own_aggregates() -> None:
    aggregate = json.loads((RECORDED / "results" / RESULT).read_text(encoding="utf-8"))[
        "aggregated_metrics"
    ]
    values = metrics_of(read(RECORDED))
    for latency in LATENCIES:
        for statistic in STATISTICS:
            expected = aggregate["stats"][latency][statistic]
            assert values[f"{latency}_{statistic}"] == pytest.approx(expected, rel=1e-9)
    for ours, theirs in {
        "output_throughput": "mean_output_throughput_tokens_per_s",
        "input_throughput": "mean_input_throughput_tokens_per_s",
        "total_throughput": "mean_total_tokens_throughput_tokens_per_s",
        "request_throughput": "requests_per_second",
        "requests": "num_completed_requests",
    }.items():
        assert values[ours] == pytest.approx(aggregate[theirs], rel=1e-9)
    assert values["error_rate"] == 0.0


@pytest.mark.parametrize("log", [None, "INFO starting\nOSError: no such tokenizer: /nowhere\n"])
def test_without_a_window_nothing_was_measured(into: Path, log: str | None) -> None:
    (into / "window.json").unlink()
    if log:
        (into / "genai-bench.log").write_text(log, encoding="utf-8")
    error = refusal(into)
    assert "without a result" in error.reason
    if log:
        assert "OSError: no such tokenizer: /nowhere" in error.reason
        assert error.log_tail == log.strip()


def test_an_empty_directory_is_no_measurement(tmp_path: Path) -> None:
    refusal(tmp_path)
    refusal(tmp_path / "nowhere")


@pytest.mark.parametrize("window", ["", "{", "null", "{}", '{"seconds": null}'])
def test_a_broken_window_is_no_measurement(into: Path, window: str) -> None:
    (into / "window.json").write_text(window, encoding="utf-8")
    refusal(into)


@pytest.mark.parametrize("seconds", ["0", "NaN", "Infinity"])
def test_a_window_without_length_is_no_measurement(into: Path, seconds: str) -> None:
    (into / "window.json").write_text(f'{{"seconds": {seconds}}}', encoding="utf-8")
    refusal(into)


@pytest.mark.parametrize("content", ["", "{", "null", "{}"])
def test_a_broken_result_is_no_measurement(into: Path, content: str) -> None:
    # genai-bench writes it without care: a kill in between leaves half a file.
    (into / "results" / RESULT).write_text(content, encoding="utf-8")
    refusal(into)


def test_a_load_that_finished_no_request_is_no_measurement(into: Path) -> None:
    change(into, lambda *_: None)
    assert "no request finished within 1 s" in refusal(into).reason


def test_a_missing_result_file_is_no_measurement(into: Path) -> None:
    (into / "results" / RESULT).unlink()
    assert "no request finished" in refusal(into).reason


def test_when_all_requests_failed_their_codes_are_said(into: Path) -> None:
    change(into, lambda number, row: failed(row, 404 if number else 500))
    for allowed in (0.05, 1.0):
        reason = refusal(into, allowed).reason
        assert "41 of 41 requests failed" in reason
        assert "404: 40, 500: 1" in reason


def test_more_failures_than_allowed_are_no_measurement(into: Path) -> None:
    change(into, lambda number, row: failed(row) if number < 5 else row)
    error = refusal(into, 0.12)
    assert "5 of 41 requests failed (500: 5); at most 12%" in error.reason
    assert "workload.max_error_rate" in error.reason


def test_failures_within_the_allowance_are_counted_and_kept_out_of_latencies(into: Path) -> None:
    change(into, lambda number, row: failed(row) if number < 4 else row)
    found = read(into, 4 / 41)
    values = metrics_of(found)
    assert len(found.completed) == 37
    assert [request.error for request in found.requests[:5]] == ["500"] * 4 + [None]
    assert values["error_rate"] == 4 / 41
    assert values["output_throughput"] == pytest.approx(37 * 20 / 1.2580978949999917)


def test_a_debug_file_alone_is_read_as_the_result(into: Path) -> None:
    (into / "results" / RESULT).rename(into / "results" / DEBUG)
    assert len(read(into).completed) == 41


def test_a_debug_file_of_failures_says_their_codes(into: Path) -> None:
    change(into, lambda _, row: failed(row, 404))
    (into / "results" / RESULT).rename(into / "results" / DEBUG)
    assert "41 of 41 requests failed (404: 41)" in refusal(into).reason


def test_a_result_goes_before_a_debug_file(into: Path) -> None:
    (into / "results" / DEBUG).write_text('{"individual_request_metrics": []}', encoding="utf-8")
    assert len(read(into).completed) == 41


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "fast"])
def test_a_value_that_is_no_number_is_none_and_never_zero(into: Path, value: Any) -> None:
    change(into, lambda _, row: {**row, "ttft": value, "tpot": value})
    values = metrics_of(read(into))
    assert values["ttft_p50"] is None
    assert values["tpot_mean"] is None
    assert values["e2e_latency_p50"] is not None


def test_some_values_that_are_no_numbers_leave_the_others(into: Path) -> None:
    change(into, lambda number, row: row if number else {**row, "ttft": float("nan")})
    found = read(into)
    assert found.requests[0].ttft is None
    assert found.requests[1].ttft is not None
