// One field of the form: a control for a place of the content, and back.

import { at, put as withValue, rename } from "./form_content.js";
import { same, split, textOf, textOfValues, valueOf, valuesOf } from "./form_values.js";
import { button, el, field, select } from "./ui.js";

/** Fields at a base path, after others that are made already; rare ones, unless said, folded away. */
export function fieldsOf(draft, base, fields, before = []) {
  const hidden = (each) => each.rare && draft.at([...base, ...each.path]) === undefined;
  const rare = fields.filter(hidden);
  return [
    el(
      "div",
      { class: "fields" },
      before,
      fields.filter((each) => !hidden(each)).map((each) => fieldOf(draft, base, each)),
    ),
    rare.length > 0 &&
      el(
        "details",
        { class: "rare" },
        el("summary", {}, "More settings"),
        el(
          "div",
          { class: "fields" },
          rare.map((each) => fieldOf(draft, base, each)),
        ),
      ),
  ];
}

/** A field with its label; problems at its place are shown in it. */
export function fieldOf(draft, base, description) {
  const path = [...base, ...description.path];
  const make = CONTROLS[description.as];
  const label = description.label + (description.unit ? ` (${description.unit})` : "");
  if (description.as === "pairs") return pairs(draft, path, description);
  const control = make(draft, path, description);
  control.dataset.key = path.join(".");
  if (description.needed) control.setAttribute("aria-required", "true");
  if (description.usual && "placeholder" in control) control.placeholder = description.usual;
  const node = field(label, control, { hint: description.help });
  node.dataset.where = path.join(".");
  if (["area", "texts", "items", "words"].includes(description.as)) node.classList.add("spans");
  return node;
}

/** What an input suggests, by name; said again where it has become another. The list's id. */
export function suggestions(draft, name, options) {
  const id = `suggestions-${name.replaceAll(/[^a-z0-9-]/gi, "-")}`;
  const known = draft.lists.querySelector(`#${id}`);
  const list = known ?? draft.lists.appendChild(el("datalist", { id }));
  if (list.childElementCount !== options.length || !known) {
    list.replaceChildren(
      ...options.map((each) => [each].flat()).map(([value, label]) => el("option", { value, label })),
    );
  }
  return id;
}

/** The flags of an engine, as far as its catalog is known. */
export function flagNames(draft, kind) {
  const flags = draft.catalogs.get(kind)?.flags ?? [];
  return suggestions(
    draft,
    `flags-${kind}`,
    flags.map((flag) => [flag.name, flag.kind]),
  );
}

const CONTROLS = {
  text: (draft, path) =>
    input(draft, path, {
      shown: (value) => (typeof value === "string" ? value : JSON.stringify(value)),
      read: (text) => text.trim() || undefined,
    }),
  value: (draft, path) =>
    input(draft, path, {
      shown: textOf,
      read: (text) => (text.trim() ? valueOf(text) : undefined),
    }),
  area: (draft, path) =>
    area(draft, path, {
      rows: 2,
      shown: String,
      read: (text) => text || undefined,
    }),
  number: (draft, path, { from }) =>
    input(draft, path, {
      inputmode: "decimal",
      shown: textOf,
      read: (text) => (text.trim() ? valueOf(text) : undefined),
      dataset: from === undefined ? {} : { from },
    }),
  select: (draft, path, { options, usual, redraw = [] }) => {
    const value = draft.at(path) ?? "";
    const known = ["", ...options];
    return select(
      (known.includes(value) ? known : [...known, value]).map((each) => [
        each,
        each || (usual ? `${usual} (default)` : "–"),
      ]),
      value,
      { onChange: (chosen) => draft.put(path, chosen || undefined, { redraw }) },
    );
  },
  version: (draft, path) => {
    const known = draft.engines?.find((each) => samePath(path, draft.enginePath(each.kind)));
    return input(draft, path, {
      shown: String,
      read: (text) => text.trim() || undefined,
      list: suggestions(draft, path.join("-"), known?.versions ?? []),
    });
  },
  words: (draft, path, { texts = false }) =>
    input(draft, path, {
      shown: (value) => (Array.isArray(value) ? (texts ? value.join(", ") : textOfValues(value)) : textOf(value)),
      read: (text) => {
        const values = texts ? split(text) : valuesOf(text);
        return values.length ? values : undefined;
      },
    }),
  texts: (draft, path) =>
    area(draft, path, {
      shown: (value) => [value].flat().join("\n"),
      read: (text) => {
        const lines = text.split("\n").filter((line) => line !== "");
        return lines.length ? lines : undefined;
      },
    }),
  items: (draft, path) =>
    area(draft, path, {
      shown: (value) => JSON.stringify(value, null, 1),
      read: (text) => (text.trim() ? valueOf(text) : undefined),
    }),
};

