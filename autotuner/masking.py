"""What is to be shown to nobody, and texts without it. Needs nothing but Python, for the programs
that run apart from the rest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from urllib.parse import unquote

MASK = "***"
SHORTEST_SECRET = 4
"""Characters: what is shorter is in too many texts by chance, and guards nothing."""

_LENGTH_OF_A_TOKEN = 16
"""Characters from which on what stands alone before a URL's host is a token, and no user's name."""

_NAMES = re.compile(
    r"(^|[_-])(TOKEN|KEY)([_-]|$)|(API|ACCESS|PRIVATE)KEY|SECRET|PASSWORD|PASSWD|CREDENTIAL"
    r"|CONNECTION_STRING",
    re.I,
)
_BEFORE_HOST = re.compile(r"(?<=//)[^/\s@]+(?=@)")


def secrets_in(environment: Mapping[str, str]) -> list[str]:
    """What is to be shown to nobody of an environment, the longest first: values by their
    variables' names, and passwords and tokens in URLs, such as those of proxies."""
    found = {part for name, value in environment.items() for part in _secret_parts(name, value)}
    return sorted((each for each in found if len(each) >= SHORTEST_SECRET), key=len, reverse=True)


def _secret_parts(name: str, value: str) -> Iterator[str]:
    # MAX_TOKEN_LENGTH=2048: few digits are in many texts, such as what engines say of memory.
    if _NAMES.search(name) and not (value.isdigit() and len(value) < 2 * SHORTEST_SECRET):
        yield from value.splitlines()
    for said in _BEFORE_HOST.findall(value):
        user, colon, password = said.partition(":")
        if colon or len(user) >= _LENGTH_OF_A_TOKEN:
            yield from (found := password if colon else user, unquote(found))


def masked(text: str, environment: Mapping[str, str]) -> str:
    """A text without the secrets of an environment."""
    return without(text, secrets_in(environment))


def without(text: str, secrets: list[str]) -> str:
    """A text without these, of which one that holds another comes first."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text


def without_passwords(text: str) -> str:
    """A text without what stands between ``//`` and ``@`` of a URL in it."""
    return _BEFORE_HOST.sub(MASK, text)
