// Several answers of GET /stats/agreement, for periods or sources side by side.
import { useEffect, useState } from "./shared/html.js";
import { get } from "./shared/api.js";

/** Load the agreement for each of these parameters, one after the other; returns the state that `Loaded` takes. */
export function useAgreements(parameters, tick) {
  const asked = JSON.stringify(parameters);
  const [state, set] = useState({ asked: null, data: null, error: null });
  useEffect(() => {
    const stop = new AbortController();
    const load = async () => {
      const found = [];
      // Of these, only the coefficients of all annotators are shown.
      for (const one of JSON.parse(asked)) found.push(await get("stats/agreement", { ...one, max_pairs: 0 }, { signal: stop.signal }));
      set({ asked, data: found, error: null });
    };
    load().catch((error) => stop.signal.aborted || set((old) => ({ ...old, error })));
    return () => stop.abort();
  }, [asked, tick]);
  return { ...state, stale: state.asked !== asked };
}
