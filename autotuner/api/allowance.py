"""What a study that comes by HTTP may choose: values in, refusals out; nothing is started.

Whoever sends a study must not come to run programs, read files or reach machines of the
operator's by it. So a study chooses only what is harmless, or what the operator names in the file
of AUTOTUNER_ALLOW. Which of its flags and variables are harmless an engine says itself, see
`engines.base.Harmless`. What nobody has decided about, such as a flag that is new in an engine, or
any of an engine that says nothing, is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from autotuner.api.allow_file import Allowance, Options, matches, shown
from autotuner.api.flag_values import WORD, judged, smuggled
from autotuner.engines.base import Engine, Harmless, harmless_of
from autotuner.engines.catalog import (
    Catalog,
    known_engines,
    known_versions,
    load_catalog,
    read_catalog,
)
from autotuner.errors import ConfigError
from autotuner.plugins import KINDS, kinds, load_kind
from autotuner.study.domains import space_of
from autotuner.study.presets import Preset
from autotuner.study.space import ENVIRONMENT, Choice, Parameter
from autotuner.study.spec import EngineSettings, StudySpec


def refusals(spec: StudySpec, allowed: Allowance) -> list[ConfigError]:
    """What a study chooses that it may not; each says what may be, and what to ask for.

    It is asked before the study's files are looked at: only whether a path is there, and where
    its links lead, is seen.
    """
    if allowed.named.everything:
        return []
    found = [*_models(spec, allowed), *_options(spec, allowed), *_requests(spec, allowed)]
    several = not isinstance(spec.engine.kind, str)
    for kind in spec.engine.kinds:
        below = f".settings.{kind}" if several else ""
        within = f".{kind}" if several else ""
        found += _launch(spec.alone(kind).engine, kind, f"engine{below}", allowed)
        found += _varied(spec.alone(kind), f"engine{below}", f"space{within}", allowed)
    return found


def preset_refusals(preset: Preset, allowed: Allowance, within: str = "") -> list[ConfigError]:
    """What a preset holds that no study from afar may choose, for whichever version of its
    engine, or of every engine where it names none.

    Args:
        within: before the place in an error.
    """
    if allowed.named.everything:
        return []
    found: list[ConfigError] = []
    for parameter in space_of(preset.parameters).parameters:
        where = f"{within}parameters.{parameter.name}"
        if parameter.name.startswith(ENVIRONMENT):
            found += _variable(
                parameter.name.removeprefix(ENVIRONMENT), where, preset.engine, allowed
            )
        else:
            found += _preset_flag(parameter, where, preset.engine, allowed)
    return found


def _preset_flag(
    parameter: Parameter, where: str, engine: str | None, allowed: Allowance
) -> list[ConfigError]:
    """The first reason that any catalog gives which has the flag."""
    engines = [engine] if engine else known_engines()
    having: list[tuple[str, Catalog | None]] = [
        (kind, catalog)
        for kind in engines
        if kind in known_engines()
        for catalog in (load_catalog(kind, version) for version in known_versions(kind))
        if catalog.find(parameter.name) is not None
    ]
    for kind, catalog in having or [(engines[0], None)]:
        known = _Known(kind, _harmless(kind), catalog)
        found = list(_flag(parameter.name, _values(parameter), where, known, allowed))
        if found:
            return found
    return []


def _refused(
    said: Any, where: str, key: str, allowed: Sequence[str] = (), hint: str = ""
) -> ConfigError:
    return ConfigError(
        f"{shown(said)} may not be chosen by a study that comes by HTTP",
        where=where,
        allowed=allowed,
        hint=hint or f"ask the operator to name it under `{key}` in the file of AUTOTUNER_ALLOW",
    )


# Models and files


def _models(spec: StudySpec, allowed: Allowance) -> Iterator[ConfigError]:
    for name in ("path", "tokenizer"):
        said = getattr(spec.model, name)
        if said is not None and not allowed.has_model(said):
            yield _model_refused(said, f"model.{name}", allowed)
    if spec.model.served_name.startswith("-"):
        yield _refused(
            spec.model.served_name,
            "model.served_name",
            "",
            hint="engines would take it for a flag; begin it with a letter or digit",
        )
    system = spec.prior.system if spec.prior else None
    if system is not None and not WORD.fullmatch(system):
        yield _refused(system, "prior.system", "", hint="a name is meant, such as h100_sxm")


def _model_refused(said: str, where: str, allowed: Allowance) -> ConfigError:
    below = f"below {allowed.models}" if allowed.models else ""
    return _refused(said, where, "models", [*filter(None, [below]), *allowed.named.models])


# Programs, images, variables


def _launch(
    engine: EngineSettings, kind: str, where: str, allowed: Allowance
) -> Iterator[ConfigError]:
    named = allowed.named
    for key, lists in (("command", named.commands), ("image_command", named.image_commands)):
        said = getattr(engine, key)
        if said is not None and tuple(said) not in lists:
            allowed_lists = [" ".join(each) for each in lists]
            yield _refused(said, f"{where}.{key}", f"{key}s", allowed_lists)
    if engine.image is not None and not matches(engine.image, named.images):
        yield _refused(engine.image, f"{where}.image", "images", named.images)
    if engine.catalog is not None and not allowed.has_file(engine.catalog):
        yield _refused(engine.catalog, f"{where}.catalog", "files", named.files)
    for name in engine.environment:
        yield from _variable(name, f"{where}.environment.{name}", kind, allowed)


_VARIABLES = (
    *("OMP_NUM_THREADS", "OMP_PROC_BIND", "OMP_PLACES", "MKL_NUM_THREADS", "KMP_BLOCKTIME"),
    *("KMP_AFFINITY", "TOKENIZERS_PARALLELISM", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"),
    *("CUDA_DEVICE_MAX_CONNECTIONS", "CUDA_LAUNCH_BLOCKING", "CUDA_MODULE_LOADING"),
    *("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "TORCH_NCCL_AVOID_RECORD_STREAMS"),
    *("NCCL_ALGO", "NCCL_PROTO", "NCCL_P2P_DISABLE", "NCCL_P2P_LEVEL", "NCCL_SHM_DISABLE"),
    *("NCCL_IB_DISABLE", "NCCL_NVLS_ENABLE", "NCCL_CUMEM_ENABLE", "NCCL_MIN_NCHANNELS"),
    *("NCCL_MAX_NCHANNELS", "NCCL_NTHREADS", "NCCL_BUFFSIZE", "NCCL_DEBUG"),
)
"""Environment variables that only make a server slower or faster, or say more or less, and are no
engine's own."""

