// Requests to the API that serves the page, and the API key that they carry.

const KEY = "api-key";
const SECONDS = 70;

/** A failed request: `status` is 0 if no response arrived. */
export class Failure extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || "The request failed.");
    this.status = status;
    this.code = problem.code || "";
    this.errors = problem.errors || [];
  }
}

/** Return an error as a Failure. */
export const asFailure = (error) => (error instanceof Failure ? error : new Failure(0, { detail: String(error) }));

export const readKey = () => sessionStorage.getItem(KEY) || "";

/** Keep the key until the tab is closed; an empty one removes it. */
export function keepKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

/** Return an absolute address below the page's own, or below `base`. Lists are sent as repeated parameters. */
export function address(path, parameters = {}, base = location.origin + location.pathname) {
  const url = new URL(path, base.endsWith("/") ? base : `${base}/`);
  for (const [name, value] of Object.entries(parameters)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== "") url.searchParams.append(name, one);
    }
  }
  return url.href;
}

/** Send a request and return the response. Throws a Failure unless its status is below 400. */
export async function send(url, options = {}) {
  const headers = { Accept: "application/json", ...options.headers };
  if (readKey()) headers.Authorization = `Bearer ${readKey()}`;
  const timeout = AbortSignal.timeout(1000 * (options.seconds || SECONDS));
  const signal = options.signal ? AbortSignal.any([options.signal, timeout]) : timeout;
  let response;
  try {
    response = await fetch(url, { ...options, headers, signal });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Failure(0, { detail: "The service did not respond. Is it running, and can this browser reach it?" });
  }
  if (response.status >= 400) throw new Failure(response.status, await readProblem(response));
  return response;
}

/** Get JSON, or with `text` in the options a text. */
export async function get(path, parameters, options = {}) {
  const response = await send(address(path, parameters, options.base), options);
  return options.text ? response.text() : response.json();
}

/** Post JSON and return the JSON of the answer. */
export async function post(path, body, options = {}) {
  const headers = { "Content-Type": "application/json" };
  return (await send(address(path), { ...options, method: "POST", headers, body: JSON.stringify(body) })).json();
}

/** Download a file with the API key, which a link cannot send. Throws a Failure. */
export async function download(url, name) {
  const response = await send(url, { headers: { Accept: "*/*" }, seconds: 3600 });
  const link = Object.assign(document.createElement("a"), {
    href: URL.createObjectURL(await response.blob()),
    download: name,
  });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

async function readProblem(response) {
  try {
    return await response.json();
  } catch {
    return { detail: `The service answered ${response.status} ${response.statusText}.` };
  }
}
