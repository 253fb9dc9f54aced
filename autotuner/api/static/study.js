/** One study: how it stands, what it found, and why; kept up to date by its events. */

import { allActions } from "./actions.js";
import { entitle, go, mayChange, redraw } from "./app.js";
import { Problem, follow, path, pause, poll, read, text } from "./api.js";
import {
  frontChart, importanceChart, loadChart, parallelChart, predictionChart, progressChart, searched, trialOf,
} from "./study_charts.js";
import { failures, sloBadges, trialTable } from "./study_trials.js";
import { blocks } from "./studies.js";
import {
  UNDER_WAY, ago, attempt, badge, button, code, copyButton, counted, details, differences, duration, el, engineName, fill, known,
  linkButton, listed, measured, moment, parameterList, percent, problemNote, quantity, span, stateBadge, table, terms, title, toastProblem, waiting,
} from "./ui.js";

const REFETCH_MS = 700;
const EXPORTS = { command: "Command", docker: "Docker", compose: "Compose", ome: "OME", args: "Arguments" };

export const views = [{ path: "/studies/:name", title: ({ name }) => name, render }];

async function render(root, { name }, signal) {
  const view = { name, signal, report: null, row: null, changes: await mayChange() };
  fill(root, el("h1", {}, name), waiting("Reading the study"));
  try {
    await fetched(view);
  } catch (error) {
    if (signal.aborted) return;
    fill(root, crumbs(name), el("h1", {}, name), problemNote(error), el("p", {}, el("a", { href: "#/studies" }, "All studies")));
    return;
  }
  const parts = sections(view);
  fill(root, parts.map((part) => part.node));
  const update = () => parts.forEach((part) => part.update());
  watch(root, view, update);
}

async function fetched(view) {
  const at = path("studies", view.name);
  [view.row, view.report] = await Promise.all([read(at, {}, { signal: view.signal }), read(`${at}/report`, {}, { signal: view.signal })]);
}

/** Follow the study's events; read the report again a moment after each. */
function watch(root, view, update) {
  const again = async () => {
    try {
      await fetched(view);
      if (!view.signal.aborted) update();
    } catch (error) {
      if (!view.signal.aborted && error.status === 404) gone(root, view);
      else if (!view.signal.aborted && error.status !== 0) toastProblem(error);
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
  follow(`${path("studies", view.name)}/events`, { after: view.row.event, signal: view.signal, onEvent }).catch((error) => {
    if (error instanceof Problem && error.status === 404) gone(root, view);
    else if (!view.signal.aborted) toastProblem(error);
  });
  // Time goes on without events: what is left, who is lost.
  poll(async () => {
    if (ended || view.row.state === "COMPLETE") return false;
    view.row = await read(path("studies", view.name), {}, { signal: view.signal });
    if (!view.signal.aborted && !ended) view.head.update();
    return UNDER_WAY.includes(view.row.state);
  }, 10, view.signal, (problem) => (problem.status === 404 ? (gone(root, view), false) : true));
}

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
  root.prepend(el(
    "div", { class: "note bad gone", role: "alert" },
    el("strong", {}, `${view.name} is no more. `), "It was deleted or renamed while you looked; what is below is what was last known. ",
    el("a", { href: "#/studies" }, "All studies"),
  ));
}

function sections(view) {
  const charts = chartGrid(view);
  view.head = head(view);
  return [
    view.head,
    progress(view),
    answer(view),
    charts,
    finals(view),
    failures(view),
    trialTable(view),
    asked(view),
  ];
}

function chartGrid(view) {
  const all = [progressChart(view), loadChart(view), frontChart(view), importanceChart(view), predictionChart(view), parallelChart(view), importanceNeeds(view)].filter(Boolean);
  return { node: el("div", { class: "charts" }, all.map((each) => each.node)), update: () => all.forEach((each) => each.update()) };
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

/** A part that is drawn again as a whole. */
function part(node, draw) {
  draw();
  return { node, update: draw };
}

const crumbs = (name) => el("nav", { class: "crumbs", "aria-label": "Where you are" }, el("a", { href: "#/studies" }, "Studies"), " / ", name);

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
      el("header", { class: "page-head" }, el("h1", {}, row.name), el("span", { role: "status" }, stateBadge(row.state)),
        view.changes ? el("div", { class: "actions" }, allActions(row, done)) : null),
      row.description ? el("p", { class: "soft description" }, row.description) : null,
      row.reason ? el("p", { class: `note ${row.state === "FAILED" ? "bad" : "info"}` }, row.reason) : null,
      row.state === "LOST" ? el("p", { class: "note" }, "Its driver is gone without a word: the machine or the job died. What was measured is kept; resume it to go on, or cancel it.") : null,
      row.state === "STARTING" ? el("p", { class: "note info" }, "Its job is being started on the cluster; the baseline comes first.") : null,
      row.state === "PENDING" ? el("p", { class: "note info" }, "It has not been started.") : null,
    );
  });
}

