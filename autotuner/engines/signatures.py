"""A dead server's log against a table of signatures: its class, and one line of reason."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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
        after: where this text came earlier in the log, the class is `then`.
    """

    failure: FailureClass
    pattern: str
    after: str | None = None
    then: FailureClass | None = None


def diagnose(log: str, signatures: Iterable[Signature], prefix: re.Pattern[str]) -> Diagnosis:
    """The first signature of the table that the log holds, wherever in it: the last lines of a
    dying server are usually generic wrappers.

    Args:
        prefix: what stands before the message on a line; removed before matching.
    """
    lines = [prefix.sub("", line).strip() for line in log.splitlines()]
    for signature in signatures:
        pattern = re.compile(signature.pattern)
        for number, line in enumerate(lines):
            match = pattern.search(line)
            if match is None:
                continue
            reason = (match.groupdict().get("reason") or "").strip() or match[0]
            reason = _PYDANTIC.sub("", reason)
            failure = signature.failure
            if signature.after and signature.then and _seen(lines[:number], signature.after):
                failure = signature.then
            return Diagnosis(failure, reason.strip()[:REASON_LENGTH])
    return Diagnosis(FailureClass.CRASH, _last_words(lines)[:REASON_LENGTH])


def _seen(lines: Sequence[str], text: str) -> bool:
    return any(text in line for line in lines)


def _last_words(lines: Sequence[str]) -> str:
    """The last line that reads like an error, else the last line."""
    spoken = [line for line in lines if line]
    errors = [line for line in spoken if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (errors or spoken or ["the log is empty"])[-1]
