/**
 * The service's answers: requests, problems, streams and polling, with the token where there is
 * one. Nothing here draws; who shows problems and asks for a token registers with `onUnauthorized`.
 *
 *   await read("studies", { page: 2 })            GET /v1/studies?page=2 -> JSON
 *   await send("POST", "studies/llama/start")     -> JSON; send("PUT", path, content)
 *   await text("studies/llama/export", { format: "command" })
 *   await download("studies/llama/trials", { format: "csv" }, "llama.csv")
 *   follow("studies/llama/events", { signal, onEvent: ({ id, event, data }) => … })
 *   poll(refresh, 3, signal)                      at once, then every 3 s while the page is visible
 *
 * All throw `Problem`; `path` is relative to /v1/ and its parts are encoded with `path()`.
 */

const TOKEN = "autotuner-token";
const RETRY_SECONDS = [1, 2, 4, 8, 15];

/** What the service refused, in its own words (RFC 9457). `status` 0: it did not answer. */
export class Problem extends Error {
  constructor(content, status) {
    super(content.detail || content.title || `the service answered ${status}`);
    this.name = "Problem";
    this.status = status;
    this.title = content.title || "The service refused";
    this.detail = content.detail || "";
    this.errors = content.errors || [];
    this.kind = (content.type || "").split(":").pop();
  }
}

let askForToken = async () => null;

/** Register who asks a person for a token: `async (problem) => token | null`. */
export function onUnauthorized(ask) {
  askForToken = ask;
}

let connected = () => {};

/** Register who says whether the service answers: `(problem | null)`, on every answer. */
export function onConnection(listener) {
  connected = listener;
}

export const hasToken = () => Boolean(sessionStorage.getItem(TOKEN));

/** Forget the token of this tab. */
export const forgetToken = () => sessionStorage.removeItem(TOKEN);

/** An address below /v1/ whose parts are encoded: path("studies", name, "events"). */
export const path = (...parts) => parts.map((part) => encodeURIComponent(part)).join("/");

/** The JSON of a GET. `query`: undefined, null and "" are left out, lists repeated. */
export async function read(address, query = {}, { signal } = {}) {
  return (await request(address, { query, signal })).json();
}

/** A GET as text. */
export async function text(address, query = {}, { signal } = {}) {
  return (await request(address, { query, signal })).text();
}

/**
 * A request that changes something; its JSON, or null without content.
 * `content`: an object goes as JSON, a text as YAML.
 */
export async function send(method, address, content, { query = {}, signal } = {}) {
  const body = content === undefined || typeof content === "string" ? content : JSON.stringify(content);
  const type = typeof content === "string" ? "application/yaml" : "application/json";
  const response = await request(address, { method, query, signal, body, type: content === undefined ? null : type });
  return response.status === 204 ? null : response.json();
}

