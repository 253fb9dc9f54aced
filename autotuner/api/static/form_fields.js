// The study file's fields as the form shows them; the tests hold this table against the models.
//
// A field: its place in the content (`path`), `label`, `as` (how it is edited), `help`, `usual` (what holds
// where it is empty). Kinds of editing: text, area, number, select, tick, words (values between
// commas), texts (one a line), items (JSON), pairs (name and value), and those of `form_*.js`.

export const METRICS = {
  ...latencies("ttft", "TTFT"),
  ...latencies("tpot", "TPOT"),
  ...latencies("e2e_latency", "E2E latency"),
  ...rates("output_throughput", "Output throughput", "tok/s"),
  ...rates("input_throughput", "Input throughput", "tok/s"),
  ...rates("total_throughput", "Total throughput", "tok/s"),
  ...rates("request_throughput", "Request throughput", "req/s"),
  ...rates("goodput", "Goodput", "req/s"),
  error_rate: ["Error rate", "", "lower"],
  requests: ["Requests", "", "higher"],
  prompt_overlap: ["Prompt overlap", "", "lower"],
  max_load: ["Highest load that meets every bound", "requests in flight", "higher"],
};

/** Metrics that no bound can be about. */
export const UNBOUNDED = ["requests", "prompt_overlap", "max_load"];

/** Number formats a field of `quantization` takes. */
export const FORMATS = {
  gemm: ["auto", "float16", "bfloat16", "float32", "fp8", "int8"],
  kv_cache: ["auto", "fp16", "bfloat16", "fp8", "fp8_e5m2", "fp8_e4m3", "int8", "int4"],
  attention: ["auto", "float16", "bfloat16", "fp8", "fp8_e5m2", "fp8_e4m3", "fp8_block"],
  moe: ["auto", "float16", "bfloat16", "fp8", "w4afp8", "mxfp4", "int8"],
};

export const FORMAT_LABELS = {
  gemm: "Matrix products",
  kv_cache: "KV cache",
  attention: "Attention",
  moe: "Experts",
};

/** The four formats as the earlier system called them. */
export const FORMAT_SPELLINGS = {
  gemm_dtype: "gemm",
  kvcache_dtype: "kv_cache",
  attention_dtype: "attention",
  moe_dtype: "moe",
  preset: "presets",
};

export const FORMAT_PRESETS = {
  default: "The engine's own choice",
  "kv-cache-fp8": "Half the KV cache memory at little loss",
  "dynamic-fp8": "Everything in eight bits; Ada, Hopper and later",
  "bf16-stable": "For models whose float16 overflows",
  "aggressive-moe": "Experts in four bits; only SGLang has them",
};

export const SLO_PROFILES = ["balanced", "high_throughput", "strict_latency"];

/** Keys of `slo` that are no metric. */
export const SLO_KEYS = ["mode", "steepness", "profile"];

export const SLO_ROW = ["max", "min", "weight", "hard", "fail_ratio"];

/** What is fixed about an engine's launch; below `engine`, or `engine.settings.KIND`. */
export const ENGINE_FIELDS = [
  field("version", "Version", "version", { usual: "the newest known", help: "Whose flags are checked." }),
  field("command", "Command", "texts", {
    usual: "the engine's usual one",
    help: "How the engine is started here, without its flags: one word a line.",
  }),
  field("image", "Image", "text", {
    usual: "the official one",
    help: "Container image, or only a tag of the engine's official one.",
  }),
  field("image_command", "Command in the image", "texts", {
    rare: true,
    usual: "the engine's usual one",
    help: "How the engine is started in its image: one word a line.",
  }),
  field("nodes", "Nodes", "number", {
    from: 1,
    rare: true,
    usual: "1",
    help: "Nodes that one server spans, with equally many of its GPUs on each.",
  }),
  field("catalog", "Flag catalog", "text", {
    rare: true,
    usual: "that of the version",
    help: "A catalog file of your own.",
  }),
  field("arguments", "Arguments", "pairs", {
    names: "flags",
    noun: "argument",
    help: "Flags that are the same in every trial, the baseline included.",
  }),
  field("environment", "Environment", "pairs", {
    texts: true,
    noun: "variable",
    help: "Environment variables of the server. Secrets belong in the service's environment.",
  }),
];

