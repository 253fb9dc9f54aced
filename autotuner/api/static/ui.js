/**
 * What views are made of: elements, icons, buttons, badges, menus, tables, dialogs, toasts, copy.
 * Formats (quantity, percent, duration, moment, …) are in words.js and exported from here too.
 *
 *   el("p", { class: "note" }, "text is always text, never HTML", el("b", {}, "so"))
 *   button("Start", { icon: "play", kind: "primary", onClick })
 *   if (await confirmed({ title: "Delete llama?", body: "…", action: "Delete", danger: true })) …
 *   toast("Started", { kind: "good" }); toastProblem(error)
 *   await attempt(() => send("POST", …), "Started")      toasts either way; null where it failed
 */

import { MISSING, valueText } from "./words.js";

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

/* Toasts: what has happened, said to screen readers as well. */

/** Say something for a while. `kind`: "good", "bad" or ""; what is bad stays until it is closed. */
export function toast(message, { kind = "", detail = "", title: heading } = {}) {
  const places = document.getElementById("toasts");
  const close = button("Close this message", {
    icon: "close",
    kind: "quiet",
    bare: true,
    onClick: () => node.remove(),
  });
  const node = el(
    "div",
    { class: `toast ${kind}`, role: kind === "bad" ? "alert" : "status" },
    el(
      "div",
      { class: "toast-text" },
      heading && el("strong", {}, heading),
      el("div", {}, message),
      detail && el("pre", {}, detail),
    ),
    close,
  );
  for (const old of [...places.children]) if (old.textContent === node.textContent) old.remove();
  places.append(node);
  while (places.children.length > 4) places.firstChild.remove();
  if (kind !== "bad") setTimeout(() => node.remove(), 6000);
  return node;
}

/** Show an error with the server's own reason; one that was aborted is none. */
export function toastProblem(error) {
  if (error?.name === "AbortError") return;
  if (error?.name !== "Problem") console.error(error);
  const listed = (error.errors ?? []).filter((each) => !(error.detail ?? "").includes(each.problem));
  const lines = listed.map((each) => `${each.where}: ${each.problem}${each.hint ? ` (${each.hint})` : ""}`);
  toast(error.detail || error.message, { kind: "bad", title: error.title, detail: lines.join("\n") });
}

/** Do something, and say how it went. Its result; null where it failed. */
export async function attempt(what, done = "") {
  try {
    const result = await what();
    if (done) toast(done, { kind: "good" });
    return result ?? true;
  } catch (error) {
    toastProblem(error);
    return null;
  }
}

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

/* Dialogs: the browser's own, so that focus and Escape are right. */

/**
 * A modal dialog; resolves to what `close(value)` was given, or null when it was dismissed.
 * `content(close)` returns nodes; `actions(close)` the buttons below; `onSubmit(close)` is for
 * Enter, and for a button with `type: "submit"`.
 */
export function dialog({ title, content, actions = () => [], wide = false, onSubmit = () => {} }) {
  return new Promise((resolve) => {
    let value = null;
    const close = (given = null) => {
      value = given;
      node.close();
    };
    const heading = freshId("dialog");
    const node = el(
      "dialog",
      { class: wide ? "dialog wide" : "dialog", "aria-labelledby": heading },
      el(
        "form",
        {
          method: "dialog",
          onSubmit: (event) => {
            event.preventDefault();
            onSubmit(close);
          },
        },
        el(
          "header",
          {},
          el("h2", { id: heading }, title),
          button("Close", { icon: "close", kind: "quiet", bare: true, onClick: () => close() }),
        ),
        el("div", { class: "dialog-body" }, content(close)),
        el("footer", {}, actions(close)),
      ),
    );
    node.addEventListener("close", () => {
      node.remove();
      resolve(value);
    });
    document.body.append(node);
    node.showModal();
  });
}

/** Whether a person means it. Asked before anything is lost; what keeps things has the focus. */
export async function confirmed({ title, body, action, danger = true, keep = "Keep it" }) {
  const answer = await dialog({
    title,
    content: () => [body].flat().map((each) => (typeof each === "string" ? el("p", {}, each) : each)),
    actions: (close) => [
      button(keep, { autofocus: true, onClick: () => close(false) }),
      button(action, { kind: danger ? "danger" : "primary", onClick: () => close(true) }),
    ],
  });
  return answer === true;
}

/* Menus */

/**
 * A button that opens a list of things to do: items are {label, icon, onClick | href, danger}.
 * Arrow keys move, Escape closes and gives the focus back.
 */
export function menuButton(label, items, { key, icon: drawing = "more", bare = true } = {}) {
  const opener = button(label, {
    icon: drawing,
    kind: "quiet",
    bare,
    key,
    "aria-haspopup": "menu",
    "aria-expanded": "false",
    onClick: () => openMenu(opener, items),
  });
  return opener;
}

function openMenu(opener, items) {
  const over = new AbortController();
  const close = () => {
    over.abort();
    list.remove();
    opener.setAttribute("aria-expanded", "false");
  };
  const entries = items.map(({ label, icon: drawing, href, danger, onClick }) =>
    el(
      href ? "a" : "button",
      {
        role: "menuitem",
        type: href ? null : "button",
        href,
        class: danger ? "danger" : null,
        tabindex: "-1",
        onClick: () => {
          close();
          opener.focus();
          onClick?.();
        },
      },
      drawing && icon(drawing),
      el("span", {}, label),
    ),
  );
  const list = el(
    "div",
    { class: "menu", role: "menu", "aria-label": opener.getAttribute("aria-label") || opener.textContent },
    entries,
  );
  document.body.append(list);
  opener.setAttribute("aria-expanded", "true");
  const place = opener.getBoundingClientRect();
  const below = place.bottom + list.offsetHeight + 8 < innerHeight;
  list.style.top = `${(below ? place.bottom + 4 : place.top - list.offsetHeight - 4) + scrollY}px`;
  list.style.left = `${Math.max(8, Math.min(place.right - list.offsetWidth, innerWidth - list.offsetWidth - 8)) + scrollX}px`;
  entries[0]?.focus();
  list.addEventListener("keydown", (event) => {
    const at = entries.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: entries.length - 1 }[event.key];
    if (to !== undefined) entries[(to + entries.length) % entries.length].focus();
    if (event.key === "Escape" || event.key === "Tab") {
      close();
      opener.focus();
    }
    if (to !== undefined || event.key === "Escape") event.preventDefault();
  });
  const { signal } = over;
  addEventListener("pointerdown", (event) => !list.contains(event.target) && close(), { signal });
  addEventListener("resize", close, { signal });
  addEventListener("hashchange", close, { signal });
}

