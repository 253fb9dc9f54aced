"""The command line: check, plan, run, resume, status, list, report, export, convert, presets,
sweep, doctor, catalog, serve, token, openapi; and `remote`'s at a service's address.

Exit codes: 0 found, 1 nothing feasible, 2 the user must act, 3 the operator must act,
130 interrupted. Heavy libraries are imported by the commands that need them, so that `check`
answers at once.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autotuner import __version__, flag_catalogs, remote
from autotuner.errors import AutotunerError, ConfigError, InfrastructureError, StudyStateError
from autotuner.terminal import (
    AS_JSON,
    EXIT_FOUND,
    EXIT_INTERRUPTED,
    EXIT_NOTHING,
    EXIT_OPERATOR,
    EXIT_USER,
    exit_code,
    print_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from autotuner.execution.doctor import Patient
    from autotuner.job import Job
    from autotuner.mirrors.base import Mirror
    from autotuner.serving import Inspection
    from autotuner.settings import Settings
    from autotuner.studies import Studies
    from autotuner.study.study import Study, StudyState

_STUDY_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
_NAME = click.argument("name")
_BACKEND = click.option(
    "--backend", help="Kind of backend, instead of the file's: process, docker, ome."
)


def main() -> None:
    """Entry point: errors become one message and an exit code, never a traceback."""
    output = sys.stdout
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(EXIT_INTERRUPTED)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_USER)
    except (ConfigError, StudyStateError) as error:
        sys.exit(_complain(error, EXIT_USER))
    except InfrastructureError as error:
        sys.exit(_complain(error, EXIT_OPERATOR))
    except AutotunerError as error:
        sys.exit(_complain(error, EXIT_NOTHING))
    except SystemExit:
        # Click puts another stream in the place of one whose reader has gone, such as `head`, and
        # ends with 1: no failure of ours.
        if sys.stdout is not output:
            sys.exit(EXIT_FOUND)
        raise
    except OSError as error:  # a full disk, a directory that is not to be written to
        sys.exit(_complain(InfrastructureError(str(error)), EXIT_OPERATOR))


def _complain(error: AutotunerError, code: int) -> int:
    click.echo(f"autotuner: {error}", err=True)
    return code


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="autotuner")
def cli() -> None:
    """Find the launch flags that serve an LLM best, by measuring them."""


for _verb in (*remote.COMMANDS, flag_catalogs.catalog):
    cli.add_command(_verb)


@cli.command()
@_STUDY_FILE
@_BACKEND
@AS_JSON
def check(file: Path, backend: str | None, as_json: bool) -> None:
    """Check a study file; starts nothing."""
    from autotuner.foresight import baseline_problem
    from autotuner.job import load_job
    from autotuner.plan import first_plan

    job = load_job(file, backend=backend, presets=_preset_directories())
    first_plan(job, _settings().site)
    spec = job.spec
    size = spec.parameter_space.size()
    warning = baseline_problem(job.foresight())
    if as_json:
        warnings = [warning] if warning else []
        content = {"name": spec.name, "valid": True, "size": size, "notes": list(job.notes)}
        print_json({**content, "warnings": warnings})
    else:
        for note in job.notes:
            click.echo(f"note: {note}")
        if warning:
            click.echo(f"warning: {warning}")
        points = "an infinite space" if size is None else f"a space of {size:,} points"
        points = points.replace("of 1 points", "of 1 point")
        click.echo(f"{file}: study {spec.name!r} is valid, with {points}")


@cli.command()
@_STUDY_FILE
@click.option("--trials", default=3, show_default=True, help="Trials to show besides the baseline.")
@click.option(
    "--export",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write what the backend needs beside the study, such as Kubernetes manifests, there.",
)
@_BACKEND
@AS_JSON
def plan(file: Path, trials: int, export: Path | None, backend: str | None, as_json: bool) -> None:
    """Show what a study would launch and what it would refuse; starts nothing."""
    from autotuner.job import load_job
    from autotuner.plan import plan as plan_of

    job = load_job(file, backend=backend, presets=_preset_directories())
    planned = plan_of(job, trials=trials, site=_settings().site)
    if export is not None:
        export.mkdir(parents=True, exist_ok=True)
        for name, text in planned["exports"].items():
            (export / name).write_text(text, encoding="utf-8")
            click.echo(f"wrote {export / name}", err=True)
        if not planned["exports"]:
            click.echo(f"the backend {job.spec.backend.kind} needs nothing beside", err=True)
    if as_json:
        print_json(planned)
    else:
        from autotuner.report import text

        text.show(text.plan_text(planned))


def _in_a_directory(
    context: click.Context,  # noqa: ARG001
    option: click.Parameter,  # noqa: ARG001
    file: Path | None,
) -> Path | None:
    """Said before a study runs for hours: a directory that is not there is a slip of the pen."""
    if file is not None and not file.parent.is_dir():
        raise ConfigError(f"there is no directory {file.parent}", where="--html")
    return file


_HTML = click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=_in_a_directory,
    help="Write the report as a page.",
)


@cli.command()
@_STUDY_FILE
@click.option("--name", help="Name of the study, instead of the file's.")
@click.option("--restart", is_flag=True, help="Delete an ended study of this name first.")
@_BACKEND
@_HTML
@AS_JSON
def run(
    file: Path,
    name: str | None,
    restart: bool,
    backend: str | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """Run a study to its end and report.

    FILE is a study, or a task of the earlier system. Uses the Ray cluster of RAY_ADDRESS, or starts
    a local Ray.
    """
    from autotuner.execution.cluster import reached
    from autotuner.job import load_job
    from autotuner.plan import first_plan

    job = load_job(file, name=name, backend=backend, presets=_preset_directories())
    for note in job.notes:
        click.echo(f"note: {note}", err=True)
    first_plan(job, _settings().site)
    studies = _studies()
    job = _with_prior(studies, job)  # before an old study of this name is deleted
    reached(os.environ.get("RAY_ADDRESS", ""))  # else the name would be taken for nothing
    study = studies.submit(job, restart=restart)
    sys.exit(_run(studies, study, job, resume=False, html=html, as_json=as_json))


@cli.command()
@remote.or_there(remote.resume)
@_NAME
@click.option(
    "--take-over",
    is_flag=True,
    help="Do not believe that a driver on another machine lives, nor a job that has not begun.",
)
@click.option("--job", default="", hidden=True, help="Only while the study is this job's.")
@_HTML
@AS_JSON
def resume(name: str, take_over: bool, job: str, html: Path | None, as_json: bool) -> None:
    """Go on with a study that was cancelled, failed or lost its driver."""
    from autotuner.job import checked

    studies = _studies()
    known, trials = studies.show(name)
    work = checked(known.spec)
    prior = known.spec.prior
    if prior is not None and sum(not trial.refused for trial in trials) <= prior.first:
        # Later it has done its part; and it may not be there any more.
        try:
            work = _with_prior(studies, work)
        except (ConfigError, StudyStateError, InfrastructureError) as error:
            click.echo(f"going on without the prior: {error}", err=True)
    study = studies.resumable(name, take_over=take_over, job=job)
    sys.exit(_run(studies, study, work, resume=True, html=html, as_json=as_json))


@cli.command()
@remote.or_there(remote.status)
@_NAME
@AS_JSON
def status(name: str, as_json: bool) -> None:
    """Show how a study stands."""
    remote.show_status(_studies().row(name), as_json)


@cli.command("list")
@remote.or_there(remote.list_studies)
@AS_JSON
def list_studies(as_json: bool) -> None:
    """List all studies, the newest first."""
    studies = _studies()
    remote.show_list(list(studies.rows()), as_json, maker="autotuner run")
    for each in studies.unreadable():
        by = f"autotuner {each.version}" if each.version else "another version of autotuner"
        click.echo(f"{each.name}: stored by {by}, which reads it; this one does not", err=True)


@cli.command()
@remote.or_there(remote.report)
@_NAME
@_HTML
@AS_JSON
def report(name: str, html: Path | None, as_json: bool) -> None:
    """Report a study: the trials, and the best beside the engine's defaults."""
    _report(_studies(), name, html=html, as_json=as_json)


