/**
 * What may be done with a study as it stands, and doing it: the same in the list and in the
 * study's own view. Whoever may only look sees none of it.
 */

import { path, send } from "./api.js";
import { attempt, confirmed, menuButton } from "./dialogs.js";
import { button, counted, linkButton } from "./ui.js";

const UNDER_WAY = ["STARTING", "RUNNING"];

const launched = (row) =>
  Object.entries(row.counts).reduce((sum, [state, count]) => sum + (state === "REFUSED" ? 0 : count), 0);

/**
 * The actions that a study's standing allows, the most likely first: {key, label, icon, kind} and
 * either `href` or `run()`, which resolves to the study's new row, "deleted" or null.
 */
export function actionsOf(row) {
  const { name, state } = row;
  const idle = !UNDER_WAY.includes(state);
  const begun = state !== "PENDING";
  const able = {
    start: state === "PENDING",
    resume: ["FAILED", "CANCELLED", "LOST"].includes(state) || (state === "COMPLETE" && Boolean(row.reason)),
    cancel: !idle || state === "LOST",
    restart: idle && begun,
    edit: idle,
    duplicate: true,
    delete: idle,
  };
  return ACTIONS.filter((each) => able[each.key]).map((each) => ({
    ...each,
    href: each.href?.(name),
    run: each.run && (() => each.run(row)),
  }));
}

const move = (row, verb, said) => attempt(() => send("POST", path("studies", row.name, verb)), `${row.name}: ${said}`);

const ACTIONS = [
  { key: "start", label: "Start", icon: "play", kind: "primary", run: (row) => move(row, "start", "is being started") },
  { key: "resume", label: "Resume", icon: "resume", kind: "primary", run: (row) => move(row, "resume", "goes on") },
  { key: "cancel", label: "Cancel", icon: "stop", run: cancel },
  { key: "restart", label: "Restart", icon: "restart", run: restart },
  { key: "edit", label: "Edit", icon: "edit", href: (name) => `#/edit/${encodeURIComponent(name)}` },
  {
    key: "duplicate",
    label: "Duplicate",
    icon: "duplicate",
    href: (name) => `#/duplicate/${encodeURIComponent(name)}`,
  },
  { key: "delete", label: "Delete", icon: "trash", danger: true, run: remove },
];

async function cancel(row) {
  const sure = await confirmed({
    title: `Cancel ${row.name}?`,
    body: "Its servers are stopped. Trials that have ended stay, and it can be resumed; those that run now are lost.",
    action: "Cancel the study",
    keep: "Let it run",
  });
  return sure ? move(row, "cancel", "is being cancelled") : null;
}

async function restart(row) {
  const sure = await confirmed({
    title: `Restart ${row.name}?`,
    body: `It begins anew and at once. ${loss(row)}`,
    action: "Delete the results and restart",
  });
  return sure ? move(row, "restart", "begins anew") : null;
}

async function remove(row) {
  const sure = await confirmed({
    title: `Delete ${row.name}?`,
    body: `The study is removed. ${loss(row)}`,
    action: "Delete the study",
  });
  if (!sure) return null;
  return (await attempt(() => send("DELETE", path("studies", row.name)), `${row.name}: deleted`)) && "deleted";
}

const loss = (row) =>
  launched(row)
    ? `Its results go with it: ${counted(launched(row), "trial")}, their logs and files. This cannot be undone.`
    : "It has no results yet.";

/** A row's actions: the likeliest as a button, the others in a menu. `onDone(result)`. */
export function rowActions(row, onDone) {
  const actions = actionsOf(row);
  const done = async (action) => {
    const result = await action.run();
    if (result) onDone(result);
  };
  const entries = actions.map((each) => ({
    label: each.label,
    icon: each.icon,
    href: each.href,
    danger: each.danger,
    onClick: each.run && (() => done(each)),
  }));
  const first = actions.find((each) => ["start", "resume", "cancel"].includes(each.key));
  return [
    first &&
      button(`${first.label} ${row.name}`, {
        icon: first.icon,
        kind: "quiet",
        bare: true,
        key: `${first.key}-${row.name}`,
        onClick: () => done(first),
      }),
    menuButton(`Actions for ${row.name}`, entries, { key: `menu-${row.name}` }),
  ];
}

/** All of a study's actions as buttons, for its own view. */
export function allActions(row, onDone) {
  return actionsOf(row).map((each) => {
    const kind = each.danger ? "quiet" : (each.kind ?? "");
    if (each.href) return linkButton(each.label, each.href, { icon: each.icon, kind });
    const onClick = async () => {
      const result = await each.run();
      if (result) onDone(result);
    };
    return button(each.label, { icon: each.icon, kind, key: `action-${each.key}`, onClick });
  });
}
