"""Reasons of one cause, which differ in their numbers only."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def cause(reason: str) -> str:
    """What reasons of the same cause have in common: all but their numbers."""
    return _NUMBER.sub("#", reason)


def by_cause(reasons: Iterable[str]) -> list[tuple[str, int]]:
    """One reason for each cause, the commonest in its words, and how many there are; most first."""
    alike: dict[str, Counter[str]] = {}
    for reason in reasons:
        alike.setdefault(cause(reason), Counter())[reason] += 1
    counted = [(texts.most_common(1)[0][0], texts.total()) for texts in alike.values()]
    return sorted(counted, key=lambda each: -each[1])