@cli.command()
@remote.or_there(remote.export)
@_NAME
@click.option(
    "--format",
    "form",
    type=click.Choice(["command", "args", "docker", "compose", "ome"]),
    default="command",
    show_default=True,
    help="A shell line, the flags one item a line, a docker run line, a Compose file, or OME's "
    "InferenceService.",
)
@click.option("--trial", type=int, help="This trial instead of the best.")
@AS_JSON
def export(name: str, form: str, trial: int | None, as_json: bool) -> None:
    """Print the launch of the best trial, to serve with."""
    from autotuner.export import exported, launch_json

    spec, point = _studies().chosen(name, trial)
    if as_json:
        print_json(launch_json(spec, point))
    else:
        click.echo(exported(spec, point, form, _settings().site))


@cli.command()
@click.option("--study", help="Only what belongs to this study.")
@click.option("--owned", is_flag=True, help="Also what still has a living owner.")
@click.option("--backend", help="Only of this kind, even where no stored study used it.")
@AS_JSON
def sweep(study: str | None, owned: bool, backend: str | None, as_json: bool) -> None:
    """Remove what trials left behind on this machine, by the backends that studies used; prints
    what it removed."""

    removed, problems = list[str](), list[str]()
    for each in _studies().backends_used(_settings().site, only=backend):
        # One that is not here has nothing to sweep; one that was asked for must say so.
        place = each.examine()[0] if backend else None
        try:
            if place is not None and place.ok is False:
                raise InfrastructureError(f"{place.said}; {place.hint}")
            removed += each.sweep(study, owned=owned)
        except InfrastructureError as error:
            problems.append(str(error))
    if as_json:
        print_json({"removed": removed, "problems": problems})
    else:
        for text in removed:
            click.echo(f"removed {text}")
        if not removed and not problems:
            click.echo("nothing was left behind")
    if problems:
        raise InfrastructureError("; ".join(problems))


