"""Write docs/study-file.md from the models of the study file, or check that it is up to date.

    python docs/make_study_file.py            # write
    python docs/make_study_file.py --check    # exit 1 where the file is stale

Keys, types, defaults, descriptions and metrics come from the code; the rules in prose are here.
The example in the page is checked as a study file each time the page is made.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, get_args

from pydantic import BaseModel

from autotuner.backends.container import DockerOptions
from autotuner.backends.ome_manifest import OMEOptions
from autotuner.benchmarks.ome_job import Options as OMEJobOptions
from autotuner.benchmarks.replay import Options as ReplayOptions
from autotuner.job import checked
from autotuner.search.hyperopt import Options as HyperOptOptions
from autotuner.search.optuna import Options as OptunaOptions
from autotuner.study.loading import parse_study, read_study_text
from autotuner.study.metrics import METRICS
from autotuner.study.quantization import QuantizationSpec
from autotuner.study.slo import SLO, SLOSpec, bounded_metrics, profiles
from autotuner.study.spec import (
    BackendSpec,
    BenchmarkSpec,
    EngineSpec,
    HardwareSpec,
    Limits,
    ModelSpec,
    PriorSpec,
    SchedulerSpec,
    SearchSpec,
    StudySpec,
    VerdictSpec,
    WorkloadSpec,
)

PAGE = Path(__file__).with_name("study-file.md")
COMMAND = "python docs/make_study_file.py"

EXAMPLE = """\
# Which flags serve Qwen3-8B best under a chat-like load, on one machine with GPUs?
name: qwen3-8b-chat
description: Chat load, first token within half a second

model:
  path: Qwen/Qwen3-8B              # a directory, or an id on a model hub

engine:
  kind: vllm
  version: 0.32.0                  # whose flags are checked: say the version you have installed
  arguments:                       # fixed in every trial, the baseline included
    max-model-len: 8192
  environment:
    VLLM_LOGGING_LEVEL: INFO

space:                             # varied; the baseline has none of these
  tensor-parallel-size: [1, 2]                                            # a list of choices
  max-num-seqs: {type: int, low: 32, high: 1024, log: true}
  max-num-batched-tokens: [2048, 4096, 8k, 16k]                           # vLLM knows 8k
  gpu-memory-utilization: {type: float, low: 0.8, high: 0.95, step: 0.05}
  kv-cache-dtype: [auto, fp8]
  enable-prefix-caching: [true, false]                                    # false: --no-enable-...
  prefix-caching-hash-algo:                                               # only where it matters
    values: [sha256, xxhash]
    when: {enable-prefix-caching: true}
  speculative-config:                                                     # null: left out
    - null
    - {method: ngram, num_speculative_tokens: 4, prompt_lookup_max: 3}
  env:OMP_NUM_THREADS: [1, 8]                                             # an environment variable

workload:                          # 2 scenarios x 2 concurrencies = 4 load points a trial
  scenarios: ["D(512,128)", "N(2000,300)/(200,50)"]
  concurrency: [4, 32]
  max_requests: 400                # a load point ends at 400 measured requests
  max_seconds: 60                  # or after 60 measured seconds, whichever is first
  request: {temperature: 0.0}      # added to every request

objectives: [output_throughput]    # to be improved; its unit and direction are in the table below
slo:                               # every load point must meet every one of them
  ttft_p90: {max: 0.5}             # seconds
  tpot_p90: {max: 0.05, hard: true}
  error_rate: {max: 0.01}

search: {kind: optuna, seed: 0}    # who proposes trials
scheduler: {kind: asha}            # a weak trial ends before its last load point
verdict: {finalists: 3, rounds: 5} # the best three and the baseline, launched again in turns
limits: {trials: 30, hours: 24, ready_seconds: 900}
"""

INTRODUCTION = f"""\
# The study file

<!-- Written by `{COMMAND}`; change that script or the models, not this page. -->

A study file is one question: which flags serve this model best under this load? It is YAML 1.2, or
JSON. The rules that hold everywhere:

- **Unknown keys are errors**, and so is a key given twice. Mistakes are reported with file, line,
  what was written and what is allowed: first those of syntax, then together those of keys and
  values, then together those of flags. The command line exits with 2.
- **Types are kept.** `"8"` is a text and `8` a number; neither becomes the other. `on`, `off`,
  `yes` and `no` are texts (YAML 1.2); write `true` and `false`. `1e-3` is a number. Infinities and
  what is not a number are refused.
