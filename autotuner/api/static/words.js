/**
 * Numbers and names for people, in the words of the command line (report/words.py): the tests
 * hold both against each other.
 */

export const MISSING = "–";
const SPACE = "\u00a0";
const MINUS = "−";
const ENGINES = { vllm: "vLLM", sglang: "SGLang" };
const WORDS = { ttft: "TTFT", tpot: "TPOT", itl: "ITL", e2e: "E2E", gpu: "GPU", kv: "KV" };

export const UNENDED = ["PENDING", "DEPLOYING", "BENCHMARKING"];
export const UNDER_WAY = ["STARTING", "RUNNING"];

/** A measured value to three significant digits with its unit; seconds below 1 in ms. */
export function quantity(value, unit = "") {
  if (!known(value)) return MISSING;
  if (unit === "share") [value, unit] = [value * 100, "%"];
  else if (unit === "s" && Math.abs(Number(value.toPrecision(3))) < 1) [value, unit] = [value * 1000, "ms"];
  const size = Math.abs(Number(value.toPrecision(3)));
  let text;
  if (size >= 100 || value === 0 || (!unit && Number.isInteger(value))) text = grouped(value, 0);
  else if (size < 1e-4)
    text = Number(value.toPrecision(3))
      .toExponential()
      .replace(/e-(\d)$/, "e-0$1");
  else if (size < 1e-3) text = String(Number(value.toPrecision(3)));
  else text = fixed(value, 2 - Math.floor(Math.log10(size)));
  return (text.replaceAll("-", MINUS) + SPACE + unit).trimEnd();
}

/** A metric's value with its unit. */
export const measured = (value, metric) => quantity(value, unitOf(metric));

/** A relative gain with its sign: +74 %. */
export function percent(gain) {
  if (!known(gain)) return MISSING;
  if (Math.abs(gain) < 0.0005) return `±0${SPACE}%`;
  const text = grouped(Math.abs(gain) * 100, Math.abs(gain) < 0.0995 ? 1 : 0);
  return `${gain < 0 ? MINUS : "+"}${text}${SPACE}%`;
}

/** A confidence interval of a gain: 181 to 217 %, with signs where it reaches below 0. */
export function span(low, high) {
  if (!known(low) || !known(high)) return MISSING;
  const written = (each) => {
    const text = grouped(Math.abs(each) * 100, Math.abs(each) < 0.0995 ? 1 : 0);
    return (each < 0 ? MINUS : low < 0 ? "+" : "") + text;
  };
  return `${written(low)} to ${written(high)}${SPACE}%`;
}

/** A stretch of time in its two largest units. */
export function duration(seconds) {
  if (!known(seconds)) return MISSING;
  if (seconds < 9.95) return `${fixed(seconds, 1)}${SPACE}s`;
  const whole = Number(fixed(seconds, 0));
  const parts = { h: Math.floor(whole / 3600), min: Math.floor(whole / 60) % 60, s: whole % 60 };
  const largest = Object.entries(parts)
    .filter(([, amount]) => amount)
    .slice(0, 2);
  return largest.map(([unit, amount]) => `${amount}${SPACE}${unit}`).join(SPACE);
}

let zone = "UTC";

/** Times are shown in this zone, an IANA name, from now on. */
export function setZone(name) {
  zone = name || "UTC";
}

export const timeZone = () => zone;

/** A stored time to the minute, in the service's zone and with its name. */
export function moment(stored, { seconds = false, date = true } = {}) {
  if (!stored) return MISSING;
  const format = new Intl.DateTimeFormat("en-CA", {
    timeZone: zone,
    hourCycle: "h23",
    hour: "2-digit",
    minute: "2-digit",
    ...(date && { year: "numeric", month: "2-digit", day: "2-digit" }),
    ...(seconds && { second: "2-digit" }),
  });
  const part = Object.fromEntries(format.formatToParts(new Date(stored)).map((each) => [each.type, each.value]));
  part.timeZoneName = zoneName(new Date(stored));
  const clock = `${part.hour}:${part.minute}${seconds ? `:${part.second}` : ""}`;
  return `${date ? `${part.year}-${part.month}-${part.day} ` : ""}${clock}${SPACE}${part.timeZoneName}`;
}

/** The zone's name at that time: CET, EST; no locale of a browser knows the short names of all. */
function zoneName(time) {
  const names = ["en-GB", "en-US", "en-AU"].map(
    (locale) =>
      new Intl.DateTimeFormat(locale, { timeZone: zone, timeZoneName: "short" })
        .formatToParts(time)
        .find((each) => each.type === "timeZoneName").value,
  );
  return names.find((name) => !/^(GMT|UTC)[+-]/.test(name)) ?? names[0];
}

/** How long ago a stored time is: 3 min ago. */
export function ago(stored, now = Date.now()) {
  if (!stored) return MISSING;
  const past = (now - new Date(stored).getTime()) / 1000;
  if (past < 10) return "just now";
  if (past >= 86400 * 2) return `${Math.floor(past / 86400)} days ago`;
  const [unit, length] = past >= 3600 ? ["h", 3600] : past >= 60 ? ["min", 60] : ["s", 1];
  return `${Math.floor(past / length)}${SPACE}${unit} ago`;
}

