"""Errors, sorted by who must act: the user, the parameters, the operator, or the caller.

The loop and the command line read the class of an error, never its message.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum


class AutotunerError(Exception):
    """Base of every error autotuner raises on purpose."""


class ConfigError(AutotunerError):
    """The user must change what they wrote (command line exit 2).

    Attributes:
        problem: what is wrong, with the offending value in it.
        where: place inside the file, such as ``space.max-num-seqs``.
        file: path of the file, where one was read.
        line: line in that file, counted from 1.
        allowed: what would have been accepted, as short texts.
        hint: what to do next.
        others: further errors found in the same reading.
    """

    def __init__(
        self,
        problem: str,
        *,
        where: str = "",
        file: str = "",
        line: int | None = None,
        allowed: Sequence[str] = (),
        hint: str = "",
        others: Sequence[ConfigError] = (),
    ) -> None:
        self.problem = problem
        self.where = where
        self.file = file
        self.line = line
        self.allowed = tuple(allowed)
        self.hint = hint
        self.others = tuple(others)
        super().__init__(self.text())

    def with_others(self, others: Sequence[ConfigError]) -> ConfigError:
        """The same error, with those found beside it."""
        return ConfigError(
            self.problem,
            where=self.where,
            file=self.file,
            line=self.line,
            allowed=self.allowed,
            hint=self.hint,
            others=others,
        )

    def text(self) -> str:
        """The whole message: file:line, place, problem, allowed values, next step."""
        place = self.file + (f":{self.line}" if self.file and self.line else "")
        head = ": ".join(part for part in (place, self.where, self.problem) if part)
        lines = [head]
        if self.allowed:
            lines.append("  allowed: " + ", ".join(self.allowed))
        if self.hint:
            lines.append("  " + self.hint)
        lines += [other.text() for other in self.others]
        return "\n".join(lines)


class FailureClass(StrEnum):
    """Why a trial gave no measurement, as far as its log says."""

    REFUSED = "refused"
    """Known impossible before launch: nothing was started."""
    ARGUMENT = "invalid argument"
    """The engine rejected a flag, a value or a combination."""
    MEMORY_AT_LOAD = "out of memory at load"
    KV_CACHE = "KV cache too small"
    MEMORY_UNDER_LOAD = "out of memory under load"
    NOT_INSTALLED = "engine not installed"
    PORT = "port taken"
    HOST_MEMORY = "host out of memory"
    """The kernel ended a process of the server, which needed more than the machine had left."""
    MODEL = "model not found or not supported"
    QUANTIZATION = "quantization unsupported"
    DEVICE = "device unavailable"
    NCCL = "NCCL"
    SHARED_MEMORY = "shared memory"
    IMAGE = "image"
    """The container image is not there, or not for this machine."""
    TIMEOUT = "timeout"
    SLO = "SLO"
    """Measured, and a hard bound broken beyond what is borne."""
    BENCHMARK = "benchmark"
    """The server ran, but the load gave no usable measurement."""
    CRASH = "crash"
    """The server ended and its log shows none of the signatures known."""


class TrialError(AutotunerError):
    """The parameters are at fault: the trial is INFEASIBLE and the study goes on.

    Attributes:
        failure: class of the failure.
        reason: one line, in the engine's own words where there are any.
        log_tail: last lines of the log that shows it.
        advice: which way to move, where the engine makes that clear.
    """

    def __init__(
        self, failure: FailureClass, reason: str, log_tail: str = "", advice: str = ""
    ) -> None:
        self.failure = failure
        self.reason = reason
        self.log_tail = log_tail
        self.advice = advice
        super().__init__(f"{failure.value}: {reason}")

    def __reduce__(self) -> tuple[type[TrialError], tuple[FailureClass, str, str, str]]:
        return (TrialError, (self.failure, self.reason, self.log_tail, self.advice))


class InfrastructureError(AutotunerError):
    """The operator must act: the machine, a daemon or the cluster is at fault (exit 3).

    Says nothing about the parameters, so no searcher is ever told of it.
    """


class StudyStateError(AutotunerError):
    """The caller asked for something the study's state does not allow (exit 2)."""


class TooManyStudiesError(StudyStateError):
    """As many studies are under way as the operator allows: later it may be possible."""


class MissingStudyError(StudyStateError):
    """There is no study, or no trial of one, by that name.

    Attributes:
        said: the message without the place that was looked at, which is nobody's business from
            afar.
    """

    def __init__(self, said: str, place: str = "") -> None:
        self.said = said
        super().__init__(f"{said} in {place}" if place else said)
