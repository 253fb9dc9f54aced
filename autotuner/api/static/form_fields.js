// The study file's fields as the form shows them; the tests hold this table against the models.
//
// A field: `path` in the content, `label`, `as` (how it is edited), `help`, `usual` (what holds
// where it is empty). Kinds of editing: text, area, number, select, tick, words (values between
// commas), texts (one a line), items (JSON), pairs (name and value), and those of `form_*.js`.

export const METRICS = {
  ...latencies("ttft", "TTFT"),
  ...latencies("tpot", "TPOT"),
  ...latencies("e2e_latency", "E2E latency"),
  output_throughput: ["Output throughput", "tok/s", "higher"],
  output_throughput_per_gpu: ["Output throughput per GPU", "tok/s/GPU", "higher"],
  input_throughput: ["Input throughput", "tok/s", "higher"],
  input_throughput_per_gpu: ["Input throughput per GPU", "tok/s/GPU", "higher"],
  total_throughput: ["Total throughput", "tok/s", "higher"],
  total_throughput_per_gpu: ["Total throughput per GPU", "tok/s/GPU", "higher"],
  request_throughput: ["Request throughput", "req/s", "higher"],
  request_throughput_per_gpu: ["Request throughput per GPU", "req/s/GPU", "higher"],
  goodput: ["Goodput", "req/s", "higher"],
  goodput_per_gpu: ["Goodput per GPU", "req/s/GPU", "higher"],
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
  { path: ["version"], label: "Version", as: "version",
    help: "Whose flags are checked.", usual: "the newest known" },
  { path: ["command"], label: "Command", as: "texts",
    help: "How the engine is started here, without its flags: one word a line.",
    usual: "the engine's usual one" },
  { path: ["image"], label: "Image", as: "text",
    help: "Container image, or only a tag of the engine's official one.",
    usual: "the official one" },
  { path: ["image_command"], label: "Command in the image", as: "texts", rare: true,
    help: "How the engine is started in its image: one word a line.",
    usual: "the engine's usual one" },
  { path: ["nodes"], label: "Nodes", as: "number", from: 1, rare: true,
    help: "Nodes that one server spans, with equally many of its GPUs on each.", usual: "1" },
  { path: ["catalog"], label: "Flag catalog", as: "text", rare: true,
    help: "A catalog file of your own.", usual: "that of the version" },
  { path: ["arguments"], label: "Arguments", as: "pairs", names: "flags", noun: "argument",
    help: "Flags that are the same in every trial, the baseline included." },
  { path: ["environment"], label: "Environment", as: "pairs", texts: true, noun: "variable",
    help: "Environment variables of the server. Secrets belong in the service's environment." },
];

const DOCKER = [
  { path: ["network"], label: "Network", as: "text", usual: "host",
    help: "`host`, or a network of the daemon." },
  { path: ["ipc"], label: "IPC", as: "select", options: ["host", "private"], usual: "host",
    help: "Whose shared memory the server's processes use." },
  { path: ["shm_size"], label: "Shared memory", as: "text", usual: "the daemon's default",
    help: "With a private IPC, such as 16g." },
  { path: ["memory"], label: "Memory", as: "text", usual: "no limit",
    help: "Of the machine's memory, at most, such as 64g." },
  { path: ["user"], label: "User", as: "text", usual: "the image's user",
    help: "Who the server runs as, such as 1000:1000." },
];

const OME = [
  { path: ["namespace"], label: "Namespace", as: "text", usual: "the service's",
    help: "Of the servers." },
  { path: ["model"], label: "ClusterBaseModel", as: "text", needed: true, help: "Its name." },
  { path: ["runtime"], label: "ClusterServingRuntime", as: "text", needed: true,
    help: "Its name." },
  { path: ["arguments"], label: "Flags", as: "select", options: ["append", "replace"],
    usual: "the engine's usual way", help: "Append them to the runtime's, or replace those." },
  { path: ["reach"], label: "Reach", as: "select", options: ["auto", "url", "port-forward"],
    usual: "auto", help: "How the load gets to the server." },
  { path: ["port"], label: "Port", as: "number", from: 1, usual: "8080",
    help: "That the runtime declares." },
  { path: ["gpu"], label: "GPU resource", as: "value", usual: "nvidia.com/gpu",
    help: "Kubernetes' resource of a GPU; null asks for none." },
  { path: ["unschedulable_seconds"], label: "Unschedulable", as: "number", from: 0, usual: "120",
    unit: "s", help: "How long what may pass by itself may last.", rare: true },
  { path: ["lease_seconds"], label: "Lease", as: "number", from: 2, usual: "60", unit: "s",
    help: "A server is removed so long after its owner fell silent.", rare: true },
  { path: ["labels"], label: "Labels", as: "pairs", texts: true, noun: "label", rare: true,
    help: "More labels." },
  { path: ["annotations"], label: "Annotations", as: "pairs", texts: true, noun: "annotation",
    rare: true, help: "More annotations." },
  { path: ["node_selector"], label: "Node selector", as: "pairs", texts: true, noun: "label",
    rare: true, help: "Labels of fitting nodes." },
  { path: ["tolerations"], label: "Tolerations", as: "items", rare: true,
    help: "As in a pod: JSON, a list of mappings." },
];

