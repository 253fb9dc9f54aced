// One trial: what it ran, how it went, why, what was seen meanwhile, and its logs.

import { keepQuery } from "./app.js";
import { Problem, path as address, poll, read } from "./api.js";
import { code } from "./dialogs.js";
import { logView } from "./logview.js";
import { sheet } from "./sheet.js";
import { table } from "./tables.js";
import { telemetryPlots } from "./telemetry.js";
import {
  UNENDED,
  badge,
  details,
  duration,
  el,
  fill,
  linkButton,
  measured,
  moment,
  parameterList,
  problemNote,
  prose,
  quantity,
  stateBadge,
  terms,
  title,
  valueText,
} from "./ui.js";

const LIVE_SECONDS = 3;

export const views = [
  { path: "/studies/:name/trials/:number", title: ({ name, number }) => `Trial ${number} of ${name}`, render },
];

async function render(root, { name, number, query }, signal) {
  if (!/^\d+$/.test(number))
    throw new Problem(
      { title: "There is no such thing", detail: `There is no trial '${number}': trials have numbers.` },
      404,
    );
  const place = address("studies", name, "trials", number);
  const [first, others] = await Promise.all([
    read(place, {}, { signal }),
    read(address("studies", name, "trials"), { sort: "-number", per_page: 1 }, { signal }),
    sheet("trial.css"),
  ]);
  if (signal.aborted) return;

  const head = el("div");
  const facts = el("div", { class: "stack" });
  const plots = telemetryPlots(signal);
  const plan = el("div");
  const asked = SOURCES.some(([source]) => source === query.get("log")) ? query.get("log") : null;
  const shownLogs = logs(name, number, first, asked, signal);
  root.append(head, el("div", { class: "stack" }, facts, plots.node, shownLogs, plan));

  let drawn = "";
  const draw = (trial) => {
    const now = JSON.stringify({ ...trial, telemetry: trial.telemetry.map((each) => each.seconds.length) });
    if (now === drawn) return;
    drawn = now;
    fill(head, heading(name, trial, others.items[0]?.number ?? trial.number));
    const open = [...facts.querySelectorAll("details[open] > summary")].map((each) => each.textContent);
    fill(facts, sections(trial));
    for (const each of facts.querySelectorAll("summary"))
      if (open.includes(each.textContent)) each.parentElement.open = true;
    plots.update(trial);
    fill(
      plan,
      trial.plan &&
        el(
          "section",
          { class: "card" },
          details(
            "Plan: the exact request of the backend",
            code(JSON.stringify(trial.plan, null, 2), { label: "Copy the plan" }),
          ),
        ),
    );
  };
  draw(first);
  if (!ended(first)) live(place, draw, root, signal);
  return asked && shownLogs;
}

/** Ask again while the trial runs. */
function live(place, draw, root, signal) {
  const over = new AbortController();
  signal.addEventListener("abort", () => over.abort(), { once: true });
  poll(
    async () => {
      try {
        const trial = await read(place, {}, { signal });
        if (signal.aborted) return;
        draw(trial);
        if (ended(trial)) over.abort();
      } catch (error) {
        if (error.status === 404) {
          over.abort();
          fill(root, problemNote({ title: "This trial is gone", detail: error.detail }));
        }
      }
    },
    LIVE_SECONDS,
    over.signal,
  );
}

const ended = (trial) => !UNENDED.includes(trial.state);

function heading(name, trial, last) {
  const study = `#/studies/${encodeURIComponent(name)}`;
  const other = (number) => `${study}/trials/${number}`;
  return [
    el(
      "p",
      { class: "crumbs" },
      el("a", { href: "#/studies" }, "Studies"),
      " / ",
      el("a", { href: study }, name),
      " / ",
      `trial ${trial.number}`,
    ),
    el(
      "div",
      { class: "page-head" },
      el("h1", {}, trial.baseline ? "Baseline" : `Trial ${trial.number}`),
      stateBadge(trial.state, trial.note),
      trial.state === "COMPLETE" && !trial.feasible && badge("out of bounds", "warn"),
      Object.entries(trial.severity ?? {}).map(([metric, severity]) =>
        badge(`SLO ${title(metric)}: ${severity}`, severity === "hard" ? "bad" : "warn", {
          title: `${title(metric)} is over its bound`,
        }),
      ),
      trial.repeat_of !== null &&
        el(
          "span",
          { class: "soft" },
          "repeats ",
          el("a", { href: other(trial.repeat_of) }, `trial ${trial.repeat_of}`),
          `, round ${trial.round}`,
        ),
      el(
        "div",
        { class: "actions" },
        trial.number > 0 && linkButton("Previous", other(trial.number - 1), { kind: "quiet" }),
        trial.number < last && linkButton("Next", other(trial.number + 1), { kind: "quiet" }),
      ),
    ),
  ];
}

