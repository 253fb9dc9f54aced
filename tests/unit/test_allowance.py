"""What a study that comes by HTTP may choose; every flag of every catalog is looked at."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from autotuner.api.allow_file import Allowance, Named, read_allowance
from autotuner.api.allowance import refusals, variables
from autotuner.api.flag_values import judged
from autotuner.engines.base import Harmless, harmless_of
from autotuner.engines.catalog import (
    Catalog,
    Flag,
    FlagKind,
    known_engines,
    known_versions,
    load_catalog,
)
from autotuner.errors import ConfigError
from autotuner.plugins import load_kind
from autotuner.shipped import shipped
from autotuner.study.presets import presets
from tests.builders import spec

MODEL = {"path": "Qwen/Qwen3-0.6B"}
HUB = Allowance(Named(models=("Qwen/*",)))
"""Allows the model of these tests, and nothing else."""


def refused(allowed: Allowance = HUB, /, **changes: Any) -> list[ConfigError]:
    return refusals(spec(**{"model": MODEL, "engine": {"kind": "vllm"}, **changes}), allowed)


def places(allowed: Allowance = HUB, /, **changes: Any) -> list[str]:
    return [each.where for each in refused(allowed, **changes)]


def engine(kind: str = "vllm", **said: Any) -> dict[str, Any]:
    return {"kind": kind, **said}


def named(**said: Any) -> Allowance:
    return Allowance(Named.model_validate({"models": ["Qwen/*"], **said}))


# In all


def test_an_ordinary_study_needs_nobodys_word_but_for_its_model() -> None:
    study: dict[str, Any] = {
        "engine": engine(
            arguments={"max-model-len": "8k", "compilation-config": {"cudagraph_mode": "FULL"}},
            environment={"OMP_NUM_THREADS": 4, "VLLM_CPU_KVCACHE_SPACE": 2},
        ),
        "space": {
            "max_num_seqs": [64, 256],
            "gpu-memory-utilization": {"type": "float", "low": 0.8, "high": 0.95},
            "attention-backend": ["FLASH_ATTN", "FLASHINFER"],
            "env:VLLM_ATTENTION_BACKEND": ["FLASHINFER", ""],
            "speculative-config": [{"method": "ngram", "num_speculative_tokens": 3}, ""],
        },
        "quantization": {"kv_cache": ["auto", "fp8"]},
        "backend": {"kind": "docker", "docker": {"memory": "64g", "ipc": "private"}},
    }
    assert refused(**study) == []
    assert places(Allowance(), **study) == ["model.path"]


@pytest.mark.parametrize("preset", presets(), ids=lambda preset: preset.name)
def test_the_presets_that_come_with_autotuner_are_harmless(preset: Any) -> None:
    kinds = [preset.engine] if preset.engine else ["vllm", "sglang"]
    for kind in kinds:
        catalog = load_catalog(kind)
        space = {n: v for n, v in preset.parameters.items() if catalog.find(n)}
        assert refused(engine=engine(kind), space=space) == []


DANGEROUS: Mapping[str, Mapping[str, Any]] = {
    "engine.command": {"engine": engine(command=["sh", "-c", "id"])},
    "engine.image_command": {"engine": engine(image_command=["sh"])},
    "engine.image": {"engine": engine(image="evil.example/x:1")},
    "engine.catalog": {"engine": engine(catalog="/etc/passwd")},
    "engine.environment.LD_PRELOAD": {"engine": engine(environment={"LD_PRELOAD": "/x.so"})},
    "engine.environment.HTTPS_PROXY": {"engine": engine(environment={"HTTPS_PROXY": "http://e"})},
    "engine.environment.NOBODY_KNOWS": {"engine": engine(environment={"NOBODY_KNOWS": "1"})},
    "engine.arguments.trust-remote-code": {"engine": engine(arguments={"trust_remote_code": True})},
    "engine.arguments.chat-template": {"engine": engine(arguments={"--chat-template": "a"})},
    "space.load-format": {"space": {"load-format": ["auto", "pt"]}},
    "space.env:PYTHONPATH": {"space": {"env:PYTHONPATH": ["/x"]}},
    "backend.docker.user": {"backend": {"kind": "process", "docker": {"user": "0:0"}}},
    "backend.docker.network": {"backend": {"kind": "docker", "docker": {"network": "corp"}}},
    "backend.docker.mounts": {"backend": {"kind": "docker", "docker": {"mounts": ["/:/x"]}}},
    "backend.ome.node_selector": {"backend": {"kind": "ome", "ome": {"node_selector": {"a": "b"}}}},
    "backend.ome.gpu": {"backend": {"kind": "ome", "ome": {"gpu": "example.com/other"}}},
    "backend.elsewhere.x": {"backend": {"kind": "process", "elsewhere": {"x": 1}}},
    "benchmark.table": {"benchmark": {"kind": "replay", "table": "/etc/passwd"}},
    "benchmark.helper_image": {"benchmark": {"kind": "ome-job", "helper_image": "evil"}},
    "benchmark.huggingface_secret": {"benchmark": {"kind": "ome-job", "huggingface_secret": "x"}},
    "workload.request.messages": {
        "workload": {
            "scenarios": ["D(9,9)"],
            "concurrency": [1],
            "request": {"messages": [{"image_url": "http://169.254.169.254"}]},
        }
    },
    "model.served_name": {"model": {**MODEL, "served_name": "--trust-remote-code"}},
    "model.tokenizer": {"model": {**MODEL, "tokenizer": "evil/tokenizer"}},
    "prior.system": {"prior": {"kind": "aiconfigurator", "system": "../../x"}},
}


@pytest.mark.parametrize("place", DANGEROUS)
def test_what_is_refused_says_where_and_what_to_ask_for(place: str) -> None:
    (error,) = refused(**DANGEROUS[place])
    assert error.where == place
    assert "by a study that comes by HTTP" in error.problem
    assert error.hint
    assert refused(Allowance.everything(), **DANGEROUS[place]) == []


def test_of_several_engines_each_is_looked_at() -> None:
    bad = {"arguments": {"trust-remote-code": True}, "image": "evil"}
    found = places(
        engine={"kind": ["vllm", "sglang"], "settings": {"vllm": bad, "sglang": bad}},
        space={"sglang": {"chat-template": ["a", "b"]}},
    )
    assert found == [
        "engine.settings.vllm.image",
        "engine.settings.vllm.arguments.trust-remote-code",
        "engine.settings.sglang.image",
        "engine.settings.sglang.arguments.trust-remote-code",
        "space.sglang.chat-template",
    ]


@pytest.mark.parametrize(
    ("said", "study"),
    [
        ({"commands": [["/opt/vllm", "serve"]]}, {"command": ["/opt/vllm", "serve"]}),
        ({"image_commands": [["vllm", "serve"]]}, {"image_command": ["vllm", "serve"]}),
        ({"images": ["vllm/vllm-openai:v0.*"]}, {"image": "vllm/vllm-openai:v0.32.0"}),
        ({"images": ["v0.32.*"]}, {"image": "v0.32.0"}),
        ({"environment": ["VLLM_*"]}, {"environment": {"VLLM_NEW": "1"}}),
        ({"environment": ["LD_PRELOAD"]}, {"environment": {"LD_PRELOAD": "/lib/x.so"}}),
        ({"flags": ["trust-remote-code"]}, {"arguments": {"trust-remote-code": True}}),
        ({"flags": ["--trust_remote_code"]}, {"arguments": {"trust-remote-code": True}}),
        ({"flags": ["kv-transfer-config"]}, {"arguments": {"kv-transfer-config": {"a": "b.c"}}}),
        ({"flags": ["kv-transfer-config"]}, {"arguments": {"kv-transfer-config.a": "b.c"}}),
    ],
)
def test_what_the_operator_names_may_be_chosen(said: Any, study: Any) -> None:
    assert refused(named(**said), engine=engine(**study)) == []
    assert len(refused(engine=engine(**study))) == 1


@pytest.mark.parametrize(
    ("said", "study"),
    [
        ({"commands": [["/opt/vllm", "serve"]]}, {"command": ["/opt/vllm", "serve", "--x"]}),
        ({"commands": [["/opt/vllm", "serve"]]}, {"image_command": ["/opt/vllm", "serve"]}),
        ({"images": ["vllm/*"]}, {"image": "vllm/evil/x"}),
        ({"images": ["registry:*"]}, {"image": "registry:5000/evil"}),
        ({"images": ["*"]}, {"image": "evil.example/x"}),
        ({"environment": ["*"]}, {"environment": {"LD_PRELOAD": "/x.so"}}),
        ({"environment": ["*_*"]}, {"environment": {"http_proxy": "http://evil"}}),
        ({"environment": ["VLLM_*"]}, {"environment": {"VLLM_PLUGINS": "evil"}}),
        ({"flags": ["*"]}, {"arguments": {"trust-remote-code": True}}),
    ],
)
def test_a_pattern_means_no_more_than_it_says(said: Any, study: Any) -> None:
    assert len(refused(named(**said), engine=engine(**study))) == 1


@pytest.mark.parametrize(
    ("said", "block"),
    [
        ({"docker": {"user": ["1000:*"]}}, {"kind": "docker", "docker": {"user": "1000:1"}}),
        ({"ome": {"gpu": [None]}}, {"kind": "ome", "ome": {"gpu": None}}),
        ({"ome": {"labels": ["*"]}}, {"kind": "ome", "ome": {"labels": {"a": "b"}}}),
        ({"ome": {"labels": [{"a": "b"}]}}, {"kind": "ome", "ome": {"labels": {"a": "b"}}}),
    ],
)
def test_options_the_operator_names(said: Any, block: Any) -> None:
    assert refused(named(backend=said), backend=block) == []
    assert len(refused(backend=block)) == 1


# Models and files


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Models in a directory, one without, and links from the one to the other."""
    for name in ("models/mine", "models/team/deep", "elsewhere/theirs", "models2/x"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "models/out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/in").symlink_to(tmp_path / "models/mine")
    (tmp_path / "Qwen").symlink_to(tmp_path / "elsewhere")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "may"),
    [
        ("{}/models/mine", True),
        ("{}/models", True),
        ("{}/models/team/deep", True),
        ("{}/models/not-there-yet", True),
        ("models/mine", True),
        ("./models/mine", True),
        ("{}/elsewhere/in", True),
        ("{}/elsewhere/theirs", False),
        ("{}/models2/x", False),
        ("{}/models/../elsewhere/theirs", False),
        ("{}/models/out/theirs", False),
        ("models/out/theirs", False),
        ("../models/mine", False),
        ("~/models", False),
        ("~nobody-of-that-name/x", False),
        ("/", False),
        ("/etc", False),
        ("Qwen/Qwen3-0.6B", True),
        ("Qwen/theirs", False),  # it is here, and would be served from here
        ("Qwen/../etc", False),
        ("other/model", False),
        ("Qwen", False),
        ("a/b/c", False),
        ("--trust-remote-code", False),
        ("Qwen/x:evil", False),
        ("Qwen/x\n", False),
        ("s3://bucket", False),
        ("\0", False),
        ("x" * 5000, False),
    ],
)
def test_a_model_is_of_an_allowed_name_or_in_an_allowed_place(
    path: str, may: bool, place: Path
) -> None:
    said = path.format(place)
    allowed = Allowance(Named(models=("Qwen/*",)), models=place / "models", base=place)
    for name in ("path", "tokenizer"):
        model = {"path": "Qwen/a", "served_name": "a", name: said}
        assert places(allowed, model=model) == ([] if may else [f"model.{name}"])
    listed = Allowance(Named(models=("Qwen/*", str(place / "models"))), base=place)
    assert bool(refused(listed, model={"path": said, "served_name": "a"})) is not may


