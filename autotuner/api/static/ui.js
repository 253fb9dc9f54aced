/**
 * What views are made of: elements, icons, buttons, fields, badges, terms. Tables are in tables.js;
 * dialogs, toasts, menus and copying in dialogs.js.
 * Formats (quantity, percent, duration, moment, …) are in words.js and exported from here too.
 *
 *   el("p", { class: "note" }, "text is always text, never HTML", el("b", {}, "so"))
 *   button("Start", { icon: "play", kind: "primary", onClick })
 */

import { valueText } from "./words.js";

export * from "./words.js";

/**
 * An element. `properties`: `class`, `text`, `dataset`, `onClick`-like listeners, true/false
 * attributes, all else attributes. Children: nodes, texts, lists of them; null and false are left
 * out. There is no way to give HTML or an inline style: the page's policy forbids the latter.
 */
export function el(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

function filled(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") node.textContent = value;
    else if (name === "dataset") Object.assign(node.dataset, value);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2).toLowerCase(), value);
    else if (name === "value" && "value" in node) node.value = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((each) => each !== null && each !== undefined && each !== false));
  return node;
}

/** Replace what is in a node, and give the focus back to what had it (by `data-key` or id). */
export function fill(node, ...children) {
  const focused = node.contains(document.activeElement) ? document.activeElement : null;
  const key = focused?.dataset.key;
  node.replaceChildren(...children.flat(Infinity).filter(Boolean));
  if (!focused || document.contains(focused)) return node;
  const place = key ? `[data-key="${CSS.escape(key)}"]` : focused.id ? `#${CSS.escape(focused.id)}` : null;
  if (place) node.querySelector(place)?.focus({ preventScroll: true });
  return node;
}

/** Once nothing in a node is pressed: what is about to be clicked must not be replaced under the pointer. */
export async function released(node) {
  while (node.matches(":active")) await new Promise((look) => setTimeout(look, 50));
}

let made = 0;

/** An id that no other element has. */
export const freshId = (stem = "id") => `${stem}-${(made += 1)}`;

const SVG = "http://www.w3.org/2000/svg";
const ICONS = {
  play: "M5 3.5v9l7.5-4.5z",
  stop: "M4 4h8v8H4z",
  resume: "M3.5 3.5v9M6.5 3.5v9l6.5-4.5z",
  restart: "M12.5 8A4.5 4.5 0 1 1 11 4.6M11.2 2v3h-3",
  edit: "M3 13l.6-2.8L10.8 3l2.2 2.2-7.2 7.2zM9.6 4.2l2.2 2.2",
  duplicate: "M5.5 5.5h7v7h-7zM3.5 10.5v-7h7",
  trash: "M3 4.5h10M6.5 4.5V3h3v1.5M4.5 4.5l.6 8.5h5.8l.6-8.5M6.8 7v3.5M9.2 7v3.5",
  copy: "M5.5 5.5h7v7h-7zM3.5 10.5v-7h7",
  check: "M3 8.5l3.2 3.2L13 4.8",
  download: "M8 2.5v7.5M4.8 7 8 10.2 11.2 7M3 13h10",
  plus: "M8 3v10M3 8h10",
  close: "M4 4l8 8M12 4l-8 8",
  more: "M3.5 8h.01M8 8h.01M12.5 8h.01",
  search: "M7 11.5A4.5 4.5 0 1 0 7 2.5a4.5 4.5 0 0 0 0 9zM10.3 10.3 13.5 13.5",
  sun: "M8 5.2a2.8 2.8 0 1 0 0 5.6 2.8 2.8 0 0 0 0-5.6zM8 1.5v1.3M8 13.2v1.3M1.5 8h1.3M13.2 8h1.3M3.4 3.4l.9.9M11.7 11.7l.9.9M3.4 12.6l.9-.9M11.7 4.3l.9-.9",
  moon: "M12.8 9.8A5.3 5.3 0 0 1 6.2 3.2a5.3 5.3 0 1 0 6.6 6.6z",
  auto: "M8 2.5a5.5 5.5 0 1 0 0 11zM8 2.5a5.5 5.5 0 0 1 0 11",
  studies: "M3 4.5h10M3 8h10M3 11.5h6",
  timeline: "M2.5 4.5h6M5.5 8h7M3.5 11.5h5",
  cluster: "M3 3.5h10v3.5H3zM3 9h10v3.5H3zM5.2 5.2h.01M5.2 10.7h.01",
  presets: "M3 4.5h6.5M12 4.5h1M3 11.5h1M6.5 11.5H13M9.5 3v3M4 10v3",
  chevron: "M6 3.5 10.5 8 6 12.5",
  star: "M8 2.2l1.8 3.7 4 .6-2.9 2.8.7 4L8 11.4l-3.6 1.9.7-4L2.2 6.5l4-.6z",
  warning: "M8 2.5 14 13H2zM8 6.5v3M8 11.2h.01",
};

/** A drawing of 16 by 16 that says nothing to screen readers: put a text beside it. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const drawn = document.createElementNS(SVG, "path");
  drawn.setAttribute("d", ICONS[name]);
  filled(svg, { class: `icon icon-${name}`, viewBox: "0 0 16 16", "aria-hidden": "true", focusable: "false" }, [drawn]);
  return svg;
}

/**
 * A button. `kind`: "primary", "danger", "quiet" or ""; `bare`: the icon alone, with the label
 * for screen readers and as a hint; `key`: keeps the focus when its place is drawn again.
 */
