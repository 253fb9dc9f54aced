/** One study: how it stands, what it found, and why; kept up to date by its events. */

import { allActions } from "./actions.js";
import { entitle, go, mayChange, redraw } from "./app.js";
import { Problem, follow, path, pause, poll, read, text } from "./api.js";
import { attempt, code, copyButton, toastProblem } from "./dialogs.js";
import { frontChart, importanceChart, predictionChart, progressChart } from "./study_charts.js";
import { loadChart } from "./load_chart.js";
import { logView } from "./logview.js";
import { searched } from "./marks.js";
import { parallelChart } from "./parallel_chart.js";
import { sheet } from "./sheet.js";
import { answer, finals } from "./study_answer.js";
import { failures, trialTable } from "./study_trials.js";
import { blocks } from "./studies.js";
import {
  UNDER_WAY,
  ago,
  button,
  counted,
  details,
  duration,
  el,
  engineName,
  fill,
  linkButton,
  moment,
  parameterList,
  part,
  problemNote,
  quantity,
  stateBadge,
  terms,
  title,
  waiting,
} from "./ui.js";

const REFETCH_MS = 700;
const RETRY_SECONDS = 3;

export const views = [{ path: "/studies/:name", title: ({ name }) => name, render }];

async function render(root, { name }, signal) {
  const view = { name, signal, report: null, row: null, changes: await mayChange() };
  fill(root, el("h1", {}, name), waiting("Reading the study"));
  try {
    await fetched(view);
  } catch (error) {
    if (signal.aborted) return;
    fill(
      root,
      crumbs(name),
      el("h1", {}, name),
      problemNote(error),
      el("p", {}, el("a", { href: "#/studies" }, "All studies")),
    );
    return;
  }
  const parts = sections(view);
  fill(
    root,
    parts.map((part) => part.node),
  );
  const update = () => parts.forEach((part) => part.update());
  watch(root, view, update);
}

async function fetched(view) {
  const at = path("studies", view.name);
  // In this order: events are followed from the row's on, so that the report may be newer, never older.
  view.row = await read(at, {}, { signal: view.signal });
  view.report = await read(`${at}/report`, {}, { signal: view.signal });
}

/** Follow the study's events; read the report again a moment after each. */
function watch(root, view, update) {
  const again = async () => {
    try {
      await fetched(view);
      if (!view.signal.aborted) update();
    } catch (error) {
      if (view.signal.aborted) return;
      if (error.status === 404) return void gone(root, view);
      if (error.status !== 0) toastProblem(error);
      // It may have been the last event: nothing else would have it read again.
      if (passes(error)) pause(RETRY_SECONDS, view.signal).then(() => view.signal.aborted || soon());
    }
  };
  const soon = paced(again, view.signal);
  view.refresh = again;
  let ended = false;
  const onEvent = ({ data }) => {
    if (data.state === "DELETED") {
      ended = true;
      gone(root, view);
      return false;
    }
    soon();
    return true;
  };
  follow(`${path("studies", view.name)}/events`, { after: view.row.event, signal: view.signal, onEvent }).catch(
    (error) => {
      if (error instanceof Problem && error.status === 404) gone(root, view);
      else if (!view.signal.aborted) toastProblem(error);
    },
  );
  // Time goes on without events: what is left, who is lost.
  poll(
    async () => {
      if (ended || view.row.state === "COMPLETE") return false;
      view.row = await read(path("studies", view.name), {}, { signal: view.signal });
      if (!view.signal.aborted && !ended) view.standing.forEach((each) => each.update());
      return UNDER_WAY.includes(view.row.state);
    },
    10,
    view.signal,
    (problem) => (problem.status === 404 ? (gone(root, view), false) : true),
  );
}

/** Whether a problem may pass by itself: no answer, too many requests, the service's own fault. */
const passes = ({ status }) => status === 0 || status === 429 || status >= 500;

/**
 * A call that is made a moment after it is asked for, however often; a slow answer (thousands of
 * trials) makes the moments longer.
 */
function paced(call, signal) {
  let asked = false;
  let busy = false;
  let wait = REFETCH_MS;
  const run = async () => {
    busy = true;
    await pause(wait / 1000, signal);
    asked = false;
    const began = performance.now();
    if (!signal.aborted) await call();
    wait = Math.max(REFETCH_MS, 2 * (performance.now() - began));
    busy = false;
    if (asked && !signal.aborted) run();
  };
  return () => {
    asked = true;
    if (!busy) run();
  };
}

