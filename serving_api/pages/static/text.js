// One text: its content, label, answers, metadata and history.
import { html } from "./shared/html.js";
import { useData } from "./shared/data.js";
import { count, decimal, duration, moment, percent, plural } from "./shared/format.js";
import { Card, Copyable, Label, Loaded, Notice, Table, Votes } from "./shared/parts.js";
import { useParameters } from "./shared/state.js";
import { address } from "./shared/api.js";
import { ArgillaLink, usePlaces } from "./items.js";

export default function Text({ labels, tick, meta }) {
  const id = useParameters().get("id") || "";
  const text = useData(`texts/${encodeURIComponent(id)}`, {}, tick);
  const trace = useData(`texts/${encodeURIComponent(id)}`, {}, tick, { base: meta.ingestion, seconds: 8 });
  const places = usePlaces(meta);
  return html`<div class="view narrow">
    <div class="view-head">
      <p>
        <a href="?view=texts" onClick=${back}>← Back</a>
      </p>
      <h1 class="unseen">Text</h1>
    </div>
    <${Loaded} of=${text} lines=${8}>
      ${(item) => html`<${Item} item=${item} labels=${labels} trace=${trace} places=${places.data} />`}
    <//>
  </div>`;
}

function back(event) {
  if (history.length < 2) return;
  event.preventDefault();
  history.back();
}

function Item({ item, labels, trace, places }) {
  const submitted = item.annotations.filter((one) => one.status === "submitted").length;
  const cells = [
    ["Label", html`<${Label} name=${item.label} labels=${labels} />`],
    ["Votes", html`<${Votes} votes=${item.votes} labels=${labels} />`],
    ["Agreement", percent(item.agreement)],
    ["Decided by", `${item.decided_by}, rule ${item.rule}`],
    ["Confidence", decimal(item.confidence)],
    ["Answers", "complete" in item ? `${submitted}, ${item.complete ? "complete" : "not complete yet"}` : submitted],
    ["Source", item.source || "none"],
    ["External id", item.external_id || "none"],
    ...(item.predicted_label ? [["Model", `${item.predicted_label}, ${percent(item.predicted_probability)}`]] : []),
    ["Sender's label", item.claimed_label ? `${item.claimed_label}, score ${decimal(item.score)}` : "none"],
    ["Language", item.enrichment?.language?.code || "not detected"],
    ["Received", moment(item.received_at)],
    ["Labelled", moment(item.labelled_at)],
  ];
  return html`<div class="stack">
    <section class="card">
      <p class="prose full-text">${item.text}</p>
      <p class="open"><${ArgillaLink} places=${places} item=${item} title="Open its record in Argilla" /></p>
    </section>
    <${Card} id="facts" title="Label">
      <dl class="facts">
        ${cells.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}
      </dl>
    <//>
    <${Card} id="said" title="Answers" hint="The newest version of each; drafts and discards don't count">
      <${Answers} annotations=${item.annotations} labels=${labels} />
    <//>
    <${Metadata} metadata=${item.metadata} />
    <${Trace} trace=${trace} />
    <${Card} id="address" title="For programs">
      <${Copyable} label="curl" text=${`curl '${address(`texts/${item.id}`)}'`} />
    <//>
  </div>`;
}

function Answers({ annotations, labels }) {
  return html`<${Table}
    label="Table of answers"
    caption="Answers"
    columns=${["Annotator", "Answer", "Status", "Given", "Changed"]}
  >
    ${annotations.map(
      (one, index) => html`<tr key=${index}>
        <th scope="row">${one.annotator}${one.role === "adjudicator" ? " (adjudicator)" : ""}</th>
        <td>${one.value ? html`<${Label} name=${one.value} labels=${labels} />` : "–"}</td>
        <td>${one.status}</td>
        <td class="nowrap">${moment(one.created_at)}</td>
        <td class="nowrap">${one.updated_at === one.created_at ? "–" : moment(one.updated_at)}</td>
      </tr>`,
    )}
  <//>`;
}

function Metadata({ metadata }) {
  const entries = Object.entries(metadata || {});
  if (!entries.length) return null;
  return html`<${Card} id="metadata" title="Metadata">
    <dl class="facts">
      ${entries.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${String(value)}</dd></div>`)}
    </dl>
  <//>`;
}

/** The history of a text and its near duplicates, from the ingestion API. */
function Trace({ trace }) {
  if (trace.error?.status === 404) return null;
  if (trace.error) {
    return html`<${Notice} tone="info" title="The history of this text could not be loaded." error=${trace.error} />`;
  }
  const steps = trace.data?.trace || [];
  const twins = trace.data?.near_duplicates || [];
  if (!steps.length) return null;
  return html`<${Card} id="trace" title="History">
    <ol class="trace">
      ${steps.map(
        (one) => html`<li key=${one.step}>
          <strong>${one.step}</strong> <span>${moment(one.at)}</span>
          ${one.seconds_since_previous !== null &&
          html`<span class="muted">, after ${duration(one.seconds_since_previous)}</span>`}
        </li>`,
      )}
    </ol>
    ${twins.length > 0 &&
    html`<p class="hint">
      ${plural(twins.length, "near duplicate")}:${" "}
      ${twins.map((one) => html`<a key=${one.id} href=${`?view=text&id=${one.id}`}>${percent(one.similarity)}</a> `)}
    </p>`}
  <//>`;
}
