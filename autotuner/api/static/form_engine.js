// Engine and backend: which kinds, and the settings of each.

import { path as address, read } from "./api.js";
import { at, put } from "./form_content.js";
import { BACKENDS, ENGINE_FIELDS } from "./form_fields.js";
import { fieldsOf } from "./form_inputs.js";
import { button, el, engineName, field, select } from "./ui.js";

/** The content for several engines: what was said of the only one goes under its kind. */
export function withEngines(content, kinds) {
  const [first] = [content.engine?.kind].flat();
  const { kind: _, settings = {}, ...engine } = content.engine ?? {};
  if (Array.isArray(content.engine?.kind)) {
    const kept = (block) => Object.fromEntries(Object.entries(block ?? {}).filter(([kind]) => kinds.includes(kind)));
    const moved = put(
      { ...content, engine: { ...content.engine, kind: kinds } },
      ["engine", "settings"],
      kept(settings),
    );
    return put(moved, ["space"], kept(content.space));
  }
  const { nothing, ...own } = split(engine);
  const moved = { ...content, engine: { kind: kinds, ...nothing } };
  const settled = put(moved, ["engine", "settings", first], own);
  return put(
    settled,
    ["space"],
    content.space && Object.keys(content.space).length ? { [first]: content.space } : undefined,
  );
}

/** The content for one of its engines. */
export function withEngine(content, kind) {
  const settings = content.engine?.settings?.[kind] ?? {};
  const { kind: _, settings: __, ...rest } = content.engine ?? {};
  return put({ ...content, engine: { kind, ...rest, ...settings } }, ["space"], content.space?.[kind]);
}

function split(engine) {
  const names = ENGINE_FIELDS.map((each) => each.path[0]);
  const own = Object.entries(engine).filter(([name]) => names.includes(name));
  const others = Object.entries(engine).filter(([name]) => !names.includes(name));
  return { ...Object.fromEntries(own), nothing: Object.fromEntries(others) };
}

/** The part of the form for `engine`. */
export function engineSection(draft) {
  const kinds = draft.kinds;
  const known = (draft.engines ?? []).map((each) => each.kind);
  const free = known.filter((kind) => !kinds.includes(kind));
  const another = select([["", "Compare with another engine …"], ...free.map((kind) => [kind, engineName(kind)])], "", {
    "aria-label": "Compare with another engine",
    dataset: { key: "engine-add" },
    onChange: (kind) => kind && choose(withEngines(draft.content, [...kinds, kind])),
  });

  function choose(content) {
    draft.change(content, { redraw: ["engine", "space", "presets"] });
    draft.catalogsWanted();
  }

  if (!draft.several) {
    const options = [...new Set([...known, ...kinds])];
    const control = select(
      options.map((kind) => [kind, engineName(kind)]),
      kinds[0] ?? "",
      {
        dataset: { key: "engine.kind" },
        onChange: (kind) => choose(put(draft.content, ["engine", "kind"], kind)),
      },
    );
    if (!kinds.length) control.prepend(el("option", { value: "", selected: true }, "Choose an engine …"));
    const node = field("Engine", control);
    node.dataset.where = "engine.kind";
    const several = free.length > 0 && kinds.length > 0 && el("div", {}, another);
    return [fieldsOf(draft, ["engine"], ENGINE_FIELDS, [node]), several];
  }
  return [
    el(
      "ol",
      { class: "chips", "aria-label": "Engines", dataset: { where: "engine.kind" } },
      kinds.map((kind, place) =>
        el(
          "li",
          { class: "chip-on" },
          engineName(kind) + (place === 0 ? " (baseline)" : ""),
          place > 0 &&
            button(`Make ${engineName(kind)} the baseline`, {
              icon: "star",
              kind: "quiet",
              bare: true,
              onClick: () => choose(withEngines(draft.content, [kind, ...kinds.filter((each) => each !== kind)])),
            }),
          button(`Take ${engineName(kind)} out`, {
            icon: "close",
            kind: "quiet",
            bare: true,
            onClick: () => {
              const rest = kinds.filter((each) => each !== kind);
              choose(rest.length > 1 ? withEngines(draft.content, rest) : withEngine(draft.content, rest[0]));
            },
          }),
        ),
      ),
    ),
    free.length > 0 && another,
    kinds.map((kind) =>
      el(
        "section",
        { class: "sub" },
        el("h3", {}, engineName(kind)),
        fieldsOf(draft, draft.enginePath(kind), ENGINE_FIELDS),
      ),
    ),
  ];
}

/** The part of the form for `backend`. */
export function backendSection(draft) {
  const kind = at(draft.content, ["backend", "kind"]) ?? "";
  const options = [...new Set([...Object.keys(BACKENDS), ...(kind ? [kind] : [])])];
  const control = select(
    [
      ["", "process (default)"],
      ...options.filter((each) => each !== "process" || kind === "process").map((each) => [each]),
    ],
    kind,
    {
      dataset: { key: "backend.kind" },
      onChange: (chosen) => draft.put(["backend", "kind"], chosen || undefined, { redraw: ["backend"] }),
    },
  );
  const node = field("Where servers run", control, {
    hint: "process: a program on the trial's machine; docker: a container there; ome: an InferenceService on Kubernetes.",
  });
  node.dataset.where = "backend.kind";
  const fields = BACKENDS[kind || "process"] ?? [];
  return fieldsOf(draft, ["backend", kind || "process"], fields, [node]);
}

/** The catalogs of the study's engines, where they are not known yet; calls `then` for news. */
export async function catalogs(draft, signal, then) {
  for (const kind of draft.kinds) {
    const known = draft.engines?.find((each) => each.kind === kind);
    const said = at(draft.content, [...draft.enginePath(kind), "version"]);
    const version = known?.versions.includes(said) ? said : (known?.default ?? known?.versions.at(-1));
    if (!version || draft.catalogs.get(kind)?.version === version) continue;
    try {
      const answer = await read(`${address("engines", kind, version)}/flags`, {}, { signal });
      if (signal.aborted) return;
      draft.catalogs.set(kind, answer);
      then();
    } catch (error) {
      // Without a catalog names are not completed; the service still checks them.
      if (error.name !== "Problem") throw error;
    }
  }
}