- **Paths are relative to the directory in which `autotuner` is started**, not to the file's. A
  model path that is a directory there is that directory; otherwise it is taken for a hub id.
- **Nothing in it is secret.** It is stored with the study, in each trial's plan and in reports.
  Environment variables whose names look like a secret's, such as `HF_TOKEN`, are refused. Set them
  in the environment in which `autotuner` (or the Ray node) runs: servers inherit that, save for
  the variables that begin with `RAY_`, `AUTOTUNER_`, `OMP_NUM_THREADS` or `CUDA_VISIBLE_DEVICES`.
  What decides whether a point can start, such as `VLLM_ALLOW_LONG_MAX_MODEL_LEN`, is known of the
  environment of `autotuner`, not of a node's; `environment` says it for all.
- **Which GPUs, is not said in it.** Each trial is given GPUs of its own, as many as its engine's
  parallel sizes need; `CUDA_VISIBLE_DEVICES`, `NVIDIA_VISIBLE_DEVICES` and others of that ending
  are refused under `environment` and as `env:` parameters. To keep GPUs of a machine out of all
  studies, set `CUDA_VISIBLE_DEVICES` where `autotuner`, or the node's Ray, is started.
- **How and where autotuner itself runs is not in it.** That is in environment variables:
  `AUTOTUNER_HOME` (directory of the studies), `AUTOTUNER_STORE` (database URL) and
  `AUTOTUNER_AICONFIGURATOR` (a Python that has it), all three also from a file `.env` in the
  current directory, and `RAY_ADDRESS` (a Ray cluster to use; without it a local Ray is started).

`autotuner check FILE` checks a file and starts nothing; `autotuner plan FILE` also shows the exact
launches.

## A complete example

```yaml
{EXAMPLE}```

"""

SEVERAL = """\
### Several engines

A list of kinds compares engines in one search. Each has its own fixed settings under `settings`
and its own flags under `space`; the other keys of this block are then not used. The trials are
those of all engines together, conditional on the engine. The baseline is the first engine at its
defaults. `quantization` is shared, presets go to the engine they are for.

```yaml
name: which-engine
model: {path: Qwen/Qwen3-8B}
engine:
  kind: [vllm, sglang]
  settings:
    vllm: {version: 0.32.0, arguments: {max-model-len: 8192}}
    sglang: {version: 0.5.23, arguments: {context-length: 8192}}
space:
  vllm: {max-num-seqs: [64, 256, 1024]}
  sglang:
    schedule-conservativeness: {type: float, low: 0.3, high: 1.2}
    chunked-prefill-size: [2048, 8192]
workload: {scenarios: ["D(512,128)"], concurrency: [32]}
```

In reports such parameters are `engine`, `vllm:max-num-seqs`, `sglang:chunked-prefill-size`.

"""

NAMES = """\
### Names of flags

In `engine.arguments` and in `space`, a flag has the engine's own name. Dashes in front may be left
out, and `_` may stand for `-`: `--max_num_seqs`, `max_num_seqs` and `max-num-seqs` are one flag,
and giving two of these spellings is an error. A flag may be fixed or varied, not both; an alias
counts as the flag. A name with a dot, such as `compilation-config.mode`, is a key inside a flag
that takes JSON; what follows the dot is passed on as it is. The whole JSON and its keys cannot be
given side by side: vLLM would take the last one alone.

Names and values are checked against the flag catalog of the engine's version: `autotuner catalog`
lists the catalogs, `autotuner catalog vllm --search seqs` shows flags. Flags that autotuner sets
itself (model, served name, tokenizer, host, port) and those that would get in the way of measuring
(for vLLM: `api-key`, `config`, `uds`, `headless`) are refused, with where to say it instead.

### Values of flags

| value | on the command line |
|---|---|
| text, number | `--flag value`; a whole number that is written as `4096.0` becomes `4096` |
| `true` | `--flag` |
| `false` | `--no-flag` where the engine has that form; otherwise the flag is left out |
| `null`, `""` | the flag is left out: the engine's default |
| list | all values after one flag, the flag again for each value, or JSON: as the engine takes it |
| mapping | JSON, as one item |
| `true`, `false` for a key inside JSON | `--flag.key true`, `--flag.key false` |

Nothing goes through a shell: each item reaches the engine as it is.

"""

SPACE = """\
## space

Maps a parameter to its domain. The values are the engine's flags, or environment variables.

| domain | means |
|---|---|
| `[a, b, c]` | one of these values, of any JSON type |
| `{type: choice, values: [a, b, c]}` | the same, for use with `when`; `type` may be left out |
| `{type: int, low: 1, high: 64}` | whole numbers, both ends included |
| `{type: float, low: 0.8, high: 0.95}` | numbers, both ends included, six significant digits |

