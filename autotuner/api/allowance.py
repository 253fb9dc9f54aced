"""What a study that comes by HTTP may choose: values in, refusals out; nothing is started.

Whoever sends a study must not come to run programs, read files or reach machines of the
operator's by it. So a study chooses only what is named here as harmless, or what the operator
names in the file of AUTOTUNER_ALLOW. What nobody has decided about, such as a flag that is new
in an engine, is refused.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from autotuner.engines.catalog import (
    Catalog,
    Flag,
    FlagKind,
    known_engines,
    known_versions,
    load_catalog,
    read_catalog,
)
from autotuner.errors import ConfigError
from autotuner.study.domains import space_of
from autotuner.study.loading import StudyFile, read_study_text
from autotuner.study.presets import Preset
from autotuner.study.space import ENVIRONMENT, Choice, Parameter, canonical_name
from autotuner.study.spec import EngineSettings, StudySpec

_Options = dict[str, dict[str, list[Any]]]


class Named(BaseModel):
    """The operator's file. A `*` in a name stands for any text without a slash."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    everything: bool = Field(
        default=False,
        description="Whoever may send studies is trusted like whoever started the service.",
    )
    models: tuple[str, ...] = Field(
        default=(),
        description="Ids on the hub, such as `Qwen/*`; directories with all below them, such as "
        "`/data/models`, besides AUTOTUNER_MODELS.",
    )
    commands: tuple[tuple[str, ...], ...] = Field(
        default=(), description="Whole lists that `engine.command` may be."
    )
    image_commands: tuple[tuple[str, ...], ...] = Field(
        default=(), description="Whole lists that `engine.image_command` may be."
    )
    images: tuple[str, ...] = Field(
        default=(), description="Container images, as studies write them: `vllm/vllm-openai:*`."
    )
    environment: tuple[str, ...] = Field(
        default=(),
        description="Environment variables of servers. One that runs programs, leads elsewhere or "
        "is a secret must be named in full.",
    )
    flags: tuple[str, ...] = Field(
        default=(), description="Flags of engines, in full, with any value."
    )
    request: tuple[str, ...] = Field(default=(), description="Fields under `workload.request`.")
    files: tuple[str, ...] = Field(
        default=(), description="Directories of tables (`benchmark.table`) and `engine.catalog`."
    )
    backend: _Options = Field(
        default={}, description="Kind -> option -> its values; `*` for any value."
    )
    benchmark: _Options = Field(
        default={}, description="Kind -> option -> its values; `*` for any value."
    )

    @field_validator("flags")
    @classmethod
    def _canonical(cls, flags: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(canonical_name, flags))


@dataclass(frozen=True)
class Allowance:
    """What studies may choose.

    Attributes:
        named: by the operator.
        models: AUTOTUNER_MODELS, below which any model may be chosen.
        base: where relative paths of studies begin; this process's directory by default.
    """

    named: Named = field(default_factory=Named)
    models: Path | None = None
    base: Path | None = None

    @classmethod
    def everything(cls) -> Allowance:
        """For a service that nobody asks but whoever started it."""
        return cls(Named(everything=True))


def read_allowance(path: Path, models: Path | None = None, base: Path | None = None) -> Allowance:
    """The allowance that the file of AUTOTUNER_ALLOW says.

    Raises:
        ConfigError: it cannot be read, or says something else; every mistake is in it.
    """
    try:
        text = path.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, RuntimeError) as error:
        raise ConfigError(
            f"cannot be read: {error}", file=str(path), where="AUTOTUNER_ALLOW"
        ) from error
    file = read_study_text(text, str(path))
    try:
        named = Named.model_validate({} if file.content is None else file.content)
    except ValidationError as error:
        first, *others = (_mistake(dict(each), file) for each in error.errors())
        raise first.with_others(others) from None
    return Allowance(named, models, base)


def _mistake(each: Mapping[str, Any], file: StudyFile) -> ConfigError:
    place = each["loc"]
    if each["type"] == "extra_forbidden":
        names = list(Named.model_fields)
        return file.error(place, f"unknown key {place[-1]!r}", allowed=names)
    return file.error(place, f"{_short(each['input'])}: {each['msg']}")


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
        found += _launch(spec.alone(kind).engine, f"engine{below}", allowed)
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
            found += _variable(parameter.name.removeprefix(ENVIRONMENT), where, allowed)
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
        found = list(_flag(parameter.name, _values(parameter), where, catalog, kind, allowed))
        if found:
            return found
    return []