def test_an_answer_does_not_tell_what_is_on_the_machine(place: Path) -> None:
    allowed = Allowance(models=place / "models", base=place)
    said = [
        refused(allowed, model={"path": f"./{name}", "served_name": "a"})[0].text()
        for name in ("elsewhere", "not-there")
    ]
    assert said[0].replace("elsewhere", "not-there") == said[1]


def test_tables_and_catalogs_are_read_where_the_operator_says(place: Path) -> None:
    allowed = Allowance(Named(models=("Qwen/*",), files=(str(place / "models"),)), base=place)
    for said, may in (("models/t.csv", True), ("models/out/t.csv", False), ("/etc/passwd", False)):
        benchmark = {"kind": "replay", "table": said, "noise": 0.1}
        assert bool(refused(allowed, benchmark=benchmark)) is not may
        found = places(allowed, engine=engine(catalog=said))
        assert ("engine.catalog" in found) is not may


# The flags


REVIEWED = {
    "sglang": ["0.5.2", "0.5.23"],
    "simulated": ["1.0"],
    "vllm": ["0.10.0", "0.32.0"],
}
"""Catalogs whose flags a person has decided about, one by one. To add one: go through its flags
that the engine's `harmless` has not decided, and add those to its `flags` that read no file, run no
code, open no port and reach no machine."""

