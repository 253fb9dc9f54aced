/** What a study found: what may be said, what to serve with, and how the finals went. */

import { path, text } from "./api.js";
import { code } from "./dialogs.js";
import { trialOf } from "./marks.js";
import { sloBadges } from "./study_trials.js";
import { table } from "./tables.js";
import {
  UNDER_WAY,
  badge,
  button,
  counted,
  differences,
  el,
  fill,
  known,
  linkButton,
  measured,
  parameterList,
  part,
  percent,
  prose,
  span,
  title,
} from "./ui.js";

const EXPORTS = { command: "Command", docker: "Docker", compose: "Compose", ome: "OME", args: "Arguments" };

/** The answer, and the configuration to serve with. */
export function answer(view) {
  const node = el("div", { class: "grid answer" });
  const exported = launchExport(view);
  let drawn = null;
  return part(node, () => {
    const { report } = view;
    const now = JSON.stringify([
      report.best,
      report.verdict,
      report.gain,
      report.statement,
      view.row.state,
      report.counts,
    ]);
    if (drawn === now) return;
    drawn = now;
    const best = trialOf(report, report.best);
    node.hidden = !report.trials.length;
    fill(node, said(view), best ? bestCard(view, best, exported) : null);
  });
}

function said(view) {
  const { report } = view;
  const { sentence, notes } = report.statement;
  const objective = report.study.objectives[0];
  const gain = report.gain[objective.name];
  const best = trialOf(report, report.best);
  return el(
    "section",
    { class: "card verdict", "aria-label": "Verdict" },
    el("h2", {}, report.verdict ? "Verdict" : UNDER_WAY.includes(view.row.state) ? "So far" : "Answer"),
    el("p", { class: "sentence" }, sentence),
    notes.map((note) => el("p", { class: "soft" }, note)),
    best
      ? el(
          "div",
          { class: "figures" },
          figure(
            title(objective.name),
            measured(valueOf(report, best), objective.name),
            `trial ${best.number}`,
          ),
          known(gain) && report.best !== report.baseline
            ? figure(
                "gain over the defaults",
                percent(gain),
                report.gain_interval
                  ? `${report.verdict.confidence * 100} % CI ${span(...report.gain_interval)}`
                  : "measured once",
                gain > 0 ? "better" : "worse",
              )
            : null,
          ...report.study.objectives
            .slice(1)
            .map(({ name }) =>
              figure(
                title(name),
                measured(best.objectives[name], name),
                known(report.gain[name]) ? percent(report.gain[name]) : "",
              ),
            ),
          Object.keys(report.study.bounds).length
            ? figure("SLO", el("span", { class: "slos" }, sloBadges(best, report.study.bounds)), "")
            : null,
        )
      : null,
  );
}

/** The best's first objective: the mean of its repeats where the gain is that of the repeats. */
function valueOf(report, best) {
  const standing =
    report.verdict?.finding === "gain" && report.verdict.standings.find((each) => each.candidate === best.number);
  return standing ? standing.value : best.objectives[report.study.objectives[0].name];
}

const figure = (name, value, under, kind = "") =>
  el(
    "div",
    { class: "figure" },
    el("span", { class: "soft" }, name),
    el("strong", { class: kind }, value),
    el("span", { class: "soft" }, under),
  );

function bestCard(view, best, exported) {
  const { report } = view;
  const baseline = trialOf(report, report.baseline);
  const fixed = report.study.spec.engine.arguments ?? {};
  return el(
    "section",
    { class: "card", "aria-labelledby": "best" },
    el(
      "header",
      {},
      el(
        "h2",
        { id: "best" },
        best.number === report.baseline ? "Best configuration: the defaults" : "Best configuration",
      ),
      el(
        "div",
        { class: "actions" },
        linkButton(`Trial ${best.number}`, `#/${path("studies", view.name, "trials", best.number)}`, {
          icon: "chevron",
          kind: "quiet",
        }),
      ),
    ),
    parameterList(best.parameters, {
      marked: baseline ? differences(best.parameters, baseline.parameters).map((each) => each.name) : [],
    }),
    Object.keys(fixed).length ? el("p", { class: "soft" }, "Fixed in every trial: ", parameterList(fixed)) : null,
    best.why ? el("p", { class: "because" }, prose(best.why)) : null,
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
        if (!view.signal.aborted)
          fill(shown, code(byLines(said), { label: `Copy the ${EXPORTS[form].toLowerCase()}`, copy: said }));
      } catch (error) {
        if (!view.signal.aborted) fill(shown, el("p", { class: "note" }, error.detail || error.message));
      }
    };
    const tabs = el(
      "div",
      { class: "segments", role: "group", "aria-label": "Form of the launch" },
      Object.entries(EXPORTS).map(([key, label]) =>
        button(label, { "data-form": key, "aria-pressed": "false", onClick: () => ((form = key), draw()) }),
      ),
    );
    draw();
    return [el("div", { class: "export-head" }, tabs), shown];
  };
}

/** A long line of a shell as several; what is copied stays as it was. */
const byLines = (said) => (said.includes("\n") ? said : said.replaceAll(/ (?=--)/g, " \\\n  "));

/** The finals: candidates launched again, with their intervals. */
export function finals(view) {
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
      el(
        "header",
        {},
        el("h2", {}, "Finals"),
        el(
          "span",
          { class: "soft" },
          `${counted(found.rounds, "round")}, ${counted(found.launches, "launch")}: candidates launched again in turns. All intervals hold together at ${confidence.replace(" CI", "")}.`,
        ),
      ),
      table({
        caption: "Finals",
        rows: found.standings,
        rowProperties: (each) => ({ class: each.candidate === report.best ? "best" : null }),
        columns: [
          {
            key: "candidate",
            title: "Candidate",
            heads: true,
            cell: (each) => [
              el(
                "a",
                { href: `#/${path("studies", view.name, "trials", each.candidate)}` },
                each.candidate === report.baseline ? "the defaults" : `trial ${each.candidate}`,
              ),
              " ",
              each.candidate === found.winner ? badge("★ winner", "best") : null,
            ],
          },
          { key: "repeats", title: "Launches", number: true },
          { key: "value", title: title(name), number: true, cell: (each) => measured(each.value, name) },
          {
            key: "gain",
            title: `Gain, ${confidence}`,
            number: true,
            cell: (each) =>
              each.candidate === found.reference
                ? "reference"
                : [
                    percent(each.gain),
                    known(each.low) ? el("small", { class: "nowrap" }, span(each.low, each.high)) : null,
                  ],
          },
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
  for (const [key, value] of Object.entries({
    class: "interval",
    viewBox: "0 0 160 16",
    width: "160",
    height: "16",
    "aria-hidden": "true",
  }))
    svg.setAttribute(key, value);
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
