// Where bars and ticks of a timeline go; values only.

const MINUTE = 60_000;
export const HOUR = 60 * MINUTE;

// Up to so many milliseconds, a tick every so many.
const TICKS = [
  [10 * MINUTE, MINUTE],
  [30 * MINUTE, 5 * MINUTE],
  [HOUR, 10 * MINUTE],
  [2 * HOUR, 15 * MINUTE],
  [4 * HOUR, 30 * MINUTE],
  [8 * HOUR, HOUR],
  [24 * HOUR, 2 * HOUR],
  [48 * HOUR, 6 * HOUR],
  [7 * 24 * HOUR, 24 * HOUR],
];

/** Milliseconds between ticks of a time axis of this length. */
export function tickLength(length) {
  return TICKS.find(([most]) => length <= most)?.[1] ?? Math.ceil(length / (10 * 24 * HOUR)) * 24 * HOUR;
}

/** Ticks from one time to another, at round times of a zone that is `offset` ahead of UTC. */
export function ticks(from, to, offset = 0) {
  const length = tickLength(to - from);
  const found = [];
  for (let at = Math.ceil((from + offset) / length) * length - offset; at <= to; at += length) found.push(at);
  return found;
}

/** Milliseconds that a zone is ahead of UTC at a time. */
export function zoneOffset(zone, at) {
  const parts = new Intl.DateTimeFormat("en-US", {
    timeZone: zone,
    hourCycle: "h23",
    year: "numeric",
    month: "numeric",
    day: "numeric",
    hour: "numeric",
    minute: "numeric",
    second: "numeric",
  }).formatToParts(new Date(at));
  const part = Object.fromEntries(parts.map((each) => [each.type, Number(each.value)]));
  return (
    Date.UTC(part.year, part.month - 1, part.day, part.hour, part.minute, part.second) - Math.floor(at / 1000) * 1000
  );
}

/**
 * Lanes of trials: one for each GPU of a node, one for what ran there without; trials that overlap
 * in a lane are put below each other.
 *
 * @returns {{node, gpu, label, rows: trial[][]}[]} by node, then GPU
 */
export function lanes(trials) {
  const found = new Map();
  for (const trial of trials) {
    for (const [node, gpu] of places(trial)) {
      const key = `${node}\n${gpu ?? ""}`;
      if (!found.has(key)) found.set(key, { node, gpu, trials: [] });
      found.get(key).trials.push(trial);
    }
  }
  const order = (one, other) =>
    one.node.localeCompare(other.node, "en", { numeric: true }) ||
    String(one.gpu ?? "").localeCompare(String(other.gpu ?? ""), "en", { numeric: true });
  return [...found.values()].sort(order).map(({ node, gpu, trials: own }) => ({
    node,
    gpu,
    label: labelOf(node, gpu, own),
    rows: stacked(own),
  }));
}

/** Which of its GPUs a trial got is heard once its server is up. */
function labelOf(node, gpu, trials) {
  if (gpu !== null) return `GPU ${shortened(gpu)}`;
  if (!node || trials.every((each) => each.state === "DEPLOYING")) return "deploying";
  return trials.some((each) => each.gpu_ids.length) ? "other GPUs" : "CPU";
}

/**
 * The nodes of a trial, each with one of its GPUs there or null: of a server on several nodes, those
 * of the further ones are called NODE/GPU.
 */
export function places({ node, gpu_ids: ids }) {
  const nodes = node.split(", ");
  const placed = ids.map((id) => {
    const further = nodes.find((each) => id.startsWith(`${each}/`));
    return further ? [further, id.slice(further.length + 1)] : [nodes[0], id];
  });
  const bare = nodes.filter((each) => !placed.some(([other]) => other === each));
  return [...placed, ...bare.map((each) => [each, null])];
}

/** Start and end of a trial in milliseconds; one that runs ends now. */
export function span(trial, now) {
  const start = Date.parse(trial.started_at);
  return { start, end: trial.ended_at ? Date.parse(trial.ended_at) : now };
}

/** A trial's phases as shares of its length; what is not yet over goes to the end. */
export function segments(trial, now) {
  const { start, end } = span(trial, now);
  const length = Math.max(end - start, 1);
  const known = trial.phases.map((phase) => ({
    name: phase.name,
    from: Math.min(1, (phase.start * 1000) / length),
    to: Math.min(1, (phase.end * 1000) / length),
  }));
  const over = known.at(-1)?.to ?? 0;
  const open = !trial.ended_at && over < 1 ? [{ name: "now", from: over, to: 1 }] : [];
  return [...known, ...open];
}

function stacked(trials) {
  const rows = [];
  const byStart = [...trials].sort((one, other) => Date.parse(one.started_at) - Date.parse(other.started_at));
  for (const trial of byStart) {
    const start = Date.parse(trial.started_at);
    const row = rows.find((each) => {
      const last = each.at(-1);
      return last.ended_at && Date.parse(last.ended_at) <= start;
    });
    if (row) row.push(trial);
    else rows.push([trial]);
  }
  return rows;
}

function shortened(gpu) {
  return gpu.length > 14 ? `${gpu.slice(0, 11)}…` : gpu;
}
