/**
 * The charts of a study, each a function of the view: {report, signal, name, redraw}. Every one
 * returns {node, update()}, and hides itself while there is nothing to draw.
 *
 * A trial has one role everywhere: the best is a green star, the baseline a dark diamond, what is
 * on the Pareto front a filled accent, what broke a bound hollow, what has no value a cross.
 */

import { path } from "./api.js";
import { CROSS, STAR, axis, chart, faded, legend, tip } from "./charts.js";
import {
  SEEN, betterOf, counted, differenceLines, el, field, kept, known, measured, parametersText, percent, quantity, select, title,
  unitOf, valueText,
} from "./ui.js";

const USER = "user_throughput";

/** The trials that were launched for the search; repeats for the verdict are apart. */
export const searched = (report) => report.trials.filter((trial) => trial.searched && !trial.refused);

export const trialOf = (report, number) => report.trials.find((trial) => trial.number === number);

const ended = (trial) => !["PENDING", "DEPLOYING", "BENCHMARKING"].includes(trial.state);

function roleOf(report, trial) {
  if (trial.number === report.best) return "best";
  if (trial.number === report.baseline) return "baseline";
  if (report.study.objectives.length > 1 && report.front.includes(trial.number)) return "front";
  return trial.feasible ? "other" : "unfit";
}

/** The role where there is no front to be on. */
function plainRole(report, trial) {
  const role = roleOf(report, trial);
  return role === "front" ? "other" : role;
}

const GRID = { left: 8, right: 20, top: 58, bottom: 30, containLabel: true };

const rolesOf = (series) => series.map(({ name }) => name).filter((name) => Object.values(ROLE_NAMES).includes(name));

const ROLE_NAMES = { best: "best", baseline: "baseline", front: "on the front", other: "other trials", unfit: "not feasible", lost: "no value" };

function look(now, role) {
  return {
    best: { symbol: STAR, symbolSize: 18, itemStyle: { color: now.good } },
    baseline: { symbol: "diamond", symbolSize: 13, itemStyle: { color: now.ink } },
    front: { symbol: "circle", symbolSize: 10, itemStyle: { color: now.accent } },
    other: { symbol: "circle", symbolSize: 8, itemStyle: { color: now.mark } },
    unfit: { symbol: "circle", symbolSize: 8, itemStyle: { color: "transparent", borderColor: now.warn, borderWidth: 1.6 } },
    lost: { symbol: CROSS, symbolSize: 9, itemStyle: { color: now.bad } },
  }[role];
}

/** Marks by role, as series that the legend names; `datum(trial)` is ECharts' data. */
function marks(now, report, points) {
  const byRole = Object.groupBy(points, (each) => each.role);
  return Object.keys(ROLE_NAMES).filter((role) => byRole[role]).map((role) => ({
    name: ROLE_NAMES[role], type: "scatter", z: { best: 6, baseline: 5, front: 4 }[role] ?? 3, ...look(now, role),
    emphasis: { scale: 1.4 },
    data: byRole[role].map((each) => ({ value: each.value, trial: each.trial, point: each.point })),
  }));
}

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
  const lines = !best || best === trial
    ? Object.entries(trial.parameters).map(([name, value]) => `${name}: ${valueText(value)}`)
    : differenceLines(trial.parameters, best.parameters);
  const gain = best && best !== trial && !point ? against(report, trial, best) : null;
  return tip(
    `Trial ${trial.number}${role}${trial.state === "COMPLETE" ? "" : `, ${trial.state.toLowerCase()}`}`,
    [...(point ? [["load point", point.name]] : []), ...values.filter(([, value]) => value !== "–"), ...(gain ? [["to the best", gain]] : [])],
    [...lines, ...(trial.reason ? [trial.reason.split("\n")[0].slice(0, 160)] : [])],
  );
}