const DOCKER = [
  field("network", "Network", "text", { usual: "host", help: "`host`, or a network of the daemon." }),
  field("ipc", "IPC", "select", {
    options: ["host", "private"],
    usual: "host",
    help: "Whose shared memory the server's processes use.",
  }),
  field("shm_size", "Shared memory", "text", {
    usual: "the daemon's default",
    help: "With a private IPC, such as 16g.",
  }),
  field("memory", "Memory", "text", { usual: "no limit", help: "Of the machine's memory, at most, such as 64g." }),
  field("user", "User", "text", { usual: "the image's user", help: "Who the server runs as, such as 1000:1000." }),
];

const OME = [
  field("namespace", "Namespace", "text", { usual: "the service's", help: "Of the servers." }),
  field("model", "ClusterBaseModel", "text", { needed: true, help: "Its name." }),
  field("runtime", "ClusterServingRuntime", "text", { needed: true, help: "Its name." }),
  field("arguments", "Flags", "select", {
    options: ["append", "replace"],
    usual: "the engine's usual way",
    help: "Append them to the runtime's, or replace those.",
  }),
  field("reach", "Reach", "select", {
    options: ["auto", "url", "port-forward"],
    usual: "auto",
    help: "How the load gets to the server.",
  }),
  field("port", "Port", "number", { from: 1, usual: "8080", help: "That the runtime declares." }),
  field("gpu", "GPU resource", "value", {
    usual: "nvidia.com/gpu",
    help: "Kubernetes' resource of a GPU; null asks for none.",
  }),
  field("unschedulable_seconds", "Unschedulable", "number", {
    from: 0,
    unit: "s",
    rare: true,
    usual: "120",
    help: "How long what may pass by itself may last.",
  }),
  field("lease_seconds", "Lease", "number", {
    from: 8,
    unit: "s",
    rare: true,
    usual: "60",
    help: "A server is removed so long after its owner fell silent.",
  }),
  field("labels", "Labels", "pairs", { texts: true, noun: "label", rare: true, help: "More labels." }),
  field("annotations", "Annotations", "pairs", {
    texts: true,
    noun: "annotation",
    rare: true,
    help: "More annotations.",
  }),
  field("node_selector", "Node selector", "pairs", {
    texts: true,
    noun: "label",
    rare: true,
    help: "Labels of fitting nodes.",
  }),
  field("tolerations", "Tolerations", "items", { rare: true, help: "As in a pod: JSON, a list of mappings." }),
];

/** Options by kind of backend, below `backend.KIND`. */
export const BACKENDS = { process: [], docker: DOCKER, ome: OME };

/** Options by kind of searcher, beside `search.kind`. */
export const SEARCHERS = {
  optuna: [
    field("sampler", "Sampler", "select", {
      options: ["auto", "tpe", "nsga2", "nsga3", "gp", "cmaes"],
      usual: "auto",
      help: "auto: a small Gaussian process and tpe by turns.",
    }),
    field("startup_trials", "Startup trials", "number", {
      from: 1,
      usual: "3 for auto, else 5",
      help: "Points tried before a model is asked.",
    }),
    field("population", "Population", "number", {
      from: 5,
      usual: "10",
      help: "Points of one generation of nsga2, nsga3 and cmaes.",
    }),
  ],
  hyperopt: [
    field("algorithm", "Algorithm", "select", {
      options: ["tpe", "anneal"],
      usual: "tpe",
      help: "anneal: nearer and nearer to the best.",
    }),
    field("startup_trials", "Startup trials", "number", {
      from: 1,
      usual: "5",
      help: "Points drawn at random before.",
    }),
  ],
  grid: [],
  random: [],
};

