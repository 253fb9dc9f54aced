// Presets: ready-made search spaces, shipped or the service's own.

import { keepQuery, mayChange } from "./app.js";
import { download, path as address, read, send } from "./api.js";
import { attempt, confirmed, dialog, toast, toastProblem } from "./dialogs.js";
import { Draft } from "./form_draft.js";
import { catalogs } from "./form_engine.js";
import { engineBadge } from "./form_presets.js";
import { placeProblems } from "./form_problems.js";
import { rowOf, sizeOf, spaceRows } from "./form_space.js";
import { same, textOf, textOfValues } from "./form_values.js";
import { sheet } from "./sheet.js";
import { badge, button, counted, el, empty, engineName, field, fill, linkButton, problemNote, select } from "./ui.js";

export const views = [{ path: "/presets", title: "Presets", render }];

const place = (name) => address("presets", ...name.split("/"));

async function render(root, { query }, signal) {
  const [engines, may] = await Promise.all([
    read("engines", {}, { signal }).then(
      (answer) => answer.items,
      () => [],
    ),
    mayChange(),
    sheet("form.css"),
  ]);
  if (signal.aborted) return;
  const asked = { engine: query.get("engine") ?? "", category: query.get("category") ?? "" };
  const filters = el("div", { class: "filters" });
  const count = el("span", { class: "soft", role: "status" });
  const body = el("div");
  const chooser = el("input", {
    type: "file",
    accept: ".yaml,.yml,.json",
    class: "unseen",
    tabindex: "-1",
    "aria-label": "File of presets",
    onChange: () => chooser.files[0] && taken(chooser.files[0]),
  });

  async function refresh() {
    keepQuery(asked);
    try {
      const answer = await read("presets", asked, { signal });
      if (signal.aborted) return;
      fill(
        filters,
        field(
          "Engine",
          select([["", "All"], ...engines.map(({ kind }) => [kind, engineName(kind)])], asked.engine, {
            dataset: { key: "engine" },
            onChange: (engine) => (Object.assign(asked, { engine }), refresh()),
          }),
        ),
        field(
          "Category",
          select([["", "All"], ...answer.categories.map((each) => [each])], asked.category, {
            dataset: { key: "category" },
            onChange: (category) => (Object.assign(asked, { category }), refresh()),
          }),
        ),
      );
      count.textContent = counted(answer.items.length, "preset");
      exported.disabled = !answer.items.length;
      exported.onclick = () =>
        download("presets/export", { name: answer.items.map((each) => each.name) }, "presets.yaml").catch(toastProblem);
      fill(
        body,
        (answer.problems ?? []).map((each) => el("p", { class: "note" }, each)),
        answer.items.length
          ? el(
              "div",
              { class: "preset-cards" },
              answer.items.map((each) => card(each, actions(each))),
            )
          : empty(
              "No such preset",
              el(
                "p",
                {},
                asked.engine || asked.category ? "Choose other filters, or make one." : "Make one, or import a file.",
              ),
            ),
      );
    } catch (error) {
      if (error.name !== "AbortError") fill(body, problemNote(error, { retry: refresh }));
    }
  }

  function actions(preset) {
    const name = preset.name;
    return [
      linkButton("Use in a new study", `#/new?preset=${encodeURIComponent(name)}`, { icon: "plus" }),
      may &&
        button(preset.own ? `Edit ${name}` : `Change ${name}: a preset of your own goes before it`, {
          icon: "edit",
          kind: "quiet",
          bare: true,
          onClick: () => edited(preset),
        }),
      button(`Export ${name}`, {
        icon: "download",
        kind: "quiet",
        bare: true,
        onClick: () => download("presets/export", { name }, `${name.split("/").at(-1)}.yaml`).catch(toastProblem),
      }),
      may &&
        preset.own &&
        button(`Delete ${name}`, { icon: "trash", kind: "quiet", bare: true, onClick: () => deleted(preset) }),
    ];
  }

  async function edited(preset) {
    const saved = await presetDialog(preset, { engines, signal });
    if (saved) {
      toast(`Saved ${saved.name}`, { kind: "good" });
      refresh();
    }
  }

  async function deleted(preset) {
    const sure = await confirmed({
      title: `Delete ${preset.name}?`,
      body: preset.shadows
        ? "The shipped preset of this name is then used again."
        : "Studies that were made with it keep their rows.",
      action: "Delete",
    });
    if (sure && (await attempt(() => send("DELETE", place(preset.name)), `Deleted ${preset.name}`))) refresh();
  }

  async function taken(file) {
    const answer = await attempt(async () => send("POST", "presets/import", await file.text()));
    chooser.value = "";
    if (!answer) return;
    const skipped = answer.skipped.length ? `; there already: ${answer.skipped.join(", ")}` : "";
    toast(`Imported ${counted(answer.items.length, "preset")}${skipped}`, { kind: "good" });
    refresh();
  }

  const exported = button("Export all shown", { icon: "download" });
  root.append(
    el(
      "div",
      { class: "page-head" },
      el("h1", {}, "Presets"),
      count,
      el(
        "div",
        { class: "actions" },
        exported,
        may && button("Import a file", { onClick: () => chooser.click() }),
        may && button("New preset", { icon: "plus", kind: "primary", onClick: () => edited(null) }),
        chooser,
      ),
    ),
    filters,
    body,
  );
  await refresh();
}

