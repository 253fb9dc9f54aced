// The study as YAML: a text to type in, with numbered lines and the mistakes of each.

import { el, freshId } from "./ui.js";

/**
 * An editor of a YAML text.
 *
 * @param onType called with the text after each change by a person
 * @returns {{node, text(), set(text), mark(problems)}} `mark`: problems with their `line`
 */
export function yamlView({ label, onType }) {
  const told = freshId("yaml-problems");
  const gutter = el("div", { class: "gutter", "aria-hidden": "true" });
  const area = el("textarea", {
    "aria-label": label,
    spellcheck: "false",
    autocapitalize: "off",
    autocomplete: "off",
    wrap: "off",
    "aria-describedby": told,
    class: "yaml-text",
  });
  const list = el("ul", { class: "yaml-problems", id: told, "aria-live": "polite" });
  let marked = new Map();

  function number() {
    const count = area.value.split("\n").length;
    gutter.replaceChildren(
      ...Array.from({ length: count }, (_, at) =>
        el(
          "div",
          {
            class: marked.has(at + 1) ? "bad" : null,
            title: marked.get(at + 1),
          },
          String(at + 1),
        ),
      ),
    );
    gutter.scrollTop = area.scrollTop;
  }

  function to(line) {
    const lines = area.value.split("\n");
    const start = lines.slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
    area.focus();
    area.setSelectionRange(start, start + (lines[line - 1] ?? "").length);
    area.scrollTop = Math.max(0, (line - 4) * parseFloat(getComputedStyle(area).lineHeight));
  }

  area.addEventListener("scroll", () => {
    gutter.scrollTop = area.scrollTop;
  });
  area.addEventListener("input", () => {
    number();
    onType(area.value);
  });
  // A new line begins where the last one did.
  area.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.isComposing) return;
    const before = area.value.slice(0, area.selectionStart);
    const indent = before.slice(before.lastIndexOf("\n") + 1).match(/^ */)[0];
    if (!indent) return;
    event.preventDefault();
    // As if it were typed, so that it can be undone.
    document.execCommand("insertText", false, `\n${indent}`);
  });
  number();

  return {
    node: el("div", { class: "yaml" }, el("div", { class: "yaml-editor" }, gutter, area), list),
    text: () => area.value,
    set(text) {
      if (area.value === text) return;
      area.value = text;
      number();
    },
    mark(problems) {
      marked = new Map(problems.filter((each) => each.line).map((each) => [each.line, each.problem]));
      list.replaceChildren(
        ...problems.map((each) =>
          el(
            "li",
            {},
            each.line
              ? el("button", { type: "button", class: "line", onClick: () => to(each.line) }, `line ${each.line}`)
              : "",
            el("span", {}, `${each.where ? `${each.where}: ` : ""}${each.problem}`),
            each.allowed?.length > 0 && el("small", { class: "soft" }, `allowed: ${shortened(each.allowed)}`),
            each.hint && el("small", { class: "soft" }, each.hint),
          ),
        ),
      );
      area.setAttribute("aria-invalid", String(problems.length > 0));
      number();
    },
  };
}

function shortened(names) {
  return names.length > 12 ? `${names.slice(0, 12).join(", ")}, … (${names.length})` : names.join(", ");
}
