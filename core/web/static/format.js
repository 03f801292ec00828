// Numbers, shares and times as people read them. Times are those of the browser's time zone, days are UTC.

const number = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
const dateTime = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });

const none = "–";

export const count = (value) => (value === null || value === undefined ? none : number.format(value));
export const short = (value) => (value < 10_000 ? number.format(value) : compact.format(value));
export const percent = (value, digits = 0) =>
  value === null || value === undefined ? none : `${(100 * value).toFixed(digits)} %`;
export const decimal = (value, digits = 2) =>
  value === null || value === undefined ? none : value.toFixed(digits);
export const dayName = (value) => day.format(new Date(`${value}T00:00:00Z`));
export const moment = (value) => (value ? dateTime.format(new Date(value)) : none);
export const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;

/** Return a number of seconds in its largest fitting unit: 45 s, 12 min, 5 h, 3 days. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return none;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.round(seconds / 3600)} h`;
  if (seconds < 730 * 86400) return plural(Math.round(seconds / 86400), "day");
  return plural(Math.round(seconds / 365 / 86400), "year");
}

export function bytes(value) {
  if (value === null || value === undefined) return none;
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  let left = value;
  while (left >= 1000 && unit < units.length - 1) {
    left /= 1000;
    unit += 1;
  }
  return `${left < 10 && unit ? left.toFixed(1) : Math.round(left)} ${units[unit]}`;
}

/** Return the 95 % Wilson interval of a share of `n`, as [low, high]; null without any. */
export function wilson(share, n) {
  if (share === null || !n) return null;
  const z = 1.959964;
  const middle = (share + (z * z) / (2 * n)) / (1 + (z * z) / n);
  const half = (z / (1 + (z * z) / n)) * Math.sqrt((share * (1 - share)) / n + (z * z) / (4 * n * n));
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}
