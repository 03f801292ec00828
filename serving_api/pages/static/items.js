// Lists of texts: their pages, their cells, and marks where a search matches. Texts are hostile: they become text
// nodes only.
import { html, useEffect } from "./shared/html.js";
import { useData } from "./shared/data.js";
import { moment, percent } from "./shared/format.js";
import { Label, Table, Votes } from "./shared/parts.js";
import { change, linkTo } from "./shared/state.js";

const SHOWN = 320;

/** A text with <mark> around its highlights, [start, end) in code points; at most `most` of them are shown. */
export function Marked({ text, highlights, most = Infinity }) {
  const characters = [...text];
  const parts = [];
  const first = highlights?.[0]?.[0] || 0;
  const from = first > most - 60 ? Math.max(0, first - 80) : 0;
  const to = Math.min(characters.length, from + most);
  let at = from;
  for (const [start, end] of highlights || []) {
    if (start < at || start >= to) continue;
    parts.push(characters.slice(at, start).join(""));
    const stop = Math.min(end, to);
    parts.push(html`<mark key=${start}>${characters.slice(start, stop).join("")}</mark>`);
    at = stop;
  }
  parts.push(characters.slice(at, to).join(""));
  return html`${from > 0 ? "…" : ""}${parts}${to < characters.length ? "…" : ""}`;
}

/** Load a page of a list of texts. The API refuses a cursor of another list: then the first page is loaded. */
export function usePage(path, asked, tick) {
  const page = useData(path, asked, tick);
  useEffect(() => {
    const isRefused =
      page.error?.code === "invalid_cursor" || page.error?.errors.some((one) => one.parameter === "cursor");
    if (asked.cursor && isRefused) change({ cursor: null }, true);
  }, [page.error]);
  return page;
}

/** Load the addresses in Argilla of each dataset's records. */
export const usePlaces = (meta) => useData("datasets", {}, 0, { base: meta.ingestion, seconds: 8 });

/** Return the address in Argilla at which a text is shown; null if it is unknown. */
export function argillaUrl(places, item) {
  const place = places?.items.find((one) => one.name === item.dataset);
  const page = (item.status === "disputed" && place?.adjudication_url) || place?.argilla_url;
  return page ? `${page}&search=${encodeURIComponent([...item.text].slice(0, 120).join(""))}` : null;
}

/** A link that opens a text's record in Argilla. */
export function ArgillaLink({ places, item, title }) {
  const href = argillaUrl(places, item);
  return href && html`<a href=${href} target="_blank" rel="noopener noreferrer">${title}</a>`;
}

/** The cell of a table of texts with the text. */
export function TextCell({ item }) {
  return html`<td class="text-cell">
    <a ...${linkTo({ view: "text", id: item.id })}>
      <${Marked} text=${item.text} highlights=${item.highlights} most=${SHOWN} />
    </a>
  </td>`;
}

/** The cell of a table of texts with the source, and the time of the label. */
export function OriginCell({ item }) {
  return html`<td class="origin">
    <span title=${item.source}>${item.source || "no source"}</span>
    <span class="muted">${moment(item.labelled_at)}</span>
  </td>`;
}

/** The cells of a table of texts with the text, its label and its votes. */
export function LabelledCells({ item, labels }) {
  return html`<${TextCell} item=${item} />
    <td><${Label} name=${item.label} labels=${labels} /></td>
    <td><${Votes} votes=${item.votes} labels=${labels} /></td>`;
}

export function TextTable({ items, labels }) {
  return html`<${Table}
    label="Table of texts"
    caption="Texts"
    columns=${["Text", "Label", "Votes", ["Agreement", "number"], "Source, labelled"]}
    name="texts"
  >
    ${items.map(
      (item) => html`<tr key=${item.id}>
        <${LabelledCells} item=${item} labels=${labels} />
        <td class="number">${percent(item.agreement)}</td>
        <${OriginCell} item=${item} />
      </tr>`,
    )}
  <//>`;
}

/** A slider for the threshold of a list. */
export function Threshold({ title, name, least, value }) {
  return html`<label class="range">
    <span>${title}</span>
    <input
      type="range"
      min=${least}
      max="1"
      step="0.05"
      value=${value}
      onInput=${(event) => change({ [name]: event.target.value, cursor: null }, true)}
    />
    <output class="number">${value.toFixed(2)}</output>
  </label>`;
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

/** Buttons for the first, the previous and the next page of a list. */
export function Pager({ page, cursor }) {
  if (!cursor && !page.next_cursor) return null;
  const to = (next) => () => {
    change({ cursor: next });
    scrollTo(0, 0);
  };
  return html`<nav class="pager" aria-label="Pages">
    ${cursor && html`<button type="button" onClick=${to(null)}>First page</button>`}
    ${cursor && html`<button type="button" onClick=${() => history.back()}>Back</button>`}
    ${page.next_cursor && html`<button type="button" onClick=${to(page.next_cursor)}>Next page</button>`}
  </nav>`;
}
