"""Who asks: tokens with roles, kept as hashes, and telling callers by them."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Self

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from autotuner.addresses import is_loopback
from autotuner.api.problems import ProblemError
from autotuner.errors import ConfigError, InfrastructureError
from autotuner.files import locked, replace
from autotuner.settings import Settings

PREFIX = "att_"
"""Of every token, so that one that lies about in a text is known for what it is."""

NAMES = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")

LOCAL = "local"
"""The caller's name where there are no tokens."""

CALLER = "autotuner.caller"
"""Where a request's scope holds its caller, once that is known."""


class Role(StrEnum):
    """Each may do what those before it may."""

    VIEWER = "viewer"
    """Sees, changes nothing."""
    OPERATOR = "operator"
    """Submits, starts, cancels, edits and deletes studies and presets."""
    ADMIN = "admin"
    """Sees who has tokens as well. Of the whole service, never of a team."""

    def may(self, needed: Role) -> bool:
        """Whether this role has all that the needed one has."""
        ranks = list(Role)
        return ranks.index(self) >= ranks.index(needed)


@dataclass(frozen=True)
class Caller:
    """Who asks.

    Attributes:
        team: whose studies are theirs, see `study.sees`; empty: of the whole service.
    """

    name: str
    role: Role
    team: str = ""


class Token(BaseModel):
    """What is kept of a token: enough to know it again, not to use it."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: str
    role: Role
    hash: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the token, as hex.")
    created_at: str
    team: str = Field(default="", pattern=rf"^({NAMES.pattern})?$")

    @model_validator(mode="after")
    def _admins_are_of_no_team(self) -> Self:
        if self.team and self.role is Role.ADMIN:
            raise ValueError(f"{self.name!r} is an admin, and so of no team")
        return self


_TOKENS = TypeAdapter(tuple[Token, ...])


def token_file(settings: Settings) -> Path:
    """Where the tokens of a service are kept."""
    return (settings.tokens or settings.home / "tokens.json").expanduser().absolute()


def issue(path: Path, name: str, role: Role, team: str = "") -> str:
    """A new token, which is kept nowhere in the clear.

    Args:
        team: that it belongs to, and whose studies are all that it sees; empty: sees all.

    Raises:
        ConfigError: the name is taken, or is none; an admin of a team; or the file holds no
            tokens.
        InfrastructureError: the file cannot be written.
    """
    _refuse_unsayable(name, "token", "ci or anna@example.org")
    if team:
        _refuse_unsayable(team, "team", "chat or search-quality")
    if team and role is Role.ADMIN:
        raise ConfigError(
            "an admin is of the whole service, and so of no team",
            hint="leave the team out, or take another role",
        )
    token = PREFIX + secrets.token_urlsafe(32)
    with _alone(path):
        held = listed(path)
        if any(each.name == name for each in held):
            raise ConfigError(
                f"there already is a token named {name!r}",
                hint=f"end it first: autotuner token revoke {name}",
            )
        made = datetime.now(UTC).isoformat(timespec="seconds")
        new = Token(name=name, role=role, hash=_digest(token), created_at=made, team=team)
        _write(path, [*held, new])
    return token


def revoke(path: Path, name: str) -> None:
    """Have a token be none from now on.

    Raises:
        ConfigError: there is none of that name; or the file holds no tokens.
        InfrastructureError: the file cannot be written.
    """
    with _alone(path):
        held = listed(path)
        if all(each.name != name for each in held):
            raise ConfigError(
                f"there is no token named {name!r}", allowed=[each.name for each in held]
            )
        _write(path, [each for each in held if each.name != name])


def listed(path: Path) -> tuple[Token, ...]:
    """The tokens of a file; none where there is no file.

    Raises:
        ConfigError: the file holds something else.
        InfrastructureError: it cannot be read.
    """
    try:
        return _TOKENS.validate_json(path.read_bytes())
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise InfrastructureError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        each = error.errors(include_input=False, include_url=False)[0]
        raise ConfigError(
            f"holds no tokens: {each['msg']}",
            where=".".join(map(str, each["loc"])),
            file=str(path),
            hint="move it away, and make tokens anew: autotuner token add",
        ) from None


def _refuse_unsayable(name: str, what: str, such_as: str) -> None:
    if not NAMES.fullmatch(name):
        raise ConfigError(
            f"{name!r} is no name for a {what}",
            hint=f"letters, digits and . _ @ -, at most 63, such as {such_as}",
        )


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """While two add or revoke at once, one waits: else the last would undo the first."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name(f"{path.name}.lock")):
            yield
    except OSError as error:
        raise InfrastructureError(f"{path} cannot be written: {error.strerror}") from error


