/** The trials of a study as a table: sorted, filtered, saved; and those without an answer, by class. */

import { download, path, read } from "./api.js";
import { attempt } from "./dialogs.js";
import { trialOf } from "./marks.js";
import { varied } from "./parallel_chart.js";
import { pager, sorted, table } from "./tables.js";
import {
  badge,
  betterOf,
  button,
  counted,
  debounced,
  details,
  differences,
  duration,
  el,
  field,
  fill,
  gainOf,
  known,
  measured,
  parameterList,
  parametersText,
  percent,
  prose,
  quantity,
  select,
  stateBadge,
  stateSign,
  title,
  valueText,
} from "./ui.js";

const PER_PAGE = 100;
const MOST_COLUMNS = 8;

const stateOf = (trial) => (trial.refused ? "REFUSED" : trial.state);

/** SLOs of a trial: met, or what is broken and how badly, in words and colours. */
export function sloBadges(trial, bounds) {
  const broken = Object.entries(trial.violations).filter(([, beyond]) => beyond > 0);
  if (!broken.length) return Object.keys(trial.violations).length ? badge("✓ met", "good") : null;
  return broken.map(([name, beyond]) => {
    const how = trial.severity[name] ?? "minor";
    const by = bounds[name] ? percent(beyond).replace("+", "") : measured(beyond, name);
    const side = betterOf(name) === "lower" ? "above" : "below";
    return el(
      "span",
      { class: "slo", title: `${title(name)} is ${by} ${side} its bound of ${measured(bounds[name], name)}: ${how}` },
      badge(`${SEVERITY[how].sign} ${how}`, SEVERITY[how].kind),
      ` ${title(name)} ${by === percent(beyond).replace("+", "") ? percent(side === "below" ? -beyond : beyond) : `${by} ${side}`}`,
    );
  });
}

const SEVERITY = {
  minor: { sign: "△", kind: "warn" },
  severe: { sign: "▲", kind: "bad" },
  "hard fail": { sign: "✕", kind: "bad filled" },
};

/** The table of all trials, with what chooses among them. */
export function trialTable(view) {
  const asked = { state: "", q: "", sort: "number", page: 1, repeats: false };
  const holder = el("div");
  const heading = el("h2", { id: "trials" }, "Trials");
  const draw = () => {
    const rows = chosen(view.report, asked);
    const all = view.report.trials.filter((trial) => asked.repeats || trial.searched).length;
    heading.textContent = rows.length === all ? `Trials (${all})` : `Trials (${rows.length} of ${all})`;
    const first = (asked.page - 1) * PER_PAGE;
    fill(
      holder,
      rows.length
        ? drawn(view, rows.slice(first, first + PER_PAGE), rows.length)
        : el(
            "p",
            { class: "nothing" },
            view.report.trials.length ? "No trial is like that." : "No trial yet: the baseline comes first.",
          ),
    );
  };
  const ask = (change) => {
    Object.assign(asked, { page: 1 }, change);
    draw();
  };
  const drawn = (shown, rows, total) =>
    table({
      caption: "Trials",
      rows,
      sort: asked.sort,
      onSort: (sort) => ask({ sort }),
      columns: columns(shown),
      rowProperties: (trial) => ({
        class: trial.number === shown.report.best ? "best opens" : "opens",
        dataset: { trial: String(trial.number) },
        onClick: (event) =>
          !event.target.closest("a, button, summary, details") &&
          !String(getSelection()) &&
          (location.hash = address(shown, trial)),
      }),
      foot: pager({ page: asked.page, perPage: PER_PAGE, total, onPage: (page) => ask({ page }) }),
    });
  const typed = debounced((q) => ask({ q }), 200);
  const states = [
    "COMPLETE",
    "INFEASIBLE",
    "STOPPED",
    "FAILED",
    "REFUSED",
    "CANCELLED",
    "BENCHMARKING",
    "DEPLOYING",
    "PENDING",
  ];
  const again = el("input", { type: "checkbox", onChange: (event) => ask({ repeats: event.target.checked }) });
  const node = el(
    "section",
    { class: "card flush", "aria-labelledby": "trials" },
    el(
      "header",
      {},
      heading,
      el(
        "div",
        { class: "actions" },
        button("CSV", {
          icon: "download",
          onClick: () =>
            attempt(() => download(path("studies", view.name, "trials"), { format: "csv" }, `${view.name}-trials.csv`)),
        }),
        button("JSON", { icon: "download", onClick: () => attempt(() => saveJson(view)) }),
      ),
    ),
    el(
      "form",
      { class: "filters inset", onSubmit: (event) => event.preventDefault() },
      el(
        "div",
        { class: "grow" },
        field(
          "Find trials",
          el("input", {
            type: "search",
            placeholder: "Find by parameter, reason or number",
            onInput: (event) => typed(event.target.value),
          }),
          { hidden: true },
        ),
      ),
      field(
        "Trial state",
        select([["", "All states"], ...states.map((each) => [each, `${stateSign(each)} ${each.toLowerCase()}`])], "", {
          onChange: (state) => ask({ state }),
        }),
        { hidden: true },
      ),
      el("label", { class: "check" }, again, "repeats of the finals"),
    ),
    holder,
  );
  draw();
  return { node, update: draw };
}

