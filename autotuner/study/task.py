"""The earlier system's task JSON as a study: the same question under this project's names.

Every name that changed gets a note, and so does everything that has no place any more.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from autotuner.errors import ConfigError
from autotuner.study.domains import TYPES, canonical_keys
from autotuner.study.objective import ALIASES
from autotuner.study.quantization import respelled
from autotuner.study.space import identity, left_out


@dataclass(frozen=True)
class Converted:
    """A study's content, and a line for each name that changed or was left out."""

    content: dict[str, Any]
    notes: list[str]


@dataclass(frozen=True)
class _Engine:
    """What the earlier system knew of an engine: its image, and the flag it counted GPUs by."""

    kind: str
    image: str
    tensor_parallel: str


_ENGINES = {
    "sglang": _Engine("sglang", "lmsysorg/sglang", "tp-size"),
    "vllm": _Engine("vllm", "vllm/vllm-openai", "tensor-parallel-size"),
}
_TENSOR_PARALLEL = {"tp", "tp-size", "tensor-parallel-size"}
_STRATEGIES = {
    "grid_search": "grid",
    "grid": "grid",
    "bayesian": "optuna",
    "random": "random",
    "random_search": "random",
}
_MAX_ITERATIONS = 100
"""The earlier system's trials where a bayesian or random task did not say."""
_LATENCIES = {"p50": "e2e_latency_p50", "p90": "e2e_latency_p90", "p99": "e2e_latency_p99"}
# The names of the earlier system's database, which its API took too.
_STORED = {
    "model_config": "model",
    "optimization_config": "optimization",
    "benchmark_config": "benchmark",
    "slo_config": "slo",
}


@dataclass
class _Notes:
    """The report, in the order of the task."""

    lines: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        if line not in self.lines:
            self.lines.append(line)

    def renamed(self, old: str, new: str) -> None:
        self.add(f"{old} -> {new}")

    def unknown(self, section: Mapping[str, Any], known: Iterable[str], where: str = "") -> None:
        """What nobody takes over; a key without a value says nothing."""
        for key in section:
            if key not in set(known) and section[key] not in (None, {}, [], ""):
                self.add(f"{where}{key}: left out, there is no such thing here: {section[key]!r}")


def is_task(content: Any) -> bool:
    """Whether a file's content is the earlier system's task, and no study."""
    return isinstance(content, Mapping) and "task_name" in content and "workload" not in content


def study_of_task(content: Mapping[str, Any]) -> Converted:
    """A study's content out of a task's.

    Raises:
        ConfigError: what the task says is not what a task says; the place is the task's.
    """
    task = {_STORED.get(key, key): value for key, value in content.items()}
    notes = _Notes()
    name = _name(task.get("task_name"), notes)
    engine = _engine(task, notes)
    benchmark = _section(task, "benchmark")
    arguments, space = _parameters(_section(task, "parameters"), engine, notes)
    study: dict[str, Any] = {
        "name": name,
        "description": str(task.get("description") or ""),
        "model": _model(_section(task, "model"), benchmark, task.get("deployment_mode"), notes),
        "engine": {**_image(task.get("runtime_image_tag"), engine, notes)},
        "backend": _backend(task, notes),
        "space": space,
        "quantization": _quantization(_section(task, "quant_config"), notes),
        "workload": _workload(benchmark, notes),
        **_optimization(_section(task, "optimization"), notes),
        "slo": _slo(_section(task, "slo"), notes),
    }
    if arguments:
        study["engine"]["arguments"] = arguments
    notes.unknown(task, _TASK_KEYS)
    return Converted(
        {key: value for key, value in study.items() if value or key == "space"}, notes.lines
    )


_TASK_KEYS = (
    "task_name",
    "description",
    "deployment_mode",
    "model",
    "base_runtime",
    "runtime_image_tag",
    "parameters",
    "optimization",
    "benchmark",
    "slo",
    "quant_config",
)


