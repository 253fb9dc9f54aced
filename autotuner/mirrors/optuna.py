"""A study's trials in an Optuna storage, whatever its searcher, for optuna-dashboard.

Trial N here is trial N there, repeats for the verdict and refused points included. What can only be
told by changing what Optuna holds for ended, such as a trial that is run again after `resume`,
makes the whole mirrored study anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import BaseStorage, RDBStorage, get_storage
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as Theirs

from autotuner.errors import AutotunerError, InfrastructureError, StudyStateError
from autotuner.masking import without_passwords
from autotuner.study.metrics import METRICS, Better
from autotuner.study.space import Choice, Domain, Int, Parameters, Value, identity, same
from autotuner.study.spec import StudySpec
from autotuner.study.study import Study
from autotuner.study.trial import Trial, TrialState

optuna.logging.set_verbosity(optuna.logging.ERROR)

CONSTRAINTS = "constraints"
"""Attribute of a trial in which Optuna and its dashboard look for violations, as a list."""

METRIC_NAMES = "study:metric_names"
"""Attribute of a study in which both look for what its objectives are called."""

OURS = "autotuner"
"""Attribute of a study that is a mirror: of which one, and begun when."""

Command = Callable[[StudySpec, Parameters], str]
"""The launch line of a point; empty where there is none."""


def no_command(spec: StudySpec, parameters: Parameters) -> str:  # noqa: ARG001
    return ""


class OptunaMirror:
    """A `mirrors.base.Mirror` in the storage of a URL, such as ``sqlite:///optuna.db``."""

    name = "Optuna"

    def __init__(self, url: str, command: Command = no_command) -> None:
        self._url = url
        self._command = command
        self._study: Study | None = None
        self._pictures: dict[int, FrozenTrial] = {}
        self._door: RDBStorage | None = None

    def begun(self, study: Study, trials: Sequence[Trial]) -> None:
        self._study = study
        for trial in trials:
            self._pictures[trial.number] = picture(study.spec, trial, self._command)
        self._door = opened(self._url)
        self._mirror()

    def changed(self, trial: Trial) -> None:
        assert self._study is not None
        self._pictures[trial.number] = picture(self._study.spec, trial, self._command)
        self._mirror()

    def ended(self) -> None:
        if self._door is not None:
            self._door.engine.dispose()

    def _mirror(self) -> None:
        assert self._study is not None
        assert self._door is not None
        pictures = [self._pictures[number] for number in sorted(self._pictures)]
        mirror(get_storage(self._door), self._study, pictures)


def copied(
    url: str, studies: Iterable[tuple[Study, Sequence[Trial]]], command: Command = no_command
) -> Iterator[Study]:
    """Have the storage of a URL show these studies as they are now; each one, once it does.

    Raises:
        InfrastructureError: the storage cannot be used.
        StudyStateError: it has a study of such a name that is none of ours.
    """
    door = opened(url)
    try:
        for study, trials in studies:
            pictures = [picture(study.spec, trial, command) for trial in trials]
            mirror(get_storage(door), study, pictures)
            yield study
    except AutotunerError:
        raise
    except Exception as error:
        raise _unusable(error) from error
    finally:
        door.engine.dispose()


def opened(url: str) -> RDBStorage:
    """A storage; its tables are made where they are missing.

    Raises:
        InfrastructureError: it cannot be used.
    """
    # The dashboard reads while we write.
    patience = {"connect_args": {"timeout": 30}} if url.startswith("sqlite") else {}
    try:
        return RDBStorage(url, engine_kwargs=patience)
    except Exception as error:
        raise _unusable(error) from error


def _unusable(error: Exception) -> InfrastructureError:
    """Of SQLAlchemy's, Alembic's and the drivers' own errors, which have no base in common."""
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return InfrastructureError(f"the Optuna storage cannot be used: {without_passwords(said)}")