def _refused(
    said: Any, where: str, key: str, allowed: Sequence[str] = (), hint: str = ""
) -> ConfigError:
    return ConfigError(
        f"{_short(said)} may not be chosen by a study that comes by HTTP",
        where=where,
        allowed=allowed,
        hint=hint or f"ask the operator to name it under `{key}` in the file of AUTOTUNER_ALLOW",
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


# Models and files


_ON_HUB = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)?")
_LOCAL = ("/", ".", "~")


def _models(spec: StudySpec, allowed: Allowance) -> Iterator[ConfigError]:
    for name in ("path", "tokenizer"):
        said = getattr(spec.model, name)
        if said is not None and not _model_allowed(said, allowed):
            yield _model_refused(said, f"model.{name}", allowed)
    if spec.model.served_name.startswith("-"):
        yield _refused(
            spec.model.served_name,
            "model.served_name",
            "",
            hint="engines would take it for a flag; begin it with a letter or digit",
        )
    system = spec.prior.system if spec.prior else None
    if system is not None and not _WORD.fullmatch(system):
        yield _refused(system, "prior.system", "", hint="a name is meant, such as h100_sxm")


def _model_refused(said: str, where: str, allowed: Allowance) -> ConfigError:
    below = f"below {allowed.models}" if allowed.models else ""
    return _refused(said, where, "models", [*filter(None, [below]), *allowed.named.models])


def _model_allowed(said: str, allowed: Allowance) -> bool:
    """Whether it is an allowed id on the hub, or a directory that is truly in an allowed one.

    What is on this machine under the very name of one on the hub is what would be served.
    """
    if said.startswith(_LOCAL) or os.path.lexists(_absolute(said, allowed)):
        roots = [each for each in allowed.named.models if each.startswith(_LOCAL)]
        more = [str(allowed.models)] if allowed.models else []
        return _below(said, [*roots, *more], allowed)
    return bool(_ON_HUB.fullmatch(said)) and _matches(said, allowed.named.models)


def _below(said: str, roots: Sequence[str], allowed: Allowance) -> bool:
    """Whether a path, all its links followed, is one of the roots or in one."""
    try:
        real = Path(os.path.realpath(_absolute(said, allowed)))
        real_roots = [Path(os.path.realpath(_absolute(root, allowed))) for root in roots]
    except (OSError, ValueError):  # no path at all, such as one with a zero byte
        return False
    return any(real == root or root in real.parents for root in real_roots)


def _absolute(said: str, allowed: Allowance) -> Path:
    try:
        path = Path(said).expanduser()
    except RuntimeError:  # the home of nobody
        path = Path(said)
    return (allowed.base or Path.cwd()) / path


def _matches(said: str, patterns: Sequence[str]) -> bool:
    """Whether a name is as one of the patterns, segment by segment."""
    parts = said.split("/")
    return any(
        len(parts) == len(pattern.split("/")) and all(map(fnmatchcase, parts, pattern.split("/")))
        for pattern in patterns
    )


# Programs, images, variables


def _launch(engine: EngineSettings, where: str, allowed: Allowance) -> Iterator[ConfigError]:
    named = allowed.named
    for key, lists in (("command", named.commands), ("image_command", named.image_commands)):
        said = getattr(engine, key)
        if said is not None and tuple(said) not in lists:
            allowed_lists = [" ".join(each) for each in lists]
            yield _refused(said, f"{where}.{key}", f"{key}s", allowed_lists)
    if engine.image is not None and not _matches(engine.image, named.images):
        yield _refused(engine.image, f"{where}.image", "images", named.images)
    if engine.catalog is not None and not _below(engine.catalog, named.files, allowed):
        yield _refused(engine.catalog, f"{where}.catalog", "files", named.files)
    for name in engine.environment:
        yield from _variable(name, f"{where}.environment.{name}", allowed)


