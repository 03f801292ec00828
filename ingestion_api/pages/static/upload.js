// Choose a file, check how it will be read, correct the mapping, start the import.
import { html, useEffect, useState } from "./shared/html.js";
import { address, asFailure, Failure, send } from "./shared/api.js";
import { bytes } from "./shared/format.js";
import { Card, Loading, Notice } from "./shared/parts.js";
import { go } from "./shared/state.js";
import { ACCEPTED, fileOfLines, headersOf, startOf } from "./files.js";
import { Mapping } from "./mapping.js";
import { FirstRows, Rejected } from "./rows.js";
import { createImport, keepFile } from "./transfer.js";

export default function Upload({ meta }) {
  const [file, setFile] = useState(null);
  return html`<div class="view">
    <div class="view-head">
      <div>
        <h1>Upload texts</h1>
        <p class="hint">CSV, TSV, Excel, NDJSON, JSON or Parquet, also compressed with gzip or zstd. Any size.</p>
      </div>
    </div>
    ${file
      ? html`<${Chosen} key=${`${file.name} ${file.size} ${file.lastModified}`} file=${file} meta=${meta} onOther=${() => setFile(null)} />`
      : html`<${Choose} onFile=${setFile} />`}
  </div>`;
}

function Choose({ onFile }) {
  const [over, setOver] = useState(false);
  const [lines, setLines] = useState("");
  const drop = (event) => {
    event.preventDefault();
    setOver(false);
    if (event.dataTransfer.files[0]) onFile(event.dataTransfer.files[0]);
  };
  return html`<div class="stack">
    <label
      class=${`drop${over ? " over" : ""}`}
      onDragOver=${(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave=${() => setOver(false)}
      onDrop=${drop}
    >
      <span class="drop-title">Drop a file here, or choose one</span>
      <span class="hint">A preview shows how it will be read. Nothing is stored yet.</span>
      <input type="file" accept=${ACCEPTED} onChange=${(event) => event.target.files[0] && onFile(event.target.files[0])} />
    </label>
    <${Card} id="paste" title="Or paste lines" hint="One text a line, or JSON objects">
      <form
        class="stack"
        onSubmit=${(event) => {
          event.preventDefault();
          if (lines.trim()) onFile(fileOfLines(lines));
        }}
      >
        <label class="unseen" for="lines">Lines</label>
        <textarea id="lines" rows="6" value=${lines} onInput=${(event) => setLines(event.target.value)}></textarea>
        <div class="row"><button type="submit" disabled=${!lines.trim()}>Preview</button></div>
      </form>
    <//>
  </div>`;
}

function Chosen({ file, meta, onOther }) {
  const [parameters, setParameters] = useState({});
  const preview = usePreview(file, parameters);
  const [state, setState] = useState({ busy: false, error: null });
  const { data } = preview;
  const start = async () => {
    setState({ busy: true, error: null });
    try {
      const made = await createImport(file, headersFor(file, data), data.parameters);
      keepFile(made.id, file);
      go(`?view=import&id=${made.id}`);
    } catch (error) {
      setState({ busy: false, error: asFailure(error) });
    }
  };
  const set = (changes) => setParameters(withoutEmpty({ ...(data?.parameters || {}), ...parameters, ...changes }));
  return html`<div class="stack">
    <${Card}>
      <div class="row spread">
        <p class="file-name"><strong>${file.name}</strong> <span class="muted">${bytes(file.size)}</span></p>
        <button type="button" onClick=${onOther}>Choose another file</button>
      </div>
    <//>
    ${preview.error && html`<${Notice} error=${preview.error} title="The file could not be read." />`}
    ${!data && !preview.error && html`<${Card}><${Loading} lines=${8} label="Reading the beginning of the file" /><//>`}
    ${data &&
    html`<div class=${`stack${preview.loading ? " stale" : ""}`} aria-busy=${preview.loading ? "true" : "false"}>
      <${Mapping} preview=${data} datasets=${meta.datasets} onChange=${set} />
      ${data.problem &&
      html`<${Notice} title="With these settings, the import would fail." error=${new Failure(422, data.problem)} />`}
      <${Rejected} preview=${data} />
      <${FirstRows} preview=${data} />
      ${state.error && html`<${Notice} error=${state.error} title="The import was not started." />`}
      <div class="row">
        <button type="button" class="primary" disabled=${state.busy || Boolean(data.problem) || !data.rows.length} onClick=${start}>
          ${state.busy ? "Starting" : "Start the import"}
        </button>
        <span class="hint">Texts that are already stored are skipped.</span>
      </div>
    </div>`}
  </div>`;
}

/** Load the preview for these parameters. The last preview stays on screen until the next one arrives. */
function usePreview(file, parameters) {
  const [state, set] = useState({ data: null, error: null, loading: true });
  const asked = JSON.stringify(parameters);
  useEffect(() => {
    const stop = new AbortController();
    set((old) => ({ ...old, loading: true }));
    const ask = async () => {
      const body = await startOf(file);
      const options = { method: "POST", headers: headersOf(file.name), body, signal: stop.signal };
      return (await send(address("imports/preview", parameters), options)).json();
    };
    ask().then(
      (data) => stop.signal.aborted || set({ data, error: null, loading: false }),
      (error) => {
        if (stop.signal.aborted) return;
        if (error.status === 401) dispatchEvent(new Event("key-required"));
        set((old) => ({ ...old, error: asFailure(error), loading: false }));
      },
    );
    return () => stop.abort();
  }, [file, asked]);
  return state;
}

function headersFor(file, preview) {
  const headers = { ...headersOf(file.name), "Content-Type": preview.media_type };
  if (preview.content_encoding === "identity") delete headers["Content-Encoding"];
  else headers["Content-Encoding"] = preview.content_encoding;
  return headers;
}

const withoutEmpty = (values) =>
  Object.fromEntries(Object.entries(values).filter(([, value]) => value !== "" && value !== null && value !== undefined));