/** Options by kind of benchmark, beside `benchmark.kind`. */
export const BENCHMARKS = {
  "genai-bench": [],
  replay: [
    field("table", "Table", "text", {
      needed: true,
      help: "A CSV or Parquet file of trials that were measured before.",
    }),
    field("noise", "Noise", "number", { from: 0, usual: "0", help: "Relative standard deviation of every answer." }),
    field("seed", "Seed", "number", { from: 0, usual: "0", help: "Of the noise." }),
  ],
  "ome-job": [
    field("pvc", "Volume claim", "text", {
      needed: true,
      help: "PersistentVolumeClaim for results, in the namespace of the servers.",
    }),
    field("path", "Directory", "text", { needed: true, help: "On that volume." }),
    field("image", "Image", "text", { usual: "OME's own", help: "With genai-bench." }),
    field("huggingface_secret", "Secret's name", "text", {
      usual: "none",
      help: "A secret of the cluster that OME gives to genai-bench.",
    }),
    field("mounted", "Mounted at", "text", {
      usual: "a helper pod reads it",
      help: "Where every machine that runs trials has the volume.",
    }),
    field("helper_image", "Helper image", "text", {
      usual: "busybox:1.37",
      help: "Any with sh, tar, gzip and base64.",
    }),
    field("start_seconds", "Start", "number", {
      from: 0,
      unit: "s",
      usual: "300",
      help: "Until a job's pod runs, at most.",
    }),
  ],
};

export const PRIORS = {
  study: [field("study", "Study", "text", { needed: true, help: "An earlier study." })],
  aiconfigurator: [field("system", "System", "text", { needed: true, help: "The GPUs, such as h100_sxm." })],
};

/** Fields whose editing needs nothing of their own, by section. */
export const FIELDS = {
  basics: [
    field("name", "Name", "text", { needed: true, help: "Lower case letters, digits and dashes; at most 63." }),
    field("description", "Description", "area", { help: "Shown in reports." }),
  ],
  model: [
    field("model.path", "Path", "text", {
      needed: true,
      help: "A directory where the service runs, or an id on a model hub.",
    }),
    field("model.served_name", "Served name", "text", {
      usual: "the last part of the path",
      help: "Name in requests.",
    }),
    field("model.tokenizer", "Tokenizer", "text", { usual: "the path", help: "Directory or hub id." }),
    field("hardware.gpu_memory_gib", "Memory of a GPU", "number", {
      from: 0,
      unit: "GiB",
      usual: "not known",
      help: "With it, what does not fit is told before a launch.",
    }),
  ],
  workload: [
    field("workload.scenarios", "Scenarios", "words", {
      texts: true,
      needed: true,
      help: "D(input,output) · N(mean,sd)/(mean,sd) · U(min,max)/(min,max), in tokens.",
    }),
    field("workload.concurrency", "Concurrency", "words", {
      needed: true,
      help: "Requests kept in flight; each scenario at each of them is one load point.",
    }),
    field("workload.max_requests", "Requests", "number", { from: 1, usual: "100", help: "Per load point, at most." }),
    field("workload.max_seconds", "Seconds", "number", {
      from: 0,
      unit: "s",
      usual: "60",
      help: "Measured, per load point, at most.",
    }),
    field("workload.warmup_requests", "Warm-up requests", "number", {
      from: 0,
      usual: "the concurrency, at least 4",
      help: "Finished before measuring starts.",
    }),
    field("workload.max_error_rate", "Error rate", "number", {
      from: 0,
      usual: "0.05",
      help: "Above it, a load point counts as not measured. 0 to 1.",
    }),
    field("workload.request", "Request", "pairs", { noun: "field", help: "Fields added to every request." }),
  ],
  search: [
    field("search.seed", "Seed", "number", { from: 0, usual: "0", help: "Of the search and of the prompts." }),
    field("search.parallel", "In parallel", "number", {
      from: 1,
      usual: "as many as fit",
      help: "Trials at the same time, at most.",
    }),
    field("search.trials", "Trials (here)", "number", {
      from: 1,
      rare: true,
      help: "Another place for the limit of trials.",
    }),
  ],
  scheduler: [
    field("scheduler.reduction_factor", "Reduction factor", "number", {
      from: 2,
      usual: "3",
      help: "Of so many trials at a rung, one goes on.",
    }),
    field("scheduler.grace", "Grace", "number", {
      from: 1,
      usual: "1",
      help: "Load points that every trial may measure before it is ranked.",
    }),
  ],
  prior: [
    field("prior.first", "Tried first", "number", {
      from: 1,
      usual: "5",
      help: "Points of the best predicted to try before the search.",
    }),
  ],
  verdict: [
    field("verdict.finalists", "Finalists", "number", {
      from: 0,
      usual: "3",
      help: "Best trials to measure again; 0 takes the best of the search as it is.",
    }),
    field("verdict.rounds", "Rounds", "number", {
      from: 2,
      usual: "5",
      help: "Launches of each finalist and the baseline, at most.",
    }),
    field("verdict.confidence", "Confidence", "number", {
      from: 0,
      usual: "0.95",
      help: "Of all the verdict's statements together.",
    }),
  ],
  limits: [
    field("limits.trials", "Trials", "number", {
      from: 1,
      usual: "the whole space for grid, else 20",
      help: "Of the search, besides the baseline.",
    }),
    field("limits.gpu_hours", "GPU-hours", "number", {
      from: 0,
      usual: "no limit",
      help: "GPUs times hours of all trials together.",
    }),
    field("limits.hours", "Hours", "number", { from: 0, unit: "h", usual: "24", help: "The whole study, at most." }),
    field("limits.ready_seconds", "Until ready", "number", {
      from: 0,
      unit: "s",
      usual: "600",
      help: "Launch to healthy, at most.",
    }),
    field("limits.trial_seconds", "A trial", "number", { from: 0, unit: "s", usual: "3600", help: "At most." }),
    field("limits.stop_seconds", "Until stopped", "number", {
      from: 5,
      unit: "s",
      usual: "10",
      help: "Stop to gone, at most.",
    }),
  ],
};

