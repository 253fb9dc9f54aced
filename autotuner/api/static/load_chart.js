/** Load points over two metrics that can be chosen, a line for each trial that matters. */

import { axis, chart, legend, theme } from "./charts.js";
import {
  GRID,
  USER,
  axisName,
  guide,
  marks,
  numberOf,
  open,
  plainRole,
  pointed,
  rolesOf,
  scaleOf,
  searched,
  section,
  trialLink,
  trialOf,
} from "./marks.js";
import { SEEN, el, field, kept, known, measured, select } from "./ui.js";

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

/** Load points over two metrics that can be chosen; what is chosen stays in this browser. */
export function loadChart(view) {
  const chosen = kept("axes", {});
  const names = numbersOf(view.report);
  const start = chosen.get();
  const axes = {
    x: names.includes(start.x) ? start.x : USER,
    y: names.includes(start.y)
      ? start.y
      : names.includes("output_throughput_per_gpu")
        ? "output_throughput_per_gpu"
        : "output_throughput",
  };
  let hovered = null;
  const selects = {};
  const pick = (side) => {
    selects[side] = select(
      numbersOf(view.report).map((name) => [name, axisName(name)]),
      axes[side],
      {
        onChange: (name) => {
          axes[side] = name;
          chosen.set(axes);
          drawn.update();
        },
      },
    );
    return field(side, selects[side]);
  };
  const drawn = chart({
    heading: "Load points",
    controls: [pick("x"), pick("y")],
    signal: view.signal,
    height: 340,
    caption:
      "A line joins the load points of one trial: the best is green, the baseline dashed, that under the pointer blue.",
    onClick: open(view),
    onHover: (params) => {
      const number = params?.data?.trial?.number ?? null;
      if (number === hovered) return;
      hovered = number;
      drawn.ready.then((instance) => instance?.setOption({ series: [hoveredSeries(theme(), view, axes, number)] }));
    },
    option: (now) => loadOption(now, view, axes, hovered),
    table: () => ({
      columns: [
        { key: "trial", title: "trial", heads: true, cell: (row) => trialLink(view, row.trial) },
        { key: "load", title: "load point", cell: (row) => row.point.name },
        {
          key: "x",
          title: axisName(axes.x),
          number: true,
          cell: (row) => measured(numberOf(row.point, axes.x), axes.x),
        },
        {
          key: "y",
          title: axisName(axes.y),
          number: true,
          cell: (row) => measured(numberOf(row.point, axes.y), axes.y),
        },
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
        for (const side of ["x", "y"])
          selects[side].replaceChildren(
            ...now.map((name) => el("option", { value: name, selected: name === axes[side] }, axisName(name))),
          );
        if (!now.includes(axes.y)) selects.y.value = axes.y = "output_throughput";
      }
      return made.update();
    },
  };
}

const loadPoints = (report) =>
  searched(report).flatMap((trial) =>
    trial.load_points.filter((point) => !point.probe).map((point) => ({ trial, point })),
  );

function lineOf(trial, axes) {
  return trial.load_points
    .filter((point) => !point.probe)
    .map((point) => ({ value: [numberOf(point, axes.x), numberOf(point, axes.y)], point, trial }))
    .filter(({ value }) => value.every(known));
}

function hoveredSeries(now, view, axes, number) {
  const trial = number === null ? null : trialOf(view.report, number);
  return {
    id: "hovered",
    name: "under the pointer",
    type: "line",
    z: 8,
    silent: true,
    symbol: "circle",
    symbolSize: 9,
    lineStyle: { color: now.hovered, width: 2 },
    itemStyle: { color: now.hovered },
    animation: false,
    data: trial ? lineOf(trial, axes).sort(byLoad) : [],
  };
}

const byLoad = (one, other) =>
  one.point.scenario.localeCompare(other.point.scenario) || one.point.concurrency - other.point.concurrency;

function loadOption(now, view, axes, hovered) {
  const { report } = view;
  const points = loadPoints(report)
    .map(({ trial, point }) => ({
      trial,
      point,
      role: plainRole(report, trial),
      value: [numberOf(point, axes.x), numberOf(point, axes.y)],
    }))
    .filter(({ value }) => value.every(known));
  const series = marks(now, report, points).map((each) => ({ ...each, symbolSize: Math.min(each.symbolSize, 12) }));
  const lines = [
    ["best", report.best, now.good, "solid"],
    ["baseline", report.baseline, now.ink, "dashed"],
  ];
  for (const [role, number, colour, type] of lines) {
    const trial = number === null || (role === "baseline" && number === report.best) ? null : trialOf(report, number);
    if (!trial) continue;
    const byScenario = Object.groupBy(lineOf(trial, axes), ({ point }) => point.scenario);
    for (const along of Object.values(byScenario)) {
      const data = along.sort(byLoad).map(({ value }) => value);
      series.push(guide(`${role}, line`, data, { color: colour, type }));
    }
  }
  series.unshift(hoveredSeries(now, view, axes, hovered));
  const scale = (side, metric) =>
    scaleOf(
      metric,
      points.map(({ value }) => value[side]),
    );
  const bound = report.study.bounds[axes.x];
  if (known(bound) && series[1]) {
    series[1].markLine = {
      silent: true,
      symbol: "none",
      lineStyle: { color: now.bad, type: "dotted" },
      label: { color: now.bad, formatter: `bound ${measured(bound, axes.x)}`, position: "insideEndTop" },
      data: [{ xAxis: bound }],
    };
  }
  return {
    legend: legend(now, rolesOf(series)),
    tooltip: pointed(view, [...new Set([axes.x, axes.y, "concurrency"])]),
    grid: GRID,
    xAxis: axis(now, scale(0, axes.x)),
    yAxis: axis(now, { vertical: true, ...scale(1, axes.y) }),
    series,
  };
}
