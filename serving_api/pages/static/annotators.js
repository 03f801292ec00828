// The figures of each annotator, and the agreement of each pair.
import { html, useState, Fragment } from "./shared/html.js";
import { count, decimal, moment, percent, plural, wilson } from "./shared/format.js";
import { Empty, Table } from "./shared/parts.js";

const MOST_IN_MATRIX = 14;
const COLUMNS = [
  "Annotator",
  ["Answers", "number"],
  ["Discarded", "number"],
  ["Per hour", "number"],
  ["Agrees with the outcome", "number"],
  ["Right on gold texts", "number"],
  "Last answer",
  html`<span class="unseen">Confusion</span>`,
];

export function Annotators({ annotators, labels }) {
  const [open, setOpen] = useState(null);
  if (!annotators.length) {
    return html`<${Empty} title="No answers yet"><p>Annotators appear here with their first answer.</p><//>`;
  }
  return html`<${Table} label="Table of annotators" caption="Annotators" columns=${COLUMNS}>
      ${annotators.map(
        (one) => html`<${Fragment} key=${one.annotator}>
          <tr>
            <th scope="row" class="name-cell">${one.annotator}</th>
            <td class="number">${count(one.answers)}</td>
            <td class="number">${count(one.discarded)}</td>
            <td class="number">${one.answers_per_hour === null ? "–" : count(Math.round(one.answers_per_hour))}</td>
            <td class="number"><${ShareOf} share=${one.agreement_with_outcome} /></td>
            <td class="number"><${ShareOf} share=${one.gold_accuracy} /></td>
            <td class="nowrap">${moment(one.last_at)}</td>
            <td class="number">
              <button
                type="button"
                class="quiet"
                aria-expanded=${open === one.annotator ? "true" : "false"}
                aria-label=${`Confusion of ${one.annotator}`}
                onClick=${() => setOpen(open === one.annotator ? null : one.annotator)}
              >
                Confusion
              </button>
            </td>
          </tr>
          ${open === one.annotator &&
          html`<tr>
            <td colspan="8">
              <div class="confusion" tabindex="0" role="region" aria-label=${`Table: confusion of ${one.annotator}`}>
                <${Confusion} confusion=${one.confusion} labels=${labels} who=${one.annotator} />
              </div>
            </td>
          </tr>`}
        <//>`,
      )}
    <//>
    <details class="explain">
      <summary>What these figures mean</summary>
      <p>
        <strong>Per hour</strong> is the pace while at work: pauses of more than ten minutes don't count.${" "}
        <strong>Agrees with the outcome</strong> is the share of answers that are the text's label, of texts that others
        answered, too. <strong>Right on gold texts</strong> is the share of right answers on texts whose label is known.
        The range is a 95 % interval (Wilson): with few texts it is wide.
      </p>
    </details>`;
}

function ShareOf({ share }) {
  const range = wilson(share.value, share.n);
  if (!range) return html`<span class="muted">no texts</span>`;
  return html`<span>${percent(share.value)}</span>
    <span class="range-words">${percent(range[0])} to ${percent(range[1])}, n ${count(share.n)}</span>`;
}

function Confusion({ confusion, labels, who }) {
  const all = labels.filter((label) => confusion[label]);
  if (!all.length) return html`<p class="hint">No texts that others answered, too.</p>`;
  return html`<p class="hint">For texts of each label (rows), how often ${who} gave which answer (columns).</p>
    <table class="heat">
      <caption class="unseen">
        ${`Confusion of ${who}`}
      </caption>
      <thead>
        <tr>
          <th scope="col">label</th>
          ${labels.map((label) => html`<th key=${label} scope="col">${label}</th>`)}
        </tr>
      </thead>
      <tbody>
        ${all.map((label) => {
          const row = confusion[label];
          const sum = Object.values(row).reduce((total, one) => total + one, 0);
          return html`<tr key=${label}>
            <th scope="row">${label}</th>
            ${labels.map((answer) => {
              const share = (row[answer] || 0) / sum;
              return html`<td key=${answer} style=${{ "--heat-share": share.toFixed(3) }}>
                ${percent(share)} <span class="range-words">${count(row[answer] || 0)}</span>
              </td>`;
            })}
          </tr>`;
        })}
      </tbody>
    </table>`;
}

export function Pairs({ agreement }) {
  const pairs = agreement.cohen_kappa;
  if (!pairs.length) {
    return html`<${Empty} title="No pairs yet"><p>Two annotators have to answer the same texts.</p><//>`;
  }
  const shared = new Map();
  for (const { annotators, n } of pairs) for (const one of annotators) shared.set(one, (shared.get(one) || 0) + n);
  const names = [...shared.keys()].sort((a, b) => shared.get(b) - shared.get(a)).slice(0, MOST_IN_MATRIX);
  const byPair = new Map(pairs.map((pair) => [JSON.stringify([...pair.annotators].sort()), pair]));
  const find = (one, other) => byPair.get(JSON.stringify([one, other].sort()));
  return html`<div class="table-box" tabindex="0" role="region" aria-label="Matrix of pairs">
      <table class="heat">
        <caption class="unseen">
          Cohen's kappa of each pair
        </caption>
        <thead>
          <tr>
            <td></td>
            ${names.map((name) => html`<th key=${name} scope="col">${name}</th>`)}
          </tr>
        </thead>
        <tbody>
          ${names.map(
            (one) => html`<tr key=${one}>
              <th scope="row">${one}</th>
              ${names.map((other) => html`<${PairCell} key=${other} pair=${one === other ? null : find(one, other)} />`)}
            </tr>`,
          )}
        </tbody>
      </table>
    </div>
    <p class="hint">
      ${agreement.pairs > pairs.length
        ? `Of ${plural(agreement.pairs, "pair")}, the ${pairs.length} that share the most texts.`
        : plural(agreement.pairs, "pair")}
    </p>
    <details class="explain">
      <summary>What Cohen's kappa means</summary>
      <p>
        How much better two annotators agree than chance would make them, given how often each uses each label. 1 is
        perfect, 0 is chance. A pair that is far below the others has probably read the guidelines differently.
      </p>
    </details>`;
}

function PairCell({ pair }) {
  if (!pair) return html`<td class="none">–</td>`;
  const title = pair.low === null ? "" : `${decimal(pair.low)} to ${decimal(pair.high)}, ${plural(pair.n, "text")}`;
  return html`<td style=${{ "--heat-share": Math.max(0, pair.value || 0).toFixed(3) }} title=${title}>
    ${decimal(pair.value)}
  </td>`;
}