_GRAVE = (
    *("*PATH", "*PATHS", "LD_*", "DYLD_*", "*PRELOAD*", "PYTHON*", "*PROXY*", "*TOKEN*"),
    *("*SECRET*", "*KEY", "*KEYS", "*PASS*", "*CREDENTIAL*", "*_DIR", "*_HOME", "HOME", "ENV"),
    *("BASH*", "SHELL*", "IFS", "GIT_*", "SSL_*", "SSH_*", "CURL_*", "REQUESTS_*", "AWS_*"),
    *("GOOGLE_*", "AZURE_*", "*_URL", "*_URI", "*_ENDPOINT*", "*_HOST", "*_ADDR*", "*PLUGIN*"),
    *("*VISIBLE_DEVICES", "*TRUST*", "*UNSAFE*", "*INSECURE*", "*PICKLE*", "*SERIALIZATION*"),
    *("RAY_*", "AUTOTUNER_*", "KUBE*", "DOCKER_*", "*_FILE", "*_CMD", "*COMMAND*", "*SOCKET*"),
)
"""Those that run programs, lead elsewhere or are secrets: a pattern of the operator's that
happens to fit them means none of them."""


def variables(kind: str | None) -> tuple[str, ...]:
    """The harmless ones of a study of an engine; those of the built-in engines are so for all."""
    engines = dict.fromkeys([*KINDS["engine"], *([kind] if kind else [])])
    own = (name for each in engines for name in _harmless(each).variables)
    return (*_VARIABLES, *own)


