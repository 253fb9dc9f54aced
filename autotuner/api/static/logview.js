// A log: its past, then what comes, with search; 100,000 lines and more stay quick.
//
// Lines are kept in blocks of one text each, and the browser lays out only the blocks in sight
// (content-visibility). What is found is marked by highlights, which change no nodes.

import { download, follow } from "./api.js";
import { copyButton, toastProblem } from "./dialogs.js";
import { button, counted, debounced, el, field } from "./ui.js";

/** Lines of a block. */
export const BLOCK = 200;

/** Lines that are asked for and kept; older ones are in the download. */
export const MOST = 100_000;

/** Highlighted places, at most: beyond it the count still holds. */
const MARKED = 2_000;

/**
 * Where a text occurs in lines, whatever its case.
 *
 * @returns {{line, start, end}[]} in order; overlapping ones once
 */
export function occurrences(lines, text) {
  const wanted = text.toLowerCase();
  const found = [];
  if (!wanted) return found;
  for (let line = 0; line < lines.length; line += 1) {
    const shown = lines[line].toLowerCase();
    for (let start = shown.indexOf(wanted); start >= 0; start = shown.indexOf(wanted, start + wanted.length)) {
      found.push({ line, start, end: start + wanted.length });
    }
  }
  return found;
}

/**
 * A viewer of one log.
 *
 * @param source {address, label, file}: below /v1/, its name, the name of its download
 * @returns {{node, open(signal)}} `open` begins to read, until its signal aborts
 */
