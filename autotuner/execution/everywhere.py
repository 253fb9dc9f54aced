"""What a study needs of every node before its first trial, and what it leaves on none."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from ray.util.queue import Empty, Queue

from autotuner.backends.base import Backend, BackendKind
from autotuner.errors import InfrastructureError
from autotuner.execution.doctor import Examined, Patient, baselines
from autotuner.execution.nodes import (
    Said,
    answered,
    asked_of_every_node,
    connected,
    counted,
    on_every_node,
)
from autotuner.execution.reservation import GPU
from autotuner.plugins import load_kind
from autotuner.serving import Inspection, LaunchSpec
from autotuner.settings import Site
from autotuner.study.spec import StudySpec

PREPARE_SECONDS = 3600.0
"""For all nodes: images of engines are many GiB."""

POLL_SECONDS = 0.5

CLUSTER = "the cluster"
"""What is found of all nodes together, beside the nodes."""


def prepare_everywhere(
    spec: StudySpec,
    backend: Backend,
    site: Site,
    said: Callable[[str], None],
    seconds: float = PREPARE_SECONDS,
) -> None:
    """Have every node get what the study's servers share, all at the same time.

    Raises:
        InfrastructureError: no node can.
    """
    if not backend.place.image:
        return
    if backend.gpu_resource != GPU:
        # One place for all nodes. Whoever is asked also watches it from here on, so that what a
        # lost machine started there is removed when its lease ends, and not with the next trial.
        for launch in baselines(spec, backend.place):
            backend.prepare(launch, said)
        return
    progress = Queue(actor_options={"num_cpus": 0})
    try:
        work = partial(_prepare_here, spec, baselines(spec, backend.place), site, progress)
        asked = asked_of_every_node(work, name="prepare")
        deadline = time.monotonic() + seconds
        late, broken = list(asked), list[Said[None]]()
        while late and time.monotonic() < deadline:
            answers: list[Said[None]]
            answers, late = answered(asked, late, seconds=POLL_SECONDS)
            for line in _heard(progress):
                said(line)
            broken += [each for each in answers if each.problem]
            for each in answers:
                said(f"{each.node}: {each.problem or 'ready'}")
            if len(broken) == len(asked):
                raise InfrastructureError(broken[0].problem)
        if late:
            raise InfrastructureError(
                f"{len(late)} of {len(asked)} nodes were not ready after {seconds:g} s; "
                "get the images there by other means, and run the study again"
            )
    finally:
        progress.shutdown(force=True)


def sweep_everywhere(spec: StudySpec, site: Site) -> list[str]:
    """Remove what the study left on any node; say what, and which node did not answer."""
    said: list[Said[list[str]]] = on_every_node(partial(_sweep_here, spec, site), name="sweep")
    return [
        f"{each.node}: {text}" for each in said for text in (each.answer or [each.problem]) if text
    ]


def examined_everywhere(patient: Patient) -> dict[str, list[Inspection]]:
    """What the cluster of RAY_ADDRESS can hold, and what each of its nodes says of itself.

    Raises:
        InfrastructureError: there is no such cluster.
    """
    with connected(None):
        nodes = counted()
        said: list[Said[Examined]] = on_every_node(patient.looked_at, name="doctor")
    together = patient.of_cluster([node.resources for node in nodes])
    found = {CLUSTER: together} if together else {}
    by_name = {node.name: node.resources for node in nodes}
    for each in sorted(said, key=lambda each: each.node):
        if each.answer is None:
            found[each.node] = [Inspection("node", False, each.problem)]
            continue
        of_ray = patient.of_node(by_name.get(each.node, {}), each.answer.gpus)
        found[each.node] = [*each.answer.inspections, of_ray]
    return found


def _prepare_here(
    spec: StudySpec, launches: Sequence[LaunchSpec], site: Site, progress: Queue
) -> None:
    backend = _opened(spec, site)
    for launch in launches:
        backend.prepare(launch, progress.put)


def _sweep_here(spec: StudySpec, site: Site) -> list[str]:
    return _opened(spec, site).sweep(spec.name)


def _opened(spec: StudySpec, site: Site) -> Backend:
    kind: BackendKind = load_kind("backend", spec.backend.kind)
    return kind.open(spec.backend.options, site)


def _heard(progress: Queue) -> list[str]:
    heard = []
    while True:
        try:
            heard.append(str(progress.get(block=False)))
        except Empty:
            return heard
