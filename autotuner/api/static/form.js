// A study to be written: a form and the YAML it makes, side by side; either can be edited.

import { beforeLeaving, go, mayChange } from "./app.js";
import { path as address, read, send } from "./api.js";
import { attempt, confirmed, toast, toastProblem } from "./dialogs.js";
import { freeName, ordered, put, unknownPlaces } from "./form_content.js";
import { Draft } from "./form_draft.js";
import { backendSection, catalogs, engineSection } from "./form_engine.js";
import { BENCHMARKS, FIELDS, PRIORS, SEARCHERS, knownPlaces } from "./form_fields.js";
import { fieldOf, fieldsOf } from "./form_inputs.js";
import { planPanel } from "./form_plan.js";
import { allPresets, presetPicker } from "./form_presets.js";
import { firstProblem, placeProblems } from "./form_problems.js";
import { quantization } from "./form_quantization.js";
import { constraints, objectives, serviceLevels } from "./form_slo.js";
import { spaceRows } from "./form_space.js";
import { same } from "./form_values.js";
import { sheet } from "./sheet.js";
import { button, counted, debounced, el, engineName, field, fill, linkButton, select } from "./ui.js";
import { yamlView } from "./yamlview.js";

const START = {
  engine: { kind: "vllm" },
  workload: { scenarios: ["D(512,128)"], concurrency: [8] },
};
const UNDER_WAY = ["STARTING", "RUNNING"];

/** The parts of the form: what they are about, the keys they are for, how they are drawn. */
const SECTIONS = [
  ["basics", "Basics", ["name", "description"], (draft) => fieldsOf(draft, [], FIELDS.basics)],
  ["model", "Model", ["model", "hardware"], (draft) => fieldsOf(draft, [], FIELDS.model)],
  ["engine", "Engine", ["engine"], engineSection],
  ["space", "Search space", ["space"], searchSpace],
  ["workload", "Workload", ["workload"], (draft) => fieldsOf(draft, [], FIELDS.workload)],
  ["objectives", "Objectives", ["objectives"], objectives],
  ["slo", "Service levels", ["slo", "constraints"], (draft) => [serviceLevels(draft), constraints(draft)]],
  ["quantization", "Quantization", ["quantization"], quantization],
  ["search", "Search", ["search", "scheduler", "prior"], searchSection],
  ["limits", "Limits", ["limits"], (draft) => fieldsOf(draft, [], FIELDS.limits)],
  ["verdict", "Verdict", ["verdict"], (draft) => fieldsOf(draft, [], FIELDS.verdict)],
  ["backend", "Backend", ["backend"], backendSection],
  [
    "benchmark",
    "Benchmark",
    ["benchmark"],
    (draft) => kindSection(draft, "benchmark", "Who measures", BENCHMARKS, "genai-bench"),
  ],
];
const FOLDED = ["verdict", "backend", "benchmark", "quantization", "limits"];

export const views = [
  { path: "/new", title: "New study", render: renderNew },
  { path: "/edit/:name", title: ({ name }) => `Edit ${name}`, render: renderEdit },
  { path: "/duplicate/:name", title: ({ name }) => `Duplicate ${name}`, render: renderDuplicate },
];

async function renderNew(root, params, signal) {
  const presets = params.query?.getAll("preset") ?? [];
  await render(root, { content: START, presets, mode: "new" }, signal);
}

async function renderEdit(root, { name }, signal) {
  const study = await read(address("studies", name), {}, { signal });
  const { content } = await send("POST", "convert", { yaml: study.yaml }, { signal });
  await render(root, { content, yaml: study.yaml, study, mode: "edit" }, signal);
}

async function renderDuplicate(root, { name }, signal) {
  const study = await read(address("studies", name), {}, { signal });
  const stem = name.replace(/-copy(-\d+)?$/, "");
  const others = await read("studies", { q: stem.slice(0, 40), per_page: 200 }, { signal });
  const { content } = await send("POST", "convert", { yaml: study.yaml }, { signal });
  const free = freeName(
    name,
    others.items.map((each) => each.name),
  );
  await render(root, { content: put(content, ["name"], free), from: name, mode: "duplicate" }, signal);
}

