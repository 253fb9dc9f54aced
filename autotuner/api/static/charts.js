/**
 * Charts: ECharts under the page's colours, each with the same numbers as a table.
 *
 *   const drawn = chart({
 *     heading: "TTFT p90 over trials",
 *     option: (theme) => ({ xAxis: axis(theme, { name: "trial" }), series: [...] }),
 *     table: () => ({ columns: [{ key: "number", title: "trial" }], rows }),
 *     onClick: (params) => {},  onHover: (params | null) => {},  link: "telemetry",  signal,
 *   });
 *   root.append(drawn.node);  drawn.update();      draws again from `option` and `table`
 *
 * ECharts is loaded by the first chart. Charts of one `link` share tooltip and zoom. Colours
 * follow the switch between light and dark. Tooltips are nodes (see `tip`), never HTML texts,
 * for the page's policy forbids inline styles.
 */

import { table as tableOf } from "./tables.js";
import { details, el, freshId, waiting } from "./ui.js";

const MOST_ROWS = 1000;

let library = null;

/** ECharts, loaded once. */
export function echarts() {
  library ??= import("./vendor/echarts.esm.min.js");
  return library;
}

const NAMES = [
  "page",
  "card",
  "raised",
  "wash",
  "edge",
  "strong-edge",
  "ink",
  "soft",
  "accent",
  "good",
  "warn",
  "bad",
  "busy",
  "odd",
  "mark",
  "hovered",
];

/** The page's colours as they are now, by token: theme().accent; `strong-edge` is strongEdge. */
export function theme() {
  const probe = el("i", { hidden: true });
  document.body.append(probe);
  const found = {};
  for (const name of NAMES) {
    probe.style.color = `var(--${name})`;
    found[name.replace("-e", "E")] = getComputedStyle(probe).color;
  }
  probe.remove();
  found.series = [found.accent, found.warn, found.good, found.odd, found.bad, found.busy, found.mark];
  found.dark = isDark();
  return found;
}

