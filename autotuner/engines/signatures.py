"""A dead server's log against a table of signatures: its class, one line of reason, advice."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from autotuner.engines.base import Diagnosis
from autotuner.errors import FailureClass

REASON_LENGTH = 300
"""Characters kept of a reason."""


_PYDANTIC = re.compile(r"\s*\[type=\w+.*$")
"""What pydantic adds to a message: the whole of the input, and no reason."""


@dataclass(frozen=True)
class Signature:
    """A message that tells a class of failure.

    Attributes:
        pattern: regular expression matched against one log line without its prefix; a group
            `reason` in it is the reason, otherwise the whole match.
        moves: flag -> the direction that helps, where the engine makes it clear.
        after: counts only on a line after this text.
        without: counts only in a log that has this text nowhere.
        only: counts only where this holds of the match, as for numbers in it.
        more: lines after the match that belong to the reason.
    """

    failure: FailureClass
    pattern: str
    moves: Mapping[str, str] = field(default_factory=dict)
    after: str | None = None
    without: str | None = None
    only: Callable[[re.Match[str]], bool] | None = None
    more: int = 0


def diagnose(log: str, signatures: Iterable[Signature], prefix: re.Pattern[str]) -> Diagnosis:
    """The first signature of the table that the log holds, wherever in it: the last lines of a
    dying server are usually generic wrappers.

    Args:
        prefix: what stands before the message on a line; removed before matching.
    """
    lines = [prefix.sub("", line).strip() for line in log.splitlines()]
    for signature in signatures:
        found = _found(lines, signature)
        if found is None:
            continue
        number, match = found
        first = (match.groupdict().get("reason") or "").strip() or match[0]
        parts = [first, *filter(None, lines[number + 1 : number + 1 + signature.more])]
        reason = ": ".join(_PYDANTIC.sub("", part).strip() for part in parts)
        moves = dict(signature.moves)
        return Diagnosis(signature.failure, reason[:REASON_LENGTH], advice_of(moves), moves)
    return Diagnosis(FailureClass.CRASH, _last_words(lines)[:REASON_LENGTH])


def _found(lines: Sequence[str], signature: Signature) -> tuple[int, re.Match[str]] | None:
    if signature.without is not None and any(signature.without in line for line in lines):
        return None
    pattern = re.compile(signature.pattern)
    # One that begins with anything matches at the beginning or nowhere; to try every place of
    # every line would take seconds for a long log.
    find = pattern.match if signature.pattern.startswith(".*") else pattern.search
    reached = signature.after is None
    for number, line in enumerate(lines):
        match = find(line) if reached else None
        if match is not None and (signature.only is None or signature.only(match)):
            return number, match
        reached = reached or (signature.after or "") in line
    return None


# Uvicorn's, in every engine. Other messages about ports are followed by another try: PyTorch's and
# SGLang's, each on a port between its own processes.
_CANNOT_LISTEN = re.compile(r"\[Errno 98\] error while attempting to bind on address")


def cannot_listen(log: str) -> bool:
    """Whether the log says that a server will never serve, for its port is another's.

    SGLang says so and lives on.
    """
    return _CANNOT_LISTEN.search(log) is not None


def advice_of(moves: Mapping[str, str]) -> str:
    """The moves as one sentence: ``raise mem-fraction-static, or lower context-length``."""
    parts = []
    for direction in dict.fromkeys(moves.values()):
        flags = [flag for flag, each in moves.items() if each == direction]
        parts.append(f"{direction} {' or '.join(flags)}")
    return ", or ".join(parts)


# What engines say when something else has already gone wrong.
_WRAPPERS = re.compile(
    r"Engine core initialization failed|EngineCore (?:encountered|failed)"
    r"|WorkerProc (?:init|failed)|See (?:root cause|stack trace)"
    r"|Received sigquit from a child|died during initialization"
)


def _last_words(lines: Sequence[str]) -> str:
    """The last line that reads like an error, if it can be a cause, else the last line."""
    spoken = [line for line in lines if line]
    errors = [line for line in spoken if re.match(r"[\w.]*(Error|Exception)\b", line)]
    causes = [line for line in errors if not _WRAPPERS.search(line)]
    return (causes or errors or spoken or ["the log is empty"])[-1]


_NUMBER = r"(\d[\d,]*(?:\.\d+)?)"


def observed(log: str, phrases: Mapping[str, str]) -> dict[str, float]:
    """The first number in the log for each key.

    Args:
        phrases: key -> regular expression in which ``<n>`` stands for a number; of several the
            sum.
    """
    found = {}
    for key, phrase in phrases.items():
        match = re.search(phrase.replace("<n>", _NUMBER), log)
        if match is None:
            continue
        value = sum(float(each.replace(",", "")) for each in match.groups() if each)
        if value:  # what was rounded down to 0 says nothing
            found[key] = value
    return found


# What the libraries under every engine say, in the order they are asked: the kernel's own messages
# before those of NCCL, which reports them as its own. Sources: PyTorch, NCCL, huggingface_hub,
# transformers and the C library; the words of container runtimes are Docker's and Kubernetes'.
SHARED_MEMORY = (
    Signature(FailureClass.SHARED_MEMORY, r".*Error while creating shared memory segment .*"),
    Signature(FailureClass.SHARED_MEMORY, r".*No space left on device.*/dev/shm.*"),
    Signature(FailureClass.SHARED_MEMORY, r".*insufficient shared memory.*"),
)
PORT = (
    Signature(FailureClass.PORT, r"\[Errno 98\] .*[Aa]ddress already in use.*"),
    Signature(FailureClass.PORT, r"\[Errno 98\] error while attempting to bind on address.*"),
    Signature(FailureClass.PORT, r".*The server socket has failed to listen on any local.*"),
)
NOT_INSTALLED = (
    Signature(
        FailureClass.NOT_INSTALLED,
        r"ModuleNotFoundError: (?P<reason>No module named '(?:vllm|sglang)['.].*)",
    ),
)
IMAGE = (
    Signature(FailureClass.IMAGE, r".*(?:ImagePullBackOff|ErrImagePull|InvalidImageName).*"),
    Signature(FailureClass.IMAGE, r".*(?:pull access denied|manifest unknown|No such image).*"),
    Signature(FailureClass.IMAGE, r".*exec format error.*"),
)
MODEL = (
    Signature(FailureClass.MODEL, r".*Repo id must be in the form.*"),
    Signature(FailureClass.MODEL, r".*is not a local folder and is not a valid model identifier.*"),
    Signature(FailureClass.MODEL, r".*Cannot find any model weights with.*"),
    Signature(
        FailureClass.MODEL,
        r".*(?:[Aa]ccess (?:to )?(?:a )?gated repo|private or gated repo|401 Client Error).*",
    ),
    Signature(FailureClass.MODEL, r".*Transformers does not recognize this architecture.*"),
    Signature(FailureClass.MODEL, r".*Model architectures .* are not supported.*"),
    Signature(FailureClass.MODEL, r".*[Cc]ouldn't connect to 'https://huggingface.co'.*"),
)
NCCL = (
    Signature(FailureClass.NCCL, r".*NCCL error.*"),
    Signature(FailureClass.NCCL, r".*(?:ncclSystemError|ncclInternalError|ncclRemoteError).*"),
)
DEVICE = (
    Signature(FailureClass.DEVICE, r".*CUDA error: (?:no CUDA-capable|invalid device|uncorrect).*"),
    Signature(FailureClass.DEVICE, r".*No CUDA GPUs are available.*"),
    Signature(FailureClass.DEVICE, r".*CUDA driver version is insufficient.*"),
)
ARGUMENTS = (
    Signature(
        FailureClass.ARGUMENT, r"error: (?:unrecognized arguments|argument |ambiguous option).*"
    ),
)
OUT_OF_MEMORY = r".*CUDA out of memory.*"
