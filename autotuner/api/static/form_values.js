// Values as a person types them, and back: what is read back is always what was written.

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
const PAIRS = { "(": ")", "[": "]", "{": "}" };

/** Whether two JSON values are the same. */
export function same(one, other) {
  if (one === other) return true;
  if (one === null || other === null || typeof one !== "object" || typeof other !== "object") {
    return false;
  }
  if (Array.isArray(one) !== Array.isArray(other)) return false;
  const keys = Object.keys(one);
  return (
    keys.length === Object.keys(other).length &&
    keys.every((key) => Object.hasOwn(other, key) && same(one[key], other[key]))
  );
}

/** One value: a number, true or false, null, JSON, or else the text itself. */
export function valueOf(text) {
  const trimmed = text.trim();
  if (NUMBER.test(trimmed)) {
    const number = Number(trimmed);
    // Digits that a number would not keep stay a text.
    return Number.isSafeInteger(number) || !/^[+-]?\d+$/.test(trimmed) ? number : trimmed;
  }
  if (/^(true|false)$/i.test(trimmed)) return trimmed.toLowerCase() === "true";
  if (trimmed === "null") return null;
  return json(trimmed, '"[{') ?? trimmed;
}

/** The text that `valueOf` reads as this value. */
export function textOf(value) {
  const plain = typeof value === "string" ? value : JSON.stringify(value);
  return same(valueOf(plain), value) ? plain : JSON.stringify(value);
}

/**
 * Several values between commas; empty ones are dropped. `true` and `false` are truth values only
 * where all are (null beside them is): among other words, such as `auto`, they are texts.
 */
export function valuesOf(text) {
  const whole = json(text.trim(), "[");
  if (Array.isArray(whole)) return whole;
  const parts = split(text);
  const values = parts.map(valueOf);
  const words = values.some((value) => value !== null && typeof value !== "boolean");
  return words ? values.map((value, at) => (typeof value === "boolean" ? parts[at] : value)) : values;
}

/** The text that `valuesOf` reads as these values. */
export function textOfValues(values) {
  const plain = values
    .map((value) => (split(textOf(value)).length === 1 ? textOf(value) : JSON.stringify(value)))
    .join(", ");
  return same(valuesOf(plain), values) ? plain : JSON.stringify(values);
}

/** What stands between the commas that are in no brackets and no quotes; empty parts dropped. */
export function split(text, separator = ",") {
  const parts = [];
  let part = "";
  let quoted = false;
  const open = [];
  for (let at = 0; at < text.length; at += 1) {
    const letter = text[at];
    if (quoted && letter === "\\") {
      part += letter + (text[at + 1] ?? "");
      at += 1;
      continue;
    }
    // A quote inside a word, as in 5'11", opens nothing.
    if (letter === '"' && (quoted || open.length || !part.trim())) quoted = !quoted;
    else if (!quoted && letter in PAIRS) open.push(PAIRS[letter]);
    else if (!quoted && letter === open.at(-1)) open.pop();
    if (letter === separator && !quoted && !open.length) {
      parts.push(part.trim());
      part = "";
    } else {
      part += letter;
    }
  }
  return [...parts, part.trim()].filter((each) => each !== "");
}

/** A condition, `flag: value, value; other: value`, as under `when`. */
export function conditionOf(text) {
  const whole = json(text.trim(), "{");
  if (whole) return whole;
  const pairs = split(text, ";").map((each) => {
    const colon = each.indexOf(": ") < 0 ? each.lastIndexOf(":") : each.indexOf(": ");
    if (colon < 0) return [each, [true]];
    return [each.slice(0, colon).trim(), valuesOf(each.slice(colon + 1))];
  });
  return Object.fromEntries(pairs.map(([name, values]) => [name, values.length === 1 ? values[0] : values]));
}

/** The text that `conditionOf` reads as this condition. */
export function textOfCondition(when) {
  const plain = Object.entries(when)
    .map(([name, values]) => `${name}: ${textOfValues(Array.isArray(values) ? values : [values])}`)
    .join("; ");
  return same(conditionOf(plain), when) ? plain : JSON.stringify(when);
}

function json(text, starts) {
  if (!text || !starts.includes(text[0])) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
