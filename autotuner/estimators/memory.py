"""Whether a point fits into GPU memory, from the model's `config.json`; it learns from logs.

Of each GPU an engine takes a fraction; weights and what a step works with come off it, and the
rest is KV cache. The weights are known, the KV bytes of a token are known, and what a step works
with is the guess: a formula of the flags, corrected by every server log that says how much KV
cache was left.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist, median

from autotuner.serving import MemoryRequest
from autotuner.study.model import GIB, ModelShape

Observation = tuple[MemoryRequest, Mapping[str, float]]
"""What a launch asked for, and what its log said: `kv_tokens`, `kv_gib`, `weights_gib`, each where
it was found, per GPU (`kv_tokens` of a replica)."""

ERROR = 0.13
"""Standard deviation of the memory in use before any log, relative: models that do not calibrate
themselves were found up to 26 % too low, which is taken for two of it."""

LEAST_ERROR_GIB = 0.05
"""What logs round to, and what launches of the same flags differ by."""

RUNTIME_GIB = 0.6
"""CUDA context, communication buffers and captured graphs, before any log."""

ASSUMED_FRACTION = 0.9
ASSUMED_TOKENS = 8192
ASSUMED_SEQUENCES = 256
"""Where a point leaves them to its engine, which chooses by GPU and version."""

FIRST_KV_ERROR = 0.02
"""Relative, of the bytes of a token: blocks, and what kernels pad."""

LEAST_SAID_GIB = 0.5
"""Sizes in logs are rounded to 0.01 GiB: from here on that is less than 1 %."""

# Weights of methods that may quantize while loading: four bits and scales.
_UNCLEAR_BYTES = 4.5 / 8

# A first guess counts as much as this many logs.
_PRIOR_LOGS = 2.0


@dataclass(frozen=True)
class MemoryEstimate:
    """Whether a point will fit.

    Attributes:
        sure: 0, a coin flip, to 1, certain, that `infeasible` is right in what it says, or in
            being empty.
        infeasible: why it will not start, or nothing.
        proven: `infeasible` follows from sizes that cannot be otherwise; else it is a guess.
    """

    sure: float
    infeasible: str = ""
    proven: bool = False


@dataclass(frozen=True)
class Calibration:
    """What logs said beyond the formulas; the first guess without any.

    Attributes:
        weights, kv: factors on the weights and on the bytes of a token.
        constant_gib, slope: working memory is ``constant_gib + slope x formula``.
        error_gib: standard deviation of what is left unexplained; None before any log that says
            how much KV cache was left.
        kv_error: relative standard deviation of the bytes of a token.
    """

    weights: float = 1.0
    kv: float = 1.0
    constant_gib: float = RUNTIME_GIB
    slope: float = 1.0
    error_gib: float | None = None
    kv_error: float = FIRST_KV_ERROR


@dataclass(frozen=True)
class MemoryModel:
    """The memory of one model on one kind of GPU.

    Attributes:
        gpu_gib: memory of one GPU; None where it is not known, as on a CPU: then only a KV cache
            of fixed size is told.
    """

    shape: ModelShape
    gpu_gib: float | None = None
    calibration: Calibration = field(default_factory=Calibration)

    def estimate(self, request: MemoryRequest) -> MemoryEstimate:
        """Whether the point fits, and how sure that is."""
        proof = self._proof(request)
        if proof:
            return MemoryEstimate(sure=1.0, infeasible=proof, proven=True)
        sure, reason = self._guess(request)
        if _unclear(request, self.shape) or not self.shape.exact:
            sure *= 0.5
        return MemoryEstimate(sure, reason)

    def calibrated(self, observations: Sequence[Observation]) -> MemoryModel:
        """The same model after these logs, all that there are: earlier ones are not remembered.

        Working memory is fitted by least squares that start from the first guess (ridge), so that
        one log moves the constant and only logs of different flags move the slope.
        """
        plain = MemoryModel(self.shape, self.gpu_gib)
        weights = _factor(
            told / expected
            for request, said in observations
            if (told := _told(said, "weights_gib")) and (expected := self._weights(request)) > 0
        )
        per_token = [
            told * GIB * request.kv_split / said["kv_tokens"] / plain._token_bytes(request)
            for request, said in observations
            if (told := _told(said, "kv_gib")) and said.get("kv_tokens")
        ]
        kv = _factor(per_token)
        spread = max(
            [FIRST_KV_ERROR / len(per_token or [1]), *(abs(x / kv - 1) for x in per_token)]
        )
        fresh = MemoryModel(self.shape, self.gpu_gib, Calibration(weights=weights, kv=kv))
        left = [
            (pair, fresh._used_error(request))
            for request, said in observations
            if (pair := fresh._unexplained(request, said)) is not None
        ]
        constant, slope, error = _fit([pair for pair, _ in left], [first for _, first in left])
        return MemoryModel(
            self.shape, self.gpu_gib, Calibration(weights, kv, constant, slope, error, spread)
        )

    def _weights(self, request: MemoryRequest) -> float:
        """GiB of weights on one GPU."""
        each = self.shape.matrix_bytes(_matrix_bytes(request, self.shape))
        whole = self.shape.weight_bytes_at(each)
        routed = self.shape.routed * each if request.expert_parallel else 0.0
        stage = request.tp * request.pp
        bytes_of_one = (whole - routed) / stage + routed / (stage * request.dp)
        return max(bytes_of_one / GIB - request.offload_gib, 0.0)

    def _working(self, request: MemoryRequest) -> float:
        fitted = self.calibration.constant_gib + self.calibration.slope * step_gib(
            self.shape, request
        )
        return max(fitted, 0.0)

    def _used(self, request: MemoryRequest) -> float:
        """GiB of one GPU beside the KV cache."""
        return self._weights(request) * self.calibration.weights + self._working(request)

    def _used_error(self, request: MemoryRequest) -> float:
        """Standard deviation of that in GiB: what logs left unexplained; before any, a share."""
        error = self.calibration.error_gib
        return ERROR * self._used(request) if error is None else error

    def _token_bytes(self, request: MemoryRequest) -> float:
        plain = self.shape.kv_bytes_per_token(request.kv_bytes, tp=request.tp, pp=request.pp)
        return plain * self.calibration.kv

    def _proof(self, request: MemoryRequest) -> str:
        """Why the point cannot start whatever else is true, or nothing. Nothing learnt is used."""
        least, room = self._least_weights(request), self._room(request)
        if not self.shape.exact or least is None or request.offload_gib:
            return ""
        if room is not None and least > room:
            return (
                f"the weights take at least {least:.1f} GiB of each GPU, "
                f"of whose {self.gpu_gib:.1f} GiB the engine may use {room:.1f}"
            )
        one = self._least_sequence(request)
        cache = request.kv_gib
        if cache is None and room is not None:
            # Of several stages, the one with most layers need not be the one with most weights.
            cache = room - (least if request.pp == 1 else 0.0)
        if one is not None and cache is not None and one > cache:
            return (
                f"one sequence of {request.max_length} tokens takes at least {one:.1f} GiB of KV "
                f"cache on each GPU, which can have at most {cache:.1f}"
            )
        return ""

    def _least_weights(self, request: MemoryRequest) -> float | None:
        """GiB that the fullest GPU cannot go below: an even share of everything."""
        if _unclear(request, self.shape) and request.weight_bytes is None:
            return None
        each = self.shape.matrix_bytes(request.weight_bytes)
        least = self.shape.parameters * each
        if each == self.shape.matrix_bytes():
            least = min(self.shape.weight_bytes, self.shape.stored_bytes or math.inf)
        # Engines may share experts among replicas without being told to.
        gpus = request.tp * request.pp * (request.dp if self.shape.experts else 1)
        return least / gpus / GIB

    def _room(self, request: MemoryRequest) -> float | None:
        """GiB of one GPU that the engine can use at most: a fixed KV cache overrides the
        fraction, and one that is left to the engine may be anything."""
        if self.gpu_gib is None:
            return None
        if request.kv_gib is not None:
            return max(self.gpu_gib - request.kv_gib, 0.0)
        return self.gpu_gib * (1.0 if request.fraction is None else request.fraction)

    def _least_sequence(self, request: MemoryRequest) -> float | None:
        """GiB of the longest sequence's keys and values on one GPU, at least."""
        if request.max_length is None or self.shape.windowed:
            return None
        # Quantized checkpoints may bring scales for eight-bit keys and values.
        unsaid = 1.0 if self.shape.quantization else self.shape.dtype_bytes
        each = unsaid if request.kv_bytes is None else request.kv_bytes
        token = self.shape.kv_bytes_per_token(each, tp=request.tp, pp=request.pp)
        return token * request.max_length / request.kv_split / GIB

    def _guess(self, request: MemoryRequest) -> tuple[float, str]:
        """How sure it is what probably happens, and why that is nothing good, or nothing."""
        if request.kv_gib is not None:
            return self._fixed_guess(request, request.kv_gib)
        if self.gpu_gib is None:
            return 0.0, ""
        kv = _fraction(request) * self.gpu_gib - self._used(request)
        needed = self._sequence(request)
        sure = _sure(kv - needed, self._used_error(request))
        if kv >= needed:
            return sure, ""
        weights = self._weights(request) * self.calibration.weights
        parts = f"weights {weights:.1f} GiB and working memory {self._working(request):.1f} GiB"
        if kv <= 0:
            return sure, f"{parts} probably leave no room for a KV cache"
        return sure, (
            f"{parts} probably leave {kv:.1f} GiB of KV cache, below the {needed:.1f} of one "
            f"sequence of {request.max_length} tokens"
        )

    def _fixed_guess(self, request: MemoryRequest, kv: float) -> tuple[float, str]:
        """The same where the KV cache is fixed, and the question is whether the GPU has it; where
        the GPU is not known, whether the cache has room for one sequence."""
        if self.gpu_gib is None:
            needed = self._sequence(request)
            sure = _sure(kv - needed, kv * self.calibration.kv_error)
            return sure, "" if kv >= needed else (
                f"{kv:.1f} GiB of KV cache are probably less than the {needed:.1f} of one sequence "
                f"of {request.max_length} tokens"
            )
        used = self._used(request)
        sure = _sure(self.gpu_gib - used - kv, self._used_error(request))
        return sure, "" if used + kv <= self.gpu_gib else (
            f"{kv:.1f} GiB of KV cache and {used:.1f} GiB beside it are probably more than the "
            f"{self.gpu_gib:.1f} GiB of the GPU"
        )

    def _sequence(self, request: MemoryRequest) -> float:
        """GiB of the longest sequence's keys and values on one GPU."""
        return (request.max_length or 0) * self._token_bytes(request) / request.kv_split / GIB

    def _unexplained(
        self, request: MemoryRequest, said: Mapping[str, float]
    ) -> tuple[float, float] | None:
        """The formula's working memory and the true one, where a log tells: GiB both."""
        if self.gpu_gib is None or request.kv_gib is not None:
            return None
        kv = _told(said, "kv_gib")
        if kv is None and (tokens := said.get("kv_tokens")):
            if request.kv_tokens is not None and tokens >= request.kv_tokens:
                return None  # the cap was reached, not the memory
            kv = tokens * self._token_bytes(request) / request.kv_split / GIB
        if kv is None:
            return None
        weights = _told(said, "weights_gib")
        if weights is None:
            weights = self._weights(request) * self.calibration.weights
        return step_gib(self.shape, request), _fraction(request) * self.gpu_gib - weights - kv


