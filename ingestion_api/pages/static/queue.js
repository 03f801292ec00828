// The queue: numbers of texts by status, and blocked jobs.
import { html } from "./shared/html.js";
import { useData, useTick } from "./shared/data.js";
import { count, duration, moment, plural } from "./shared/format.js";
import { Card, Empty, Figure, Loaded } from "./shared/parts.js";

const POLL_MS = 2000;

export default function Queue() {
  const [tick] = useTick(POLL_MS);
  const queue = useData("queue", {}, tick);
  return html`<div class="view">
    <div class="view-head">
      <div>
        <h1>Queue</h1>
        <p class="hint">Texts on their way to Argilla, where annotators see them.</p>
      </div>
    </div>
    <${Loaded} of=${queue} lines=${4}>
      ${(data) => html`<div class="stack">
        <dl class="figures">
          <${Figure} label="Pending" value=${count(data.pending)} note=${oldest(data)} />
          <${Figure} label="Uploading" value=${count(data.uploading)} note="to Argilla" />
          <${Figure} label="Open records" value=${count(data.open_records)} note="need more answers" />
          <${Figure} label="Uploaded" value=${count(data.uploaded)} note="in all" />
          <${Figure} label="Near duplicates" value=${count(data.near_duplicates)} note="suppressed" />
          <${Figure} label="Failed" value=${count(data.failed)} note="refused by Argilla" tone=${data.failed ? "alarm" : ""} />
        </dl>
        <${Card} id="alerts" title="Alerts">
          ${data.alerts.length
            ? html`<ul class="alerts">
                ${data.alerts.map(
                  (alert, index) => html`<li key=${index}>
                    <strong>${alert.dataset}</strong>
                    <p>${alert.reason}</p>
                    <p class="hint">Since ${moment(alert.since)} (${alert.code})</p>
                  </li>`,
                )}
              </ul>`
            : html`<${Empty} title="No alerts"><p>No job is blocked.</p><//>`}
        <//>
        ${data.failed > 0 &&
        html`<p class="hint">
          <code>annotate uploads list</code> shows why ${plural(data.failed, "text was", "texts were")} refused;${" "}
          <code>annotate uploads retry</code> sends them again.
        </p>`}
      </div>`}
    <//>
  </div>`;
}

const oldest = (queue) =>
  queue.oldest_pending_seconds === null ? "none waiting" : `oldest ${duration(queue.oldest_pending_seconds)}`;