export function button(label, { icon: drawing, kind = "", bare = false, onClick, key, ...more } = {}) {
  return el(
    "button",
    {
      type: "button",
      class: `button ${kind} ${bare ? "bare" : ""}`.trim(),
      "aria-label": bare ? label : null,
      title: bare ? label : null,
      onClick,
      dataset: key ? { key } : {},
      ...more,
    },
    drawing && icon(drawing),
    !bare && el("span", {}, label),
  );
}

/** A link that looks like a button. */
export function linkButton(label, href, { icon: drawing, kind = "", bare = false, ...more } = {}) {
  return el(
    "a",
    {
      href,
      class: `button ${kind} ${bare ? "bare" : ""}`.trim(),
      "aria-label": bare ? label : null,
      title: bare ? label : null,
      ...more,
    },
    drawing && icon(drawing),
    !bare && el("span", {}, label),
  );
}

/** A labelled control: field("Name", input, { hint: "…" }). */
export function field(label, control, { hint, hidden = false } = {}) {
  control.id ||= freshId("field");
  const explained = hint ? el("small", { class: "hint", id: `${control.id}-hint` }, hint) : null;
  if (explained) control.setAttribute("aria-describedby", explained.id);
  return el(
    "div",
    { class: "field" },
    el("label", { for: control.id, class: hidden ? "unseen" : null }, label),
    control,
    explained,
  );
}

/** A select: options are texts, or [value, text]. */
export function select(options, value, { onChange, ...more } = {}) {
  const node = el("select", { onChange: onChange && ((event) => onChange(event.target.value)), ...more });
  node.append(
    ...options
      .map((each) => [each].flat())
      .map(([key, shown = key]) => el("option", { value: key, selected: String(key) === String(value) }, shown)),
  );
  return node;
}

/** The text for screen readers only. */
export const unseen = (text) => el("span", { class: "unseen" }, text);

/* States: a colour, a sign and the word. */

const SIGNS = {
  PENDING: "○",
  STARTING: "◔",
  RUNNING: "▶",
  DEPLOYING: "◔",
  BENCHMARKING: "▶",
  COMPLETE: "✓",
  INFEASIBLE: "✕",
  STOPPED: "▪",
  FAILED: "!",
  CANCELLED: "⊘",
  LOST: "?",
  REFUSED: "–",
};

/** The sign of a state. */
export const stateSign = (state) => SIGNS[state] ?? "·";

/** A state of a study or a trial. `note`: what it is at. */
export function stateBadge(state, note = "") {
  return el(
    "span",
    { class: `state state-${state}`, title: note || null },
    el("span", { class: "sign", "aria-hidden": "true" }, stateSign(state)),
    state.toLowerCase(),
  );
}

/** A small label. `kind`: "good", "warn", "bad", "best", "". */
export const badge = (label, kind = "", more = {}) => el("span", { class: `badge ${kind}`, ...more }, label);

/** A problem in place of what should be there. */
export function problemNote(error, { retry } = {}) {
  return el(
    "div",
    { class: "empty bad", role: "alert" },
    el("h2", {}, error.title ?? "This went wrong"),
    el("p", { class: "reason" }, error.detail || error.message),
    retry && button("Try again", { icon: "restart", onClick: retry }),
  );
}

/** What to say where there is nothing yet: a heading, then what to do next. */
export const empty = (heading, ...next) => el("div", { class: "empty" }, el("h2", {}, heading), ...next);

/** A place holder while something is read. */
export const waiting = (what = "Reading") => el("p", { class: "waiting", role: "status" }, `${what} …`);

/** A sentence of the service's, with what stands between backticks as code. */
export const prose = (text) => text.split("`").map((part, at) => (at % 2 ? el("code", {}, part) : part));

/** A text that opens: details("Log", el("pre", {}, …)). */
export const details = (summary, ...content) => el("details", {}, el("summary", {}, summary), ...content);

/** A list of terms: terms({ model: "…", engine: … }); what is missing is left out. */
export function terms(entries) {
  const shown = Object.entries(entries).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return el(
    "dl",
    { class: "terms" },
    shown.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
  );
}

/** A point, one parameter a piece; `best`: mark what differs from that point. */
export function parameterList(parameters, { marked = [] } = {}) {
  const entries = Object.entries(parameters);
  if (!entries.length) return el("span", { class: "soft" }, "engine defaults");
  return el(
    "span",
    { class: "parameters" },
    entries.map(([name, value]) =>
      el("code", { class: marked.includes(name) ? "differs" : null }, `${name}=${valueText(value)}`),
    ),
  );
}

/** A part of a view that is drawn again as a whole: {node, update}. */
export function part(node, draw) {
  draw();
  return { node, update: draw };
}

/** The same call, but only once no other came for so many milliseconds. */
export function debounced(call, milliseconds) {
  let timer;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...given), milliseconds);
  };
}

/** A value kept in this browser: kept("axes", {}).get() · .set(value). */
export function kept(name, initial) {
  const key = `autotuner-${name}`;
  return {
    get() {
      try {
        return JSON.parse(localStorage.getItem(key)) ?? initial;
      } catch {
        return initial;
      }
    },
    set: (value) => localStorage.setItem(key, JSON.stringify(value)),
  };
}