/** What was seen while a load point ran, in words and with its unit (`SEEN` of report/summary.py). */
export const SEEN = {
  running_mean: ["requests running, mean", ""],
  waiting_max: ["requests waiting, most", ""],
  queued: ["time with a queue", "share"],
  kv_usage_max: ["KV cache in use, most", "share"],
  preemptions: ["preemptions", ""],
  prefix_hit_rate: ["prefix cache hits", "share"],
  gpu_utilisation_mean: ["GPUs computing, mean", "share"],
  gpu_memory_gib_max: ["GPU memory, most", "GiB"],
  gpu_power_w_mean: ["GPU power, mean", "W"],
  host_cpu_mean: ["machine's CPUs, mean", "share"],
  load_cpu_mean: ["load generator, mean", "cores"],
};

/** A metric's name for people: `ttft_p90` is TTFT p90. */
export const title = (metric) =>
  SEEN[metric]?.[0] ??
  metric
    .split("_")
    .map((word) => WORDS[word] ?? word)
    .join(" ");

/** A metric's unit; `share` for what is shown in percent. */
export function unitOf(metric) {
  if (SEEN[metric]) return SEEN[metric][1];
  if (/^(ttft|tpot|itl|e2e_latency)_/.test(metric)) return "s";
  const gpu = metric.endsWith("_per_gpu") ? "/GPU" : "";
  if (/^(request_throughput|goodput)/.test(metric)) return `req/s${gpu}`;
  if (metric.includes("throughput")) return `tok/s${gpu}`;
  if (metric === "error_rate") return "share";
  return { max_load: "requests in flight", user_throughput: "tok/s/user" }[metric] ?? "";
}

/** Whether a metric is "higher" or "lower" the better. */
export const betterOf = (metric) =>
  /^(ttft|tpot|itl|e2e_latency)_|^(error_rate|prompt_overlap)$/.test(metric) ? "lower" : "higher";

/** Relative improvement over a reference, as `Metric.gain`; null where unknown. */
export function gainOf(metric, value, reference) {
  if (!known(value) || !known(reference)) return null;
  const [top, bottom] = betterOf(metric) === "higher" ? [value, reference] : [reference, value];
  return bottom > 0 ? top / bottom - 1 : null;
}

/** A parameter's value as a person writes it. */
export const valueText = (value) => (typeof value === "string" ? value : JSON.stringify(value));

/** A point in one line; the baseline says so. */
export const parametersText = (parameters) =>
  Object.entries(parameters ?? {})
    .map(([name, value]) => `${name}=${valueText(value)}`)
    .join(" ") || "(engine defaults)";

/**
 * What is different from a reference point, one entry a parameter: {name, value, reference} in
 * words. What a point leaves out is its engine's default.
 */
export function differences(parameters, reference) {
  const names = [...new Set([...Object.keys(parameters), ...Object.keys(reference)])];
  const written = (point, name) => (name in point ? valueText(point[name]) : "default");
  return names
    .map((name) => ({ name, value: written(parameters, name), reference: written(reference, name) }))
    .filter((each) => each.value !== each.reference);
}

/** The same as lines: `key: value (best: value)`. */
export const differenceLines = (parameters, best) =>
  differences(parameters, best).map((each) => `${each.name}: ${each.value} (best: ${each.reference})`);

/** An engine's name as it is spelt; of several, separated by slashes. */
export const engineName = (kinds) =>
  kinds
    .split(" / ")
    .map((kind) => ENGINES[kind] ?? kind)
    .join(" / ");

/** 1 launch, 2 launches. */
export function counted(count, noun) {
  const plural = noun.endsWith("y") ? `${noun.slice(0, -1)}ies` : noun + (noun.endsWith("ch") ? "es" : "s");
  return `${grouped(count, 0)}${SPACE}${count === 1 ? noun : plural}`;
}

/** a, b and c. */
export const listed = (names) => [names.slice(0, -1).join(", "), ...names.slice(-1)].filter(Boolean).join(" and ");

/** Bytes in the largest unit that leaves a number above 1. */
export function bytes(count) {
  if (!known(count)) return MISSING;
  const place = count < 1024 ? 0 : Math.min(3, Math.floor(Math.log2(count) / 10));
  return quantity(count / 1024 ** place, ["B", "KiB", "MiB", "GiB"][place]);
}

/** Whether a value is a finite number. */
export const known = (value) => typeof value === "number" && Number.isFinite(value);

/** With separators of thousands. */
function grouped(value, digits) {
  const [whole, rest] = fixed(value, digits).split(".");
  return whole.replace(/\B(?=(\d{3})+$)/g, ",") + (rest ? `.${rest}` : "");
}

/** As `toFixed`, but a half goes to the even neighbour, as in Python. */
function fixed(value, digits) {
  const scale = 10 ** digits;
  const below = Math.floor(value * scale);
  // Only what is a whole number of such halves in binary lies exactly in the middle.
  const tie = Number.isInteger(value * 2 ** (digits + 1)) && value * scale - below === 0.5 && below % 2 === 0;
  return (tie ? below / scale : value).toFixed(digits);
}
