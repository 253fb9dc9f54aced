/**
 * The shell: which view an address shows, the navigation, the colours, who one is.
 *
 * A module of views exports `views`: [{path, title, render(root, params, signal)}]. `path` is
 * "/studies/:name"; `title` a text or a function of the params; `render` fills `root`, may be
 * async, and ends what it began (polls, streams, listeners) when `signal` aborts. `query` of an
 * address (#/studies?state=RUNNING) is in `params.query`, a URLSearchParams. An element that
 * `render` returns is what the address is about: it is brought into view instead of the top.
 */

import { forgetToken, hasToken, me, onConnection, onUnauthorized, version } from "./api.js";
import { dialog } from "./dialogs.js";
import { button, el, field, fill, icon, kept, problemNote, setZone, waiting } from "./ui.js";

const MODULES = [
  ["/studies/:name/trials/:number", "./trial.js"],
  ["/studies/:name", "./study.js"],
  ["/studies", "./studies.js"],
  ["/new", "./form.js"],
  ["/edit/:name", "./form.js"],
  ["/duplicate/:name", "./form.js"],
  ["/presets", "./presets.js"],
  ["/timeline", "./timeline.js"],
  ["/cluster", "./cluster.js"],
];
const PLACES = [
  ["/studies", "Studies", "studies"],
  ["/timeline", "Timeline", "timeline"],
  ["/cluster", "Cluster", "cluster"],
  ["/presets", "Presets", "presets"],
];

const root = document.getElementById("view");
let shown = new AbortController();
let leaving = () => true;

/**
 * Ask before the present view is left: `ask()` returns (or resolves to) whether it may be. The
 * browser asks by itself where the whole page goes.
 */
export function beforeLeaving(ask) {
  leaving = ask;
}

/** Go to a view: go("/studies/llama"). */
export function go(address, { replace = false } = {}) {
  if (replace) (history.replaceState(null, "", `#${address}`), show());
  else location.hash = address;
}

/** Draw the present view anew, from the service's present answers. */
export const redraw = () => show();

/** Change the query of the present address without drawing the view again. */
export function keepQuery(entries) {
  const kept = Object.entries(entries).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const query = new URLSearchParams(kept).toString();
  const [place] = location.hash.split("?");
  history.replaceState(null, "", `${place || "#/studies"}${query ? `?${query}` : ""}`);
  here = location.hash;
}

let here = "";

async function moved() {
  if (location.hash === here) return;
  const to = location.hash;
  if (!(await leaving())) {
    history.replaceState(null, "", here);
    return;
  }
  history.replaceState(null, "", to);
  show({ moved: true });
}

async function show({ moved: byPerson = false } = {}) {
  shown.abort();
  shown = new AbortController();
  leaving = () => true;
  here = location.hash;
  const { signal } = shown;
  const [address, query = ""] = (location.hash.slice(1) || "/studies").split("?");
  const found = match(address);
  if (!found) return go("/studies", { replace: true });
  mark(address);
  fill(root, waiting());
  try {
    const { views } = await import(found.module);
    const view = views.find((each) => each.path === found.path);
    if (signal.aborted) return;
    const params = { ...found.params, query: new URLSearchParams(query) };
    entitle(typeof view.title === "function" ? view.title(params) : view.title);
    root.replaceChildren();
    const meant = await view.render(root, params, signal);
    if (byPerson && !signal.aborted && !root.contains(document.activeElement)) root.focus({ preventScroll: true });
    if (signal.aborted) return;
    if (meant) meant.scrollIntoView();
    else if (byPerson) scrollTo(0, 0);
  } catch (error) {
    if (signal.aborted || error.name === "AbortError") return;
    if (error.name !== "Problem") console.error(error);
    fill(root, notShown(error, found.params));
  }
}

/** Why a view is not shown: where there is no such thing, the way to what there is. */
function notShown(error, { name, number }) {
  if (![404, 422].includes(error.status)) return problemNote(error, { retry: () => show() });
  const study = number && el("a", { href: `#/studies/${encodeURIComponent(name)}` }, "The study");
  const all = el("a", { href: "#/studies" }, "All studies");
  return [problemNote(error), el("p", {}, study && [study, " · "], all)];
}