def _variable(name: str, where: str, kind: str | None, allowed: Allowance) -> Iterator[ConfigError]:
    named, harmless = allowed.named.environment, variables(kind)
    if name in harmless or name in named:
        return
    grave = any(fnmatchcase(name.upper(), each) for each in _GRAVE)
    if grave or not any(fnmatchcase(name, each) for each in named):
        yield _refused(name, where, "environment", [*named, *harmless])


# Options of kinds


_ANY: tuple[Any, ...] = ("*",)
_HARMLESS_OPTIONS: Mapping[str, Mapping[str, Mapping[str, Sequence[Any]]]] = {
    "backend": {
        "docker": {
            "memory": _ANY,
            "shm_size": _ANY,
            "ipc": ("host", "private"),
            "network": ("host", "bridge"),
        },
        "ome": {
            "arguments": _ANY,
            "reach": _ANY,
            "port": _ANY,
            "gpu": ("nvidia.com/gpu",),
            "unschedulable_seconds": _ANY,
            "lease_seconds": _ANY,
        },
    },
    "benchmark": {
        "replay": {"noise": _ANY, "seed": _ANY},
        "ome-job": {"start_seconds": _ANY},
    },
}
"""Group -> kind -> option -> its values that take nothing and lead nowhere."""


def _options(spec: StudySpec, allowed: Allowance) -> Iterator[ConfigError]:
    """Of every block of a backend: which of them counts is one word of the study."""
    for kind, options in spec.backend.blocks.items():
        if isinstance(options, Mapping):
            for name, value in options.items():
                where = f"backend.{kind}.{name}"
                yield from _option("backend", kind, name, value, where, allowed)
    kind = spec.benchmark.kind
    for name, value in spec.benchmark.options.items():
        where = f"benchmark.{name}"
        if (kind, name) == ("replay", "table"):
            if not (isinstance(value, str) and allowed.has_file(value)):
                yield _refused(value, where, "files", allowed.named.files)
        else:
            yield from _option("benchmark", kind, name, value, where, allowed)


def _option(
    group: str, kind: str, name: str, value: Any, where: str, allowed: Allowance
) -> Iterator[ConfigError]:
    harmless = _HARMLESS_OPTIONS[group].get(kind, {}).get(name, ())
    options: Options = getattr(allowed.named, group)
    values = [*harmless, *options.get(kind, {}).get(name, [])]
    if not any(_is(value, each) for each in values):
        yield _refused(value, where, f"{group}.{kind}.{name}", [str(each) for each in values])


def _is(value: Any, allowed: Any) -> bool:
    if allowed == "*":
        return True
    if isinstance(value, str) and isinstance(allowed, str):
        return matches(value, [allowed])
    return type(value) is type(allowed) and bool(value == allowed)


REQUEST_FIELDS = frozenset(
    (
        *("temperature", "top_p", "top_k", "min_p", "seed", "n", "best_of", "use_beam_search"),
        *("presence_penalty", "frequency_penalty", "repetition_penalty", "length_penalty"),
        *("max_tokens", "min_tokens", "max_completion_tokens", "max_new_tokens"),
        *("min_new_tokens", "ignore_eos", "stop", "stop_token_ids", "skip_special_tokens"),
        *("spaces_between_special_tokens", "include_stop_str_in_output", "no_stop_trim"),
        *("logprobs", "top_logprobs", "prompt_logprobs", "logit_bias", "reasoning_effort"),
        *("chat_template_kwargs", "response_format", "stream_options", "truncate_prompt_tokens"),
        *("separate_reasoning", "stream_reasoning", "priority", "echo", "add_special_tokens"),
    )
)
"""Fields that say how to answer. Others say what to read: a picture's address, for one."""


