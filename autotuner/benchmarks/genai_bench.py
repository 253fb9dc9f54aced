"""genai-bench: its command line for a load point, and its result files, read with care."""

from __future__ import annotations

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotuner.benchmarks.base import Benchmark
from autotuner.errors import FailureClass, TrialError
from autotuner.serving import Endpoint
from autotuner.study.metrics import Measurement, Request
from autotuner.study.spec import NoOptions, StudySpec, options_of
from autotuner.study.workload import Load

PROGRAM = Path(__file__).with_name("genai_bench_program.py")
# -P: the program's directory must not stand before the site packages, where the module
# genai_bench is; it holds a file of that name.
_PYTHON = (sys.executable, "-P", str(PROGRAM))

RESULTS = "results"
LOG, WINDOW = "genai-bench.log", "window.json"
TAIL_LINES = 20
NO_KEY = "EMPTY"
"""genai-bench wants an API key; the servers of trials have none, so none can leak."""


class _GenAIBench:
    def command(
        self, endpoint: Endpoint, load: Load, into: Path, *, api: str, tokenizer: str
    ) -> list[str]:
        # genai-bench counts whole minutes; the window closes long before this outer limit.
        minutes = math.ceil(load.max_seconds * 2 / 60) + 1
        return [
            *_PYTHON,
            "run",
            *("--seed", str(load.seed)),
            *("--warmup-requests", str(load.warmup_requests)),
            *("--max-requests", str(load.max_requests)),
            *("--max-seconds", str(load.max_seconds)),
            *("--into", str(into)),
            "--",
            "benchmark",
            *("--api-backend", api),
            *("--api-base", endpoint.url),
            *("--api-key", NO_KEY),
            *("--api-model-name", endpoint.model),
            *("--model-tokenizer", tokenizer),
            *("--model", endpoint.model),
            *("--task", "text-to-text"),
            *("--traffic-scenario", load.scenario),
            *("--num-concurrency", str(load.concurrency)),
            *("--max-time-per-run", str(minutes)),
            *("--max-requests-per-run", str(load.max_requests)),
            *("--additional-request-params", json.dumps(dict(load.request))),
            # Live statistics over all requests, made anew for each one, are for its own screen.
            *("--metrics-refresh-interval", "3600"),
            *("--experiment-base-dir", str(into)),
            *("--experiment-folder-name", RESULTS),
            *("--log-dir", str(into)),
        ]

    def check(self, spec: StudySpec) -> None:
        options_of(NoOptions, spec.benchmark.options, "benchmark")

    def runner(self, tokenizer: str) -> list[str]:
        return [*_PYTHON, "serve", tokenizer]

    def seconds_at_most(self, load: Load) -> float:
        return load.seconds_at_most

    def read(self, into: Path, *, max_error_rate: float) -> Measurement:
        window = _json(into / WINDOW)
        result = next(
            iter(
                [
                    *sorted((into / RESULTS).glob("*_time_*s.json")),
                    *sorted((into / RESULTS).glob("debug_for_run_*.json")),
                ]
            ),
            None,
        )
        seconds = _finite(window.get("seconds")) if isinstance(window, dict) else None
        if not seconds or seconds <= 0:
            raise TrialError(
                FailureClass.BENCHMARK,
                f"genai-bench ended without a result: {_last_error(into)}",
                _tail(into),
            )
        content = _json(result) if result else None
        rows = content["individual_request_metrics"] if content else []
        requests = tuple(_request(row) for row in rows)
        measurement = Measurement(
            seconds=seconds,
            requests=requests,
            prompt_overlap=_finite(window.get("prompt_overlap")),
        )
        _accept(measurement, max_error_rate, into)
        return measurement


def _accept(measurement: Measurement, max_error_rate: float, into: Path) -> None:
    total, completed = len(measurement.requests), len(measurement.completed)
    if not total:
        raise TrialError(
            FailureClass.BENCHMARK,
            f"no request finished within {measurement.seconds:.0f} s",
            _tail(into),
        )
    failed = total - completed
    if not completed or failed / total > max_error_rate:
        codes = Counter(r.error for r in measurement.requests if r.error is not None)
        kinds = ", ".join(f"{code}: {count}" for code, count in codes.most_common(5))
        raise TrialError(
            FailureClass.BENCHMARK,
            f"{failed} of {total} requests failed ({kinds}); at most "
            f"{max_error_rate:.0%} may (workload.max_error_rate)",
            _tail(into),
        )


def _request(row: Mapping[str, Any]) -> Request:
    error = row.get("error_code")
    return Request(
        ttft=_finite(row.get("ttft")),
        tpot=_finite(row.get("tpot")),
        e2e_latency=_finite(row.get("e2e_latency")),
        input_tokens=int(_finite(row.get("num_input_tokens")) or 0),
        output_tokens=int(_finite(row.get("num_output_tokens")) or 0),
        error=None if error is None else str(error),
    )


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _log(into: Path) -> list[str]:
    try:
        return (into / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _tail(into: Path) -> str:
    return "\n".join(_log(into)[-TAIL_LINES:])


def _last_error(into: Path) -> str:
    lines = [line.strip() for line in _log(into) if line.strip()]
    errors = [line for line in lines if re.search(r"\b(\w*Error|Error:|Aborted)\b", line)]
    return (errors or lines or ["it said nothing"])[-1][:300]


GENAI_BENCH: Benchmark = _GenAIBench()
