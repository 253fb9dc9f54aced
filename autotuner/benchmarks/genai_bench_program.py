"""genai-bench with a measured window in seconds. A program in a process of its own, because
importing genai-bench patches sockets, threads and time of the whole process (gevent).

    genai_bench_program.py run --seed N --warmup-requests N --max-requests N --max-seconds S
                               --into DIRECTORY -- benchmark [genai-bench's own options]
    genai_bench_program.py serve TOKENIZER     (commands on standard input, see Benchmark.runner)

Requests, prompts, timing per request and result files are genai-bench's own. What this changes,
and why:

* The window. genai-bench starts its clock with the first request, polls its request limit once a
  second and knows whole minutes only. Here the same users keep sending while the first
  `warmup-requests` are thrown away; then the window opens and closes on the request count or on
  the second, both ends on a completion: users that run in step would otherwise lose up to a whole
  round of unfinished requests at the end. What is in flight at the end and not counted is made up
  for by what was in flight at the beginning. A server that stalls is not spared: where nothing
  completed for longer than the slowest request took, the window ends when the time is up.
* The prompts are seeded, so that every trial of a study is measured on the same ones. How much
  they begin alike is written down: a prefix cache would make such a load look lighter than it is.
* Secrets. genai-bench takes keys of clouds from the environment, and writes all of its options into
  its log and its metadata. Here no option is read from the environment, and what else looks like a
  secret there is masked in those files.
* After the result file is written (atomically) the process ends: no plots, no workbook, and no
  sleeps. The window is in ``window.json`` beside it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, TextIO

import genai_bench  # noqa: F401  (patches this process, before anything else is imported)
import gevent
import gevent.monkey
import numpy
from genai_bench.cli import cli as program
from genai_bench.metrics.aggregated_metrics_collector import AggregatedMetricsCollector
from genai_bench.sampling.text import TextSampler

from autotuner.masking import secrets_in, without

POLL_SECONDS = 0.02
"""How precisely the window closes on a request count."""

COMPARED_PROMPTS = 1000
"""Prompts that are compared, at most: the first of a load point."""

WINDOW = "window.json"
LOG = "genai-bench.log"
EXIT_NOTHING_MEASURED = 3


def scrub(directory: Path, secrets: list[str]) -> None:
    """Mask secrets in the logs and metadata below a directory."""
    for path in [*directory.rglob("*.log"), *directory.rglob("*metadata*.json")]:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        clean = without(text, secrets)
        if clean != text:
            path.write_text(clean, encoding="utf-8", errors="surrogateescape")


class Prompts:
    """Remembers what was asked, to say how much of it a prefix cache could have known."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def install(self) -> None:
        sample = TextSampler.sample

        def remember(sampler: Any, scenario: Any) -> Any:
            request = sample(sampler, scenario)
            if len(self._texts) < COMPARED_PROMPTS:
                self._texts.append(str(getattr(request, "prompt", "")))
            return request

        TextSampler.sample = remember

    def overlap(self) -> float | None:
        return overlap(self._texts)


def overlap(texts: list[str]) -> float | None:
    """Share of the prompts' text that is the beginning of another prompt; None of fewer than two.

    In alphabetical order the one that begins most alike is a neighbour; of two the later is
    counted, since the first has nothing to be like.
    """
    if len(texts) < 2:
        return None
    ordered = sorted(texts)
    shared = sum(
        next(
            (i for i, (a, b) in enumerate(zip(*pair, strict=False)) if a != b), min(map(len, pair))
        )
        for pair in itertools.pairwise(ordered)
    )
    return shared / max(1, sum(map(len, ordered)) - len(ordered[0]))


