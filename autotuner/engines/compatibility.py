"""Two flag catalogs side by side: of two engines, or of two versions of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autotuner.engines.catalog import Catalog, Flag


@dataclass(frozen=True)
class Shared:
    """A flag that both know under one name at least, each first under its own."""

    one: Flag
    other: Flag

    @property
    def differs(self) -> str:
        """In what a value of one may be none of the other; empty where both take the same."""
        if self.one.kind is not self.other.kind:
            return f"{self.one.kind.value} and {self.other.kind.value}"
        return "" if _choices(self.one) == _choices(self.other) else "choices"


@dataclass(frozen=True)
class Compatibility:
    """What of two catalogs is common, by the names of the first; each other flag is of one only.

    A flag counts as common where any of its names, aliases too, is one of the other's.
    """

    one: Catalog
    other: Catalog
    common: tuple[Shared, ...]
    only_one: tuple[str, ...]
    only_other: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        sides = ((self.one, self.only_one), (self.other, self.only_other))
        return {
            "engines": [
                {
                    "engine": catalog.engine,
                    "version": catalog.version,
                    "flags": len(catalog.flags),
                    "only": list(only),
                }
                for catalog, only in sides
            ],
            "common": [
                {"names": [each.one.name, each.other.name], "differs": each.differs}
                for each in self.common
            ],
        }


def compatibility(one: Catalog, other: Catalog) -> Compatibility:
    """Which flags of two catalogs are common, and which are of one only."""
    pairs = tuple(
        Shared(flag, found)
        for flag in one.flags
        if (found := _counterpart(flag, other)) is not None
    )
    matched = {pair.other.name for pair in pairs}
    return Compatibility(
        one,
        other,
        pairs,
        tuple(f.name for f in one.flags if _counterpart(f, other) is None),
        tuple(
            f.name for f in other.flags if f.name not in matched and _counterpart(f, one) is None
        ),
    )


def _counterpart(flag: Flag, other: Catalog) -> Flag | None:
    """Its own name goes before its aliases."""
    names = (name for name in (flag.name, *flag.aliases) if "." not in name)
    return next((found for name in names if (found := other.find(name)) is not None), None)


def _choices(flag: Flag) -> frozenset[str] | None:
    return None if flag.choices is None else frozenset(map(str, flag.choices))