// Edited by parts of the form of their own: everything below these places.
const OWN = [
  ["space"],
  ["presets"],
  ["merge"],
  ["quantization"],
  ["objectives"],
  ["constraints"],
  ["slo"],
  ["engine", "kind"],
  ["backend", "kind"],
  ["benchmark", "kind"],
  ["search", "kind"],
  ["scheduler", "kind"],
  ["prior", "kind"],
];

/** Every place of this content that the form edits. */
export function knownPlaces(content) {
  const kinds = [content?.engine?.kind].flat().filter(Boolean);
  const engines = [["engine"], ...kinds.map((kind) => ["engine", "settings", kind])];
  const optionsOf = (block, table, below) =>
    (table[content?.[block]?.kind ?? Object.keys(table)[0]] ?? []).map((field) => [block, ...below, ...field.path]);
  return [
    ...OWN,
    ...Object.values(FIELDS)
      .flat()
      .map((field) => field.path),
    ...engines.flatMap((base) => ENGINE_FIELDS.map((field) => [...base, ...field.path])),
    ...Object.entries(BACKENDS).flatMap(([kind, fields]) => fields.map((field) => ["backend", kind, ...field.path])),
    ...optionsOf("search", SEARCHERS, []),
    ...optionsOf("benchmark", BENCHMARKS, []),
    ...Object.values(PRIORS)
      .flat()
      .map((field) => ["prior", ...field.path]),
  ];
}

function latencies(name, label) {
  const statistics = ["mean", "p50", "p90", "p95", "p99"];
  return Object.fromEntries(statistics.map((each) => [`${name}_${each}`, [`${label} ${each}`, "s", "lower"]]));
}

function rates(name, label, unit) {
  return {
    [name]: [label, unit, "higher"],
    [`${name}_per_gpu`]: [`${label} per GPU`, `${unit}/GPU`, "higher"],
  };
}

/** A field by its place in the content, its keys between dots. */
function field(place, label, as, more) {
  return { path: place.split("."), label, as, ...more };
}
