// Recent imports, the newest first.
import { html } from "./shared/html.js";
import { useData, useTick } from "./shared/data.js";
import { bytes, count, moment } from "./shared/format.js";
import { Card, Empty, Loaded, Table } from "./shared/parts.js";
import { change, linkTo } from "./shared/state.js";
import { formatOf } from "./files.js";

const PAGE = 50;
const COLUMNS = [
  "Started",
  "State",
  "Format",
  ...["Size", "Rows", "Stored", "Duplicates", "Rejected"].map((title) => [title, "number"]),
];
const POLL_MS = 3000;

export default function Imports({ parameters }) {
  const [tick] = useTick(POLL_MS);
  const cursor = parameters.get("cursor");
  const page = useData("imports", { limit: PAGE, cursor }, tick);
  return html`<div class="view">
    <div class="view-head"><h1>Imports</h1></div>
    <${Card}>
      <${Loaded} of=${page} lines=${8}>
        ${(data) =>
          data.items.length
            ? html`<${List} items=${data.items} />
                <nav class="pager" aria-label="Pages">
                  ${cursor && html`<button type="button" onClick=${() => change({ cursor: null })}>Newest imports</button>`}
                  ${data.next_cursor &&
                  html`<button type="button" onClick=${() => change({ cursor: data.next_cursor })}>Older imports</button>`}
                </nav>`
            : html`<${Empty} title="No imports yet">
                <p><a ...${linkTo({})}>Upload a file</a>, or run <code>annotate ingest FILE</code>.</p>
              <//>`}
      <//>
    <//>
  </div>`;
}

function List({ items }) {
  return html`<${Table} label="Table of imports" caption="Imports" columns=${COLUMNS}>
    ${items.map(
      (one) => html`<tr key=${one.id}>
        <th scope="row" class="nowrap"><a ...${linkTo({ view: "import", id: one.id })}>${moment(one.created_at)}</a></th>
        <td><span class=${`state ${one.state}`}>${one.state}</span></td>
        <td class="nowrap">${formatOf(one.media_type)}</td>
        <td class="number">${bytes(one.upload.length ?? one.upload.offset)}</td>
        <td class="number">${count(one.received)}</td>
        <td class="number">${count(one.accepted)}</td>
        <td class="number">${count(one.duplicates)}</td>
        <td class="number">${count(one.rejected)}</td>
      </tr>`,
    )}
  <//>`;
}
