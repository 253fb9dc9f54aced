/**
 * The charts of a study, each a function of the view: {report, signal, name}. Every one returns
 * {node, update()}, and hides itself while there is nothing to draw.
 */

import { axis, chart, legend, tip } from "./charts.js";
import {
  GRID,
  ended,
  guide,
  marks,
  open,
  plainRole,
  pointed,
  roleOf,
  rolesOf,
  scaleOf,
  searched,
  section,
  trialLink,
  trialOf,
} from "./marks.js";
import {
  betterOf,
  counted,
  differenceLines,
  field,
  known,
  measured,
  parametersText,
  percent,
  quantity,
  select,
  title,
} from "./ui.js";

/** One objective, trial after trial, with the best so far and the baseline's value. */
export function progressChart(view) {
  const names = () => view.report.study.objectives.map((each) => each.name);
  let chosen = names()[0];
  const drawn = chart({
    heading: "Objective, trial after trial",
    controls: several(names(), (name) => ((chosen = name), drawn.update())),
    signal: view.signal,
    height: 340,
    caption:
      "The line is the best so far, the dashed one the baseline's value. Point at a trial for what it sets otherwise than the best; open it with a click.",
    onClick: open(view),
    option: (now) => progressOption(now, view, chosen),
    table: () => ({
      columns: [
        numbered(view),
        { key: "state", title: "state", cell: (trial) => trial.state.toLowerCase() },
        valued("value", title(chosen), chosen, (trial) => trial.objectives[chosen]),
        { key: "parameters", title: "otherwise than the best", cell: (trial) => otherwise(view.report, trial) },
      ],
      rows: searched(view.report).filter(ended),
    }),
  });
  return section(() => searched(view.report).some(ended), drawn);
}

/** A choice of one of several objectives; nothing where there is nothing to choose. */
const several = (names, onChange) =>
  names.length > 1 ? [field("Objective", choiceOf(names, names[0], onChange), { hidden: true })] : [];

const choiceOf = (names, chosen, onChange) =>
  select(
    names.map((name) => [name, title(name)]),
    chosen,
    { onChange },
  );

/** Columns of the tables below the charts. */
const numbered = (view, cell = (trial) => trial) => ({
  key: "number",
  title: "trial",
  heads: true,
  cell: (row) => trialLink(view, cell(row)),
});
const valued = (key, heading, metric, value) => ({
  key,
  title: heading,
  number: true,
  cell: (row) => measured(value(row), metric),
});

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
  const last = trials.at(-1)?.number ?? 1;
  const record = bestSoFar(trials, metric);
  if (record.length > 1) {
    const data = [...record, [trials.at(-1).number, record.at(-1)[1]]];
    series.push({ ...guide("best so far", data, { color: now.good, z: 1 }), step: "end" });
  }
  const baseline = trialOf(report, report.baseline)?.objectives[metric];
  if (known(baseline)) {
    const level = [0, last].map((number) => [number, baseline]);
    series.push(guide("baseline's value", level, { color: now.ink, type: "dashed", width: 1.2, z: 1 }));
  }
  return {
    legend: legend(now, rolesOf(series)),
    tooltip: pointed(view),
    grid: GRID,
    xAxis: axis(now, {
      name: "trial",
      min: Math.min(-0.5, -last / 60),
      max: last + Math.max(0.5, last / 60),
      minInterval: 1,
      splitLine: { show: false },
      axisLabel: { color: now.soft, formatter: (value) => (Number.isInteger(value) ? value : "") },
    }),
    yAxis: axis(now, {
      vertical: true,
      ...scaleOf(metric, values.length ? values : [0, 1]),
      type: "value",
      min: undefined,
      max: undefined,
    }),
    series,
  };
}

function bestSoFar(trials, metric) {
  const better = betterOf(metric) === "higher" ? Math.max : Math.min;
  const record = [];
  for (const trial of trials) {
    const value = trial.objectives[metric];
    if (trial.feasible && known(value))
      record.push([trial.number, record.length ? better(value, record.at(-1)[1]) : value]);
  }
  return record;
}

/** Two objectives against each other; the front is a line where there are only two. */
export function frontChart(view) {
  const names = view.report.study.objectives.map((each) => each.name);
  if (names.length < 2) return null;
  const axes = { x: names[1], y: names[0] };
  const pick = (side) =>
    field(
      side,
      choiceOf(names, axes[side], (name) => ((axes[side] = name), drawn.update())),
    );
  const drawn = chart({
    heading: "Pareto front",
    controls: names.length > 2 ? [pick("x"), pick("y")] : [],
    signal: view.signal,
    height: 340,
    caption: "On the front no other trial is better in every objective. The best goes by the first of them.",
    onClick: open(view),
    option: (now) => frontOption(now, view, axes, names.length === 2),
    table: () => ({
      columns: [
        numbered(view),
        ...names.map((name) => valued(name, title(name), name, (trial) => trial.objectives[name])),
        { key: "parameters", title: "parameters", cell: (trial) => parametersText(trial.parameters) },
      ],
      rows: view.report.front.map((number) => trialOf(view.report, number)),
    }),
  });
  return section(
    () => searched(view.report).some((trial) => names.every((name) => known(trial.objectives[name]))),
    drawn,
  );
}

