// Texts: search, filters with counts, the list, and the export of this view.
import { html, useEffect, useRef, useState } from "./shared/html.js";
import { useData } from "./shared/data.js";
import { plural } from "./shared/format.js";
import { Card, Empty, Loaded } from "./shared/parts.js";
import { change, useParameters } from "./shared/state.js";
import { ExportPanel } from "./export.js";
import { Facets, filterTitle, noFilters, readFilters, SINGLE } from "./facets.js";
import { Pager, TextTable, usePage } from "./items.js";

const PAGE = 50;
const TYPING_MS = 220;

export default function Texts({ dataset, labels, tick, meta }) {
  const parameters = useParameters();
  const filters = readFilters(parameters, dataset);
  const order = parameters.get("order") || "newest";
  const cursor = parameters.get("cursor");
  const page = usePage("texts", { ...filters, order: orderOf(order, filters), limit: PAGE, cursor }, tick);
  const facets = useData("stats/facets", filters, tick);
  const [exporting, setExporting] = useState(false);
  const total = facets.data && !facets.stale ? facets.data.total : null;
  return html`<div class="view">
    <div class="view-head">
      <h1>Texts</h1>
      <p class="hint" role="status">${total === null ? "" : plural(total, "text")}</p>
    </div>
    <div class="browser">
      <${Facets} facets=${facets} labels=${labels} parameters=${parameters} />
      <div class="results">
        <${SearchBar} parameters=${parameters} order=${order} />
        <${Chosen} parameters=${parameters} />
        <div class="row end">
          <button
            type="button"
            aria-expanded=${exporting ? "true" : "false"}
            aria-controls="export"
            onClick=${() => setExporting(!exporting)}
          >
            Export this view
          </button>
        </div>
        <div id="export">
          ${exporting && html`<${ExportPanel} filters=${filters} total=${total} />`}
        </div>
        <${Card}>
          <${Loaded} of=${page} lines=${10}>
            ${(data) =>
              data.items.length
                ? html`<${TextTable} items=${data.items} labels=${labels} /><${Pager} page=${data} cursor=${cursor} />`
                : html`<${Nothing} parameters=${parameters} total=${total} />`}
          <//>
        <//>
      </div>
    </div>
  </div>`;
}

const orderOf = (order, filters) => (order === "relevance" && !filters.q ? "newest" : order);

function SearchBar({ parameters, order }) {
  const asked = parameters.get("q") || "";
  const [typed, setTyped] = useState(asked);
  const sent = useRef(asked);
  useEffect(() => {
    if (asked !== sent.current) setTyped(asked); // the back button, or a filter that was removed
    sent.current = asked;
  }, [asked]);
  useEffect(() => {
    if (typed === sent.current) return undefined;
    const timer = setTimeout(() => {
      const isRefined = sent.current !== "";
      sent.current = typed;
      change({ q: typed, cursor: null, match: typed ? parameters.get("match") : null }, isRefined);
    }, TYPING_MS);
    return () => clearTimeout(timer);
  }, [typed]);
  return html`<search class="search-bar">
    <label class="unseen" for="q">Search in the texts</label>
    <input
      id="q"
      type="search"
      placeholder="Search in the texts"
      maxlength="1000"
      value=${typed}
      onInput=${(event) => setTyped(event.target.value)}
    />
    <label class="unseen" for="match">How to match</label>
    <select
      id="match"
      value=${parameters.get("match") || "substring"}
      disabled=${!asked}
      onChange=${(event) => change({ match: event.target.value === "substring" ? null : event.target.value, cursor: null })}
    >
      <option value="substring">anywhere</option>
      <option value="words">whole words</option>
      <option value="phrase">whole phrase</option>
      <option value="prefix">word beginnings</option>
    </select>
    <label class="unseen" for="order">Order</label>
    <select
      id="order"
      value=${order}
      onChange=${(event) => change({ order: event.target.value === "newest" ? null : event.target.value, cursor: null })}
    >
      <option value="newest">newest first</option>
      <option value="oldest">oldest first</option>
      <option value="relevance" disabled=${!asked}>best match first</option>
    </select>
  </search>`;
}

/** The active filters, each with a button that removes it. */
function Chosen({ parameters }) {
  const set = SINGLE.filter((name) => name !== "match" && parameters.get(name)).map((name) => [name, parameters.get(name)]);
  const labels = parameters.getAll("label");
  if (!set.length && !labels.length) return null;
  const remove = (name, value) =>
    change({ [name]: name === "label" ? labels.filter((one) => one !== value) : null, cursor: null });
  const all = [...labels.map((label) => ["label", label]), ...set];
  return html`<ul class="chips" aria-label="Active filters">
    ${all.map(
      ([name, value]) => html`<li key=${`${name} ${value}`}>
        <button
          type="button"
          class="chip"
          onClick=${() => remove(name, value)}
          aria-label=${`Remove the filter ${filterTitle(name, value)}`}
        >
          <span>${filterTitle(name, value)}</span><span aria-hidden="true">×</span>
        </button>
      </li>`,
    )}
    <li><button type="button" class="quiet" onClick=${() => change(noFilters())}>Remove all</button></li>
  </ul>`;
}

function Nothing({ parameters, total }) {
  const isFiltered = [...SINGLE, "label"].some((name) => parameters.get(name));
  if (!isFiltered) {
    return html`<${Empty} title="No labelled texts yet">
      <p>Texts appear here when annotators have answered them in Argilla.</p>
    <//>`;
  }
  return html`<${Empty} title="No text matches these filters">
    <button type="button" onClick=${() => change(noFilters())}>Remove all filters</button>
  <//>`;
}
