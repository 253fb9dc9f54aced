"""The simulated engine's server: an OpenAI-compatible program that only waits and counts.

    python -m autotuner.engines.simulated_server --model X --served-model-name Y --port P [flags]

It needs no GPU and no weights. Its times follow the formulas of `simulated_model`, so its flags
have optima worth searching for; further flags make it fail in the ways real engines fail.

- A prompt counts one token for four characters, rounded up; each output token is one chunk.
- Without `ignore_eos` an answer ends on its own after half to all of `max_tokens`, at a length
  that follows from the prompt; with it, after exactly `max_tokens` (128 where none is given).
- A request that asks for more context than there is KV room is answered 400; one whose client
  has gone is dropped, as real engines do.
- `--speed` divides every modelled time; `--start-seconds` is real.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import math
import os
import random
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from http import HTTPStatus
from typing import Any, NoReturn, TypeVar

from autotuner.engines.simulated_model import (
    ModelFlags,
    OutOfKVRoomError,
    Request,
    Scheduler,
    kv_blocks,
    prefix_blocks,
    prompt_tokens,
)

VERSION = "1.0"

LATE_SECONDS = 0.05
"""A step that the machine delayed is made up for by shorter sleeps, up to this."""

CHILD_SECONDS = 600
"""Children end by themselves, so that a failed kill test does not leave them for ever."""

MEETING_SECONDS = 0.1
"""Between two looks for the first of several parts."""

DEFAULT_OUTPUT = 128
"""Output tokens where a request names no limit."""

TOKEN = " token"

Number = TypeVar("Number", int, float)


def make_parser() -> argparse.ArgumentParser:
    """The engine's command line; the catalog `simulated-1.0.json` is written from it."""
    parser = argparse.ArgumentParser(
        prog="simulated_server", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    add = parser.add_argument
    count, share, amount = _bounded(int, 1), _bounded(float, 0, 1), _bounded(float, 0)
    add("--model", required=True, help="only named, never read")
    add("--served-model-name", default=None, help="--model by default")
    add("--host", default="127.0.0.1")
    add("--port", type=_bounded(int, 0, 65535), default=8000)

    add("--tensor-parallel-size", type=count, default=1)
    add("--max-num-seqs", type=count, default=16, help="sequences in a step; others wait")
    add("--max-num-batched-tokens", type=count, default=2048, help="tokens in a step")
    add("--enable-prefix-caching", action=argparse.BooleanOptionalAction, default=False)
    add("--gpu-memory-fraction", type=share, default=0.8, help="for weights, workspace and KV")
    add("--out-of-memory-above", type=share, default=0.95, help="fraction that cannot be had")
    add("--scheduling-policy", choices=("fcfs", "priority"), default="fcfs")
    add("--block-size", type=count, default=16, help="tokens in a KV block")
    add("--die-on-kv-full", action="store_true", help="instead of preempting a sequence")

    add("--speed", type=_bounded(float, 1e-6), default=1.0, help="divides every modelled time")
    add("--start-seconds", type=amount, default=0.2, help="from start to ready")
    add("--noise", type=amount, default=0.0, help="relative, of each start and of each step")
    add("--seed", type=int, default=None, help="of the noise; another at each start by default")

    add("--nnodes", type=count, default=1, help="programs that are one server")
    add("--node-rank", type=_bounded(int, 0), default=0, help="0 serves, the others only stay")
    add("--meeting", default="127.0.0.1:29500", help="HOST:PORT where they find each other")

    failures = ("none", "argument", "memory", "kv-cache", "port", "crash")
    add("--fail-at-start", choices=failures, default="none")
    add("--error-rate", type=share, default=0.0, help="share of requests answered 500")
    add("--die-at-request", type=count, default=None, help="exit at the N-th chat request")
    add("--hang-at-request", type=count, default=None, help="the N-th and later never finish")
    add("--spawn-children", type=_bounded(int, 0), default=0, help="each in its own session")
    return parser


def _bounded(
    kind: Callable[[str], Number], low: float, high: float = math.inf
) -> Callable[[str], Number]:
    """A converter with bounds; the catalog's maker finds `kind` in its closure."""

    def convert(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"invalid value: {text!r}") from error
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not from {low:g} to {high:g}")
        return value

    return convert


def main(argv: list[str] | None = None) -> None:
    parser = make_parser()
    options = parser.parse_args(argv)
    if options.fail_at_start == "argument":
        parser.error("argument --fail-at-start: this build does not support the chosen flags")
    if options.max_num_batched_tokens < options.max_num_seqs:
        parser.error(
            f"argument --max-num-batched-tokens: {options.max_num_batched_tokens} is below "
            f"--max-num-seqs {options.max_num_seqs}"
        )
    for _ in range(options.spawn_children):
        # Their own session: killing the server's process group does not reach them.
        code = f"import time; time.sleep({CHILD_SECONDS})"
        subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        asyncio.run(Server(options).run())
    except KeyboardInterrupt:
        sys.exit(130)


def log(level: str, message: str) -> None:
    """One line, at once: whoever reads the log of a dying server needs its last line."""
    stream = sys.stdout if level == "INFO" else sys.stderr
    print(f"{level} {time.strftime('%m-%d %H:%M:%S')} {message}", file=stream, flush=True)


def die(message: str, code: int) -> NoReturn:
    """Exit as a killed process does: nothing is closed, no answer is finished."""
    print(message, file=sys.stderr, flush=True)
    os._exit(code)


class HttpError(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Reply:
    """One chat completion on its way back to its client."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    model: str
    request: Request
    number: int
    stream: bool
    usage_wanted: bool
    reason: str
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._head = {"id": f"chatcmpl-{self.number}", "created": int(time.time())}
        # All tokens are the same text, so one encoding serves them all.
        self._token = self._chunk([_choice({"content": TOKEN})])

    @property
    def gone(self) -> bool:
        return self.writer.is_closing() or self.reader.at_eof()

    def token(self) -> None:
        """Send the request's newest token; with the last one, the end."""
        request = self.request
        if self.stream:
            role = _choice({"role": "assistant", "content": ""})
            first = self._chunk([role]) if request.generated == 1 else b""
            self.writer.write(first + self._token + (self._tail() if request.finished else b""))
        elif request.finished:
            message = {"role": "assistant", "content": TOKEN * request.generated}
            choice = {"index": 0, "message": message, "finish_reason": self.reason}
            body = self._body("chat.completion", [choice], usage=self._usage())
            self.writer.write(_response(200, "application/json", body))
        if request.finished:
            self.done.set()

    def _tail(self) -> bytes:
        tail = self._chunk([_choice({}, self.reason)])
        if self.usage_wanted:
            tail += self._chunk([], usage=self._usage())
        return tail + _http_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"

    def _usage(self) -> dict[str, int]:
        prompt, output = self.request.prompt, self.request.generated
        return {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "total_tokens": prompt + output,
        }

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        body = self._body("chat.completion.chunk", choices, **more)
        return _http_chunk(b"data: " + body + b"\n\n")

    def _body(self, kind: str, choices: list[dict[str, Any]], **more: Any) -> bytes:
        head = {**self._head, "object": kind, "model": self.model}
        return json.dumps({**head, "choices": choices, **more}).encode()


def _choice(delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": reason}


def _http_chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


def _head(status: int, kind: str, *more: str) -> bytes:
    # One request a connection: genai-bench opens a new one each time anyway.
    lines = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        f"Content-Type: {kind}",
        "Connection: close",
        *more,
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _response(status: int, kind: str, body: bytes) -> bytes:
    return _head(status, kind, f"Content-Length: {len(body)}") + body


class Server:
    """Connections put requests into the scheduler; one loop steps it and sends the tokens."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.flags = ModelFlags(**{f.name: getattr(options, f.name) for f in fields(ModelFlags)})
        self.name = options.served_model_name or options.model
        self.scheduler = Scheduler(self.flags)
        self.replies: dict[Request, Reply] = {}
        self.work = asyncio.Event()
        self.ready = False
        self.requests = 0
        self.random = random.Random(options.seed)
        self.start_factor = self.jitter()

    async def run(self) -> None:
        """Bind, load, then serve for ever; every way to fail ends the process."""
        options = self.options
        log("INFO", f"Simulated engine {VERSION}, model {options.model}, {self.flags}")
        if options.node_rank:
            await self._stay_with_the_first()
        if options.nnodes > 1:
            await self._meet_the_others()
        try:
            if options.fail_at_start == "port":
                raise OSError(
                    errno.EADDRINUSE,
                    "error while attempting to bind on address "
                    f"('{options.host}', {options.port}): address already in use",
                )
            server = await asyncio.start_server(
                self._serve, options.host, options.port, backlog=1024
            )
        except OSError as error:
            die(f"OSError: {error}", 1)
        async with server:
            await asyncio.sleep(options.start_seconds)
            self._load()
            self.ready = True
            log("INFO", "Application startup complete.")
            await self._step_for_ever()

    async def _meet_the_others(self) -> None:
        """Return once every other part is here; losing one later is the end."""
        host, _, port = self.options.meeting.rpartition(":")
        here: asyncio.Queue[None] = asyncio.Queue()

        async def part(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            here.put_nowait(None)
            await reader.read()
            die("NCCL error: unhandled system error, a remote process has exited", 1)

        self._meeting = await asyncio.start_server(part, host, int(port))
        for _ in range(self.options.nnodes - 1):
            await here.get()

    async def _stay_with_the_first(self) -> None:
        """Be there for as long as the part that serves is."""
        host, _, port = self.options.meeting.rpartition(":")
        while True:
            try:
                reader, _writer = await asyncio.open_connection(host, int(port))
                break
            except OSError:
                await asyncio.sleep(MEETING_SECONDS)
        log("INFO", f"part {self.options.node_rank} is connected")
        await reader.read()
        die("NCCL error: the first part has exited", 1)

    def _load(self) -> None:
        options, fraction = self.options, self.options.gpu_memory_fraction
        if options.fail_at_start == "crash":
            die("Fatal Python error: Segmentation fault", 139)
        if options.fail_at_start == "memory" or fraction > options.out_of_memory_above:
            die(
                "OutOfMemoryError: out of memory while loading the model: tried to allocate "
                f"{fraction * 24:.2f} GiB of 24.00 GiB. Reduce --gpu-memory-fraction.",
                1,
            )
        if options.fail_at_start == "kv-cache" or not kv_blocks(self.flags):
            die(
                "ValueError: No available memory for the cache blocks. Try increasing "
                "--gpu-memory-fraction or reducing --max-num-batched-tokens.",
                1,
            )
        tokens = self.scheduler.blocks * self.flags.block_size
        log("INFO", f"KV cache size: {tokens:,} tokens")

    async def _step_for_ever(self) -> None:
        due = 0.0
        while True:
            for reply in [each for each in self.replies.values() if each.gone]:
                self._forget(reply)
            if self.scheduler.idle:
                self.work.clear()
                await self.work.wait()
                due = time.monotonic()
            preemptions = self.scheduler.preemptions
            try:
                step = self.scheduler.step()
            except OutOfKVRoomError:
                die(
                    "OutOfMemoryError: out of memory while extending the KV cache: "
                    f"{len(self.scheduler.running)} running sequences need more than its "
                    f"{self.scheduler.blocks} blocks. Reduce --max-num-seqs.",
                    1,
                )
            if preemptions == 0 < self.scheduler.preemptions:
                log("WARNING", "The KV cache is full: sequences are preempted.")
            due += step.seconds * self.start_factor * self.jitter()
            due = max(due, time.monotonic() - LATE_SECONDS)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            for request in step.emitted:
                reply = self.replies[request]
                reply.token()
                if request.finished:
                    self._forget(reply)

    def jitter(self) -> float:
        return math.exp(self.random.gauss(0.0, self.options.noise))

    def _forget(self, reply: Reply) -> None:
        self.scheduler.cancel(reply.request)
        del self.replies[reply.request]
        reply.done.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        except HttpError as error:
            body = {"error": {"message": str(error), "code": error.status}}
            writer.write(_response(error.status, "application/json", json.dumps(body).encode()))
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # the client has gone, or does not speak HTTP
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line, *headers = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, *_ = [*line.split(" "), "", ""]
        path = target.partition("?")[0]
        body = await reader.readexactly(_content_length(headers))
        pages = {"/health": self._health, "/v1/models": self._models, "/metrics": self._metrics}
        if (method, path) == ("POST", "/v1/chat/completions"):
            await self._chat(reader, writer, body)
        elif method == "GET" and path in pages:
            writer.write(_response(200, *pages[path]()))
        else:
            raise HttpError(404, f"{method} {path} is not served here")

    def _health(self) -> tuple[str, bytes]:
        if not self.ready:
            raise HttpError(503, "the model is loading")
        return "text/plain", b""

    def _models(self) -> tuple[str, bytes]:
        model = {"id": self.name, "object": "model", "owned_by": "autotuner"}
        return "application/json", json.dumps({"object": "list", "data": [model]}).encode()

    def _metrics(self) -> tuple[str, bytes]:
        scheduler = self.scheduler
        values = {
            "sim:num_requests_running": len(scheduler.running),
            "sim:num_requests_waiting": len(scheduler.waiting),
            "sim:kv_cache_usage_perc": round(scheduler.usage, 6),
            "sim:num_preemptions_total": scheduler.preemptions,
        }
        lines = [
            f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}\n{name} {value}\n"
            for name, value in values.items()
        ]
        return "text/plain; version=0.0.4", "".join(lines).encode()

    async def _chat(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes
    ) -> None:
        self._health()
        self.requests += 1
        number, options = self.requests, self.options
        if number == options.die_at_request:
            die(f"Fatal error: the engine died at request {number}", 70)
        if int(number * options.error_rate) > int((number - 1) * options.error_rate):
            raise HttpError(500, f"request {number} fails, as --error-rate asks")
        if options.hang_at_request is not None and number >= options.hang_at_request:
            await reader.read()  # returns when the client has gone
            return
        reply = self._reply(reader, writer, number, _fields(body))
        self.replies[reply.request] = reply
        self.scheduler.add(reply.request)
        self.work.set()
        if reply.stream:
            kind = "text/event-stream; charset=utf-8"
            # Chunked, not ended by closing: a client must see that a dead server's answer is torn.
            writer.write(_head(200, kind, "Transfer-Encoding: chunked"))
        await reply.done.wait()

    def _reply(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        number: int,
        wanted: dict[str, Any],
    ) -> Reply:
        if wanted.get("model") != self.name:
            raise HttpError(404, f"The model `{wanted.get('model')}` does not exist.")
        text = _prompt(wanted.get("messages"))
        limit = wanted.get("max_completion_tokens") or wanted.get("max_tokens") or DEFAULT_OUTPUT
        priority = wanted.get("priority", 0)
        if not isinstance(limit, int) or limit < 1 or not isinstance(priority, int):
            raise HttpError(400, "max_tokens must be a whole number above 0, priority one too")
        output = limit if wanted.get("ignore_eos") else natural_length(text, limit)
        request = Request(
            prompt=prompt_tokens(text),
            output=output,
            prefix=prefix_blocks(text, self.flags.block_size),
            priority=priority,
        )
        if not self.scheduler.fits(request):
            room = self.scheduler.blocks * self.flags.block_size
            raise HttpError(400, f"This model's maximum context length is {room} tokens.")
        return Reply(
            reader=reader,
            writer=writer,
            model=self.name,
            request=request,
            number=number,
            stream=bool(wanted.get("stream")),
            usage_wanted=bool((wanted.get("stream_options") or {}).get("include_usage")),
            reason="length" if output == limit else "stop",
        )


def natural_length(text: str, limit: int) -> int:
    """Tokens after which an answer ends by itself: half to all of the limit, by the prompt."""
    return limit - zlib.crc32(text.encode()) % (limit // 2 + 1)


def _content_length(headers: list[str]) -> int:
    for header in headers:
        name, _, value = header.partition(":")
        if name.lower() == "content-length" and value.strip().isdigit():
            return int(value)
    return 0


def _fields(body: bytes) -> dict[str, Any]:
    try:
        wanted = json.loads(body)
    except ValueError as error:
        raise HttpError(400, f"the body is not JSON: {error}") from error
    if not isinstance(wanted, dict):
        raise HttpError(400, "the body is not a JSON object")
    return wanted


def _prompt(messages: Any) -> str:
    """All texts of a chat; a content is a text, or a list of parts of which some are texts."""
    try:
        contents = [message["content"] for message in messages]
        texts = [
            content if isinstance(content, str) else "".join(p.get("text", "") for p in content)
            for content in contents
        ]
    except (TypeError, KeyError, AttributeError) as error:
        raise HttpError(400, "messages must be a list of {role, content}") from error
    return "".join(texts)


if __name__ == "__main__":
    main()
