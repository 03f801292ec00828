// Recent imports, the newest first.
import { html, useEffect, useState } from "./shared/html.js";
import { useData } from "./shared/data.js";
import { bytes, count, moment } from "./shared/format.js";
import { Card, Empty, Loaded } from "./shared/parts.js";
import { change, linkTo } from "./shared/state.js";

const PAGE = 50;
const POLL_MS = 3000;

export default function Imports({ parameters }) {
  const [tick, setTick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => document.hidden || setTick((old) => old + 1), POLL_MS);
    return () => clearInterval(timer);
  }, []);
  const cursor = parameters.get("cursor");
  const page = useData("imports", { limit: PAGE, cursor }, tick);
  return html`<div class="view">
    <div class="view-head"><h1>Imports</h1></div>
    <${Card}>
      <${Loaded} of=${page} lines=${8}>
        ${(data) =>
          data.items.length
            ? html`<${List} items=${data.items} />
                ${data.next_cursor &&
                html`<nav class="pager" aria-label="Pages">
                  <button type="button" onClick=${() => change({ cursor: data.next_cursor })}>Older imports</button>
                </nav>`}`
            : html`<${Empty} title="No imports yet">
                <p><a ...${linkTo({})}>Upload a file</a>, or run <code>annotate ingest FILE</code>.</p>
              <//>`}
      <//>
    <//>
  </div>`;
}

function List({ items }) {
  return html`<div class="table-box" tabindex="0" role="region" aria-label="Table of imports">
    <table>
      <caption class="unseen">
        Imports
      </caption>
      <thead>
        <tr>
          <th scope="col">Begun</th>
          <th scope="col">State</th>
          <th scope="col">Format</th>
          <th scope="col" class="number">Size</th>
          <th scope="col" class="number">Rows</th>
          <th scope="col" class="number">Stored</th>
          <th scope="col" class="number">Duplicates</th>
          <th scope="col" class="number">Rejected</th>
        </tr>
      </thead>
      <tbody>
        ${items.map(
          (one) => html`<tr key=${one.id}>
            <th scope="row" class="nowrap"><a ...${linkTo({ view: "import", id: one.id })}>${moment(one.created_at)}</a></th>
            <td><span class=${`state ${one.state}`}>${one.state}</span></td>
            <td class="nowrap">${one.media_type.split("/")[1].replace("vnd.apache.", "").replace("x-", "")}</td>
            <td class="number">${bytes(one.upload.length ?? one.upload.offset)}</td>
            <td class="number">${count(one.received)}</td>
            <td class="number">${count(one.accepted)}</td>
            <td class="number">${count(one.duplicates)}</td>
            <td class="number">${count(one.rejected)}</td>
          </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}
