"""The command line's verbs at a service's address: submit, cancel, logs, and those that also work
on studies of this machine. Each is a function of a client and its arguments to an exit code."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autotuner.errors import ConfigError, MissingStudyError
from autotuner.terminal import AS_JSON, EXIT_FOUND, EXIT_INTERRUPTED, exit_code, print_json

if TYPE_CHECKING:
    from autotuner.client import Client, Event

Verb = Callable[..., int]
"""Of a client and a command's own arguments; its exit code."""

_ADDRESS = click.option(
    "--address",
    envvar="AUTOTUNER_ADDRESS",
    help="Address of a service; that of AUTOTUNER_ADDRESS by default. Empty: this machine.",
)
_TOKEN_FILE = click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of the service's token, instead of AUTOTUNER_TOKEN.",
)


def or_there(verb: Verb) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator of a command: it gets --address, and where there is one, `verb` runs instead
    with the same arguments."""

    def decorated(command: Callable[..., Any]) -> Callable[..., Any]:
        @_ADDRESS
        @_TOKEN_FILE
        @functools.wraps(command)
        def here_or_there(*, address: str | None, token_file: Path | None, **arguments: Any) -> Any:
            if not address:
                return command(**arguments)
            with _client(address, token_file) as client:
                try:
                    sys.exit(verb(client, **arguments))
                except MissingStudyError as error:
                    # No nearest name: another team's would be told by it.
                    hint = f"autotuner list shows the studies of {client.address}"
                    raise MissingStudyError(f"{error}\n  {hint}") from error

        return here_or_there

    return decorated


def _only_there(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a command whose work only a service can do; it gets the client first."""

    @functools.wraps(command)
    def nowhere(**_: Any) -> None:
        raise ConfigError(
            "needs the address of a service",
            where=command.__name__,
            hint="give --address URL, or AUTOTUNER_ADDRESS; autotuner serve starts a service",
        )

    return or_there(command)(nowhere)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--follow", is_flag=True, help="Show what happens, and at the end the report.")
@click.option("--start/--no-start", default=True, help="Run it at once, or only store it.")
@click.option("--name", help="Name of the study, instead of the file's.")
@click.option("--restart", is_flag=True, help="Delete an ended study of this name first.")
@AS_JSON
@_only_there
def submit(
    client: Client,
    file: Path,
    follow: bool,
    start: bool,
    name: str | None,
    restart: bool,
    as_json: bool,
) -> int:
    """Have a service run a study FILE, or a task of the earlier system.

    Prints its name and the address of its page. With --follow the exit code is that of
    `autotuner run`; to interrupt that leaves the study running.
    """
    if follow and not start:
        raise ConfigError("--follow waits for the end of what --no-start does not begin")
    row = client.submit(file, start=start, name=name, restart=restart)
    for note in row.get("notes", ()):
        click.echo(f"note: {note}", err=True)
    if not follow:
        if as_json:
            print_json(row)
        else:
            click.echo(f"{row['name']}  {client.page(row['name'])}")
        return EXIT_FOUND
    click.echo(f"{row['name']}  {client.page(row['name'])}", err=True)
    return followed(client, row["name"], as_json=as_json)


@click.command()
@click.argument("name")
@AS_JSON
@_only_there
def cancel(client: Client, name: str, as_json: bool) -> int:
    """Have a service end a study in order; what was measured is kept."""
    row = client.cancel(name)
    if as_json:
        print_json(row)
    elif row["state"] == "CANCELLED":
        click.echo(f"{name}: CANCELLED")
    else:
        click.echo(
            f"{name}: {row['state']}, asked to end; autotuner status {name} says when it has"
        )
    return EXIT_FOUND


@click.command()
@click.argument("name")
@click.option("--trial", type=int, help="Log of this trial, instead of the study's own.")
@click.option(
    "--source",
    type=click.Choice(["server", "benchmark", "trial"]),
    help="Which of a trial's logs: its server's, the load generator's, or its own story.  "
    "[default: server]",
)
@click.option("--follow", is_flag=True, help="Go on until the study, or the trial, has ended.")
@click.option("--tail", type=click.IntRange(min=0), help="Only so many of the last lines.")
@_only_there
def logs(
    client: Client,
    name: str,
    trial: int | None,
    source: str | None,
    follow: bool,
    tail: int | None,
) -> int:
    """Print a log of a study that a service runs."""
    if trial is None and source is not None:
        raise ConfigError("--source is of a trial", hint="add --trial N")
    if trial is None:
        lines = client.logs(name, follow=follow, tail=tail)
    else:
        lines = client.trial_logs(name, trial, source or "server", follow=follow, tail=tail)
    with _goes_on(client, name):
        empty = True
        for line in lines:
            click.echo(line)
            empty = False
        if empty and tail != 0:
            click.echo(_why_empty(client, name, trial, source or "server"), err=True)
        return EXIT_FOUND
    return EXIT_INTERRUPTED


def _why_empty(client: Client, name: str, trial: int | None, source: str) -> str:
    """What is said where a log holds nothing."""
    if trial is not None:
        return f"trial {trial} {_of_a_trial(client.trial(name, trial), source)}"
    return f"study {name!r} {_so_far(client.study(name)['state'])}"


def _of_a_trial(found: Mapping[str, Any], source: str) -> str:
    from autotuner.study.trial import TrialState

    under_way = not TrialState[found["state"]].ended
    if under_way or source == "trial" or found["plan"] is not None:
        return _so_far(found["state"])
    if found["state"] == "COMPLETE" and not found["argv"]:
        return "started no server: its answers are those of a table"
    return f"started no server: {found['reason']}".removesuffix(": ")