HARMLESS: Mapping[str, Harmless] = {
    kind: harmless_of(load_kind("engine", kind)) for kind in REVIEWED
}
DECIDED = frozenset[str]().union(*(each.decided for each in HARMLESS.values()))
VARIABLES = variables("vllm")


def catalogs() -> list[Catalog]:
    return [load_catalog(kind, version) for kind in REVIEWED for version in REVIEWED[kind]]


def flags() -> Iterator[tuple[Catalog, Flag]]:
    for catalog in catalogs():
        for flag in catalog.flags:
            yield catalog, flag


def test_every_catalog_was_gone_through() -> None:
    assert {kind: known_versions(kind) for kind in known_engines()} == REVIEWED


@pytest.mark.parametrize("kind", REVIEWED)
def test_every_decision_is_about_a_flag_of_the_engine_and_made_once(kind: str) -> None:
    own = {flag.name for catalog, flag in flags() if catalog.engine == kind}
    said = HARMLESS[kind]
    assert said.decided <= own
    keys = {each for each in said.models if "." in each}
    groups = [said.flags, said.models - keys, set(said.values), set(said.keys)]
    assert sum(map(len, groups)) == len(said.decided)
    assert all(key.split(".", 1)[1] in said.keys[key.split(".", 1)[0]] for key in keys)


