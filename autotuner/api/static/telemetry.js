// What was seen of server, machine and load generator during load points, on one time axis.

import { axis, chart, faded, legend, tip } from "./charts.js";
import { MISSING, duration, el, quantity, select } from "./ui.js";

/** Plots: heading, unit, and the series of each; shares are shown in percent. */
export const PLOTS = [
  ["KV cache", "share", [["kv_usage", "in use"]]],
  [
    "Requests in the server",
    "",
    [
      ["running", "running"],
      ["waiting", "waiting"],
    ],
  ],
  ["Preemptions", "", [["preemptions", "preempted so far"]]],
  ["Prefix cache", "share", [["prefix_hit_rate", "hit rate"]]],
  ["GPU utilisation", "share", [["gpu_utilisation", "computing"]]],
  ["GPU memory in GiB", "GiB", [["gpu_memory_gib", "in use"]]],
  ["GPU power in W", "W", [["gpu_power_w", "power"]]],
  [
    "CPU",
    "share",
    [
      ["host_cpu", "machine"],
      ["load_cpu", "load generator (of a core)"],
    ],
  ],
  ["Host memory in GiB", "GiB", [["host_memory_gib", "in use"]]],
];

/** Signals as they are plotted: counters from their first value on, and the share of prefix hits. */
export function plotted({ seconds, series }) {
  const { prefix_hits: hits, prefix_queries: queries, preemptions, ...gauges } = series;
  const found = { ...gauges };
  if (preemptions) {
    const first = preemptions.find((value) => value !== null) ?? 0;
    found.preemptions = preemptions.map((value) => (value === null ? null : Math.max(0, value - first)));
  }
  if (hits && queries) {
    found.prefix_hit_rate = seconds.map((_, at) => {
      const asked = grown(queries, at);
      return asked ? Math.min(1, (grown(hits, at) ?? 0) / asked) : null;
    });
  }
  return found;
}

function grown(values, at) {
  if (at === 0 || values[at] === null || values[at - 1] === null) return null;
  const more = values[at] - values[at - 1];
  return more >= 0 ? more : null;
}

/**
 * Samples of load points on the trial's own time: each begins where its phase does. With early
 * stopping there are probes, which have the name of their load point: the k-th of a name has the
 * k-th phase of that name.
 *
 * @param points the trial's load points, in the order they were measured
 * @returns {{index, label, seconds, series}[]}
 */
export function onOneAxis(telemetry, phases, points) {
  return telemetry.map((each) => {
    const alike = points.filter((one) => one.name === each.load);
    const place = Math.max(
      0,
      alike.findIndex((one) => one.index === each.index),
    );
    const begun = phases.filter((one) => one.name === each.load)[place]?.start ?? 0;
    const label = alike[place]?.probe ? `${each.load}, probe ${place + 1}` : each.load;
    return { index: each.index, label, seconds: each.seconds.map((at) => at + begun), series: plotted(each) };
  });
}

/**
 * The plots of a trial's telemetry.
 *
 * @returns {{node, update(trial)}}
 */
