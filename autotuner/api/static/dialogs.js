/**
 * What speaks, asks and hands over: toasts, dialogs, menus, copying.
 *
 *   if (await confirmed({ title: "Delete llama?", body: "…", action: "Delete", danger: true })) …
 *   toast("Started", { kind: "good" }); toastProblem(error)
 *   await attempt(() => send("POST", …), "Started")      toasts either way; null where it failed
 */

import { button, el, freshId, icon } from "./ui.js";

/* Toasts: what has happened, said to screen readers as well. */

/** Say something for a while. `kind`: "good", "bad" or ""; what is bad stays until it is closed. */
export function toast(message, { kind = "", detail = "", title: heading } = {}) {
  const places = document.getElementById("toasts");
  const close = button("Close this message", {
    icon: "close",
    kind: "quiet",
    bare: true,
    onClick: () => node.remove(),
  });
  const node = el(
    "div",
    { class: `toast ${kind}`, role: kind === "bad" ? "alert" : "status" },
    el(
      "div",
      { class: "toast-text" },
      heading && el("strong", {}, heading),
      el("div", {}, message),
      detail && el("pre", {}, detail),
    ),
    close,
  );
  for (const old of [...places.children]) if (old.textContent === node.textContent) old.remove();
  places.append(node);
  while (places.children.length > 4) places.firstChild.remove();
  if (kind !== "bad") setTimeout(() => node.remove(), 6000);
  return node;
}

/** Show an error with the server's own reason; one that was aborted is none. */
export function toastProblem(error) {
  if (error?.name === "AbortError") return;
  if (error?.name !== "Problem") console.error(error);
  const listed = (error.errors ?? []).filter((each) => !(error.detail ?? "").includes(each.problem));
  const lines = listed.map((each) => `${each.where}: ${each.problem}${each.hint ? ` (${each.hint})` : ""}`);
  toast(error.detail || error.message, { kind: "bad", title: error.title, detail: lines.join("\n") });
}

/** Do something, and say how it went. Its result; null where it failed. */
export async function attempt(what, done = "") {
  try {
    const result = await what();
    if (done) toast(done, { kind: "good" });
    return result ?? true;
  } catch (error) {
    toastProblem(error);
    return null;
  }
}

/* Dialogs: the browser's own, so that focus and Escape are right. */

/**
 * A modal dialog; resolves to what `close(value)` was given, or null when it was dismissed.
 * `content(close)` returns nodes; `actions(close)` the buttons below; `onSubmit(close)` is for
 * Enter, and for a button with `type: "submit"`.
 */
export function dialog({ title, content, actions = () => [], wide = false, onSubmit = () => {} }) {
  return new Promise((resolve) => {
    let value = null;
    const close = (given = null) => {
      value = given;
      node.close();
    };
    const heading = freshId("dialog");
    const node = el(
      "dialog",
      { class: wide ? "dialog wide" : "dialog", "aria-labelledby": heading },
      el(
        "form",
        {
          method: "dialog",
          onSubmit: (event) => {
            event.preventDefault();
            onSubmit(close);
          },
        },
        el(
          "header",
          {},
          el("h2", { id: heading }, title),
          button("Close", { icon: "close", kind: "quiet", bare: true, onClick: () => close() }),
        ),
        el("div", { class: "dialog-body" }, content(close)),
        el("footer", {}, actions(close)),
      ),
    );
    node.addEventListener("close", () => {
      node.remove();
      resolve(value);
    });
    document.body.append(node);
    node.showModal();
  });
}

/** Whether a person means it. Asked before anything is lost; what keeps things has the focus. */
export async function confirmed({ title, body, action, danger = true, keep = "Keep it" }) {
  const answer = await dialog({
    title,
    content: () => [body].flat().map((each) => (typeof each === "string" ? el("p", {}, each) : each)),
    actions: (close) => [
      button(keep, { autofocus: true, onClick: () => close(false) }),
      button(action, { kind: danger ? "danger" : "primary", onClick: () => close(true) }),
    ],
  });
  return answer === true;
}

/* Menus */

/**
 * A button that opens a list of things to do: items are {label, icon, onClick | href, danger}.
 * Arrow keys move, Escape closes and gives the focus back.
 */
export function menuButton(label, items, { key, icon: drawing = "more", bare = true } = {}) {
  const opener = button(label, {
    icon: drawing,
    kind: "quiet",
    bare,
    key,
    "aria-haspopup": "menu",
    "aria-expanded": "false",
    onClick: () => openMenu(opener, items),
  });
  return opener;
}

function openMenu(opener, items) {
  const over = new AbortController();
  const close = () => {
    over.abort();
    list.remove();
    opener.setAttribute("aria-expanded", "false");
  };
  const entries = items.map(({ label, icon: drawing, href, danger, onClick }) =>
    el(
      href ? "a" : "button",
      {
        role: "menuitem",
        type: href ? null : "button",
        href,
        class: danger ? "danger" : null,
        tabindex: "-1",
        onClick: () => {
          close();
          opener.focus();
          onClick?.();
        },
      },
      drawing && icon(drawing),
      el("span", {}, label),
    ),
  );
  const list = el(
    "div",
    { class: "menu", role: "menu", "aria-label": opener.getAttribute("aria-label") || opener.textContent },
    entries,
  );
  document.body.append(list);
  opener.setAttribute("aria-expanded", "true");
  const place = opener.getBoundingClientRect();
  const below = place.bottom + list.offsetHeight + 8 < innerHeight;
  list.style.top = `${(below ? place.bottom + 4 : place.top - list.offsetHeight - 4) + scrollY}px`;
  list.style.left = `${Math.max(8, Math.min(place.right - list.offsetWidth, innerWidth - list.offsetWidth - 8)) + scrollX}px`;
  entries[0]?.focus();
  list.addEventListener("keydown", (event) => {
    const at = entries.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: entries.length - 1 }[event.key];
    if (to !== undefined) entries[(to + entries.length) % entries.length].focus();
    if (event.key === "Escape" || event.key === "Tab") {
      close();
      opener.focus();
    }
    if (to !== undefined || event.key === "Escape") event.preventDefault();
  });
  const { signal } = over;
  addEventListener("pointerdown", (event) => !list.contains(event.target) && close(), { signal });
  addEventListener("resize", close, { signal });
  addEventListener("hashchange", close, { signal });
}

/* Copying */

/** A button that copies a text, or what a function answers later. */
export function copyButton(label, what, { bare = false, kind = "" } = {}) {
  const node = button(label, {
    icon: "copy",
    bare,
    kind,
    onClick: () =>
      attempt(
        async () => copied(typeof what === "function" ? await what() : what),
        `Copied: ${label.replace(/^Copy (the )?/, "")}`,
      ),
  });
  return node;
}

async function copied(text) {
  // Without TLS browsers have no clipboard but on loopback.
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = el("textarea", { readonly: true, class: "unseen", value: text });
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("this browser does not let a page copy without TLS; select the text instead");
}

/** A text as one writes it in a shell, with a button that copies it. */
export function code(text, { label = "Copy", copy = text } = {}) {
  return el(
    "div",
    { class: "code" },
    el("pre", { tabindex: "0", role: "region", "aria-label": label.replace(/^Copy (the )?/, "") }, text),
    copyButton(label, copy, { bare: true, kind: "quiet" }),
  );
}