Further keys of `int` and `float`: `step` (the values are `low`, `low + step`, ...; a `float` with a
step is finite), `log: true` (drawn evenly on a logarithmic scale; needs `low` above 0 and no
`step`). Further key of all three: `when`. The words `categorical`, `integer` and `continuous` are
accepted for `choice`, `int` and `float`.

- **Choices** must differ as JSON: `1` and `1.0` are the same value, `1` and `true` are not. A
  choice may be a list or a mapping. `null` and `""` are the same choice, to leave the flag out,
  which is how "with or without" is written for a flag that takes a value.
- **Booleans** are choices: `[true, false]`.
- **Conditions**: `when: {other: value}` or `when: {other: [value, value]}` makes a parameter active
  only while another one of this space has one of these values. With several entries all must hold.
  A parameter that is not active is absent from the point, and so from the command line. Conditions
  may chain, not form a circle. A condition on a fixed flag, or on a value that never occurs, is an
  error.
- **`env:NAME`** varies an environment variable of the server. Its spelling is kept. Numbers become
  text, `true` and `false` become `1` and `0`, `null` and `""` leave it out.
- **An empty list** means not tuned. **An empty space** means that only the baseline runs.
- A single value is not a domain: put it under `engine.arguments`, or write a list of one.
- `grid` needs a finite space: every `float` needs a `step`.
- Of a range only the two ends are checked against the flag catalog; of choices every one.

Some points are known not to start, such as `max-num-batched-tokens` below `max-num-seqs`. They are
refused without a launch and cost no trial; `autotuner plan` counts them by reason.

"""

PRESETS = """\
## presets, merge

`presets: [vllm/latency, vllm/balanced]` starts the space from ready-made ones: those that come with
autotuner, your own in `$AUTOTUNER_HOME/presets`, or a file by its path. `merge` is `union`,
`intersection` or `last_wins`. Entries of `space` go over the merged ones; an empty list there takes
a parameter out. `autotuner presets` lists them. What could not be merged is said by `check`,
`plan` and `run`. See [presets](presets.md).

"""

QUANTIZATION = """\
`preset` may be written for `presets`, and one text for a list of one. A field with several values
is searched, as the parameter `quantization:gemm` and so on; several presets are one parameter,
`quantization:preset`. What each value becomes on the command line is in
[number formats](quantization.md).

"""

WORKLOAD = """\
### Traffic scenarios

The grammar is genai-bench's, in tokens, input first, without spaces:

| scenario | request |
|---|---|
| `D(512,128)` | 512 tokens in, 128 out |
| `N(2000,300)/(200,50)` | normal: mean 2000, deviation 300 in; mean 200, deviation 50 out |
| `U(100,900)/(50,150)` | uniform: 100 to 900 in, 50 to 150 out |

The mean needs at least 1 token in and 2 out (TPOT is the time between tokens). The form `U(a,b)`
with one pair is refused: genai-bench reads it as two maxima. Input is counted with the tokenizer
of the model; a chat template adds to it. Outputs do not end early, because requests say
`ignore_eos`. Fields of `request` that engines want as numbers, such as `temperature`, are refused
as a text.

