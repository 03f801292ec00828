// One import: the upload with pause and resume, the rows with rate and time left, the rejects.
import { html, useEffect, useRef, useState } from "./shared/html.js";
import { address, asFailure, download, Failure, readKey } from "./shared/api.js";
import { useData, useTick } from "./shared/data.js";
import { bytes, count, duration, moment, percent, plural } from "./shared/format.js";
import { Card, Figure, Loaded, Notice } from "./shared/parts.js";
import { linkTo } from "./shared/state.js";
import { formatOf } from "./files.js";
import { groupErrors, Reasons } from "./rows.js";
import { findFile, keepFile, sendRest } from "./transfer.js";

const POLL_MS = 1000;
const UNFINISHED = ["receiving", "waiting", "running"];

export default function Import({ parameters }) {
  const id = parameters.get("id") || "";
  const [isUnfinished, setUnfinished] = useState(true);
  const [tick, refresh] = useTick(POLL_MS, isUnfinished);
  const job = useData(`imports/${encodeURIComponent(id)}`, {}, tick);
  useEffect(() => setUnfinished(!job.data || UNFINISHED.includes(job.data.state)), [job.data]);
  return html`<div class="view">
    <div class="view-head">
      <div>
        <p><a ...${linkTo({ view: "imports" })}>← All imports</a></p>
        <h1>Import</h1>
      </div>
    </div>
    <${Loaded} of=${job} lines=${6}>${(data) => html`<${Job} job=${data} onChange=${refresh} />`}<//>
  </div>`;
}

function Job({ job, onChange }) {
  return html`<div class="stack">
    ${job.state === "receiving" && html`<${Transfer} key=${job.id} job=${job} onChange=${onChange} />`}
    ${job.problem && html`<${Notice} title="The import failed." error=${new Failure(422, job.problem)} />`}
    ${job.state !== "receiving" && html`<${Rows} job=${job} />`}
    <${Counts} job=${job} />
    ${job.rejected > 0 && html`<${Rejects} job=${job} />`}
    <${Facts} job=${job} />
  </div>`;
}

/** Uploads the file unless paused. After a reload the user must choose the file again. */
function Transfer({ job, onChange }) {
  const [file, setFile] = useState(findFile(job.id));
  const [paused, setPaused] = useState(false);
  const [sent, setSent] = useState(job.upload.offset);
  const [error, setError] = useState(null);
  const began = useRef({ at: Date.now(), bytes: job.upload.offset });
  useEffect(() => {
    if (!file || paused) return undefined;
    const stop = new AbortController();
    began.current = { at: Date.now(), bytes: sent };
    setError(null);
    sendRest(job.id, file, setSent, stop.signal).then(
      () => stop.signal.aborted || onChange(),
      (problem) => {
        setError(asFailure(problem));
        setPaused(true);
      },
    );
    return () => stop.abort();
  }, [file, paused]);
  const total = job.upload.length ?? file?.size ?? 0;
  const seconds = (Date.now() - began.current.at) / 1000;
  const rate = seconds > 0 ? (sent - began.current.bytes) / seconds : 0;
  const choose = (event) => {
    const chosen = event.target.files[0];
    if (!chosen) return;
    if (total && chosen.size !== total) {
      setError(new Failure(0, { detail: `${chosen.name} has ${count(chosen.size)} bytes, the interrupted file has ${count(total)}.` }));
      return;
    }
    setError(null);
    keepFile(job.id, chosen);
    setFile(chosen);
  };
  return html`<${Card} id="transfer" title="Uploading the file">
    <div class="stack">
      <${Bar} label="Uploaded" value=${sent} most=${total} />
      <p class="hint" role="status">
        ${bytes(sent)} of ${bytes(total)}
        ${file && !paused && rate > 0 ? `, ${bytes(rate)} a second, ${duration((total - sent) / rate)} left` : ""}
        ${paused ? ", paused" : ""}
      </p>
      ${error && html`<${Notice} error=${error} title="The upload stopped." />`}
      ${file
        ? html`<div class="row">
            <button type="button" onClick=${() => setPaused(!paused)}>${paused ? "Resume" : "Pause"}</button>
          </div>`
        : html`<label class="field">
            <span>Choose the same file again to resume the upload</span>
            <input type="file" onChange=${choose} />
          </label>`}
    </div>
  <//>`;
}

