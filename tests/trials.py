"""A whole trial in the test's own process, as the actor runs it step by step."""

from __future__ import annotations

from collections.abc import Callable

from autotuner.errors import TrialError
from autotuner.execution.trial import Assignment, Kinds, TrialRun
from autotuner.settings import Site
from autotuner.study.trial import Outcome, TrialState


def run_trial(
    assignment: Assignment,
    kinds: Kinds,
    *,
    gpu_ids: tuple[str, ...] = (),
    site: Site | None = None,
    notify: Callable[[TrialState, str], None] = lambda state, note: None,
) -> Outcome:
    """A whole trial in this process; `notify` hears of each state and phase as it begins.

    Raises:
        InfrastructureError: the machine is at fault; nothing is left running.
    """
    run = TrialRun(assignment, kinds, gpu_ids=gpu_ids, site=site)
    error: TrialError | None = None
    try:
        notify(TrialState.DEPLOYING, "")
        run.deploy()
        while (load := assignment.spec.next_load(run.load_points)) is not None:
            notify(TrialState.BENCHMARKING, load.name)
            run.measure(load)
    except TrialError as caught:
        error = caught
    finally:
        run.stop()
    return run.outcome(error)