@cli.command()
@click.argument("name", required=False)
@click.option("--all", "every", is_flag=True, help="All studies of the store.")
def mirror(name: str | None, every: bool) -> None:
    """Copy a study to AUTOTUNER_OPTUNA_STORAGE, for optuna-dashboard; again changes nothing."""
    from autotuner.execution.loggers import command
    from autotuner.mirrors.optuna import copied

    if (name is None) != every:
        raise click.UsageError("give the NAME of a study, or --all")
    url = _settings().optuna_storage.get_secret_value()
    if not url:
        raise ConfigError(
            "is not set", where="AUTOTUNER_OPTUNA_STORAGE", hint="such as sqlite:////data/optuna.db"
        )
    studies = _studies()
    for study in copied(url, [studies.show(name)] if name else studies.list(), command):
        click.echo(f"mirrored {study.name}")


@cli.command()
@click.option("--host", help="Address to listen on, instead of AUTOTUNER_SERVICE_HOST.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port, instead of 8000.")
def serve(host: str | None, port: int | None) -> None:
    """Serve studies by HTTP, and the page; starts a local Ray, or uses that of RAY_ADDRESS."""
    from autotuner.api.serve import serve as serve_http

    settings = _settings()
    sys.exit(serve_http(settings, host or settings.service_host, port or settings.service_port))


@cli.group()
def token() -> None:
    """Tokens of the service: who may see, and who may do."""


@token.command("add")
@_NAME
@click.option(
    "--role",
    type=click.Choice(["viewer", "operator", "admin"]),
    default="operator",
    show_default=True,
    help="Sees; submits and deletes studies as well; sees who has tokens as well.",
)
@click.option("--team", default="", help="Whose studies are all that it sees; by default all are.")
def add_token(name: str, role: str, team: str) -> None:
    """Make a token and print it, this once: only its hash is kept."""
    from autotuner.api import tokens

    click.echo(tokens.issue(tokens.token_file(_settings()), name, tokens.Role(role), team))
    # Beside the token, which alone goes where a script reads it.
    whose = f" of the team {team}" if team else ""
    click.echo(f"{name}: {role}{whose}", err=True)


@token.command("list")
@AS_JSON
def list_tokens(as_json: bool) -> None:
    """List who has tokens."""
    from autotuner.api import tokens

    held = tokens.listed(tokens.token_file(_settings()))
    if as_json:
        print_json([each.model_dump(mode="json", exclude={"hash"}) for each in held])
        return
    if not held:
        click.echo("no tokens; autotuner token add NAME makes one")
    for each in held:
        click.echo(f"{each.name:<32} {each.role:<10} {each.team or '-':<16} {each.created_at}")