function card(preset, actions) {
  return el(
    "article",
    { class: "card preset-card", "aria-label": preset.name },
    el("header", {}, el("h2", {}, preset.name)),
    el(
      "div",
      { class: "badges" },
      engineBadge(preset.engine),
      badge(preset.category),
      preset.own && badge(preset.shadows ? "own, before the shipped one" : "own", "good"),
    ),
    el("p", { class: "soft" }, preset.why),
    el(
      "ul",
      { class: "values", tabindex: "0", role: "list", "aria-label": `Parameters of ${preset.name}` },
      Object.entries(preset.parameters).map(([name, domain]) =>
        el(
          "li",
          { title: domainText(domain) },
          el("code", {}, name),
          el("span", { class: "soft nowrap" }, sizeText(domain)),
        ),
      ),
    ),
    el("div", { class: "actions" }, actions),
  );
}

function sizeText(domain) {
  const size = sizeOf(domain);
  return size === null ? "a range" : counted(size, "value");
}

/** A domain in one line. */
export function domainText(domain) {
  const row = rowOf(domain);
  const when = Object.keys(row.when).length ? `, only when ${JSON.stringify(row.when)}` : "";
  if (row.kind === "choice") return textOfValues(row.values) + when;
  return `${textOf(row.low)} to ${textOf(row.high)}${row.step ? ` by ${row.step}` : ""}${row.log ? ", logarithmic" : ""}${when}`;
}

/** What of a preset is another than it was; what goes into a PATCH. */
export function changedFields(before, after) {
  return Object.fromEntries(Object.entries(after).filter(([key, value]) => !same(value, before[key])));
}

/** A dialog that makes or changes a preset; resolves to the saved one, or null. */
function presetDialog(preset, { engines, signal }) {
  const draft = new Draft({ engine: { kind: preset?.engine ?? "" }, space: preset?.parameters ?? {} });
  Object.assign(draft, { engines });
  const text = (label, value, hint, more = {}) => {
    const input = el("input", { type: "text", value, autocomplete: "off", spellcheck: "false", ...more });
    const node = field(label, input, { hint });
    return { input, node };
  };
  const name = text("Name", preset?.name ?? "", "Parts joined by /, such as team/long-prompts.", { required: true });
  const why = text("Why", preset?.why ?? "", "What it is for.");
  const category = text("Category", preset?.category ?? "general", "");
  name.node.dataset.where = "name";
  why.node.dataset.where = "why";
  category.node.dataset.where = "category";
  const rows = el("div", { dataset: { where: "parameters" } });
  const kindOf = () => draft.at(["engine", "kind"]) || "any";
  const draw = () => fill(rows, spaceRows(draft, kindOf(), { empty: "No flags yet." }));
  const engine = select(
    [["", "universal"], ...engines.map(({ kind }) => [kind, engineName(kind)])],
    preset?.engine ?? "",
    {
      onChange: (kind) => {
        draft.put(["engine", "kind"], kind);
        draw();
        catalogs(draft, signal, draw);
      },
    },
  );
  const failed = el("div", { role: "alert" });
  draw();
  catalogs(draft, signal, draw);

  async function save(close) {
    const said = {
      name: name.input.value.trim(),
      why: why.input.value.trim(),
      engine: engine.value || null,
      category: category.input.value.trim() || "general",
      parameters: draft.at(["space"]) ?? {},
    };
    try {
      if (!preset?.own) return close(await send("POST", "presets", said));
      const changes = changedFields(preset, said);
      return close(Object.keys(changes).length ? await send("PATCH", place(preset.name), changes) : preset);
    } catch (error) {
      const problems = (error.errors ?? []).map((each) => ({
        ...each,
        where: each.where.replace(/^(body|parameters|space)\./, "space."),
      }));
      const left = placeProblems(failed.closest("dialog"), problems);
      if (left.length || !problems.length)
        fill(failed, el("p", { class: "note bad reason" }, error.detail || error.message));
      return null;
    }
  }

  return dialog({
    title: preset ? (preset.own ? `Edit ${preset.name}` : `Your own ${preset.name}`) : "New preset",
    wide: true,
    content: () =>
      [
        preset &&
          !preset.own &&
          el(
            "p",
            { class: "note info" },
            "A shipped preset stays as it is. Yours of the same name goes before it, here and on the command line.",
          ),
        el("div", { class: "fields" }, name.node, field("Engine", engine), category.node, why.node),
        rows,
        failed,
        draft.lists,
      ].filter(Boolean),
    actions: (close) => [
      button("Cancel", { onClick: () => close() }),
      button("Save", { kind: "primary", onClick: () => save(close) }),
    ],
  });
}
