// Detects the type of a file by its name and first bytes, and selects the part that a preview needs.

const FIRST_BYTES = 1024 * 1024 + 1; // one more than the server reads, so it knows that there is more
const WHOLE_BYTES = 16 * 1024 * 1024 + 1;
const NDJSON = "application/x-ndjson";
const TYPES = {
  csv: "text/csv",
  tsv: "text/tab-separated-values",
  txt: "text/csv",
  ndjson: NDJSON,
  jsonl: NDJSON,
  json: "application/json",
  parquet: "application/vnd.apache.parquet",
  xlsx: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
};
const ENCODINGS = { gz: "gzip", gzip: "gzip", zst: "zstd" };

export const ACCEPTED = ".csv,.tsv,.txt,.ndjson,.jsonl,.json,.parquet,.xlsx,.gz,.zst";

/** Return the headers for a file, by its name; text/csv if the name has no known ending. */
export function headersOf(name) {
  const parts = name.toLowerCase().split(".");
  const encoding = ENCODINGS[parts[parts.length - 1]];
  if (encoding) parts.pop();
  const headers = { "Content-Type": TYPES[parts[parts.length - 1]] || TYPES.csv };
  return encoding ? { ...headers, "Content-Encoding": encoding } : headers;
}

/** Return the short name of a media type: csv, xlsx, … */
export const formatOf = (type) => Object.keys(TYPES).find((ending) => TYPES[ending] === type) || type;

/** Return the part of a file that a preview needs: its beginning, or all of a small Parquet or .xlsx file. */
export async function startOf(file) {
  const magic = new TextDecoder("latin1").decode(await file.slice(0, 4).arrayBuffer());
  const isIndexed = magic === "PAR1" || magic === "PK\x03\x04";
  return file.slice(0, isIndexed ? WHOLE_BYTES : FIRST_BYTES);
}

/** Return a file of the pasted lines: JSON if they begin with an object or a list, else a CSV with the column "text". */
export function fileOfLines(text) {
  const first = text.trimStart()[0];
  if (first === "[") return new File([text], "pasted.json");
  if (first === "{") return new File([text], "pasted.ndjson");
  const rows = text
    .split(/\r?\n/)
    .filter((line) => line.trim())
    .map((line) => `"${line.replaceAll('"', '""')}"\r\n`);
  return new File(["text\r\n", ...rows], "pasted.csv");
}