/** The study was deleted, edited or restarted while somebody looked. */
async function gone(root, view) {
  if (view.signal.aborted) return;
  try {
    await read(path("studies", view.name), {}, { signal: view.signal });
    redraw(); // another study of that name: edited, or begun anew
    return;
  } catch (error) {
    if (error.name === "AbortError") return;
  }
  root.querySelector(".gone")?.remove();
  root.querySelectorAll(".page-head .actions").forEach((each) => each.replaceChildren());
  root.prepend(
    el(
      "div",
      { class: "note bad gone", role: "alert" },
      el("strong", {}, `${view.name} is no more. `),
      "It was deleted or renamed while you looked; what is below is what was last known. ",
      el("a", { href: "#/studies" }, "All studies"),
    ),
  );
}

function sections(view) {
  const charts = chartGrid(view);
  // What changes with time alone; the rest changes with events.
  view.standing = [head(view), progress(view)];
  return [...view.standing, answer(view), charts, finals(view), failures(view), trialTable(view), asked(view)];
}

function chartGrid(view) {
  const all = [
    progressChart(view),
    loadChart(view),
    frontChart(view),
    importanceChart(view),
    predictionChart(view),
    parallelChart(view),
    importanceNeeds(view),
  ].filter(Boolean);
  return {
    node: el(
      "div",
      { class: "charts" },
      all.map((each) => each.node),
    ),
    update: () => all.forEach((each) => each.update()),
  };
}

/** Why nothing is said of importance yet. */
function importanceNeeds(view) {
  const node = el("p", { class: "soft broad" });
  return part(node, () => {
    const { importance, importance_needs: needs, trials, study } = view.report;
    node.hidden = Object.keys(importance).length > 0 || !needs || !trials.length;
    node.textContent = `Which parameter moves ${title(study.objectives[0].name)} can be said from ${counted(needs ?? 0, "complete trial")} on.`;
  });
}

const crumbs = (name) =>
  el("nav", { class: "crumbs", "aria-label": "Where you are" }, el("a", { href: "#/studies" }, "Studies"), " / ", name);

function head(view) {
  const node = el("div");
  let drawn = "";
  return part(node, () => {
    const { row } = view;
    const now = JSON.stringify([row.name, row.state, row.reason, row.description, row.counts]);
    if (now === drawn) return;
    drawn = now;
    entitle(`${row.name} (${row.state.toLowerCase()})`);
    const done = (result) => (result === "deleted" ? go("/studies") : view.refresh());
    fill(
      node,
      crumbs(row.name),
      el(
        "header",
        { class: "page-head" },
        el("h1", {}, row.name),
        el("span", { role: "status" }, stateBadge(row.state)),
        view.changes ? el("div", { class: "actions" }, allActions(row, done)) : null,
      ),
      row.description ? el("p", { class: "soft description" }, row.description) : null,
      row.reason ? el("p", { class: `note ${row.state === "FAILED" ? "bad" : "info"}` }, row.reason) : null,
      row.state === "LOST"
        ? el(
            "p",
            { class: "note" },
            "Its driver is gone without a word: the machine or the job died. What was measured is kept; resume it to go on, or cancel it.",
          )
        : null,
      row.state === "STARTING"
        ? el("p", { class: "note info" }, "Its job is being started on the cluster; the baseline comes first.")
        : null,
      row.state === "PENDING" ? el("p", { class: "note info" }, "It has not been started.") : null,
    );
  });
}

