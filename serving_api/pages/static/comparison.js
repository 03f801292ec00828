// The differences between two snapshots: counts, and examples with their current texts.
import { html } from "./shared/html.js";
import { useData } from "./shared/data.js";
import { count, moment } from "./shared/format.js";
import { Empty, Figure, Label, Loaded, Table } from "./shared/parts.js";
import { change, linkTo, useParameters } from "./shared/state.js";
import { Marked } from "./items.js";

const EXAMPLES = 20;

export function Comparison({ snapshot, others, labels }) {
  const choices = others.filter((one) => one.name !== snapshot.name);
  const asked = useParameters().get("with");
  const other = choices.find((one) => one.name === asked);
  if (!choices.length) {
    return html`<p class="hint">There is no other snapshot of this dataset yet.</p>`;
  }
  return html`<div class="stack">
    <label class="inline">
      <span>Earlier snapshot</span>
      <select value=${other?.name || ""} onChange=${(event) => change({ with: event.target.value })}>
        <option value="">choose one</option>
        ${choices.map((one) => html`<option key=${one.name} value=${one.name}>${one.name}, ${moment(one.created_at)}</option>`)}
      </select>
    </label>
    ${other && html`<${Difference} key=${other.name} before=${other} after=${snapshot} labels=${labels} />`}
  </div>`;
}

function Difference({ before, after, labels }) {
  const path = `snapshots/${encodeURIComponent(before.name)}/diff/${encodeURIComponent(after.name)}`;
  const diff = useData(path, { limit: EXAMPLES });
  const ids = (diff.data?.items || []).map((one) => `'${one.id}'`);
  const where = `"id" IN (${ids.join(", ")})`;
  const asked = { dataset: after.dataset, config: "live", split: "train", where, length: EXAMPLES };
  const texts = useData(ids.length ? "filter" : null, asked);
  const byId = new Map((texts.data?.rows || []).map((one) => [one.row.id, one.row.text]));
  return html`<${Loaded} of=${diff} lines=${4}>
    ${(found) => html`<div class="stack">
      <dl class="figures">
        <${Figure} label="Added" value=${count(found.added)} note=${`only in ${after.name}`} />
        <${Figure} label="Removed" value=${count(found.removed)} note=${`only in ${before.name}`} />
        <${Figure} label="Relabelled" value=${count(found.relabelled)} note="another label" />
        <${Figure} label="Moved" value=${count(found.moved)} note="another split" />
      </dl>
      ${found.items.length
        ? html`<${Examples} items=${found.items} byId=${byId} labels=${labels} />`
        : html`<${Empty} title="Both have the same texts, labels and splits" />`}
    </div>`}
  <//>`;
}

function Examples({ items, byId, labels }) {
  const side = (split, label, isThere) =>
    isThere ? html`<${Label} name=${label} labels=${labels} /> <span class="muted">${split}</span>` : "–";
  return html`<${Table}
    label="Examples of what differs"
    caption=${`The first ${items.length} texts that differ`}
    captionClass=""
    columns=${["Change", "Text", "Before", "After"]}
  >
    ${items.map(
      (one) => html`<tr key=${one.id}>
        <td>${one.change}</td>
        <td class="text-cell">
          ${byId.has(one.id)
            ? html`<a ...${linkTo({ view: "text", id: one.id })}><${Marked} text=${byId.get(one.id)} most=${200} /></a>`
            : html`<code>${one.id}</code>`}
        </td>
        <td class="nowrap">${side(one.split_before, one.label_before, one.split_before !== null)}</td>
        <td class="nowrap">${side(one.split_after, one.label_after, one.split_after !== null)}</td>
      </tr>`,
    )}
  <//>`;
}
