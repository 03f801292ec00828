// The frame of the dashboard: navigation, choice of dataset, freshness, and the view that the address names.
import { html, render, useEffect, useMemo, useState } from "./shared/html.js";
import { useData } from "./shared/data.js";
import { duration, short } from "./shared/format.js";
import { useLive, useSecondsSince } from "./shared/live.js";
import { KeyForm, Loading, Notice } from "./shared/parts.js";
import { useSession } from "./shared/session.js";
import { change, linkTo, useParameters } from "./shared/state.js";

const VIEWS = [
  ["overview", "Overview"],
  ["texts", "Texts"],
  ["quality", "Quality"],
  ["work", "Work list"],
  ["model", "Model"],
  ["training", "Training data"],
];
// Each view is loaded when it is first shown.
const MODULES = {
  overview: () => import("./overview.js"),
  texts: () => import("./texts.js"),
  text: () => import("./text.js"),
  quality: () => import("./quality.js"),
  work: () => import("./work.js"),
  model: () => import("./model.js"),
  training: () => import("./training.js"),
};

function App() {
  const parameters = useParameters();
  const { meta, waiting, keys, keyWanted, onKey, onForget } = useSession("serving");
  if (waiting) return waiting;
  return html`<${Frame}
    key=${keys}
    meta=${meta}
    parameters=${parameters}
    keyWanted=${keyWanted}
    onKey=${onKey}
    onForget=${onForget}
  />`;
}

function Frame({ meta, parameters, keyWanted, onKey, onForget }) {
  const datasets = Object.keys(meta.datasets);
  const asked = parameters.get("dataset");
  const dataset = datasets.includes(asked) ? asked : datasets.includes("toxicity") ? "toxicity" : datasets[0];
  const view = parameters.get("view") || "";
  const name = Object.hasOwn(MODULES, view) ? view : "overview";
  const [tick, setTick] = useState(0);
  const stats = useData(keyWanted ? null : "stats", { dataset }, tick);
  const models = useData(keyWanted ? null : "models", { dataset }, tick);
  const live = useLive(dataset, stats.data && !stats.stale ? stats.data.version : null);
  useEffect(() => setTick((old) => old + (live.tick ? 1 : 0)), [live.tick]);
  const context = useMemo(
    () => ({ meta, dataset, labels: meta.datasets[dataset].labels, tick, stats, models }),
    [meta, dataset, tick, stats.data, stats.error, stats.stale, models.data, models.error, models.stale],
  );
  useEffect(() => {
    const title = VIEWS.find(([one]) => one === name)?.[1] || "Text";
    document.title = `${title} · ${dataset}`;
  }, [name, dataset]);
  return html`<div class="frame">
    <a class="skip" href="#content">Skip to the content</a>
    <header class="side">
      <a class="brand" ...${linkTo({})}>
        <img src="static/shared/icon.svg" alt="" width="24" height="24" />Annotation
      </a>
      <nav class="nav" aria-label="Views">
        ${VIEWS.filter(([view]) => view !== "model" || models.data?.items.length).map(
          ([view, title]) => html`<a
            key=${view}
            ...${linkTo({ view: view === "overview" ? "" : view })}
            aria-current=${view === name || (view === "texts" && name === "text") ? "page" : undefined}
          >
            ${title}
            ${view === "work" && stats.data?.by_status.disputed
              ? html`<span class="number" title="disputed texts">${short(stats.data.by_status.disputed)}</span>`
              : null}
          </a>`,
        )}
      </nav>
      <div class="side-foot">
        ${datasets.length > 1 &&
        html`<label class="field">
          <span>Dataset</span>
          <select value=${dataset} onChange=${(event) => change({ dataset: event.target.value, cursor: null })}>
            ${datasets.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}
          </select>
        </label>`}
        ${!keyWanted && html`<${Freshness} live=${live} />`}
        <span class="row">
          <a href="docs">API</a>
          <a href=${meta.ingestion}>Upload</a>
          ${onForget && html`<button type="button" class="quiet" onClick=${onForget}>Other key</button>`}
        </span>
      </div>
    </header>
    <main id="content" tabindex="-1">
      ${keyWanted ? html`<${KeyForm} scope="read" onKey=${onKey} />` : html`<${View} name=${name} context=${context} />`}
    </main>
  </div>`;
}

function Freshness({ live }) {
  const seconds = useSecondsSince(live.confirmedAt);
  if (live.away) return html`<span class="live away" role="status">The serving API does not respond</span>`;
  return html`<span class="live" title="Time since the last update from the server">
    ${seconds === null ? "Connecting" : `Updated ${duration(seconds)} ago`}
  </span>`;
}

function View({ name, context }) {
  const [loaded, setLoaded] = useState({});
  useEffect(() => {
    let wanted = true;
    MODULES[name]().then(
      (module) => wanted && setLoaded({ name, Component: module.default }),
      (error) => wanted && setLoaded({ name, error }),
    );
    return () => {
      wanted = false;
    };
  }, [name]);
  if (loaded.name !== name) return html`<${Loading} lines=${5} />`;
  if (loaded.error) {
    return html`<${Notice} title="This view could not be loaded." onRetry=${() => location.reload()}>
      <p>The serving API did not respond. Is it running, and can this browser reach it?</p>
    <//>`;
  }
  return html`<${loaded.Component} ...${context} />`;
}

render(html`<${App} />`, document.getElementById("app"));