def step_gib(shape: ModelShape, request: MemoryRequest) -> float:
    """GiB that one step works with, to first order.

    Activations of its tokens in half precision, four times the hidden size and the two halves of
    the gated feed-forward part, and the logits of all sequences twice in single precision, as
    samplers keep them.
    """
    tokens = request.batched_tokens or ASSUMED_TOKENS
    width = 4 * shape.hidden + 2 * shape.intermediate / request.tp
    logits = (request.sequences or ASSUMED_SEQUENCES) * shape.vocabulary
    return (tokens * width * 2 + logits * 8) / GIB


def _fraction(request: MemoryRequest) -> float:
    return ASSUMED_FRACTION if request.fraction is None else request.fraction


def _matrix_bytes(request: MemoryRequest, shape: ModelShape) -> float | None:
    """Bytes of a matrix's weight, as far as flags tell; a little above four bits where a method
    quantizes while loading and says no more."""
    return _UNCLEAR_BYTES if _unclear(request, shape) else request.weight_bytes


def _unclear(request: MemoryRequest, shape: ModelShape) -> bool:
    """Whether weights are quantized while loading into a format whose size is not known."""
    return (
        request.quantization is not None
        and shape.quantization is None
        and request.weight_bytes != 1
    )


def _sure(margin: float, error: float) -> float:
    """How sure it is that a margin has the sign it has: the chance of that, as a share of the way
    from a coin flip to certainty."""
    return 2 * NormalDist().cdf(abs(margin) / max(error, 1e-6)) - 1


