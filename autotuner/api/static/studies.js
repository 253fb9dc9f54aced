/** The list of studies: how each stands, what came of it, what can be done. */

import { rowActions } from "./actions.js";
import { keepQuery, mayChange } from "./app.js";
import { path, poll, read } from "./api.js";
import { code } from "./dialogs.js";
import { pager, table } from "./tables.js";
import {
  UNDER_WAY,
  ago,
  badge,
  counted,
  debounced,
  duration,
  el,
  empty,
  engineName,
  field,
  fill,
  linkButton,
  measured,
  moment,
  parametersText,
  percent,
  problemNote,
  released,
  select,
  stateBadge,
  stateSign,
  title,
  unseen,
  waiting,
} from "./ui.js";

const PER_PAGE = 50;
const POLL_SECONDS = 3;
const STATES = ["PENDING", "STARTING", "RUNNING", "COMPLETE", "FAILED", "CANCELLED", "LOST"];

export const views = [{ path: "/studies", title: "Studies", render }];

async function render(root, { query }, signal) {
  const asked = {
    state: query.get("state") ?? "",
    engine: query.get("engine") ?? "",
    q: query.get("q") ?? "",
    sort: query.get("sort") ?? "-created_at",
    page: Number(query.get("page")) || 1,
  };
  const changes = await mayChange();
  const list = el("div", { id: "studies" }, waiting("Reading the studies"));
  const total = el("span", { class: "soft", role: "status" });
  let drawn = "";
  let last = 0;

  async function refresh() {
    const turn = (last += 1);
    const found = await read("studies", { ...asked, per_page: PER_PAGE }, { signal });
    const lively = found.items.some((row) => UNDER_WAY.includes(row.state));
    await released(list);
    if (turn !== last) return lively; // what was asked since is what is wanted
    total.textContent = counted(found.total, "study");
    const now = JSON.stringify(found);
    if (now !== drawn) fill(list, content(found, { asked, ask, changes, again }));
    drawn = now;
    return lively;
  }

  const again = () => refresh().catch((error) => signal.aborted || fill(list, problemNote(error, { retry: again })));

  function ask(change) {
    Object.assign(asked, { page: 1 }, change);
    keepQuery({
      ...asked,
      page: asked.page > 1 ? asked.page : "",
      sort: asked.sort === "-created_at" ? "" : asked.sort,
    });
    drawn = "";
    return again();
  }

  fill(
    root,
    el(
      "header",
      { class: "page-head" },
      el("h1", {}, "Studies"),
      total,
      el("div", { class: "actions" }, changes && linkButton("New study", "#/new", { icon: "plus", kind: "primary" })),
    ),
    filters(asked, ask),
    list,
  );
  await again();
  poll(refresh, POLL_SECONDS, signal, (problem) => void fill(list, problemNote(problem, { retry: again })));
}

function filters(asked, ask) {
  const engine = select([["", "All engines"]], asked.engine, { onChange: (value) => ask({ engine: value }) });
  read("engines")
    .then(({ items }) =>
      engine.append(
        ...items.map(({ kind }) => el("option", { value: kind, selected: kind === asked.engine }, engineName(kind))),
      ),
    )
    .catch(() => engine.append(...["vllm", "sglang"].map((kind) => el("option", { value: kind }, engineName(kind)))));
  const typed = debounced((value) => ask({ q: value }), 250);
  return el(
    "form",
    { class: "filters", role: "search", onSubmit: (event) => event.preventDefault() },
    el(
      "div",
      { class: "grow" },
      field(
        "Find by name or description",
        el("input", {
          type: "search",
          value: asked.q,
          placeholder: "Find by name or description",
          onInput: (event) => typed(event.target.value),
        }),
        { hidden: true },
      ),
    ),
    field(
      "State",
      select(
        [["", "All states"], ...STATES.map((each) => [each, `${stateSign(each)} ${each.toLowerCase()}`])],
        asked.state,
        { onChange: (value) => ask({ state: value }) },
      ),
      { hidden: true },
    ),
    field("Engine", engine, { hidden: true }),
  );
}

function content(found, { asked, ask, changes, again }) {
  if (!found.total) return asked.state || asked.engine || asked.q ? nothingFound(ask) : nothingYet(changes);
  return table({
    caption: "Studies",
    rows: found.items,
    sort: asked.sort,
    onSort: (sort) => ask({ sort }),
    rowProperties: () => ({ class: "stacks" }),
    columns: [
      { key: "name", title: "Study", sort: true, heads: true, class: "study", cell: named },
      { key: "state", title: "State", sort: true, cell: standing },
      { key: "engine", title: "Engine", cell: (row) => [engineName(row.engine), el("small", {}, row.backend)] },
      { key: "blocks", title: "Trials", cell: progress },
      { key: "gain", title: "Best, gain", sort: true, number: true, cell: best },
      { key: "seconds", title: "Duration", sort: true, number: true, cell: took },
      {
        key: "created_at",
        title: "Created",
        sort: true,
        cell: (row) => el("span", { class: "nowrap", title: moment(row.created_at) }, ago(row.created_at)),
      },
      ...(changes
        ? [
            {
              key: "actions",
              title: unseen("Actions"),
              class: "row-actions",
              cell: (row) => el("div", { class: "actions" }, rowActions(row, again)),
            },
          ]
        : []),
    ],
    foot: pager({ page: found.page, perPage: found.per_page, total: found.total, onPage: (page) => ask({ page }) }),
  });
}

