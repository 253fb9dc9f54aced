"""The simulated engine: its model of time and room, its server, its Engine object."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from autotuner.addresses import free_port
from autotuner.engines import simulated_server
from autotuner.engines.catalog import catalog_of_parser, load_catalog, write_catalog
from autotuner.engines.extract import row
from autotuner.engines.simulated import SIMULATED
from autotuner.engines.simulated_model import (
    ModelFlags,
    OutOfKVRoomError,
    Request,
    Scheduler,
    kv_blocks,
    prefix_blocks,
    prompt_tokens,
    step_seconds,
)
from autotuner.errors import ConfigError, FailureClass
from autotuner.job import checked
from autotuner.study.spec import StudySpec

REPOSITORY = Path(simulated_server.__file__).parents[2]
CATALOG = Path(simulated_server.__file__).with_name("catalog") / "simulated-1.0.json"


# The model: virtual time only.


def played(flags: ModelFlags, requests: list[Request]) -> tuple[float, dict[Request, float]]:
    """All requests at time 0 until all are done: seconds, and each one's time to first token."""
    scheduler, clock = Scheduler(flags), 0.0
    first: dict[Request, float] = {}
    for request in requests:
        assert scheduler.fits(request)
        scheduler.add(request)
    while not scheduler.idle:
        step = scheduler.step()
        assert 0 <= scheduler.used_blocks <= scheduler.blocks
        clock += step.seconds
        for request in step.emitted:
            first.setdefault(request, clock)
    assert scheduler.used_blocks == 0
    return clock, first


def load(count: int, prompt: int = 100, output: int = 50) -> list[Request]:
    return [Request(prompt, output) for _ in range(count)]


def test_decoding_is_bound_by_reading_and_prefill_by_computing() -> None:
    flags = ModelFlags()
    one = step_seconds(flags, tokens=1, context=100, blocks=7)
    many = step_seconds(flags, tokens=64, context=100, blocks=7)
    prefill = step_seconds(flags, tokens=2048, context=2048, blocks=128)
    assert many == one
    assert prefill > 10 * one


def test_two_accelerators_are_faster_but_less_than_twice() -> None:
    step = {"tokens": 2048, "context": 2048, "blocks": 128}
    one = step_seconds(ModelFlags(), **step)
    two = step_seconds(ModelFlags(tensor_parallel_size=2), **step)
    assert 1.2 < one / two < 1.95


def test_speed_divides_every_time() -> None:
    slow, _ = played(ModelFlags(), load(20))
    fast, _ = played(ModelFlags(speed=10), load(20))
    assert fast == pytest.approx(slow / 10)


def test_more_sequences_serve_a_concurrent_load_faster() -> None:
    seconds = {n: played(ModelFlags(max_num_seqs=n), load(64))[0] for n in (4, 16, 64)}
    assert seconds[4] > 2 * seconds[16] > 3 * seconds[64]


def test_a_request_without_a_place_waits_for_its_first_token() -> None:
    requests = load(2)
    _, first = played(ModelFlags(max_num_seqs=1), requests)
    assert first[requests[1]] > 10 * first[requests[0]]


def test_a_small_token_budget_delays_the_first_token_and_a_large_one_takes_room() -> None:
    long_prompt = load(1, prompt=4000)
    small, large = ModelFlags(max_num_batched_tokens=256), ModelFlags(max_num_batched_tokens=8192)
    _, first_small = played(small, long_prompt)
    _, first_large = played(large, again := load(1, prompt=4000))
    assert first_small[long_prompt[0]] > first_large[again[0]]
    assert kv_blocks(small) > kv_blocks(large)


def test_kv_room_grows_with_fraction_and_accelerators_and_may_be_none() -> None:
    usual = kv_blocks(ModelFlags())
    assert 1000 < usual < kv_blocks(ModelFlags(gpu_memory_fraction=0.9))
    assert kv_blocks(ModelFlags(tensor_parallel_size=2)) > 2 * usual
    assert kv_blocks(ModelFlags(gpu_memory_fraction=0.5)) == 0
    assert kv_blocks(ModelFlags(max_num_batched_tokens=65536)) == 0