BAD: list[Any] = [
    *("/etc/passwd", "../x", "./x", "~/x", "a/b", "pkg.module", "pkg:Class", "http://evil.example"),
    *("tcp://0.0.0.0:1", "s3://b/c", "127.0.0.1", "host.example", "\\\\evil\\x", "a b;c", "$(id)"),
    *(["/etc/passwd"], ["--trust-remote-code"], [1, "--trust-remote-code"], [" --x"]),
    *({"path": "x"}, {"a": {"b": ["/x"]}}, {"module_path": "x"}, {"a/b": 1}, {"model": "gpt2"}),
    *('{"a": "/x"}', '["/x"]', '{"a": {"cache_dir": "x"}}', "{" * 500, "[" * 5000),
]


def closed(flag: Flag) -> bool:
    """Whether the engine's own parser lets no path or name through."""
    numbers = (FlagKind.SWITCH, FlagKind.NEGATABLE, FlagKind.INT, FlagKind.FLOAT)
    return flag.kind in numbers or flag.choices is not None


def test_a_harmless_flag_takes_no_path_no_class_and_no_address() -> None:
    taken = [
        (c, f)
        for c, f in flags()
        if f.name in HARMLESS[c.engine].decided - SECRETS and not closed(f)
    ]
    assert len(taken) > 80
    for catalog, flag in taken:
        for value in BAD:
            study = engine(catalog.engine, version=catalog.version, arguments={flag.name: value})
            assert refused(engine=study), (flag.name, value)


