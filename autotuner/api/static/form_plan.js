// What the study would do, while it is written: asked of the service, which starts nothing.

import { code } from "./dialogs.js";
import { counted, details, duration, el, parameterList, quantity } from "./ui.js";

/** The panel of a plan: `rest()` without one, `wait()`, `show(plan)`, `fail(problem)`. */
export function planPanel() {
  const body = el("div", { class: "plan-body", "aria-live": "polite" });
  const node = el(
    "section",
    { class: "card plan", "aria-labelledby": "plan-title" },
    el("h2", { id: "plan-title" }, "Plan"),
    body,
  );
  const rest = () => {
    node.removeAttribute("aria-busy");
    body.replaceChildren(
      el("p", { class: "soft" }, "What the study would do is shown here, once it is complete and without mistakes."),
    );
  };
  rest();
  return {
    node,
    rest,
    wait: () => node.setAttribute("aria-busy", "true"),
    show(plan) {
      node.removeAttribute("aria-busy");
      body.replaceChildren(...drawn(plan).flat(Infinity).filter(Boolean));
    },
    fail(problem) {
      node.removeAttribute("aria-busy");
      body.replaceChildren(el("p", { class: "note bad reason" }, problem.detail || problem.message));
    },
  };
}

function drawn(plan) {
  const { refusals = [], doubts = [] } = plan;
  return [
    el(
      "dl",
      { class: "plan-numbers" },
      [
        ["Points", plan.size === null ? "no end" : quantity(plan.size)],
        ["Trials", plan.trials === null ? "until the space ends" : quantity(plan.trials)],
        ["Load points", quantity(plan.load_points.length)],
        ["Expected", duration(plan.seconds_expected)],
        ["At most", duration(plan.seconds_at_most)],
        ["GPU-hours", quantity(plan.gpu_hours_expected, "GPU-h")],
      ].map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
    ),
    plan.notes.map((note) => el("p", { class: "note info" }, note)),
    refusals.length > 0 && reasons("Refused without a launch", refusals, plan.looked_at),
    doubts.length > 0 && reasons("Tried last", doubts, plan.looked_at),
    el("h3", {}, `First ${counted(plan.launches.length, "launch")}`),
    plan.launches.map((each) =>
      details(
        el("span", {}, each.name, " ", parameterList(each.parameters)),
        each.image && el("p", { class: "soft" }, `image ${each.image}, `),
        each.runtime &&
          el("p", { class: "soft" }, `image and command of the runtime ${each.runtime}, with these arguments`),
        el("p", { class: "soft" }, each.gpus ? counted(each.gpus, "GPU") : "no GPU"),
        code(commandOf(each), { label: `Copy the command of ${each.name}` }),
      ),
    ),
    Object.entries(plan.exports ?? {}).map(([name, text]) =>
      details(`Needs beside: ${name}`, code(text, { label: `Copy ${name}` })),
    ),
  ];
}

/** Reasons by cause: one stands for all that differ in their numbers only. */
function reasons(title, causes, lookedAt) {
  const all = causes.reduce((sum, { count }) => sum + count, 0);
  return details(
    `${title}: ${all.toLocaleString("en")} of ${lookedAt.toLocaleString("en")} points`,
    el(
      "ul",
      { class: "reasons" },
      causes.map(({ reason, count, reasons: different }) =>
        el("li", {}, el("strong", {}, `${count}× `), different > 1 ? "e.g. " : "", reason),
      ),
    ),
  );
}

/** A launch as one writes it in a shell. */
export function commandOf({ argv, environment = {} }) {
  const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`);
  const variables = Object.entries(environment).map(([name, value]) => `${name}=${quoted(value)}`);
  return [...variables, ...argv.map(quoted)].join(" ");
}
