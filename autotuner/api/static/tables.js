/** Tables: their columns, order and pages. */

import { MISSING, button, el } from "./ui.js";

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