function progress(view) {
  const node = el("section", { class: "card", "aria-label": "Progress" });
  return part(node, () => {
    const { row, report } = view;
    node.hidden = !searched(report).length;
    const launched = searched(report).filter((trial) => !["PENDING", "DEPLOYING", "BENCHMARKING"].includes(trial.state)).length;
    const most = row.budget === null ? null : row.budget + 1;
    const under = UNDER_WAY.includes(row.state);
    const busy = report.trials.filter((trial) => ["DEPLOYING", "BENCHMARKING"].includes(trial.state));
    const bar = under && most ? el("div", { class: "progress", role: "progressbar", "aria-label": "Trials of the search", "aria-valuemin": "0", "aria-valuemax": String(most), "aria-valuenow": String(launched) }, el("span")) : null;
    if (bar) bar.firstChild.style.width = `${Math.min(100, (100 * launched) / most)}%`;
    fill(
      node,
      el("div", { class: "progress-line" }, blocks(row), el("span", {}, under && most ? `${launched} of ${most} trials` : counted(launched, "trial")),
        under && row.eta !== null ? el("strong", {}, `about ${duration(row.eta)} left`) : null),
      bar,
      busy.length ? el("ul", { class: "busy" }, busy.map((trial) => el("li", {}, stateBadge(trial.state), " ", el("a", { href: `#/${path("studies", view.name, "trials", trial.number)}` }, `trial ${trial.number}`), trial.note ? ` ${trial.note}` : "", el("span", { class: "soft" }, parameterList(trial.parameters))))) : null,
      terms({
        "started": row.started_at ? el("span", { title: ago(row.started_at) }, moment(row.started_at)) : null,
        "duration": row.started_at ? duration(row.seconds) : null,
        "launches": report.cost.launches || null,
        "time of trials": report.cost.seconds ? duration(report.cost.seconds) : null,
        "cost": report.cost.gpu_hours > 0 ? `${quantity(report.cost.gpu_hours)} GPU-hours` : null,
        "by state": Object.entries(report.counts).map(([state, count]) => `${count} ${state.toLowerCase()}`).join(", "),
      }),
    );
  });
}

/* The answer: what may be said, and the configuration to serve with */

function answer(view) {
  const node = el("div", { class: "grid answer" });
  const exported = launchExport(view);
  let drawn = null;
  return part(node, () => {
    const { report } = view;
    const now = JSON.stringify([report.best, report.verdict, report.gain, report.statement, view.row.state, report.counts]);
    if (drawn === now) return;
    drawn = now;
    const best = trialOf(report, report.best);
    node.hidden = !report.trials.length;
    fill(node, said(view), best ? bestCard(view, best, exported) : null);
  });
}

function said(view) {
  const { report } = view;
  const [sentence, notes] = statement(report);
  const objective = report.study.objectives[0];
  const gain = report.gain[objective.name];
  const best = trialOf(report, report.best);
  return el(
    "section", { class: "card verdict", "aria-label": "Verdict" },
    el("h2", {}, report.verdict ? "Verdict" : UNDER_WAY.includes(view.row.state) ? "So far" : "Answer"),
    el("p", { class: "sentence" }, sentence),
    notes.map((note) => el("p", { class: "soft" }, note)),
    best ? el("div", { class: "figures" },
      figure(title(objective.name), measured(best.objectives[objective.name], objective.name), `trial ${best.number}`),
      known(gain) && report.best !== report.baseline ? figure("gain over the defaults", percent(gain), report.gain_interval ? `${report.verdict.confidence * 100} % CI ${span(...report.gain_interval)}` : "measured once", gain > 0 ? "better" : "worse") : null,
      ...report.study.objectives.slice(1).map(({ name }) => figure(title(name), measured(best.objectives[name], name), known(report.gain[name]) ? percent(report.gain[name]) : "")),
      Object.keys(report.study.bounds).length ? figure("SLO", el("span", { class: "slos" }, sloBadges(best, report.study.bounds)), "") : null) : null,
  );
}