def mirror(storage: BaseStorage, study: Study, pictures: Sequence[FrozenTrial]) -> None:
    """Have a storage show a study as it is now; changes nothing where it already does.

    Args:
        pictures: of all its trials, by number.

    Raises:
        StudyStateError: the storage has a study of that name that is none of ours.
    """
    id = _there(storage, study)
    shown = [] if id is None else storage.get_all_trials(id, deepcopy=False)
    if id is not None and not _goes_on(shown, pictures):
        storage.delete_study(id)
        id, shown = None, []
    if id is None:
        id = _made(storage, study)
    for there, picture in zip(shown, pictures, strict=False):
        _bring_up(storage, id, there, picture)
    for picture in pictures[len(shown) :]:
        storage.create_new_trial(id, template_trial=picture)


def picture(spec: StudySpec, trial: Trial, command: Command = no_command) -> FrozenTrial:
    """A trial as Optuna has it."""
    state = _state(spec, trial)
    within = [
        parameter
        for parameter in spec.parameter_space.parameters
        if parameter.name in trial.parameters
        and parameter.domain.holds(trial.parameters[parameter.name])
    ]
    violations = {name: _paid(trial, value) for name, value in trial.violations.items()}
    made = optuna.trial.create_trial(
        state=state,
        values=_values(spec, trial) if state is Theirs.COMPLETE else None,
        params={each.name: _told(each.domain, trial.parameters[each.name]) for each in within},
        distributions={each.name: distribution(each.domain) for each in within},
        user_attrs=_attributes(spec, trial, command),
        system_attrs={CONSTRAINTS: list(violations.values())} if violations else {},
        intermediate_values=_on_the_way(spec, trial),
    )
    made.datetime_start = _local(trial.started_at or trial.created_at)
    if state is Theirs.WAITING:
        made.datetime_start = None
    if state.is_finished():
        made.datetime_complete = _local(trial.ended_at) or made.datetime_start
    return made


def distribution(domain: Domain) -> BaseDistribution:
    """A domain as Optuna has it; choices that are no plain texts or numbers become texts."""
    if isinstance(domain, Choice):
        return CategoricalDistribution(_categories(domain))
    if isinstance(domain, Int):
        return IntDistribution(domain.low, domain.grid()[-1], log=domain.log, step=domain.step or 1)
    top = domain.grid()[-1] if domain.step is not None else domain.high
    return FloatDistribution(domain.low, top, log=domain.log, step=domain.step)


def _categories(domain: Choice) -> list[Any]:
    values = domain.values
    if all(isinstance(each, str) for each in values) or all(map(_is_number, values)):
        return list(values)
    texts = [each if isinstance(each, str) else identity(each) for each in values]
    # A text "null" beside null, and the like.
    return texts if len(set(texts)) == len(texts) else [identity(each) for each in values]


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _told(domain: Domain, value: Value) -> Any:
    if not isinstance(domain, Choice):
        return value
    categories = _categories(domain)
    return next(c for c, each in zip(categories, domain.values, strict=True) if same(each, value))


def _state(spec: StudySpec, trial: Trial) -> Theirs:
    """Where nothing was measured, Optuna knows no more than that it failed: the reason is an
    attribute. Where it was, and a bound was broken, constraints say so."""
    if trial.state is TrialState.PENDING:
        return Theirs.WAITING
    if not trial.state.ended:
        return Theirs.RUNNING
    if trial.state is TrialState.STOPPED:
        return Theirs.PRUNED
    measured = trial.state is TrialState.COMPLETE and _values(spec, trial) is not None
    return Theirs.COMPLETE if measured else Theirs.FAIL


def _values(spec: StudySpec, trial: Trial) -> list[float] | None:
    """The objectives as they are ranked; None unless all are known."""
    scores = [trial.scores.get(name) for name in spec.objectives]
    known = [score for score in scores if score is not None and math.isfinite(score)]
    return known if len(known) == len(scores) else None


def _paid(trial: Trial, violation: float) -> float:
    """A bound that is broken and paid for in the score is none that was broken."""
    return min(violation, 0.0) if trial.feasible else violation


def _on_the_way(spec: StudySpec, trial: Trial) -> dict[int, float]:
    """The first objective at each load point, where it is a metric of load points."""
    name = spec.objectives[0]
    found = {point.index: point.metrics.get(name) for point in trial.load_points if not point.probe}
    return {
        index: value for index, value in found.items() if value is not None and math.isfinite(value)
    }


