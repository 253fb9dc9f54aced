// What is wrong with the study, said in the field that it is about.

import { el, freshId } from "./ui.js";

/**
 * Show problems at their places in a form; what no field is for goes to its block, or is returned.
 *
 * @param problems {where, problem, allowed, hint}, `where` a dotted place such as `space.tp-size`
 */
export function placeProblems(form, problems) {
  for (const old of form.querySelectorAll(".field-problem")) old.remove();
  for (const control of form.querySelectorAll('[aria-invalid="true"]')) {
    control.removeAttribute("aria-invalid");
    const described = (control.getAttribute("aria-describedby") ?? "")
      .split(" ")
      .filter((id) => !id.startsWith("problem-"));
    control.setAttribute("aria-describedby", described.join(" "));
  }
  const nodes = new Map([...form.querySelectorAll("[data-where]")].map((node) => [node.dataset.where, node]));
  return problems.filter((problem) => {
    const node = nodeAt(nodes, problem.where);
    if (node) show(node, problem);
    return !node;
  });
}

/** Where to look first: the first control that is wrong. */
export function firstProblem(form) {
  const node = form.querySelector(".field-problem")?.parentElement;
  return node?.querySelector("input, select, textarea, button");
}

function nodeAt(nodes, where) {
  const parts = where.split(".");
  for (let length = parts.length; length > 0; length -= 1) {
    const node = nodes.get(parts.slice(0, length).join("."));
    if (node) return node;
  }
  return null;
}

function show(node, { where, problem, allowed, hint }) {
  const id = freshId("problem");
  const more = [
    allowed?.length > 0 && `allowed: ${allowed.slice(0, 12).join(", ")}${allowed.length > 12 ? ", …" : ""}`,
    hint,
  ]
    .filter(Boolean)
    .join(" · ");
  const deeper = node.dataset.where === where ? "" : `${where.slice(node.dataset.where.length + 1)}: `;
  const said = el("p", { class: "field-problem", id }, deeper + problem, more && el("small", {}, ` ${more}`));
  const place = node.matches("tr") ? node.lastElementChild : node;
  place.append(said);
  const control = node.querySelector("input, select, textarea");
  if (control) {
    control.setAttribute("aria-invalid", "true");
    control.setAttribute("aria-describedby", `${control.getAttribute("aria-describedby") ?? ""} ${id}`.trim());
  }
  for (let outer = node.closest("details"); outer; outer = outer.parentElement.closest("details")) outer.open = true;
}
