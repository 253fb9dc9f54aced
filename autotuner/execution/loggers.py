"""MLflow and Weights & Biases as mirrors of a study, through Ray Tune's own callbacks for them.

The callbacks are told of our trials, not of Tune's: a Tune trial is one attempt of one of ours, its
configuration and results are our own objects, and of objectives and bounds it knows nothing.
They get plain names and numbers, one result for each load point and one for the outcome. Tune does
not see them, so that nothing of an address or a key is in what Tune writes to files.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotuner.errors import AutotunerError
from autotuner.export import command_text, launch_of
from autotuner.mirrors.base import LAST_SECONDS, Mirror
from autotuner.mirrors.optuna import OptunaMirror
from autotuner.study.space import Parameters, Value, identity
from autotuner.study.spec import StudySpec
from autotuner.study.study import Study
from autotuner.study.trial import Trial, TrialState

STEP = "training_iteration"
"""Tune's name for the number of a result."""

LONGEST_TEXT = 500
"""Characters of a value or a reason: the least that MLflow's servers allow."""

FAILED = (TrialState.INFEASIBLE, TrialState.FAILED, TrialState.CANCELLED)

MakeCallback = Callable[[Study], Any]
"""A `ray.tune.logger.LoggerCallback` for a study."""


def mirrors(*, optuna: str = "", mlflow: str = "", wandb: str = "") -> list[Mirror]:
    """The mirrors that an operator has asked for; to be called once Ray may be imported.

    Args:
        optuna: URL of a storage.
        mlflow: tracking URI.
        wandb: project.
    """
    found: list[Mirror] = []
    if optuna:
        found.append(OptunaMirror(optuna, command))
    if mlflow:
        found.append(mlflow_mirror(mlflow))
    if wandb:
        found.append(wandb_mirror(wandb))
    return found


def command(spec: StudySpec, parameters: Parameters) -> str:
    """The launch line of a point, or nothing where its engine has none."""
    try:
        return command_text(launch_of(spec, parameters))
    except AutotunerError:
        return ""


def mlflow_mirror(uri: str) -> Mirror:
    """Trials as runs of the experiment named as the study, at an MLflow tracking URI."""
    # Here, and not where it is used: Ray's modules import each other in circles, which two threads
    # that begin at different ends do not survive.
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    def made(study: Study) -> Any:
        return MLflowLoggerCallback(
            uri,
            experiment_name=study.name,
            tags={"study": study.name, "engine": " / ".join(study.spec.engine.kinds)},
            log_params_on_trial_end=True,  # state and reason are among them
        )

    return LoggerMirror("MLflow", made)


def wandb_mirror(project: str) -> Mirror:
    """Trials as runs of a project, grouped by study. Key, mode and server are those that wandb
    finds in this process's environment, or in what `wandb login` left."""
    from autotuner.execution.wandb_logger import PrivateWandbCallback

    def made(study: Study) -> Any:
        return PrivateWandbCallback(
            project,
            group=study.name,
            upload_timeout=int(LAST_SECONDS) - 5,
            dir=study.directory,
        )

    return LoggerMirror("Weights & Biases", made)


@dataclass(frozen=True, eq=False)
class Shown:
    """What the callbacks ask of a Tune trial."""

    trial_id: str
    name: str
    config: dict[str, Any]
    experiment_dir_name: str
    local_path: str

    def __str__(self) -> str:
        return self.name


class LoggerMirror:
    """A mirror that is one of Tune's logger callbacks.

    Trials that had ended when the study was resumed are not told again: these loggers make a new
    run of whatever they are told.
    """

    def __init__(self, name: str, make: MakeCallback) -> None:
        self.name = name
        self._make = make
        self._callback: Any = None
        self._study: Study | None = None
        self._shown: dict[int, Shown] = {}
        self._results: dict[int, int] = {}
        self._over: set[int] = set()
        # A run's id is never given twice, whatever was restarted, resumed or deleted.
        self._run = secrets.token_hex(4)

    def begun(self, study: Study, trials: Sequence[Trial]) -> None:
        self._study = study
        self._callback = self._make(study)
        self._callback.setup()
        self._over = {trial.number for trial in trials if trial.state.answered}

    def changed(self, trial: Trial) -> None:
        # Of refused points there may be thousands.
        if trial.number in self._over or trial.refused or trial.state is TrialState.PENDING:
            return
        shown = self._shown.get(trial.number) or self._started(trial)
        points = [point for point in trial.load_points if not point.probe]
        for point in points[self._results[trial.number] :]:
            self._tell(trial.number, {**numbers(point.metrics), "seconds": point.seconds})
        if trial.state.ended:
            self._tell(trial.number, {**outcome(trial), "config": words(trial)})
            shown.config.update(words(trial))
            self._callback.log_trial_end(shown, failed=trial.state in FAILED)
            self._over.add(trial.number)

    def ended(self) -> None:
        for number, shown in self._shown.items():
            if number not in self._over:
                self._callback.log_trial_end(shown, failed=True)
        self._callback.on_experiment_end([])
        self._callback = None  # that of wandb asks Ray about its end, which must still be there

    def _started(self, trial: Trial) -> Shown:
        assert self._study is not None
        name = f"{self._study.name}-{trial.number}"
        shown = Shown(
            trial_id=f"{name}-{self._run}",
            name=name,
            config={key: plain(value) for key, value in trial.parameters.items()},
            experiment_dir_name=self._study.name,
            local_path=self._study.directory,
        )
        self._shown[trial.number] = shown
        self._results[trial.number] = 0
        Path(shown.local_path).mkdir(parents=True, exist_ok=True)
        self._callback.log_trial_start(shown)
        return shown

    def _tell(self, number: int, result: dict[str, Any]) -> None:
        self._results[number] += 1
        step = self._results[number]
        self._callback.log_trial_result(step, self._shown[number], {STEP: step, **result})


def outcome(trial: Trial) -> dict[str, float]:
    """What a trial came to, in numbers."""
    return {
        **{f"objective/{name}": value for name, value in numbers(trial.objectives).items()},
        **{f"violation/{name}": value for name, value in numbers(trial.violations).items()},
        "feasible": float(trial.feasible),
        "trial_seconds": trial.seconds,
        "gpu_hours": trial.gpu_hours,
    }


def words(trial: Trial) -> dict[str, str]:
    """The same in words, where there are any."""
    said = {
        "state": trial.state.value,
        "failure": trial.failure.value if trial.failure else "",
        "reason": trial.reason,
        "why": trial.why,
        "repeat_of": "" if trial.repeat_of is None else str(trial.repeat_of),
    }
    return {f"trial.{name}": text[:LONGEST_TEXT] for name, text in said.items() if text}


def numbers(metrics: Any) -> dict[str, float]:
    """What of the metrics is known."""
    return {
        name: float(value)
        for name, value in metrics.items()
        if value is not None and math.isfinite(value)
    }


def plain(value: Value) -> Value:
    """A parameter's value as it is, or as text where it is no number and no text."""
    if isinstance(value, bool | int | float):
        return value
    return (value if isinstance(value, str) else identity(value))[:LONGEST_TEXT]
