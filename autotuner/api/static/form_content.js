// A study's content as the form changes it: one place at a time, all else untouched.

import { same } from "./form_values.js";

const ORDER = [
  "name",
  "description",
  "model",
  "engine",
  "backend",
  "presets",
  "merge",
  "space",
  "quantization",
  "workload",
  "benchmark",
  "objectives",
  "constraints",
  "slo",
  "search",
  "scheduler",
  "prior",
  "hardware",
  "verdict",
  "limits",
];

// An empty block of these says something: that the block's own defaults are wanted.
const MEANT_EMPTY = new Set(["scheduler"]);

/** What stands at a place, or undefined. */
export function at(content, path) {
  return path.reduce(
    (node, key) => (node && typeof node === "object" && Object.hasOwn(node, key) ? node[key] : undefined),
    content,
  );
}

/** The content with a value at a place; undefined takes it out, and blocks that it leaves empty. */
export function put(content, path, value) {
  const [key, ...rest] = path;
  const here = content && typeof content === "object" ? content : {};
  const next = rest.length ? put(here[key], rest, value) : value;
  const empty = rest.length && isEmpty(next) && !MEANT_EMPTY.has(key);
  if (next !== undefined && !empty) {
    return Array.isArray(here) ? here.with(key, next) : { ...here, [key]: next };
  }
  const { [key]: _, ...others } = here;
  return others;
}

/** The content with its blocks as the documentation has them; what it does not know comes last. */
export function ordered(content) {
  const place = (key) => (ORDER.includes(key) ? ORDER.indexOf(key) : ORDER.length);
  const entries = Object.entries(content ?? {});
  return Object.fromEntries(entries.sort(([one], [other]) => place(one) - place(other)));
}

/** The content with a key of a block renamed, at the same place in its order. */
export function rename(content, path, from, to) {
  const block = at(content, path) ?? {};
  const entries = Object.entries(block).map(([key, value]) => [key === from ? to : key, value]);
  return put(content, path, Object.fromEntries(entries));
}

/** The places of the content that no field is for, as dotted names. */
export function unknownPlaces(content, fields, path = []) {
  if (content === null || typeof content !== "object" || Array.isArray(content)) {
    return [path.join(".")];
  }
  return Object.entries(content).flatMap(([key, value]) => {
    const place = [...path, key];
    if (fields.some((field) => same(field, place))) return [];
    const below = fields.some((field) => same(field.slice(0, place.length), place));
    return below ? unknownPlaces(value, fields, place) : [place.join(".")];
  });
}

/** The names of flags as the engine's catalog has them: `--max_num_seqs` is `max-num-seqs`. */
export function canonical(name) {
  if (name.startsWith("env:")) return name;
  const [head, ...rest] = name.replace(/^-+/, "").split(".");
  return [head.replaceAll("_", "-"), ...rest].join(".");
}

/** A name that none of these is: NAME-copy, NAME-copy-2, NAME-copy-3. */
export function freeName(name, taken) {
  for (let number = 1; ; number += 1) {
    const ending = number === 1 ? "-copy" : `-copy-${number}`;
    const free = name.replace(/-copy(-\d+)?$/, "").slice(0, 63 - ending.length) + ending;
    if (!taken.includes(free)) return free;
  }
}

function isEmpty(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value) && !Object.keys(value).length;
}
