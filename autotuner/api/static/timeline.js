// What ran where and when: trials per node and GPU, with their phases.

import { keepQuery } from "./app.js";
import { poll, read } from "./api.js";
import { lanes, segments, span, ticks, zoneOffset } from "./gantt.js";
import { sheet } from "./sheet.js";
import { table } from "./tables.js";
import { phaseClass } from "./trial.js";
import {
  counted,
  details,
  duration,
  el,
  empty,
  field,
  fill,
  linkButton,
  moment,
  problemNote,
  select,
  stateBadge,
  stateSign,
  timeZone,
} from "./ui.js";

const REFRESH_SECONDS = 5;
const HOURS = [
  [0.5, "30 minutes"],
  [1, "hour"],
  [2, "2 hours"],
  [4, "4 hours"],
  [8, "8 hours"],
  [24, "24 hours"],
  [72, "3 days"],
  [168, "7 days"],
];
const STATES = ["COMPLETE", "INFEASIBLE", "STOPPED", "FAILED", "CANCELLED", "DEPLOYING", "BENCHMARKING"];

export const views = [{ path: "/timeline", title: "Timeline", render }];

async function render(root, { query }, signal) {
  await sheet("trial.css");
  const asked = { hours: Number(query.get("hours")) || 24, study: query.get("study") ?? "" };
  const body = el("div");
  const count = el("span", { class: "soft", role: "status" });
  const studyFilter = el("div");
  let shown = "";

  const again = () => {
    keepQuery({ hours: asked.hours === 24 ? "" : asked.hours, study: asked.study });
    shown = "";
    refresh();
  };

  async function refresh() {
    try {
      const wanted = asked.study ? { study: asked.study } : { hours: asked.hours };
      const answer = await read("timeline", wanted, { signal });
      if (signal.aborted) return;
      offer(answer);
      const trials = answer.trials.filter((each) => each.started_at);
      const running = trials.some((each) => !each.ended_at);
      const now = JSON.stringify([trials, running && answer.now, asked]);
      if (now === shown) return running;
      shown = now;
      count.textContent = counted(trials.length, "trial");
      const open = body.querySelector("details")?.open;
      const along = body.querySelector(".gantt-scroll")?.scrollLeft;
      fill(body, trials.length ? chart(answer, trials, asked) : nothing(asked));
      if (open && trials.length) body.querySelector("details").open = true;
      // Where it does not fit, the latest is what one came for.
      if (trials.length) body.querySelector(".gantt-scroll").scrollLeft = along ?? Number.MAX_SAFE_INTEGER;
      return running;
    } catch (error) {
      if (signal.aborted || error.name === "AbortError") return;
      shown = "";
      fill(body, problemNote(error));
    }
  }

  const names = new Set(asked.study ? [asked.study] : []);
  function offer(answer) {
    const before = names.size;
    for (const trial of answer.trials) names.add(trial.study);
    if (studyFilter.childElementCount && names.size === before) return;
    fill(
      studyFilter,
      field(
        "Study",
        select([["", "All studies"], ...[...names].sort().map((name) => [name])], asked.study, {
          dataset: { key: "timeline-study" },
          onChange: (name) => {
            asked.study = name;
            hours.disabled = Boolean(name);
            again();
          },
        }),
      ),
    );
  }

  const hours = select(
    HOURS.map(([value, label]) => [value, `the last ${label}`]),
    asked.hours,
    {
      onChange: (value) => {
        asked.hours = Number(value);
        again();
      },
    },
  );
  hours.disabled = Boolean(asked.study);
  root.append(
    el("div", { class: "page-head" }, el("h1", {}, "Timeline"), count),
    el("div", { class: "filters" }, field("Time", hours), studyFilter),
    body,
  );
  // What runs grows to the right: every five seconds, as long as somebody looks.
  await refresh();
  poll(
    async () => {
      await refresh();
    },
    REFRESH_SECONDS,
    signal,
  );
}

function nothing({ hours, study }) {
  return empty(
    "Nothing ran",
    el("p", {}, study ? `No trial of ${study} was launched yet.` : `No trial was launched in the last ${hours} hours.`),
    el(
      "div",
      { class: "actions" },
      linkButton("New study", "#/new", { icon: "plus", kind: "primary" }),
      linkButton("Studies", "#/studies"),
    ),
  );
}

