"""What the commands share: exit codes, options, and how JSON is printed."""

from __future__ import annotations

import json
from typing import Any

import click

EXIT_FOUND, EXIT_NOTHING, EXIT_USER, EXIT_OPERATOR, EXIT_INTERRUPTED = 0, 1, 2, 3, 130
"""A command did what it was asked, or a study found a winner; nothing feasible was found; the user
must act; the operator must act; interrupted, or cancelled."""

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def exit_code(state: str) -> int:
    """What a command ends with that waited for a study, by the state in which that ended."""
    return {"COMPLETE": EXIT_FOUND, "CANCELLED": EXIT_INTERRUPTED}.get(state, EXIT_NOTHING)


def print_json(content: Any) -> None:
    click.echo(json.dumps(content, indent=2, allow_nan=False))
