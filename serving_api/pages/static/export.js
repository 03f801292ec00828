// The export of a view: download it in each format, or copy a command that does the same.
import { html, useState } from "./shared/html.js";
import { address, asFailure, download, readKey } from "./shared/api.js";
import { plural } from "./shared/format.js";
import { Copyable, Notice } from "./shared/parts.js";

const FORMATS = [
  ["parquet", "Parquet"],
  ["csv", "CSV"],
  ["ndjson", "NDJSON"],
  ["arrow", "Arrow"],
];

export function ExportPanel({ filters, total }) {
  const url = address("export.parquet", filters);
  return html`<section class="card export" aria-label="Export this view">
    <p>
      The file has ${total === null ? "all texts" : plural(total, "text")} of this view, all of one version of the labels.
    </p>
    <${Downloads} filters=${filters} />
    <div class="lines">
      ${lines(url).map(([label, text]) => html`<${Copyable} key=${label} label=${label} text=${text} />`)}
    </div>
  </section>`;
}

function Downloads({ filters }) {
  const [state, setState] = useState({});
  // A link can't carry a key: where one is needed, the page fetches the file.
  const fetchFile = (kind) => async (event) => {
    if (!readKey()) return;
    event.preventDefault();
    setState({ busy: kind });
    try {
      await download(address(`export.${kind}`, filters), `${filters.dataset}.${kind}`);
      setState({});
    } catch (error) {
      setState({ error: asFailure(error) });
    }
  };
  return html`<div class="row">
      ${FORMATS.map(
        ([kind, title]) => html`<a
          key=${kind}
          class="button"
          href=${address(`export.${kind}`, filters)}
          download=${`${filters.dataset}.${kind}`}
          onClick=${fetchFile(kind)}
        >
          ${state.busy === kind ? "Fetching" : title}
        </a>`,
      )}
    </div>
    ${state.error && html`<${Notice} error=${state.error} title="The export failed." />`}`;
}

/** Return [name, line] for each tool; where a key is needed, the lines read it from the environment. */
export function lines(url) {
  const quoted = `'${url.replaceAll("'", "%27")}'`;
  if (!readKey()) {
    return [
      ["curl", `curl -o texts.parquet ${quoted}`],
      ["pandas", `pandas.read_parquet(${quoted})`],
      ["polars", `polars.read_parquet(${quoted})`],
      ["DuckDB", `from read_parquet(${quoted})`],
    ];
  }
  return [
    ["curl", `curl -o texts.parquet -H "Authorization: Bearer $API_KEY" ${quoted}`],
    ["pandas", `pandas.read_parquet(${quoted}, storage_options={"Authorization": f"Bearer {api_key}"})`],
    ["polars", `polars.read_parquet(httpx.get(${quoted}, headers={"Authorization": f"Bearer {api_key}"}).content)`],
    [
      "DuckDB",
      `create secret (type http, extra_http_headers map {'Authorization': 'Bearer ' || getenv('API_KEY')});\n` +
        `from read_parquet(${quoted})`,
    ],
  ];
}
