// Overview: progress, labels per day, and alerts.
import { html } from "./shared/html.js";
import { StackedBars } from "./shared/charts.js";
import { useData, useTick } from "./shared/data.js";
import { count, dayName, duration, moment, percent, plural } from "./shared/format.js";
import { Card, Empty, Figure, Loaded, Notice, ShareList } from "./shared/parts.js";
import { linkTo } from "./shared/state.js";

const DAYS = 30;
const PACE_DAYS = 7;
const QUEUE_MS = 10_000;
const MOST_ANNOTATORS = 6;

export default function Overview({ meta, dataset, labels, tick, stats }) {
  const [beat] = useTick(QUEUE_MS);
  const days = useData("stats/days", { dataset, days: DAYS }, tick);
  const queue = useData("queue", {}, `${tick} ${beat}`, { base: meta.ingestion, seconds: 8 });
  return html`<div class="view">
    <div class="view-head">
      <h1>Overview</h1>
      <p class="hint">${stats.data ? `${plural(stats.data.total, "text")} with answers in ${dataset}` : dataset}</p>
    </div>
    <${Alerts} queue=${queue} url=${meta.ingestion} />
    <${Loaded} of=${stats} lines=${4}>
      ${(totals) => html`<${Totals} totals=${totals} queue=${queue.data} days=${days.data} />`}
    <//>
    <div class="grid">
      <${Card} id="labels" title="Labels per day" hint=${`The last ${DAYS} days with labels, UTC`} wide>
        <${Loaded} of=${days} lines=${6}>${(data) => html`<${LabelDays} days=${data.days} labels=${labels} />`}<//>
      <//>
      <${Card} id="by-label" title="By label">
        <${Loaded} of=${stats}>${(totals) => html`<${ByLabel} totals=${totals} labels=${labels} />`}<//>
      <//>
      <${Card} id="by-source" title="By source">
        <${Loaded} of=${stats}>${(totals) => html`<${BySource} totals=${totals} />`}<//>
      <//>
      <${Card} id="answers" title="Answers per annotator and day" wide>
        <${Loaded} of=${days} lines=${6}>${(data) => html`<${AnswerDays} days=${data.days} />`}<//>
      <//>
    </div>
    ${stats.data && html`<${Replica} totals=${stats.data} />`}
  </div>`;
}

function Alerts({ queue, url }) {
  if (queue.error?.status === 403) {
    return html`<${Notice} tone="info" title="This key may not read the queue.">
      <p>Pending and failed texts and alerts need a key with the scope <code>ingest</code> or <code>admin</code>.</p>
    <//>`;
  }
  if (queue.error) {
    return html`<${Notice} title="The ingestion API can't be reached from this browser." error=${queue.error}>
      <p>
        Pending and failed texts and alerts are missing here; everything else is complete. Address: <code>${url}</code>
      </p>
    <//>`;
  }
  if (!queue.data?.alerts.length) return null;
  return html`<${Notice} title=${plural(queue.data.alerts.length, "alert")}>
    <p>These jobs are blocked until an operator acts:</p>
    <ul>
      ${queue.data.alerts.map(
        (alert, index) => html`<li key=${index}>
          <strong>${alert.dataset}</strong>: ${alert.reason}${" "}
          <span class="muted">Since ${moment(alert.since)} (${alert.code}).</span>
        </li>`,
      )}
    </ul>
  <//>`;
}

function Totals({ totals, queue, days }) {
  const pace = days ? paceOf(days.days) : null;
  const waiting = queue ? queue.pending + queue.uploading + queue.open_records : null;
  const seconds = waiting !== null && pace ? (waiting / pace) * 86400 : null;
  const missing = queue ? "" : "unknown";
  return html`<dl class="figures">
    <${Figure} label="Labelled" value=${count(totals.by_status.labelled)} note=${ofTotal(totals, "labelled")} />
    <${Figure} label="Disputed" value=${count(totals.by_status.disputed)} note=${ofTotal(totals, "disputed")} />
    <${Figure} label="Incomplete" value=${count(queue?.open_records)} note=${missing || (queue.open_records ? "need more answers" : "none in Argilla")} />
    <${Figure} label="Pending" value=${count(queue && queue.pending + queue.uploading)} note=${pendingNote(queue)} />
    <${Figure}
      label="Failed"
      value=${count(queue?.failed)}
      note=${missing || (queue.failed ? "see: annotate uploads list" : "none refused")}
      tone=${queue?.failed ? "alarm" : ""}
    />
    <${Figure}
      label="Pace"
      value=${pace ? count(Math.round(pace)) : "–"}
      note=${`texts a day, last ${PACE_DAYS} days`}
    />
    <${Figure} label="Time left" value=${waiting === 0 ? "none" : duration(seconds)} note=${waiting === 0 ? "no text is waiting" : "at this pace"} />
  </dl>`;
}

