// The study being written: its content, what is wrong with it, and who is told when it changes.

import { at, put } from "./form_content.js";

export class Draft {
  #drawn = new Map();
  #listeners = [];

  /** @param content of the study, as JSON; null until a YAML text says one */
  constructor(content) {
    this.content = content;
    this.saved = content;
    this.problems = [];
    this.engines = null;
    this.catalogs = new Map();
    this.lists = document.createElement("div");
    this.plan = null;
  }

  /** What stands at a place, or undefined. */
  at(path) {
    return at(this.content, path);
  }

  /** Say a value at a place; undefined takes it out. `redraw`: sections that then look otherwise. */
  put(path, value, { redraw = [] } = {}) {
    this.change(put(this.content, path, value), { redraw });
  }

  /** Another content, by the form: the YAML follows. */
  change(content, { redraw = [] } = {}) {
    this.content = content;
    if (redraw.length) this.redraw(...redraw);
    this.#tell("form");
  }

  /** Another content, by the YAML: the form follows. */
  replace(content) {
    this.content = content;
    this.redraw();
    this.#tell("yaml");
  }

  /** Kinds of engine that the study is for. */
  get kinds() {
    return [this.at(["engine", "kind"])].flat().filter((kind) => typeof kind === "string" && kind);
  }

  get several() {
    return Array.isArray(this.at(["engine", "kind"]));
  }

  /** Where the fixed settings of an engine are. */
  enginePath(kind) {
    return this.several ? ["engine", "settings", kind] : ["engine"];
  }

  /** Where the flags of an engine vary. */
  spacePath(kind) {
    return this.several ? ["space", kind] : ["space"];
  }

  /** Call `listener(by)` after each change: by the "form" or by the "yaml". */
  onChange(listener) {
    this.#listeners.push(listener);
  }

  /** A part of the page that is drawn from the draft, now and again when it is named. */
  draws(name, draw) {
    this.#drawn.set(name, draw);
    draw();
  }

  /** Draw parts again; all of them where none is named. */
  redraw(...names) {
    for (const [name, draw] of this.#drawn) {
      if (!names.length || names.includes(name)) draw();
    }
  }

  #tell(by) {
    for (const listener of this.#listeners) listener(by);
  }
}
