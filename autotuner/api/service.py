"""What the routes work with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request

from autotuner.api.allow_file import Allowance, read_allowance
from autotuner.api.reads import Reads
from autotuner.api.tokens import Caller, Gate
from autotuner.settings import Settings
from autotuner.store import Store
from autotuner.studies import Runner, Studies


def no_cluster() -> dict[str, Any]:
    """What is said of a cluster where there is none."""
    return {"nodes": [], "problem": "this service is on no Ray cluster"}


@dataclass(frozen=True)
class Service:
    """Made once by whoever serves; a request gets it as its caller sees it.

    Attributes:
        directory: where relative paths of studies begin.
        cluster: nodes and devices, see `execution.observed`; cheap to ask often.
        ready: name -> what is wrong with it, or empty; for `/readyz`.
    """

    studies: Studies
    settings: Settings
    gate: Gate
    directory: Path
    cluster: Callable[[], dict[str, Any]] = no_cluster
    ready: Callable[[], dict[str, str]] = dict
    reads: Reads = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads", Reads(self.studies))

    def seen_by(self, caller: Caller) -> Service:
        """The same with no studies in it but those that a caller sees."""
        if not caller.team:
            return self
        seen = replace(self, studies=self.studies.of(caller.team))
        object.__setattr__(seen, "reads", self.reads.of(caller.team))
        return seen

    @property
    def allowed(self) -> Allowance:
        """What studies may choose. Whoever asks a service without tokens has started it.

        Raises:
            ConfigError: the operator's file says it wrongly.
        """
        if self.settings.allow is not None:
            return read_allowance(self.settings.allow, self.settings.models, self.directory)
        if not self.gate.tokens_on:
            return Allowance.everything()
        return Allowance(models=self.settings.models, base=self.directory)

    @property
    def presets(self) -> Path:
        """Directory of the service's own presets; the command line reads it as well."""
        return self.settings.home.expanduser().absolute() / "presets"


def service(
    settings: Settings,
    *,
    runner: Runner | None = None,
    cluster: Callable[[], dict[str, Any]] = no_cluster,
    ready: Callable[[], dict[str, str]] = dict,
) -> Service:
    """The service as the settings say it.

    Raises:
        InfrastructureError: the store cannot be used.
    """
    studies = Studies(
        Store(settings.store_url),
        settings.studies,
        runner=runner,
        at_once=settings.studies_at_once,
    )
    directory = (settings.service_directory or Path.cwd()).expanduser().absolute()
    return Service(studies, settings, Gate(settings), directory, cluster, ready)


async def _serving(request: Request) -> Service:  # a plain function would cost a thread's turn
    found: Service = request.app.state.service
    return found


async def _seen(request: Request) -> Service:
    whole = await _serving(request)
    return whole.seen_by(whole.gate.caller(request))


Asked = Annotated[Service, Depends(_seen)]
"""Parameter of a route: the service it is part of, as its caller sees it."""

Serving = Annotated[Service, Depends(_serving)]
"""Parameter of a route that says nothing of any study, as to strangers, or but that there is
one: the whole service."""