/** The whole view: heading with its buttons, the form, the YAML and the plan. */
async function render(root, { content, yaml: text, study, from, presets = [], mode }, signal) {
  const draft = new Draft(content);
  draft.applied = { names: [], how: "union", parameters: {}, conflicts: [] };
  const [known, engines] = await Promise.all([
    allPresets(signal),
    read("engines", {}, { signal }).then(
      (answer) => answer.items,
      () => [],
    ),
    sheet("form.css"),
  ]);
  const may = await mayChange();
  if (signal.aborted) return;
  Object.assign(draft, { presets: known, engines });

  const desk = workplace(draft, { mode, study, signal });
  const form = drawn(draft, signal);
  desk.attach(form);
  fill(
    root,
    el(
      "div",
      { class: "page-head form-head" },
      el("h1", {}, mode === "edit" ? `Edit ${study.name}` : mode === "duplicate" ? `Duplicate ${from}` : "New study"),
      desk.actions,
    ),
    study &&
      UNDER_WAY.includes(study.state) &&
      el(
        "p",
        { class: "note" },
        `${study.name} is ${study.state.toLowerCase()}: cancel it before it is changed. `,
        linkButton("Watch it", `#/studies/${study.name}`),
      ),
    !may &&
      el("p", { class: "note" }, "Your token may look, not save: what is written here can be copied from the YAML."),
    el("div", { class: "form-layout" }, form, el("div", { class: "form-side" }, desk.yaml.node, desk.plan.node)),
    draft.lists,
  );
  draft.lists.hidden = true;
  draft.catalogsWanted = () => catalogs(draft, signal, () => draft.redraw("space", "engine"));
  draft.catalogsWanted();
  if (text) desk.yaml.set(text);
  desk.begin(Boolean(text));
  if (presets.length) await applyPresets(draft, presets);
}

async function applyPresets(draft, names) {
  const preset = draft.presets.find((each) => each.name === names[0]);
  if (preset?.engine && !draft.kinds.includes(preset.engine)) {
    draft.put(["engine", "kind"], preset.engine, { redraw: ["engine", "space"] });
    draft.catalogsWanted();
  }
  await draft.applyPresets(names);
}

/** The form's sections, each drawn again by itself. */
function drawn(draft, signal) {
  const form = el("form", { class: "study-form", onSubmit: (event) => event.preventDefault(), "aria-label": "Study" });
  for (const [id, title, keys, draw] of SECTIONS) {
    const body = el("div", { class: "section-body", dataset: keys.length ? { where: keys[0] } : {} });
    const said = el("span", { class: "soft said" });
    const open = !FOLDED.includes(id) || keys.some((key) => draft.at([key]) !== undefined);
    form.append(
      el(
        "details",
        { class: "card form-section", id: `section-${id}`, open },
        el("summary", {}, el("h2", {}, title), said),
        body,
      ),
    );
    const tell = () => {
      said.textContent = keys.some((key) => draft.at([key]) !== undefined) ? "" : "as usual";
    };
    draft.onChange(tell);
    draft.draws(id, () => {
      tell();
      fill(body, ...[draw(draft, signal)].flat(Infinity));
    });
  }
  const others = el("p", { class: "soft kept" });
  const tellOthers = () => {
    const places = unknownPlaces(draft.content ?? {}, knownPlaces(draft.content));
    others.textContent = places.length ? `Only in the YAML, and kept as written: ${places.join(", ")}` : "";
  };
  draft.onChange(tellOthers);
  tellOthers();
  form.append(others);
  return form;
}