/** A sentence of the service's, with what stands between backticks as code. */
export const prose = (text) => text.split("`").map((part, at) => (at % 2 ? el("code", {}, part) : part));

/* Copying */

/** A button that copies a text, or what a function answers later. */
export function copyButton(label, what, { bare = false, kind = "" } = {}) {
  const node = button(label, {
    icon: "copy",
    bare,
    kind,
    onClick: () =>
      attempt(
        async () => copied(typeof what === "function" ? await what() : what),
        `Copied: ${label.replace(/^Copy (the )?/, "")}`,
      ),
  });
  return node;
}

async function copied(text) {
  // Without TLS browsers have no clipboard but on loopback.
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = el("textarea", { readonly: true, class: "unseen", value: text });
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("this browser does not let a page copy without TLS; select the text instead");
}

/** A text as one writes it in a shell, with a button that copies it. */
export function code(text, { label = "Copy", copy = text } = {}) {
  return el(
    "div",
    { class: "code" },
    el("pre", { tabindex: "0", role: "region", "aria-label": label.replace(/^Copy (the )?/, "") }, text),
    copyButton(label, copy, { bare: true, kind: "quiet" }),
  );
}

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

/* Tables */

/**
 * A table that scrolls sideways in its own box.
 *
 * @param {object} options
 *   caption: its name, for screen readers too · showCaption ·
 *   columns: [{key, title, cell(row) -> node | text, number, sort: true | key, heads: true, class}];
 *     the one that `heads` makes the row's header ·
 *   rows · rowProperties(row) -> properties of the tr; of class "stacks" they are cards on a phone · sort: "key" or "-key" · onSort(sort) ·
 *   foot: node below
 */
export function table({
  caption,
  columns,
  rows,
  rowProperties = () => ({}),
  sort = "",
  onSort,
  foot,
  compact = false,
}) {
  const heads = columns.map((column) => headCell(column, sort, onSort));
  const body = rows.map((row) =>
    el(
      "tr",
      rowProperties(row),
      columns.map((column) => cellOf(column, row)),
    ),
  );
  const node = el(
    "table",
    { class: compact ? "compact" : null },
    el("caption", { class: "unseen" }, caption),
    el("thead", {}, el("tr", {}, heads)),
    el("tbody", {}, body),
  );
  return el(
    "div",
    { class: "table" },
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, node),
    foot,
  );
}

function headCell(column, sort, onSort) {
  const classes = [column.number && "number", column.class].filter(Boolean).join(" ") || null;
  const key = column.sort === true ? column.key : column.sort;
  if (!key || !onSort) return el("th", { scope: "col", class: classes }, column.title);
  const [way, next] =
    sort === key
      ? ["ascending", `-${key}`]
      : sort === `-${key}`
        ? ["descending", key]
        : [null, column.number ? `-${key}` : key];
  return el(
    "th",
    { scope: "col", class: classes, "aria-sort": way },
    el(
      "button",
      { type: "button", class: "sorts", dataset: { key: `sort-${key}` }, onClick: () => onSort(next) },
      column.title,
      el(
        "span",
        { class: "arrow", "aria-hidden": "true" },
        way === "ascending" ? "▲" : way === "descending" ? "▼" : "",
      ),
    ),
  );
}

function cellOf(column, row) {
  const content = column.cell ? column.cell(row) : row[column.key];
  const classes = [column.number && "number", column.class].filter(Boolean).join(" ") || null;
  const said = typeof column.title === "string" ? { title: column.title } : {};
  return el(
    column.heads ? "th" : "td",
    { scope: column.heads ? "row" : null, class: classes, dataset: said },
    content ?? MISSING,
  );
}

/** Rows in the order that "key" or "-key" says; what is missing comes last either way. */
export function sorted(rows, sort, value = (row, key) => row[key]) {
  const [key, way] = sort.startsWith("-") ? [sort.slice(1), -1] : [sort, 1];
  const missing = (each) => each === null || each === undefined || each === "" || Number.isNaN(each);
  return [...rows].sort((one, other) => {
    const [a, b] = [value(one, key), value(other, key)];
    if (missing(a) || missing(b)) return missing(a) - missing(b);
    return way * (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
  });
}

/** Which page of how many, with buttons. */
export function pager({ page, perPage, total, onPage }) {
  const pages = Math.max(1, Math.ceil(total / perPage));
  if (pages === 1) return null;
  const go = (to, label, drawing) =>
    button(label, {
      bare: false,
      kind: "quiet",
      key: `page-${label}`,
      disabled: to < 1 || to > pages,
      onClick: () => onPage(to),
      class: `button quiet ${drawing}`,
    });
  return el(
    "nav",
    { class: "pager", "aria-label": "Pages" },
    go(page - 1, "Previous", "back"),
    el("span", {}, `${page} of ${pages}`),
    go(page + 1, "Next", "on"),
  );
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