def _requests(spec: StudySpec, allowed: Allowance) -> Iterator[ConfigError]:
    for name in spec.workload.request:
        if name not in REQUEST_FIELDS and name not in allowed.named.request:
            known = sorted(REQUEST_FIELDS | set(allowed.named.request))
            yield _refused(name, f"workload.request.{name}", "request", known)


# Flags


def _varied(spec: StudySpec, engine: str, space: str, allowed: Allowance) -> Iterator[ConfigError]:
    """The flags and variables of one engine, fixed and varied, those of presets included."""
    kind = spec.engine.kinds[0]
    known = _Known(kind, _harmless(kind), _catalog(spec, allowed))
    for name, value in spec.engine.arguments.items():
        yield from _flag(name, [value], f"{engine}.arguments.{name}", known, allowed)
    for parameter in spec.parameter_space.parameters:
        where = f"{space}.{parameter.name}"
        if parameter.name.startswith(ENVIRONMENT):
            yield from _variable(parameter.name.removeprefix(ENVIRONMENT), where, kind, allowed)
        elif parameter.name in spec.space:  # number formats are not, and are harmless
            yield from _flag(parameter.name, _values(parameter), where, known, allowed)


def _values(parameter: Parameter) -> Sequence[Any]:
    """Those of a choice; a range has numbers only, of which one stands for all."""
    domain = parameter.domain
    return domain.values if isinstance(domain, Choice) else (domain.low,)


@dataclass(frozen=True)
class _Known:
    """What is known of a kind of engine's flags.

    Attributes:
        harmless: as it says itself.
        catalog: None: there is none to look into.
    """

    kind: str
    harmless: Harmless
    catalog: Catalog | None


def _harmless(kind: str) -> Harmless:
    try:
        engine: Engine = load_kind("engine", kind)
    except ConfigError:  # is said by whoever checks the study's kinds
        return Harmless()
    return harmless_of(engine)


def _catalog(spec: StudySpec, allowed: Allowance) -> Catalog | None:
    """The flags that the study's engine has, where that may be looked at."""
    kind, said = spec.engine.kinds[0], spec.engine.catalog
    try:
        if said is None:
            return load_catalog(kind, spec.engine.version)
        if allowed.has_file(said):
            return read_catalog(allowed.absolute(said))
    except ConfigError:  # is said by whoever checks the study's kinds
        pass
    return None


def _flag(
    name: str, values: Sequence[Any], where: str, known: _Known, allowed: Allowance
) -> Iterator[ConfigError]:
    """Why a flag of an engine may not have these values, or not be given."""
    flag = known.catalog.find(name) if known.catalog else None
    if known.catalog is not None and flag is None:
        try:
            known.catalog.check(name, None, where)
        except ConfigError as error:
            yield error
        return
    true_name = flag.name if flag else name
    for value in values:
        problem = smuggled(value, flag)
        if not problem and true_name.partition(".")[0] not in allowed.named.flags:
            problem = judged(true_name, value, flag, known.harmless, allowed)
        if problem:
            yield _flag_refused(true_name, value, problem, where, known)
            return


def _flag_refused(name: str, value: Any, problem: str, where: str, known: _Known) -> ConfigError:
    base = name.partition(".")[0]
    few = known.harmless.values.get(base, known.harmless.keys.get(base, ()))
    hint = f"ask the operator to name {base} under `flags` in the file of AUTOTUNER_ALLOW"
    if not known.harmless.decided and known.kind in kinds("engine"):
        hint += f", or the author of the engine {known.kind} to have it say what is `harmless`"
    return ConfigError(
        f"--{name} {shown(value)} may not be chosen by a study that comes by HTTP: {problem}",
        where=where,
        allowed=sorted(few),
        hint=hint,
    )
