/** Parameters and objectives as parallel coordinates. */

import { chart, faded } from "./charts.js";
import { pointed, scaleOf, searched, section } from "./marks.js";
import { betterOf, known, valueText } from "./ui.js";

/** Every trial as a line through its parameters to its objectives; drag along an axis to choose. */
export function parallelChart(view) {
  const drawn = chart({
    heading: "Parameters and objectives",
    signal: view.signal,
    height: 340,
    broad: true,
    caption:
      "A line is a trial, the best is green. Drag along an axis to keep only the lines through there; click the axis to let go.",
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

const parallelTrials = (report) =>
  searched(report).filter(
    (trial) =>
      trial.number !== report.baseline && report.study.objectives.some(({ name }) => known(trial.objectives[name])),
  );

function parallelOption(now, view) {
  const { report } = view;
  const trials = parallelTrials(report);
  const names = varied(report);
  const objectives = report.study.objectives.map((each) => each.name);
  const text = (trial, name) => (name in trial.parameters ? valueText(trial.parameters[name]) : "default");
  const room = names.length + objectives.length > 7 ? 14 : 24;
  const label = (said) => (said.length > room ? `${said.slice(0, room - 1)}…` : said);
  const style = {
    nameTextStyle: { color: now.ink, fontSize: 11 },
    axisLabel: {
      color: now.ink,
      fontSize: 11,
      formatter: label,
      backgroundColor: faded(now.card, 0.85),
      padding: [1, 3],
      borderRadius: 2,
    },
    axisLine: { lineStyle: { color: now.strongEdge } },
    axisTick: { show: false },
  };
  const parallelAxis = [...names, ...objectives].map((name, dim) => {
    const shown =
      dim < names.length
        ? label(name.replace(/^.*:/, ""))
        : scaleOf(
            name,
            trials.map((trial) => trial.objectives[name]),
          ).name;
    if (dim >= names.length)
      return {
        dim,
        name: shown,
        type: "value",
        scale: true,
        ...style,
        axisLabel: {
          ...style.axisLabel,
          formatter: scaleOf(
            name,
            trials.map((trial) => trial.objectives[name]),
          ).format,
        },
      };
    const values = [...new Set(trials.map((trial) => text(trial, name)))].sort((one, other) =>
      one.localeCompare(other, "en", { numeric: true }),
    );
    return {
      dim,
      name: shown,
      type: "category",
      data: values,
      ...style,
      axisLabel: { ...style.axisLabel, interval: values.length > 12 ? "auto" : 0 },
    };
  });
  const line = (trial) => [
    ...names.map((name) => text(trial, name)),
    ...objectives.map((name) => trial.objectives[name] ?? null),
  ];
  const rest = trials.filter((trial) => trial.number !== report.best);
  const best = trials.filter((trial) => trial.number === report.best);
  const [first] = objectives;
  const values = rest.map((trial) => trial.objectives[first]).filter(known);
  const tone = tones(now, values, betterOf(first));
  return {
    parallel: {
      left: Math.max(30, 8 + 3.4 * parallelAxis[0].name.length), // half of the first name, over its axis
      right: 70, // labels of an objective stand to the right of its axis
      top: 40,
      bottom: 16,
      parallelAxisDefault: { nameLocation: "end", nameGap: 14 },
    },
    parallelAxis,
    tooltip: pointed(view),
    series: [
      {
        name: "trials",
        type: "parallel",
        lineStyle: { width: 1.3, opacity: 0.7 },
        data: rest.map((trial) => ({ value: line(trial), trial, lineStyle: { color: tone(trial.objectives[first]) } })),
      },
      {
        name: "best",
        type: "parallel",
        z: 5,
        lineStyle: { width: 3, opacity: 1, color: now.good },
        data: best.map((trial) => ({ value: line(trial), trial })),
      },
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