function chart(answer, trials, { study }) {
  const now = Date.parse(answer.now);
  const spans = trials.map((each) => span(each, now));
  const first = Math.min(...spans.map((each) => each.start));
  const last = Math.max(...spans.map((each) => each.end));
  const from = study ? first : Math.max(first, Date.parse(answer.from));
  const to = Math.max(last, from + 60_000);
  const length = to - from;
  const zone = zoneOffset(timeZone(), to);
  const tickTimes = ticks(from, to, zone);
  const clock = (at) =>
    length > 48 * 3600_000
      ? moment(new Date(at).toISOString()).slice(5, 16)
      : moment(new Date(at).toISOString(), { date: false }).split("\u00a0")[0];
  const found = lanes(trials);
  return el(
    "div",
    { class: "stack" },
    el(
      "section",
      { class: "card gantt", "aria-label": "Trials by place and time" },
      legend(),
      el(
        "div",
        { class: "gantt-scroll" },
        el(
          "div",
          { class: "gantt-grid" },
          found.map((lane, at) => [
            (at === 0 || found[at - 1].node !== lane.node) &&
              el("h2", { class: "gantt-node" }, lane.node || "not placed yet"),
            el(
              "div",
              { class: "gantt-lane" },
              el("span", { class: "gantt-label", title: lane.gpu }, lane.label),
              el(
                "div",
                { class: "gantt-rows" },
                el(
                  "div",
                  { class: "gantt-lines", "aria-hidden": "true" },
                  tickTimes.map((each) => line(each, from, length)),
                ),
                lane.rows.map((row) =>
                  el(
                    "div",
                    { class: "gantt-row" },
                    row.map((trial) => bar(trial, from, to, now, lane)),
                  ),
                ),
              ),
            ),
          ]),
          el(
            "div",
            { class: "gantt-axis", "aria-hidden": "true" },
            tickTimes.filter((each) => to - each > length * 0.06).map((each) => tick(each, from, length, clock)),
            tick(to, from, length, clock, "end"),
          ),
        ),
      ),
    ),
    details("As a table", asTable(trials, now)),
  );
}

function placed(node, at, from, length) {
  node.style.left = `${((at - from) / length) * 100}%`;
  return node;
}

const line = (at, from, length) => placed(el("i"), at, from, length);

function tick(at, from, length, clock, kind = "") {
  return placed(el("span", { class: kind || null }, clock(at)), at, from, length);
}

function bar(trial, from, to, now, lane) {
  const { start, end } = span(trial, now);
  const left = Math.max(start, from);
  const share = (Math.min(end, to) - left) / (to - from);
  const seconds = (end - start) / 1000;
  const name = `${trial.study}, trial ${trial.number}`;
  const node = el(
    "a",
    {
      class:
        `bar ${trial.state} ${trial.state === "COMPLETE" && trial.feasible === false ? "unfit" : ""} ${share < 0.02 ? "narrow" : ""}`.trim(),
      href: `#/studies/${encodeURIComponent(trial.study)}/trials/${trial.number}?log=server`,
      "aria-label": `${name}: ${trial.state.toLowerCase()}, ${duration(seconds)}, began ${moment(trial.started_at)}`,
      title: tooltip(trial, seconds),
      dataset: { key: [trial.study, trial.number, lane.node, lane.label].join("/") },
    },
    segments(trial, now).map((each, at) => {
      const part = el("i", { class: phaseClass(each.name, at) });
      part.style.left = `${each.from * 100}%`;
      part.style.width = `${(each.to - each.from) * 100}%`;
      return part;
    }),
    el("span", { class: "bar-sign" }, stateSign(trial.state)),
    share > 0.05 && el("span", { class: "bar-text" }, `${trial.number} · ${duration(seconds)}`),
  );
  node.style.left = `${((left - from) / (to - from)) * 100}%`;
  node.style.width = `${share * 100}%`;
  return node;
}

function tooltip(trial, seconds) {
  return [
    `${trial.study}, trial ${trial.number}${trial.repeat_of === null ? "" : ` (repeats ${trial.repeat_of})`}`,
    `${trial.state.toLowerCase()}, ${duration(seconds)}`,
    ...Object.entries(trial.objectives ?? {})
      .filter(([, value]) => value !== null)
      .map(([name, value]) => `${name}: ${Number(value.toPrecision(4))}`),
    ...trial.phases.map((each) => `${each.name}: ${duration(each.end - each.start)}`),
    "Opens the trial at its logs",
  ].join("\n");
}

function legend() {
  return el(
    "div",
    { class: "gantt-legend" },
    STATES.map((state) => stateBadge(state)),
    el("span", { class: "soft" }, "Phases:"),
    [
      ["deploy", "deploy"],
      ["load-0", "load points"],
      ["stop", "stop"],
    ].map(([kind, label]) =>
      el("span", { class: "phase-key" }, el("i", { class: `phase ${kind}`, "aria-hidden": "true" }), label),
    ),
  );
}

function asTable(trials, now) {
  return table({
    caption: "Trials by place and time",
    compact: true,
    rows: [...trials].sort((one, other) => Date.parse(other.started_at) - Date.parse(one.started_at)),
    columns: [
      {
        key: "trial",
        title: "Trial",
        heads: true,
        cell: (each) =>
          el(
            "a",
            { href: `#/studies/${encodeURIComponent(each.study)}/trials/${each.number}` },
            `${each.study} ${each.number}`,
          ),
      },
      { key: "state", title: "State", cell: (each) => stateBadge(each.state) },
      { key: "node", title: "Node" },
      { key: "gpus", title: "GPUs", cell: (each) => each.gpu_ids.join(", ") || "none" },
      { key: "started", title: "Started", cell: (each) => moment(each.started_at) },
      {
        key: "seconds",
        title: "Duration",
        number: true,
        cell: (each) => {
          const { start, end } = span(each, now);
          return duration((end - start) / 1000);
        },
      },
      {
        key: "phases",
        title: "Phases",
        cell: (each) => each.phases.map((phase) => `${phase.name} ${duration(phase.end - phase.start)}`).join(", "),
      },
    ],
  });
}
