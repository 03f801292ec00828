// The filters of GET /texts: read from the page's address, and listed with their values and counts.
import { html, useState } from "./shared/html.js";
import { count } from "./shared/format.js";
import { Loading, Notice } from "./shared/parts.js";
import { change } from "./shared/state.js";

const FIRST = 6;

export const SINGLE = [
  "q",
  "match",
  "source",
  "language",
  "status",
  "annotator",
  "min_agreement",
  "min_annotations",
  "labelled_after",
  "labelled_before",
  "complete",
  "predicted_label",
];

/** Return the filters that an address names, as parameters of the API. */
export function readFilters(parameters, dataset) {
  const filters = { dataset };
  for (const name of SINGLE) if (parameters.get(name)) filters[name] = parameters.get(name);
  if (!filters.q) delete filters.match;
  const labels = parameters.getAll("label");
  if (labels.length) filters.label = labels;
  return filters;
}

/** Return changes of the address that remove every filter. */
export const noFilters = () => ({ ...Object.fromEntries(SINGLE.map((name) => [name, null])), label: null, cursor: null });

/** Return the title of a filter with its value. */
export function filterTitle(name, value) {
  const titles = {
    q: `contains “${value}”`,
    status: value,
    source: `source: ${value}`,
    language: `language: ${value}`,
    annotator: `answered by ${value}`,
    label: `label: ${value}`,
    min_agreement: `agreement ≥ ${value}`,
    min_annotations: `answers ≥ ${value}`,
    labelled_after: `after ${value.slice(0, 10)}`,
    labelled_before: `before ${value.slice(0, 10)}`,
    complete: value === "true" ? "complete" : "incomplete",
    predicted_label: `model: ${value}`,
    match: `match: ${value}`,
  };
  return titles[name] || `${name}: ${value}`;
}

export function Facets({ facets, labels, parameters }) {
  const [open, setOpen] = useState(matchMedia("(min-width: 1100px)").matches);
  return html`<aside class="facets" aria-label="Filters">
    <button
      type="button"
      class="facets-toggle"
      aria-expanded=${open ? "true" : "false"}
      aria-controls="facets"
      onClick=${() => setOpen(!open)}
    >
      Filters
    </button>
    <div id="facets" class=${`facet-list${open ? "" : " closed"}${facets.stale ? " stale" : ""}`}>
      ${facets.error && html`<${Notice} error=${facets.error} title="The counts could not be loaded." />`}
      ${!facets.data && !facets.error && html`<${Loading} lines=${8} />`}
      ${facets.data && html`<${Groups} data=${facets.data} labels=${labels} parameters=${parameters} />`}
      <${Numbers} parameters=${parameters} />
    </div>
  </aside>`;
}

function Groups({ data, labels, parameters }) {
  const pickOne = (name) => (value) => change({ [name]: parameters.get(name) === value ? null : value, cursor: null });
  const chosen = parameters.getAll("label");
  const pickLabel = (value) =>
    change({
      label: chosen.includes(value) ? chosen.filter((one) => one !== value) : [...chosen, value],
      cursor: null,
    });
  const byLabel = new Map(data.label.map((one) => [one.value, one.texts]));
  const labelValues = labels.map((value) => ({ value, texts: byLabel.get(value) || 0 }));
  const single = (name) => (parameters.get(name) ? [parameters.get(name)] : []);
  return html`
    <${Group}
      title="Label"
      values=${labelValues}
      chosen=${chosen}
      onPick=${pickLabel}
      tone=${(value) => `series-${labels.indexOf(value) % 6}`}
    />
    ${["status", "source", "language", "annotator"].map(
      (name) => html`<${Group}
        key=${name}
        title=${name[0].toUpperCase() + name.slice(1)}
        values=${data[name].filter((one) => one.value !== null && one.value !== "")}
        chosen=${single(name)}
        onPick=${pickOne(name)}
      />`,
    )}
    ${data.complete &&
    html`<${Group}
      title="Answers"
      nameOf=${(value) => (value === "true" ? "complete" : "incomplete")}
      values=${data.complete.map((one) => ({ ...one, value: String(one.value) }))}
      chosen=${single("complete")}
      onPick=${pickOne("complete")}
    />`}
    <${Agreement} values=${data.agreement} chosen=${parameters.get("min_agreement")} />
  `;
}

function Group({ title, values, chosen, onPick, tone, nameOf = (value) => value }) {
  const [all, setAll] = useState(false);
  if (!values.length && !chosen.length) return null;
  const missing = chosen.filter((value) => !values.some((one) => one.value === value));
  const listed = [...missing.map((value) => ({ value, texts: 0 })), ...values];
  const shown = all ? listed : listed.filter((one, index) => index < FIRST || chosen.includes(one.value));
  return html`<fieldset class="facet">
    <legend>${title}</legend>
    ${shown.map(
      (one) => html`<label key=${one.value} class="facet-value">
        <input type="checkbox" checked=${chosen.includes(one.value)} onChange=${() => onPick(one.value)} />
        ${tone && html`<span class=${`swatch ${tone(one.value)}`} aria-hidden="true"></span>`}
        <span class="facet-name" title=${one.value}>${nameOf(one.value)}</span>
        <span class="number muted">${count(one.texts)}</span>
      </label>`,
    )}
    ${listed.length > shown.length &&
    html`<button type="button" class="quiet" onClick=${() => setAll(true)}>${listed.length - shown.length} more</button>`}
  </fieldset>`;
}

/** Steps of agreement, each with the number of texts that reach it. */
function Agreement({ values, chosen }) {
  const steps = [1, 0.9, 0.8, 0.7, 0.6];
  const atLeast = (step) => values.filter((one) => one.value >= step - 1e-9).reduce((sum, one) => sum + one.texts, 0);
  return html`<fieldset class="facet">
    <legend>Agreement</legend>
    ${steps.map(
      (step) => html`<label key=${step} class="facet-value">
        <input
          type="checkbox"
          checked=${Number(chosen) === step}
          onChange=${() => change({ min_agreement: Number(chosen) === step ? null : String(step), cursor: null })}
        />
        <span class="facet-name">${step === 1 ? "all agree" : `at least ${step}`}</span>
        <span class="number muted">${count(atLeast(step))}</span>
      </label>`,
    )}
  </fieldset>`;
}

function Numbers({ parameters }) {
  const day = (name) => (parameters.get(name) || "").slice(0, 10);
  const setDay = (name) => (event) =>
    change({ [name]: event.target.value ? `${event.target.value}T00:00:00Z` : null, cursor: null });
  return html`<fieldset class="facet">
    <legend>Answers and time</legend>
    <label class="field">
      <span>Minimum answers</span>
      <input
        type="number"
        min="0"
        max="1000"
        value=${parameters.get("min_annotations") || ""}
        onChange=${(event) => change({ min_annotations: event.target.value, cursor: null })}
      />
    </label>
    <label class="field">
      <span>Labelled from (UTC)</span>
      <input type="date" value=${day("labelled_after")} onChange=${setDay("labelled_after")} />
    </label>
    <label class="field">
      <span>Labelled before (UTC)</span>
      <input type="date" value=${day("labelled_before")} onChange=${setDay("labelled_before")} />
    </label>
  </fieldset>`;
}