def _attributes(spec: StudySpec, trial: Trial, command: Command) -> dict[str, Any]:
    ended = trial.state.ended
    said: dict[str, Any] = {
        "number": trial.number,
        "state": trial.state.value if ended else "",
        "parameters": dict(trial.parameters),
        "command": command(spec, trial.parameters),
        "failure": trial.failure.value if trial.failure else "",
        "reason": trial.reason,
        "advice": trial.advice,
        "why": trial.why,
        "repeat_of": trial.repeat_of,
        "violations": dict(trial.violations),
        # What was measured, where the score is not.
        "objectives": dict(trial.objectives) if trial.penalty != 1 else {},
        "node": trial.node if ended else "",
    }
    return {name: value for name, value in said.items() if value not in ("", None, {})}


def _local(stored: str) -> datetime | None:
    """Optuna's times are those of this machine's clock, without a zone."""
    if not stored:
        return None
    return datetime.fromisoformat(stored).astimezone().replace(tzinfo=None)


def _identity(study: Study) -> dict[str, str]:
    """Which study a mirror shows. One that is restarted, or was edited, begins anew."""
    return {"created_at": study.created_at, "started_at": study.started_at}


def _there(storage: BaseStorage, study: Study) -> int | None:
    """Id of the mirrored study; one that showed what the study was before is deleted."""
    try:
        id = storage.get_study_id_from_name(study.name)
    except KeyError:
        return None
    ours = storage.get_study_user_attrs(id).get(OURS)
    if ours is None:
        raise StudyStateError(
            f"the Optuna storage has a study named {study.name!r} that autotuner did not make"
        )
    if ours == _identity(study):
        return id
    storage.delete_study(id)
    return None


def _made(storage: BaseStorage, study: Study) -> int:
    spec = study.spec
    higher = optuna.study.StudyDirection.MAXIMIZE
    lower = optuna.study.StudyDirection.MINIMIZE
    id = storage.create_new_study(
        [higher if METRICS[name].better is Better.HIGHER else lower for name in spec.objectives],
        study.name,
    )
    storage.set_study_system_attr(id, METRIC_NAMES, list(spec.objectives))
    said = {
        OURS: _identity(study),
        "description": spec.description,
        "model": spec.model.path,
        "engine": " / ".join(spec.engine.kinds),
        "backend": spec.backend.kind,
        "search": spec.search.kind,
        CONSTRAINTS: [each.text for each in spec.bounds],
    }
    for name, value in said.items():
        if value not in ("", []):
            storage.set_study_user_attr(id, name, value)
    return id


def _goes_on(shown: Sequence[FrozenTrial], pictures: Sequence[FrozenTrial]) -> bool:
    """Whether what is shown can become what is: Optuna lets no ended trial be changed."""
    if len(shown) > len(pictures):
        return False
    for there, picture in zip(shown, pictures, strict=False):
        if there.params != picture.params:
            return False
        if there.state.is_finished() and _shows(there) != _shows(picture):
            return False
    return True


def _shows(trial: FrozenTrial) -> tuple[Any, ...]:
    return (
        trial.state,
        trial.values,
        trial.intermediate_values,
        trial.user_attrs,
        trial.system_attrs.get(CONSTRAINTS),
    )


def _bring_up(storage: BaseStorage, study: int, there: FrozenTrial, picture: FrozenTrial) -> None:
    if there.state.is_finished():
        return
    id = storage.get_trial_id_from_study_id_trial_number(study, there.number)
    for step, value in _new(there.intermediate_values, picture.intermediate_values).items():
        storage.set_trial_intermediate_value(id, step, value)
    for name, value in _new(there.user_attrs, picture.user_attrs).items():
        storage.set_trial_user_attr(id, name, value)
    for name, value in _new(there.system_attrs, picture.system_attrs).items():
        storage.set_trial_system_attr(id, name, value)
    # One that waits again for another attempt is shown as running: there is no way back.
    if picture.state not in (there.state, Theirs.WAITING):
        storage.set_trial_state_values(id, picture.state, picture.values)


def _new(there: Mapping[Any, Any], wanted: Mapping[Any, Any]) -> dict[Any, Any]:
    return {k: v for k, v in wanted.items() if k not in there or there[k] != v}