The load points of a trial are each scenario at each concurrency, in the order of the file, or with
a [scheduler](#scheduler) the highest concurrency first. With the objective `max_load` the two
concurrencies are the ends of what is searched.

For steady numbers, give a load point at least ten times as many requests as its concurrency, and
some tens of seconds; of less than 200 requests a p99 says little.

"""

DOCKER = """\
A backend's options are in a block of its name; `process` has none. Those of [`docker`](docker.md):

"""

OME = """
Those of [`ome`](ome.md):

"""

BENCHMARK = """\
`genai-bench` has no further options.

`replay` answers from a table of trials that were measured, or computed, before. No server is
started and no time passes: a whole study takes seconds, searcher, scheduler, store and verdict
included. Where the model is, and whether the engine is installed, is then not looked at. Its
options:

"""

OME_JOB = """
`ome-job` runs the load inside the cluster, see [OME](ome.md). Its options:

"""

TABLE = """
The table has a row per point and load point, or per point:

| column | holds |
|---|---|
| a metric's name | its value; an empty cell is not known |
| `scenario`, `concurrency` | which load point the row is; left out or empty: every one |
| `seconds` | from launch to ready; 60 where it is not said |
| `failure`, `reason` | the point could not be measured: class and words |
| any other | a parameter, under the name the study has; cells are JSON, bare text is text |

An empty cell is the absence of a parameter; the row without any is the baseline. A point without
a row is INFEASIBLE. [An example](searching.md#a-search-in-a-table).

"""

OBJECTIVES = """\
## objectives, constraints and metrics

`objectives` lists metrics to improve; the direction is the metric's own. With several, the report
shows the Pareto front, and the first decides which trial is called the best and is exported.
[Objectives and service levels](objectives.md) explains this block, `slo`, `goodput` and `max_load`.

`constraints` maps a metric to a bound: an upper bound where lower is better, else a lower bound.
It is the short form of a row of [`slo`](#slo). Every load point must meet it. A trial that breaks
one is measured and shown, but never the best.

"One value" in the table is how the values at several load points become the trial's one value for
an objective; see [concepts](concepts.md#several-load-points). A metric that is missing at one load
point is missing for the trial; a trial with a missing objective or constraint is INFEASIBLE.

"""

DEFINITIONS = """
- `ttft`: from the request sent to its first token. `e2e_latency`: to its last token. `tpot`:
  (`e2e_latency` - `ttft`) / (output tokens - 1), per request; a request whose tokens all arrived
  at once has none.
- Percentiles are over the requests that completed in the window, with linear interpolation.
- Throughputs divide by the seconds of the window: `output` counts output tokens, `input` input
  tokens, `total` both, `request` completed requests. `_per_gpu` divides by the GPUs the trial held,
  and is missing on a CPU.
- `goodput`: completed requests that met every latency bound, per second. The bounds are those of
  the study on `ttft`, `tpot` and `e2e_latency`, whatever their statistic, applied to each
  request; the tightest counts. Without such bounds it equals `request_throughput`.
- `max_load`: the highest concurrency that meets every bound; see
  [objectives](objectives.md#max-load).
- `error_rate`: failed over all requests that ended in the window, 0 to 1.
- `prompt_overlap`: share of the prompts' text that begins another prompt, 0 to 1. It is of the
  load, not of the server: what a prefix cache could have known.

The earlier system's names `minimize_latency`, `maximize_throughput`, `minimize_ttft` and
`minimize_tpot` are accepted as objectives.

"""

ROWS = f"""
Every other key is a metric with its row, such as `ttft_p90: {{max: 0.5}}`. A row has either `max`,
where lower is better, or `min`. No row can be about
{" or ".join(f"`{name}`" for name in METRICS if name not in bounded_metrics())}. A metric is
bounded in `slo` or in `constraints`, not in both.
Profiles: {", ".join(f"`{name}`" for name in profiles())}.

"""

SEARCH = """\
`grid` and `random` have no further options. [Searching](searching.md) says how each of them
searches. Those of `optuna`:

"""

HYPEROPT = """
Those of `hyperopt`, which takes one objective:

"""

SCHEDULER = """\
Needs one objective, and not `max_load`. With it the load points are measured in another order, the
highest concurrency first; see [searching](searching.md#early-stopping).

"""

PRIOR = """\
See [searching](searching.md#a-prior).

"""

VERDICT = """\
See [the verdict](verdict.md). It takes at most `rounds` x (`finalists` + 1) launches, most often
far fewer; `limits.trials` does not count them.

"""

LIMITS = """\
A load point has a deadline besides: twice `workload.max_seconds` (warm-up and window) plus 60 s.
`hours` counts anew after `autotuner resume`; `trials` and `gpu_hours` count the whole study. How
the search keeps enough for the verdict is in [searching](searching.md#budgets).
"""


def page() -> str:
    """The whole page."""
    checked(parse_study(read_study_text(EXAMPLE, "example.yaml")))
    return "".join(
        (
            INTRODUCTION,
            section("Top level", StudySpec),
            section("model", ModelSpec),
            section("engine", EngineSpec),
            SEVERAL,
            NAMES,
            section("backend", BackendSpec),
            DOCKER,
            keys_table(DockerOptions),
            OME,
            keys_table(OMEOptions),
            "\n",
            SPACE,
            PRESETS,
            section("quantization", QuantizationSpec),
            QUANTIZATION,
            section("workload", WorkloadSpec),
            WORKLOAD,
            section("benchmark", BenchmarkSpec),
            BENCHMARK,
            keys_table(ReplayOptions),
            TABLE,
            OME_JOB,
            keys_table(OMEJobOptions),
            OBJECTIVES,
            metrics_table(),
            DEFINITIONS,
            section("slo", SLOSpec).rstrip("\n") + "\n",
            ROWS,
            keys_table(SLO),
            "\n",
            section("search", SearchSpec),
            SEARCH,
            keys_table(OptunaOptions),
            HYPEROPT,
            keys_table(HyperOptOptions),
            "\n",
            section("scheduler", SchedulerSpec),
            SCHEDULER,
            section("prior", PriorSpec),
            PRIOR,
            section("hardware", HardwareSpec),
            section("verdict", VerdictSpec),
            VERDICT,
            section("limits", Limits),
            LIMITS,
        )
    )


def section(title: str, model: type[BaseModel]) -> str:
    """A heading, the model's own words, and its keys."""
    return f"## {title}\n\n{inspect.cleandoc(model.__doc__ or '')}\n\n{keys_table(model)}\n"


def keys_table(model: type[BaseModel]) -> str:
    """One row a key: name, type, default, description. `kind` comes first, wherever defined."""
    properties: Mapping[str, Any] = model.model_json_schema()["properties"]
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, field in sorted(model.model_fields.items(), key=lambda item: item[0] != "kind"):
        block = _block(field.annotation)
        default = value_text(field.get_default(call_default_factory=True))
        if block is None:
            type_text, meaning = type_in_words(properties[name]), field.description or ""
        else:
            type_text = f"mapping, see [{name}](#{name})"
            meaning = field.description or (block.__doc__ or "").splitlines()[0]
            default = "`null`: none" if field.default is None else "the defaults there"
        default = "**required**" if field.is_required() else default
        rows.append("| " + " | ".join(map(cell, (f"`{name}`", type_text, default, meaning))) + " |")
    return "\n".join(rows) + "\n"


def _block(annotation: Any) -> type[BaseModel] | None:
    """The model of a key that holds a block of its own, optional or not."""
    several = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    for each in several:
        if isinstance(each, type) and issubclass(each, BaseModel):
            return each
    return None


def type_in_words(schema: Mapping[str, Any]) -> str:
    """A JSON schema as a person would say it."""
    if "anyOf" in schema:
        return " or ".join(type_in_words(each) for each in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{value}`" for value in schema.get("enum") or [schema["const"]])
    if "$ref" in schema:
        return "mapping"
    kind = schema.get("type")
    if kind == "array":
        items = _plural(type_in_words(schema["items"]))
        return f"list of {items}" + (" (not empty)" if schema.get("minItems") else "")
    if kind == "object":
        values = schema.get("additionalProperties", True)
        if not isinstance(values, Mapping):
            return "mapping to any value"
        return f"mapping to {_plural(type_in_words(values))}"
    names = {
        "string": "text",
        "integer": "whole number",
        "number": "number",
        "boolean": "`true` or `false`",
        "null": "`null`",
    }
    return " ".join((names.get(str(kind), "any value"), *bounds_in_words(schema))).rstrip()


def _plural(words: str) -> str:
    for noun in ("text", "number", "mapping"):
        words = words.replace(noun, noun + "s", 1)
    return words


def bounds_in_words(schema: Mapping[str, Any]) -> list[str]:
    words = []
    if "minimum" in schema:
        words.append(f"from {schema['minimum']:,g}")
    if "exclusiveMinimum" in schema:
        words.append(f"above {schema['exclusiveMinimum']:,g}")
    if "maximum" in schema:
        words.append(f"to {schema['maximum']:,.0f}")
    if "exclusiveMaximum" in schema:
        words.append(f"below {schema['exclusiveMaximum']:,g}")
    if "pattern" in schema:
        words.append(f"like `{schema['pattern']}`")
    if schema.get("type") == "string" and schema.get("minLength"):
        words.append("that is not empty")
    return words


def value_text(value: Any) -> str:
    """A default as it would be written in the file."""
    if value is None:
        return "`null`"
    if value is True or value is False:
        return f"`{str(value).lower()}`"
    if value in ("", {}, []):
        return "empty"
    if isinstance(value, list):
        return "`[" + ", ".join(map(str, value)) + "]`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def metrics_table() -> str:
    rows = ["| metric | unit | better | one value |", "|---|---|---|---|"]
    for name, metric in METRICS.items():
        rows.append(f"| `{name}` | {metric.unit} | {metric.better} | {metric.combine} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="exit 1 where the page is stale")
    options = parser.parse_args()
    text = page()
    if not options.check:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        sys.exit(f"{PAGE} is stale; run: {COMMAND}")


if __name__ == "__main__":
    main()
