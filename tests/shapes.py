"""What a report holds, whatever its numbers: reports of one study, from two places, are alike."""

from __future__ import annotations

from collections.abc import Set
from typing import Any


def shape(content: Any, *, without: Set[str] = frozenset()) -> Any:
    """A report without its numbers, and without what is called so, wherever it is."""
    if isinstance(content, dict):
        return {
            name: shape(each, without=without)
            for name, each in content.items()
            if name not in without
        }
    if isinstance(content, list):
        return [shape(each, without=without) for each in content[:1]]
    return None