function sections(trial) {
  return [
    trial.note && !ended(trial) && el("p", { class: "note info" }, trial.note),
    trial.why && el("p", { class: "note info why" }, prose(trial.why)),
    diagnosis(trial),
    el("div", { class: "grid" }, configuration(trial), outcome(trial)),
    loadPoints(trial),
    phases(trial),
  ].filter(Boolean);
}

function diagnosis(trial) {
  if (!trial.failure && !trial.reason && !trial.log_tail) return null;
  return el(
    "section",
    { class: "card diagnosis" },
    el(
      "h2",
      {},
      trial.state === "STOPPED" ? "Stopped early" : trial.refused ? "Refused without a launch" : "What went wrong",
    ),
    terms({
      Class: trial.failure?.replaceAll("_", " "),
      Reason: trial.reason && el("span", { class: "reason" }, trial.reason),
      Advice: trial.advice,
    }),
    trial.log_tail &&
      details(
        "End of its log",
        el("pre", { class: "tail", tabindex: "0", role: "region", "aria-label": "End of its log" }, trial.log_tail),
      ),
  );
}

function configuration(trial) {
  const rows = Object.entries(trial.parameters).map(([name, value]) => ({ name, value: valueText(value) }));
  return el(
    "section",
    { class: "card" },
    el("h2", {}, "Parameters"),
    rows.length
      ? table({
          caption: "Parameters",
          compact: true,
          rows,
          columns: [
            { key: "name", title: "Parameter", heads: true, cell: (row) => el("code", {}, row.name) },
            { key: "value", title: "Value", cell: (row) => el("code", {}, row.value) },
          ],
        })
      : parameterList(trial.parameters),
    trial.command && [el("h3", {}, "Launch"), code(trial.command, { label: "Copy the command" })],
  );
}

function outcome(trial) {
  const objectives = Object.entries(trial.objectives).map(([name, value]) => [
    title(name),
    withPrediction(name, value, trial.predicted),
  ]);
  return el(
    "section",
    { class: "card" },
    el("h2", {}, "Outcome"),
    terms({
      ...Object.fromEntries(objectives),
      ...Object.fromEntries(
        Object.entries(trial.violations)
          .filter(([, value]) => value > 0)
          .map(([name, value]) => [`${title(name)} over its bound`, quantity(value, "share")]),
      ),
      Penalty: trial.penalty === 1 ? null : `× ${quantity(trial.penalty)}`,
      Duration: duration(trial.seconds),
      "GPU-hours": trial.gpu_hours ? quantity(trial.gpu_hours, "") : null,
      Node: trial.node || null,
      GPUs: trial.gpu_ids.length ? trial.gpu_ids.join(", ") : null,
      Started: trial.started_at ? moment(trial.started_at, { seconds: true }) : null,
      Ended: trial.ended_at ? moment(trial.ended_at, { seconds: true }) : null,
      ...Object.fromEntries(
        Object.entries(trial.observed).map(([name, value]) => [name.replaceAll("_", " "), quantity(value)]),
      ),
    }),
  );
}

function withPrediction(name, value, predicted) {
  const expected = predicted?.[name];
  return el(
    "span",
    {},
    el("strong", {}, measured(value, name)),
    expected !== undefined &&
      expected !== null &&
      el("small", { class: "soft" }, ` predicted ${measured(expected, name)}`),
  );
}