def _told(said: Mapping[str, float], name: str) -> float | None:
    """A size in GiB from a log; None where it is too small for its two digits to say much."""
    value = said.get(name)
    return value if value is not None and value >= LEAST_SAID_GIB else None


def _factor(ratios: Iterable[float]) -> float:
    """The middle of what logs said against what was expected; 1 without any."""
    known = list(ratios)
    return median(known) if known else 1.0


def _fit(
    pairs: Sequence[tuple[float, float]], first_errors: Sequence[float]
) -> tuple[float, float, float | None]:
    """Constant, slope and remaining error of working memory over its formula.

    Args:
        pairs: the formula's and the true one, GiB both.
        first_errors: per pair the standard deviation before any log: a share of what is in use,
            which is less of each of eight GPUs than of a single one.
    """
    if not pairs:
        return RUNTIME_GIB, 1.0, None
    import numpy

    first_error = median(first_errors)
    noise = 2 * LEAST_ERROR_GIB
    # The first two rows are the first guess, as if it had been measured with its own error.
    rows = [(1 / first_error, 0.0), (0.0, 2.0)] + [(1 / noise, each / noise) for each, _ in pairs]
    sides = [RUNTIME_GIB / first_error, 2.0] + [true / noise for _, true in pairs]
    (constant, slope), *_ = numpy.linalg.lstsq(numpy.array(rows), numpy.array(sides), rcond=None)
    squares = sum((true - constant - slope * each) ** 2 for each, true in pairs)
    variance = (_PRIOR_LOGS * first_error**2 / 4 + squares) / (_PRIOR_LOGS + len(pairs))
    return float(constant), float(slope), max(math.sqrt(variance), LEAST_ERROR_GIB)