function progress(view) {
  const node = el("section", { class: "card", "aria-label": "Progress" });
  return part(node, () => {
    const { row, report } = view;
    node.hidden = !searched(report).length;
    const launched = searched(report).filter(
      (trial) => !["PENDING", "DEPLOYING", "BENCHMARKING"].includes(trial.state),
    ).length;
    const most = row.budget === null ? null : row.budget + 1;
    const under = UNDER_WAY.includes(row.state);
    const busy = report.trials.filter((trial) => ["DEPLOYING", "BENCHMARKING"].includes(trial.state));
    const bar =
      under && most
        ? el(
            "div",
            {
              class: "progress",
              role: "progressbar",
              "aria-label": "Trials of the search",
              "aria-valuemin": "0",
              "aria-valuemax": String(most),
              "aria-valuenow": String(launched),
            },
            el("span"),
          )
        : null;
    if (bar) bar.firstChild.style.width = `${Math.min(100, (100 * launched) / most)}%`;
    fill(
      node,
      el(
        "div",
        { class: "progress-line" },
        blocks(row),
        el("span", {}, under && most ? `${launched} of ${most} trials` : counted(launched, "trial")),
        under && row.eta !== null ? el("strong", {}, `about ${duration(row.eta)} left`) : null,
      ),
      bar,
      busy.length
        ? el(
            "ul",
            { class: "busy" },
            busy.map((trial) =>
              el(
                "li",
                {},
                stateBadge(trial.state),
                " ",
                el("a", { href: `#/${path("studies", view.name, "trials", trial.number)}` }, `trial ${trial.number}`),
                trial.note ? ` ${trial.note}` : "",
                el("span", { class: "soft" }, parameterList(trial.parameters)),
              ),
            ),
          )
        : null,
      terms({
        started: row.started_at ? el("span", { title: ago(row.started_at) }, moment(row.started_at)) : null,
        duration: row.started_at ? duration(row.seconds) : null,
        launches: report.cost.launches || null,
        "time of trials": report.cost.seconds ? duration(report.cost.seconds) : null,
        cost: report.cost.gpu_hours > 0 ? `${quantity(report.cost.gpu_hours)} GPU-hours` : null,
        "by state": Object.entries(report.counts)
          .map(([state, count]) => `${count} ${state.toLowerCase()}`)
          .join(", "),
      }),
    );
  });
}

/* What was asked */

function asked(view) {
  const node = el("section", { class: "card", "aria-labelledby": "asked" });
  const log = studyLog(view);
  const yaml = details("As a study file");
  const whole = el("div");
  yaml.append(whole);
  const drawn = part(whole, () => fill(whole, code(view.row.yaml ?? "", { label: "Copy the study file" })));
  const facts = el("div");
  const drawFacts = () => {
    const { study } = view.report;
    fill(
      facts,
      terms({
        model: study.model,
        engine: `${engineName(study.engine)}${study.engine_version ? ` ${study.engine_version}` : ""}`,
        backend: study.backend,
        search: study.search,
        objectives: study.objectives.map((each) => `${title(each.name)} (${each.better} is better)`).join(", "),
        constraints: study.constraints.join(", ") + (study.slo_mode ? ` · ${study.slo_mode}` : ""),
        "load points": study.loads.join(", "),
        created: moment(study.created_at),
        ended: study.ended_at ? moment(study.ended_at) : null,
        files: study.directory ? el("code", {}, study.directory) : null,
      }),
    );
  };
  drawFacts();
  node.append(
    el(
      "header",
      {},
      el("h2", { id: "asked" }, "What was asked"),
      el(
        "div",
        { class: "actions" },
        copyButton("Copy the study file", () => view.row.yaml, { kind: "quiet" }),
        linkButton("Timeline", `#/timeline?study=${encodeURIComponent(view.name)}`, {
          icon: "timeline",
          kind: "quiet",
        }),
        button("Report as one page", {
          icon: "download",
          kind: "quiet",
          onClick: () => attempt(() => openReport(view)),
        }),
      ),
    ),
    facts,
    yaml,
    log.node,
  );
  return { node, update: () => (drawFacts(), drawn.update(), log.update()) };
}

/** The study's own log: read while it is open, and again where the study goes on after its end. */
function studyLog(view) {
  const node = details("Log of the study");
  const log = logView({
    address: `${path("studies", view.name)}/logs`,
    label: "Log of the study",
    file: `${view.name}.log`,
    empty: "Nothing has been said yet.",
  });
  node.append(log.node);
  let reading = null;
  const stop = () => reading?.abort();
  const start = async () => {
    const mine = (reading = new AbortController());
    await sheet("trial.css");
    if (!mine.signal.aborted) await log.open(mine.signal);
    if (reading === mine) reading = null;
  };
  node.addEventListener("toggle", () => (node.open ? start() : stop()));
  view.signal.addEventListener("abort", stop);
  return { node, update: () => node.open && !reading && UNDER_WAY.includes(view.row.state) && start() };
}

async function openReport(view) {
  const page = await text(`${path("studies", view.name)}/report`, { format: "html" });
  const link = el("a", {
    href: URL.createObjectURL(new Blob([page], { type: "text/html" })),
    download: `${view.name}.html`,
  });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
