// Work list: texts that need a decision, the most urgent first, with the votes side by side.
import { html } from "./shared/html.js";
import { useDebounced } from "./shared/data.js";
import { count, percent, plural } from "./shared/format.js";
import { Card, Empty, Loaded, Table } from "./shared/parts.js";
import { useParameters } from "./shared/state.js";
import { ArgillaLink, OriginCell, Pager, SourcePicker, TextCell, Threshold, usePage, usePlaces } from "./items.js";

const PAGE = 50;
const DEFAULT_BELOW = 0.7;

export default function Work({ dataset, labels, tick, stats, meta }) {
  const parameters = useParameters();
  const below = Number(parameters.get("below") ?? DEFAULT_BELOW);
  const source = parameters.get("source");
  const cursor = parameters.get("cursor");
  const asked = { dataset, source, confidence_below: useDebounced(below, 250), limit: PAGE, cursor };
  const page = usePage("disputed", asked, tick);
  const places = usePlaces(meta);
  const disputed = stats.data?.by_status.disputed;
  return html`<div class="view">
    <div class="view-head">
      <div>
        <h1>Work list</h1>
        <p class="hint">
          Texts on which annotators don't agree, those with the most answers first. Then labels with a low confidence,
          the lowest first.
        </p>
      </div>
      <p class="hint" role="status">${disputed === undefined ? "" : plural(disputed, "disputed text")}</p>
    </div>
    <div class="row controls">
      <${Threshold} title="Also labels with a confidence below" name="below" least="0" value=${below} />
      <${SourcePicker} stats=${stats} source=${source} />
      <a class="button" href=${meta.argilla} target="_blank" rel="noopener noreferrer">Open Argilla</a>
    </div>
    <${Card}>
      <${Loaded} of=${page} lines=${8}>
        ${(data) =>
          data.items.length
            ? html`<${WorkTable} items=${data.items} labels=${labels} places=${places.data} /><${Pager} page=${data} cursor=${cursor} />`
            : html`<${Empty} title="Nothing to decide">
                <p>Annotators agree on every text, and every label has a higher confidence than this.</p>
              <//>`}
      <//>
    <//>
  </div>`;
}

function WorkTable({ items, labels, places }) {
  return html`<${Table}
    label="Table of texts"
    caption="Texts that need a decision"
    columns=${["Text", ...labels.map((label) => [label, "number"]), "Reason", "Source, labelled"]}
    name="texts"
  >
    ${items.map(
      (item) => html`<tr key=${item.id}>
        <${TextCell} item=${item} />
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
  <//>`;
}