def test_a_full_cache_preempts_and_everything_still_finishes() -> None:
    flags = ModelFlags(max_num_seqs=64, gpu_memory_fraction=0.7)
    requests = load(40, prompt=500, output=400)
    scheduler = Scheduler(flags)
    for request in requests:
        scheduler.add(request)
    while not scheduler.idle:
        scheduler.step()
        assert scheduler.used_blocks <= scheduler.blocks
    assert scheduler.preemptions > 0
    assert all(request.generated == 400 for request in requests)


def test_a_full_cache_ends_it_where_the_flags_say_so() -> None:
    flags = ModelFlags(max_num_seqs=64, gpu_memory_fraction=0.7, die_on_kv_full=True)
    with pytest.raises(OutOfKVRoomError):
        played(flags, load(40, prompt=500, output=400))


def test_a_known_prefix_is_not_computed_again() -> None:
    text = "the quick brown fox " * 400
    flags = ModelFlags(enable_prefix_caching=True)

    def prompt() -> Request:
        return Request(prompt_tokens(text), 5, prefix_blocks(text, flags.block_size))

    scheduler = Scheduler(flags)
    scheduler.add(prompt())
    cold = scheduler.step().seconds
    scheduler.add(prompt())
    assert scheduler.step().seconds < cold / 3
    _, first = played(ModelFlags(), [prompt()])
    assert list(first.values()) == [pytest.approx(cold)]


def test_prefixes_are_shared_only_up_to_the_first_difference() -> None:
    one, other = prefix_blocks("a" * 640, 16), prefix_blocks("a" * 320 + "b" + "a" * 319, 16)
    assert len(one) == len(other) == 10
    assert [x == y for x, y in zip(one, other, strict=True)] == [True] * 5 + [False] * 5


def test_priority_goes_first_only_where_the_policy_says_so() -> None:
    def order(policy: str) -> list[int]:
        requests = [Request(10, 2, priority=each) for each in (5, 1, 1)]
        _, first = played(ModelFlags(max_num_seqs=1, scheduling_policy=policy), requests)
        return [requests.index(each) for each in first]

    assert order("fcfs") == [0, 1, 2]
    assert order("priority") == [1, 2, 0]


def test_a_cancelled_request_leaves_nothing_behind() -> None:
    scheduler = Scheduler(ModelFlags(max_num_seqs=1))
    running, waiting = load(2)
    scheduler.add(running)
    scheduler.add(waiting)
    scheduler.step()
    assert scheduler.usage > 0
    scheduler.cancel(waiting)
    scheduler.cancel(running)
    assert scheduler.idle
    assert scheduler.usage == 0


def test_prompt_tokens_are_rounded_up() -> None:
    assert [prompt_tokens("x" * n) for n in (0, 1, 4, 5)] == [1, 1, 1, 2]


# The server: real processes, fast-forwarded.


@dataclass
class Running:
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def fetch(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def chat(self, **more: Any) -> tuple[int, str]:
        body = {
            "model": "sim",
            "messages": [{"role": "user", "content": "x" * 41}],
            "max_tokens": 5,
            "ignore_eos": True,
            **more,
        }
        return self.fetch("POST", "/v1/chat/completions", body)

    def health(self) -> int | None:
        try:
            return self.fetch("GET", "/health")[0]
        except OSError:
            return None

    def seen(self) -> list[int]:
        """Different answers of /health, until it is 200 or the process has ended."""
        answers: list[int] = []
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and 200 not in answers and self.process.poll() is None:
            answer = self.health()
            if answer is not None and answer not in answers:
                answers.append(answer)
            time.sleep(0.02)
        return answers


@contextlib.contextmanager
def started(directory: Path, *flags: str, port: int | None = None) -> Iterator[Running]:
    port = port or free_port()
    own = ("--model", "/models/sim", "--served-model-name", "sim", "--port", str(port))
    log = directory / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "autotuner.engines.simulated_server", *own, *flags],
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=REPOSITORY,
        )
    try:
        yield Running(process, port, log)
    finally:
        process.kill()
        process.wait()


