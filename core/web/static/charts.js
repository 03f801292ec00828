// Charts as SVG that Preact draws. Observable Plot was tried: it adds <style> elements, which the page's
// Content-Security-Policy forbids, and weighs 490 kB with d3. Each chart has its numbers as a table below it.
import { html, useEffect, useRef, useState } from "./html.js";
import { count, percent, short, wilson } from "./format.js";

const WIDEST_BAR = 72; // pixels, so that a single day does not fill the chart
const LEFT = 44;
const RIGHT = 8;
const TOP = 10;
const BOTTOM = 24;

/** Return [ref, width]: the width of an element in pixels, as it changes. */
function useWidth(initial = 600) {
  const ref = useRef(null);
  const [width, set] = useState(initial);
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => set(Math.max(200, Math.floor(entry.contentRect.width))));
    observer.observe(ref.current);
    return () => observer.disconnect();
  }, []);
  return [ref, width];
}

/** Return round numbers from 0 to at least `most`. */
export function ticks(most, wanted = 4) {
  if (most <= 0) return [0, 1];
  const rough = most / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max([1, 2, 5, 10].find((one) => one * power >= rough) * power, Number.isInteger(most) ? 1 : 0);
  const last = Math.ceil(most / step - 1e-9);
  return Array.from({ length: last + 1 }, (_, index) => Number((index * step).toPrecision(12)));
}

/** Bars by day, each a stack of series. `rows`: [{name, values: {series: number}}]; `series`: [{name, title, tone}]. */
export function StackedBars({ rows, series, title, height = 220 }) {
  const [ref, width] = useWidth();
  const totals = rows.map((row) => series.reduce((sum, one) => sum + (row.values[one.name] || 0), 0));
  const steps = ticks(Math.max(0, ...totals));
  const most = steps[steps.length - 1];
  const inner = height - TOP - BOTTOM;
  const y = (value) => TOP + inner * (1 - value / most);
  const band = (width - LEFT - RIGHT) / Math.max(1, rows.length);
  const bar = Math.min(band * 0.76, WIDEST_BAR);
  const every = Math.max(1, Math.ceil(58 / band));
  const bars = rows.flatMap((row, index) => {
    let sum = 0;
    return series.map((one) => {
      const value = row.values[one.name] || 0;
      const bottom = y(sum);
      sum += value;
      const top = y(sum);
      const x = LEFT + index * band + (band - bar) / 2;
      return value
        ? html`<rect class=${one.tone} x=${x} y=${top} width=${bar} height=${Math.max(0.5, bottom - top)}>
            <title>${`${row.name}: ${one.title} ${count(value)}`}</title>
          </rect>`
        : null;
    });
  });
  return html`<figure class="chart" ref=${ref}>
    <${Legend} series=${series} />
    <svg width=${width} height=${height} role="img" aria-label=${title}>
      ${steps.map((step) => html`<${YTick} key=${step} y=${y(step)} width=${width} text=${short(step)} />`)} ${bars}
      ${rows.map((row, index) =>
        (rows.length - 1 - index) % every
          ? null
          : html`<text key=${row.name} class="tick" ...${tickPlace(index, rows.length, band)} y=${height - 6}>
              ${row.name}
            </text>`,
      )}
    </svg>
    <${AsTable} title=${title} head=${["Day", ...series.map((one) => one.title)]} rows=${rows.map((row) => [
      row.name,
      ...series.map((one) => count(row.values[one.name] || 0)),
    ])} />
  </figure>`;
}

/** Values with their intervals, side by side: [{name, value, low, high, n}]. */
export function Intervals({ rows, title, valueTitle, from = 0, to = 1, format, height = 200, joined = false }) {
  const [ref, width] = useWidth();
  const lowest = Math.min(from, ...rows.map((row) => row.low ?? row.value ?? from));
  const inner = height - TOP - BOTTOM;
  const y = (value) => TOP + (inner * (to - value)) / (to - lowest);
  const band = (width - LEFT - RIGHT) / Math.max(1, rows.length);
  const longest = Math.min(16, Math.max(...rows.map((row) => row.name.length)));
  const every = Math.max(1, Math.ceil((14 + 7 * longest) / band));
  const x = (index) => LEFT + (index + 0.5) * band;
  const known = rows.map((row, index) => ({ ...row, x: x(index) })).filter((row) => row.value !== null);
  const steps = [0, 0.25, 0.5, 0.75, 1].map((share) => lowest + share * (to - lowest));
  return html`<figure class="chart" ref=${ref}>
    <svg width=${width} height=${height} role="img" aria-label=${title}>
      ${steps.map((step) => html`<${YTick} key=${step} y=${y(step)} width=${width} text=${format(step)} />`)}
      ${joined &&
      html`<polyline class="line" points=${known.map((row) => `${row.x},${y(row.value)}`).join(" ")} />`}
      ${known.map(
        (row) => html`<g key=${row.name}>
          ${row.low !== null &&
          html`<line class="whisker" x1=${row.x} x2=${row.x} y1=${y(row.low)} y2=${y(row.high)} />`}
          <circle class="dot" cx=${row.x} cy=${y(row.value)} r="4">
            <title>${`${row.name}: ${format(row.value)} (${interval(row, format)}), n = ${count(row.n)}`}</title>
          </circle>
        </g>`,
      )}
      ${rows.map((row, index) =>
        (rows.length - 1 - index) % every
          ? null
          : html`<text key=${row.name} class="tick" x=${x(index)} y=${height - 6} text-anchor="middle">
              ${row.name.length > 16 ? `${row.name.slice(0, 15)}…` : row.name}
            </text>`,
      )}
    </svg>
    <${AsTable} title=${title} head=${["", valueTitle, "95 % interval", "Texts"]} rows=${rows.map((row) => [
      row.name,
      format(row.value),
      interval(row, format),
      count(row.n),
    ])} />
  </figure>`;
}

