// What ended in the last hours, hour by hour.

import { HOUR, span, zoneOffset } from "./gantt.js";
import { table } from "./tables.js";
import { counted, details, duration, el, moment, terms, timeZone } from "./ui.js";

/** Hours of the clock that are shown, the present one included. */
export const HOURS = 24;

/**
 * Trials by the hour of the clock in which they ended.
 *
 * @param now in milliseconds · offset: that the clock's zone is ahead of UTC
 * @returns {{hours: {start, ended}[], ended, mean}} `mean`: seconds from start to end, null without any
 */
export function hourly(trials, now, offset = 0) {
  const hourOf = (at) => Math.floor((at + offset) / HOUR);
  const first = hourOf(now) - HOURS + 1;
  const spans = trials
    .filter((each) => each.ended_at)
    .map((each) => span(each, now))
    .filter(({ end }) => hourOf(end) >= first && end <= now);
  const hours = Array.from({ length: HOURS }, (_, at) => ({
    start: (first + at) * HOUR - offset,
    ended: spans.filter(({ end }) => hourOf(end) === first + at).length,
  }));
  const seconds = spans.reduce((sum, { start, end }) => sum + (end - start) / 1000, 0);
  return { hours, ended: spans.length, mean: spans.length ? seconds / spans.length : null };
}

/** The hours as bars, how many ended and how long they took; of the answer of /timeline. */
export function activityCard({ trials, now: stored }) {
  const now = Date.parse(stored);
  const { hours, ended, mean } = hourly(trials, now, zoneOffset(timeZone(), now));
  const head = el("h2", {}, `The last ${HOURS} hours`);
  if (!ended) return el("section", { class: "card" }, head, el("p", { class: "soft" }, "No trial ended."));
  const most = Math.max(...hours.map((each) => each.ended));
  return el(
    "section",
    { class: "card" },
    head,
    terms({ "trials that ended": String(ended), "mean duration": duration(mean) }),
    el(
      "div",
      {
        class: "hours",
        role: "img",
        "aria-label": `Trials that ended in each hour, at most ${most}; the numbers are in the table below`,
      },
      hours.map((each, at) => hourBar(each, most, at)),
    ),
    details(
      "As a table",
      table({
        caption: "Trials by hour",
        compact: true,
        rows: hours.filter((each) => each.ended).reverse(),
        columns: [
          { key: "start", title: "Hour from", heads: true, cell: (each) => moment(new Date(each.start).toISOString()) },
          { key: "ended", title: "Trials that ended", number: true },
        ],
      }),
    ),
  );
}

function hourBar({ start, ended }, most, at) {
  const clock = moment(new Date(start).toISOString(), { date: false }).split("\u00a0")[0];
  const filled = el("i");
  filled.style.height = `${(100 * ended) / most}%`;
  return el(
    "span",
    { class: "hour", title: `from ${clock}: ${counted(ended, "trial")}` },
    el("b", {}, ended ? String(ended) : ""),
    el("span", { class: "hour-bar" }, filled),
    el("small", {}, at % 3 === 2 ? clock : ""),
  );
}