class Window:
    """The measured window: replaces genai-bench's clock, counter and way of ending."""

    def __init__(self, options: argparse.Namespace, prompts: Prompts) -> None:
        self._options = options
        self._prompts = prompts
        self._start = self._end = 0.0
        self._warmup_seconds = 0.0
        self._collector: Any = None
        self._measured: list[Any] = []

    def install(self) -> None:
        """Put the window in the place of genai-bench's own functions."""
        set_metadata = AggregatedMetricsCollector.set_run_metadata
        aggregate = AggregatedMetricsCollector.aggregate_metrics_data
        save = AggregatedMetricsCollector.save

        def remember(collector: Any, *args: Any, **kwargs: Any) -> None:
            self._collector = collector
            set_metadata(collector, *args, **kwargs)

        def aggregate_window(collector: Any, *_: Any) -> None:
            collector.all_request_metrics = self._measured
            failed = [each.error_code for each in self._measured if each.error_code]
            collector.aggregated_metrics.error_codes_frequency = dict(Counter(failed))
            collector.aggregated_metrics.num_completed_requests = len(self._measured) - len(failed)
            aggregate(collector, self._start, self._end, None, None)

        def save_and_end(collector: Any, path: str, unit: str = "s") -> None:
            partial = Path(path + ".partial")
            save(collector, str(partial), unit)
            self._write(len(collector.all_request_metrics))
            if not partial.exists():
                raise SystemExit(EXIT_NOTHING_MEASURED)
            partial.replace(path)
            # An aggregation that failed saves too, under another name; the single requests in
            # it are as good as any.
            raise SystemExit(0)

        AggregatedMetricsCollector.set_run_metadata = remember
        AggregatedMetricsCollector.aggregate_metrics_data = aggregate_window
        AggregatedMetricsCollector.save = save_and_end
        program.manage_run_time = self._wait

    def _wait(self, max_time_per_run: int, max_requests_per_run: int, environment: Any) -> int:
        """Warm up, then let the window pass; returns its whole seconds, for the file name."""
        collector, options = self._collector, self._options
        began = time.monotonic()
        while (
            len(collector.all_request_metrics) < options.warmup_requests
            and time.monotonic() - began < options.max_seconds
        ):
            gevent.sleep(POLL_SECONDS)
        collector.all_request_metrics = []
        collector.aggregated_metrics.num_completed_requests = 0
        collector.aggregated_metrics.error_codes_frequency = {}
        self._start = now = last = time.monotonic()
        self._warmup_seconds = self._start - began
        ended = 0
        while ended < options.max_requests and now - self._start < options.max_seconds:
            gevent.sleep(POLL_SECONDS)
            now = time.monotonic()
            if len(collector.all_request_metrics) > ended:
                ended, last = len(collector.all_request_metrics), now
        # What completes while the users are stopped belongs to no window.
        self._measured = list(collector.all_request_metrics[:ended])
        slowest = max((each.e2e_latency or 0.0 for each in self._measured), default=0.0)
        self._end = last if self._measured and now - last <= slowest else now
        return int(self._end - self._start)

    def _write(self, ended: int) -> None:
        path = Path(self._options.into) / WINDOW
        content = {
            "seconds": self._end - self._start,
            "warmup_seconds": self._warmup_seconds,
            "requests": ended,
            "seed": self._options.seed,
            "prompt_overlap": self._prompts.overlap(),
        }
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(content))
        partial.replace(path)


def run(argv: list[str]) -> None:
    """Do one load point in this process; ends it by SystemExit."""
    own, _, theirs = _split(argv)
    parser = argparse.ArgumentParser("genai_bench_program run")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--warmup-requests", type=int, required=True)
    parser.add_argument("--max-requests", type=int, required=True)
    parser.add_argument("--max-seconds", type=float, required=True)
    parser.add_argument("--into", required=True)
    options = parser.parse_args(own)
    random.seed(options.seed)
    numpy.random.seed(options.seed % 2**32)
    os.environ["ENABLE_UI"] = "false"
    for option in program.benchmark.params:
        option.envvar = None
    prompts = Prompts()
    prompts.install()
    Window(options, prompts).install()
    sys.argv = ["genai-bench", *theirs]
    try:
        program.cli.main(args=theirs, prog_name="genai-bench")
    finally:
        scrub(Path(options.into), secrets_in(os.environ))


def _split(argv: list[str]) -> tuple[list[str], str, list[str]]:
    place = argv.index("--")
    return argv[:place], "--", argv[place + 1 :]


def serve(tokenizer: str) -> None:
    """Run commands from standard input, each in a fork that inherits the imports."""
    # What libraries print must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    load_tokenizer = program.validate_tokenizer
    secrets = secrets_in(os.environ)
    try:
        loaded = {tokenizer: load_tokenizer(tokenizer)}
    except Exception as error:  # any of many libraries; each command says it again, in its log
        print(without(f"tokenizer {tokenizer}: {error}", secrets), file=sys.stderr, flush=True)
        loaded = {}
    program.validate_tokenizer = lambda name: (
        loaded[name] if name in loaded else load_tokenizer(name)
    )
    _answer(answers, {"ready": True})
    # gevent's own fork and waitpid need its event loop, which the parent never starts.
    fork = gevent.monkey.get_original("os", "fork")
    waitpid = gevent.monkey.get_original("os", "waitpid")
    while line := sys.stdin.readline():
        command = json.loads(line)
        pid = fork()
        if pid == 0:
            gevent.reinit()
            _run_in_fork(command)
        _, status = waitpid(pid, 0)
        scrub(Path(command["into"]), secrets)  # here, because a fork may die in any way
        _answer(answers, {"exit": os.waitstatus_to_exitcode(status)})


def _run_in_fork(command: dict[str, Any]) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # a question is not for the pipe of commands
    log = os.open(Path(command["into"]) / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    code = 1
    try:
        # The whole command line is sent; from "run" on it is this program's.
        run(command["argv"][command["argv"].index("run") + 1 :])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # the fork must not return into the loop of its parent
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _answer(answers: TextIO, content: dict[str, Any]) -> None:
    print(json.dumps(content), file=answers, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        run(sys.argv[2:])