@token.command("revoke")
@_NAME
def revoke_token(name: str) -> None:
    """End a token, at once."""
    from autotuner.api import tokens

    tokens.revoke(tokens.token_file(_settings()), name)
    click.echo(f"{name} has no token any more")


@cli.command()
def openapi() -> None:
    """Print the service's OpenAPI document; starts nothing."""
    try:
        from autotuner.api.app import document
    except ModuleNotFoundError as error:
        raise InfrastructureError(
            f"the service needs {error.name!r}, which is not installed\n"
            "  install autotuner with its extra serve"
        ) from error
    print_json(document())


@cli.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@_BACKEND
@AS_JSON
def doctor(file: Path | None, backend: str | None, as_json: bool) -> None:
    """Check whether servers can run here, and on every node of the cluster of RAY_ADDRESS.

    With a study FILE, also what its own servers need: program or image, model, rights.
    """
    from autotuner.execution.doctor import Patient
    from autotuner.job import load_job
    from autotuner.report.text import inspections_table, show

    settings = _settings()
    job = None
    if file is not None:
        job = load_job(file, backend=backend, presets=_preset_directories())
    spec, kind = (job.spec, job.spec.backend.kind) if job else (None, backend or "process")
    found = _examined(Patient(spec, kind, settings.site, settings.studies))
    healthy = all(each.ok is not False for inspections in found.values() for each in inspections)
    if as_json:
        content = {node: [dataclasses.asdict(f) for f in each] for node, each in found.items()}
        print_json({"healthy": healthy, "nodes": content})
    else:
        show(*(inspections_table(node, inspections) for node, inspections in found.items()))
    sys.exit(EXIT_FOUND if healthy else EXIT_OPERATOR)


@cli.command()
@click.argument(
    "file", metavar="TASK", type=click.Path(path_type=Path, dir_okay=False, exists=True)
)
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="File to write the study to."
)
def convert(file: Path, output: Path | None) -> None:
    """Turn a TASK of the earlier system into a study file.

    The study goes to the output, what changed its name to standard error.
    """
    from autotuner.study.loading import located, read_study, yaml_text
    from autotuner.study.task import is_task, study_of_task

    read = read_study(file)
    if not is_task(read.content):
        raise ConfigError(
            "is no task of the earlier system: it has no task_name",
            file=str(file),
            hint="a study file needs no conversion",
        )
    try:
        converted = study_of_task(read.content)
    except ConfigError as error:
        raise located(error, read) from error
    text = yaml_text(converted.content)
    for note in converted.notes:
        click.echo(f"note: {note}", err=True)
    if output is None:
        click.echo(text, nl=False)
        return
    output.write_text(text, encoding="utf-8")
    click.echo(f"{output}: study {converted.content.get('name')!r}", err=True)


@cli.command()
@click.argument("name", required=False)
@AS_JSON
def presets(name: str | None, as_json: bool) -> None:
    """List the ready-made spaces, or print the file of one, which gives the reasons."""
    from autotuner.study import presets as known

    directories = _preset_directories()
    if name is None:
        found = known.presets(directories)
        if as_json:
            print_json([dataclasses.asdict(each) for each in found])
        for each in () if as_json else found:
            click.echo(f"{each.name:<24} {each.engine or 'any engine':<12} {each.why}")
        return
    preset = known.find_preset(name, directories)
    if as_json:
        print_json(dataclasses.asdict(preset))
        return
    click.echo(_preset_text(name, directories), nl=False)


def _preset_text(name: str, directories: list[Path]) -> str:
    """A preset as it is written: the reason of each parameter is a comment."""
    from autotuner.shipped import shipped
    from autotuner.study.presets import SUFFIXES

    places = (*directories, shipped("presets"))
    files = (place / f"{name}{suffix}" for place in places for suffix in sorted(SUFFIXES))
    file = Path(name) if name.endswith(SUFFIXES) else next(each for each in files if each.is_file())
    return file.read_text(encoding="utf-8")


