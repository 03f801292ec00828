// A form that creates a snapshot. It first shows how many texts each split would get.
import { html, useState } from "./shared/html.js";
import { asFailure, post } from "./shared/api.js";
import { useData, useDebounced } from "./shared/data.js";
import { count, percent, plural } from "./shared/format.js";
import { Card, Loaded, Notice } from "./shared/parts.js";

const SPLITS = ["train", "validation", "test"];
const START = { name: "", agreement: "", answers: "", source: "", disputed: false, stratify: false, seed: "0" };
const SHARES = { train: 80, validation: 10, test: 10 };

export function SnapshotForm({ dataset, labels, tick, onMade }) {
  const [form, setForm] = useState(START);
  const [shares, setShares] = useState(SHARES);
  const [state, setState] = useState({ busy: false, error: null });
  const set = (name) => (event) =>
    setForm({ ...form, [name]: event.target.type === "checkbox" ? event.target.checked : event.target.value });
  const filters = filtersOf(form);
  const facets = useData("stats/facets", { dataset, ...useDebounced(filters, 250) }, tick);
  const sum = SPLITS.reduce((all, name) => all + Number(shares[name] || 0), 0);
  const isWhole = Math.abs(sum - 100) < 1e-9;
  const submit = async (event) => {
    event.preventDefault();
    setState({ busy: true, error: null });
    try {
      onMade(await post("snapshots", requestOf(dataset, form, shares), { seconds: 3600 }));
    } catch (error) {
      setState({ busy: false, error: asFailure(error) });
    }
  };
  return html`<${Card} id="new-snapshot" title="New snapshot" hint="All texts have the same version of the labels">
    <form class="stack" onSubmit=${submit}>
      <div class="fields">
        <label class="field">
          <span>Name</span>
          <input value=${form.name} onInput=${set("name")} placeholder=${`${dataset}-2026-11`} pattern="[A-Za-z0-9][A-Za-z0-9._\\-]{0,99}" />
        </label>
        <label class="field">
          <span>Minimum agreement, 0 to 1</span>
          <input type="number" min="0" max="1" step="0.05" value=${form.agreement} onInput=${set("agreement")} />
        </label>
        <label class="field">
          <span>Minimum answers</span>
          <input type="number" min="0" max="1000" value=${form.answers} onInput=${set("answers")} />
        </label>
        <label class="field">
          <span>Source</span>
          <select value=${form.source} onChange=${set("source")}>
            <option value="">all</option>
            ${(facets.data?.source || [])
              .filter((one) => one.value)
              .map((one) => html`<option key=${one.value} value=${one.value}>${one.value}</option>`)}
          </select>
        </label>
        ${SPLITS.map(
          (name) => html`<label key=${name} class="field">
            <span>${name}, percent</span>
            <input
              type="number"
              min="0"
              max="100"
              step="any"
              value=${shares[name]}
              onInput=${(event) => setShares({ ...shares, [name]: event.target.value })}
            />
          </label>`,
        )}
        <label class="field">
          <span>Seed</span>
          <input type="number" min="0" step="1" value=${form.seed} onInput=${set("seed")} />
        </label>
      </div>
      <div class="row">
        <label class="check"><input type="checkbox" checked=${form.stratify} onChange=${set("stratify")} /> Stratify by label</label>
        <label class="check">
          <input type="checkbox" checked=${form.disputed} onChange=${set("disputed")} /> Include disputed texts, without a label
        </label>
      </div>
      <${Loaded} of=${facets} lines=${2}>
        ${(data) => html`<${Preview} data=${data} labels=${labels} shares=${shares} />`}
      <//>
      ${!isWhole && html`<${Notice} title="The splits must add up to 100 percent."><p>They add up to ${sum}.</p><//>`}
      ${state.error && html`<${Notice} error=${state.error} title="The snapshot was not created." />`}
      <div class="row">
        <button class="primary" type="submit" disabled=${state.busy || !isWhole || !facets.data?.total}>
          ${state.busy ? "Writing the files" : "Create the snapshot"}
        </button>
      </div>
    </form>
  <//>`;
}

function Preview({ data, labels, shares }) {
  const byLabel = new Map(data.label.map((one) => [one.value, one.texts]));
  const parts = labels.map((label) => `${label} ${count(byLabel.get(label) || 0)}`);
  if (byLabel.get(null)) parts.push(`disputed ${count(byLabel.get(null))}`);
  const splits = SPLITS.filter((name) => Number(shares[name]) > 0);
  return html`<p class="preview" role="status">
    <strong>${plural(data.total, "text")}</strong>: ${parts.join(", ")}.${" "}
    <span class="muted">
      About ${splits.map((name) => `${name} ${count(Math.round((data.total * shares[name]) / 100))}`).join(", ")}.
    </span>
  </p>`;
}

function filtersOf(form) {
  const filters = {};
  if (form.agreement !== "") filters.min_agreement = form.agreement;
  if (form.answers !== "") filters.min_annotations = form.answers;
  if (form.source) filters.source = form.source;
  if (!form.disputed) filters.status = "labelled";
  return filters;
}

function requestOf(dataset, form, shares) {
  const { min_agreement: agreement, min_annotations: answers, ...rest } = filtersOf(form);
  const splits = {};
  for (const name of SPLITS) if (Number(shares[name]) > 0) splits[name] = Number(shares[name]) / 100;
  const request = { dataset, splits, seed: Number(form.seed || 0), stratify: form.stratify, ...rest };
  if (form.name) request.name = form.name;
  if (agreement !== undefined) request.min_agreement = Number(agreement);
  if (answers !== undefined) request.min_annotations = Number(answers);
  return request;
}