FAST = ("--speed", "100", "--start-seconds", "0")


def test_the_server_from_loading_to_answering(tmp_path: Path) -> None:
    with started(tmp_path, "--speed", "100", "--start-seconds", "0.5") as server:
        assert server.seen() == [503, 200]
        assert "Application startup complete." in server.log.read_text()
        models = json.loads(server.fetch("GET", "/v1/models")[1])
        assert [model["id"] for model in models["data"]] == ["sim"]

        status, text = server.chat(stream=True, stream_options={"include_usage": True})
        assert status == 200
        events = [line.removeprefix("data: ") for line in text.splitlines() if line]
        assert events.pop() == "[DONE]"
        role, *tokens, end, usage = [json.loads(event) for event in events]
        assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert [each["choices"][0]["delta"] for each in tokens] == [{"content": " token"}] * 5
        assert end["choices"][0]["finish_reason"] == "length"
        assert usage["choices"] == []
        counts = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}
        assert usage["usage"] == counts

        status, text = server.chat()
        answer = json.loads(text)
        assert answer["choices"][0]["message"]["content"] == " token" * 5
        assert answer["usage"] == counts

        answer = json.loads(server.chat(ignore_eos=False, max_tokens=100)[1])
        assert 50 <= answer["usage"]["completion_tokens"] < 100
        assert answer["choices"][0]["finish_reason"] == "stop"

        assert "sim:num_requests_running 0\n" in server.fetch("GET", "/metrics")[1]
        assert server.chat(model="other")[0] == 404
        assert server.chat(max_tokens=10**6)[0] == 400
        assert server.chat(messages="no list")[0] == 400
        assert server.fetch("POST", "/v1/chat/completions", [1])[0] == 400
        assert server.fetch("GET", "/nothing")[0] == 404
        assert server.health() == 200


