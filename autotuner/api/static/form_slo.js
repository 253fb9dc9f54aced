// Objectives, service levels and the short constraints.

import { METRICS, SLO_KEYS, SLO_PROFILES, UNBOUNDED } from "./form_fields.js";
import { fieldOf, suggestions } from "./form_inputs.js";
import { textOf, valueOf } from "./form_values.js";
import { button, el, field, select } from "./ui.js";

// In the order of the form: what a user feels first, then the latencies of whole requests.
const FAMILIES = [
  ["TTFT", /^ttft_/, "ttft_p90", { max: 1, weight: 2 }],
  ["TPOT", /^tpot_/, "tpot_p90", { max: 0.05, weight: 2 }],
  ["E2E latency p50", /^e2e_latency_p50$/, "e2e_latency_p50", { max: 2 }],
  ["E2E latency p90", /^e2e_latency_p90$/, "e2e_latency_p90", { max: 5, weight: 2 }],
  ["E2E latency p99", /^e2e_latency_p99$/, "e2e_latency_p99", { max: 10, weight: 3 }],
];

/** The metrics of the form's rows, in order; a family without one has its usual metric. */
export function rowsOf(slo) {
  const said = Object.keys(slo ?? {}).filter((name) => !SLO_KEYS.includes(name));
  const rows = FAMILIES.flatMap(([, family, usual]) => {
    const own = said.filter((name) => family.test(name));
    return own.length ? own : [usual];
  });
  return [...rows, ...said.filter((name) => !rows.includes(name))];
}

/** The list of objectives, the first deciding. */
export function objectives(draft) {
  const path = ["objectives"];
  const host = el("div", { class: "objectives", dataset: { where: "objectives" } });
  const chosen = () => draft.at(path) ?? [];

  function say(names) {
    draft.put(path, names.length ? names : undefined);
    draw();
  }

  function draw() {
    const names = Array.isArray(chosen()) ? chosen() : [];
    const free = Object.keys(METRICS).filter((name) => !names.includes(name));
    host.replaceChildren(
      el(
        "ol",
        { class: "chips", "aria-label": "Objectives" },
        names.length
          ? names.map((name, place) =>
              el(
                "li",
                { class: "chip-on" },
                `${labelOf(name)} ${METRICS[name]?.[2] === "lower" ? "↓" : "↑"}`,
                place > 0 &&
                  button(`Make ${labelOf(name)} the first`, {
                    icon: "star",
                    kind: "quiet",
                    bare: true,
                    onClick: () => say([name, ...names.filter((each) => each !== name)]),
                  }),
                button(`Remove ${labelOf(name)}`, {
                  icon: "close",
                  kind: "quiet",
                  bare: true,
                  onClick: () => say(names.filter((each) => each !== name)),
                }),
              ),
            )
          : el("li", { class: "chip-on usual" }, "Output throughput ↑ (default)"),
      ),
      field(
        "Improve",
        select(
          [
            ["", "Add an objective …"],
            ...free.map((name) => [name, `${labelOf(name)} (${METRICS[name][2]} is better)`]),
          ],
          "",
          {
            onChange: (name) => name && say([...names, name]),
            dataset: { key: "objective-add" },
          },
        ),
        { hint: "With several, the report shows what none beats in all; the first decides between equals." },
      ),
    );
  }

  draw();
  return host;
}

