"""How long the simulated engine takes: a roofline for one step, a scheduler for many. No clock.

The machine is notional: a dense 8-billion-parameter model (Llama-3-8B's shapes, 16 bits) on
accelerators of 24 GiB, 2 TB/s and 300 TFLOP/s. One step of continuous batching handles `n`
tokens: one for each decoding sequence, and prompt tokens in what is left of the token budget.
With `tp` accelerators, `C` tokens of context in the sequences of the step, `B` blocks under them:

    read    = (weight bytes + C * KV bytes) / (tp * bandwidth)       decode is bound by this
    compute = n * 2 * parameters / (tp * FLOP/s)                     prefill is bound by this
    talk    = layers * 2 * latency * log2(tp)  +  n * exchanged bytes * 2 * (tp - 1)/tp / link
    step    = (overhead + B * block overhead + max(read, compute) + talk) / speed
    KV room = tp * (fraction * memory - workspace * token budget) - weights   (in whole blocks)

TTFT is the wait for a place and for the running step, then the steps of the prompt's chunks;
TPOT is the step, longer when others' prompts share it. So more sequences share one reading of the
weights until compute, or KV room, runs out; a small token budget delays the first token, a large
one delays all others and costs KV room; two accelerators are less than twice as fast.

Ideas: roofline of decoding, Pope et al. 2022 (arXiv:2211.05102); step-wise batching, Yu et al.
2022 (Orca); chunked prefill, Agrawal et al. 2024 (arXiv:2403.02310); KV blocks and preemption by
recomputing, Kwon et al. 2023 (arXiv:2309.06180). Left out: attention's quadratic part, KV shared
between running sequences (a prefix hit saves time, not room), swapping.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field

PARAMETERS = 8.03e9
WEIGHT_BYTES = 2 * PARAMETERS
KV_BYTES = 32 * 2 * 8 * 128 * 2
"""Per token: layers x (key, value) x KV heads x head size x 2 bytes."""
MEMORY_BYTES = 24 * 2**30
BANDWIDTH = 2e12
FLOPS = 3e14
OVERHEAD_SECONDS = 1e-3
"""Scheduling, sampling and launching, once a step."""
BLOCK_OVERHEAD_SECONDS = 1e-7
"""Looking up one KV block: what makes tiny blocks slow."""
WORKSPACE_BYTES = 200_000
"""Activations kept ready for each token of the budget."""
LAYERS = 32
LINK_LATENCY_SECONDS = 8e-6
EXCHANGED_BYTES = 2 * LAYERS * 4096 * 2
"""Per token: two all-reduces a layer, hidden size 4096, 2 bytes."""
LINK_BANDWIDTH = 6.4e10

CHARACTERS_PER_TOKEN = 4


class OutOfKVRoomError(Exception):
    """Running sequences need more KV blocks than there are, and the flags forbid preemption."""


@dataclass(frozen=True)
class ModelFlags:
    """The flags that times and room follow from; the server's parser has their meaning."""

    tensor_parallel_size: int = 1
    max_num_seqs: int = 16
    max_num_batched_tokens: int = 2048
    enable_prefix_caching: bool = False
    gpu_memory_fraction: float = 0.8
    scheduling_policy: str = "fcfs"
    block_size: int = 16
    speed: float = 1.0
    die_on_kv_full: bool = False


def prompt_tokens(text: str) -> int:
    """Tokens of a prompt: four characters each, rounded up; at least one."""
    return max(1, math.ceil(len(text) / CHARACTERS_PER_TOKEN))


def step_seconds(flags: ModelFlags, *, tokens: int, context: int, blocks: int) -> float:
    """Length of one step.

    Args:
        tokens: tokens computed in it, prompt and output together.
        context: tokens whose keys and values it reads.
        blocks: KV blocks these lie in.
    """
    tp = flags.tensor_parallel_size
    read = (WEIGHT_BYTES + context * KV_BYTES) / (tp * BANDWIDTH)
    compute = tokens * 2 * PARAMETERS / (tp * FLOPS)
    talk = (
        LAYERS * 2 * LINK_LATENCY_SECONDS * math.log2(tp)
        + tokens * EXCHANGED_BYTES * 2 * (tp - 1) / tp / LINK_BANDWIDTH
    )
    overhead = OVERHEAD_SECONDS + blocks * BLOCK_OVERHEAD_SECONDS
    return (overhead + max(read, compute) + talk) / flags.speed


def kv_blocks(flags: ModelFlags) -> int:
    """KV blocks that fit beside weights and workspace; 0 where nothing fits."""
    workspace = WORKSPACE_BYTES * flags.max_num_batched_tokens
    usable = flags.gpu_memory_fraction * MEMORY_BYTES - workspace
    room = flags.tensor_parallel_size * usable - WEIGHT_BYTES
    return max(0, int(room / (KV_BYTES * flags.block_size)))


def prefix_blocks(text: str, block_size: int) -> tuple[int, ...]:
    """One hash for each full block of a prompt, each over all of the text up to its end."""
    width = block_size * CHARACTERS_PER_TOKEN
    hashes, chain = [], 0
    for start in range(0, len(text) - width + 1, width):
        chain = hash((chain, text[start : start + width]))
        hashes.append(chain)
    return tuple(hashes)