/** The browser's title. */
export function entitle(title) {
  document.title = title ? `${title} · autotuner` : "autotuner";
}

function match(address) {
  const parts = address.split("/").filter(Boolean);
  for (const [path, module] of MODULES) {
    const names = path.split("/").filter(Boolean);
    if (names.length !== parts.length) continue;
    if (!names.every((name, at) => name.startsWith(":") || name === parts[at])) continue;
    const params = {};
    names.forEach((name, at) => name.startsWith(":") && (params[name.slice(1)] = decoded(parts[at])));
    return { path, module, params };
  }
  return null;
}

/** A part of an address as it was meant; one with a % that encodes nothing is taken as it stands. */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function mark(address) {
  for (const link of document.querySelectorAll(".places a")) {
    const place = link.hash.slice(1);
    if (address === place || address.startsWith(`${place}/`)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

/* The shell itself */

const THEMES = { auto: "as the system", light: "light", dark: "dark" };
const theme = kept("theme", "auto");

function paint(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  dispatchEvent(new Event("themechange"));
}

function themeSwitch() {
  const holder = el("div");
  const draw = () => {
    const now = theme.get();
    const names = Object.keys(THEMES);
    const next = names[(names.indexOf(now) + 1) % names.length];
    fill(
      holder,
      button(`Colours: ${THEMES[now]}`, {
        icon: { auto: "auto", light: "sun", dark: "moon" }[now],
        kind: "quiet",
        key: "theme",
        title: `Change to ${THEMES[next]}`,
        onClick: () => {
          theme.set(next);
          paint(next);
          draw();
        },
      }),
    );
  };
  draw();
  return holder;
}

function frame() {
  const logo = icon("presets");
  logo.classList.add("logo");
  const who = el("div", { class: "about", id: "who" });
  fill(
    document.getElementById("shell"),
    el("a", { class: "brand", href: "#/studies" }, logo, "autotuner"),
    el(
      "nav",
      { class: "places", "aria-label": "Views" },
      el("a", { href: "#/new", class: "new" }, icon("plus"), "New study"),
      PLACES.map(([place, label, drawing]) => el("a", { href: `#${place}` }, icon(drawing), label)),
    ),
    el("div", { class: "shell-foot" }, themeSwitch(), who),
  );
  const offline = el("div", { class: "offline", role: "status", hidden: true });
  document.body.append(offline);
  onConnection((problem) => {
    offline.hidden = !problem;
    if (problem)
      offline.textContent = `The service does not answer; trying again. What is shown may be old. (${problem.detail})`;
  });
  return who;
}

/** Who one is and what is served; asked again when the token changes. */
async function introduce(who) {
  try {
    const [served, caller] = await Promise.all([version(), me()]);
    setZone(served.timezone);
    fill(
      who,
      el("div", {}, caller.tokens ? `${caller.name}, ${caller.role}` : caller.role === "viewer" ? "viewer" : ""),
      el("div", {}, `version ${served.version}`),
      caller.tokens && hasToken()
        ? button("Sign out", { kind: "quiet", onClick: () => (forgetToken(), location.reload()) })
        : null,
    );
    return caller;
  } catch {
    return { role: "viewer", name: "", tokens: false };
  }
}

let caller = null;

/** Who one is: {name, role, tokens}. */
export const whoami = () => caller;

/** Whether one may change something; the service checks it again. */
export const mayChange = async () => (await caller)?.role !== "viewer";

onUnauthorized((problem) => {
  const input = el("input", {
    type: "password",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
    autofocus: true,
  });
  return dialog({
    title: "A token, please",
    content: () => [
      el("p", {}, problem.detail || "This service answers those who have a token."),
      field("Token", input, {
        hint: "Kept in this tab until it is closed. On the service's machine `autotuner token add NAME` makes one.",
      }),
    ],
    actions: () => [button("Use it", { kind: "primary", type: "submit" })],
    onSubmit: (close) => close(input.value.trim()),
  });
});

paint(theme.get());
const who = frame();
caller = introduce(who);
addEventListener("hashchange", moved);
caller.then(() => show());
// An address is a view here, so the browser cannot follow this one itself.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  root.focus();
});