def _so_far(state: str) -> str:
    return f"is {state}, and has written nothing so far"


COMMANDS = (submit, cancel, logs)
"""Those that only a service can do."""


def status(client: Client, name: str, *, as_json: bool) -> int:
    """How a study stands, as `autotuner status`."""
    show_status(client.study(name), as_json, at=client.page(name))
    return EXIT_FOUND


def list_studies(client: Client, *, as_json: bool) -> int:
    """All studies of a service, as `autotuner list`."""
    show_list(client.studies(), as_json, maker="autotuner submit")
    return EXIT_FOUND


def show_status(row: Mapping[str, Any], as_json: bool, *, at: str = "") -> None:
    """A study at a glance, from here or from a service; `at`, its page."""
    from autotuner.report.rows import status_lines
    from autotuner.report.text import plain

    if as_json:
        print_json(row)
        return
    for line in [*status_lines(row), *([f"  {at}"] if at else [])]:
        click.echo(plain(line))


def show_list(rows: Sequence[Mapping[str, Any]], as_json: bool, *, maker: str) -> None:
    """Studies at a glance; `maker`, the command that makes one where there is none."""
    from autotuner.report.rows import LIST_HEADING, list_line
    from autotuner.report.text import plain

    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo(f"no studies yet; {maker} STUDY.yaml makes one")
        return
    click.echo(LIST_HEADING)
    for row in rows:
        click.echo(plain(list_line(row)))


def report(client: Client, name: str, *, html: Path | None, as_json: bool) -> int:
    """The report of a study, as `autotuner report`."""
    content = client.report(name)
    _show_report(content, as_json)
    if html is not None:
        html.write_text(client.report_page(name), encoding="utf-8")
        click.echo(f"report: {html}", err=as_json)
    return EXIT_FOUND


def export(client: Client, name: str, *, form: str, trial: int | None, as_json: bool) -> int:
    """The launch to serve with, as `autotuner export`."""
    click.echo(client.export(name, "json" if as_json else form, trial=trial).rstrip("\n"))
    return EXIT_FOUND


def resume(
    client: Client,
    name: str,
    *,
    take_over: bool = False,
    job: str = "",
    html: Path | None = None,
    as_json: bool = False,
) -> int:
    """Have a service go on with a study; returns at once."""
    for said, option in ((take_over, "--take-over"), (job, "--job"), (html, "--html")):
        if said:
            raise ConfigError(f"{option} is of a study that this machine goes on with itself")
    row = client.resume(name)
    if as_json:
        print_json(row)
    else:
        click.echo(f"{name}: {row['state']}  {client.page(name)}")
    return EXIT_FOUND


def followed(client: Client, name: str, *, as_json: bool) -> int:
    """Show what happens to a study until it has ended, then its report."""
    seen: dict[tuple[str, Any], tuple[Any, ...]] = {}

    def show(event: Event) -> None:
        about = (event.kind, event.content.get("number"))
        now = (event.content.get("state"), event.content.get("note"))
        if now[0] != "PENDING" and seen.get(about) != now:
            click.echo(f"[{event.at[11:19]}Z] {line(event)}", err=True)
        seen[about] = now

    with _goes_on(client, name):
        content = client.wait(name, on_event=show)
        _show_report(content, as_json)
        return exit_code(content["study"]["state"])
    return EXIT_INTERRUPTED


def line(event: Event) -> str:
    """An event as `autotuner run` says it."""
    from autotuner.report.live import short_parameters
    from autotuner.report.text import plain
    from autotuner.report.words import measured

    told = event.content
    state, reason = told.get("state", ""), told.get("reason") or ""
    if event.kind == "study":
        return f"study {state}" + (f"  {reason}" if reason else "")
    again = told.get("repeat_of")
    name = f"trial {told['number']}"
    if again is not None:
        name = f"trial {again} again (round {told.get('round')})"
    if state == "DEPLOYING":
        return f"{name} {state}" + ("" if again else f"  {short_parameters(told['parameters'])}")
    if told.get("failure"):
        return f"{name} {state}  {told['failure']}: {reason}"
    if told.get("note") or reason:
        return f"{name} {state}  {told.get('note') or reason}"
    values = ", ".join(
        f"{metric} {plain(measured(value, metric))}"
        for metric, value in (told.get("objectives") or {}).items()
    )
    return f"{name} {state}  {values}".rstrip()


@contextmanager
def _goes_on(client: Client, name: str) -> Iterator[None]:
    """To interrupt what is followed ends nothing but the following."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(
            f"\nstudy {name!r} goes on, if it has not ended: {client.page(name)}\n"
            f"  to end it:  autotuner cancel {name} --address {client.address}",
            err=True,
        )


def _show_report(content: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(content)
        return
    from autotuner.report import text

    text.show(*text.report_text(content))


def _client(address: str, token_file: Path | None) -> Client:
    from autotuner.client import Client

    try:
        return Client(address, _token(token_file))
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"asking a service needs {error.name!r}, which is not installed"
        ) from error


def _token(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get("AUTOTUNER_TOKEN", "").strip() or None
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the token cannot be read: {error}", file=str(file)) from error
    if not token.isascii() or len(token.split()) != 1:
        raise ConfigError("holds no token, or more than one", file=str(file))
    return token