/** Options by kind of backend, below `backend.KIND`. */
export const BACKENDS = { process: [], docker: DOCKER, ome: OME };

/** Options by kind of searcher, beside `search.kind`. */
export const SEARCHERS = {
  optuna: [
    { path: ["sampler"], label: "Sampler", as: "select", usual: "auto",
      options: ["auto", "tpe", "nsga2", "nsga3", "gp", "cmaes"],
      help: "auto: a small Gaussian process and tpe by turns." },
    { path: ["startup_trials"], label: "Startup trials", as: "number", from: 1,
      usual: "3 for auto, else 5", help: "Points tried before a model is asked." },
    { path: ["population"], label: "Population", as: "number", from: 5, usual: "10",
      help: "Points of one generation of nsga2, nsga3 and cmaes." },
  ],
  hyperopt: [
    { path: ["algorithm"], label: "Algorithm", as: "select", options: ["tpe", "anneal"],
      usual: "tpe", help: "anneal: nearer and nearer to the best." },
    { path: ["startup_trials"], label: "Startup trials", as: "number", from: 1, usual: "5",
      help: "Points drawn at random before." },
  ],
  grid: [],
  random: [],
};

/** Options by kind of benchmark, beside `benchmark.kind`. */
export const BENCHMARKS = {
  "genai-bench": [],
  replay: [
    { path: ["table"], label: "Table", as: "text", needed: true,
      help: "A CSV or Parquet file of trials that were measured before." },
    { path: ["noise"], label: "Noise", as: "number", from: 0, usual: "0",
      help: "Relative standard deviation of every answer." },
    { path: ["seed"], label: "Seed", as: "number", from: 0, usual: "0", help: "Of the noise." },
  ],
  "ome-job": [
    { path: ["pvc"], label: "Volume claim", as: "text", needed: true,
      help: "PersistentVolumeClaim for results, in the namespace of the servers." },
    { path: ["path"], label: "Directory", as: "text", needed: true, help: "On that volume." },
    { path: ["image"], label: "Image", as: "text", usual: "OME's own",
      help: "With genai-bench." },
    { path: ["huggingface_secret"], label: "Secret's name", as: "text", usual: "none",
      help: "A secret of the cluster that OME gives to genai-bench." },
    { path: ["mounted"], label: "Mounted at", as: "text", usual: "a helper pod reads it",
      help: "Where every machine that runs trials has the volume." },
    { path: ["helper_image"], label: "Helper image", as: "text", usual: "busybox:1.37",
      help: "Any with sh, tar, gzip and base64." },
    { path: ["start_seconds"], label: "Start", as: "number", from: 0, unit: "s", usual: "300",
      help: "Until a job's pod runs, at most." },
  ],
};

export const PRIORS = {
  study: [
    { path: ["study"], label: "Study", as: "text", needed: true, help: "An earlier study." },
  ],
  aiconfigurator: [
    { path: ["system"], label: "System", as: "text", needed: true,
      help: "The GPUs, such as h100_sxm." },
  ],
};