VARIABLES = (
    *("OMP_NUM_THREADS", "OMP_PROC_BIND", "OMP_PLACES", "MKL_NUM_THREADS", "KMP_BLOCKTIME"),
    *("KMP_AFFINITY", "TOKENIZERS_PARALLELISM", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"),
    *("CUDA_DEVICE_MAX_CONNECTIONS", "CUDA_LAUNCH_BLOCKING", "CUDA_MODULE_LOADING"),
    *("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "TORCH_NCCL_AVOID_RECORD_STREAMS"),
    *("NCCL_ALGO", "NCCL_PROTO", "NCCL_P2P_DISABLE", "NCCL_P2P_LEVEL", "NCCL_SHM_DISABLE"),
    *("NCCL_IB_DISABLE", "NCCL_NVLS_ENABLE", "NCCL_CUMEM_ENABLE", "NCCL_MIN_NCHANNELS"),
    *("NCCL_MAX_NCHANNELS", "NCCL_NTHREADS", "NCCL_BUFFSIZE", "NCCL_DEBUG"),
    *("VLLM_CPU_KVCACHE_SPACE", "VLLM_CPU_OMP_THREADS_BIND", "VLLM_CPU_NUM_OF_RESERVED_CPU"),
    *("VLLM_CPU_SGL_KERNEL", "VLLM_CPU_MOE_PREPACK", "VLLM_ATTENTION_BACKEND", "VLLM_USE_V1"),
    *("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "VLLM_LOGGING_LEVEL", "VLLM_USE_DEEP_GEMM"),
    *("VLLM_FLASH_ATTN_VERSION", "VLLM_ALL2ALL_BACKEND", "VLLM_USE_FLASHINFER_SAMPLER"),
    *("VLLM_USE_FLASHINFER_MOE_FP8", "VLLM_USE_FLASHINFER_MOE_FP4", "VLLM_USE_TRITON_FLASH_ATTN"),
    *("VLLM_ROCM_USE_AITER", "VLLM_FUSED_MOE_CHUNK_SIZE", "VLLM_WORKER_MULTIPROC_METHOD"),
    *("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_DISABLE_COMPILE_CACHE", "VLLM_SKIP_WARMUP"),
    *("SGLANG_ENABLE_JIT_DEEPGEMM", "SGL_ENABLE_JIT_DEEPGEMM", "SGLANG_ENABLE_TORCH_COMPILE"),
    *("SGLANG_CPU_OMP_THREADS_BIND", "SGLANG_USE_CPU_ENGINE", "SGLANG_USE_AITER"),
    *("SGLANG_ENABLE_SPEC_V2", "SGLANG_SET_CPU_AFFINITY", "SGLANG_LOG_LEVEL"),
)
"""Environment variables that only make a server slower or faster, or say more or less."""

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


def _variable(name: str, where: str, allowed: Allowance) -> Iterator[ConfigError]:
    named = allowed.named.environment
    if name in VARIABLES or name in named:
        return
    grave = any(fnmatchcase(name.upper(), each) for each in _GRAVE)
    if grave or not any(fnmatchcase(name, each) for each in named):
        yield _refused(name, where, "environment", [*named, *VARIABLES])


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
            if not (isinstance(value, str) and _below(value, allowed.named.files, allowed)):
                yield _refused(value, where, "files", allowed.named.files)
        else:
            yield from _option("benchmark", kind, name, value, where, allowed)


def _option(
    group: str, kind: str, name: str, value: Any, where: str, allowed: Allowance
) -> Iterator[ConfigError]:
    harmless = _HARMLESS_OPTIONS[group].get(kind, {}).get(name, ())
    options: _Options = getattr(allowed.named, group)
    values = [*harmless, *options.get(kind, {}).get(name, [])]
    if not any(_is(value, each) for each in values):
        yield _refused(value, where, f"{group}.{kind}.{name}", [str(each) for each in values])


def _is(value: Any, allowed: Any) -> bool:
    if allowed == "*":
        return True
    if isinstance(value, str) and isinstance(allowed, str):
        return _matches(value, [allowed])
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
    catalog = _catalog(spec, allowed)
    for name, value in spec.engine.arguments.items():
        where = f"{engine}.arguments.{name}"
        yield from _flag(name, [value], where, catalog, spec.engine.kinds[0], allowed)
    for parameter in spec.parameter_space.parameters:
        where = f"{space}.{parameter.name}"
        if parameter.name.startswith(ENVIRONMENT):
            yield from _variable(parameter.name.removeprefix(ENVIRONMENT), where, allowed)
        elif parameter.name in spec.space:  # number formats are not, and are harmless
            kind = spec.engine.kinds[0]
            yield from _flag(parameter.name, _values(parameter), where, catalog, kind, allowed)


def _values(parameter: Parameter) -> Sequence[Any]:
    """Those of a choice; a range has numbers only, of which one stands for all."""
    domain = parameter.domain
    return domain.values if isinstance(domain, Choice) else (domain.low,)


def _catalog(spec: StudySpec, allowed: Allowance) -> Catalog | None:
    """The flags that the study's engine has, where that may be looked at."""
    kind, said = spec.engine.kinds[0], spec.engine.catalog
    try:
        if said is None:
            return load_catalog(kind, spec.engine.version)
        if _below(said, allowed.named.files, allowed):
            return read_catalog(_absolute(said, allowed))
    except ConfigError:  # is said by whoever checks the study's kinds
        pass
    return None


def _flag(
    name: str,
    values: Sequence[Any],
    where: str,
    catalog: Catalog | None,
    kind: str,
    allowed: Allowance,
) -> Iterator[ConfigError]:
    """Why a flag of a kind of engine may not have these values, or not be given."""
    flag = catalog.find(name) if catalog else None
    if catalog is not None and flag is None:
        try:
            catalog.check(name, None, where)
        except ConfigError as error:
            yield error
        return
    true_name = flag.name if flag else name
    base = true_name.partition(".")[0]
    harmless = kind in known_engines()
    for value in values:
        problem = _smuggled(value, flag)
        if not problem and base not in allowed.named.flags:
            problem = judged(true_name, value, flag, allowed) if harmless else _UNDECIDED
        if problem:
            yield _flag_refused(true_name, value, problem, where)
            return


def _flag_refused(name: str, value: Any, problem: str, where: str) -> ConfigError:
    base = name.partition(".")[0]
    return ConfigError(
        f"--{name} {_short(value)} may not be chosen by a study that comes by HTTP: {problem}",
        where=where,
        allowed=sorted(map(str, NARROW.get(base, KEYS.get(base, ())))),
        hint=f"ask the operator to name {base} under `flags` in the file of AUTOTUNER_ALLOW",
    )


def _smuggled(value: Any, flag: Flag | None) -> str:
    """A list's items stand alone on the command line, where the engine would take one for a
    flag of its own; but JSON stays one text."""
    if not isinstance(value, list) or (flag is not None and flag.kind is FlagKind.JSON):
        return ""
    taken = [each for each in value if isinstance(each, str) and each.lstrip().startswith("-")]
    return f"{taken[0]!r} would be a flag of its own" if taken else ""


_UNDECIDED = "nobody has decided that it is harmless"
_WORD = re.compile(r"[A-Za-z0-9+][A-Za-z0-9_+,-]*|-?\d+(\.\d+)?")
_DOUBTFUL = re.compile(
    r"(^|[_-])(path|dir|file|folder|url|uri|module|class|cls|plugin|code|model|tokenizer|revision)"
    r"s?$",
    re.I,
)


def judged(name: str, value: Any, flag: Flag | None, allowed: Allowance) -> str:
    """Why a flag of a known engine may not have a value, or an empty text.

    Args:
        name: the flag's own name, with the key inside its JSON where there is one.
    """
    base, _, inside = name.partition(".")
    if value is None or value == "":
        return "" if base in DECIDED else _UNDECIDED
    if base in MODELS:
        fine = isinstance(value, str) and _model_allowed(value, allowed)
        return "" if fine else "the operator names models under `models`"
    if base in NARROW:
        said = value if isinstance(value, list) else [value]
        strange = [e for e in said if not isinstance(e, str) or e not in NARROW[base]]
        return f"{_short(strange[0])} is not one of its harmless values" if strange else ""
    if base not in HARMLESS and base not in KEYS:
        return _UNDECIDED
    if flag is not None and flag.choices and value in flag.choices:
        return ""
    content = _parsed(value)
    for part in reversed(inside.split(".") if inside else []):
        content = {part: content}
    return _keys(content, KEYS[base], allowed) if base in KEYS else _content(content)


_BRACKETS = 100
"""In a text of JSON, at most: none of an engine's is so deep."""


def _parsed(value: Any) -> Any:
    """JSON that came as its text."""
    deep = isinstance(value, str) and value.count("{") + value.count("[")
    if not deep or deep > _BRACKETS:
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _keys(content: Any, keys: frozenset[str], allowed: Allowance) -> str:
    """Why JSON may not be, of which only some keys are known to be harmless."""
    if not isinstance(content, Mapping):
        return "it is not JSON with names"
    for key, value in content.items():
        if key == "model" and key in keys:
            if not (isinstance(value, str) and _model_allowed(value, allowed)):
                return f"{_short(value)} is no model that the operator names under `models`"
        elif key not in keys:
            return f"its key {_short(key)} is not one of the harmless ones"
        elif value in _CODE or (problem := _content(value)):
            return f"{key}: {_short(value)} is not harmless" if value in _CODE else problem
    return ""


_CODE = ("custom_class",)
"""Words that have an engine import what another key names."""


def _content(value: Any) -> str:
    """Why a value may not be that should hold numbers, switches and plain words: neither a path,
    an address nor a name in a Python module is one."""
    if isinstance(value, Mapping):
        doubtful = [key for key in value if _DOUBTFUL.search(key) or not _WORD.fullmatch(key)]
        if doubtful:
            return f"its key {_short(doubtful[0])} is not one of the harmless ones"
        value = list(value.values())
    if isinstance(value, list):
        return next((problem for each in value if (problem := _content(each))), "")
    if isinstance(value, str) and value and not _WORD.fullmatch(value):
        return f"{_short(value)} is no plain word"
    return ""


_FORMATS = frozenset(
    ("auto", "safetensors", "fastsafetensors", "dummy", "gguf", "bitsandbytes", "mistral")
)

NARROW: Mapping[str, frozenset[Any]] = {
    "config-format": frozenset(("auto", "hf", "mistral")),
    "data-parallel-backend": frozenset(("mp",)),  # the other joins the machine's Ray
    "distributed-executor-backend": frozenset(("mp", "uni")),  # or a class of Python
    "generation-config": frozenset(("auto", "vllm")),  # or a directory
    "init-expert-location": frozenset(("trivial",)),  # or a file
    "kv-offloading-backend": frozenset(("native",)),
    "load-format": _FORMATS,  # others unpickle, or fetch from elsewhere
    "log-requests-target": frozenset(("stdout",)),  # or a directory
    "spec-method": frozenset(
        ("ngram", "suffix", "eagle", "eagle3", "medusa", "mlp_speculator", "draft_model", "mtp")
    ),  # custom_class imports one
    "speculative-draft-load-format": _FORMATS,
}
"""Flag -> its harmless values, where others are not."""

KEYS: Mapping[str, frozenset[str]] = {
    "speculative-config": frozenset(
        (
            *("method", "model", "num_speculative_tokens", "prompt_lookup_max"),
            *("prompt_lookup_min", "draft_tensor_parallel_size", "max_model_len", "enforce_eager"),
            *("quantization", "disable_padded_drafter_batch", "disable_by_batch_size"),
            *("rejection_sample_method", "parallel_drafting", "attention_backend"),
        )
    ),
    "structured-outputs-config": frozenset(
        (
            *("backend", "disable_fallback", "disable_any_whitespace", "reasoning_parser"),
            *("disable_additional_properties", "enable_in_reasoning"),
        )
    ),
}
"""Flag of JSON -> its harmless keys."""

MODELS = frozenset(("speculative-draft-model-path", "spec-model"))
"""Flags whose value is a model, which must be one that a study may serve."""

_NAMES = """
abort-on-priority-when-disabled aggregate-engine-logging all2all-backend allow-auto-truncate
allow-deprecated-quantization anthropic-disabled-thinking-effort api-server-count
asr-max-buffer-seconds asr-max-concurrent-sessions async-scheduling attention-backend
attention-config attn-cp-size attn-dp-size batch-notify-size bf16-gemm-backend block-size
boundary-reduction bucket-e2e-request-latency bucket-inter-token-latency
bucket-time-to-first-token c128-page-size calculate-kv-scales chat-template-content-format
chunked-prefill-size cohere-format cohere-is-reasoning-model collect-tokens-histogram
compilation-config constrained-json-disable-any-whitespace constrained-json-max-whitespace-cnt
context-length convert cp-kv-cache-interleave-size cp-strategy cpu-distributed-timeout-seconds
cpu-offload-gb cpu-offload-params cuda-graph-backend-decode cuda-graph-backend-prefill
cuda-graph-bs cuda-graph-bs-decode cuda-graph-bs-prefill cuda-graph-config cuda-graph-max-bs
cuda-graph-max-bs-decode cuda-graph-max-bs-prefill cuda-graph-max-seq-len-prefill
cuda-graph-prefill-max-context cuda-graph-sizes cudagraph-capture-sizes cudagraph-metrics
custom-histogram-buckets data-parallel-size dbo-decode-token-threshold dbo-prefill-token-threshold
dcp-comm-backend dcp-kv-cache-interleave-size dcp-q-replicate dcp-replicate-q-proj dcp-size
debug-cuda-graph decode-attention-backend decode-context-parallel-size decode-log-interval
deepep-dispatcher-output-dtype deepep-mode deepep-v2-mode default-chat-template-kwargs
default-priority-value detokenizer-worker-num device die-at-request die-on-kv-full
disable-aiter-allreduce-fusion-in-decode disable-aiter-allreduce-fusion-in-prefill
disable-async-output-proc disable-attn-tp-gather disable-cascade-attn disable-chunked-mm-input
disable-chunked-prefix-cache disable-cuda-graph disable-cuda-graph-padding
disable-custom-all-reduce disable-decode-cuda-graph disable-fast-image-processor
disable-fastapi-docs disable-flashinfer-autotune disable-flashinfer-cutlass-moe-fp4-allgather
disable-frontend-multiprocessing disable-hybrid-kv-cache-manager disable-hybrid-swa-memory
disable-log-requests disable-log-stats disable-mm-preprocessor-cache
disable-nccl-for-dp-synchronization disable-outlines-disk-cache disable-overlap-schedule
disable-prefill-cuda-graph disable-priority-preemption disable-radix-cache
disable-shared-experts-fusion disable-sliding-window disable-tokenizer-batch-decode
disable-uvicorn-access-log dist-timeout distributed-timeout-seconds dllm-algorithm dllm-fdfo
dp-size dp-supervisor-probe-failure-threshold dp-supervisor-probe-interval-s
dp-supervisor-probe-timeout-s dp-sync-interval ds-heavy-channel-num ds-heavy-channel-type
ds-heavy-token-num ds-sparse-decode-threshold dsa-decode-backend dsa-paged-mqa-logits-backend
dsa-prefill-backend dsa-topk-backend dsa-triton-union dsv4-attn-backend dsv4-prefill-backend dtype
dwdp-size dynamic-batch-tokenizer-batch-size dynamic-batch-tokenizer-batch-timeout
enable-aiter-allreduce-fusion enable-amd-monokernel enable-attn-tp-input-scattered
enable-auto-tool-choice enable-batch-sharded-sampling enable-broadcast-mm-inputs-process
enable-cache-report enable-chunked-prefill enable-cp-decode-attn-tp enable-cudagraph-gc
enable-cumem-allocator enable-dbo enable-decoder-swa-bounded-replay enable-deepep-moe
enable-deepseek-v4-fp4-indexer enable-dense-mlp-attn-tp enable-deterministic-inference
enable-double-sparsity enable-dp-attention enable-dp-attention-local-control-broadcast
enable-dp-lm-head enable-draft-weights-cpu-backup enable-dsa-cache-layer-split
enable-dsa-fused-indexer enable-dynamic-batch-tokenizer enable-dynamic-chunking
enable-encoder-swa-bounded-replay enable-ep-moe enable-ep-weight-filter enable-eplb
enable-expert-distribution-metrics enable-expert-parallel enable-flash-late-interaction
enable-flashinfer-allreduce-fusion enable-flashinfer-autotune enable-flashinfer-cutlass-moe
enable-flashinfer-mxfp4-moe enable-flashinfer-trtllm-moe enable-force-include-usage
enable-fp32-lm-head enable-fused-moe-sum-all-reduce enable-fused-qk-norm-rope enable-hc-sp
enable-hierarchical-cache enable-hisparse enable-http-worker-reuseport
enable-int8-mamba-checkpoint enable-kv-cache-sharding enable-layernorm-sp
enable-layerwise-nvtx-marker enable-layerwise-nvtx-tracing enable-lean-attention
enable-linear-replayssm enable-linear-replayssm-spec enable-linker-mla-dedup enable-log-deltas
enable-log-outputs enable-log-requests enable-logging-iteration-details enable-lora
enable-lora-bias enable-lora-overlap-loading enable-mamba-cache-stochastic-rounding
enable-mamba-shared-prefix-checkpoint enable-megamoe-for-layernorm-sp enable-memory-saver
enable-metrics enable-metrics-for-all-schedulers enable-mfu-metrics enable-mis enable-mixed-chunk
enable-mixed-moe-lora-format enable-moe-shared-loras enable-mscclpp enable-multi-layer-eagle
enable-multimodal enable-multimodal-encoder-data-parallel enable-nan-detection
enable-nccl-comm-suspend enable-nccl-nvls enable-nvidia-megakernel enable-offline-docs
enable-p2p-check enable-page-major-kv-layout enable-paged-experts enable-per-request-metrics
enable-precise-embedding-interpolation enable-prefill-cp enable-prefill-delayer
enable-prefix-caching enable-prefix-mm-cache enable-priority-scheduling enable-profile-cuda-graph
enable-prompt-tokens-details enable-quant-communications enable-request-id-headers
enable-request-time-stats-logging enable-return-aux-hidden-states enable-return-hidden-states
enable-return-indexer-topk enable-return-routed-experts enable-scattered-sconv
enable-server-load-tracking enable-session-radix-cache enable-shared-experts-attn-tp
enable-shm-tensor-arena enable-single-batch-overlap enable-sleep-mode enable-strict-thinking
enable-symm-mem enable-tf32-matmul enable-tokenizer-batch-encode enable-tokenizer-info-endpoint
enable-torch-compile enable-torch-symm-mem enable-tower-connector-lora
enable-tp-lm-head-all-to-all enable-trace-replay enable-triton-kernel-moe enable-two-batch-overlap
enable-unified-memory enable-w4a4-mxfp4-megamoe enable-waterfill enable-watermark
enable-weights-cpu-backup encoder-only encoder-transfer-backend
enforce-disable-flashinfer-allreduce-fusion enforce-eager enforce-shared-experts-fusion
ep-dispatch-algorithm ep-num-redundant-experts ep-size eplb-algorithm eplb-config
eplb-log-balancedness eplb-min-rebalancing-utilization-threshold eplb-rebalance-layers-per-chunk
eplb-rebalance-num-iterations eplb-step-interval eplb-window-size error-rate
exclude-tools-when-tool-choice-none expert-balancedness-report-mode expert-parallel-size
expert-placement-strategy experts-shared-outer-loras fail-at-start fail-on-environ-validation
fingerprint-mode fingerprint-value flashinfer-a2a-dispatch-type
flashinfer-allreduce-fusion-backend flashinfer-mla-disable-ragged flashinfer-mxfp4-moe-precision
fp4-gemm-backend fp8-gemm-backend fully-sharded-loras fuseep-mode gc-threshold
gc-warning-threshold-secs gdn-prefill-backend generation-tokens-buckets gpu-memory-fraction
gpu-memory-utilization grammar-backend grpc-response-timeout-secs guided-decoding-backend
guided-decoding-disable-additional-properties guided-decoding-disable-any-whitespace
guided-decoding-disable-fallback h11-max-header-count h11-max-incomplete-event-size
hang-at-request hf-chat-template-name hicache-host-memory-fraction hicache-host-memory-mode
hicache-io-backend hicache-mem-layout hicache-ratio hicache-size hicache-write-policy
http2-initial-connection-window-size http2-max-concurrent-streams hybrid-kvcache-ratio
image-processor-backend incremental-streaming-output int8-mamba-ckpt-size interleave-mm-strings
ir-op-priority is-embedding jit-monitor-mode jit-monitor-verbose kda-decode-backend
kda-prefill-backend kernel-config kt-cpuinfer kt-max-deferred-experts-per-token kt-method
kt-num-gpu-experts kt-threadpool-count kv-cache-dtype kv-cache-dtype-skip-layers
kv-cache-memory-bytes kv-cache-metrics kv-cache-metrics-sample kv-canary kv-canary-real-data
kv-canary-sweep-interval kv-offloading-size kv-sharing-fast-prefill language-model-only
language-only limit-mm-data-per-request limit-mm-per-prompt linear-attn-backend
linear-attn-decode-backend linear-attn-prefill-backend linear-attn-verify-backend linear-backend
linear-replayssm-cache-len load-balance-method load-snapshot-publish-interval log-error-stack
log-level log-level-http log-requests log-requests-format log-requests-level logprobs-mode
long-prefill-token-threshold long-prefill-token-threshold-adaptive lora-backend
lora-drain-wait-threshold lora-dtype lora-eviction-policy lora-extra-vocab-size
lora-strict-loading lora-target-modules lora-use-virtual-experts mamba-backend mamba-block-size
mamba-cache-dtype mamba-cache-mode mamba-cache-philox-rounds mamba-full-memory-ratio
mamba-max-states-per-path mamba-radix-cache-strategy mamba-ssm-cache-dtype mamba-ssm-dtype
mamba-ssu-algorithm mamba-track-interval max-cpu-loras max-cudagraph-capture-size max-ep-size
max-loaded-loras max-log-len max-logprobs max-long-partial-prefills max-lora-chunk-size
max-lora-cls-labels max-lora-rank max-loras max-loras-per-batch max-mamba-cache-size
max-micro-batch-size max-model-len max-num-active-seqs max-num-batched-tokens
max-num-partial-prefills max-num-queued-reqs max-num-queued-tokens max-num-scheduled-tokens
max-num-seqs max-parallel-loading-workers max-prefill-tokens max-queued-requests
max-running-requests max-seq-len-to-capture max-total-tokens media-url-max-file-size-mb
mem-fraction-static min-free-slots-delay mlx-enable-sampling mm-attention-backend
mm-device-do-normalize mm-enable-dp-encoder mm-encoder-attn-backend mm-encoder-attn-dtype
mm-encoder-fp8-scale-save-margin mm-encoder-only mm-encoder-tp-mode mm-feature-transport
mm-hasher-algorithm mm-io-worker-num mm-ipc-gpu-memory-gb mm-preprocess-cache-size-mb
mm-processor-cache-gb mm-processor-cache-type mm-processor-device mm-processor-worker-num
mm-shm-cache-max-object-size-mb mm-tensor-ipc model-config-parser model-impl
model-loader-extra-config modelopt-quant moe-a2a-backend moe-backend moe-dense-tp-size moe-dp-size
moe-runner-backend monokernel-backend multi-step-stream-outputs noise num-continuous-decode-steps
num-gpu-blocks-override num-lookahead-slots num-redundant-experts num-reserved-decode-tokens
num-scheduler-steps numa-bind numa-bind-cpus numa-bind-nodes numa-node offload-backend
offload-group-size offload-mode offload-num-in-group offload-params offload-prefetch-step
optimistic-prefill-attempts optimization-level out-of-memory-above override-attention-dtype
override-generation-config override-pooler-config page-size paged-experts-num-resident
per-request-spec-decode-metrics performance-mode pipeline-parallel-size ple-offload-embedding
pooler-config pp-async-batch-depth pp-max-micro-batch-size pp-size pre-warm-nccl preemption-mode
prefill-attention-backend prefill-context-parallel-size prefill-decode-interval
prefill-decode-interval-min-bs prefill-delayer-forward-passes-buckets prefill-delayer-max-delay-ms
prefill-delayer-max-delay-passes prefill-delayer-queue-min-ratio
prefill-delayer-token-usage-low-watermark prefill-delayer-wait-seconds-buckets
prefill-kv-cache-dequant-dtype prefill-max-requests prefill-only-disable-kv-cache
prefill-round-robin-balance prefill-schedule-interval prefix-cache-retention-interval
prefix-caching-hash-algo prefix-match-unit priority-scheduling-preemption-threshold
prompt-tokens-buckets pt-load-map-location qsa-indexer-dtype quantization radix-eviction-policy
radix-eviction-policy-config random-seed reasoning-parser renderer-num-workers
replayssm-buffer-len response-role retraction-policy return-aux-hidden-state-layer-ids
return-hidden-states-mode return-input-ids return-output-ids return-sampling-mask
return-tokens-as-token-ids rl-on-policy-target rope-scaling rope-theta runner
safetensors-load-strategy safetensors-prefetch-block-size safetensors-prefetch-num-threads
sampling-backend sampling-defaults sampling-mask-max-tokens schedule-conservativeness
schedule-low-priority-values-first schedule-policy scheduler-delay-factor scheduler-recv-interval
scheduler-reserve-full-isl scheduling-policy seed shared-experts-tp-size show-time-cost
shutdown-timeout skip-mm-profiling skip-server-warmup skip-tokenizer-init
sleep-mode-offload-cudagraph sleep-on-idle sm-group-num soft-watchdog-timeout
sparse-indexer-topk-backend spawn-children spec-tokens specialize-active-lora
speculative-accept-threshold-acc speculative-accept-threshold-single speculative-adaptive
speculative-algorithm speculative-attention-mode speculative-dflash-block-size
speculative-domino-candidate-pool-size speculative-draft-attention-backend
speculative-draft-kv-cache-dtype speculative-draft-model-quantization speculative-draft-sink-size
speculative-draft-window-size speculative-dsa-topk-backend
speculative-dspark-align-verify-tokens-to-graph-tier speculative-dspark-block-size
speculative-eagle-topk speculative-enable-w4a4-mxfp4-megamoe speculative-moe-a2a-backend
speculative-moe-runner-backend speculative-ngram-capacity
speculative-ngram-external-corpus-max-tokens speculative-ngram-external-sam-budget
speculative-ngram-match-type speculative-ngram-max-bfs-breadth speculative-ngram-max-trie-depth
speculative-ngram-min-bfs-breadth speculative-num-draft-tokens speculative-num-steps
speculative-use-block-verification speculative-use-rejection-sampling speed
sse-keep-alive-interval start-seconds startup-weight-load-mode stream-interval stream-output
stream-response-default-include-usage strip-thinking-cache swa-bounded-replay
swa-full-tokens-ratio swa-prefix-tails swap-space task tbo-token-distribution-threshold
tensor-parallel-size tokenizer-backend tokenizer-mode tokenizer-worker-num tokens-only
tool-call-parser tool-strict-level torch-compile-max-bs torchao-config tp-size
triton-attention-num-kv-splits triton-attention-reduce-in-fp32 triton-attention-split-tile-size
ubatch-size use-fp64-gumbel use-replayssm use-tqdm-on-load uvicorn-log-level video-pruning-method
video-pruning-rate watchdog-timeout watermark weight-loader-disable-mmap
weight-loader-drop-cache-after-load weight-loader-prefetch-checkpoints
weight-loader-prefetch-num-threads weight-version
"""
HARMLESS = frozenset(_NAMES.split())
"""Flags of vLLM, SGLang and the simulated engine that take numbers, switches, plain words, and
JSON of these, and with them read no file, run no code, open no port and reach no machine. Each
was decided by its name and help, in the catalogs of vLLM 0.10.0 and 0.32.0, SGLang 0.5.2 and
0.5.23."""

DECIDED = HARMLESS | MODELS | NARROW.keys() | KEYS.keys()
"""Every flag that a study may give without the operator's word, with some value."""