def test_tokens_arrive_one_after_the_other_and_a_gone_client_is_dropped(tmp_path: Path) -> None:
    with started(tmp_path, "--start-seconds", "0") as server:
        server.seen()
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        body = {
            "model": "sim",
            "messages": [{"role": "user", "content": "hello"}],
            "max_tokens": 2000,
            "ignore_eos": True,
            "stream": True,
        }
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        response = connection.getresponse()
        times: list[float] = []
        while len(times) < 10:
            if b" token" in response.readline():
                times.append(time.monotonic())
        # Ten steps of about 9 ms; a lower bound only, since the machine may be busy.
        assert times[-1] - times[0] > 0.04
        assert "sim:num_requests_running 1\n" in server.fetch("GET", "/metrics")[1]
        response.close()
        connection.close()
        deadline = time.monotonic() + 3
        while "running 0\n" not in server.fetch("GET", "/metrics")[1]:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_many_streams_at_once(tmp_path: Path) -> None:
    with started(tmp_path, *FAST, "--max-num-seqs", "32") as server:
        server.seen()
        lengths: list[int] = []

        def ask() -> None:
            text = server.chat(stream=True, max_tokens=20)[1]
            lengths.append(text.count('" token"'))

        threads = [threading.Thread(target=ask) for _ in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert lengths == [20] * 64


@pytest.mark.parametrize(
    ("flags", "code", "failure"),
    [
        (("--no-such-flag",), 2, FailureClass.ARGUMENT),
        (("--max-num-seqs", "many"), 2, FailureClass.ARGUMENT),
        (("--max-num-seqs", "4096"), 2, FailureClass.ARGUMENT),
        (("--fail-at-start", "argument"), 2, FailureClass.ARGUMENT),
        (("--fail-at-start", "memory"), 1, FailureClass.MEMORY_AT_LOAD),
        (("--gpu-memory-fraction", "0.97"), 1, FailureClass.MEMORY_AT_LOAD),
        (("--fail-at-start", "kv-cache"), 1, FailureClass.KV_CACHE),
        (("--gpu-memory-fraction", "0.5"), 1, FailureClass.KV_CACHE),
        (("--fail-at-start", "port"), 1, FailureClass.PORT),
        (("--fail-at-start", "crash"), 139, FailureClass.CRASH),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_ways_to_fail_at_start(
    tmp_path: Path, flags: tuple[str, ...], code: int, failure: FailureClass
) -> None:
    with started(tmp_path, *FAST, *flags) as server:
        assert server.process.wait(timeout=15) == code
        found = SIMULATED.diagnose(server.log.read_text())
        assert found.failure is failure
        assert found.reason
        assert found.machine_fault == (failure is FailureClass.PORT)


def test_a_port_that_is_truly_taken(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        with started(tmp_path, *FAST, port=holder.getsockname()[1]) as server:
            assert server.process.wait(timeout=15) == 1
            assert SIMULATED.diagnose(server.log.read_text()).failure is FailureClass.PORT


def test_out_of_memory_under_load(tmp_path: Path) -> None:
    # 0.65 leaves room for some 2000 tokens.
    with started(tmp_path, *FAST, "--gpu-memory-fraction", "0.65", "--die-on-kv-full") as server:
        assert server.seen()[-1] == 200
        threads = [
            threading.Thread(target=ask_until_torn, args=(server, {"max_tokens": 800}))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.process.wait(timeout=15) == 1
        found = SIMULATED.diagnose(server.log.read_text())
        assert found.failure is FailureClass.MEMORY_UNDER_LOAD


def ask_until_torn(server: Running, more: dict[str, Any]) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):
        server.chat(stream=True, **more)


def test_errors_deaths_and_hangs_on_request(tmp_path: Path) -> None:
    flags = ("--error-rate", "0.25", "--die-at-request", "9")
    with started(tmp_path, *FAST, *flags) as server:
        server.seen()
        statuses = [server.chat()[0] for _ in range(8)]
        assert statuses == [200, 200, 200, 500] * 2
        with pytest.raises((OSError, http.client.HTTPException)):
            server.chat()
        assert server.process.wait(timeout=15) == 70
        found = SIMULATED.diagnose(server.log.read_text())
        assert found.failure is FailureClass.CRASH
        assert "died at request 9" in found.reason


def test_a_hanging_request_does_not_hold_up_the_server(tmp_path: Path) -> None:
    with started(tmp_path, *FAST, "--hang-at-request", "2") as server:
        server.seen()
        assert server.chat()[0] == 200
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=0.3)
        connection.request("POST", "/v1/chat/completions", "{}")
        with pytest.raises(TimeoutError):
            connection.getresponse()
        connection.close()
        assert server.health() == 200


def test_children_outlive_the_server_in_sessions_of_their_own(tmp_path: Path) -> None:
    with started(tmp_path, *FAST, "--spawn-children", "2") as server:
        server.seen()
        pid = server.process.pid
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        children = [int(each) for each in listed]
        try:
            assert len(children) == 2
            assert {os.getsid(child) for child in children} == set(children)
        finally:
            for child in children:
                os.kill(child, signal.SIGKILL)


def test_noise_is_the_seeds() -> None:
    def factors(*flags: str) -> list[float]:
        parser = simulated_server.make_parser()
        server = simulated_server.Server(parser.parse_args(["--model", "x", *flags]))
        return [server.start_factor, *(server.jitter() for _ in range(5))]

    assert factors() == [1.0] * 6
    noisy = factors("--noise", "0.1", "--seed", "3")
    assert noisy == factors("--noise", "0.1", "--seed", "3")
    assert noisy != factors("--noise", "0.1", "--seed", "4")
    assert all(0.5 < each < 2 for each in noisy)


# The Engine object.


def study(arguments: dict[str, Any] | None = None, **more: Any) -> StudySpec:
    return StudySpec.model_validate(
        {
            "name": "simulated",
            "model": {"path": "/models/sim"},
            "engine": {"kind": "simulated", "arguments": arguments or {}},
            "workload": {"scenarios": ["D(100,20)"], "concurrency": [4]},
            **more,
        }
    )


def test_the_catalog_is_what_the_parser_says(tmp_path: Path) -> None:
    actions = simulated_server.make_parser()._actions
    rows = [row(action) for action in actions if action.dest != "help"]
    catalog = catalog_of_parser("simulated", simulated_server.VERSION, rows)
    write_catalog(catalog, tmp_path / "catalog.json")
    assert CATALOG.read_text() == (tmp_path / "catalog.json").read_text()
    assert load_catalog("simulated") == catalog


def test_launch_writes_flags_the_parser_takes() -> None:
    spec = study(
        {"enable-prefix-caching": False, "speed": 50},
        space={"max-num-seqs": [8, 64], "env:SIM_NOTE": ["a"]},
    )
    SIMULATED.check(spec)
    launch = SIMULATED.launch(spec, {"max-num-seqs": 64, "env:SIM_NOTE": "a"}, port=8123)
    assert launch.command == (sys.executable, "-m", "autotuner.engines.simulated_server")
    assert launch.arguments == (
        *("--model", "/models/sim", "--served-model-name", "sim"),
        *("--host", "127.0.0.1", "--port", "8123"),
        *("--no-enable-prefix-caching", "--speed", "50", "--max-num-seqs", "64"),
    )
    assert launch.environment == {"SIM_NOTE": "a"}
    assert (launch.gpus, launch.cpus) == (1, 1)
    options = simulated_server.make_parser().parse_args(list(launch.arguments))
    assert (options.max_num_seqs, options.speed) == (64, 50)
    assert options.enable_prefix_caching is False


def test_check_names_what_is_wrong() -> None:
    with pytest.raises(ConfigError) as caught:
        SIMULATED.check(study({"port": 1, "max-num-sequences": 4}))
    assert "--port is set by autotuner" in str(caught.value)
    assert "--max-num-seqs" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        ({"max-num-batched-tokens": 8}, True),  # below the default of max-num-seqs
        ({"max-num-seqs": 4096}, True),
        ({"max-num-batched-tokens": 64, "max-num-seqs": 64}, False),
        ({"max-num-batched-tokens": 64, "max-num-seqs": None}, False),
        ({}, False),
    ],
    ids=str,
)
def test_refuse_is_what_the_program_refuses(arguments: dict[str, Any], refused: bool) -> None:
    reason = SIMULATED.refuse(study(arguments), {})
    assert (reason is not None) == refused
    launch = SIMULATED.launch(study(arguments), {}, port=0)
    options = simulated_server.make_parser().parse_args(list(launch.arguments))
    assert (options.max_num_batched_tokens < options.max_num_seqs) == refused


def test_an_empty_log_is_a_crash() -> None:
    assert SIMULATED.diagnose("").failure is FailureClass.CRASH


def test_gpus_that_do_not_divide_among_the_nodes_are_refused_also_for_the_baseline() -> None:
    spanning = study(
        engine={"kind": "simulated", "nodes": 2}, space={"tensor-parallel-size": [2, 3]}
    )
    assert SIMULATED.refuse(spanning, {"tensor-parallel-size": 2}) is None
    reason = SIMULATED.refuse(spanning, {"tensor-parallel-size": 3})
    assert reason == "3 GPUs do not divide among 2 nodes"
    with pytest.raises(ConfigError, match="the baseline cannot start: 1 GPUs do not divide"):
        checked(spanning)