/** Save an answer as a file. */
export async function download(address, query, name) {
  const response = await request(address, { query });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** The response, when it is one of success; asks for a token once where one is needed. */
export async function request(address, { method = "GET", query = {}, body, type, headers = {}, signal } = {}) {
  const target = new URL(`v1/${address}`, document.baseURI.replace(/[#?].*/, ""));
  for (const [name, value] of Object.entries(query)) {
    for (const each of [value].flat())
      if (each !== undefined && each !== null && each !== "") target.searchParams.append(name, each);
  }
  for (;;) {
    const sent = sessionStorage.getItem(TOKEN);
    const response = await answer(target, {
      method,
      body,
      signal,
      cache: "no-store",
      headers: { ...headers, ...(type && { "Content-Type": type }), ...(sent && { Authorization: `Bearer ${sent}` }) },
    });
    if (response.ok) return response;
    const problem = await problemOf(response);
    if (response.status !== 401 || !(await renewed(problem, sent))) throw problem;
  }
}

async function answer(target, options) {
  try {
    const response = await fetch(target, options);
    connected(null);
    return response;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const problem = new Problem(
      { title: "The service does not answer", detail: `no answer from ${target.origin}: ${error.message}` },
      0,
    );
    connected(problem);
    throw problem;
  }
}

async function problemOf(response) {
  const said = await response.text();
  try {
    return new Problem(JSON.parse(said), response.status);
  } catch {
    return new Problem({ title: response.statusText, detail: said.slice(0, 500) }, response.status);
  }
}

let asking = null;

/** Whether there is another token than the one that was refused; all who wait share one question. */
async function renewed(problem, refused) {
  if (sessionStorage.getItem(TOKEN) !== refused) return true;
  asking ??= askForToken(problem).finally(() => {
    asking = null;
  });
  const token = await asking;
  if (!token) return false;
  sessionStorage.setItem(TOKEN, token);
  return true;
}

let versionAnswer = null;

/** GET /v1/version, asked once. */
export function version() {
  versionAnswer ??= read("version").catch((error) => {
    versionAnswer = null;
    throw error;
  });
  return versionAnswer;
}

/** GET /v1/me: {name, role, tokens}. */
export const me = () => read("me");

/**
 * Follow server-sent events until `signal` aborts, `onEvent` returns false, or the stream says
 * that it is over (`event: end`). A broken connection is taken up again after the last id.
 *
 * @param {object} options
 *   after: id of the last event already known · query · signal ·
 *   onEvent({id, event, data}): data is parsed JSON where it is JSON ·
 *   onState("open" | "retrying" | "ended"): for those who say so
 */
export async function follow(address, { after = null, query = {}, signal, onEvent, onState = () => {} }) {
  let last = after;
  for (let failed = 0; !signal?.aborted; failed += 1) {
    try {
      const headers = { Accept: "text/event-stream", ...(last !== null && { "Last-Event-ID": String(last) }) };
      const response = await request(address, { query, headers, signal });
      onState("open");
      for await (const each of events(response.body)) {
        failed = 0;
        if (each.id !== null) last = each.id;
        if (onEvent(each) === false || each.event === "end") return void onState("ended");
      }
    } catch (error) {
      if (signal?.aborted || error.name === "AbortError") return;
      if (error instanceof Problem && error.status >= 400 && error.status < 500 && error.status !== 429) throw error;
    }
    onState("retrying");
    await pause(RETRY_SECONDS[Math.min(failed, RETRY_SECONDS.length - 1)], signal);
  }
}

/** The events of a stream, as the HTML standard reads them. */
async function* events(body) {
  let kept = "";
  let open = { id: null, event: "message", lines: [] };
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (kept + value).split(/\r\n|\n|\r(?!$)/);
      kept = lines.pop();
      for (const line of lines) {
        if (line !== "") {
          field(open, line);
          continue;
        }
        if (open.lines.length) yield { id: open.id, event: open.event, data: parsed(open.lines.join("\n")) };
        open = { id: open.id, event: "message", lines: [] };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function field(open, line) {
  const colon = line.indexOf(":");
  if (colon === 0) return;
  const name = colon < 0 ? line : line.slice(0, colon);
  const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
  if (name === "data") open.lines.push(value);
  if (name === "event") open.event = value;
  if (name === "id") open.id = value;
}

function parsed(said) {
  try {
    return JSON.parse(said);
  } catch {
    return said;
  }
}

/**
 * Call now and then every so many seconds, one call at a time and only while the page is
 * visible, until the signal aborts. `refresh` returns false when nothing changes any more: then
 * it is called at a tenth of the pace. A service that does not answer is asked again;
 * other problems go to `onProblem`, and the asking goes on unless that returns false.
 */
export async function poll(refresh, seconds, signal, onProblem = () => {}) {
  while (!signal.aborted) {
    let lively = true;
    try {
      lively = await refresh();
    } catch (error) {
      if (signal.aborted || error.name === "AbortError") return;
      if (!(error instanceof Problem)) throw error;
      if (error.status !== 0 && onProblem(error) === false) return;
    }
    await pause(lively === false ? seconds * 10 : seconds, signal);
    while (document.hidden && !signal.aborted) await shown(signal);
  }
}

/** Seconds later, or as soon as the signal aborts. */
export function pause(seconds, signal) {
  return new Promise((resolve) => {
    const over = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", over);
      resolve();
    };
    const timer = setTimeout(over, seconds * 1000);
    signal?.addEventListener("abort", over);
    if (signal?.aborted) over();
  });
}

function shown(signal) {
  return new Promise((resolve) => {
    document.addEventListener("visibilitychange", resolve, { once: true, signal });
    signal.addEventListener("abort", resolve, { once: true });
  });
}
