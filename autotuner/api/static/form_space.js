// The search space: a row for each flag that varies, of one engine.

import { canonical } from "./form_content.js";
import { flagNames } from "./form_inputs.js";
import { conditionOf, same, textOf, textOfCondition, textOfValues, valueOf, valuesOf } from "./form_values.js";
import { button, el } from "./ui.js";

const KINDS = [
  ["choice", "one of"],
  ["int", "whole number"],
  ["float", "number"],
];
const NOTHING_VARIES = "Nothing varies yet: only the baseline would run. Add flags here or apply presets.";
const EARLIER = { categorical: "choice", integer: "int", continuous: "float" };

/** What a domain says, whatever way it is written. */
export function rowOf(domain) {
  if (Array.isArray(domain)) return { kind: "choice", values: domain, when: {} };
  if (domain === null || typeof domain !== "object") {
    return { kind: "choice", values: domain === undefined ? [] : [domain], when: {}, fixed: true };
  }
  const { type = "choice", values = [], when, ...range } = domain;
  const kind = EARLIER[type] ?? type;
  return kind === "choice" ? { kind, values, when: when ?? {} } : { kind, ...range, when: when ?? {} };
}

/** The shortest way to write it. */
export function domainOf({ kind, values = [], when = {}, low, high, log, step, ...others }) {
  const condition = Object.keys(when).length ? { when } : {};
  if (kind === "choice") {
    return Object.keys(condition).length ? { values, ...condition } : values;
  }
  const entries = { type: kind, low, high, log: log || undefined, step, ...others, ...condition };
  return Object.fromEntries(Object.entries(entries).filter(([, value]) => value !== undefined));
}

/** How many values a row has; null where there is no end to them. */
export function sizeOf(domain) {
  const { kind, values, low, high, step } = rowOf(domain);
  if (kind === "choice") return Array.isArray(values) ? values.length : 0;
  if (typeof low !== "number" || typeof high !== "number" || high < low) return 0;
  if (kind === "int") return Math.floor((high - low) / (step ?? 1)) + 1;
  return step ? Math.floor((high - low) / step + 1e-9) + 1 : null;
}

/** What a flag is tried with when it is only named. */
export function firstValues(flag) {
  if (onOff(flag)) return [true, false];
  const choices = flag?.choices ?? [];
  return choices.length <= 6 ? choices : [];
}

