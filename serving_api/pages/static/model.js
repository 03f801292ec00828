// Model: measures of the active classifier and of earlier versions, and labels that are probably wrong.
import { html } from "./shared/html.js";
import { Intervals, Reliability } from "./shared/charts.js";
import { useData, useDebounced } from "./shared/data.js";
import { count, decimal, moment, percent, plural } from "./shared/format.js";
import { Card, Empty, Figure, Label, Loaded, Table } from "./shared/parts.js";
import { change, useParameters } from "./shared/state.js";
import { ArgillaLink, LabelledCells, OriginCell, Pager, SourcePicker, Threshold, usePage, usePlaces } from "./items.js";

const PAGE = 50;
const DEFAULT_BELOW = 0.3;
const VERSIONS = 12;
const MEASURES = {
  roc_auc: ["ROC AUC", "1 is perfect, 0.5 is chance"],
  average_precision: ["Average precision", "1 is perfect"],
  f1: ["F1", "mean over the labels; 1 is perfect"],
  calibration_error: ["Calibration error", "0 is perfect"],
};

export default function Model({ dataset, labels, tick, stats, meta, models }) {
  const items = models.data?.items || [];
  const active = items.find((one) => one.is_active) || items[0];
  return html`<div class="view">
    <div class="view-head">
      <div>
        <h1>Model</h1>
        <p class="hint">
          A classifier that learns from the labels. Measures are out of fold: each text is scored by a model that did
          not learn from it.
        </p>
      </div>
      ${active && html`<p class="hint"><code>${active.version}</code>, trained ${moment(active.created_at)}</p>`}
    </div>
    <${Loaded} of=${models} lines=${6}>
      ${() =>
        active
          ? html`<div class="view">
              <${Measures} model=${active} />
              <div class="grid">
                <${Calibration} model=${active} tick=${tick} />
                <${Versions} models=${items} />
              </div>
            </div>`
          : html`<${Empty} title="No model yet"><p>One is trained when enough texts are labelled.</p><//>`}
    <//>
    ${active &&
    html`<${Suspects} dataset=${dataset} labels=${labels} tick=${tick} stats=${stats} meta=${meta} />`}
  </div>`;
}

const measured = (model, name) => model.metrics[name] || { value: null, low: null, high: null };

function Measures({ model }) {
  return html`<div>
    <dl class="figures">
      ${Object.entries(MEASURES).map(([name, [title]]) => {
        const { value, low, high } = measured(model, name);
        const note = low === null ? "not measured" : `${decimal(low, 3)} to ${decimal(high, 3)}`;
        return html`<${Figure} key=${name} label=${title} value=${decimal(value, 3)} note=${note} />`;
      })}
      <${Figure} label="Texts" value=${count(model.texts)} note="in its training data" />
    </dl>
    <p class="hint decision">${model.decision}</p>
  </div>`;
}

function Calibration({ model, tick }) {
  const detail = useData(`models/${model.version}`, {}, tick);
  return html`<${Card} id="reliability" title="Reliability" hint="Of texts with a probability of 80 %, 80 % should be right">
    <${Loaded} of=${detail} lines=${6}>
      ${(data) => html`<${Reliability} bins=${data.reliability} title="Reliability diagram" />`}
    <//>
  <//>`;
}

function Versions({ models }) {
  const asked = useParameters().get("measured");
  const name = Object.hasOwn(MEASURES, asked || "") ? asked : "roc_auc";
  const [title, hint] = MEASURES[name];
  const rows = models
    .slice(0, VERSIONS)
    .reverse()
    .map((one) => ({ name: one.version.slice(0, 7), n: one.texts, ...measured(one, name) }));
  const picker = html`<label class="inline">
    <span class="unseen">Measure</span>
    <select value=${name} onChange=${(event) => change({ measured: event.target.value }, true)}>
      ${Object.entries(MEASURES).map(([one, [words]]) => html`<option key=${one} value=${one}>${words}</option>`)}
    </select>
  </label>`;
  return html`<${Card} id="versions" title="Versions" hint=${hint} actions=${picker}>
    <${Intervals}
      rows=${rows}
      title=${`${title} by version`}
      valueTitle=${title}
      from=${name === "calibration_error" ? 0 : 0.5}
      to=${name === "calibration_error" ? Math.max(0.1, ...rows.map((row) => row.high ?? 0)) : 1}
      format=${(value) => decimal(value)}
      joined
    />
  <//>`;
}

function Suspects({ dataset, labels, tick, stats, meta }) {
  const parameters = useParameters();
  const below = Number(parameters.get("quality") ?? DEFAULT_BELOW);
  const [source, cursor] = [parameters.get("source"), parameters.get("cursor")];
  const asked = { dataset, source, quality_below: useDebounced(below, 250), limit: PAGE, cursor };
  const page = usePage("suspects", asked, tick);
  const places = usePlaces(meta);
  return html`<${Card}
    id="suspects"
    title="Suspects"
    hint="Labels that are probably wrong, the worst first: the model predicts another one"
    wide
  >
    <div class="row controls">
      <${Threshold} title="Labels with a quality below" name="quality" least="0.05" value=${below} />
      <${SourcePicker} stats=${stats} source=${source} />
    </div>
    <${Loaded} of=${page} lines=${6}>
      ${(data) =>
        data.items.length
          ? html`<${SuspectTable} items=${data.items} labels=${labels} places=${places.data} />
              <${Pager} page=${data} cursor=${cursor} />`
          : html`<${Empty} title="No suspects"><p>The model agrees with every label of this quality.</p><//>`}
    <//>
  <//>`;
}

function SuspectTable({ items, labels, places }) {
  return html`<${Table}
    label="Table of suspects"
    caption=${`${plural(items.length, "label")} that may be wrong`}
    columns=${["Text", "Label", "Votes", "Model", ["Quality", "number"], "Source, labelled"]}
    name="texts"
  >
    ${items.map(
      (item) => html`<tr key=${item.id}>
        <${LabelledCells} item=${item} labels=${labels} />
        <td title=${item.reason}>
          <${Label} name=${item.predicted_label} labels=${labels} />
          <span class="open muted">${percent(item.predicted_probability)}</span>
          <span class="open"><${ArgillaLink} places=${places} item=${item} title="Open in Argilla" /></span>
        </td>
        <td class="number">${decimal(item.quality)}</td>
        <${OriginCell} item=${item} />
      </tr>`,
    )}
  <//>`;
}
