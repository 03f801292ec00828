// The start of both pages: loads the links of the API that serves the page, and asks for an API key if one is required.
import { html, useEffect, useState } from "./html.js";
import { keepKey, readKey } from "./api.js";
import { useData } from "./data.js";
import { Loading, Notice } from "./parts.js";

/**
 * Load the links, and check whether a key must be entered. `api` names the API in messages.
 *
 * Returns {meta, waiting, keys, keyWanted, onKey, onForget}: until `meta` is loaded, show `waiting`. `keys` counts the
 * keys that were entered: use it as the frame's key, so that all data is loaded again. `onForget` is null where no key
 * can be replaced.
 */
export function useSession(api) {
  const [keyWanted, setKeyWanted] = useState(false);
  const [keys, setKeys] = useState(0);
  const meta = useData("", {}, keys);
  useEffect(() => {
    const ask = () => setKeyWanted(true);
    addEventListener("key-required", ask);
    return () => removeEventListener("key-required", ask);
  }, []);
  const retry = () => setKeys(keys + 1);
  if (!meta.data) {
    const content = meta.error
      ? html`<${Notice} title=${`The ${api} API does not respond.`} error=${meta.error} onRetry=${retry} />`
      : html`<${Loading} />`;
    return { waiting: html`<main class="alone">${content}</main>` };
  }
  const wanted = keyWanted || (meta.data.key_required && !readKey());
  const onKey = () => {
    setKeyWanted(false);
    setKeys(keys + 1);
  };
  const askAgain = () => {
    keepKey("");
    setKeyWanted(true);
  };
  const onForget = meta.data.key_required && !wanted ? askAgain : null;
  return { meta: meta.data, keys, keyWanted: wanted, onKey, onForget };
}
