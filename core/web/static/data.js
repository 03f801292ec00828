// Data of a view: loaded when its address or the labels change. The old data stays on screen meanwhile.
import { useEffect, useRef, useState } from "./html.js";
import { get } from "./api.js";

/**
 * Load JSON, again whenever `path`, `parameters` or `tick` changes.
 *
 * Returns {data, error, loading, stale}: `data` keeps its value while newer data is loaded; `stale` means that it
 * belongs to other parameters. A null `path` loads nothing.
 */
export function useData(path, parameters = {}, tick = 0, options = {}) {
  const asked = path === null ? null : JSON.stringify([path, parameters, options.base || ""]);
  const [state, set] = useState({ asked: null, data: null, error: null, loading: path !== null });
  const latest = useRef(state);
  latest.current = state;
  useEffect(() => {
    if (asked === null) return undefined;
    const stop = new AbortController();
    set({ ...latest.current, loading: true });
    const timer = setTimeout(async () => {
      try {
        const data = await get(path, parameters, { ...options, signal: stop.signal });
        set({ asked, data, error: null, loading: false });
      } catch (error) {
        if (stop.signal.aborted) return;
        const { data, asked: had } = latest.current;
        set({ asked, data: had === asked ? data : null, error, loading: false });
        if (error.status === 401 && !options.base) dispatchEvent(new Event("key-required"));
      }
    }, options.delay || 0);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [asked, tick]);
  return { ...state, stale: state.asked !== asked };
}

/** Return [tick, next]: a number that increases every `ms` while the tab is visible, and on each call of `next`. */
export function useTick(ms, isRunning = true) {
  const [tick, set] = useState(0);
  const next = () => set((old) => old + 1);
  useEffect(() => {
    if (!isRunning) return undefined;
    const timer = setInterval(() => document.hidden || next(), ms);
    return () => clearInterval(timer);
  }, [ms, isRunning]);
  return [tick, next];
}

/** Return a value that follows another one after a pause in its changes, in milliseconds. */
export function useDebounced(value, pause) {
  const [settled, set] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => set(value), pause);
    return () => clearTimeout(timer);
  }, [value, pause]);
  return settled;
}