SWITCHES_OF_MORE = """
trust-remote-code trust-request-chat-template trust-request-mm-kwargs enable-custom-logit-processor
delete-ckpt-after-loading export-metrics-to-file enable-trace enable-prompt-embeds enable-mm-embeds
use-ray ray-workers-use-nsight grpc grpc-port grpc-mode smg-grpc-mode smg-http-sidecar-port
hicache-storage-backend weight-cache-mode ple-offload-backend enable-lmcache enable-flexkv
disaggregation-mode disaggregation-bootstrap-port encoder-bootstrap-port
engine-info-bootstrap-port gated-launch-port nccl-port data-parallel-rpc-port
data-parallel-supervisor-port enable-response-store enable-ssl-refresh base-gpu-id gpu-id-step
allow-credentials quantize-and-serve enable-torch-compile-debug-mode
enable-unified-cache-external-linker enable-mm-global-cache enable-elastic-expert-backup
enable-scale-out remote-instance-weight-loader-backend checkpoint-engine-wait-weights-before-ready
"""
OPEN_TO_MORE = """
chat-template completion-template download-dir tool-parser-plugin reasoning-parser-plugin
io-processor-plugin middleware logits-processors logits-processor-pattern custom-weight-loader
sidecar sidecar-args forward-hooks warmups worker-cls worker-extension-cls scheduler-cls
model-class-overrides hf-overrides json-model-override-args hf-config-path additional-config
kv-transfer-config kv-events-config ec-transfer-config profiler-config log-config-file
logging-config otlp-traces-endpoint allowed-local-media-path allowed-media-domains tool-server
lora-modules lora-paths default-mm-loras revision code-revision tokenizer-revision
speculative-draft-model-revision speculative-token-map crash-dump-folder file-storage-path
device-ids ssl-keyfile ssl-certfile ssl-ca-certs uds quantization-param-path
modelopt-export-path modelopt-checkpoint-save-path modelopt-checkpoint-restore-path kt-weight-path
deepep-config hisparse-config lmcache-config-file flexkv-config-file pdmux-config-path
msprobe-dump-config decrypted-config-file debug-tensor-dump-output-folder
export-metrics-to-file-dir spec-trace-dir ple-offload-dir weight-cache-socket
hicache-storage-backend-extra-config mm-processor-kwargs media-io-kwargs rl-quant-profile
"""


@pytest.mark.parametrize("name", SWITCHES_OF_MORE.split())
def test_a_switch_or_number_that_does_more_is_nobodys_to_set(name: str) -> None:
    assert name in {flag.name for _, flag in flags()}
    assert name not in DECIDED


@pytest.mark.parametrize("name", OPEN_TO_MORE.split())
def test_what_reads_files_runs_code_or_reaches_out_is_nobodys_to_set(name: str) -> None:
    assert name in {flag.name for _, flag in flags()}
    assert name not in DECIDED


def sample(flag: Flag) -> Any:
    if flag.kind in (FlagKind.SWITCH, FlagKind.NEGATABLE):
        return True
    if flag.choices:
        return flag.choices[0]
    return 1


SECRETS = {
    *("hf-token", "ssl-keyfile-password", "api-key", "admin-api-key", "allow-credentials"),
    *("bucket-time-to-first-token", "kt-max-deferred-experts-per-token"),
}
"""Names that no study may say, whoever sends it; some only look as if they were secrets."""


