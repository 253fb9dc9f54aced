"""The simulated engine: a server that waits instead of computing, for tests, demos and research.

It is launched, tuned and broken like a real engine, on any machine; `simulated_model` has the
formulas of its times, `simulated_server` the program.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping

from autotuner.engines.base import LOWER, RAISE, Diagnosis, Engine, Harmless, Told
from autotuner.engines.catalog import Catalog, whole_number
from autotuner.engines.flags import (
    catalog_of,
    check_flags,
    command_at,
    environment,
    flag_values,
    given,
    image_of,
)
from autotuner.engines.signatures import Signature, diagnose, observed
from autotuner.errors import FailureClass
from autotuner.serving import HERE, LaunchSpec, MemoryRequest, Place
from autotuner.study import telemetry
from autotuner.study.space import Parameters
from autotuner.study.spec import StudySpec
from autotuner.study.telemetry import Levers

IMAGE = "autotuner"
COMMAND = (sys.executable, "-m", "autotuner.engines.simulated_server")
IMAGE_COMMAND = ("python3", "-m", "autotuner.engines.simulated_server")

_OWNED = {
    "model": "say it as model.path",
    "served-model-name": "say it as model.served_name",
    "host": "the backend binds the server",
    "port": "every trial gets a free port",
    **dict.fromkeys(("nnodes", "node-rank", "meeting"), "say it as engine.nodes"),
}


_HARMLESS = """
block-size die-at-request die-on-kv-full enable-prefix-caching error-rate fail-at-start
gpu-memory-fraction hang-at-request max-num-batched-tokens max-num-seqs noise out-of-memory-above
scheduling-policy seed spawn-children speed start-seconds tensor-parallel-size
"""
"""Every flag that autotuner does not set itself: it reads no file, and what it breaks is itself."""


class _Simulated:
    # It takes `ignore_eos`, which genai-bench sends in this dialect and not in plain OpenAI's.
    api = "vllm"
    told = Told(
        {
            telemetry.KV_USAGE: ("sim:kv_cache_usage_perc",),
            telemetry.RUNNING: ("sim:num_requests_running",),
            telemetry.WAITING: ("sim:num_requests_waiting",),
            telemetry.PREEMPTIONS: ("sim:num_preemptions_total",),
        }
    )
    harmless = Harmless(flags=frozenset(_HARMLESS.split()))

    def check(self, spec: StudySpec) -> None:
        check_flags(spec, catalog_of(spec), _OWNED)

    def launch(
        self, spec: StudySpec, parameters: Parameters, *, port: int, place: Place = HERE
    ) -> LaunchSpec:
        catalog = catalog_of(spec)
        path, port = place.model_path or spec.model.path, place.port or port
        own = ["--model", path, "--served-model-name", spec.model.served_name]
        values = flag_values(spec, parameters)
        flags = tuple(catalog.argv(values))
        return LaunchSpec(
            command=command_at(place, spec.engine, COMMAND, IMAGE_COMMAND),
            arguments=(
                *(*own, "--host", place.host, "--port", str(port)),
                *_part(spec.engine.nodes, place),
                *flags,
            ),
            flags=flags,
            nodes=spec.engine.nodes,
            environment=environment(spec, parameters),
            image=image_of(spec.engine, IMAGE, f"simulated-{catalog.version}"),
            model_path=path,
            served_name=spec.model.served_name,
            port=port,
            # Where a cluster has GPUs, so that placing can be tried out; it computes on none.
            gpus=whole_number(given(catalog, values, "tensor-parallel-size")) or 1,
            cpus=1,
        )

    def refuse(self, spec: StudySpec, parameters: Parameters) -> str | None:
        catalog = catalog_of(spec)
        values = flag_values(spec, parameters)
        batched = _number(catalog, values, "max-num-batched-tokens")
        sequences = _number(catalog, values, "max-num-seqs")
        if batched is not None and sequences is not None and batched < sequences:
            return f"max-num-batched-tokens {batched} is below max-num-seqs {sequences}"
        gpus, nodes = (
            whole_number(given(catalog, values, "tensor-parallel-size")) or 1,
            spec.engine.nodes,
        )
        return f"{gpus} GPUs do not divide among {nodes} nodes" if gpus % nodes else None

    def diagnose(self, log: str) -> Diagnosis:
        return diagnose(log, _SIGNATURES, _PREFIX)

    def observe(self, log: str) -> Mapping[str, float]:
        return observed(log, _NUMBERS)

    def memory(self, spec: StudySpec, parameters: Parameters) -> MemoryRequest | None:  # noqa: ARG002
        return None  # its model and its accelerators are notional, whatever the study names

    def levers(self, spec: StudySpec, parameters: Parameters) -> Levers:
        catalog, values = catalog_of(spec), flag_values(spec, parameters)
        return Levers(
            sequences="max-num-seqs",
            most=_number(catalog, values, "max-num-seqs"),
            tokens="max-num-batched-tokens",
            memory=_FRACTION,
        )


def _part(nodes: int, place: Place) -> tuple[str, ...]:
    """The flags of one part of a server that spans nodes."""
    if nodes == 1:
        return ()
    return ("--nnodes", str(nodes), "--node-rank", str(place.rank), "--meeting", place.meeting)


def _number(catalog: Catalog, values: Parameters, name: str) -> int | None:
    """The flag's value, or its default: here, unlike in real engines, that is what it will be."""
    value = given(catalog, values, name)
    if value is None or value == "":
        flag = catalog.find(name)
        value = flag.default if flag else None
    return whole_number(value)


# "WARNING 11-22 03:04:05 " in front of what is said.
_PREFIX = re.compile(r"^(?:INFO|WARNING) [\d-]+ [\d:]+ ")

_NUMBERS = {"kv_tokens": r"KV cache size: <n> tokens"}

_FRACTION = "gpu-memory-fraction"

_SIGNATURES = (
    Signature(FailureClass.ARGUMENT, r"error: (?:unrecognized arguments|argument ).*"),
    Signature(FailureClass.NCCL, r"NCCL error: .*"),
    Signature(FailureClass.PORT, r"\[Errno 98\] .*[Aa]ddress already in use.*"),
    Signature(
        FailureClass.KV_CACHE,
        r"No available memory for the cache blocks.*",
        {_FRACTION: RAISE, "tensor-parallel-size": RAISE, "max-num-batched-tokens": LOWER},
    ),
    Signature(
        FailureClass.MEMORY_UNDER_LOAD,
        r"OutOfMemoryError: .*",
        {"max-num-seqs": LOWER},
        after="Application startup complete",
    ),
    Signature(FailureClass.MEMORY_AT_LOAD, r"OutOfMemoryError: .*", {_FRACTION: LOWER}),
)

SIMULATED: Engine = _Simulated()