/** The rows of one engine's space, with chips of what is commonly tuned. */
export function spaceRows(draft, kind, { empty = NOTHING_VARIES } = {}) {
  const path = draft.spacePath(kind);
  const host = el("div", { class: "space", dataset: { where: path.join(".") } });
  const fresh = [];
  let unfolded = !Object.keys(draft.at(path) ?? {}).length;
  const flags = () => draft.catalogs.get(kind)?.flags ?? [];
  const flagOf = (name) => flags().find((flag) => flag.name === name);
  const domains = () => draft.at(path) ?? {};

  function draw(focus) {
    const list = flagNames(draft, kind);
    const rows = Object.entries(domains()).map(([name, domain]) => row(name, domain));
    host.replaceChildren(
      rows.length || fresh.length
        ? el(
            "div",
            { class: "space-rows" },
            rows,
            fresh.map((each) => newRow(each, list)),
          )
        : el("p", { class: "soft" }, empty),
      button("Add a flag", {
        icon: "plus",
        kind: "quiet",
        key: `${path.join(".")}-add`,
        onClick: () => {
          fresh.push({});
          draw();
          host.querySelector(".space-row.new:last-of-type input").focus();
        },
      }),
      chips(),
    );
    if (focus) host.querySelector(`[data-key="${CSS.escape(focus)}"]`)?.focus();
  }

  function chips() {
    const common = flags().filter((flag) => flag.commonly_tuned);
    if (!common.length) return "";
    const present = new Set(Object.keys(domains()).map(canonical));
    return el(
      "details",
      {
        open: unfolded,
        onToggle: (event) => {
          unfolded = event.target.open;
        },
      },
      el("summary", {}, `Commonly tuned flags (${common.length})`),
      el(
        "div",
        { class: "chips", role: "group", "aria-label": `Commonly tuned flags of ${kind}` },
        common.map((flag) =>
          button(flag.name, {
            kind: "chip",
            disabled: present.has(flag.name),
            title: hintOf(flag),
            onClick: () => add(flag.name),
          }),
        ),
      ),
    );
  }

  function add(name) {
    const key = canonical(name);
    draft.put([...path, key], firstValues(flagOf(key)));
    draw(`${[...path, key].join(".")}-values`);
  }

  function newRow(each, list) {
    const input = el("input", {
      type: "text",
      list,
      placeholder: "flag, or env:NAME",
      "aria-label": "Name of a flag",
      autocomplete: "off",
      spellcheck: "false",
      class: "flag-name",
      onChange: () => {
        const name = canonical(input.value.trim());
        if (!name) return;
        if (Object.hasOwn(domains(), name)) {
          input.setCustomValidity(`${name} is there already`);
          input.reportValidity();
          return;
        }
        fresh.splice(fresh.indexOf(each), 1);
        add(name);
      },
      onInput: () => input.setCustomValidity(""),
    });
    return el(
      "div",
      { class: "space-row new" },
      input,
      button("Remove this row", {
        icon: "close",
        kind: "quiet",
        bare: true,
        onClick: () => {
          fresh.splice(fresh.indexOf(each), 1);
          draw(`${path.join(".")}-add`);
        },
      }),
    );
  }

  function row(name, domain) {
    const place = [...path, name];
    const key = place.join(".");
    const shown = rowOf(domain);
    const flag = flagOf(canonical(name));
    const say = (changes, redraw = false) => {
      Object.assign(shown, changes);
      draft.put(place, domainOf(shown));
      if (redraw) draw(`${key}-kind`);
      else refreshCount();
    };
    const count = el("span", { class: "soft count" });
    const refreshCount = () => {
      const size = sizeOf(draft.at(place));
      count.textContent =
        size === null ? "∞ values" : size === 0 ? "not tuned" : size === 1 ? "1 value" : `${size} values`;
    };
    refreshCount();
    const kindSelect = el(
      "select",
      {
        "aria-label": `${name}: kind of values`,
        dataset: { key: `${key}-kind` },
        onChange: (event) => {
          const kind = event.target.value;
          const numbers = (shown.values ?? [shown.low, shown.high]).filter((each) => typeof each === "number");
          const next = { kind, when: shown.when };
          if (kind === "choice") next.values = numbers;
          else
            [next.low, next.high] = [Math.min(...numbers, Infinity), Math.max(...numbers, -Infinity)].map((each) =>
              Number.isFinite(each) ? each : undefined,
            );
          if (kind !== "choice" && shown.kind !== "choice")
            Object.assign(next, { low: shown.low, high: shown.high, log: shown.log, step: shown.step });
          for (const each of Object.keys(shown)) delete shown[each];
          say(next, true);
        },
      },
      KINDS.map(([value, label]) => el("option", { value, selected: value === shown.kind }, label)),
    );
    const text = (label, value, read, more = {}) =>
      el("input", {
        type: "text",
        value,
        "aria-label": `${name}: ${label}`,
        spellcheck: "false",
        autocomplete: "off",
        onInput: (event) => read(event.target.value),
        ...more,
      });
    const number = (label) =>
      el(
        "label",
        { class: "inline" },
        el("span", {}, label),
        text(
          label,
          shown[label] === undefined ? "" : textOf(shown[label]),
          (given) => say({ [label]: given.trim() ? valueOf(given) : undefined }),
          { class: "short", inputmode: "decimal" },
        ),
      );
    const domainInputs =
      shown.kind === "choice"
        ? text(
            "values",
            Array.isArray(shown.values) ? textOfValues(shown.values) : textOf(shown.values),
            (given) => say({ values: valuesOf(given) }),
            { dataset: { key: `${key}-values` }, placeholder: placeholder(flag), class: "values" },
          )
        : el(
            "span",
            { class: "range" },
            number("low"),
            number("high"),
            number("step"),
            el(
              "label",
              { class: "inline" },
              el("input", {
                type: "checkbox",
                checked: Boolean(shown.log),
                "aria-label": `${name}: logarithmic`,
                onChange: (event) => say({ log: event.target.checked }),
              }),
              el("span", {}, "log"),
            ),
          );
    const conditioned = Object.keys(shown.when).length > 0;
    const condition = el(
      "details",
      { class: "condition", open: conditioned },
      el("summary", {}, "only when"),
      text("only when", textOfCondition(shown.when), (given) => say({ when: conditionOf(given) }), {
        placeholder: "other-flag: value, value",
        dataset: { key: `${key}-when` },
      }),
    );
    return el(
      "div",
      { class: "space-row", dataset: { where: key } },
      el(
        "span",
        { class: "flag", title: flag ? hintOf(flag) : null },
        el("code", {}, name),
        flag && el("small", { class: "soft" }, hintOf(flag)),
      ),
      kindSelect,
      domainInputs,
      count,
      condition,
      button(`Remove ${name}`, {
        icon: "close",
        kind: "quiet",
        bare: true,
        onClick: () => {
          draft.put(place, undefined);
          draw(`${path.join(".")}-add`);
        },
      }),
    );
  }

  draw();
  return host;
}

function onOff(flag) {
  return flag?.kind === "switch" || flag?.kind === "negatable";
}

/** A flag's kind and default in a few words. */
function hintOf(flag) {
  const usual =
    flag.default === undefined || flag.default === null || same(flag.default, {})
      ? ""
      : ` · default ${textOf(flag.default)}`;
  return `${onOff(flag) ? "on or off" : flag.kind}${usual}`.slice(0, 80);
}

function placeholder(flag) {
  if (flag?.choices?.length) return flag.choices.slice(0, 8).join(", ");
  return onOff(flag) ? "true, false" : "values between commas";
}
