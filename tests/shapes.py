"""What a report holds, whatever its numbers: reports of one study, from two places, are alike."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

SAID_OF_NUMBERS = frozenset({"notes"})
"""Lists of sentences that some numbers call for and others do not, such as that a gain was
measured once."""


def shape(content: Any, *, without: Set[str] = frozenset()) -> Any:
    """A report without its numbers, and without what is called so, wherever it is."""
    without = without | SAID_OF_NUMBERS
    if isinstance(content, dict):
        return {
            name: shape(each, without=without)
            for name, each in content.items()
            if name not in without
        }
    if isinstance(content, list):
        return [shape(each, without=without) for each in content[:1]]
    return None