const ofTotal = (totals, status) =>
  totals.total ? `${percent(totals.by_status[status] / totals.total, 1)} of those with answers` : "none yet";

function pendingNote(queue) {
  if (!queue) return "unknown";
  if (queue.oldest_pending_seconds === null) return "none waiting";
  return `oldest ${duration(queue.oldest_pending_seconds)}`;
}

/** Texts labelled a day, over the last days that the server counted up to. */
function paceOf(days) {
  const first = new Date(Date.now() - PACE_DAYS * 86_400_000).toISOString().slice(0, 10);
  const recent = days.filter((one) => one.day > first);
  const sum = recent.reduce((all, one) => all + one.disputed + total(one.labels), 0);
  return sum / PACE_DAYS;
}

const total = (numbers) => Object.values(numbers).reduce((sum, one) => sum + one, 0);

/** Return the days, including those without labels in between. */
function withGaps(days) {
  if (!days.length) return [];
  const byDay = new Map(days.map((one) => [one.day, one]));
  const found = [];
  const last = new Date(`${days[days.length - 1].day}T00:00:00Z`);
  const start = new Date(`${days[0].day}T00:00:00Z`);
  for (const day = start; day <= last; day.setUTCDate(day.getUTCDate() + 1)) {
    const name = day.toISOString().slice(0, 10);
    found.push(byDay.get(name) || { day: name, labels: {}, disputed: 0, answers: {} });
  }
  return found;
}

function LabelDays({ days, labels }) {
  if (!days.length) return html`<${NoLabels} />`;
  const rows = withGaps(days).map((one) => ({
    name: dayName(one.day),
    values: { ...one.labels, "": one.disputed },
  }));
  const series = labels.map((label, index) => ({ name: label, title: label, tone: `series-${index % 6}` }));
  series.push({ name: "", title: "disputed", tone: "series-none" });
  return html`<${StackedBars} rows=${rows} series=${series} title="Labels per day" height=${240} />`;
}

function AnswerDays({ days }) {
  if (!days.length) return html`<${NoLabels} title="No answers yet" />`;
  const sums = new Map();
  for (const one of days) {
    for (const [name, answers] of Object.entries(one.answers)) sums.set(name, (sums.get(name) || 0) + answers);
  }
  const names = [...sums].sort((a, b) => b[1] - a[1]).map(([name]) => name);
  const shown = names.slice(0, names.length > MOST_ANNOTATORS ? MOST_ANNOTATORS - 1 : MOST_ANNOTATORS);
  const series = shown.map((name, index) => ({ name, title: name, tone: `series-${index}` }));
  if (names.length > shown.length) {
    series.push({ name: "", title: `${names.length - shown.length} others`, tone: "series-none" });
  }
  const rows = withGaps(days).map((one) => {
    const values = Object.create(null);
    for (const [name, answers] of Object.entries(one.answers)) {
      const to = shown.includes(name) ? name : "";
      values[to] = (values[to] || 0) + answers;
    }
    return { name: dayName(one.day), values };
  });
  return html`<${StackedBars} rows=${rows} series=${series} title="Answers per annotator and day" height=${220} />`;
}

function ByLabel({ totals, labels }) {
  const items = labels.map((label, index) => ({
    name: label,
    value: totals.by_label[label] || 0,
    tone: `series-${index % 6}`,
  }));
  items.push({ name: "disputed", value: totals.by_status.disputed, status: "disputed", tone: "series-none" });
  const pick = (one) =>
    linkTo(one.status ? { view: "texts", status: one.status } : { view: "texts", label: one.name });
  return html`<${ShareList} items=${items} total=${totals.total} onPick=${pick} />`;
}

function BySource({ totals }) {
  const all = [...Object.entries(totals.by_source), ["", totals.without_source]];
  const sources = all.filter(([, texts]) => texts).sort((a, b) => b[1] - a[1]);
  if (!sources.length) return html`<${NoLabels} />`;
  const items = sources.slice(0, 8).map(([name, value]) => ({ name, value, title: name || "without a source" }));
  const pick = (one) => linkTo({ view: "texts", source: one.name });
  return html`<${ShareList} items=${items} total=${totals.total} onPick=${pick} />
    ${sources.length > items.length && html`<p class="hint">and ${count(sources.length - items.length)} more</p>`}`;
}

function Replica({ totals }) {
  return html`<p class="hint">
    These numbers come from the serving API's own copy of the labels, version ${count(totals.version)}. It last read the
    change feed ${duration(totals.replica_age_seconds)} before it answered.
  </p>`;
}

function NoLabels({ title = "No labels yet" }) {
  return html`<${Empty} title=${title}>
    <p>They appear here as soon as annotators answer in Argilla; this page needs no reload.</p>
  <//>`;
}