/** What keeps form, YAML and plan together, and saves. */
function workplace(draft, { mode, study, signal }) {
  const yaml = yamlView({ label: "The study as YAML", onType: typed });
  const plan = planPanel();
  const status = el("span", { class: "soft", role: "status" });
  const conversions = { asked: 0, answered: 0 };
  let form = null;
  let attempted = mode !== "new";
  let unread = false;
  /** The last conversion, to be asked for again: the service gave it no answer. */
  let unconverted = null;
  let saved = null;

  const convertForm = debounced(() => convert({ content: ordered(draft.content) }, written), 250);
  const convertYaml = debounced(
    () =>
      convert({ yaml: yaml.text() }, (answer) => {
        unread = answer.content === null;
        if (answer.content) draft.replace(answer.content);
        // A task of the earlier system has become the study that it is.
        if (answer.yaml !== yaml.text()) {
          yaml.set(answer.yaml);
          tellNotes(answer.notes);
        }
      }),
    400,
  );
  const planned = debounced(ask, 600);

  draft.onChange((by) => {
    if (by === "form") {
      unread = false;
      unconverted = null;
      conversions.asked += 1;
      convertForm();
    }
  });

  const tellNotes = (notes = []) => notes.length && toast("Read as a study", { detail: notes.join("\n") });

  /** The form's content as YAML, in place of what was there. */
  function written(answer) {
    const commented = /^\s*#|\s#\s/m;
    if (commented.test(yaml.text()) && !commented.test(answer.yaml)) {
      toast("The form has written the YAML anew, without the comments that were in it.");
    }
    yaml.set(answer.yaml);
  }

  function typed() {
    attempted = true;
    unread = true;
    unconverted = null;
    conversions.asked += 1;
    convertYaml();
  }

  async function convert(body, use) {
    const turn = conversions.asked;
    try {
      const answer = await send("POST", "convert", body, { signal });
      if (turn !== conversions.asked) return;
      unconverted = null;
      use(answer);
      show(answer.problems);
      if (!answer.problems.length) planned();
      else plan.rest();
    } catch (error) {
      if (turn !== conversions.asked || error.name === "AbortError") return;
      if (error.errors?.length) {
        show(error.errors);
        return;
      }
      unconverted = () => convert(body, use);
      toastProblem(error);
    } finally {
      conversions.answered = Math.max(conversions.answered, turn);
    }
  }

  function show(problems) {
    draft.problems = problems;
    const shown = attempted ? problems : problems.filter((each) => each.problem !== "is missing");
    placeProblems(form, shown);
    yaml.mark(shown);
    status.textContent = shown.length ? `${shown.length} ${shown.length === 1 ? "problem" : "problems"}` : "";
  }

  async function ask() {
    const turn = conversions.asked;
    // Something else is being written meanwhile; it is asked about when it can be read.
    if (conversions.answered < turn || draft.problems.length) return;
    plan.wait();
    try {
      const answer = await send("POST", "plan", yaml.text(), { signal });
      if (turn !== conversions.asked) return;
      draft.plan = answer;
      draft.redraw("mapped");
      plan.show(answer);
      show([]);
    } catch (error) {
      if (turn !== conversions.asked || error.name === "AbortError") return;
      plan.fail(error);
      if (error.errors?.length) show(error.errors);
    }
  }

  const dirty = () => unread || !same(draft.content, draft.saved);

  /** Save, and start where it is wanted. */
  async function submit(start) {
    attempted = true;
    await settled();
    if (unconverted) await unconverted().then(settled);
    // Form and YAML do not say the same: neither may be saved for the other. Why, has been said.
    if (unconverted) return;
    if (draft.problems.length || unread) {
      show(draft.problems);
      firstProblem(form)?.focus();
      return;
    }
    if (mode === "edit" && !(await mayReplace(study, signal))) return;
    const text = yaml.text();
    const row = await attempt(
      () =>
        mode === "edit"
          ? send("PUT", address("studies", study.name), text, { signal })
          : send("POST", "studies", text, { signal, query: start ? { start: true } : {} }),
      mode === "edit" ? "Saved" : start ? "Created and started" : "Created",
    );
    if (!row) return;
    if (mode === "edit" && start) {
      await attempt(() => send("POST", address("studies", row.name, "start"), undefined, { signal }), "Started");
    }
    if (row.notes?.length) toast("Taken as it was meant", { detail: row.notes.join("\n") });
    draft.saved = draft.content;
    unread = false;
    saved = row;
    beforeLeaving(() => true);
    go(`/studies/${encodeURIComponent(row.name)}`);
  }

  /** Once form and YAML say the same again. */
  async function settled() {
    while (conversions.answered < conversions.asked && !signal.aborted) {
      await new Promise((resolve) => setTimeout(resolve, 30));
    }
  }

  const verb = mode === "edit" ? "Save" : "Create";
  const actions = el(
    "div",
    { class: "actions" },
    status,
    linkButton("Discard", study ? `#/studies/${encodeURIComponent(study.name)}` : "#/studies", { kind: "quiet" }),
    button(verb, { onClick: () => submit(false) }),
    button(`${verb} and start`, { icon: "play", kind: "primary", onClick: () => submit(true) }),
  );

  beforeLeaving(
    () =>
      saved ||
      !dirty() ||
      confirmed({
        title: "Leave without saving?",
        body: "What was written here is not saved.",
        action: "Leave",
        keep: "Stay",
      }),
  );
  addEventListener(
    "beforeunload",
    (event) => {
      if (!saved && dirty()) event.preventDefault();
    },
    { signal },
  );

  return {
    yaml,
    plan,
    actions,
    attach: (node) => {
      form = node;
    },
    begin(asWritten) {
      conversions.asked += 1;
      if (asWritten) {
        convert({ yaml: yaml.text() }, () => {});
        return;
      }
      convert({ content: ordered(draft.content) }, written);
    },
  };
}

/**
 * Whether a study may be replaced: its results, and what became of it since the form was opened (it
 * ran, or was edited elsewhere), go only when a person says so. It is read again for that.
 */
async function mayReplace(opened, signal) {
  const now = await attempt(() => read(address("studies", opened.name), {}, { signal }));
  if (!now) return false;
  const changed = now.event !== opened.event;
  const results = ended(now);
  if (!changed && !results) return true;
  return confirmed({
    title: results ? `Save ${opened.name} and delete its results?` : `Save ${opened.name} over what it is now?`,
    body: [changed && sinceOpened(opened, now), results && lostBy(results)].filter(Boolean).join("\n\n"),
    action: results ? "Save and delete the results" : "Save over it",
    keep: results ? "Keep the results" : "Do not save",
  });
}