/** The rows of service levels. */
export function serviceLevels(draft) {
  const host = el("div", { class: "slo", dataset: { where: "slo" } });
  const slo = () => draft.at(["slo"]) ?? {};

  function draw(focus) {
    const penalty = slo().mode === "penalty";
    const more = Object.keys(METRICS).filter((name) => !UNBOUNDED.includes(name) && !rowsOf(slo()).includes(name));
    host.replaceChildren(
      el(
        "div",
        { class: "fields" },
        fieldOf(draft, [], {
          path: ["slo", "mode"],
          label: "What breaking one does",
          as: "select",
          options: ["constraint", "penalty"],
          usual: "constraint",
          redraw: ["slo"],
          help: "constraint: the trial cannot be the best. penalty: its objectives get worse.",
        }),
        (penalty || slo().steepness !== undefined) &&
          fieldOf(draft, [], {
            path: ["slo", "steepness"],
            label: "Steepness",
            as: "number",
            from: 0,
            usual: "0.1",
            help: "Of the penalty's curve; the smaller, the steeper.",
          }),
        profile(),
      ),
      el(
        "div",
        { class: "scroll" },
        el(
          "table",
          { class: "compact slo-rows" },
          el("caption", { class: "unseen" }, "Service levels"),
          el(
            "thead",
            {},
            el(
              "tr",
              {},
              ["", "Metric", "Bound", "Weight", "Hard", "Fails beyond"].map((title) =>
                el("th", { scope: "col" }, title || el("span", { class: "unseen" }, "On")),
              ),
            ),
          ),
          el("tbody", {}, rowsOf(slo()).map(row)),
        ),
      ),
      field(
        "Another bound",
        select([["", "Add a metric …"], ...more.map((name) => [name, labelOf(name)])], "", {
          onChange: (name) => {
            if (!name) return;
            draft.put(["slo", name], { [boundOf(name)]: METRICS[name][2] === "lower" ? 1 : 1 });
            draw(`slo.${name}-bound`);
          },
        }),
      ),
    );
    if (focus) host.querySelector(`[data-key="${CSS.escape(focus)}"]`)?.focus();
  }

  function profile() {
    const control = el("input", {
      type: "text",
      value: slo().profile ?? "",
      placeholder: "none",
      autocomplete: "off",
      list: suggestions(draft, "slo-profiles", SLO_PROFILES),
      onInput: (event) => draft.put(["slo", "profile"], event.target.value.trim() || undefined),
    });
    const node = field("Profile", control, { hint: "A set of bounds by name; the rows here go before." });
    node.dataset.where = "slo.profile";
    return node;
  }

  function row(name) {
    const written = () => slo()[name];
    const on = written() !== undefined && written() !== null;
    const said = on && typeof written() === "object" ? written() : {};
    const key = `slo.${name}`;
    const bound = said.min !== undefined ? "min" : said.max !== undefined ? "max" : boundOf(name);
    const say = (field, value) =>
      draft.put(["slo", name], withEntry(typeof written() === "object" ? (written() ?? {}) : {}, field, value));
    const number = (field, label, usual, more = {}) =>
      el("input", {
        type: "text",
        inputmode: "decimal",
        class: "short",
        placeholder: usual,
        value: said[field] === undefined || said[field] === null ? "" : textOf(said[field]),
        "aria-label": `${labelOf(name)}: ${label}`,
        disabled: !on,
        onInput: (event) => say(field, event.target.value.trim() ? valueOf(event.target.value) : undefined),
        ...more,
      });
    return el(
      "tr",
      { dataset: { where: key } },
      el(
        "td",
        {},
        el("input", {
          type: "checkbox",
          checked: on,
          "aria-label": `Bound ${labelOf(name)}`,
          dataset: { key: `${key}-on` },
          onChange: (event) => {
            draft.put(["slo", name], event.target.checked ? usualOf(name) : undefined);
            draw(event.target.checked ? `${key}-bound` : `${key}-on`);
          },
        }),
      ),
      el("th", { scope: "row" }, statistic(name, on)),
      el(
        "td",
        { class: "bound" },
        el("span", { class: "soft" }, bound === "min" ? "≥ " : "≤ "),
        number(bound, "bound", on ? "" : String(usualOf(name)[bound] ?? ""), { dataset: { key: `${key}-bound` } }),
        el("span", { class: "soft" }, ` ${METRICS[name]?.[1] ?? ""}`),
      ),
      el("td", {}, number("weight", "weight", "1")),
      el(
        "td",
        {},
        el("input", {
          type: "checkbox",
          checked: said.hard === true,
          disabled: !on,
          "aria-label": `${labelOf(name)}: hard`,
          dataset: { key: `${key}-hard` },
          onChange: (event) => {
            say("hard", event.target.checked || undefined);
            draw(`${key}-hard`);
          },
        }),
      ),
      el(
        "td",
        {},
        number("fail_ratio", "fails beyond this share over the bound", "0.5", {
          disabled: !on || (said.hard !== true && said.fail_ratio === undefined),
        }),
      ),
    );
  }

  /** The metric of a row; TTFT and TPOT let one choose the statistic. */
  function statistic(name, on) {
    const family = name.match(/^(ttft|tpot)_/)?.[1];
    if (!family || !on) return labelOf(name);
    const options = Object.keys(METRICS).filter(
      (each) => each.startsWith(`${family}_`) && (each === name || !(each in slo())),
    );
    return select(
      options.map((each) => [each, labelOf(each)]),
      name,
      {
        "aria-label": `Statistic of ${family.toUpperCase()}`,
        onChange: (next) => {
          const entries = Object.entries(slo()).map(([key, value]) => [key === name ? next : key, value]);
          draft.put(["slo"], Object.fromEntries(entries));
          draw();
        },
      },
    );
  }

  draw();
  return host;
}

/** The short constraints, where a file has them. */
export function constraints(draft) {
  return fieldOf(draft, [], {
    path: ["constraints"],
    label: "Constraints",
    as: "pairs",
    noun: "constraint",
    help: "The short form of a row above: metric and bound.",
  });
}

function labelOf(name) {
  return METRICS[name]?.[0] ?? name;
}

function boundOf(name) {
  return METRICS[name]?.[2] === "higher" ? "min" : "max";
}

function usualOf(name) {
  const family = FAMILIES.find(([, pattern]) => pattern.test(name));
  return family ? { ...family[3] } : { [boundOf(name)]: 1 };
}

function withEntry(block, key, value) {
  const { [key]: _, ...others } = block;
  return value === undefined ? others : { ...block, [key]: value };
}