/** The place of a bar's name: in its middle; at its end if it is a last, narrow bar, where the name would be cut. */
const tickPlace = (index, bars, band) =>
  index === bars - 1 && band < 40
    ? { x: LEFT + bars * band, "text-anchor": "end" }
    : { x: LEFT + (index + 0.5) * band, "text-anchor": "middle" };

/** A reliability diagram. `bins`: [{texts, probability, right}]; the diagonal is where both are equal. */
export function Reliability({ bins, title, height = 260 }) {
  const [ref, width] = useWidth();
  const from = Math.min(0.5, ...bins.map((bin) => Math.min(bin.probability, bin.right)));
  const inner = height - TOP - BOTTOM;
  const y = (value) => TOP + (inner * (1 - value)) / (1 - from);
  const x = (value) => LEFT + ((width - LEFT - RIGHT) * (value - from)) / (1 - from);
  const steps = [0, 0.25, 0.5, 0.75, 1].map((share) => from + share * (1 - from));
  const rows = bins.map((bin) => ({ ...bin, interval: wilson(bin.right, bin.texts) }));
  const words = (row) => `${percent(row.interval[0])} to ${percent(row.interval[1])}`;
  return html`<figure class="chart" ref=${ref}>
    <svg width=${width} height=${height} role="img" aria-label=${title}>
      ${steps.map((step) => html`<${YTick} key=${step} y=${y(step)} width=${width} text=${percent(step)} />`)}
      ${steps.map(
        (step) => html`<text key=${step} class="tick" x=${x(step)} y=${height - 6} text-anchor=${step < 1 ? "middle" : "end"}>
          ${percent(step)}
        </text>`,
      )}
      <line class="diagonal" x1=${x(from)} x2=${x(1)} y1=${y(from)} y2=${y(1)} />
      <polyline class="line" points=${rows.map((row) => `${x(row.probability)},${y(row.right)}`).join(" ")} />
      ${rows.map(
        (row) => html`<g key=${row.probability}>
          <line
            class="whisker"
            x1=${x(row.probability)}
            x2=${x(row.probability)}
            y1=${Math.min(y(row.interval[0]), height - BOTTOM)}
            y2=${y(row.interval[1])}
          />
          <circle class="dot" cx=${x(row.probability)} cy=${y(row.right)} r="4">
            <title>${`${percent(row.probability)}: ${percent(row.right)} right (${words(row)}), n = ${count(row.texts)}`}</title>
          </circle>
        </g>`,
      )}
    </svg>
    <${AsTable} title=${title} head=${["Probability", "Right", "95 % interval", "Texts"]} rows=${rows.map((row) => [
      percent(row.probability, 1),
      percent(row.right, 1),
      words(row),
      count(row.texts),
    ])} />
  </figure>`;
}

const interval = (row, format) => (row.low === null ? "–" : `${format(row.low)} to ${format(row.high)}`);

function YTick({ y, width, text }) {
  return html`<g>
    <line class="grid-line" x1=${LEFT} x2=${width - RIGHT} y1=${y} y2=${y} />
    <text class="tick" x=${LEFT - 8} y=${y + 4} text-anchor="end">${text}</text>
  </g>`;
}

function Legend({ series }) {
  return html`<ul class="legend" aria-hidden="true">
    ${series.map(
      (one) => html`<li key=${one.name}><span class=${`swatch ${one.tone}`}></span>${one.title}</li>`,
    )}
  </ul>`;
}

/** A chart's numbers, folded. */
function AsTable({ title, head, rows }) {
  return html`<details class="as-table">
    <summary>Numbers</summary>
    <div class="table-box" tabindex="0" role="region" aria-label=${`Numbers: ${title}`}>
      <table>
        <caption class="unseen">
          ${title}
        </caption>
        <thead>
          <tr>
            ${head.map((name, index) => html`<th key=${index} scope="col" class=${index ? "number" : ""}>${name}</th>`)}
          </tr>
        </thead>
        <tbody>
          ${rows.map(
            (row) => html`<tr key=${row[0]}>
              ${row.map((cell, index) =>
                index
                  ? html`<td key=${index} class="number">${cell}</td>`
                  : html`<th key=${index} scope="row">${cell}</th>`,
              )}
            </tr>`,
          )}
        </tbody>
      </table>
    </div>
  </details>`;
}