function Bar({ label, value, most }) {
  const share = most ? Math.min(1, value / most) : 0;
  return html`<progress aria-label=${label} max="1" value=${share}>${percent(share)}</progress>`;
}

function Rows({ job }) {
  const { rows, bytes: read, bytes_total: all, rows_per_second: rate } = job.progress;
  const share = job.state === "done" ? 1 : all ? read / all : 0;
  const bytesPerRow = rows ? read / rows : 0;
  const left = rate && bytesPerRow ? (all - read) / bytesPerRow / rate : null;
  const words = {
    waiting: "The file is uploaded. The import is waiting for its turn.",
    running: `${plural(rows, "row")} read${rate ? `, ${count(Math.round(rate))} a second` : ""}${left ? `, ${duration(left)} left` : ""}`,
    done: `All ${plural(rows, "row")} read${rate ? `, ${count(Math.round(rate))} a second` : ""}`,
    failed: `${plural(rows, "row")} read before it failed`,
  };
  return html`<${Card} id="rows" title=${job.state === "done" ? "Done" : "Storing the rows"}>
    <div class="stack">
      <${Bar} label="Rows read" value=${share} most=${1} />
      <p class="hint" role="status">${words[job.state]}</p>
    </div>
  <//>`;
}

function Counts({ job }) {
  return html`<dl class="figures">
    <${Figure} label="Received" value=${count(job.received)} note="rows" />
    <${Figure} label="Stored" value=${count(job.accepted)} note="new texts" />
    <${Figure} label="Duplicates" value=${count(job.duplicates)} note="already stored" />
    <${Figure} label="Rejected" value=${count(job.rejected)} note="not stored" tone=${job.rejected ? "alarm" : ""} />
  </dl>`;
}

function Rejects({ job }) {
  const path = `imports/${encodeURIComponent(job.id)}/rejects`;
  const name = `rejects-${job.id}.ndjson`;
  const [error, setError] = useState(null);
  const onDownload = (event) => {
    if (!readKey()) return;
    event.preventDefault();
    download(address(path), name).catch((problem) => setError(asFailure(problem)));
  };
  return html`<${Card} id="rejects" title="Rejected rows" hint=${keptHint(job)}>
    <div class="stack">
      <${Reasons} groups=${groupErrors(job.errors)} />
      <div class="row">
        <a class="button" href=${address(path)} download=${name} onClick=${onDownload}>
          Download the rejected rows
        </a>
        <a ...${linkTo({})}>Upload the corrected rows</a>
      </div>
      ${error && html`<${Notice} error=${error} title="The download failed." />`}
    </div>
  <//>`;
}

const keptHint = (job) =>
  `${plural(job.rejects_kept, "row is", "rows are")} kept${job.rejected > job.errors.length ? `; reasons of the first ${job.errors.length}` : ""}`;

function Facts({ job }) {
  const parameters = Object.entries(job.parameters).map(([name, value]) => `${name}=${value}`);
  const facts = [
    ["Id", html`<code>${job.id}</code>`],
    ["Format", `${formatOf(job.media_type)}${job.encoding === "identity" ? "" : `, ${job.encoding}`}`],
    ["Parameters", parameters.join(", ") || "none"],
    ["Started", moment(job.created_at)],
    ["Uploaded", moment(job.received_at)],
    ["Finished", moment(job.finished_at)],
  ];
  return html`<${Card} id="facts" title="Details">
    <dl class="facts">${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
  <//>`;
}