const isDark = () =>
  (document.documentElement.dataset.theme ??
    (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

/** A colour with less of it: faded("rgb(1, 2, 3)", 0.2). */
export const faded = (colour, share) =>
  colour.replace(/^rgba?\(([^,]+),([^,]+),([^,)]+).*$/, `rgba($1,$2,$3, ${share})`);

/**
 * A figure with a chart in it.
 *
 * @returns {{node, update(), highlight(what), ready: Promise}} `ready` is ECharts' instance;
 *   `update` draws again; the chart goes when `signal` aborts.
 */
export function chart({
  heading,
  option,
  table,
  height = 300,
  onClick,
  onHover,
  link,
  signal,
  controls = [],
  caption = "",
  broad = false,
}) {
  const canvas = el("div", { class: "canvas" });
  canvas.style.height = `${height}px`;
  const id = freshId("chart");
  const told = el("div");
  const note = el("div", {}, caption);
  const opens = table ? details("As a table", told) : null;
  // Thousands of rows that nobody reads would take longer to make than the chart.
  const tell = () => opens?.open && told.replaceChildren(numbers(heading, table()));
  opens?.addEventListener("toggle", tell);
  const node = el(
    "figure",
    { class: broad ? "chart card broad" : "chart card", "aria-labelledby": id },
    el("header", {}, el("h3", { id }, heading), controls.length ? el("div", { class: "actions" }, controls) : null),
    canvas,
    el("figcaption", {}, note, opens),
  );
  canvas.append(waiting("Drawing"));
  const draw = (instance) => {
    const now = theme();
    const said = option(now);
    instance.setOption(
      { ...base(now), ...said, tooltip: { ...base(now).tooltip, ...said.tooltip } },
      { notMerge: true, lazyUpdate: false },
    );
  };
  const opened = open(canvas, { draw, link, signal, heading, onClick, onHover });
  return {
    node,
    ready: opened,
    say: (text) => note.replaceChildren(text),
    update() {
      tell();
      return opened.then((instance) => instance && !instance.isDisposed() && draw(instance));
    },
  };
}

/** A chart's numbers. */
function numbers(heading, { columns, rows }) {
  const foot =
    rows.length > MOST_ROWS
      ? el(
          "p",
          { class: "nothing" },
          `The first ${MOST_ROWS} of ${rows.length}; the others are in the file of all trials.`,
        )
      : null;
  return tableOf({ caption: `${heading}, as a table`, compact: true, columns, rows: rows.slice(0, MOST_ROWS), foot });
}

/** ECharts in an element, which follows its size, the colours and the signal. */
async function open(canvas, { draw, link, signal, heading, onClick, onHover }) {
  const { init, connect } = await echarts();
  if (signal?.aborted) return null;
  canvas.replaceChildren();
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Chart: ${heading}. Its numbers follow as a table.`);
  const instance = init(canvas, null, { renderer: "canvas" });
  if (link) {
    instance.group = link;
    connect(link);
  }
  draw(instance);
  if (onClick) instance.on("click", onClick);
  if (onHover) {
    instance.on("mouseover", onHover);
    instance.getZr().on("globalout", () => onHover(null));
    instance.on("mouseout", () => onHover(null));
  }
  const sized = new ResizeObserver(() => !instance.isDisposed() && instance.resize());
  sized.observe(canvas);
  const again = () => draw(instance);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", again);
  addEventListener("themechange", again);
  signal?.addEventListener("abort", () => {
    sized.disconnect();
    dark.removeEventListener("change", again);
    removeEventListener("themechange", again);
    instance.dispose();
  });
  return instance;
}

/** What all charts have in common. */
function base(now) {
  return {
    animation: !matchMedia("(prefers-reduced-motion: reduce)").matches,
    animationDuration: 250,
    textStyle: { fontFamily: getComputedStyle(document.body).fontFamily, fontSize: 12, color: now.soft },
    color: now.series,
    grid: {
      left: 12,
      right: 18,
      top: 36,
      bottom: 12,
      outerBoundsMode: "same",
      outerBoundsContain: "axisLabel",
      containLabel: true,
    },
    legend: { show: false },
    tooltip: {
      confine: true,
      className: "tip",
      backgroundColor: now.raised,
      borderColor: now.edge,
      borderWidth: 1,
      padding: [7, 10],
      textStyle: { color: now.ink, fontSize: 13 },
      transitionDuration: 0.1,
      hideDelay: 60,
    },
  };
}

/**
 * An axis under the page's colours: axis(theme, {name, type: "value" | "log" | "category", …}).
 * `bounded`: its ends are no round numbers, so they have no labels.
 */
export function axis(now, { name = "", type = "value", format, vertical = false, bounded = false, ...more } = {}) {
  return {
    type,
    name,
    scale: true,
    nameLocation: vertical ? "end" : "middle",
    nameGap: vertical ? 12 : 28,
    nameTextStyle: { color: now.soft, align: vertical ? "left" : "center", padding: vertical ? [0, 0, 0, -30] : 0 },
    axisLine: { show: !vertical, lineStyle: { color: now.strongEdge } },
    axisTick: { show: false },
    axisLabel: {
      color: now.soft,
      hideOverlap: true,
      ...(bounded && { showMinLabel: false, showMaxLabel: false }),
      ...(format && { formatter: format }),
    },
    splitLine: { show: type !== "category", lineStyle: { color: now.edge } },
    minorSplitLine: { show: false },
    ...more,
  };
}

/** A legend at the top that scrolls where it is long. */
export const legend = (now, names) => ({
  show: true,
  type: "scroll",
  top: 0,
  left: 0,
  right: 0,
  itemWidth: 12,
  itemHeight: 12,
  itemGap: 14,
  textStyle: { color: now.soft, fontSize: 12 },
  pageTextStyle: { color: now.soft },
  pageIconColor: now.ink,
  pageIconInactiveColor: now.edge,
  inactiveColor: now.strongEdge,
  ...(names && { data: names }),
});

/** The content of a tooltip: a heading, pairs of a name and a value, lines below. */
export function tip(heading, pairs = [], lines = []) {
  const shown = Array.isArray(pairs) ? pairs : Object.entries(pairs);
  return el(
    "div",
    {},
    el("strong", {}, heading),
    shown.length
      ? el(
          "dl",
          {},
          shown.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]),
        )
      : null,
    lines.length
      ? el(
          "ul",
          {},
          lines.map((line) => el("li", {}, line)),
        )
      : null,
  );
}

/** A star of five points as ECharts' path. */
export const STAR =
  "path://M0,-10 L2.9,-3.5 L10,-2.8 L4.7,1.9 L6.2,8.9 L0,5.2 L-6.2,8.9 L-4.7,1.9 L-10,-2.8 L-2.9,-3.5 Z";
/** A cross. */
export const CROSS = "path://M-8,-10 L0,-2 L8,-10 L10,-8 L2,0 L10,8 L8,10 L0,2 L-8,10 L-10,8 L-2,0 L-10,-8 Z";
