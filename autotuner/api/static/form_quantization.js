// Number formats: none, ready-made sets, or four fields with one or several values each.

import { FORMATS, FORMAT_LABELS, FORMAT_PRESETS, FORMAT_SPELLINGS } from "./form_fields.js";
import { el, engineName } from "./ui.js";

const SHOWN = 10;
const MODES = [
  ["none", "None"],
  ["presets", "Ready-made"],
  ["fields", "Single formats"],
];

/** The block under its own names, every field a list. */
export function formatsOf(block) {
  const said = {};
  for (const [key, value] of Object.entries(block ?? {})) {
    if (value !== null) said[FORMAT_SPELLINGS[key] ?? key] = [value].flat();
  }
  return said;
}

/** What of the form a block is shown as. */
export function modeOf(block) {
  const said = formatsOf(block);
  if (said.presets?.length) return "presets";
  return block && typeof block === "object" ? "fields" : "none";
}

/** A field's values as they are written: one alone as itself, auto alone not at all. */
export function writtenFormats(values, order) {
  const chosen = order.filter((each) => values.includes(each));
  if (!chosen.length || (chosen.length === 1 && chosen[0] === "auto")) return undefined;
  return chosen.length === 1 ? chosen[0] : chosen;
}

/** The part of the form for `quantization`. */
export function quantization(draft) {
  const host = el("div", { class: "quantization", dataset: { where: "quantization" } });
  let mode = modeOf(draft.at(["quantization"]));
  const kept = { presets: {}, fields: {} };

  function say(block) {
    const empty = !block || !Object.keys(block).length;
    draft.put(["quantization"], empty ? undefined : block);
  }

  function unknown() {
    const known = new Set([...Object.keys(FORMATS), "presets"]);
    return Object.fromEntries(
      Object.entries(formatsOf(draft.at(["quantization"])))
        .filter(([key]) => !known.has(key))
        .map(([key, values]) => [key, values.length === 1 ? values[0] : values]),
    );
  }

  function to(next) {
    if (mode !== "none") kept[mode] = draft.at(["quantization"]) ?? {};
    mode = next;
    say(mode === "none" ? undefined : kept[mode]);
    draw();
  }

  function tick(label, checked, onChange, hint) {
    return el(
      "label",
      { class: "tick" },
      el("input", { type: "checkbox", checked, onChange }),
      el("span", {}, label, hint && el("small", { class: "soft" }, hint)),
    );
  }

  function ready() {
    const chosen = formatsOf(draft.at(["quantization"])).presets ?? [];
    return el(
      "fieldset",
      { class: "ticks tall", dataset: { where: "quantization.presets" } },
      el("legend", {}, "Sets; several are searched"),
      Object.entries(FORMAT_PRESETS).map(([name, why]) =>
        tick(
          name,
          chosen.includes(name),
          (event) => {
            const now = formatsOf(draft.at(["quantization"])).presets ?? [];
            const values = Object.keys(FORMAT_PRESETS).filter((each) =>
              each === name ? event.target.checked : now.includes(each),
            );
            say({ ...unknown(), ...(values.length && { presets: values }) });
          },
          why,
        ),
      ),
    );
  }

  function single() {
    return el(
      "div",
      { class: "formats" },
      Object.entries(FORMATS).map(([name, order]) => {
        const chosen = formatsOf(draft.at(["quantization"]))[name] ?? ["auto"];
        return el(
          "fieldset",
          { class: "ticks", dataset: { where: `quantization.${name}` } },
          el("legend", {}, FORMAT_LABELS[name]),
          order.map((value) =>
            tick(value, chosen.includes(value), (event) => {
              const now = formatsOf(draft.at(["quantization"]));
              const values = (now[name] ?? ["auto"]).filter((each) => each !== value);
              if (event.target.checked) values.push(value);
              const others = Object.fromEntries(
                Object.keys(FORMATS)
                  .filter((each) => each !== name)
                  .map((each) => [each, writtenFormats(now[each] ?? ["auto"], FORMATS[each])])
                  .filter(([, written]) => written !== undefined),
              );
              const written = writtenFormats(values, order);
              say({ ...unknown(), ...others, ...(written !== undefined && { [name]: written }) });
              draw();
              host.querySelector(`[data-where="quantization.${name}"] input[data-value="${value}"]`)?.focus();
            }),
          ),
        );
      }),
    );
  }

  function draw() {
    const group = `mode-${host.id}`;
    host.replaceChildren(
      el(
        "fieldset",
        { class: "modes" },
        el("legend", { class: "unseen" }, "Number formats"),
        MODES.map(([key, label]) =>
          el(
            "label",
            {},
            el("input", {
              type: "radio",
              name: group,
              checked: mode === key,
              onChange: () => to(key),
            }),
            label,
          ),
        ),
      ),
      mode === "presets" ? ready() : mode === "fields" ? single() : "",
      mode === "none" ? "" : preview,
    );
    for (const each of host.querySelectorAll(".ticks label.tick")) {
      each.firstChild.dataset.value = each.lastChild.firstChild.textContent;
    }
  }

  const preview = el("div", { class: "mapped", "aria-live": "polite" });
  draft.draws("mapped", () => preview.replaceChildren(...mapped(draft.plan?.quantization)));
  draw();
  return host;
}

/** The arguments that the service makes of the formats, by engine: the first ten, all counted. */
function mapped(plan) {
  return Object.entries(plan ?? {}).map(([kind, { count, arguments: listed, notes }]) => {
    const first = listed.slice(0, SHOWN);
    return el(
      "section",
      {},
      el(
        "h4",
        {},
        `Mapped arguments for ${engineName(kind)} (${count} ${count === 1 ? "combination" : "combinations"})`,
      ),
      el(
        "ol",
        {},
        first.map((each) => el("li", {}, el("code", {}, flagsText(each)))),
      ),
      count > first.length && el("p", { class: "soft" }, `… and ${count - first.length} more combinations`),
      notes.map((note) => el("p", { class: "soft" }, note)),
    );
  });
}

function flagsText(flags) {
  const words = Object.entries(flags).map(([name, value]) =>
    value === true ? `--${name}` : `--${name} ${typeof value === "object" ? JSON.stringify(value) : value}`,
  );
  return words.join(" ") || "(no flags: the engine's own choice)";
}