@pytest.mark.parametrize("catalog", catalogs(), ids=lambda c: f"{c.engine}-{c.version}")
def test_every_flag_under_every_name_fixed_and_varied(catalog: Catalog) -> None:
    unsaid, said = [], HARMLESS[catalog.engine]
    for flag in catalog.flags:
        for name in (flag.name, *flag.aliases, flag.name.replace("-", "_"), f"--{flag.name}"):
            try:
                fixed = engine(catalog.engine, version=catalog.version, arguments={name: "a/b"})
                varied = engine(catalog.engine, version=catalog.version)
                both = [
                    refused(engine=fixed),
                    refused(engine=varied, space={name: [sample(flag), "a/b"]}),
                ]
            except ValidationError:  # a secret, which no study may hold
                unsaid.append(flag.name)
                continue
            free = flag.choices is not None and "a/b" in flag.choices
            assert all(len(each) == 1 for each in both) is not free, name
            alone = refused(engine=varied, space={name: [sample(flag)]})
            assert len(alone) <= (0 if flag.name in said.flags else 1), name
            assert len(alone) == (flag.name not in said.decided) or flag.name not in said.flags, (
                name
            )
            allowed = named(flags=[flag.name])
            assert refused(allowed, engine=fixed) == []
    assert set(unsaid) <= SECRETS


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("load-format", "pt"),
        ("load-format", "runai_streamer"),
        ("distributed-executor-backend", "ray"),
        ("distributed-executor-backend", "evil"),
        ("generation-config", "word"),
        ("speculative-config", {"method": "custom_class", "model": "Qwen/x"}),
        ("speculative-config", {"model": "evil/x"}),
        ("speculative-config", '{"model": "evil/x"}'),
        ("speculative-config.model", "evil/x"),
        ("sc.model", "gpt2"),
        ("speculative-config", {"draft_load_config": {"load_format": "pt"}}),
        ("compilation-config", {"inductor_passes": {"x": "os.system"}}),
        ("compilation-config.debug_dump_path", "x"),
        ("compilation-config", {"cache_dir": "x"}),
        ("cc.backend", "evil.module.function"),
        ("-O", 3),
        ("structured-outputs-config", {"reasoning_parser_plugin": "x"}),
        ("spec-model", "evil/x"),
        ("no-such-flag", 1),
        ("no-enable-prefix-caching", True),
    ],
)
def test_what_a_flag_may_not_say(flag: str, value: Any) -> None:
    assert len(refused(engine=engine(arguments={flag: value}))) == 1


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("load-format", "dummy"),
        ("speculative-config", {"model": "Qwen/draft", "num_speculative_tokens": 2}),
        ("speculative-config.model", "Qwen/draft"),
        ("compilation-config", {"custom_ops": ["none", "+rms_norm"], "pass_config": {"a": True}}),
        ("compilation-config.cudagraph_mode", "PIECEWISE"),
        ("cudagraph-capture-sizes", [1, 2, 4]),
        ("limit-mm-per-prompt", '{"image": 2}'),
        ("quantization", "fp8"),
        ("max-num-seqs", None),
    ],
)
def test_what_a_flag_may_say(flag: str, value: Any) -> None:
    assert refused(engine=engine(arguments={flag: value})) == []


def test_a_flag_that_is_allowed_smuggles_in_no_other() -> None:
    allowed = named(flags=["cudagraph-capture-sizes", "middleware"])
    for flag in ("cudagraph-capture-sizes", "middleware"):
        study = engine(arguments={flag: ["x", "--trust-remote-code"]})
        (error,) = refused(allowed, engine=study)
        assert "would be a flag of its own" in error.problem


# Fuzzed

TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from([each for each in BAD if isinstance(each, str)]),
    st.sampled_from(["auto", "fp8", "FULL", "eager", "model", "backend", "custom_class", "Qwen/x"]),
    st.from_regex(r"[-./:~A-Za-z0-9_]{1,12}", fullmatch=True),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)
FLAGS = st.sampled_from(sorted({(c.engine, f.name) for c, f in flags()}))
DOORS = re.compile(r"[/\\:~.\s$;]|^-")
"""What a path, an address, a module's name or a flag has in it, and a plain word has not."""


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield key
            yield from texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from texts(each)
    elif isinstance(value, str):
        yield value
        if value[:1] in "[{":
            try:
                yield from texts(json.loads(value))
            except (ValueError, RecursionError):
                return


def is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?", text) is not None


@settings(max_examples=1500, deadline=None)
@given(FLAGS, st.sampled_from(["", ".x", ".model", ".a.b", ".cache_dir"]), VALUES)
@example(("vllm", "compilation-config"), "", {"a": ["b", {"c": "/d"}]})
@example(("vllm", "speculative-config"), "", {"model": "Qwen/x"})
def test_what_is_let_through_opens_no_door(flag: tuple[str, str], key: str, value: Any) -> None:
    kind, name = flag
    found = next(f for c, f in flags() if (c.engine, f.name) == flag)
    problem = judged(name + key, value, found, HARMLESS[kind], HUB)
    if problem:
        return
    assert name in HARMLESS[kind].decided
    content: Any = {key.rpartition(".")[2]: value} if key else value
    choices = set(map(str, found.choices or ()))
    for text in texts(content):
        if text in choices or is_number(text) or text == "Qwen/x" or text[:1] in "[{":
            continue
        assert not DOORS.search(text), (name + key, value)