/** Fields whose editing needs nothing of their own, by section. */
export const FIELDS = {
  basics: [
    { path: ["name"], label: "Name", as: "text", needed: true,
      help: "Lower case letters, digits and dashes; at most 63." },
    { path: ["description"], label: "Description", as: "area", help: "Shown in reports." },
  ],
  model: [
    { path: ["model", "path"], label: "Path", as: "text", needed: true,
      help: "A directory where the service runs, or an id on a model hub." },
    { path: ["model", "served_name"], label: "Served name", as: "text",
      usual: "the last part of the path", help: "Name in requests." },
    { path: ["model", "tokenizer"], label: "Tokenizer", as: "text", usual: "the path",
      help: "Directory or hub id." },
    { path: ["hardware", "gpu_memory_gib"], label: "Memory of a GPU", as: "number", from: 0,
      unit: "GiB", usual: "not known",
      help: "With it, what does not fit is told before a launch." },
  ],
  workload: [
    { path: ["workload", "scenarios"], label: "Scenarios", as: "words", texts: true, needed: true,
      help: "D(input,output) · N(mean,sd)/(mean,sd) · U(min,max)/(min,max), in tokens." },
    { path: ["workload", "concurrency"], label: "Concurrency", as: "words", needed: true,
      help: "Requests kept in flight; each scenario at each of them is one load point." },
    { path: ["workload", "max_requests"], label: "Requests", as: "number", from: 1, usual: "100",
      help: "Per load point, at most." },
    { path: ["workload", "max_seconds"], label: "Seconds", as: "number", from: 0, unit: "s",
      usual: "60", help: "Measured, per load point, at most." },
    { path: ["workload", "warmup_requests"], label: "Warm-up requests", as: "number", from: 0,
      usual: "the concurrency, at least 4", help: "Finished before measuring starts." },
    { path: ["workload", "max_error_rate"], label: "Error rate", as: "number", from: 0,
      usual: "0.05", help: "Above it, a load point counts as not measured. 0 to 1." },
    { path: ["workload", "request"], label: "Request", as: "pairs", noun: "field",
      help: "Fields added to every request." },
  ],
  search: [
    { path: ["search", "seed"], label: "Seed", as: "number", from: 0, usual: "0",
      help: "Of the search and of the prompts." },
    { path: ["search", "parallel"], label: "In parallel", as: "number", from: 1,
      usual: "as many as fit", help: "Trials at the same time, at most." },
    { path: ["search", "trials"], label: "Trials (here)", as: "number", from: 1, rare: true,
      help: "Another place for the limit of trials." },
  ],
  scheduler: [
    { path: ["scheduler", "reduction_factor"], label: "Reduction factor", as: "number", from: 2,
      usual: "3", help: "Of so many trials at a rung, one goes on." },
    { path: ["scheduler", "grace"], label: "Grace", as: "number", from: 1, usual: "1",
      help: "Load points that every trial may measure before it is ranked." },
  ],
  prior: [
    { path: ["prior", "first"], label: "Tried first", as: "number", from: 1, usual: "5",
      help: "Points of the best predicted to try before the search." },
  ],
  verdict: [
    { path: ["verdict", "finalists"], label: "Finalists", as: "number", from: 0, usual: "3",
      help: "Best trials to measure again; 0 takes the best of the search as it is." },
    { path: ["verdict", "rounds"], label: "Rounds", as: "number", from: 2, usual: "5",
      help: "Launches of each finalist and the baseline, at most." },
    { path: ["verdict", "confidence"], label: "Confidence", as: "number", from: 0, usual: "0.95",
      help: "Of all the verdict's statements together." },
  ],
  limits: [
    { path: ["limits", "trials"], label: "Trials", as: "number", from: 1,
      usual: "the whole space for grid, else 20", help: "Of the search, besides the baseline." },
    { path: ["limits", "gpu_hours"], label: "GPU-hours", as: "number", from: 0, usual: "no limit",
      help: "GPUs times hours of all trials together." },
    { path: ["limits", "hours"], label: "Hours", as: "number", from: 0, unit: "h", usual: "24",
      help: "The whole study, at most." },
    { path: ["limits", "ready_seconds"], label: "Until ready", as: "number", from: 0, unit: "s",
      usual: "600", help: "Launch to healthy, at most." },
    { path: ["limits", "trial_seconds"], label: "A trial", as: "number", from: 0, unit: "s",
      usual: "3600", help: "At most." },
    { path: ["limits", "stop_seconds"], label: "Until stopped", as: "number", from: 5, unit: "s",
      usual: "10", help: "Stop to gone, at most." },
  ],
};

// Edited by parts of the form of their own: everything below these places.
const OWN = [
  ["space"], ["presets"], ["merge"], ["quantization"], ["objectives"], ["constraints"], ["slo"],
  ["engine", "kind"], ["backend", "kind"], ["benchmark", "kind"], ["search", "kind"],
  ["scheduler", "kind"], ["prior", "kind"],
];

/** Every place of this content that the form edits. */
export function knownPlaces(content) {
  const kinds = [content?.engine?.kind].flat().filter(Boolean);
  const engines = [["engine"], ...kinds.map((kind) => ["engine", "settings", kind])];
  const optionsOf = (block, table, below) =>
    (table[content?.[block]?.kind ?? Object.keys(table)[0]] ?? [])
      .map((field) => [block, ...below, ...field.path]);
  return [
    ...OWN,
    ...Object.values(FIELDS).flat().map((field) => field.path),
    ...engines.flatMap((base) => ENGINE_FIELDS.map((field) => [...base, ...field.path])),
    ...Object.entries(BACKENDS).flatMap(([kind, fields]) =>
      fields.map((field) => ["backend", kind, ...field.path])),
    ...optionsOf("search", SEARCHERS, []),
    ...optionsOf("benchmark", BENCHMARKS, []),
    ...Object.values(PRIORS).flat().map((field) => ["prior", ...field.path]),
  ];
}

function latencies(name, label) {
  const statistics = ["mean", "p50", "p90", "p95", "p99"];
  return Object.fromEntries(
    statistics.map((each) => [`${name}_${each}`, [`${label} ${each}`, "s", "lower"]]),
  );
}
