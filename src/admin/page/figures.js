// How figures are written, and where they go: always as text.

export const NONE = "–";

export const $ = (id) => document.getElementById(id);

export const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const two = new Intl.NumberFormat("en", { maximumSignificantDigits: 2 });
const three = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
export const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
export const minute = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
export const date = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

// Each gives number and unit.
export function micros(value) {
  if (value == null) return [NONE, ""];
  if (value < 1e3) return [three.format(value), "µs"];
  if (value < 1e6) return [three.format(value / 1e3), "ms"];
  if (value < 120e6) return [three.format(value / 1e6), "s"];
  return [whole.format(value / 60e6), "min"];
}

export function bytes(value) {
  if (value == null) return [NONE, ""];
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return [three.format(value), units[unit]];
}

export function perSecond(value) {
  if (value == null) return [NONE, ""];
  if (value >= 1e6) return [three.format(value / 1e6), "M/s"];
  if (value >= 1e5) return [whole.format(value / 1e3), "k/s"];
  return [value < 10 ? two.format(value) : whole.format(value), "/s"];
}

// Never 100 % unless it is so.
export function percent(value) {
  if (value == null) return [NONE, ""];
  const hundred = value * 100;
  return [three.format(hundred < 100 ? Math.min(hundred, 99.9) : 100), "%"];
}

export const text = ([number, unit]) => (unit ? `${number} ${unit}` : number);

export function span(seconds) {
  const [days, hours, minutes] = [seconds / 86400, (seconds / 3600) % 24, (seconds / 60) % 60].map(Math.floor);
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min` : `${Math.floor(seconds)} s`;
}

export const short = (value) => (value == null ? NONE : compact.format(value));
export const many = (n, one, more = `${one}s`) => `${whole.format(n)} ${n === 1 ? one : more}`;

export function say(element, words) {
  if (element.textContent !== words) element.textContent = words;
}

export function show(id, [number, unit]) {
  const element = $(id);
  if (element.dataset.shown === number + unit) return;
  element.dataset.shown = number + unit;
  const small = document.createElement("small");
  small.textContent = unit;
  element.replaceChildren(number, ...(unit ? [small] : []));
}

// How full something is, with its words.
export function meter(id, value, most, words, full = 0.98) {
  const element = $(id);
  const part = value == null || !most ? 0 : Math.min(value / most, 1);
  element.firstElementChild.style.width = `${part * 100}%`;
  element.classList.toggle("full", part >= full);
  element.setAttribute("aria-valuenow", part.toFixed(3));
  element.setAttribute("aria-valuetext", words);
}

export function make(name, kind, words) {
  const node = document.createElement(name);
  if (kind) node.className = kind;
  if (words !== undefined) node.textContent = words;
  return node;
}
