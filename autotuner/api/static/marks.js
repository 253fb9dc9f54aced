/**
 * How trials and load points look in every chart: a role, a mark, a tooltip, an axis.
 *
 * A trial has one role everywhere: the best is a green star, the baseline a dark diamond, what is
 * on the Pareto front a filled accent, what broke a bound hollow, what has no value a cross.
 */

import { path } from "./api.js";
import { CROSS, STAR, tip } from "./charts.js";
import { SEEN, betterOf, differenceLines, el, known, measured, percent, title, unitOf, valueText } from "./ui.js";

export const USER = "user_throughput";

/** The trials that were launched for the search; repeats for the verdict are apart. */
export const searched = (report) => report.trials.filter((trial) => trial.searched && !trial.refused);

/** A trial by its number. */
export const trialOf = (report, number) => report.trials.find((trial) => trial.number === number);

export const ended = (trial) => !["PENDING", "DEPLOYING", "BENCHMARKING"].includes(trial.state);

export function roleOf(report, trial) {
  if (trial.number === report.best) return "best";
  if (trial.number === report.baseline) return "baseline";
  if (report.study.objectives.length > 1 && report.front.includes(trial.number)) return "front";
  return trial.feasible ? "other" : "unfit";
}

/** The role where there is no front to be on. */
export function plainRole(report, trial) {
  const role = roleOf(report, trial);
  return role === "front" ? "other" : role;
}

/** Room around a chart with axes and a legend. */
export const GRID = { left: 8, right: 20, top: 58, bottom: 30, containLabel: true };

/** The series that the legend names: the roles, not the lines. */
export const rolesOf = (series) =>
  series.map(({ name }) => name).filter((name) => Object.values(ROLE_NAMES).includes(name));

const ROLE_NAMES = {
  best: "best",
  baseline: "baseline",
  front: "on the front",
  other: "other trials",
  unfit: "not feasible",
  lost: "no value",
};

function look(now, role) {
  return {
    best: { symbol: STAR, symbolSize: 18, itemStyle: { color: now.good } },
    baseline: { symbol: "diamond", symbolSize: 13, itemStyle: { color: now.ink } },
    front: { symbol: "circle", symbolSize: 10, itemStyle: { color: now.accent } },
    other: { symbol: "circle", symbolSize: 8, itemStyle: { color: now.mark } },
    unfit: {
      symbol: "circle",
      symbolSize: 8,
      itemStyle: { color: "transparent", borderColor: now.warn, borderWidth: 1.6 },
    },
    lost: { symbol: CROSS, symbolSize: 9, itemStyle: { color: now.bad } },
  }[role];
}

/**
 * Marks by role, as series that the legend names. `points`: {value, role, trial, point}, the value
 * as ECharts takes it.
 */
export function marks(now, report, points) {
  const byRole = Object.groupBy(points, (each) => each.role);
  return Object.keys(ROLE_NAMES)
    .filter((role) => byRole[role])
    .map((role) => ({
      name: ROLE_NAMES[role],
      type: "scatter",
      z: { best: 6, baseline: 5, front: 4 }[role] ?? 3,
      ...look(now, role),
      emphasis: { scale: 1.4 },
      data: byRole[role].map((each) => ({ value: each.value, trial: each.trial, point: each.point })),
    }));
}

/** A line between marks, without marks of its own; the pointer does not find it. */
export const guide = (name, data, { color, type = "solid", width = 1.6, z = 2 }) => ({
  name,
  type: "line",
  data,
  showSymbol: false,
  silent: true,
  z,
  lineStyle: { color, type, width },
  itemStyle: { color },
});

/**
 * What a pointer on a trial tells: its values, and what it sets otherwise than the best; of a
 * load point those `metrics`.
 */
export function trialTip(report, trial, point = null, metrics = []) {
  const role = trial.number === report.best ? ", best" : trial.number === report.baseline ? ", baseline" : "";
  const values = point
    ? metrics.map((name) => [axisName(name), measured(numberOf(point, name), name)])
    : Object.entries(trial.objectives).map(([name, value]) => [title(name), measured(value, name)]);
  const best = trialOf(report, report.best);
  const lines =
    !best || best === trial
      ? Object.entries(trial.parameters).map(([name, value]) => `${name}: ${valueText(value)}`)
      : differenceLines(trial.parameters, best.parameters);
  const gain = best && best !== trial && !point ? against(report, trial, best) : null;
  return tip(
    `Trial ${trial.number}${role}${trial.state === "COMPLETE" ? "" : `, ${trial.state.toLowerCase()}`}`,
    [
      ...(point ? [["load point", point.name]] : []),
      ...values.filter(([, value]) => value !== "–"),
      ...(gain ? [["to the best", gain]] : []),
    ],
    [...lines, ...(trial.reason ? [trial.reason.split("\n")[0].slice(0, 160)] : [])],
  );
}

/** How far a trial is from the best in the first objective, as it was measured. */
function against(report, trial, best) {
  const { name } = report.study.objectives[0];
  const [value, reference] = [trial.objectives[name], best.objectives[name]];
  return known(value) && known(reference) && reference !== 0 ? percent(value / reference - 1) : null;
}

/** The tooltip of marks; see `trialTip`. */
export const pointed = (view, metrics) => ({
  trigger: "item",
  formatter: ({ data }) => (data?.trial ? trialTip(view.report, data.trial, data.point, metrics) : ""),
});
/** What a click on a mark does. */
export const open =
  (view) =>
  ({ data }) =>
    data?.trial && (location.hash = `#/${path("studies", view.name, "trials", data.trial.number)}`);

/**
 * The name, the labels and the kind of an axis for a metric with these values: one unit for all
 * of them, a logarithm where they span much.
 */
export function scaleOf(metric, values) {
  const numbers = values.filter(known);
  const [least, most] = [Math.min(...numbers), Math.max(...numbers)];
  const own = metric === USER ? "tok/s/user" : unitOf(metric);
  const [unit, factor] = own === "share" ? ["%", 100] : own === "s" && most < 1 ? ["ms", 1000] : [own, 1];
  const label = (value) => {
    const shown = value * factor;
    return Math.abs(shown) >= 10_000
      ? `${Number((shown / 1000).toPrecision(4))}k`
      : String(Number(shown.toPrecision(4))).replace("-", "−");
  };
  const log = least > 0 && most / least > 100;
  return {
    name: `${axisName(metric)}${unit ? ` (${unit})` : ""}${metric === "concurrency" || SEEN[metric] ? "" : betterOf(metric) === "higher" ? " ↑" : " ↓"}`,
    format: label,
    ...(log
      ? { type: "log", logBase: metric === "concurrency" ? 2 : 10, min: least / 1.2, max: most * 1.2, bounded: true }
      : { type: "value" }),
  };
}

export const axisName = (name) => ({ [USER]: "tokens per user", concurrency: "concurrency" })[name] ?? title(name);

export const trialLink = (view, trial) =>
  el("a", { href: `#/${path("studies", view.name, "trials", trial.number)}` }, String(trial.number));

/** A chart that hides while `worth()` is false. */
export function section(worth, drawn) {
  const show = () => (drawn.node.hidden = !worth());
  show();
  return {
    node: drawn.node,
    update() {
      show();
      return drawn.node.hidden ? null : drawn.update();
    },
  };
}

/** A load point's number under a name that the axes offer. */
export function numberOf(point, name) {
  if (name === "concurrency") return point.concurrency;
  if (name === USER)
    return known(point.metrics.output_throughput) ? point.metrics.output_throughput / point.concurrency : null;
  return point.metrics[name] ?? point.telemetry?.[name];
}