def _write(path: Path, held: Sequence[Token]) -> None:
    """For its owner's eyes only from the first byte on."""
    # Without teams it is the file that an older service reads as well.
    said = _TOKENS.dump_json(tuple(held), indent=1, exclude_defaults=True)
    replace({path: said + b"\n"})


def _digest(token: str) -> str:
    # 256 random bits cannot be guessed, so that a slow hash would protect nothing more.
    return hashlib.sha256(token.encode()).hexdigest()


class Gate:
    """Tells callers by their tokens.

    Once there have been tokens they are needed for as long as this service runs: whoever
    revokes the last one does not mean to let everybody in.
    """

    def __init__(self, settings: Settings) -> None:
        self._host = settings.service_host
        self._path = token_file(settings)
        self._on = not is_loopback(settings.service_host)
        self._held: tuple[Token, ...] = ()
        self._seen: tuple[int, ...] = ()

    @property
    def tokens_on(self) -> bool:
        """Whether a token is needed."""
        self._look()
        return self._on

    def check(self) -> None:
        """Raises ConfigError where the service would be open to others without a token."""
        if listed(self._path) or is_loopback(self._host):
            return
        raise ConfigError(
            f"the service would listen on {self._host}, and nobody has a token for it",
            where="AUTOTUNER_SERVICE_HOST",
            hint="make one: autotuner token add NAME --role operator; or listen on 127.0.0.1",
        )

    def caller(self, request: Request) -> Caller:
        """Who sent a request.

        Raises:
            ProblemError: no token, or none of ours (401).
            InfrastructureError: the tokens cannot be read.
        """
        known: Caller | None = request.scope.get(CALLER)
        return known or self.known_by(request.headers.get("authorization", ""))

    def known_by(self, authorization: str) -> Caller:
        """As `caller`, by the header alone."""
        if not self.tokens_on:
            return Caller(LOCAL, Role.ADMIN)
        scheme, _, said = authorization.partition(" ")
        if scheme.lower() != "bearer" or not said.strip():
            raise unauthorized("a token is needed: Authorization: Bearer TOKEN")
        digest = _digest(said.strip())
        # All are compared, in constant time each: how long it takes says nothing of them.
        found = [each for each in self._held if hmac.compare_digest(each.hash, digest)]
        if not found:
            raise unauthorized("this token is not known here, or was revoked")
        return Caller(found[0].name, found[0].role, found[0].team)

    def _look(self) -> None:
        """Read the file where it is another than it was."""
        seen: tuple[int, ...]
        try:
            found = self._path.stat()
            seen = (found.st_mtime_ns, found.st_ino, found.st_size)
        except FileNotFoundError:
            seen = ()
        except OSError as error:
            raise InfrastructureError(f"{self._path}: {error.strerror}") from error
        if seen == self._seen:
            return
        try:
            self._held = listed(self._path)
        except ConfigError as error:  # who asks cannot mend it
            raise InfrastructureError("the service's file of tokens is broken") from error
        self._seen = seen
        self._on = self._on or bool(self._held)


def unauthorized(detail: str) -> ProblemError:
    """The answer to whom nobody knows."""
    return ProblemError(
        401,
        "unauthorized",
        f"{detail}; its operator makes one: autotuner token add",
        headers={"WWW-Authenticate": "Bearer"},
    )
