// Texts in a table, and texts with marks where a search matches. Texts are hostile: they become text nodes only.
import { html } from "./shared/html.js";
import { moment, percent } from "./shared/format.js";
import { Label, Votes } from "./shared/parts.js";
import { linkTo } from "./shared/state.js";

const SHOWN = 320;

/** A text with <mark> around its highlights, [start, end) in code points; cut after so many, if `most` says so. */
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

/** Return the address in Argilla at which a text is shown; null where that is not known. */
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

/** The cell of a table of texts with the source, and the time of the label. */
export function OriginCell({ item }) {
  return html`<td class="origin">
    <span title=${item.source}>${item.source || "no source"}</span>
    <span class="muted">${moment(item.labelled_at)}</span>
  </td>`;
}

export function TextTable({ items, labels }) {
  return html`<div class="table-box" tabindex="0" role="region" aria-label="Table of texts">
    <table class="texts">
      <caption class="unseen">
        Texts
      </caption>
      <thead>
        <tr>
          <th scope="col">Text</th>
          <th scope="col">Label</th>
          <th scope="col">Votes</th>
          <th scope="col" class="number">Agreement</th>
          <th scope="col">Source, labelled</th>
        </tr>
      </thead>
      <tbody>
        ${items.map(
          (item) => html`<tr key=${item.id}>
            <td class="text-cell">
              <a ...${linkTo({ view: "text", id: item.id })}>
                <${Marked} text=${item.text} highlights=${item.highlights} most=${SHOWN} />
              </a>
            </td>
            <td><${Label} name=${item.label} labels=${labels} /></td>
            <td><${Votes} votes=${item.votes} labels=${labels} /></td>
            <td class="number">${percent(item.agreement)}</td>
            <${OriginCell} item=${item} />
          </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}