const figure = (name, value, under, kind = "") => el("div", { class: "figure" }, el("span", { class: "soft" }, name), el("strong", { class: kind }, value), el("span", { class: "soft" }, under));

/** The server's sentence; without finals, what was measured once. */
function statement(report) {
  if (report.statement) return [report.statement.sentence, report.statement.notes ?? []];
  if (report.verdict) return [report.verdict.statement, []];
  const best = trialOf(report, report.best);
  const names = report.study.objectives.map((each) => each.name);
  const running = UNDER_WAY.includes(report.standing) ? " so far" : "";
  if (!best) return [report.trials.some((trial) => trial.state === "COMPLETE") ? `No trial met every constraint${running}.` : `No trial was measured${running}.`, []];
  const gained = (name) => (best.number !== report.baseline && known(report.gain[name]) ? ` (${percent(report.gain[name])} on the defaults)` : "");
  const values = listed(names.map((name) => `${measured(best.objectives[name], name)} ${title(name)}${gained(name)}`));
  if (best.number === report.baseline) return [`Nothing tried${running} beats the defaults: ${values}.`, []];
  return [
    `Trial ${best.number} reaches${running} ${values}.`,
    known(report.gain[names[0]]) ? ["Both were measured once: the spread of repeated runs is not in this figure."] : [],
  ];
}

function bestCard(view, best, exported) {
  const { report } = view;
  const baseline = trialOf(report, report.baseline);
  const fixed = report.study.spec.engine.arguments ?? {};
  return el(
    "section", { class: "card", "aria-labelledby": "best" },
    el("header", {}, el("h2", { id: "best" }, best.number === report.baseline ? "Best configuration: the defaults" : "Best configuration"),
      el("div", { class: "actions" }, linkButton(`Trial ${best.number}`, `#/${path("studies", view.name, "trials", best.number)}`, { icon: "chevron", kind: "quiet" }))),
    parameterList(best.parameters, { marked: baseline ? differences(best.parameters, baseline.parameters).map((each) => each.name) : [] }),
    Object.keys(fixed).length ? el("p", { class: "soft" }, "Fixed in every trial: ", parameterList(fixed)) : null,
    best.why ? el("p", { class: "because" }, best.why) : null,
    exported(best.number),
  );
}

/** The launch of the best in the words of a shell, Docker, Compose, Kubernetes; to be copied. */
function launchExport(view) {
  let form = "command";
  return (trial) => {
    const shown = el("div", { class: "export" });
    const what = (format) => text(`${path("studies", view.name)}/export`, { format, trial });
    const draw = async () => {
      for (const each of tabs.children) each.setAttribute("aria-pressed", String(each.dataset.form === form));
      try {
        const said = (await what(form)).trimEnd();
        if (!view.signal.aborted) fill(shown, code(byLines(said), { label: `Copy the ${EXPORTS[form].toLowerCase()}`, copy: said }));
      } catch (error) {
        if (!view.signal.aborted) fill(shown, el("p", { class: "note" }, error.detail || error.message));
      }
    };
    const tabs = el("div", { class: "segments", role: "group", "aria-label": "Form of the launch" }, Object.entries(EXPORTS).map(([key, label]) =>
      button(label, { "data-form": key, "aria-pressed": "false", onClick: () => ((form = key), draw()) })));
    draw();
    return [el("div", { class: "export-head" }, tabs), shown];
  };
}

/** A long line of a shell as several; what is copied stays as it was. */
const byLines = (said) => (said.includes("\n") ? said : said.replaceAll(/ (?=--)/g, " \\\n  "));

/* The finals */

function finals(view) {
  const node = el("section", { class: "card flush", "aria-label": "Finals" });
  return part(node, () => {
    const { report } = view;
    const found = report.verdict;
    node.hidden = !found;
    if (!found) return;
    const { name } = report.study.objectives[0];
    const confidence = `${Number((found.confidence * 100).toPrecision(4))} % CI`;
    const limits = found.standings.flatMap((each) => [each.low, each.high, 0]).filter(known);
    const reach = [Math.min(...limits), Math.max(...limits)];
    fill(
      node,
      el("header", {}, el("h2", {}, "Finals"), el("span", { class: "soft" }, `${counted(found.rounds, "round")}, ${counted(found.launches, "launch")}: candidates launched again in turns. All intervals hold together at ${confidence.replace(" CI", "")}.`)),
      table({
        caption: "Finals", rows: found.standings,
        rowProperties: (each) => ({ class: each.candidate === report.best ? "best" : null }),
        columns: [
          { key: "candidate", title: "Candidate", heads: true, cell: (each) => [el("a", { href: `#/${path("studies", view.name, "trials", each.candidate)}` }, each.candidate === report.baseline ? "the defaults" : `trial ${each.candidate}`), " ", each.candidate === found.winner ? badge("★ winner", "best") : null] },
          { key: "repeats", title: "Launches", number: true },
          { key: "value", title: title(name), number: true, cell: (each) => measured(each.value, name) },
          { key: "gain", title: `Gain, ${confidence}`, number: true, cell: (each) => (each.candidate === found.reference ? "reference" : [percent(each.gain), known(each.low) ? el("small", {}, span(each.low, each.high)) : null]) },
          { key: "interval", title: "Interval", cell: (each) => (known(each.low) ? interval(each, reach) : "") },
          { key: "told", title: "Told apart", cell: (each) => apart(each, found.reference) },
        ],
      }),
    );
  });
}

