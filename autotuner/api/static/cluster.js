// The machines: nodes and GPUs, who holds what, what waits.

import { HOURS, activityCard } from "./activity.js";
import { poll, read } from "./api.js";
import { sheet } from "./sheet.js";
import { table } from "./tables.js";
import { ago, badge, counted, el, fill, problemNote, quantity, released, stateBadge, waiting } from "./ui.js";

const REFRESH_SECONDS = 5;
const ACTIVITY_SECONDS = 60;
const ANOTHERS = "another team's"; // in place of the name of a study that one does not see
const FULL = 0.9;
const BUSY = 0.7;
const HOT_C = 85;
const WARM_C = 75;

export const views = [{ path: "/cluster", title: "Cluster", render }];

async function render(root, _, signal) {
  await sheet("trial.css");
  const body = el("div", { class: "stack" }, waiting());
  const activity = el("div");
  root.append(
    el("div", { class: "page-head" }, el("h1", {}, "Cluster")),
    el("div", { class: "stack" }, body, activity),
  );
  let shown = "";
  poll(
    async () => {
      try {
        const cluster = await read("cluster", {}, { signal });
        await released(body);
        if (signal.aborted) return;
        const now = JSON.stringify(cluster);
        if (now !== shown) fill(body, drawn(cluster));
        shown = now;
      } catch (error) {
        if (signal.aborted || error.name === "AbortError") return;
        shown = "";
        fill(body, problemNote(error));
      }
    },
    REFRESH_SECONDS,
    signal,
  );
  let told = "";
  poll(
    async () => {
      const answer = await read("timeline", { hours: HOURS }, { signal });
      const now = JSON.stringify(answer.trials.map((each) => [each.study, each.number, each.ended_at]));
      if (now !== told && !signal.aborted) fill(activity, activityCard(answer));
      told = now;
    },
    ACTIVITY_SECONDS,
    signal,
    (problem) => void fill(activity, problemNote(problem)),
  );
}

/** How full something is, in a word and a class: above 90 % red, above 70 % yellow. */
export function load(share) {
  if (share > FULL) return { kind: "bad", word: "nearly full" };
  return share > BUSY ? { kind: "warn", word: "busy" } : { kind: "", word: "" };
}

/** The same of a temperature in degrees Celsius. */
export function heat(celsius) {
  if (celsius > HOT_C) return { kind: "bad", word: "hot" };
  return celsius > WARM_C ? { kind: "warn", word: "warm" } : { kind: "", word: "" };
}

function drawn({ nodes = [], holds = [], queue = [], studies = {}, problem }) {
  return [
    problem && el("p", { class: "note" }, problem),
    el(
      "div",
      { class: "cluster-studies" },
      Object.entries(studies).map(([state, count]) =>
        el("a", { href: `#/studies?state=${state}` }, stateBadge(state), ` ${count}`),
      ),
    ),
    nodes.map((node) =>
      nodeCard(
        node,
        holds.filter((each) => each.node === node.id || each.node === node.name),
      ),
    ),
    !nodes.length && !problem && el("p", { class: "soft" }, "No machine has joined the cluster."),
    queueCard(queue),
    holdsCard(holds),
  ]
    .flat()
    .filter(Boolean);
}

function nodeCard(node, holds) {
  const holderOf = (device) =>
    holds.find((each) => each.gpu_ids.map(String).some((id) => id === String(device.index) || id === device.uuid));
  return el(
    "section",
    { class: "card node", "aria-label": `Node ${node.name}` },
    el(
      "header",
      {},
      el("h2", {}, node.name),
      badge(node.alive ? "alive" : "gone", node.alive ? "good" : "bad"),
      el(
        "span",
        { class: "soft" },
        node.gpus ? `${node.gpus_used ?? 0} of ${counted(node.gpus, "GPU")} held` : "no GPU",
      ),
    ),
    node.problem && el("p", { class: "note" }, node.problem),
    el(
      "div",
      { class: "meters" },
      meter("CPU", node.cpus_used, node.cpus, "", "cores"),
      meter("Memory", node.memory_used_gib, node.memory_gib, "GiB"),
    ),
    node.devices?.length > 0 &&
      el(
        "ul",
        { class: "gpus" },
        node.devices.map((device) => gpuCard(device, holderOf(device))),
      ),
    !node.devices?.length &&
      holds.length > 0 &&
      el(
        "p",
        {},
        holds.map((each, at) => [at > 0 && ", ", holder(each)]),
      ),
  );
}