function samePath(path, base) {
  return same(path.slice(0, -1), base);
}

function input(draft, path, { shown, read, ...more }) {
  const value = draft.at(path);
  return el("input", {
    type: "text",
    autocomplete: "off",
    spellcheck: "false",
    ...more,
    value: value === undefined || value === null ? "" : shown(value),
    onInput: (event) => draft.put(path, read(event.target.value)),
  });
}

function area(draft, path, { shown, read, rows = 2, ...more }) {
  const value = draft.at(path);
  const node = el("textarea", {
    rows,
    spellcheck: "false",
    ...more,
    value: value === undefined || value === null ? "" : shown(value),
    onInput: (event) => draft.put(path, read(event.target.value)),
  });
  return node;
}

/** Rows of a name and a value: `texts` keeps every value a text. */
function pairs(draft, path, { label, help, noun, texts = false, names: suggested, usual }) {
  const host = el("fieldset", { class: "pairs spans", dataset: { where: path.join(".") } });
  const open = [];
  const list = suggested === "flags" ? flagNames(draft, kindAt(draft, path)) : null;
  const block = () => at(draft.content, path) ?? {};

  function draw() {
    const entries = Object.entries(block());
    host.replaceChildren(
      el("legend", {}, label),
      help ? el("small", { class: "hint" }, help) : "",
      ...entries.map(([name, value]) => row(name, value)),
      ...open.map((each) => row("", undefined, each)),
      button(`Add ${article(noun)} ${noun}`, {
        icon: "plus",
        kind: "quiet",
        key: `${path.join(".")}-add`,
        onClick: () => {
          open.push({});
          draw();
          host.querySelector(".pair:last-of-type input").focus();
        },
      }),
      ...(usual && !entries.length ? [el("small", { class: "hint" }, usual)] : []),
    );
  }

  function row(name, value, fresh = null) {
    let current = name;
    const key = [...path, name || "new"].join(".");
    const read = (text) => (texts ? text : valueOf(text));
    const nameInput = el("input", {
      type: "text",
      value: name,
      "aria-label": `${label}: name`,
      spellcheck: "false",
      list,
      autocomplete: "off",
      dataset: { key: `${key}-name` },
      onChange: () => {
        const next = nameInput.value.trim();
        if (!next || next === current || Object.hasOwn(block(), next)) {
          nameInput.value = current;
          return;
        }
        draft.change(
          current
            ? rename(draft.content, path, current, next)
            : put(next, valueInput.value.trim() ? read(valueInput.value) : fresh ? "" : value),
        );
        if (fresh) open.splice(open.indexOf(fresh), 1);
        current = next;
        draw();
        host.querySelector(`[data-key="${CSS.escape([...path, next].join("."))}-value"]`)?.focus();
      },
    });
    const valueInput = el("input", {
      type: "text",
      value: value === undefined ? "" : texts ? String(value) : textOf(value),
      "aria-label": name ? `${label}: ${name}` : `${label}: value`,
      spellcheck: "false",
      autocomplete: "off",
      dataset: { key: `${key}-value` },
      onInput: () => current && draft.change(put(current, read(valueInput.value))),
    });
    const remove = button(`Remove ${name || `this ${noun}`}`, {
      icon: "close",
      kind: "quiet",
      bare: true,
      onClick: () => {
        if (fresh) open.splice(open.indexOf(fresh), 1);
        if (current) draft.put([...path, current], undefined);
        draw();
        host.querySelector(`[data-key="${CSS.escape(path.join("."))}-add"]`)?.focus();
      },
    });
    return el("div", { class: "pair", dataset: { where: key } }, nameInput, valueInput, remove);
  }

  function put(name, value) {
    return withValue(draft.content, [...path, name], value);
  }

  draw();
  return host;
}

function kindAt(draft, path) {
  return draft.several ? path[2] : draft.kinds[0];
}

function article(noun) {
  return /^[aeiou]/.test(noun) ? "an" : "a";
}