const address = (view, trial) => `#/${path("studies", view.name, "trials", trial.number)}`;

function chosen(report, { state, q, sort, repeats }) {
  const words = q.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = report.trials.filter((trial) => {
    const said =
      `${trial.number} ${parametersText(trial.parameters)} ${trial.reason} ${trial.failure ?? ""}`.toLowerCase();
    return (
      (repeats || trial.searched) && (!state || stateOf(trial) === state) && words.every((word) => said.includes(word))
    );
  });
  return sorted(rows, sort, valueOf);
}

/** What a trial is sorted by under a key of the columns. */
function valueOf(trial, key) {
  if (key === "state") return stateOf(trial);
  if (!key.startsWith("parameter ")) return key in trial.objectives ? trial.objectives[key] : trial[key];
  const value = trial.parameters[key.slice("parameter ".length)];
  return value === undefined ? null : valueText(value);
}

/** A flag's name that may go on in the next line after a hyphen. */
const breakable = (name) =>
  el(
    "span",
    {},
    name.split(/(?<=[-_])/).flatMap((part) => [part, el("wbr")]),
  );

const text = (trial, name) => (name in trial.parameters ? valueText(trial.parameters[name]) : "default");

function columns(view) {
  const { report } = view;
  const { objectives, bounds } = report.study;
  const baseline = trialOf(report, report.baseline);
  const best = trialOf(report, report.best);
  const names = varied(report);
  const apart = names.length && names.length <= MOST_COLUMNS;
  const differs = (trial, name) => best && trial !== best && text(trial, name) !== text(best, name);
  const predicted = report.trials.some((trial) => objectives.some(({ name }) => known(trial.predicted[name])));
  return [
    {
      key: "number",
      title: "Trial",
      sort: true,
      heads: true,
      class: "nowrap",
      cell: (trial) => [
        el("a", { href: address(view, trial), dataset: { key: `trial-${trial.number}` } }, String(trial.number)),
        " ",
        roles(report, trial),
      ],
    },
    {
      key: "state",
      title: "State",
      sort: true,
      cell: (trial) => [stateBadge(stateOf(trial)), trial.note ? el("small", {}, trial.note) : null],
    },
    ...(apart
      ? names.map((name) => ({
          key: `parameter ${name}`,
          title: breakable(name.replace(/^env:/, "")),
          sort: true,
          class: report.trials.some((trial) => text(trial, name).length > 16) ? "parameter long" : "parameter",
          cell: (trial) =>
            el(
              "code",
              {
                class: differs(trial, name) ? "differs" : null,
                title: text(trial, name).length > 16 ? text(trial, name) : null,
              },
              text(trial, name),
            ),
        }))
      : [
          {
            key: "parameters",
            title: "Parameters",
            class: "wide",
            cell: (trial) =>
              parameterList(trial.parameters, {
                marked:
                  best && trial !== best ? differences(trial.parameters, best.parameters).map((each) => each.name) : [],
              }),
          },
        ]),
    ...objectives.map(({ name }) => ({
      key: name,
      title: title(name),
      sort: true,
      number: true,
      cell: (trial) => objective(report, trial, baseline, name),
    })),
    ...(predicted
      ? [
          {
            key: "predicted",
            title: "Predicted",
            number: true,
            cell: (trial) => measured(trial.predicted[objectives[0].name], objectives[0].name),
          },
        ]
      : []),
    ...(Object.keys(bounds).length
      ? [{ key: "slo", title: "SLO", class: "slos", cell: (trial) => sloBadges(trial, bounds) }]
      : []),
    {
      key: "seconds",
      title: "Time",
      sort: true,
      number: true,
      cell: (trial) =>
        trial.seconds
          ? [
              duration(trial.seconds),
              trial.gpu_ids.length ? el("small", {}, counted(trial.gpu_ids.length, "GPU")) : null,
            ]
          : null,
    },
    { key: "why", title: "Why it is so", class: "wide why", cell: why },
  ];
}