function gpuCard(device, held) {
  const warmth =
    device.temperature_c === null || device.temperature_c === undefined ? null : heat(device.temperature_c);
  return el(
    "li",
    { class: "gpu", "aria-label": `GPU ${device.index}` },
    el(
      "div",
      { class: "gpu-head" },
      el("strong", {}, `GPU ${device.index}`),
      el("span", { class: "soft" }, device.name),
      warmth &&
        el(
          "span",
          { class: `heat ${warmth.kind}` },
          `${Math.round(device.temperature_c)} °C`,
          warmth.word && ` ${warmth.word}`,
        ),
    ),
    meter("Memory", device.memory_used_gib, device.memory_gib, "GiB"),
    meter("Utilisation", device.utilisation, 1, "share"),
    el(
      "div",
      { class: "soft" },
      device.power_w === null || device.power_w === undefined ? null : quantity(device.power_w, "W"),
    ),
    el("div", { class: "gpu-holder" }, held ? holder(held) : el("span", { class: "soft" }, "free")),
  );
}

function holder({ study, trial, state, since }) {
  return el(
    "span",
    {},
    trialLink(study, trial),
    trial !== null && [" ", stateBadge(state), el("span", { class: "soft" }, ` began ${ago(since)}`)],
  );
}

/** A trial by its name; of another team's is not said which it is. */
function trialLink(study, trial) {
  if (trial === null) return study;
  return el("a", { href: `#/studies/${encodeURIComponent(study)}/trials/${trial}` }, `${study}, trial ${trial}`);
}

/** A bar with its numbers; how full it is also in a word. */
function meter(label, used, all, unit, noun = "") {
  if (!all) return null;
  const written = (value) => (unit ? quantity(value, unit) : `${quantity(value)} ${noun}`);
  if (used === null || used === undefined) {
    return el(
      "div",
      { class: "meter" },
      el("span", {}, label),
      el("span", { class: "number" }, unit === "share" ? "not known" : written(all)),
    );
  }
  const share = Math.min(1, used / all);
  const { kind, word } = load(share);
  const filled = el("span");
  filled.style.width = `${share * 100}%`;
  const text = unit === "share" ? written(used) : `${written(used).split(/\s/)[0]} of ${written(all)}`;
  return el(
    "div",
    { class: `meter ${kind}`.trim() },
    el("span", {}, label),
    el("span", { class: "number" }, text, word && el("b", {}, ` ${word}`)),
    el("div", { class: "meter-bar", "aria-hidden": "true" }, filled),
  );
}

function queueCard(queue) {
  return el(
    "section",
    { class: "card flush" },
    el("h2", {}, "Waiting"),
    queue.length
      ? table({
          caption: "Waiting",
          compact: true,
          rows: queue,
          columns: [
            {
              key: "study",
              title: "Study",
              heads: true,
              cell: (each) =>
                each.study === ANOTHERS
                  ? each.study
                  : el("a", { href: `#/studies/${encodeURIComponent(each.study)}` }, each.study),
            },
            { key: "trial", title: "Trial", cell: (each) => each.trial },
            { key: "gpus", title: "GPUs", number: true },
            { key: "waiting", title: "For" },
          ],
        })
      : el("p", { class: "soft pad" }, "Nothing waits."),
  );
}

function holdsCard(holds) {
  return el(
    "section",
    { class: "card flush" },
    el("h2", {}, "Held now"),
    holds.length
      ? table({
          caption: "Held now",
          compact: true,
          rows: holds,
          columns: [
            { key: "trial", title: "Trial", heads: true, cell: (each) => trialLink(each.study, each.trial) },
            { key: "state", title: "State", cell: (each) => stateBadge(each.state) },
            { key: "node", title: "Node" },
            { key: "gpu_ids", title: "GPUs", cell: (each) => each.gpu_ids.join(", ") || "none" },
            { key: "since", title: "Since", cell: (each) => ago(each.since) },
          ],
        })
      : el("p", { class: "soft pad" }, "No trial runs."),
  );
}