function apart(each, reference) {
  if (each.out) return `out: ${each.out}`;
  if (each.candidate === reference) return "reference";
  if (!known(each.gain)) return "not compared yet";
  if (!each.separated) return "not told apart";
  return each.gain > 0 ? "better" : "worse";
}

const SVG = "http://www.w3.org/2000/svg";

/** A confidence interval as a line over zero; the numbers stand beside it. */
function interval(each, [least, most]) {
  const place = (value) => 4 + (152 * (value - least)) / (most - least || 1);
  const svg = document.createElementNS(SVG, "svg");
  for (const [key, value] of Object.entries({ class: "interval", viewBox: "0 0 160 16", width: "160", height: "16", "aria-hidden": "true" })) svg.setAttribute(key, value);
  const draw = (kind, d) => {
    const line = document.createElementNS(SVG, "path");
    line.setAttribute("class", kind);
    line.setAttribute("d", d);
    svg.append(line);
  };
  draw("zero", `M${place(0)} 0V16`);
  draw("reach", `M${place(each.low)} 8H${place(each.high)}M${place(each.low)} 4V12M${place(each.high)} 4V12`);
  draw("middle", `M${place(each.gain)} 3.5l4 4.5-4 4.5-4-4.5z`);
  return svg;
}

/* What was asked */

function asked(view) {
  const node = el("section", { class: "card", "aria-labelledby": "asked" });
  const log = details("Log of the study");
  const lines = el("pre", { class: "log", tabindex: "0", role: "region", "aria-label": "Log of the study" });
  log.append(lines);
  const readLog = () => log.open && text(`${path("studies", view.name)}/logs`, { follow: "false", tail: 300 }).then((said) => (lines.textContent = said || "Nothing has been said yet.")).catch((error) => (lines.textContent = error.detail || error.message));
  log.addEventListener("toggle", readLog);
  const yaml = details("As a study file");
  const whole = el("div");
  yaml.append(whole);
  const drawn = part(whole, () => fill(whole, code(view.row.yaml ?? "", { label: "Copy the study file" })));
  const facts = el("div");
  const drawFacts = () => {
    const { study } = view.report;
    fill(facts, terms({
      "model": study.model,
      "engine": `${engineName(study.engine)}${study.engine_version ? ` ${study.engine_version}` : ""}`,
      "backend": study.backend,
      "search": study.search,
      "objectives": study.objectives.map((each) => `${title(each.name)} (${each.better} is better)`).join(", "),
      "constraints": study.constraints.join(", ") + (study.slo_mode ? ` · ${study.slo_mode}` : ""),
      "load points": study.loads.join(", "),
      "created": moment(study.created_at),
      "ended": study.ended_at ? moment(study.ended_at) : null,
      "files": study.directory ? el("code", {}, study.directory) : null,
    }));
  };
  drawFacts();
  node.append(
    el("header", {}, el("h2", { id: "asked" }, "What was asked"), el("div", { class: "actions" },
      copyButton("Copy the study file", () => view.row.yaml, { kind: "quiet" }),
      linkButton("Timeline", `#/timeline?study=${encodeURIComponent(view.name)}`, { icon: "timeline", kind: "quiet" }),
      button("Report as one page", { icon: "download", kind: "quiet", onClick: () => attempt(() => openReport(view)) }))),
    facts, yaml, log,
  );
  return { node, update: () => (drawFacts(), drawn.update(), readLog()) };
}

async function openReport(view) {
  const page = await text(`${path("studies", view.name)}/report`, { format: "html" });
  const link = el("a", { href: URL.createObjectURL(new Blob([page], { type: "text/html" })), download: `${view.name}.html` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