const sinceOpened = (opened, now) =>
  now.yaml === opened.yaml
    ? `It has changed since this form was opened, and is ${now.state.toLowerCase()} now.`
    : "It was edited elsewhere since this form was opened. Saving puts what is written here in the place of that edit.";

const lostBy = (results) =>
  `It has been measured. Its ${counted(results, "trial")}, their logs and the verdict belong to the question as it was; saving deletes them. To keep them, duplicate the study instead.`;

/** How many of a study's trials have ended: what an edit of it would lose. */
function ended({ counts = {} }) {
  const { COMPLETE = 0, INFEASIBLE = 0, STOPPED = 0, FAILED = 0, CANCELLED = 0, REFUSED = 0 } = counts;
  return COMPLETE + INFEASIBLE + STOPPED + FAILED + CANCELLED + REFUSED;
}

/* Sections that are more than their fields */

function searchSpace(draft, signal) {
  const picker = presetPicker(draft, signal);
  draft.applyPresets = (names) => picker.apply(names);
  return [
    picker.node,
    draft.kinds.map((kind) => [draft.several && el("h3", {}, engineName(kind)), spaceRows(draft, kind)]),
  ];
}

function searchSection(draft) {
  return [
    kindSection(draft, "search", "Searcher", SEARCHERS, "optuna", "search", FIELDS.search),
    el("section", { class: "sub" }, el("h3", {}, "Early stopping"), scheduler(draft)),
    el("section", { class: "sub" }, el("h3", {}, "Prior"), prior(draft)),
  ];
}

/** A block with a kind and the options of that kind; those of another kind go with it. */
function kindSection(draft, block, label, table, usual, section = block, fields = []) {
  const kind = draft.at([block, "kind"]) ?? "";
  const kinds = [...new Set([...Object.keys(table), ...(kind ? [kind] : [])])];
  const control = select(
    [["", `${usual} (default)`], ...kinds.filter((each) => each !== usual || kind === usual).map((each) => [each])],
    kind,
    {
      dataset: { key: `${block}.kind` },
      onChange: (chosen) => {
        let content = put(draft.content, [block, "kind"], chosen || undefined);
        const kept = (table[chosen || usual] ?? []).map((each) => each.path[0]);
        for (const { path } of table[kind || usual] ?? []) {
          if (!kept.includes(path[0])) content = put(content, [block, ...path], undefined);
        }
        draft.change(content, { redraw: [section] });
      },
    },
  );
  const node = field(label, control);
  node.dataset.where = `${block}.kind`;
  const options = (table[kind || usual] ?? []).map((each) => fieldOf(draft, [block], each));
  return fieldsOf(draft, [], fields, [node, ...options]);
}

function scheduler(draft) {
  const on = draft.at(["scheduler"]) !== undefined && draft.at(["scheduler"]) !== null;
  return [
    el(
      "label",
      { class: "tick", dataset: { where: "scheduler" } },
      el("input", {
        type: "checkbox",
        checked: on,
        dataset: { key: "scheduler" },
        onChange: (event) =>
          draft.put(["scheduler"], event.target.checked ? { kind: "asha" } : undefined, { redraw: ["search"] }),
      }),
      el(
        "span",
        {},
        "Stop weak trials early (ASHA)",
        el("small", { class: "soft" }, "A weak trial ends before its last load point."),
      ),
    ),
    on && fieldsOf(draft, [], FIELDS.scheduler),
  ];
}

function prior(draft) {
  const on = draft.at(["prior"]) !== undefined && draft.at(["prior"]) !== null;
  const kind = on ? (draft.at(["prior", "kind"]) ?? "study") : "";
  const control = select(
    [
      ["", "none"],
      ["study", "an earlier study"],
      ["aiconfigurator", "NVIDIA's performance model"],
    ],
    kind,
    {
      dataset: { key: "prior.kind" },
      onChange: (chosen) => {
        const first = draft.at(["prior", "first"]);
        draft.put(["prior"], chosen ? { kind: chosen, ...(first !== undefined && { first }) } : undefined, {
          redraw: ["search"],
        });
      },
    },
  );
  const node = field("What is believed before", control, { hint: "It orders what is tried first." });
  node.dataset.where = "prior.kind";
  return el(
    "div",
    { class: "fields" },
    node,
    kind && (PRIORS[kind] ?? []).map((each) => fieldOf(draft, ["prior"], each)),
    kind && FIELDS.prior.map((each) => fieldOf(draft, [], each)),
  );
}
