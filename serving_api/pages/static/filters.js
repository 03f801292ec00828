// The filters of GET /texts as they stand in the page's address.

export const SINGLE = [
  "q",
  "match",
  "source",
  "language",
  "status",
  "annotator",
  "min_agreement",
  "min_annotations",
  "labelled_after",
  "labelled_before",
  "complete",
  "predicted_label",
];

/** Return the filters that an address names, as parameters of the API. */
export function readFilters(parameters, dataset) {
  const filters = { dataset };
  for (const name of SINGLE) if (parameters.get(name)) filters[name] = parameters.get(name);
  if (!filters.q) delete filters.match;
  const labels = parameters.getAll("label");
  if (labels.length) filters.label = labels;
  return filters;
}

/** Whether the API refused the cursor of a page: the filters are others by now, or somebody cut the address. */
export const isCursorRefused = (error) =>
  error?.code === "invalid_cursor" || Boolean(error?.errors.some((one) => one.parameter === "cursor"));

/** Return changes of the address that remove every filter. */
export const noFilters = () => ({ ...Object.fromEntries(SINGLE.map((name) => [name, null])), label: null, cursor: null });

/** Return what a filter and its value are called on the page. */
export function filterTitle(name, value) {
  const titles = {
    q: `contains “${value}”`,
    status: value,
    source: `source: ${value}`,
    language: `language: ${value}`,
    annotator: `answered by ${value}`,
    label: `label: ${value}`,
    min_agreement: `agreement ≥ ${value}`,
    min_annotations: `answers ≥ ${value}`,
    labelled_after: `after ${value.slice(0, 10)}`,
    labelled_before: `before ${value.slice(0, 10)}`,
    complete: value === "true" ? "complete" : "incomplete",
    predicted_label: `model: ${value}`,
    match: `match: ${value}`,
  };
  return titles[name] || `${name}: ${value}`;
}
