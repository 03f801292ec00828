// The state of a page is its query string, so that a view can be shared and the back button works.
import { useEffect, useState } from "./html.js";

const CHANGED = "page-state";

const read = () => new URLSearchParams(location.search);

/** Return the current parameters; the component is drawn again when they change. */
export function useParameters() {
  const [parameters, set] = useState(read);
  useEffect(() => {
    const update = () => set(read());
    addEventListener("popstate", update);
    addEventListener(CHANGED, update);
    return () => {
      removeEventListener("popstate", update);
      removeEventListener(CHANGED, update);
    };
  }, []);
  return parameters;
}

/** Return the address with some parameters changed; null and "" remove one, a list repeats one. */
export function withParameters(changes, from = read()) {
  const parameters = new URLSearchParams(from);
  for (const [name, value] of Object.entries(changes)) {
    parameters.delete(name);
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== "") parameters.append(name, one);
    }
  }
  const query = parameters.toString();
  return query ? `?${query}` : location.pathname;
}

/** Go to an address of this page; `replace` leaves no entry in the history, as while typing. */
export function go(target, replace = false) {
  history[replace ? "replaceState" : "pushState"](null, "", target);
  dispatchEvent(new Event(CHANGED));
}

/** Change some parameters of the current view. */
export function change(changes, replace = false) {
  go(withParameters(changes), replace);
}

/** Return the properties of a link to another view of this page. */
export function linkTo(parameters) {
  const href = withParameters(parameters, new URLSearchParams(keptAcrossViews()));
  const onClick = (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
    event.preventDefault();
    go(href);
    scrollTo(0, 0);
    document.querySelector("main")?.focus({ preventScroll: true });
  };
  return { href, onClick };
}

function keptAcrossViews() {
  const dataset = read().get("dataset");
  return dataset ? { dataset } : {};
}