/** How far a trial is from the best in the first objective, as it was measured. */
function against(report, trial, best) {
  const { name } = report.study.objectives[0];
  const [value, reference] = [trial.objectives[name], best.objectives[name]];
  return known(value) && known(reference) && reference !== 0 ? percent(value / reference - 1) : null;
}

const pointed = (view, metrics) => ({ trigger: "item", formatter: ({ data }) => (data?.trial ? trialTip(view.report, data.trial, data.point, metrics) : "") });
const open = (view) => ({ data }) => data?.trial && (location.hash = `#/${path("studies", view.name, "trials", data.trial.number)}`);

/**
 * The name, the labels and the kind of an axis for a metric with these values: one unit for all
 * of them, a logarithm where they span much.
 */
function scaleOf(metric, values) {
  const numbers = values.filter(known);
  const [least, most] = [Math.min(...numbers), Math.max(...numbers)];
  const own = metric === USER ? "tok/s/user" : unitOf(metric);
  const [unit, factor] = own === "share" ? ["%", 100] : own === "s" && most < 1 ? ["ms", 1000] : [own, 1];
  const label = (value) => {
    const shown = value * factor;
    return Math.abs(shown) >= 10_000 ? `${Number((shown / 1000).toPrecision(4))}k` : String(Number(shown.toPrecision(4))).replace("-", "−");
  };
  const log = least > 0 && most / least > 100;
  return {
    name: `${axisName(metric)}${unit ? ` (${unit})` : ""}${metric === "concurrency" || SEEN[metric] ? "" : betterOf(metric) === "higher" ? " ↑" : " ↓"}`,
    format: label,
    ...(log ? { type: "log", logBase: metric === "concurrency" ? 2 : 10, min: least / 1.2, max: most * 1.2, bounded: true } : { type: "value" }),
  };
}

const axisName = (name) => ({ [USER]: "tokens per user", concurrency: "concurrency" })[name] ?? title(name);

const trialLink = (view, trial) => el("a", { href: `#/${path("studies", view.name, "trials", trial.number)}` }, String(trial.number));

