// The mapping: format, the field of each column, the meaning of each label. Each change loads a new preview.
import { html, useEffect, useState } from "./shared/html.js";
import { count } from "./shared/format.js";
import { Card, Table } from "./shared/parts.js";

const ROLES = [
  ["", "left out"],
  ["text", "text"],
  ["label", "label"],
  ["score", "score, 0 to 1"],
  ["source", "source"],
  ["external_id", "external id"],
  ["metadata", "metadata"],
];
const SINGLE = new Set(["text", "label", "score", "source", "external_id"]);
const DELIMITERS = { ",": "comma", ";": "semicolon", "|": "bar", tab: "tab" };
const CHARSETS = ["utf-8", "windows-1252", "iso-8859-15", "utf-16", "windows-1251", "gb18030", "shift_jis"];

export function Mapping({ preview, datasets, onChange }) {
  return html`<${Card} id="mapping" title="How it is read" hint=${found(preview)}>
    <div class="stack">
      <${Format} preview=${preview} datasets=${datasets} onChange=${onChange} />
      <${Columns} preview=${preview} onChange=${onChange} />
      ${preview.label_values.length > 0 && html`<${LabelValues} preview=${preview} onChange=${onChange} />`}
    </div>
  <//>`;
}

function found(preview) {
  const names = preview.proposed.length ? "; the drop-downs show what was detected: correct them if needed" : "";
  return `${preview.format}${preview.charset ? `, ${preview.charset}` : ""}${names}`;
}

function Format({ preview, datasets, onChange }) {
  const delimiter = preview.delimiter === "\t" ? "tab" : preview.delimiter;
  const charset = (preview.charset || "").toLowerCase();
  const names = Object.keys(datasets);
  const source = preview.parameters.source || "";
  const sourceIsColumn = preview.columns.some((one) => one.name === source);
  return html`<div class="fields">
    ${preview.format === "csv" &&
    html`<label class="field">
        <span>Encoding</span>
        <select value=${charset} onChange=${(event) => onChange({ charset: event.target.value })}>
          ${[...new Set([charset, ...CHARSETS])].map((one) => html`<option key=${one} value=${one}>${one}</option>`)}
        </select>
      </label>
      <label class="field">
        <span>Delimiter</span>
        <select value=${delimiter} onChange=${(event) => onChange({ delimiter: event.target.value })}>
          ${Object.entries(DELIMITERS).map(([value, title]) => html`<option key=${value} value=${value}>${title}</option>`)}
        </select>
      </label>`}
    ${names.length > 1 &&
    html`<label class="field">
      <span>Dataset</span>
      <select value=${preview.dataset} onChange=${(event) => onChange({ dataset: event.target.value })}>
        ${names.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}
      </select>
    </label>`}
    <${SourceOfAllRows}
      source=${sourceIsColumn ? "" : source}
      column=${sourceIsColumn ? source : ""}
      onChange=${(value) => onChange({ source: value })}
    />
    <label class="field">
      <span>Rows that can't be stored</span>
      <select value=${preview.parameters.on_error || "skip"} onChange=${(event) => onChange({ on_error: event.target.value })}>
        <option value="skip">skip them, store the others</option>
        <option value="abort">store nothing at all</option>
      </select>
    </label>
  </div>`;
}

/** Keeps the typed value when a preview arrives. */
function SourceOfAllRows({ source, column, onChange }) {
  const [typed, setTyped] = useState(source);
  useEffect(() => setTyped(source), [source]);
  return html`<label class="field">
    <span>Source of all rows</span>
    <input
      value=${typed}
      placeholder=${column ? `from the column ${column}` : "none"}
      maxlength="1000"
      onInput=${(event) => setTyped(event.target.value)}
      onChange=${(event) => onChange(event.target.value)}
    />
  </label>`;
}

/** Return [chosen, choose]: the choices since the last preview, which does not include them yet. */
function useChosen(preview) {
  const [chosen, set] = useState({ of: preview, values: new Map() });
  const values = chosen.of === preview ? chosen.values : new Map();
  const choose = (name, value) => {
    const next = new Map(values).set(name, value);
    set({ of: preview, values: next });
    return next;
  };
  return [values, choose];
}

function Columns({ preview, onChange }) {
  const [chosen, choose] = useChosen(preview);
  const pick = (column) => (event) => onChange(changesOf(preview, choose(column.name, event.target.value)));
  return html`<${Table} label="Table of columns" caption="Columns" columns=${["Column", "Field", "Type", "First values"]}>
    ${preview.columns.map(
      (column, index) => html`<tr key=${index}>
        <th scope="row" class="name-cell">${column.name || html`<span class="muted">without a name</span>`}</th>
        <td>
          <select
            aria-label=${`Field of the column ${column.name}`}
            value=${chosen.get(column.name) ?? column.roles[0] ?? ""}
            disabled=${!column.name}
            onChange=${pick(column)}
          >
            ${ROLES.map(([value, title]) => html`<option key=${value} value=${value}>${title}</option>`)}
          </select>
        </td>
        <td class="muted">${column.type}</td>
        <td class="samples">${column.samples.slice(0, 3).join(" · ") || html`<span class="muted">empty</span>`}</td>
      </tr>`,
    )}
  <//>`;
}

/** Return the parameters that give columns other roles: `chosen` are roles by the names of columns. */
function changesOf(preview, chosen) {
  const before = (column) => column.roles[0] || "";
  const now = (column) => chosen.get(column.name) ?? before(column);
  const changed = preview.columns.filter((column) => now(column) !== before(column));
  const changes = {};
  for (const column of changed) if (SINGLE.has(before(column))) changes[before(column)] = "";
  for (const column of changed) if (SINGLE.has(now(column))) changes[now(column)] = column.name;
  if (changed.some((column) => now(column) === "metadata" || before(column) === "metadata")) {
    const names = preview.columns.filter((column) => now(column) === "metadata").map((column) => escaped(column.name));
    changes.metadata = names.join(",") || "none";
  }
  if ("label" in changes) changes.label_map = "";
  return changes;
}

function LabelValues({ preview, onChange }) {
  const [chosen, choose] = useChosen(preview);
  const pick = (value) => (event) => {
    const next = choose(value, event.target.value);
    const pairs = preview.label_values.map((one) => [one.value, next.get(one.value) ?? one.label]).filter(([, label]) => label);
    onChange({ label_map: pairs.map(([theirs, ours]) => `${escaped(theirs)}:${ours}`).join(",") });
  };
  return html`<${Table}
    label="Table of label values"
    caption="Labels for the values of the label column"
    captionClass=""
    columns=${["Value", ["Rows", "number"], "Label"]}
    name="narrow-table"
  >
    ${preview.label_values.map(
      (one) => html`<tr key=${one.value}>
        <th scope="row" class="name-cell">${one.value}</th>
        <td class="number">${count(one.rows)}</td>
        <td>
          <select aria-label=${`Label of the value ${one.value}`} value=${chosen.get(one.value) ?? one.label ?? ""} onChange=${pick(one.value)}>
            <option value="">none: reject these rows</option>
            ${preview.labels.map((label) => html`<option key=${label} value=${label}>${label}</option>`)}
          </select>
        </td>
      </tr>`,
    )}
  <//>`;
}

/** Escape the separators of names in a parameter with a backslash. */
const escaped = (name) => name.replaceAll(/[\\,:<>=]/g, (character) => `\\${character}`);
