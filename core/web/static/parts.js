// Components that all views use.
import { html, useEffect, useRef, useState } from "./html.js";
import { keepKey } from "./api.js";
import { count, percent } from "./format.js";

/** A titled part of a page; `actions` are to the right of the title. */
export function Card({ title, hint, actions, children, wide, id }) {
  return html`<section class=${`card${wide ? " wide" : ""}`} aria-labelledby=${id}>
    ${title &&
    html`<header class="card-head">
      <h2 id=${id}>${title}</h2>
      ${hint && html`<p class="hint">${hint}</p>`} ${actions && html`<div class="actions">${actions}</div>`}
    </header>`}
    ${children}
  </section>`;
}

/** A number with its name. */
export function Figure({ label, value, note, tone }) {
  return html`<div class=${`figure ${tone || ""}`}>
    <dt>${label}</dt>
    <dd>${value}</dd>
    ${note && html`<dd class="note">${note}</dd>`}
  </div>`;
}

/** A placeholder of grey bars while data is loaded. */
export function Loading({ lines = 3, label = "Loading" }) {
  return html`<div class="loading" role="status" aria-label=${label}>
    ${Array.from({ length: lines }, (_, index) => html`<span key=${index} class="bone"></span>`)}
  </div>`;
}

/** An empty state: a title, and what to do. */
export function Empty({ title, children }) {
  return html`<div class="empty">
    <p class="empty-title">${title}</p>
    <div class="hint">${children}</div>
  </div>`;
}

/** An error message. */
export function Notice({ error, title, children, tone = "warning", onRetry }) {
  return html`<div class=${`notice ${tone}`} role=${tone === "warning" ? "alert" : "status"}>
    <div>
      <strong>${title || "This could not be loaded."}</strong>
      ${error && html`<p>${error.message}</p>`}
      ${error?.errors?.length > 0 &&
      html`<ul>
        ${error.errors.slice(0, 10).map(
          (one, index) => html`<li key=${index}><code>${one.pointer || one.parameter || ""}</code> ${one.detail}</li>`,
        )}
      </ul>`}
      ${children}
    </div>
    ${onRetry && html`<button type="button" onClick=${onRetry}>Try again</button>`}
  </div>`;
}

/** Shows `children(data)` when data is loaded, else a placeholder or the error. */
export function Loaded({ of, lines, children }) {
  if (of.error && !of.data) return html`<${Notice} error=${of.error} />`;
  if (!of.data) return html`<${Loading} lines=${lines} />`;
  return html`<div class=${of.stale ? "stale" : ""} aria-busy=${of.stale ? "true" : "false"}>
    ${of.error && html`<${Notice} error=${of.error} title="These numbers are not the newest." />`} ${children(of.data)}
  </div>`;
}

/** A table that scrolls sideways. A column is its title, or a title with the class of its cells. */
export function Table({ label, caption, captionClass = "unseen", columns, name, children }) {
  return html`<div class="table-box" tabindex="0" role="region" aria-label=${label}>
    <table class=${name}>
      <caption class=${captionClass}>
        ${caption}
      </caption>
      <thead>
        <tr>
          ${columns.map((column, index) => {
            const [title, style] = [column].flat();
            return html`<th key=${index} scope="col" class=${style}>${title}</th>`;
          })}
        </tr>
      </thead>
      <tbody>
        ${children}
      </tbody>
    </table>
  </div>`;
}

/** Asks for an API key. */
export function KeyForm({ scope, onKey }) {
  const input = useRef(null);
  const [refused, setRefused] = useState(false);
  useEffect(() => input.current?.focus(), []);
  const submit = (event) => {
    event.preventDefault();
    const key = input.current.value.trim();
    setRefused(!key);
    if (!key) return;
    keepKey(key);
    onKey();
  };
  return html`<form class="key-form" onSubmit=${submit}>
    <h1>An API key is required</h1>
    <p class="hint" id="key-hint">
      Ask an administrator for a key with the scope <code>${scope}</code>:${" "}
      <code>annotate keys create NAME --scope ${scope}</code>. This tab keeps it until you close it.
    </p>
    <label for="key">API key</label>
    <div class="row">
      <input
        id="key"
        ref=${input}
        type="password"
        autocomplete="off"
        spellcheck=${false}
        aria-describedby="key-hint"
        aria-invalid=${refused ? "true" : "false"}
        placeholder="ap_…"
      />
      <button class="primary" type="submit">Use this key</button>
    </div>
  </form>`;
}

/** A text to copy, with a button that copies it. */
export function Copyable({ label, text }) {
  const [said, say] = useState("");
  const code = useRef(null);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      say("Copied");
      setTimeout(() => say(""), 1500);
    } catch {
      // Browsers have no clipboard on an http address other than localhost.
      getSelection().selectAllChildren(code.current);
      say("Selected, press Ctrl+C");
    }
  };
  return html`<div class="copyable">
    <div class="copyable-head">
      <span>${label}</span>
      <button type="button" class="quiet" onClick=${copy} aria-label=${`Copy: ${label}`}>
        ${said || "Copy"}
      </button>
    </div>
    <pre tabindex="0" aria-label=${label}><code ref=${code}>${text}</code></pre>
  </div>`;
}

/** A label's name with its colour. */
export function Label({ name, labels }) {
  const index = labels.indexOf(name);
  return html`<span class="label">
    <span class=${`swatch series-${name === null ? "none" : index % 6}`} aria-hidden="true"></span>
    ${name === null ? "disputed" : name}
  </span>`;
}

/** Votes as one bar of parts. */
export function Votes({ votes, labels }) {
  const total = Object.values(votes).reduce((sum, one) => sum + one, 0);
  const parts = labels.filter((label) => votes[label]);
  const words = parts.map((label) => `${label} ${votes[label]}`).join(", ");
  return html`<span class="votes">
    <span class="vote-bar" aria-hidden="true">
      ${parts.map(
        (label) =>
          html`<span
            key=${label}
            class=${`series-${labels.indexOf(label) % 6}`}
            style=${{ flexGrow: votes[label] }}
          ></span>`,
      )}
    </span>
    <span class="vote-words">${total ? words : "no votes"}</span>
  </span>`;
}

/** Names with numbers, each with a bar that shows its share. */
export function ShareList({ items, total, onPick }) {
  const most = Math.max(1, ...items.map((one) => one.value));
  return html`<ul class="shares">
    ${items.map(
      (one) => html`<li key=${one.name}>
        <span class="share-name" title=${one.name}>
          ${onPick ? html`<a ...${onPick(one)}>${one.title || one.name}</a>` : one.title || one.name}
        </span>
        <span class="share-bar" aria-hidden="true">
          <span class=${one.tone || ""} style=${{ width: `${(100 * one.value) / most}%` }}></span>
        </span>
        <span class="number">${count(one.value)}</span>
        <span class="number muted">${total ? percent(one.value / total) : ""}</span>
      </li>`,
    )}
  </ul>`;
}