function frontOption(now, view, axes, joined) {
  const { report } = view;
  const at = (trial) => [trial.objectives[axes.x], trial.objectives[axes.y]];
  const points = searched(report)
    .map((trial) => ({ trial, role: roleOf(report, trial), value: at(trial) }))
    .filter(({ value }) => value.every(known));
  const series = marks(now, report, points);
  const front = report.front
    .map((number) => at(trialOf(report, number)))
    .filter((value) => value.every(known))
    .sort(([one], [other]) => one - other);
  if (joined && front.length > 1) {
    series.push(guide("front", front, { color: now.accent }));
  }
  const scale = (side, metric) =>
    scaleOf(
      metric,
      points.map(({ value }) => value[side]),
    );
  return {
    legend: legend(now, rolesOf(series)),
    tooltip: pointed(view),
    grid: GRID,
    xAxis: axis(now, scale(0, axes.x)),
    yAxis: axis(now, { vertical: true, ...scale(1, axes.y) }),
    series,
  };
}

/** How much of the first objective's spread each parameter explains. */
export function importanceChart(view) {
  const shares = () =>
    Object.entries(view.report.importance ?? {})
      .filter(([, share]) => known(share))
      .sort(([, one], [, other]) => other - one);
  const height = Math.max(140, 30 * shares().length + 50);
  const drawn = chart({
    heading: `What moves ${title(view.report.study.objectives[0].name)}`,
    signal: view.signal,
    height,
    caption: "Share of the differences between the trials that a parameter explains; a guess from few trials.",
    option: (now) => ({
      grid: { left: 8, right: 56, top: 8, bottom: 8, containLabel: true },
      tooltip: { formatter: ({ name, value }) => tip(name, [["share", quantity(value, "share")]]) },
      xAxis: { ...axis(now, { format: (value) => quantity(value, "share") }), min: 0, show: false },
      yAxis: {
        ...axis(now, { type: "category" }),
        inverse: true,
        data: shares().map(([name]) => name),
        axisLine: { show: false },
        axisLabel: { color: now.ink, width: 200, overflow: "truncate" },
      },
      series: [
        {
          type: "bar",
          data: shares().map(([, share]) => share),
          barMaxWidth: 16,
          itemStyle: { color: now.accent, borderRadius: [0, 3, 3, 0] },
          label: { show: true, position: "right", color: now.soft, formatter: ({ value }) => quantity(value, "share") },
        },
      ],
    }),
    table: () => ({
      columns: [
        { key: "name", title: "parameter", heads: true, cell: ([name]) => name },
        { key: "share", title: "share", number: true, cell: ([, share]) => quantity(share, "share") },
      ],
      rows: shares(),
    }),
  });
  return section(() => shares().length > 0, drawn);
}

/** An objective as it was predicted and as it was measured. */
export function predictionChart(view) {
  const names = () =>
    view.report.study.objectives.map((each) => each.name).filter((name) => pairs(view.report, name).length);
  let chosen = null;
  const metric = () => (names().includes(chosen) ? chosen : names()[0]);
  const accuracy = () =>
    Object.entries(view.report.accuracy ?? {})
      .map(([name, each]) => accuracyLine(name, each))
      .join("; ");
  const drawn = chart({
    heading: "Predicted and measured",
    controls: several(names(), (name) => ((chosen = name), drawn.update())),
    signal: view.signal,
    height: 320,
    caption: accuracy(),
    onClick: open(view),
    option: (now) => (metric() ? predictionOption(now, view, metric()) : {}),
    table: () => ({
      columns: [
        numbered(view, ({ trial }) => trial),
        valued("said", "predicted", metric(), ({ said }) => said),
        valued("found", "measured", metric(), ({ found }) => found),
      ],
      rows: metric() ? pairs(view.report, metric()) : [],
    }),
  });
  return section(() => names().length > 0, { ...drawn, update: () => (drawn.say(accuracy()), drawn.update()) });
}

const pairs = (report, name) =>
  searched(report)
    .map((trial) => ({ trial, said: trial.predicted[name], found: trial.objectives[name] }))
    .filter(({ said, found }) => known(said) && known(found));

function predictionOption(now, view, metric) {
  const { report } = view;
  const points = pairs(report, metric).map(({ trial, said, found }) => ({
    trial,
    role: plainRole(report, trial),
    value: [said, found],
  }));
  const both = points.flatMap(({ value }) => value);
  const [least, most] = [Math.min(...both), Math.max(...both)];
  const room = (most - least) * 0.05 || most * 0.05;
  const series = marks(now, report, points);
  const diagonal = [Math.max(0, least - room), most + room].map((value) => [value, value]);
  series.push(guide("as predicted", diagonal, { color: now.soft, type: "dashed", width: 1, z: 1 }));
  const { name, format } = scaleOf(metric, both);
  const reach = {
    min: Math.max(least - room, least < 0 ? -Infinity : 0),
    max: most + room,
    axisLabel: { color: now.soft, showMinLabel: false, showMaxLabel: false, hideOverlap: true, formatter: format },
  };
  return {
    legend: legend(now, rolesOf(series)),
    tooltip: pointed(view),
    grid: GRID,
    xAxis: axis(now, { name: `predicted ${name}`, ...reach }),
    yAxis: axis(now, { name: `measured ${name}`, vertical: true, ...reach }),
    series,
  };
}

function accuracyLine(name, each) {
  const parts = [`${title(name)}: ${counted(each.trials, "trial")}`];
  if (known(each.error)) parts.push(`off by ${percent(each.error).replace("+", "")} (median)`);
  if (known(each.rank_correlation))
    parts.push(`rank correlation ${each.rank_correlation.toFixed(2).replace("-", "−")}`);
  return parts.join(", ");
}
