"""The seam for backends: where servers run. Plan, start, stop, and sweep what was left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from autotuner.serving import Ending, Inspection, LaunchSpec, Place, Plan, Slot
from autotuner.settings import Site
from autotuner.study.space import Parameters
from autotuner.study.spec import StudySpec


class Server(Protocol):
    """A started server.

    1. `alive` is False once the program has ended, whatever of it is left.
    2. `log` holds everything it printed from its first line, also after it died. Whoever follows
       `server.log` beside the plan sees it grow while the server lives and `alive` is asked.
    3. `stop` may be called twice, and returns when nothing of it is left: no process, no GPU
       memory. InfrastructureError when that takes longer than `seconds`, and longer than the
       place itself allows a dying server: Kubernetes' 30 s are not ours to shorten.
    4. `ending` is asked for once it is no longer alive, and never fails.
    5. `log` shows no secret that the server was given, nor does `server.log` once it was stopped.
    """

    @property
    def name(self) -> str:
        """Its name in its place: a PID, that of a container."""

    @property
    def url(self) -> str | None:
        """Its base URL as reached from this process, without a path; None: not known yet."""

    @property
    def node(self) -> str | None:
        """The node it runs on, as its place calls it, where that need not be this machine; None:
        this one, or not known yet. Known once, also after its death and `stop`."""

    def alive(self) -> bool: ...

    def log(self) -> str: ...

    def ending(self) -> Ending: ...

    def stop(self, seconds: float) -> None: ...


class Backend(Protocol):
    """A place to run servers, opened with a study's options and the operator's site.

    1. `plan` starts nothing and is a function of its arguments; equal arguments give equal
       plans, and a plan is JSON without secrets.
    2. `start` returns at once: a server that cannot come up says so by dying.
       InfrastructureError, here or from `alive`, where the place cannot start programs.
    3. Whatever `start` made is gone within `gone_seconds` of the death of the process that
       called it, however that process died.
    4. What is started carries labels (study, trial, owner); `sweep` finds it by them alone.
    5. `prepare` gets what all trials on this machine share, such as the image, and says how it
       gets on; it returns at once where everything is there. InfrastructureError.
    6. `examine` never raises; what it finds first is whether the place itself answers.
    """

    @property
    def place(self) -> Place: ...

    @property
    def gone_seconds(self) -> float: ...

    @property
    def gpu_resource(self) -> str:
        """The Ray resource that a trial's GPUs are counted in."""

    def plan(self, launch: LaunchSpec, slot: Slot) -> Plan: ...

    def shown(self, plan: Plan) -> Mapping[str, Any]:
        """What the plan says otherwise than its launch, of ``argv``, ``environment``, ``image`` and
        ``runtime`` (whose command the arguments are behind): for people who ask what would run."""

    def prepare(self, launch: LaunchSpec, said: Callable[[str], None]) -> None: ...

    def start(self, plan: Plan) -> Server: ...

    def left(self, study: str | None = None) -> list[str]:
        """What is here that carries our labels, with or without an owner."""

    def sweep(self, study: str | None = None, *, owned: bool = False) -> list[str]:
        """Remove what has no living owner, of one study or of all; say what was removed.

        Args:
            owned: also what still has an owner.
        """

    def examine(self, launch: LaunchSpec | None = None) -> list[Inspection]:
        """What is here, and what is missing to run servers, or this one."""

    def exports(self, spec: StudySpec, point: Parameters) -> Mapping[str, str]:
        """Files that serving such a point needs beside its plan, by name: rights, manifests."""


class BackendKind(Protocol):
    """What the table of kinds names. Importing it is cheap: a vendor's library is imported when
    a backend is opened or later.

    Attributes:
        local: its servers are programs of this machine, so what a study names must be here.
        spans_nodes: one server of it may be several programs, on as many nodes.
    """

    @property
    def local(self) -> bool: ...

    @property
    def spans_nodes(self) -> bool: ...

    def check(self, options: Mapping[str, Any]) -> None:
        """Raise ConfigError where an option is not this backend's."""

    def open(self, options: Mapping[str, Any], site: Site) -> Backend: ...