const address = (row) => `#/${path("studies", row.name)}`;

const named = (row) => [
  el("a", { href: address(row), dataset: { key: `study-${row.name}` } }, row.name),
  el("small", { class: "clamp", title: row.description || row.model }, row.description || row.model),
];

const standing = (row) => [
  stateBadge(row.state),
  row.reason ? el("small", { class: "clamp", title: row.reason }, row.reason) : null,
];

function progress(row) {
  const ended =
    row.blocks.filter((each) => !["PENDING", "DEPLOYING", "BENCHMARKING"].includes(each.state)).length + row.more;
  const left = UNDER_WAY.includes(row.state) && row.eta !== null ? `, about ${duration(row.eta)} left` : "";
  if (!row.blocks.length) return el("span", { class: "soft" }, row.budget ? `up to ${row.budget}` : "none yet");
  const of = row.budget && UNDER_WAY.includes(row.state) ? ` of ${row.budget + 1}` : "";
  return [blocks(row), el("small", {}, of ? `${ended}${of} trials${left}` : counted(ended, "trial"))];
}

/** A small block for each trial, coloured and signed by its state; said as one sentence. */
export function blocks(row) {
  const counts = Object.entries(row.counts)
    .map(([state, count]) => `${count} ${state.toLowerCase()}`)
    .join(", ");
  const go = (event) => {
    const number = event.target.dataset?.number;
    if (number) location.hash = `#/${path("studies", row.name, "trials", number)}`;
  };
  return el(
    "span",
    { class: "blocks", role: "img", "aria-label": `Trials: ${counts}`, onClick: go },
    row.blocks.map((each) =>
      el(
        "span",
        {
          class: `block ${each.state}${each.state === "COMPLETE" && !each.feasible ? " unfit" : ""}${each.number === row.best?.number ? " best" : ""}`,
          title: blockTitle(each, row),
          dataset: { number: String(each.number) },
        },
        each.number === row.best?.number
          ? "★"
          : each.state === "COMPLETE"
            ? each.feasible
              ? ""
              : "✕"
            : stateSign(each.state),
      ),
    ),
    row.more ? el("span", { class: "more" }, `+${row.more}`) : null,
  );
}

function blockTitle(each, row) {
  const role = each.number === row.best?.number ? ", the best so far" : each.number === 0 ? ", the baseline" : "";
  const state = each.state === "COMPLETE" && !each.feasible ? "complete, beyond a bound" : each.state.toLowerCase();
  return `Trial ${each.number}${role}: ${state}${each.note ? ` (${each.note})` : ""}\n${parametersText(each.parameters)}`;
}

function best(row) {
  if (!row.best) return null;
  const [objective] = row.objectives;
  const gain = row.gain;
  return [
    el(
      "span",
      { title: `${title(objective.name)} of trial ${row.best.number}` },
      measured(row.best.value, objective.name),
    ),
    gain !== null && row.best.number !== 0
      ? el(
          "small",
          {
            class: gain > 0.0005 ? "better" : gain < -0.0005 ? "worse" : null,
            title: `over the defaults: ${measured(row.baseline, objective.name)}`,
          },
          percent(gain),
        )
      : el("small", {}, row.best.number === 0 ? "the defaults" : title(objective.name)),
  ];
}

const took = (row) =>
  row.started_at ? el("span", { title: `started ${moment(row.started_at)}` }, duration(row.seconds)) : null;

const nothingFound = (ask) =>
  empty(
    "No study is like that",
    el("p", {}, "Take back a filter, or look for another word."),
    el(
      "div",
      { class: "actions" },
      el(
        "button",
        {
          type: "button",
          class: "button",
          onClick: () => ask({ state: "", engine: "", q: "" }).then(() => location.reload()),
        },
        "Show all studies",
      ),
    ),
  );

function nothingYet(changes) {
  const origin = location.origin + location.pathname.replace(/\/$/, "");
  const line = `curl -sS ${origin}/v1/studies?start=true -H 'Content-Type: application/yaml' --data-binary @study.yaml`;
  return empty(
    "There is no study yet",
    el(
      "p",
      {},
      "A study asks which launch flags serve a model best, by measuring. Describe one here, or send a study file:",
    ),
    code(line, { label: "Copy the command" }),
    changes
      ? el("div", { class: "actions" }, linkButton("New study", "#/new", { icon: "plus", kind: "primary" }))
      : el("p", {}, badge("viewer"), " Your token may look; ask for one that may submit."),
  );
}