export function logView({ address, label, file, empty = "Nothing has been written yet." }) {
  const lines = [];
  const text = el("div", { class: "log-text" });
  const box = el(
    "div",
    { class: "log-box", tabindex: "0", role: "log", "aria-label": label, "aria-live": "off" },
    text,
  );
  const state = el("span", { class: "soft log-state", role: "status" });
  const found = el("span", { class: "soft found", role: "status" });
  let blocks = [];
  let dropped = 0;
  let following = true;
  let matches = [];
  let at = -1;
  let wanted = "";

  const followButton = button("Follow", {
    icon: "play",
    "aria-pressed": "true",
    onClick: () => setFollowing(!following),
  });
  const wrapButton = button("Wrap", {
    "aria-pressed": "false",
    onClick: () => setWrap(wrapButton.getAttribute("aria-pressed") !== "true"),
  });
  const search = el("input", {
    type: "search",
    placeholder: "Search",
    autocomplete: "off",
    spellcheck: "false",
    onInput: debounced(() => seek(search.value), 150),
    onKeydown: (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      if (wanted !== search.value) seek(search.value);
      else move(event.shiftKey ? -1 : 1);
    },
  });
  const node = el(
    "section",
    { class: "log-view", "aria-label": label },
    el(
      "div",
      { class: "log-bar" },
      followButton,
      wrapButton,
      el(
        "div",
        { class: "log-search" },
        field("Search the log", search, { hidden: true }),
        button("Previous match", { icon: "chevron", kind: "quiet up", bare: true, onClick: () => move(-1) }),
        button("Next match", { icon: "chevron", kind: "quiet down", bare: true, onClick: () => move(1) }),
        found,
      ),
      el("span", { class: "grow" }),
      state,
      copyButton("Copy the log", () => lines.join("\n"), { kind: "quiet" }),
      button("Download", {
        icon: "download",
        kind: "quiet",
        onClick: () => download(address, { download: true }, file).catch(toastProblem),
      }),
    ),
    box,
  );

  // A person who scrolls up reads; at the end again, it goes on.
  let placed = 0;
  box.addEventListener(
    "scroll",
    () => {
      const low = box.scrollHeight - box.scrollTop - box.clientHeight < 24;
      if (box.scrollTop < placed - 2 && !low) setFollowing(false, { jump: false });
      else if (low && !following && box.scrollTop > placed) setFollowing(true, { jump: false });
      placed = box.scrollTop;
    },
    { passive: true },
  );

  function setFollowing(on, { jump = true } = {}) {
    following = on;
    followButton.setAttribute("aria-pressed", String(on));
    if (on && jump) toEnd();
  }

  function setWrap(on) {
    wrapButton.setAttribute("aria-pressed", String(on));
    text.classList.toggle("wrapped", on);
    if (following) toEnd();
  }

  function toEnd() {
    box.scrollTop = box.scrollHeight;
    // Blocks that come into sight get their true height only then.
    requestAnimationFrame(() => {
      if (following) box.scrollTop = box.scrollHeight;
      placed = box.scrollTop;
    });
  }

  function add(more) {
    for (const line of more) lines.push(line);
    let left = more;
    while (left.length) {
      let block = blocks.at(-1);
      if (!block || block.count === BLOCK) {
        block = { count: 0, node: el("div", { class: "log-block" }, document.createTextNode("")) };
        blocks.push(block);
        text.append(block.node);
      }
      const part = left.slice(0, BLOCK - block.count);
      block.node.firstChild.appendData(`${part.join("\n")}\n`);
      block.count += part.length;
      block.node.style.containIntrinsicBlockSize = `auto ${block.count * 1.5 * 12.5}px`;
      left = left.slice(part.length);
    }
    drop();
    tell();
    if (wanted) again();
    if (following) toEnd();
  }

  /** Forget the oldest blocks beyond what is kept. */
  function drop() {
    while (lines.length - BLOCK >= MOST) {
      const [oldest] = blocks.splice(0, 1);
      oldest.node.remove();
      lines.splice(0, oldest.count);
      dropped += oldest.count;
    }
  }

  function clear() {
    lines.length = 0;
    blocks = [];
    dropped = 0;
    text.replaceChildren();
    tell();
  }

  let live = "";
  function tell() {
    const older = dropped || lines.length > MOST ? ", the last of them" : "";
    const much = lines.length ? counted(lines.length, "line") + older : "";
    state.textContent = [live, much || (live === "complete" ? empty : "")].filter(Boolean).join(" · ");
  }

  /* Search */

  const again = debounced(() => seek(wanted, { stay: true }), 300);

  function seek(next, { stay = false } = {}) {
    wanted = next;
    matches = occurrences(lines, wanted);
    at = stay ? Math.min(at, matches.length - 1) : matches.length ? 0 : -1;
    mark();
    if (!stay && at >= 0) reveal();
    sayFound();
  }

  function move(way) {
    if (!matches.length) return;
    at = (at + way + matches.length) % matches.length;
    setFollowing(false);
    mark();
    reveal();
    sayFound();
  }

  function sayFound() {
    found.textContent = !wanted
      ? ""
      : matches.length
        ? `${(at + 1).toLocaleString("en")} of ${matches.length.toLocaleString("en")}`
        : "none";
  }

  function rangeOf({ line, start, end }) {
    let first = 0;
    const block = blocks.find((each) => {
      if (line < first + each.count) return true;
      first += each.count;
      return false;
    });
    const node = block.node.firstChild;
    let offset = 0;
    for (let each = first; each < line; each += 1) offset += lines[each].length + 1;
    return {
      block: block.node,
      range: new StaticRange({
        startContainer: node,
        startOffset: offset + start,
        endContainer: node,
        endOffset: offset + end,
      }),
    };
  }

  function mark() {
    if (!("highlights" in CSS)) return;
    const from = Math.max(0, Math.min(at - MARKED / 2, matches.length - MARKED));
    CSS.highlights.set(
      "log-found",
      new Highlight(...matches.slice(from, from + MARKED).map((each) => rangeOf(each).range)),
    );
    CSS.highlights.set("log-current", new Highlight(...(at >= 0 ? [rangeOf(matches[at]).range] : [])));
  }

  function reveal() {
    const { block, range } = rangeOf(matches[at]);
    setFollowing(false, { jump: false });
    block.scrollIntoView({ block: "nearest" });
    const live = document.createRange();
    live.setStart(range.startContainer, range.startOffset);
    live.setEnd(range.endContainer, range.endOffset);
    const into = () => {
      const place = live.getBoundingClientRect();
      const frame = box.getBoundingClientRect();
      box.scrollTop += place.top - frame.top - frame.height / 2;
      if (place.left < frame.left || place.right > frame.right) box.scrollLeft += place.left - frame.left - 60;
      placed = box.scrollTop;
    };
    into();
    requestAnimationFrame(into);
  }

  return {
    node,
    async open(signal) {
      clear();
      live = "reading";
      tell();
      signal.addEventListener("abort", () => {
        CSS.highlights?.delete("log-found");
        CSS.highlights?.delete("log-current");
      });
      try {
        await follow(address, {
          query: { follow: true, tail: MOST + 1 },
          signal,
          onState: (each) => {
            live = { open: "live", retrying: "connection lost, trying again", ended: "complete" }[each];
            if (!signal.aborted) tell();
          },
          onEvent: ({ event, data }) => {
            if (event === "restart") clear();
            if (event === "lines") add(data);
          },
        });
      } catch (error) {
        live = error.detail || error.message;
        tell();
      }
    },
  };
}