/** A chart that hides while `worth()` is false. */
function section(worth, drawn) {
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

/* 1: objectives over the trials */

/** One objective, trial after trial, with the best so far and the baseline's value. */
export function progressChart(view) {
  const names = () => view.report.study.objectives.map((each) => each.name);
  let chosen = names()[0];
  const choice = names().length > 1 ? [field("Objective", select(names().map((name) => [name, title(name)]), chosen, { onChange: (name) => ((chosen = name), drawn.update()) }), { hidden: true })] : [];
  const drawn = chart({
    heading: "Objective, trial after trial", controls: choice, signal: view.signal, height: 340,
    caption: "The line is the best so far, the dashed one the baseline's value. Point at a trial for what it sets otherwise than the best; open it with a click.",
    onClick: open(view),
    option: (now) => progressOption(now, view, chosen),
    table: () => ({
      columns: [
        { key: "number", title: "trial", heads: true, cell: (trial) => trialLink(view, trial) },
        { key: "state", title: "state", cell: (trial) => trial.state.toLowerCase() },
        { key: "value", title: title(chosen), number: true, cell: (trial) => measured(trial.objectives[chosen], chosen) },
        { key: "parameters", title: "otherwise than the best", cell: (trial) => otherwise(view.report, trial) },
      ],
      rows: searched(view.report).filter(ended),
    }),
  });
  return section(() => searched(view.report).some(ended), drawn);
}

function otherwise(report, trial) {
  const best = trialOf(report, report.best);
  if (trial === best) return "the best";
  return best ? differenceLines(trial.parameters, best.parameters).join("; ") : parametersText(trial.parameters);
}

function progressOption(now, view, metric) {
  const { report } = view;
  const trials = searched(report).filter(ended);
  const values = trials.map((trial) => trial.objectives[metric]).filter(known);
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const floor = values.length ? Math.max(least - (most - least || least) * 0.12, least > 0 ? 0 : -Infinity) : 0;
  const points = trials.map((trial) => {
    const value = trial.objectives[metric];
    return known(value)
      ? { trial, role: plainRole(report, trial), value: [trial.number, value] }
      : { trial, role: "lost", value: [trial.number, floor] };
  });
  const series = marks(now, report, points);
  const record = bestSoFar(trials, metric);
  if (record.length > 1) {
    series.push({
      name: "best so far", type: "line", step: "end", data: [...record, [trials.at(-1).number, record.at(-1)[1]]], showSymbol: false, silent: true,
      z: 1, lineStyle: { color: now.good, width: 1.6 }, itemStyle: { color: now.good },
    });
  }
  const baseline = trialOf(report, report.baseline)?.objectives[metric];
  if (known(baseline)) {
    series.push({
      name: "baseline's value", type: "line", data: [[0, baseline], [trials.at(-1)?.number ?? 1, baseline]], showSymbol: false, silent: true,
      z: 1, lineStyle: { color: now.ink, type: "dashed", width: 1.2 }, itemStyle: { color: now.ink },
    });
  }
  const last = trials.at(-1)?.number ?? 1;
  return {
    legend: legend(now, rolesOf(series)), tooltip: pointed(view), grid: GRID,
    xAxis: axis(now, { name: "trial", min: Math.min(-0.5, -last / 60), max: last + Math.max(0.5, last / 60), minInterval: 1, splitLine: { show: false }, axisLabel: { color: now.soft, formatter: (value) => (Number.isInteger(value) ? value : "") } }),
    yAxis: axis(now, { vertical: true, ...scaleOf(metric, values.length ? values : [0, 1]), type: "value", min: undefined, max: undefined }),
    series,
  };
}

function bestSoFar(trials, metric) {
  const better = betterOf(metric) === "higher" ? Math.max : Math.min;
  const record = [];
  for (const trial of trials) {
    const value = trial.objectives[metric];
    if (trial.feasible && known(value)) record.push([trial.number, record.length ? better(value, record.at(-1)[1]) : value]);
  }
  return record;
}

/* 2: load points, any metric against any other */

/** Every number that load points have, by the names that the axes offer. */
function numbersOf(report) {
  const names = new Set();
  for (const trial of report.trials) {
    for (const point of trial.load_points) {
      for (const [name, value] of Object.entries(point.metrics)) if (known(value)) names.add(name);
      for (const name of Object.keys(SEEN)) if (known(point.telemetry?.[name])) names.add(name);
    }
  }
  return names.size ? [USER, "concurrency", ...[...names].sort()] : [];
}

function numberOf(point, name) {
  if (name === "concurrency") return point.concurrency;
  if (name === USER) return known(point.metrics.output_throughput) ? point.metrics.output_throughput / point.concurrency : null;
  return point.metrics[name] ?? point.telemetry?.[name];
}

/** Load points over two metrics that can be chosen; what is chosen stays in this browser. */
export function loadChart(view) {
  const chosen = kept("axes", {});
  const names = numbersOf(view.report);
  const start = chosen.get();
  const axes = {
    x: names.includes(start.x) ? start.x : USER,
    y: names.includes(start.y) ? start.y : names.includes("output_throughput_per_gpu") ? "output_throughput_per_gpu" : "output_throughput",
  };
  let hovered = null;
  const selects = {};
  const pick = (side) => {
    selects[side] = select(numbersOf(view.report).map((name) => [name, axisName(name)]), axes[side], {
      onChange: (name) => {
        axes[side] = name;
        chosen.set(axes);
        drawn.update();
      },
    });
    return field(side, selects[side]);
  };
  const drawn = chart({
    heading: "Load points", controls: [pick("x"), pick("y")], signal: view.signal, height: 340,
    caption: "A line joins the load points of one trial: the best is green, the baseline dashed, that under the pointer blue.",
    onClick: open(view),
    onHover: (params) => {
      const number = params?.data?.trial?.number ?? null;
      if (number === hovered) return;
      hovered = number;
      drawn.ready.then((instance) => instance?.setOption({ series: [hoveredSeries(view, axes, number)] }));
    },
    option: (now) => loadOption(now, view, axes, hovered),
    table: () => ({
      columns: [
        { key: "trial", title: "trial", heads: true, cell: (row) => trialLink(view, row.trial) },
        { key: "load", title: "load point", cell: (row) => row.point.name },
        { key: "x", title: axisName(axes.x), number: true, cell: (row) => measured(numberOf(row.point, axes.x), axes.x) },
        { key: "y", title: axisName(axes.y), number: true, cell: (row) => measured(numberOf(row.point, axes.y), axes.y) },
      ],
      rows: loadPoints(view.report),
    }),
  });
  const made = section(() => numbersOf(view.report).length > 0, drawn);
  return {
    node: made.node,
    update() {
      const now = numbersOf(view.report);
      if (now.length !== selects.x.options.length) {
        for (const side of ["x", "y"]) selects[side].replaceChildren(...now.map((name) => el("option", { value: name, selected: name === axes[side] }, axisName(name))));
        if (!now.includes(axes.y)) selects.y.value = axes.y = "output_throughput";
      }
      return made.update();
    },
  };
}

const loadPoints = (report) => searched(report).flatMap((trial) => trial.load_points.filter((point) => !point.probe).map((point) => ({ trial, point })));

function lineOf(trial, axes) {
  return trial.load_points
    .filter((point) => !point.probe)
    .map((point) => ({ value: [numberOf(point, axes.x), numberOf(point, axes.y)], point, trial }))
    .filter(({ value }) => value.every(known));
}

let hoverColour = "";

function hoveredSeries(view, axes, number) {
  const trial = number === null ? null : trialOf(view.report, number);
  return {
    id: "hovered", name: "under the pointer", type: "line", z: 8, silent: true, symbol: "circle", symbolSize: 9,
    lineStyle: { color: hoverColour, width: 2 }, itemStyle: { color: hoverColour }, animation: false,
    data: trial ? lineOf(trial, axes).sort(byLoad) : [],
  };
}

const byLoad = (one, other) => one.point.scenario.localeCompare(other.point.scenario) || one.point.concurrency - other.point.concurrency;

function loadOption(now, view, axes, hovered) {
  const { report } = view;
  hoverColour = now.hovered;
  const points = loadPoints(report)
    .map(({ trial, point }) => ({ trial, point, role: plainRole(report, trial), value: [numberOf(point, axes.x), numberOf(point, axes.y)] }))
    .filter(({ value }) => value.every(known));
  const series = marks(now, report, points).map((each) => ({ ...each, symbolSize: Math.min(each.symbolSize, 12) }));
  const lines = [["best", report.best, now.good, "solid"], ["baseline", report.baseline, now.ink, "dashed"]];
  for (const [role, number, colour, type] of lines) {
    const trial = number === null || (role === "baseline" && number === report.best) ? null : trialOf(report, number);
    if (!trial) continue;
    const byScenario = Object.groupBy(lineOf(trial, axes), ({ point }) => point.scenario);
    for (const along of Object.values(byScenario)) {
      series.push({ name: `${role}, line`, type: "line", data: along.sort(byLoad).map(({ value }) => value), showSymbol: false, silent: true, z: 2, lineStyle: { color: colour, type, width: 1.6 }, itemStyle: { color: colour } });
    }
  }
  series.unshift(hoveredSeries(view, axes, hovered));
  const scale = (side, metric) => scaleOf(metric, points.map(({ value }) => value[side]));
  const bound = report.study.bounds[axes.x];
  if (known(bound) && series[1]) {
    series[1].markLine = { silent: true, symbol: "none", lineStyle: { color: now.bad, type: "dotted" }, label: { color: now.bad, formatter: `bound ${measured(bound, axes.x)}`, position: "insideEndTop" }, data: [{ xAxis: bound }] };
  }
  return {
    legend: legend(now, rolesOf(series)), tooltip: pointed(view, [...new Set([axes.x, axes.y, "concurrency"])]), grid: GRID,
    xAxis: axis(now, scale(0, axes.x)),
    yAxis: axis(now, { vertical: true, ...scale(1, axes.y) }),
    series,
  };
}

/* 3: the Pareto front */

/** Two objectives against each other; the front is a line where there are only two. */
export function frontChart(view) {
  const names = view.report.study.objectives.map((each) => each.name);
  if (names.length < 2) return null;
  const axes = { x: names[1], y: names[0] };
  const pick = (side, label) => field(label, select(names.map((name) => [name, title(name)]), axes[side], { onChange: (name) => ((axes[side] = name), drawn.update()) }));
  const drawn = chart({
    heading: "Pareto front", controls: names.length > 2 ? [pick("x", "x"), pick("y", "y")] : [], signal: view.signal, height: 340,
    caption: "On the front no other trial is better in every objective. The best goes by the first of them.",
    onClick: open(view),
    option: (now) => frontOption(now, view, axes, names.length === 2),
    table: () => ({
      columns: [
        { key: "number", title: "trial", heads: true, cell: (trial) => trialLink(view, trial) },
        ...names.map((name) => ({ key: name, title: title(name), number: true, cell: (trial) => measured(trial.objectives[name], name) })),
        { key: "parameters", title: "parameters", cell: (trial) => parametersText(trial.parameters) },
      ],
      rows: view.report.front.map((number) => trialOf(view.report, number)),
    }),
  });
  return section(() => searched(view.report).some((trial) => names.every((name) => known(trial.objectives[name]))), drawn);
}

function frontOption(now, view, axes, joined) {
  const { report } = view;
  const at = (trial) => [trial.objectives[axes.x], trial.objectives[axes.y]];
  const points = searched(report).map((trial) => ({ trial, role: roleOf(report, trial), value: at(trial) })).filter(({ value }) => value.every(known));
  const series = marks(now, report, points);
  const front = report.front.map((number) => at(trialOf(report, number))).filter((value) => value.every(known)).sort(([one], [other]) => one - other);
  if (joined && front.length > 1) {
    series.push({ name: "front", type: "line", data: front, showSymbol: false, silent: true, z: 2, lineStyle: { color: now.accent, width: 1.6 }, itemStyle: { color: now.accent } });
  }
  const scale = (side, metric) => scaleOf(metric, points.map(({ value }) => value[side]));
  return {
    legend: legend(now, rolesOf(series)), tooltip: pointed(view), grid: GRID,
    xAxis: axis(now, scale(0, axes.x)),
    yAxis: axis(now, { vertical: true, ...scale(1, axes.y) }),
    series,
  };
}

/* 4: parallel coordinates */

/** Every trial as a line through its parameters to its objectives; drag along an axis to choose. */
export function parallelChart(view) {
  const drawn = chart({
    heading: "Parameters and objectives", signal: view.signal, height: 340, broad: true,
    caption: "A line is a trial, the best is green. Drag along an axis to keep only the lines through there; click the axis to let go.",
    option: (now) => parallelOption(now, view),
  });
  return section(() => varied(view.report).length > 0 && parallelTrials(view.report).length > 1, drawn);
}

/** Parameters that have more than one value among the trials. */
export function varied(report) {
  const trials = searched(report).filter((trial) => trial.number !== report.baseline);
  const names = [...new Set(trials.flatMap((trial) => Object.keys(trial.parameters)))];
  return names.filter((name) => new Set(trials.map((trial) => valueText(trial.parameters[name] ?? null))).size > 1);
}

const parallelTrials = (report) => searched(report).filter((trial) => trial.number !== report.baseline && report.study.objectives.some(({ name }) => known(trial.objectives[name])));

function parallelOption(now, view) {
  const { report } = view;
  const trials = parallelTrials(report);
  const names = varied(report);
  const objectives = report.study.objectives.map((each) => each.name);
  const text = (trial, name) => (name in trial.parameters ? valueText(trial.parameters[name]) : "default");
  const room = names.length + objectives.length > 7 ? 14 : 24;
  const label = (said) => (said.length > room ? `${said.slice(0, room - 1)}…` : said);
  const style = { nameTextStyle: { color: now.ink, fontSize: 11 }, axisLabel: { color: now.ink, fontSize: 11, formatter: label, backgroundColor: faded(now.card, 0.85), padding: [1, 3], borderRadius: 2 }, axisLine: { lineStyle: { color: now.strongEdge } }, axisTick: { show: false } };
  const parallelAxis = [...names, ...objectives].map((name, dim) => {
    const shown = dim < names.length ? label(name.replace(/^.*:/, "")) : scaleOf(name, trials.map((trial) => trial.objectives[name])).name;
    if (dim >= names.length) return { dim, name: shown, type: "value", scale: true, ...style, axisLabel: { ...style.axisLabel, formatter: scaleOf(name, trials.map((trial) => trial.objectives[name])).format } };
    const values = [...new Set(trials.map((trial) => text(trial, name)))].sort((one, other) => one.localeCompare(other, "en", { numeric: true }));
    return { dim, name: shown, type: "category", data: values, ...style, axisLabel: { ...style.axisLabel, interval: values.length > 12 ? "auto" : 0 } };
  });
  const line = (trial) => [...names.map((name) => text(trial, name)), ...objectives.map((name) => trial.objectives[name] ?? null)];
  const rest = trials.filter((trial) => trial.number !== report.best);
  const best = trials.filter((trial) => trial.number === report.best);
  const [first] = objectives;
  const values = rest.map((trial) => trial.objectives[first]).filter(known);
  const tone = tones(now, values, betterOf(first));
  return {
    parallel: { left: "7%", right: "11%", top: 40, bottom: 16, parallelAxisDefault: { nameLocation: "end", nameGap: 14 } },
    parallelAxis,
    tooltip: pointed(view),
    series: [
      { name: "trials", type: "parallel", lineStyle: { width: 1.3, opacity: 0.7 }, data: rest.map((trial) => ({ value: line(trial), trial, lineStyle: { color: tone(trial.objectives[first]) } })) },
      { name: "best", type: "parallel", z: 5, lineStyle: { width: 3, opacity: 1, color: now.good }, data: best.map((trial) => ({ value: line(trial), trial })) },
    ],
  };
}

/** A colour for a value: the better, the stronger. */
function tones(now, values, better) {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  return (value) => {
    if (!known(value)) return faded(now.mark, 0.3);
    const share = most > least ? (value - least) / (most - least) : 1;
    return faded(now.accent, 0.12 + 0.7 * (better === "higher" ? share : 1 - share));
  };
}

/* 5: importance */

/** How much of the first objective's spread each parameter explains. */
export function importanceChart(view) {
  const shares = () => Object.entries(view.report.importance ?? {}).filter(([, share]) => known(share)).sort(([, one], [, other]) => other - one);
  const height = Math.max(140, 30 * shares().length + 50);
  const drawn = chart({
    heading: `What moves ${title(view.report.study.objectives[0].name)}`, signal: view.signal, height,
    caption: "Share of the differences between the trials that a parameter explains; a guess from few trials.",
    option: (now) => ({
      grid: { left: 8, right: 56, top: 8, bottom: 8, containLabel: true },
      tooltip: { formatter: ({ name, value }) => tip(name, [["share", quantity(value, "share")]]) },
      xAxis: { ...axis(now, { format: (value) => quantity(value, "share") }), min: 0, show: false },
      yAxis: { ...axis(now, { type: "category" }), inverse: true, data: shares().map(([name]) => name), axisLine: { show: false }, axisLabel: { color: now.ink, width: 200, overflow: "truncate" } },
      series: [{ type: "bar", data: shares().map(([, share]) => share), barMaxWidth: 16, itemStyle: { color: now.accent, borderRadius: [0, 3, 3, 0] }, label: { show: true, position: "right", color: now.soft, formatter: ({ value }) => quantity(value, "share") } }],
    }),
    table: () => ({
      columns: [{ key: "name", title: "parameter", heads: true, cell: ([name]) => name }, { key: "share", title: "share", number: true, cell: ([, share]) => quantity(share, "share") }],
      rows: shares(),
    }),
  });
  return section(() => shares().length > 0, drawn);
}

/* 6: predictions */

/** An objective as it was predicted and as it was measured. */
export function predictionChart(view) {
  const names = () => view.report.study.objectives.map((each) => each.name).filter((name) => pairs(view.report, name).length);
  let chosen = null;
  const metric = () => (names().includes(chosen) ? chosen : names()[0]);
  const accuracy = () => Object.entries(view.report.accuracy ?? {}).map(([name, each]) => accuracyLine(name, each)).join("; ");
  const choice = names().length > 1 ? [field("Objective", select(names().map((name) => [name, title(name)]), names()[0], { onChange: (name) => ((chosen = name), drawn.update()) }), { hidden: true })] : [];
  const drawn = chart({
    heading: "Predicted and measured", controls: choice, signal: view.signal, height: 320, caption: accuracy(), onClick: open(view),
    option: (now) => (metric() ? predictionOption(now, view, metric()) : {}),
    table: () => ({
      columns: [
        { key: "number", title: "trial", heads: true, cell: ({ trial }) => trialLink(view, trial) },
        { key: "said", title: "predicted", number: true, cell: ({ said }) => measured(said, metric()) },
        { key: "found", title: "measured", number: true, cell: ({ found }) => measured(found, metric()) },
      ],
      rows: metric() ? pairs(view.report, metric()) : [],
    }),
  });
  return section(() => names().length > 0, { ...drawn, update: () => (drawn.say(accuracy()), drawn.update()) });
}

const pairs = (report, name) => searched(report)
  .map((trial) => ({ trial, said: trial.predicted[name], found: trial.objectives[name] }))
  .filter(({ said, found }) => known(said) && known(found));

function predictionOption(now, view, metric) {
  const { report } = view;
  const points = pairs(report, metric).map(({ trial, said, found }) => ({ trial, role: plainRole(report, trial), value: [said, found] }));
  const both = points.flatMap(({ value }) => value);
  const [least, most] = [Math.min(...both), Math.max(...both)];
  const room = (most - least) * 0.05 || most * 0.05;
  const series = marks(now, report, points);
  series.push({ name: "as predicted", type: "line", data: [[Math.max(0, least - room), Math.max(0, least - room)], [most + room, most + room]], showSymbol: false, silent: true, z: 1, lineStyle: { color: now.soft, type: "dashed", width: 1 }, itemStyle: { color: now.soft } });
  const { name, format } = scaleOf(metric, both);
  const reach = { min: Math.max(least - room, least < 0 ? -Infinity : 0), max: most + room, axisLabel: { color: now.soft, showMinLabel: false, showMaxLabel: false, hideOverlap: true, formatter: format } };
  return {
    legend: legend(now, rolesOf(series)), tooltip: pointed(view), grid: GRID,
    xAxis: axis(now, { name: `predicted ${name}`, ...reach }),
    yAxis: axis(now, { name: `measured ${name}`, vertical: true, ...reach }),
    series,
  };
}

function accuracyLine(name, each) {
  const parts = [`${title(name)}: ${counted(each.trials, "trial")}`];
  if (known(each.error)) parts.push(`off by ${percent(each.error).replace("+", "")} (median)`);
  if (known(each.rank_correlation)) parts.push(`rank correlation ${each.rank_correlation.toFixed(2).replace("-", "−")}`);
  return parts.join(", ");
}
