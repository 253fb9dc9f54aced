// Presets in the form: chosen by name, merged by the service, filled into rows that stay editable.

import { send, read } from "./api.js";
import { toastProblem } from "./dialogs.js";
import { at, put } from "./form_content.js";
import { same } from "./form_values.js";
import { badge, button, el, engineName, field, select } from "./ui.js";

export const MERGES = [
  ["union", "union: all values"],
  ["intersection", "intersection: what they have in common"],
  ["last_wins", "the last one wins"],
];

/** The space with other rows of presets: what a person has changed since stays. */
export function filled(space, before, merged) {
  const own = Object.entries(space ?? {}).filter(
    ([name, domain]) => !(Object.hasOwn(before, name) && same(domain, before[name])),
  );
  const kept = Object.fromEntries(own);
  const added = Object.entries(merged).filter(([name]) => !Object.hasOwn(kept, name));
  // A row that a person took out stays out while the same preset is applied.
  const wanted = added.filter(([name]) => !Object.hasOwn(before, name) || Object.hasOwn(space ?? {}, name));
  return { ...kept, ...Object.fromEntries(wanted) };
}

/** Which of these presets are for an engine. */
export function presetsFor(presets, names, kind) {
  return names.filter((name) => {
    const engine = presets.find((each) => each.name === name)?.engine ?? null;
    return engine === null || engine === kind;
  });
}

/** The part of the form that applies presets: its node, and `apply(names)`. */
export function presetPicker(draft, signal) {
  const host = el("div", { class: "presets", dataset: { where: "presets" } });
  const applied = draft.applied;

  async function apply(names, how) {
    const merged = {};
    const conflicts = [];
    try {
      for (const kind of draft.kinds) {
        const own = presetsFor(draft.presets, names, kind);
        const answer = own.length
          ? await send("POST", "presets/merge", { names: own, how }, { signal })
          : { parameters: {}, conflicts: [] };
        merged[kind] = answer.parameters;
        conflicts.push(...answer.conflicts);
      }
    } catch (error) {
      toastProblem(error);
      return;
    }
    let content = put(put(draft.content, ["presets"], undefined), ["merge"], undefined);
    for (const kind of draft.kinds) {
      const path = draft.spacePath(kind);
      const rows = filled(at(content, path), applied.parameters[kind] ?? {}, merged[kind]);
      content = put(content, path, Object.keys(rows).length ? rows : undefined);
    }
    Object.assign(applied, { names, how, parameters: merged, conflicts });
    draft.change(content, { redraw: ["space"] });
    draw();
  }

  function draw() {
    const named = draft.at(["presets"]) ?? [];
    const free = draft.presets.filter(
      (each) => !applied.names.includes(each.name) && (each.engine === null || draft.kinds.includes(each.engine)),
    );
    const chosen = select(
      [
        ["", "Apply a preset …"],
        ...free.map((each) => [each.name, `${each.name}: ${Object.keys(each.parameters).length} parameters`]),
      ],
      "",
      {
        dataset: { key: "preset-add" },
        onChange: (name) => name && apply([...applied.names, name], applied.how),
      },
    );
    host.replaceChildren(
      ...(Array.isArray(named) && named.length ? [fromFile(named)] : []),
      el(
        "div",
        { class: "fields" },
        field("Presets", chosen, {
          hint: "Ready-made spaces. They fill the rows below, which stay yours to change.",
        }),
        applied.names.length > 1 &&
          field(
            "Merged as",
            select(MERGES, applied.how, {
              onChange: (how) => apply(applied.names, how),
            }),
          ),
      ),
      applied.names.length
        ? el(
            "ul",
            { class: "chips", "aria-label": "Applied presets" },
            applied.names.map((name) =>
              el(
                "li",
                { class: "chip-on" },
                name,
                button(`Remove the preset ${name}`, {
                  icon: "close",
                  kind: "quiet",
                  bare: true,
                  onClick: () =>
                    apply(
                      applied.names.filter((each) => each !== name),
                      applied.how,
                    ),
                }),
              ),
            ),
          )
        : "",
      applied.conflicts.length
        ? el(
            "div",
            { class: "conflicts", role: "status" },
            el("strong", {}, "The presets do not agree"),
            el(
              "ul",
              {},
              applied.conflicts.map((each) => el("li", {}, each)),
            ),
          )
        : "",
    );
  }

  function fromFile(named) {
    return el(
      "p",
      { class: "note" },
      "The file names presets, which are merged when it is read: ",
      el("code", {}, named.join(", ")),
      " ",
      button("Turn them into rows", {
        onClick: () => apply([...new Set([...applied.names, ...named])], draft.at(["merge"]) ?? applied.how),
      }),
    );
  }

  draw();
  return { node: host, apply: (names) => apply(names, applied.how) };
}

/** A preset's engine as a badge. */
export function engineBadge(engine) {
  return badge(engine === null ? "universal" : engineName(engine), `engine-${engine ?? "any"}`);
}

/** Every preset of the service; none, with a toast, where they cannot be read. */
export async function allPresets(signal) {
  try {
    return (await read("presets", {}, { signal })).items;
  } catch (error) {
    toastProblem(error);
    return [];
  }
}
