// The upload page's frame: navigation, the queue's state, and the view that the address names.
import { html, render } from "./shared/html.js";
import { KeyForm } from "./shared/parts.js";
import { useSession } from "./shared/session.js";
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
  const { meta, waiting, keys, keyWanted, onKey, onForget } = useSession("ingestion");
  if (waiting) return waiting;
  const asked = parameters.get("view") || "";
  const view = Object.hasOwn(COMPONENTS, asked) ? asked : "upload";
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
          <a href=${meta.serving}>Dashboard</a>
          ${onForget && html`<button type="button" class="quiet" onClick=${onForget}>Other key</button>`}
        </span>
      </div>
    </header>
    <main id="content" tabindex="-1">
      ${keyWanted
        ? html`<${KeyForm} scope="ingest" onKey=${onKey} />`
        : html`<${COMPONENTS[view]} meta=${meta} parameters=${parameters} />`}
    </main>
  </div>`;
}

render(html`<${App} />`, document.getElementById("app"));