function roles(report, trial) {
  return [
    trial.number === report.best
      ? badge(report.winner === trial.number && report.verdict?.winner === trial.number ? "★ winner" : "★ best", "best")
      : null,
    trial.number === report.baseline ? badge("baseline") : null,
    report.study.objectives.length > 1 && report.front.includes(trial.number) && trial.number !== report.best
      ? badge("front")
      : null,
    trial.repeat_of !== null ? el("small", {}, `${trial.repeat_of} again, round ${trial.round}`) : null,
  ];
}

function objective(report, trial, baseline, name) {
  const value = trial.objectives[name];
  if (!known(value)) return null;
  const gain = baseline && trial !== baseline ? gainOf(name, value, baseline.objectives[name]) : null;
  return [
    measured(value, name),
    gain === null
      ? null
      : el("small", { class: gain > 0.0005 ? "better" : gain < -0.0005 ? "worse" : null }, percent(gain)),
    trial.penalty > 1 ? el("small", {}, `ranked as ${measured(trial.scores[name], name)}`) : null,
  ];
}

function why(trial) {
  const lines = trial.reason.split("\n");
  const parts = [
    trial.failure ? el("strong", {}, `${trial.failure}: `) : null,
    trial.reason
      ? el("span", { title: lines[0] }, lines[0].length > 140 ? `${lines[0].slice(0, 139)}…` : lines[0])
      : null,
    lines.length > 1 ? details("all of it", el("pre", {}, trial.reason)) : null,
    trial.advice ? el("small", {}, `To move: ${trial.advice}`) : null,
    trial.why ? el("small", { class: "because" }, prose(trial.why)) : null,
  ].filter(Boolean);
  return parts.length ? parts : "";
}

async function saveJson(view) {
  const rows = [];
  for (let page = 1; ; page += 1) {
    const found = await read(path("studies", view.name, "trials"), { page, per_page: 500 });
    rows.push(...found.items);
    if (rows.length >= found.total || !found.items.length) break;
  }
  const link = el("a", {
    href: URL.createObjectURL(new Blob([JSON.stringify(rows, null, 2)], { type: "application/json" })),
    download: `${view.name}-trials.json`,
  });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Trials without an answer by class, and points refused before any launch by reason. */
export function failures(view) {
  const node = el("div", { class: "grid" });
  const draw = () => {
    const { failures: failed, refused } = view.report;
    node.hidden = !failed.length && !refused.length;
    fill(
      node,
      failed.length
        ? el(
            "section",
            { class: "card" },
            el("h2", {}, "No answer, by class"),
            el(
              "ul",
              { class: "groups" },
              failed.map((group) => groupOf(view, group)),
            ),
          )
        : null,
      refused.length
        ? el(
            "section",
            { class: "card" },
            el("h2", {}, `Refused before a launch (${refused.reduce((sum, each) => sum + each.count, 0)})`),
            el("p", { class: "soft" }, "Known to be impossible, so no GPU was spent."),
            el(
              "ul",
              { class: "groups" },
              refused.map((each) =>
                el(
                  "li",
                  {},
                  el("strong", {}, counted(each.count, "point")),
                  ": ",
                  each.reason,
                  " ",
                  links(view, each.trials),
                ),
              ),
            ),
          )
        : null,
    );
  };
  draw();
  return { node, update: draw };
}

function groupOf(view, group) {
  return el(
    "li",
    {},
    el("strong", {}, group.failure),
    ` · ${counted(group.count, "trial")} `,
    links(view, group.trials),
    el(
      "ul",
      {},
      group.reasons
        .slice(0, 5)
        .map((each) =>
          el(
            "li",
            { class: "soft" },
            each.reasons > 1 ? "e.g. " : "",
            each.reason.split("\n")[0],
            each.count > 1 ? ` (${quantity(each.count)} times)` : "",
          ),
        ),
    ),
    group.advice.map((advice) => el("p", { class: "advice" }, el("strong", {}, "To move: "), advice)),
  );
}

const links = (view, numbers) =>
  el(
    "span",
    { class: "soft" },
    "trial ",
    numbers
      .slice(0, 12)
      .flatMap((number, at) => [at ? ", " : "", el("a", { href: address(view, { number }) }, String(number))]),
    numbers.length > 12 ? " …" : "",
  );