def _section(task: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = task.get(name) or {}
    if not isinstance(section, Mapping):
        raise ConfigError(f"{section!r} must be a mapping", where=name)
    return dict(section)


def _name(name: Any, notes: _Notes) -> str:
    """Lower case letters, digits and dashes, at most 63."""
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{name!r} must be a text", where="task_name")
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    valid = words[:63].strip("-") or "task"
    if valid != name:
        notes.renamed(f"task_name {name!r}", f"name {valid!r}")
    return valid


def _engine(task: Mapping[str, Any], notes: _Notes) -> _Engine:
    said = str(task.get("base_runtime") or "sglang")
    for kind, engine in _ENGINES.items():
        if said.lower().startswith(kind):
            notes.renamed("base_runtime", f"engine.kind: {kind}")
            return engine
    raise ConfigError(f"{said!r} is no engine", where="base_runtime", allowed=list(_ENGINES))


def _image(tag: Any, engine: _Engine, notes: _Notes) -> dict[str, Any]:
    found: dict[str, Any] = {"kind": engine.kind}
    if not tag:
        return found
    version = re.match(r"v?(\d+\.\d+\.\d+)", str(tag))
    if version:
        # Flags are checked against this version, not against the newest.
        found["version"] = version[1]
        notes.renamed("runtime_image_tag", f"engine.version: {version[1]}")
    found["image"] = f"{engine.image}:{tag}"
    notes.renamed("runtime_image_tag", f"engine.image: {found['image']}")
    return found


def _model(
    model: Mapping[str, Any], benchmark: Mapping[str, Any], mode: Any, notes: _Notes
) -> dict[str, Any]:
    key = "id_or_path" if "id_or_path" in model else "name"
    path = model.get(key)
    if not isinstance(path, str) or not path:
        raise ConfigError(f"{path!r} must be a text", where="model.id_or_path")
    notes.renamed(f"model.{key}", "model.path")
    if "/" not in path and mode != "ome":
        notes.add(
            f"model.path: {path!r} is a directory here or an id on a hub; the earlier system "
            "looked for it in its own directory of models"
        )
    if mode != "ome":
        notes.unknown(model, (key,), "model.")
    else:
        notes.unknown(model, (key, "namespace"), "model.")
    found = {"path": path}
    served, tokenizer = benchmark.get("model_name"), benchmark.get("model_tokenizer")
    if served:
        notes.renamed("benchmark.model_name", "model.served_name")
        found["served_name"] = served
    if tokenizer and tokenizer != path:
        notes.renamed("benchmark.model_tokenizer", "model.tokenizer")
        found["tokenizer"] = tokenizer
    return found


def _backend(task: Mapping[str, Any], notes: _Notes) -> dict[str, Any]:
    mode = task.get("deployment_mode") or "docker"
    if mode not in ("docker", "ome"):
        raise ConfigError(
            f"{mode!r} is no mode", where="deployment_mode", allowed=["docker", "ome"]
        )
    notes.renamed("deployment_mode", f"backend.kind: {mode}")
    namespace = _section(task, "model").get("namespace")
    if mode == "ome" and namespace:
        notes.renamed("model.namespace", "backend.ome.namespace")
        notes.add("backend.ome: a task names no model and no runtime of OME; add both there")
        return {"kind": mode, "ome": {"namespace": namespace}}
    return {"kind": mode}


def _parameters(
    raw: Mapping[str, Any], engine: _Engine, notes: _Notes
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Flags with one value, which are fixed, and those that vary."""
    try:
        canonical = canonical_keys(raw)
    except ValueError as error:
        raise ConfigError(str(error), where="parameters") from error
    tensor = [name for name in canonical if name in _TENSOR_PARALLEL]
    if len(tensor) > 1:
        raise ConfigError(f"{tensor[0]} and {tensor[1]} are one flag", where="parameters")
    arguments: dict[str, Any] = {}
    space: dict[str, Any] = {}
    for spelled, (name, said) in zip(raw, canonical.items(), strict=True):
        if name in _TENSOR_PARALLEL:
            name = engine.tensor_parallel
        domain = _domain(said, f"parameters.{spelled}")
        if isinstance(domain, list):
            domain = _different(domain, f"parameters.{spelled}", notes)
        place = f"space.{name}"
        if domain == []:
            notes.add(f"parameters.{spelled}: left out, it has no values")
            continue
        if isinstance(domain, list) and len(domain) == 1:
            if left_out(domain[0]):
                notes.add(f"parameters.{spelled}: left out, as its only value {domain[0]!r} says")
                continue
            # The baseline has it too: one that needs four GPUs would not start without them.
            place = f"engine.arguments.{name}"
            arguments[name] = domain[0]
        else:
            space[name] = domain
        notes.renamed(f"parameters.{spelled}", place)
    return arguments, space


def _domain(said: Any, where: str) -> Any:
    """A list, or a range as a study says it."""
    if isinstance(said, list):
        return said
    if not isinstance(said, Mapping):
        return [said]
    kind = TYPES.get(str(said.get("type", "choice" if "values" in said else "")))
    if kind is None:
        raise ConfigError(
            f"{said.get('type')!r} is no type", where=f"{where}.type", allowed=list(TYPES)
        )
    rest = {key: value for key, value in said.items() if key != "type"}
    if kind == "choice" and set(rest) <= {"values"}:
        values = rest.get("values") or []
        return values if isinstance(values, list) else [values]
    return {"type": kind, **rest}


def _different(values: list[Any], where: str, notes: _Notes) -> list[Any]:
    found: dict[str, Any] = {}
    for value in values:
        found.setdefault("" if left_out(value) else identity(value), value)
    if len(found) < len(values):
        notes.add(f"{where}: a value that is listed twice is tried once")
    return list(found.values())


def _quantization(raw: Mapping[str, Any], notes: _Notes) -> dict[str, Any]:
    try:
        found = {key: value for key, value in respelled(raw).items() if value != []}
    except ValueError as error:
        raise ConfigError(str(error), where="quant_config") from error
    for old, value in raw.items():
        new = next(iter(respelled({old: value})), old)
        notes.renamed(f"quant_config.{old}", f"quantization.{new}")
    return found


def _workload(benchmark: Mapping[str, Any], notes: _Notes) -> dict[str, Any]:
    kind = benchmark.get("task") or "text-to-text"
    if kind != "text-to-text":
        raise ConfigError(
            f"{kind!r} cannot be measured", where="benchmark.task", allowed=["text-to-text"]
        )
    found: dict[str, Any] = {
        "scenarios": _scenarios(benchmark.get("traffic_scenarios"), notes),
        "concurrency": _concurrency(benchmark.get("num_concurrency"), notes),
    }
    seconds = _number(benchmark.get("max_time_per_iteration"), "max_time_per_iteration", notes)
    if seconds is not None:
        found["max_seconds"] = float(seconds * 60)
        notes.renamed(
            f"benchmark.max_time_per_iteration {seconds} (minutes)",
            f"workload.max_seconds {found['max_seconds']:g}",
        )
    count = _number(
        benchmark.get("max_requests_per_iteration"), "max_requests_per_iteration", notes
    )
    if count is not None:
        found["max_requests"] = count
        notes.renamed("benchmark.max_requests_per_iteration", "workload.max_requests")
    request = _request(benchmark.get("additional_params"), notes)
    if request:
        found["request"] = request
    notes.unknown(benchmark, _BENCHMARK_KEYS, "benchmark.")
    return found


_BENCHMARK_KEYS = (
    "task",
    "model_name",
    "model_tokenizer",
    "traffic_scenarios",
    "num_concurrency",
    "max_time_per_iteration",
    "max_requests_per_iteration",
    "additional_params",
)


def _scenarios(said: Any, notes: _Notes) -> list[str]:
    """One text, or a list that the earlier system's form may have split inside the brackets."""
    if not said or not isinstance(said, str | list):
        raise ConfigError(f"{said!r} must be a list", where="benchmark.traffic_scenarios")
    notes.renamed("benchmark.traffic_scenarios", "workload.scenarios")
    joined = said if isinstance(said, str) else ",".join(map(str, said))
    found = [re.sub(r"\s+", "", each) for each in split_list(joined)]
    if found != said:
        notes.add(f"benchmark.traffic_scenarios: {said!r} is read as {', '.join(found)}")
    return _different(found, "benchmark.traffic_scenarios", notes)


def _concurrency(said: Any, notes: _Notes) -> list[int]:
    if isinstance(said, str):
        values = parse_values(said)
    else:
        values = [
            _number(each, "num_concurrency", notes)
            for each in (said if isinstance(said, list) else [said])
        ]
    if not values or not all(type(value) is int for value in values):
        raise ConfigError(
            f"{said!r} must be a list of whole numbers", where="benchmark.num_concurrency"
        )
    notes.renamed("benchmark.num_concurrency", "workload.concurrency")
    return _different(values, "benchmark.num_concurrency", notes)


def _number(said: Any, key: str, notes: _Notes) -> Any:
    """A number, or what a text says in digits; None where there is nothing."""
    if isinstance(said, str):
        found = parse_values(said)
        notes.add(f"benchmark.{key}: the text {said!r} is read as a number")
        said = found[0] if len(found) == 1 else said
    if said is None or said == "":
        return None
    if isinstance(said, bool) or not isinstance(said, int | float):
        raise ConfigError(f"{said!r} must be a number", where=f"benchmark.{key}")
    return said


def _request(said: Any, notes: _Notes) -> dict[str, Any]:
    if isinstance(said, str) and said.strip():
        try:
            said = json.loads(said)
        except ValueError as error:
            raise ConfigError(
                f"{said!r} is not JSON", where="benchmark.additional_params"
            ) from error
    if not said:
        return {}
    if not isinstance(said, Mapping):
        raise ConfigError(f"{said!r} must be a mapping", where="benchmark.additional_params")
    notes.renamed("benchmark.additional_params", "workload.request")
    found: dict[str, Any] = {}
    for key, value in said.items():
        where = f"benchmark.additional_params.{key}"
        read = _typed(value)
        if read is not value:
            notes.add(f"{where}: the text {value!r} is read as {json.dumps(read)}")
        if key == "ignore_eos" and read is False:
            notes.add(f"{where}: left out, false would give answers of other lengths every trial")
            continue
        found[key] = read
    return found


def _typed(value: Any) -> Any:
    """A number or truth value that was stored as a text; an engine compares it as one."""
    values = parse_values(value) if isinstance(value, str) and value[:1] not in "'\"" else []
    return values[0] if len(values) == 1 and not isinstance(values[0], str) else value


def _optimization(raw: Mapping[str, Any], notes: _Notes) -> dict[str, Any]:
    strategy = _one_of(_STRATEGIES, raw.get("strategy") or "grid_search", "strategy")
    objective = _one_of(ALIASES, raw.get("objective") or "minimize_latency", "objective")
    kind = _STRATEGIES[strategy]
    search: dict[str, Any] = {"kind": kind}
    notes.renamed(f"optimization.strategy {strategy}", f"search.kind: {kind}")
    notes.renamed(f"optimization.objective {objective}", f"objectives: [{ALIASES[objective]}]")
    limits: dict[str, Any] = {}
    iterations = raw.get("max_iterations")
    if iterations is not None:
        limits["trials"] = iterations
        notes.renamed("optimization.max_iterations", "limits.trials")
    elif kind != "grid":
        limits["trials"] = _MAX_ITERATIONS
        notes.add(f"limits.trials: {_MAX_ITERATIONS}, as a task without max_iterations had")
    startup = raw.get("n_initial_random")
    if startup and kind == "optuna":
        search["startup_trials"] = startup
        notes.renamed("optimization.n_initial_random", "search.startup_trials")
    elif startup is not None:
        notes.add(f"optimization.n_initial_random: left out, {kind} has no random beginning")
    if raw.get("timeout_per_iteration") is not None:
        limits["trial_seconds"] = raw["timeout_per_iteration"]
        notes.renamed("optimization.timeout_per_iteration", "limits.trial_seconds")
    notes.unknown(raw, _OPTIMIZATION_KEYS, "optimization.")
    return {"objectives": [ALIASES[objective]], "search": search, "limits": limits}


def _one_of(known: Mapping[str, str], said: Any, what: str) -> str:
    if isinstance(said, str) and said in known:
        return said
    raise ConfigError(f"{said!r} is no {what}", where=f"optimization.{what}", allowed=list(known))


_OPTIMIZATION_KEYS = (
    "strategy",
    "objective",
    "max_iterations",
    "n_initial_random",
    "timeout_per_iteration",
)


def _slo(raw: Mapping[str, Any], notes: _Notes) -> dict[str, Any]:
    """The earlier system's bounds in its own mode, the penalty."""
    rows: dict[str, Any] = {}
    latency = raw.get("latency") or {}
    if not isinstance(latency, Mapping):
        raise ConfigError(f"{latency!r} must be a mapping", where="slo.latency")
    for key, metric in _LATENCIES.items():
        _row(rows, metric, latency.get(key), f"slo.latency.{key}", notes)
    for key in ("ttft", "tpot"):
        _row(rows, f"{key}_mean", raw.get(key), f"slo.{key}", notes)
    notes.unknown(latency, _LATENCIES, "slo.latency.")
    notes.unknown(raw, ("latency", "ttft", "tpot", "steepness"), "slo.")
    if not rows:
        return {}
    steepness = raw.get("steepness")
    notes.add("slo: in the mode `penalty`, as the task meant it; `constraint` is the default here")
    return {"mode": "penalty", **({} if steepness is None else {"steepness": steepness}), **rows}


def _row(rows: dict[str, Any], metric: str, said: Any, where: str, notes: _Notes) -> None:
    if said is None or said == {}:
        return
    if not isinstance(said, Mapping):
        said = {"threshold": said}
    if said.get("threshold") is None:
        notes.add(f"{where}: left out, it has no threshold")
        return
    names = {
        "threshold": "max",
        "weight": "weight",
        "hard_fail": "hard",
        "fail_ratio": "fail_ratio",
    }
    rows[metric] = {new: said[old] for old, new in names.items() if said.get(old) is not None}
    notes.renamed(where, f"slo.{metric}")
    notes.unknown(said, names, f"{where}.")


_WHOLE = re.compile(r"[-+]?[0-9]{1,18}")
"""Longer ones are identifiers, which a number would round somewhere on their way."""
_DECIMAL = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?")


def parse_values(text: str) -> list[Any]:
    """A person's comma list as values: a number, true or false in any case, else the text.

    Each on its own, and only where the whole of it is one: ``4bit`` and ``127.0.0.1`` stay
    text, as does what stands in quotes. Commas inside brackets do not part; empties are dropped.
    """
    return [_value(each) for each in split_list(text)]


def _value(text: str) -> Any:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    if _WHOLE.fullmatch(text):
        return int(text)
    if _DECIMAL.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    return {"true": True, "false": False}.get(text.lower(), text)


def split_list(text: str) -> list[str]:
    """A comma list in its parts, which may hold commas in brackets themselves, as
    ``D(100,100), N(480,240)/(300,150)`` does."""
    parts, depth, start = [], 0, 0
    for place, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}" and depth > 0)
        if char == "," and depth == 0:
            parts.append(text[start:place])
            start = place + 1
    return [part.strip() for part in (*parts, text[start:]) if part.strip()]