def _run(
    studies: Studies, study: Study, job: Job, *, resume: bool, html: Path | None, as_json: bool
) -> int:
    """Run to the end, report, and say the exit code."""
    from autotuner.execution.cluster import address
    from autotuner.report.live import Display
    from autotuner.study.files import STUDY_LOG

    place, site = Path(study.directory), _settings().site
    first = "" if os.environ.get("RAY_ADDRESS") else "starting Ray"
    with (
        _failing(studies, study),
        Display(study, log=place / STUDY_LOG, first=first) as display,
        address(study.name, place, meanwhile=_driver) as cluster,
    ):
        state = _driver()(
            job,
            study,
            studies.store,
            display,
            site=site,
            address=cluster,
            resume=resume,
            mirrors=_mirrors(),
        )
    page = html or place / "report.html"
    _report(studies, study.name, html=page, as_json=as_json)
    if state.value == "CANCELLED":
        click.echo(f"autotuner resume {study.name} goes on with it", err=True)
    return exit_code(state)


@contextmanager
def _failing(studies: Studies, study: Study) -> Iterator[None]:
    """A study that ends before it began is not left waiting for its driver."""
    from autotuner.backends.owners import this_owner
    from autotuner.study.study import StudyState, timestamp

    def end(state: StudyState, reason: str) -> None:
        now = studies.store.stored(study.name)
        ours = now.driver in ("", this_owner())  # else another has taken it over since
        if ours and not now.state.ended:
            studies.store.set_state(
                study.name, state, was=now, reason=reason, driver="", ended_at=timestamp()
            )

    try:
        yield
    except InfrastructureError as error:
        end(StudyState.FAILED, str(error).splitlines()[0][:300])
        raise
    except KeyboardInterrupt:
        end(StudyState.CANCELLED, "interrupted")
        raise


def _examined(patient: Patient) -> dict[str, list[Inspection]]:
    """What each node says of itself: those of a cluster, or this machine."""
    if not os.environ.get("RAY_ADDRESS"):
        return {"this machine": patient.examined()}
    from autotuner.execution.everywhere import examined_everywhere

    return examined_everywhere(patient)


def _with_prior(studies: Studies, job: Job) -> Job:
    """The job with what its prior believes; what it does not is said."""

    if job.spec.prior is None:
        return job
    if job.spec.prior.system is not None:
        click.echo("asking aiconfigurator about the space", err=True)
    job = studies.with_prior(job, _settings().aiconfigurator)
    problem = job.prior.problem
    if not problem and not job.prior.first_points(job.spec):
        problem = f"it knows no point of this space by {job.spec.objectives[0]}"
    if problem:
        click.echo(f"the prior has nothing to say: {problem}", err=True)
    return job


def _driver() -> Callable[..., StudyState]:
    """Imports Ray: only to be called once `execution.cluster` has set its environment."""
    try:
        from autotuner.execution.driver import run_study
    except ModuleNotFoundError as error:
        raise InfrastructureError(
            f"running a study needs {error.name!r}, which is not installed\n"
            "  install autotuner with its extras ray and genai-bench"
        ) from error
    return run_study


def _mirrors() -> list[Mirror]:
    """Where the operator wants studies to be seen as well; imports Ray where that is so."""

    said = _settings()
    places = {
        "optuna": said.optuna_storage.get_secret_value(),
        "mlflow": said.mlflow.get_secret_value(),
        "wandb": said.wandb,
    }
    if not any(places.values()):
        return []
    from autotuner.execution.loggers import mirrors

    return mirrors(**places)


def _report(studies: Studies, name: str, *, html: Path | None, as_json: bool) -> None:
    content = studies.report(name)
    if as_json:
        print_json(content)
    else:
        from autotuner.report import text

        text.show(*text.report_text(content))
    if html is not None:
        from autotuner.report import page

        html.write_text(page.html(content, _settings().zone), encoding="utf-8")
        click.echo(f"report: {html}", err=as_json)


def _settings() -> Settings:
    """What the operator set, read once for a command."""
    from autotuner.settings import Settings

    known = click.get_current_context().find_root()
    if known.obj is None:
        known.obj = Settings()
    settings: Settings = known.obj
    return settings


def _studies() -> Studies:
    from autotuner.store import Store
    from autotuner.studies import Studies

    settings = _settings()
    return Studies(Store(settings.store_url), settings.studies)


def _preset_directories() -> list[Path]:
    """Where the user's own presets are looked for, besides those that come with autotuner."""

    return [_settings().home.expanduser() / "presets"]