@settings(max_examples=300, deadline=None)
@given(
    arguments=st.dictionaries(TEXTS, VALUES, max_size=3),
    varied=st.dictionaries(TEXTS, st.lists(VALUES, max_size=3), max_size=3),
    request=st.dictionaries(TEXTS, VALUES, max_size=2),
    docker=st.dictionaries(TEXTS, VALUES, max_size=2),
    texts=st.lists(TEXTS, min_size=4, max_size=4),
    kind=st.sampled_from(["vllm", "sglang", "simulated", "nobody's"]),
)
def test_whatever_a_study_says_it_is_answered(
    arguments: Any, varied: Any, request: Any, docker: Any, texts: list[str], kind: str
) -> None:
    path, name, image, version = texts
    try:
        said = spec(
            model={"path": path, "served_name": name or "a"},
            engine=engine(kind, arguments=arguments, image=image, version=version),
            space=varied,
            backend={"kind": "docker", "docker": docker},
            workload={"scenarios": ["D(9,9)"], "concurrency": [1], "request": request},
        )
    except ValidationError:
        return  # no study at all
    for allowed in (Allowance(), HUB, named(images=["*"], flags=["a"], backend={"docker": {}})):
        for error in refusals(said, allowed):
            assert error.where
            assert error.text()


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    parts=st.lists(
        st.sampled_from(
            ["..", ".", "", "~", "models", "mine", "out", "theirs", "elsewhere", "in", "x"]
        ),
        max_size=6,
    ),
    absolute=st.booleans(),
)
def test_a_path_that_is_let_through_is_in_its_place(
    place: Path, parts: list[str], absolute: bool
) -> None:
    said = (f"{place}/" if absolute else "") + "/".join(parts) or "."
    allowed = Allowance(models=place / "models", base=place)
    if not refused(allowed, model={"path": said, "served_name": "a"}):
        real = (place / said).resolve()
        assert real.is_relative_to(place / "models")


@settings(max_examples=300, deadline=None)
@given(st.from_regex(r"[A-Za-z_]{1,12}", fullmatch=True) | st.sampled_from(VARIABLES))
def test_a_variable_is_one_of_those_named(name: str) -> None:
    try:
        found = refused(space={f"env:{name}": ["1", "2"]})
    except ValidationError:
        return  # a secret
    assert bool(found) is (name not in VARIABLES)


# The file


def test_the_example_can_be_read() -> None:
    allowed = read_allowance(shipped("allow.yaml"))
    assert not allowed.named.everything
    assert "Qwen/*" in allowed.named.models
    assert refused(allowed, engine=engine(image="vllm/vllm-openai:v0.32.0")) == []


def test_a_file_of_comments_allows_nothing(tmp_path: Path) -> None:
    path = tmp_path / "allow.yaml"
    path.write_text("# models: [Qwen/*]\n")
    assert read_allowance(path, tmp_path, tmp_path) == Allowance(Named(), tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("text", "line", "place"),
    [
        ("models: [a]\nimage: [b]\n", 2, "image"),
        ("models: [a]\nimages: b\n", 2, "images"),
        ("backend:\n  docker: [user]\n", 2, "backend.docker"),
        ("models: [1]\n", 1, "models.0"),
        ("- a\n", None, ""),
        ("models: [\n", 2, ""),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_place(
    text: str, line: int | None, place: str, tmp_path: Path
) -> None:
    path = tmp_path / "allow.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as told:
        read_allowance(path)
    assert (told.value.file, told.value.where, told.value.line) == (str(path), place, line)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_allowance(tmp_path / "no.yaml")
