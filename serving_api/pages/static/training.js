// Training data: list, create, load and compare snapshots.
import { html, useState } from "./shared/html.js";
import { address, readKey } from "./shared/api.js";
import { useData } from "./shared/data.js";
import { bytes, count, moment, percent, plural } from "./shared/format.js";
import { Card, Copyable, Empty, Loaded, Table } from "./shared/parts.js";
import { change, linkTo, useParameters } from "./shared/state.js";
import { Comparison } from "./comparison.js";
import { SnapshotForm } from "./snapshot_form.js";

export default function Training({ dataset, labels, tick, meta }) {
  const parameters = useParameters();
  const [made, setMade] = useState(0);
  const snapshots = useData("snapshots", { limit: 1000 }, made);
  const name = parameters.get("snapshot");
  const mayWrite = meta.scopes.includes("snapshot");
  const isNew = mayWrite && parameters.get("new") === "1";
  return html`<div class="view">
    <div class="view-head">
      <div>
        <h1>Training data</h1>
        <p class="hint">Snapshots are files that never change. A text keeps its split in later snapshots.</p>
      </div>
      ${mayWrite &&
      html`<button type="button" class=${isNew ? "" : "primary"} onClick=${() => change({ new: isNew ? null : "1" })}>
        ${isNew ? "Close the form" : "New snapshot"}
      </button>`}
    </div>
    ${isNew &&
    html`<${SnapshotForm}
      dataset=${dataset}
      labels=${labels}
      tick=${tick}
      onMade=${(snapshot) => {
        setMade(made + 1);
        change({ new: null, snapshot: snapshot.name });
      }}
    />`}
    <${Loaded} of=${snapshots} lines=${6}>
      ${(page) => {
        const items = page.items.filter((one) => one.dataset === dataset);
        if (!items.length) {
          return html`<${Card}>
            <${Empty} title="No snapshots yet">
              <p>A snapshot freezes the labels as Parquet files for training, validation and test.</p>
            <//>
          <//>`;
        }
        const chosen = items.find((one) => one.name === name);
        return html`<div class="stack">
          <${Card}><${List} items=${items} chosen=${name} /><//>
          ${name && !chosen && html`<${Card}><${Empty} title=${`There is no snapshot ${name} in ${dataset}`} /><//>`}
          ${chosen && html`<${Snapshot} key=${name} snapshot=${chosen} labels=${labels} others=${items} />`}
        </div>`;
      }}
    <//>
  </div>`;
}

const rows = (snapshot) => Object.values(snapshot.splits).reduce((sum, split) => sum + split.rows, 0);
const size = (snapshot) => Object.values(snapshot.splits).reduce((sum, split) => sum + split.bytes, 0);

function List({ items, chosen }) {
  return html`<${Table}
    label="Table of snapshots"
    caption="Snapshots"
    columns=${["Snapshot", ["Texts", "number"], "Splits", ["Size", "number"], "Created", "Content hash"]}
  >
    ${items.map(
      (one) => html`<tr key=${one.name} class=${one.name === chosen ? "chosen-row" : ""}>
        <th scope="row">
          <a ...${linkTo({ view: "training", snapshot: one.name })} aria-current=${one.name === chosen ? "true" : undefined}>
            ${one.name}
          </a>
          ${one.forgotten > 0 && html`<span class="range-words">${plural(one.forgotten, "text")} to forget</span>`}
        </th>
        <td class="number">${count(rows(one))}</td>
        <td class="nowrap">
          ${Object.entries(one.splits).map(([split, file]) => `${split} ${count(file.rows)}`).join(", ")}
        </td>
        <td class="number">${bytes(size(one))}</td>
        <td class="nowrap">${moment(one.created_at)}</td>
        <td><code title=${one.content_hash}>${one.content_hash.slice(0, 12)}</code></td>
      </tr>`,
    )}
  <//>`;
}

function Snapshot({ snapshot, labels, others }) {
  const filters = Object.entries(snapshot.filters).map(([name, value]) => `${name} ${[value].flat().join(", ")}`);
  const facts = [
    ["Version of the labels", count(snapshot.version)],
    ["Filters", filters.join("; ") || "none"],
    ["Seed", String(snapshot.seed)],
    ["Stratified", snapshot.stratified ? "yes" : "no"],
    ["Content hash", html`<code>${snapshot.content_hash}</code>`],
  ];
  return html`<div class="grid">
    <${Card} id="splits" title=${snapshot.name}>
      <${Splits} splits=${snapshot.splits} labels=${labels} />
      <dl class="facts spaced">
        ${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}
      </dl>
    <//>
    <${Card} id="load" title="Load it"><${LoadLines} snapshot=${snapshot} /><//>
    <${Card} id="compare" title="Compare with another snapshot" wide>
      <${Comparison} snapshot=${snapshot} others=${others} labels=${labels} />
    <//>
    <${Card} id="card" title="Dataset card" wide><${DatasetCard} name=${snapshot.name} /><//>
  </div>`;
}

function Splits({ splits, labels }) {
  const all = Object.values(splits).reduce((sum, one) => sum + one.rows, 0);
  return html`<${Table}
    label="Table of splits"
    caption="Splits"
    columns=${["Split", ["Texts", "number"], ["Share", "number"], ...labels.map((label) => [label, "number"]), ["File", "number"]]}
  >
    ${Object.entries(splits).map(
      ([name, split]) => html`<tr key=${name}>
        <th scope="row">${name}</th>
        <td class="number">${count(split.rows)}</td>
        <td class="number">${percent(all ? split.rows / all : null, 1)}</td>
        ${labels.map((label) => html`<td key=${label} class="number">${count(split.labels[label] || 0)}</td>`)}
        <td class="number">${bytes(split.bytes)}</td>
      </tr>`,
    )}
  <//>`;
}

function LoadLines({ snapshot }) {
  const splits = Object.keys(snapshot.splits);
  const url = (split) => address(`snapshots/${snapshot.name}/${split}.parquet`);
  const first = url(splits[0]);
  const files = splits.map((split) => `    "${split}": "${url(split)}",`).join("\n");
  const key = readKey() ? `, storage_options={"Authorization": f"Bearer {api_key}"}` : "";
  const secret = readKey()
    ? "create secret (type http, extra_http_headers map {'Authorization': 'Bearer ' || getenv('API_KEY')});\n"
    : "";
  const lines = [
    ["pandas", `pandas.read_parquet("${first}"${key})`],
    ["polars", `polars.scan_parquet("${first}"${key})`],
    ["DuckDB", `${secret}select label, count(*) from read_parquet('${first}') group by label`],
    ["datasets", `datasets.load_dataset("parquet", data_files={\n${files}\n}${key})`],
  ];
  return html`<div class="stack">
    ${lines.map(([label, text]) => html`<${Copyable} key=${label} label=${label} text=${text} />`)}
  </div>`;
}

/** The card as plain text: nothing in it can become markup. */
function DatasetCard({ name }) {
  const card = useData(`snapshots/${encodeURIComponent(name)}/README.md`, {}, 0, {
    headers: { Accept: "text/markdown" },
    text: true,
  });
  return html`<${Loaded} of=${card} lines=${6}>
    ${(text) => html`<pre class="prose card-text" tabindex="0" aria-label="Text of the dataset card">${text}</pre>`}
  <//>`;
}
