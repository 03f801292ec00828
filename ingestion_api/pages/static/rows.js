// The first rows as they would be stored, and why others would be rejected.
import { html } from "./shared/html.js";
import { count, plural } from "./shared/format.js";
import { Card, Notice, Table } from "./shared/parts.js";

const FIELDS = ["text", "label", "score", "source", "external_id", "dataset", "metadata"];

export function FirstRows({ preview }) {
  const fields = FIELDS.filter((name) => name === "text" || preview.rows.some((row) => name in row.submission));
  const titles = fields.map((name) => name.replace("_", " "));
  const extent = preview.complete ? "All of the file was read" : "The beginning of the file was read";
  return html`<${Card}
    id="first-rows"
    title="First rows as they would be stored"
    hint=${`${extent}: ${plural(preview.received, "row")}`}
  >
    ${preview.rows.length
      ? html`<${Table} label="Table of the first rows" caption="First rows" columns=${[["Row", "number"], ...titles]}>
          ${preview.rows.map(
            (row) => html`<tr key=${row.row}>
              <td class="number muted">${row.row}</td>
              ${fields.map((name) => html`<td key=${name} class=${`cell-${name}`}>${cell(row.submission[name])}</td>`)}
            </tr>`,
          )}
        <//>`
      : html`<p class="hint">No row could be stored.</p>`}
  <//>`;
}

function cell(value) {
  if (value === undefined || value === null) return "";
  const text = typeof value === "object" ? JSON.stringify(value) : String(value);
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
}

/** The reasons why rows would be rejected, each once. */
export function Rejected({ preview }) {
  if (!preview.rejected) return null;
  return html`<${Notice} title=${`${count(preview.rejected)} of ${plural(preview.received, "row")} would be rejected.`}>
    <${Reasons} groups=${preview.errors} />
  <//>`;
}

export function Reasons({ groups }) {
  return html`<ul>
    ${groups.map(
      (one, index) => html`<li key=${index}>
        ${one.detail}${" "}
        <span class="muted">
          ${plural(one.count, "row")}: ${one.rows.join(", ")}${one.count > one.rows.length ? ", …" : ""} (${one.code})
        </span>
      </li>`,
    )}
  </ul>`;
}

/** Put errors of single rows together by their reason. */
export function groupErrors(errors) {
  const groups = new Map();
  for (const { code, detail, row } of errors) {
    const key = JSON.stringify([code, detail]);
    const group = groups.get(key) || { code, detail, count: 0, rows: [] };
    group.count += 1;
    if (group.rows.length < 5) group.rows.push(row);
    groups.set(key, group);
  }
  return [...groups.values()].sort((a, b) => b.count - a.count);
}
