// Follows /changes by long polling while the tab is visible.
import { useEffect, useState } from "./html.js";
import { Failure, get } from "./api.js";

const WAIT_SECONDS = 25;
// Labels may come many times a second; numbers that change more often are hard to read.
const PAUSE_MS = 3000;
const RETRY_MS = 4000;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * Return {tick, confirmedAt, away}: `tick` increases when labels change, `confirmedAt` is the time of the last
 * response, `away` means that the server does not respond. `since` is the version on screen; null waits for it.
 */
export function useLive(dataset, since) {
  const [state, set] = useState({ tick: 0, confirmedAt: null, away: false });
  useEffect(() => {
    if (since === null) return undefined;
    const stop = new AbortController();
    set((old) => ({ ...old, confirmedAt: Date.now(), away: false }));
    follow(dataset, since, stop.signal, set);
    return () => stop.abort();
  }, [dataset, since]);
  return state;
}

async function follow(dataset, since, signal, set) {
  await pause(PAUSE_MS);
  while (!signal.aborted) {
    await visible(signal);
    try {
      const parameters = { dataset, since, limit: 1, wait: WAIT_SECONDS };
      const page = await get("changes", parameters, { signal });
      const changed = page.items.length > 0;
      set((old) => ({ tick: old.tick + (changed ? 1 : 0), confirmedAt: Date.now(), away: false }));
      if (changed) await pause(PAUSE_MS);
    } catch (error) {
      if (signal.aborted) return;
      set((old) => ({ ...old, away: true, tick: old.tick + (error.status === 409 ? 1 : 0) }));
      if (!(error instanceof Failure)) throw error;
      await pause(RETRY_MS);
    }
  }
}

/** Wait until the tab is visible. */
function visible(signal) {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => {
    document.addEventListener("visibilitychange", resolve, { once: true, signal });
    signal.addEventListener("abort", resolve);
  });
}

/** Return the seconds since a time in milliseconds, updated every second. */
export function useSecondsSince(moment) {
  const [now, set] = useState(Date.now());
  useEffect(() => {
    set(Date.now());
    const timer = setInterval(() => set(Date.now()), 1000);
    return () => clearInterval(timer);
  }, [moment]);
  return moment === null ? null : Math.max(0, Math.round((now - moment) / 1000));
}
