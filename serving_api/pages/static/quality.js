// Quality: agreement over time and by source, figures of each annotator, and pairs as a matrix.
import { html, useEffect, useState } from "./shared/html.js";
import { get } from "./shared/api.js";
import { Intervals } from "./shared/charts.js";
import { useData } from "./shared/data.js";
import { dayName, decimal, plural } from "./shared/format.js";
import { Card, Empty, Loaded } from "./shared/parts.js";
import { change, useParameters } from "./shared/state.js";
import { Annotators, Pairs } from "./annotators.js";

const MEASURES = {
  krippendorff_alpha: {
    title: "Krippendorff's alpha",
    means: `How much better annotators agree than by chance: 1 is perfect, 0 is what chance would give, below 0 is
      worse. Krippendorff recommends 0.8 for firm conclusions and 0.667 for tentative ones. It copes with texts that
      have different numbers of answers; a text weighs as its number of answers.`,
  },
  fleiss_kappa: {
    title: "Fleiss' kappa",
    means: `Like alpha, but each text weighs the same, and the chance of agreement follows from how often each label
      is used. Low values are common where one label is rare, even when most answers agree.`,
  },
  observed_agreement: {
    title: "Observed agreement",
    means: `The share of pairs of answers on the same text that are equal. Easy to read, but it does not take chance
      into account: with two labels, one of them rare, it is high even if annotators guess.`,
  },
};
const PERIODS = 8;

export default function Quality({ dataset, labels, tick, stats }) {
  const asked = useParameters().get("measure");
  const measure = Object.hasOwn(MEASURES, asked || "") ? asked : "krippendorff_alpha";
  const agreement = useData("stats/agreement", { dataset }, tick);
  const annotators = useData("stats/annotators", { dataset }, tick);
  return html`<div class="view">
    <div class="view-head">
      <div>
        <h1>Quality</h1>
        <p class="hint">
          Measured on texts with two or more submitted answers. Intervals are 95 % bootstrap intervals over texts.
        </p>
      </div>
    </div>
    <${Loaded} of=${agreement} lines=${4}>${(data) => html`<${Measures} data=${data} chosen=${measure} />`}<//>
    <div class="grid">
      <${OverTime} dataset=${dataset} stats=${stats} measure=${measure} tick=${tick} />
      <${BySource} dataset=${dataset} stats=${stats} measure=${measure} tick=${tick} />
      <${Card} id="annotators" title="Annotators" wide>
        <${Loaded} of=${annotators} lines=${6}>
          ${(data) => html`<${Annotators} annotators=${data.annotators} labels=${labels} />`}
        <//>
      <//>
      <${Card} id="pairs" title="Pairs" hint="Cohen's kappa of two annotators, on the texts that both answered" wide>
        <${Loaded} of=${agreement} lines=${6}>${(data) => html`<${Pairs} agreement=${data} />`}<//>
      <//>
    </div>
  </div>`;
}

function Measures({ data, chosen }) {
  return html`<div class="measures" role="group" aria-label="Measures of agreement">
    ${Object.entries(MEASURES).map(([name, { title, means }]) => {
      const { value, low, high, n } = data[name];
      return html`<section key=${name} class=${`measure${name === chosen ? " chosen" : ""}`}>
        <button
          type="button"
          aria-pressed=${name === chosen ? "true" : "false"}
          onClick=${() => change({ measure: name }, true)}
        >
          <span class="measure-title">${title}</span>
          <span class="measure-value">${decimal(value)}</span>
          <span class="muted">
            ${low === null ? "no interval" : `${decimal(low)} to ${decimal(high)}`}, ${plural(n, "text")}
          </span>
        </button>
        <details class="explain">
          <summary>What this means</summary>
          <p>${means}</p>
        </details>
      </section>`;
    })}
  </div>`;
}

/** Load the agreement for each of these parameters, one after the other; returns the state that `Loaded` takes. */
function useAgreements(parameters, tick) {
  const asked = JSON.stringify(parameters);
  const [state, set] = useState({ asked: null, data: null, error: null });
  useEffect(() => {
    const stop = new AbortController();
    const load = async () => {
      const found = [];
      // Of these, only the coefficients of all annotators are shown.
      for (const one of JSON.parse(asked)) found.push(await get("stats/agreement", { ...one, max_pairs: 0 }, { signal: stop.signal }));
      set({ asked, data: found, error: null });
    };
    load().catch((error) => stop.signal.aborted || set((old) => ({ ...old, error })));
    return () => stop.abort();
  }, [asked, tick]);
  return { ...state, stale: state.asked !== asked };
}

function OverTime({ dataset, stats, measure, tick }) {
  const periods = stats.data ? periodsOf(Object.keys(stats.data.by_day)) : [];
  const found = useAgreements(
    periods.map((one) => ({ dataset, labelled_after: one.after, labelled_before: one.before })),
    tick,
  );
  const rows = periods.map((one, index) => ({ name: one.name, ...measured(found.data?.[index], measure) }));
  return html`<${Card} id="over-time" title="Over time" hint=${MEASURES[measure].title}>
    <${Loaded} of=${found} lines=${5}>
      ${() =>
        rows.some((row) => row.value !== null)
          ? html`<${Intervals}
              rows=${rows}
              title=${`${MEASURES[measure].title} over time`}
              valueTitle=${MEASURES[measure].title}
              format=${(value) => decimal(value)}
              joined
            />`
          : html`<${Empty} title="Not enough answers"><p>Texts need answers of two annotators.</p><//>`}
    <//>
  <//>`;
}

function BySource({ dataset, stats, measure, tick }) {
  const sources = Object.entries(stats.data?.by_source || {})
    .filter(([name]) => name)
    .sort((a, b) => b[1] - a[1])
    .slice(0, PERIODS)
    .map(([name]) => name);
  const found = useAgreements(
    sources.map((source) => ({ dataset, source })),
    tick,
  );
  const rows = sources.map((name, index) => ({ name, ...measured(found.data?.[index], measure) }));
  return html`<${Card} id="by-source" title="By source" hint=${MEASURES[measure].title}>
    <${Loaded} of=${found} lines=${5}>
      ${() =>
        rows.some((row) => row.value !== null)
          ? html`<${Intervals}
              rows=${rows}
              title=${`${MEASURES[measure].title} by source`}
              valueTitle=${MEASURES[measure].title}
              format=${(value) => decimal(value)}
            />`
          : html`<${Empty} title="No sources to compare"><p>Send texts with a source to see them here.</p><//>`}
    <//>
  <//>`;
}

const NOTHING = { value: null, low: null, high: null, n: 0 };
const measured = (answer, measure) => answer?.[measure] || NOTHING;

/** Divide the days with labels into at most eight periods of whole days, all equally long. */
function periodsOf(days) {
  if (!days.length) return [];
  const at = (day) => Date.parse(`${day}T00:00:00Z`) / 86_400_000;
  const sorted = [...days].sort();
  const first = at(sorted[0]);
  const span = at(sorted[sorted.length - 1]) - first + 1;
  const length = Math.ceil(span / PERIODS);
  const text = (day) => new Date(day * 86_400_000).toISOString();
  return Array.from({ length: Math.ceil(span / length) }, (_, index) => {
    const start = first + index * length;
    return {
      name: dayName(text(start).slice(0, 10)),
      // The filter is exclusive, and times have microseconds.
      after: new Date(start * 86_400_000 - 1).toISOString().replace("Z", "999Z"),
      before: text(start + length),
    };
  });
}
