// The upload page's frame: navigation, the queue's state, and the view that the address names.
import { html, render, useEffect, useState } from "./shared/html.js";
import { keepKey, readKey } from "./shared/api.js";
import { useData } from "./shared/data.js";
import { KeyForm, Loading, Notice } from "./shared/parts.js";
import { linkTo, useParameters } from "./shared/state.js";
import Imports from "./imports.js";
import Import from "./import.js";
import Queue from "./queue.js";
import Upload from "./upload.js";

const VIEWS = [
  ["upload", "Upload"],
  ["imports", "Imports"],
  ["queue", "Queue"],
];
const COMPONENTS = { upload: Upload, imports: Imports, import: Import, queue: Queue };

function App() {
  const parameters = useParameters();
  const [keys, setKeys] = useState(0);
  const [keyWanted, setKeyWanted] = useState(false);
  const meta = useData("", {}, keys);
  useEffect(() => {
    const ask = () => setKeyWanted(true);
    addEventListener("key-required", ask);
    return () => removeEventListener("key-required", ask);
  }, []);
  if (meta.error && !meta.data) {
    return html`<main class="alone">
      <${Notice} title="The ingestion API does not answer." error=${meta.error} onRetry=${() => setKeys(keys + 1)} />
    </main>`;
  }
  if (!meta.data) return html`<main class="alone"><${Loading} /></main>`;
  const asked = parameters.get("view") || "";
  const view = Object.hasOwn(COMPONENTS, asked) ? asked : "upload";
  const wanted = keyWanted || (meta.data.key_required && !readKey());
  const onKey = () => {
    setKeyWanted(false);
    setKeys(keys + 1);
  };
  const askAgain = () => {
    keepKey("");
    setKeyWanted(true);
  };
  return html`<div class="frame" key=${keys}>
    <a class="skip" href="#content">Skip to the content</a>
    <header class="side">
      <a class="brand" ...${linkTo({})}><img src="static/shared/icon.svg" alt="" width="24" height="24" />Annotation</a>
      <nav class="nav" aria-label="Views">
        ${VIEWS.map(
          ([name, title]) => html`<a
            key=${name}
            ...${linkTo({ view: name === "upload" ? "" : name })}
            aria-current=${name === view || (name === "imports" && view === "import") ? "page" : undefined}
          >
            ${title}
          </a>`,
        )}
      </nav>
      <div class="side-foot">
        <span class="row">
          <a href="docs">API</a>
          <a href=${meta.data.serving}>Dashboard</a>
          ${meta.data.key_required &&
          !wanted &&
          html`<button type="button" class="quiet" onClick=${askAgain}>Other key</button>`}
        </span>
      </div>
    </header>
    <main id="content" tabindex="-1">
      ${wanted
        ? html`<${KeyForm} scope="ingest" onKey=${onKey} />`
        : html`<${COMPONENTS[view]} meta=${meta.data} parameters=${parameters} />`}
    </main>
  </div>`;
}

render(html`<${App} />`, document.getElementById("app"));
