// Work list: what wants a decision, the most urgent first, with the votes side by side.
import { html, useEffect } from "./shared/html.js";
import { useData, useDebounced } from "./shared/data.js";
import { count, percent, plural } from "./shared/format.js";
import { Card, Empty, Loaded } from "./shared/parts.js";
import { change, linkTo, useParameters } from "./shared/state.js";
import { isCursorRefused } from "./filters.js";
import { ArgillaLink, OriginCell } from "./items.js";

const PAGE = 50;
const DEFAULT_BELOW = 0.7;

export default function Work({ dataset, labels, tick, stats, meta }) {
  const parameters = useParameters();
  const below = Number(parameters.get("below") ?? DEFAULT_BELOW);
  const source = parameters.get("source");
  const cursor = parameters.get("cursor");
  const asked = { dataset, source, confidence_below: useDebounced(below, 250), limit: PAGE, cursor };
  const page = useData("disputed", asked, tick);
  const places = useData("datasets", {}, 0, { base: meta.ingestion, seconds: 8 });
  useEffect(() => {
    if (cursor && isCursorRefused(page.error)) change({ cursor: null }, true);
  }, [page.error]);
  const disputed = stats.data?.by_status.disputed;
  return html`<div class="view">
    <div class="view-head">
      <div>
        <h1>Work list</h1>
        <p class="hint">
          Texts on which annotators don't agree, those with the most answers first; then labels that rest on little
          confidence, the lowest first.
        </p>
      </div>
      <p class="hint" role="status">${disputed === undefined ? "" : plural(disputed, "disputed text")}</p>
    </div>
    <div class="row controls">
      <label class="range">
        <span>Also labels with a confidence below</span>
        <input
          type="range"
          min="0"
          max="1"
          step="0.05"
          value=${below}
          onInput=${(event) => change({ below: event.target.value, cursor: null }, true)}
        />
        <output class="number">${below.toFixed(2)}</output>
      </label>
      <${SourcePicker} stats=${stats} source=${source} />
      <a class="button" href=${meta.argilla} target="_blank" rel="noopener noreferrer">Open Argilla</a>
    </div>
    <${Card}>
      <${Loaded} of=${page} lines=${8}>
        ${(data) =>
          data.items.length
            ? html`<${WorkTable} items=${data.items} labels=${labels} places=${places.data} /><${Pager} page=${data} cursor=${cursor} />`
            : html`<${Empty} title="Nothing wants a decision">
                <p>Annotators agree on every text, and every label rests on more confidence than this.</p>
              <//>`}
      <//>
    <//>
  </div>`;
}

/** A choice among the sources of the labelled texts. */
export function SourcePicker({ stats, source }) {
  const sources = Object.keys(stats.data?.by_source || {}).filter(Boolean);
  if (sources.length < 2 && !source) return null;
  return html`<label class="inline">
    <span>Source</span>
    <select value=${source || ""} onChange=${(event) => change({ source: event.target.value, cursor: null })}>
      <option value="">all</option>
      ${sources.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}
    </select>
  </label>`;
}

function WorkTable({ items, labels, places }) {
  return html`<div class="table-box" tabindex="0" role="region" aria-label="Table of texts">
    <table class="texts">
      <caption class="unseen">
        What wants a decision
      </caption>
      <thead>
        <tr>
          <th scope="col">Text</th>
          ${labels.map((label) => html`<th key=${label} scope="col" class="number">${label}</th>`)}
          <th scope="col">Why it is here</th>
          <th scope="col">Source, labelled</th>
        </tr>
      </thead>
      <tbody>
        ${items.map(
          (item) => html`<tr key=${item.id}>
            <td class="text-cell">
              <a ...${linkTo({ view: "text", id: item.id })}>
                ${item.text.length > 320 ? `${item.text.slice(0, 320)}…` : item.text}
              </a>
            </td>
            ${labels.map(
              (label, index) => html`<td key=${label} class="number vote-cell">
                <span class="vote-name">${label}</span>
                <strong>${count(item.votes[label] || 0)}</strong>
                <span class="vote-bar" aria-hidden="true">
                  <span
                    class=${`series-${index % 6}`}
                    style=${{ width: `${(100 * (item.votes[label] || 0)) / Math.max(1, item.annotations)}%` }}
                  ></span>
                </span>
              </td>`,
            )}
            <td>
              ${item.status === "disputed"
                ? html`<strong>Tie</strong>`
                : html`${item.label}, confidence ${percent(item.confidence)}`}
              <span class="open"><${ArgillaLink} places=${places} item=${item} title="Open in Argilla" /></span>
            </td>
            <${OriginCell} item=${item} />
          </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

/** Leads to the first and to the next page of a list. */
export function Pager({ page, cursor }) {
  if (!cursor && !page.next_cursor) return null;
  const to = (next) => () => {
    change({ cursor: next });
    scrollTo(0, 0);
  };
  return html`<nav class="pager" aria-label="Pages">
    ${cursor && html`<button type="button" onClick=${to(null)}>First page</button>`}
    ${page.next_cursor && html`<button type="button" onClick=${to(page.next_cursor)}>Next page</button>`}
  </nav>`;
}