@dataclass(eq=False)
class Request:
    """One sequence on its way: `computed` tokens have their keys and values in place."""

    prompt: int
    output: int
    prefix: tuple[int, ...] = ()
    priority: int = 0
    computed: int = 0
    generated: int = 0

    @property
    def pending(self) -> int:
        """Tokens to compute before the next one comes out: 1 while decoding."""
        return self.prompt + self.generated - self.computed

    @property
    def finished(self) -> bool:
        return self.generated >= self.output


@dataclass(frozen=True)
class Step:
    """What one step does: its length, and the requests that get a token at its end."""

    seconds: float
    emitted: tuple[Request, ...]


@dataclass
class Scheduler:
    """Continuous batching: call `step` again and again while it is not idle."""

    flags: ModelFlags
    running: list[Request] = field(default_factory=list)
    waiting: list[Request] = field(default_factory=list)
    used_blocks: int = 0
    preemptions: int = 0
    _cached: OrderedDict[int, None] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self.blocks = kv_blocks(self.flags)

    @property
    def idle(self) -> bool:
        return not self.running and not self.waiting

    @property
    def usage(self) -> float:
        """Share of the KV blocks in use, 0 to 1."""
        return self.used_blocks / self.blocks if self.blocks else 1.0

    def fits(self, request: Request) -> bool:
        """Whether it could be served were it alone; one that is not must not be added."""
        return self._blocks(request.prompt + request.output) <= self.blocks

    def add(self, request: Request) -> None:
        self._enqueue(request, len(self.waiting))

    def cancel(self, request: Request) -> None:
        """Forget a request, wherever it is."""
        self._hold(request, 0)
        for place in (self.running, self.waiting):
            if request in place:
                place.remove(request)

    def step(self) -> Step:
        """Plan a step and count it as done.

        Raises:
            OutOfKVRoomError: see `ModelFlags.die_on_kv_full`.
        """
        budget = self.flags.max_num_batched_tokens
        before = self.preemptions
        taken: list[tuple[Request, int]] = []
        # Running first: they are in the order they were admitted, and only the last can be in its
        # prompt, so that no prompt ever takes a decoding sequence's token out of the budget.
        for request in list(self.running):
            take = min(request.pending, budget)
            if take and request in self.running and self._make_room(request, take):
                self._hold(request, request.computed + take)
                taken.append((request, take))
                budget -= take
        # A sequence admitted now would be the next one to be preempted.
        if self.preemptions == before:
            taken += self._admit(budget)
        emitted = tuple(request for request, _ in taken if not request.pending)
        seconds = step_seconds(
            self.flags,
            tokens=sum(take for _, take in taken),
            context=sum(request.computed for request, _ in taken),
            blocks=self.used_blocks,
        )
        for request in emitted:
            self._emit(request)
        return Step(seconds, emitted)

    def _make_room(self, request: Request, take: int) -> bool:
        """Preempt from the end until the request can grow; False where it was preempted itself."""
        while not self._can_grow(request, take):
            if self.flags.die_on_kv_full:
                raise OutOfKVRoomError
            last = self.running.pop()
            self._hold(last, 0)
            self._enqueue(last, 0)
            self.preemptions += 1
            if last is request:
                return False
        return True

    def _admit(self, budget: int) -> list[tuple[Request, int]]:
        taken = []
        while self.waiting and budget and len(self.running) < self.flags.max_num_seqs:
            request = self.waiting[0]
            hit = self._cached_tokens(request)
            take = min(request.pending - hit, budget)
            if not self._can_grow(request, hit + take):
                break
            self.running.append(self.waiting.pop(0))
            self._hold(request, hit + take)
            budget -= take
            taken.append((request, take))
        return taken

    def _can_grow(self, request: Request, take: int) -> bool:
        more = self._blocks(request.computed + take) - self._blocks(request.computed)
        return self.used_blocks + more <= self.blocks

    def _hold(self, request: Request, tokens: int) -> None:
        """The only place where `computed` changes, so that `used_blocks` needs no counting."""
        self.used_blocks += self._blocks(tokens) - self._blocks(request.computed)
        request.computed = tokens

    def _enqueue(self, request: Request, index: int) -> None:
        self.waiting.insert(index, request)
        if self.flags.scheduling_policy == "priority":
            # A stable sort: equal priorities stay in the order they came.
            self.waiting.sort(key=lambda each: each.priority)

    def _emit(self, request: Request) -> None:
        if not request.generated and self.flags.enable_prefix_caching:
            self._remember(request.prefix)
        request.generated += 1
        if request.finished:
            self.cancel(request)

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self.flags.block_size)

    def _cached_tokens(self, request: Request) -> int:
        hits = 0
        for block in request.prefix:
            if block not in self._cached:
                break
            self._cached.move_to_end(block)
            hits += 1
        # The last token is always computed: the first output comes from it.
        return min(hits * self.flags.block_size, request.prompt - 1)

    def _remember(self, prefix: tuple[int, ...]) -> None:
        for block in prefix:
            self._cached[block] = None
            self._cached.move_to_end(block)
        while len(self._cached) > self.blocks:
            self._cached.popitem(last=False)