export function telemetryPlots(signal) {
  const charts = el("div", { class: "telemetry-plots" });
  const chooser = el("div", { class: "actions" });
  const node = el(
    "section",
    { class: "stack", "aria-label": "Telemetry" },
    el("div", { class: "section-head" }, el("h2", {}, "Telemetry"), chooser),
    charts,
  );
  let drawn = [];
  let shape = "";
  let chosen = ""; // the index of a load point, as the select has it
  let parts = [];

  function update(trial) {
    parts = onOneAxis(trial.telemetry, trial.phases, trial.load_points);
    const choices = parts.map((each) => [String(each.index), each.label]);
    const next = JSON.stringify([choices, present()]);
    if (next === shape) return drawn.forEach((each) => each.update());
    shape = next;
    if (!choices.some(([index]) => index === chosen)) chosen = "";
    chooser.replaceChildren(
      select([["", "All load points"], ...choices], chosen, {
        "aria-label": "Load point",
        onChange: (index) => {
          chosen = index;
          drawn.forEach((each) => each.update());
        },
      }),
    );
    drawn = present().map(([heading, unit, series]) => plot(heading, unit, series));
    charts.replaceChildren(
      ...(drawn.length
        ? drawn.map((each) => each.node)
        : [
            el(
              "p",
              { class: "soft" },
              "Nothing was sampled: it is, once a second, while a load point is measured on a real server.",
            ),
          ]),
    );
    chooser.hidden = !drawn.length;
  }

  /** Plots of which something was seen. */
  function present() {
    return PLOTS.map(([heading, unit, series]) => [
      heading,
      unit,
      series.filter(([signal_]) => parts.some((part) => part.series[signal_]?.some((value) => value !== null))),
    ]).filter(([, , series]) => series.length);
  }

  const shown = () => parts.filter((each) => !chosen || String(each.index) === chosen);

  function plot(heading, unit, series) {
    return chart({
      heading,
      height: 150,
      link: "telemetry",
      signal,
      option: (now) => option(now, unit, series),
      table: () => table(unit, series),
    });
  }

  function option(now, unit, series) {
    const written = (value) => quantity(value, unit);
    return {
      grid: { left: 52, right: 12, top: series.length > 1 ? 28 : 12, bottom: 24 },
      legend:
        series.length > 1
          ? legend(
              now,
              series.map(([, label]) => label),
            )
          : { show: false },
      tooltip: {
        trigger: "axis",
        axisPointer: { type: "line" },
        formatter: (points) => {
          const at = points[0]?.value[0];
          const lines = points
            .filter((each) => each.value[1] !== null)
            .map((each) => [each.seriesName, written(each.value[1])]);
          return tip(`${duration(at)} after the start`, lines);
        },
      },
      xAxis: axis(now, { format: (seconds) => duration(seconds), min: "dataMin", max: "dataMax" }),
      yAxis: axis(now, {
        vertical: true,
        scale: unit !== "share" ? false : undefined,
        min: 0,
        max: unit === "share" ? 1 : null,
        splitNumber: 3,
        ...(!unit && { minInterval: 1 }),
        ...(unit === "share" && { interval: 0.5 }),
        format: (value) => (unit === "share" ? `${Math.round(value * 100)} %` : quantity(value, "")),
      }),
      series: series.map(([name, label], place) => ({
        name: label,
        type: "line",
        showSymbol: false,
        connectNulls: false,
        lineStyle: { width: 1.6 },
        areaStyle: place === 0 ? { color: faded(now.series[0], 0.12) } : undefined,
        color: now.series[place],
        // A gap between load points, where nothing was sampled.
        data: shown().flatMap((part) => [
          ...part.seconds.map((at, index) => [at, part.series[name]?.[index] ?? null]),
          [part.seconds.at(-1) ?? 0, null],
        ]),
        markArea:
          place > 0 || chosen
            ? undefined
            : {
                silent: true,
                itemStyle: { color: faded(now.mark, 0.07) },
                data: shown()
                  .filter((_, index) => index % 2)
                  .map((part) => [{ xAxis: part.seconds[0] }, { xAxis: part.seconds.at(-1) }]),
              },
      })),
    };
  }

  function table(unit, series) {
    const rows = shown().flatMap((part) =>
      series.map(([name, label]) => {
        const values = (part.series[name] ?? []).filter((value) => value !== null);
        const mean = values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
        return {
          load: part.label,
          label,
          mean,
          most: values.length ? Math.max(...values) : null,
          last: values.at(-1) ?? null,
        };
      }),
    );
    const number = (key, title) => ({
      key,
      title,
      number: true,
      cell: (row) => (row[key] === null ? MISSING : quantity(row[key], unit)),
    });
    return {
      rows,
      columns: [
        { key: "load", title: "Load point", heads: true },
        { key: "label", title: "Signal" },
        number("mean", "Mean"),
        number("most", "Most"),
        number("last", "Last"),
      ],
    };
  }

  return { node, update };
}