function loadPoints(trial) {
  if (!trial.load_points.length) return null;
  const names = [...new Set(trial.load_points.flatMap((point) => Object.keys(point.metrics)))].filter((name) =>
    trial.load_points.some((point) => point.metrics[name] !== null && point.metrics[name] !== undefined),
  );
  return el(
    "section",
    { class: "card flush" },
    el("h2", {}, "Load points"),
    table({
      caption: "Load points",
      compact: true,
      rows: trial.load_points,
      columns: [
        {
          key: "name",
          title: "Load point",
          heads: true,
          cell: (point) => el("span", { class: "nowrap" }, point.name, point.probe && [" ", badge("probe")]),
        },
        ...names.map((name) => ({
          key: name,
          title: title(name),
          number: true,
          cell: (point) => measured(point.metrics[name], name),
        })),
      ],
    }),
  );
}

function phases(trial) {
  if (!trial.phases.length) return null;
  const all = trial.phases.at(-1).end;
  const bar = el(
    "div",
    { class: "phase-bar", "aria-hidden": "true" },
    trial.phases.map((phase, place) => {
      const part = el("span", {
        class: phaseClass(phase.name, place),
        title: `${phase.name}: ${duration(phase.end - phase.start)}`,
      });
      part.style.flexGrow = String(Math.max(phase.end - phase.start, all / 500));
      return part;
    }),
  );
  return el(
    "section",
    { class: "card" },
    el("h2", {}, "Phases"),
    bar,
    el(
      "ol",
      { class: "phase-list" },
      trial.phases.map((phase, place) =>
        el(
          "li",
          {},
          el("i", { class: phaseClass(phase.name, place), "aria-hidden": "true" }),
          phase.name,
          " ",
          el("span", { class: "soft" }, duration(phase.end - phase.start)),
        ),
      ),
    ),
  );
}

/** The tone of a phase: starting, one of two for load points in turn, stopping. */
export function phaseClass(name, place) {
  if (name === "stop" || name === "now") return `phase ${name}`;
  return ["D", "N", "U"].includes(name[0]) && name.includes("(") ? `phase load-${place % 2}` : "phase deploy";
}

/* Logs */

const SOURCES = [
  ["server", "Server"],
  ["benchmark", "Load generator"],
  ["trial", "Trial"],
];

/** The logs of a trial, the one `asked` for first; its own story where it has no server's. */
function logs(name, number, trial, asked, signal) {
  const panel = el("div", { role: "tabpanel", id: "log-panel", tabindex: "-1" });
  let shown = new AbortController();
  signal.addEventListener("abort", () => shown.abort());
  const tabs = SOURCES.map(([source, label]) =>
    el(
      "button",
      {
        type: "button",
        role: "tab",
        id: `log-${source}`,
        class: "tab",
        "aria-controls": "log-panel",
        onClick: () => {
          keepQuery({ log: source });
          open(source);
        },
      },
      label,
    ),
  );

  function open(source) {
    shown.abort();
    shown = new AbortController();
    for (const tab of tabs) {
      const on = tab.id === `log-${source}`;
      tab.setAttribute("aria-selected", String(on));
      tab.tabIndex = on ? 0 : -1;
    }
    panel.setAttribute("aria-labelledby", `log-${source}`);
    const view = logView({
      address: address("studies", name, "trials", number, "logs", source),
      label: `Log: ${SOURCES.find(([key]) => key === source)[1]}`,
      file: `${name}-${number}-${source}.log`,
    });
    fill(panel, view.node);
    view.open(shown.signal);
  }

  const list = el(
    "div",
    {
      role: "tablist",
      "aria-label": "Logs",
      class: "tabs",
      onKeydown: (event) => {
        const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!way) return;
        const next = tabs[(tabs.indexOf(document.activeElement) + way + tabs.length) % tabs.length];
        next.focus();
        next.click();
      },
    },
    tabs,
  );
  const first = asked ?? "server";
  open(first === "server" && trial.logs.server === null && ended(trial) ? "trial" : first);
  return el(
    "section",
    { class: "card", id: "logs" },
    el("div", { class: "section-head" }, el("h2", {}, "Logs"), list),
    panel,
  );
}
