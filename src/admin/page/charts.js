// Line charts as SVG: axes, units, and a reading for pointer and keyboard.

import { NONE, clock, make, minute, say, text } from "./figures.js";

export const PERIOD = 15 * 60_000;

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 56;
const RIGHT = 10;
const TOP = 8;
const BOTTOM = 22;

function draw(name, attributes, words) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (words !== undefined) node.textContent = words;
  return node;
}

// From 0 in steps of 1, 2 or 5 times a power of ten, at most four of them.
export function linear(top) {
  const rough = top / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((times) => times * power >= rough) * power;
  const last = Math.ceil(top / step - 1e-9);
  const ticks = Array.from({ length: last + 1 }, (_, i) => i * step);
  return { ticks, at: (value) => value / (last * step) };
}

// By powers of ten, from the one below the least to the one above the most.
export function logarithmic(least, most) {
  const low = Math.floor(Math.log10(Math.max(least, 1)));
  const high = Math.max(Math.ceil(Math.log10(Math.max(most, 1))), low + 1);
  const ticks = Array.from({ length: high - low + 1 }, (_, i) => 10 ** (low + i));
  return { ticks, at: (value) => (Math.log10(Math.max(value, 10 ** low)) - low) / (high - low) };
}

// A line chart of the last 15 minutes. Its reading follows the pointer and, by a slider that lies over it, the keyboard.
export class Chart {
  // `series`: [column, label] each; `unit` writes a value; `scale` gives the axis for the values and the limit; `limit`: its label.
  constructor(place, { title, series, unit, scale, limit, nothing }) {
    Object.assign(this, { title, series, unit, scale, limitLabel: limit });
    this.points = [];
    this.limit = null;
    this.read = null;
    const figure = make("figure", "chart");
    const caption = make("figcaption");
    const legend = make("ul", "legend");
    this.current = series.map(([, label], i) => {
      const item = make("li");
      const value = make("b", "", NONE);
      if (series.length > 1 || limit) item.append(make("span", `swatch s${i}`));
      item.append(series.length > 1 ? `${label} ` : "", value);
      legend.append(item);
      return value;
    });
    if (limit) {
      const item = make("li");
      this.bound = make("b", "", NONE);
      item.append(make("span", "swatch limit"), `${limit} `, this.bound);
      legend.append(item);
    }
    caption.append(make("h3", "", title), legend);
    this.plot = make("div", "plot");
    this.slider = make("input");
    Object.assign(this.slider, { type: "range", min: 0, max: 0, step: 1 });
    this.slider.setAttribute("aria-label", `${title}: moment to read`);
    this.svg = draw("svg", { role: "img" });
    this.tip = make("div", "tip");
    this.tip.hidden = true;
    this.nothing = make("p", "nothing", nothing);
    this.plot.append(this.slider, this.svg, this.tip, this.nothing);
    figure.append(caption, this.plot);
    place.append(figure);
    this.set([], null);
    this.listen();
  }

  listen() {
    const point = (event) => {
      const x = event.clientX - this.plot.getBoundingClientRect().left;
      this.point(this.nearest(x));
    };
    for (const kind of ["pointermove", "pointerdown"]) this.slider.addEventListener(kind, point);
    this.slider.addEventListener("pointerleave", () => this.point(null));
    this.slider.addEventListener("blur", () => this.point(null));
    this.slider.addEventListener("focus", () => {
      if (this.slider.matches(":focus-visible")) this.point(this.points.length - 1);
    });
    // While the pointer is down its place counts, and not what the slider makes of it.
    this.slider.addEventListener("input", () => {
      if (!this.slider.matches(":active")) this.point(Number(this.slider.value));
    });
    new ResizeObserver(() => this.paint()).observe(this.plot);
  }

  x(at) {
    const end = this.points.at(-1)?.at ?? 0;
    return LEFT + (this.width - LEFT - RIGHT) * (1 - (end - at) / PERIOD);
  }

  y(value) {
    return TOP + (this.height - TOP - BOTTOM) * (1 - Math.min(this.axis.at(value), 1));
  }

  nearest(x) {
    let best = null;
    this.points.forEach((point, i) => {
      if (best === null || Math.abs(this.x(point.at) - x) < Math.abs(this.x(this.points[best].at) - x)) best = i;
    });
    return best;
  }

  // Reads the points[i], or nothing.
  point(i) {
    this.read = i !== null && this.points[i] ? this.points[i].at : null;
    if (this.read !== null) this.slider.value = i;
    this.reading();
  }

  set(points, limit) {
    this.points = points;
    this.limit = this.bound ? (limit ?? null) : null;
    const last = points.at(-1) ?? {};
    this.series.forEach(([column], i) => say(this.current[i], text(this.unit(last[column]))));
    if (this.bound) say(this.bound, text(this.unit(this.limit)));
    this.slider.max = Math.max(points.length - 1, 0);
    // The reading keeps its moment while the line moves on; without one the slider stands at its end.
    const kept = this.read === null ? -1 : points.findLastIndex((point) => point.at <= this.read);
    this.read = points[kept]?.at ?? null;
    this.slider.value = this.read === null ? points.length - 1 : kept;
    this.slider.setAttribute("aria-valuetext", this.words(points[this.slider.value]));
    this.svg.setAttribute("aria-label", this.summary());
    this.paint();
  }

  words(point) {
    if (!point) return "nothing measured yet";
    const values = this.series.map(([column, label]) => `${label} ${text(this.unit(point[column]))}`.replace(NONE, "not measured"));
    return `${clock.format(point.at)}: ${values.join(", ")}`;
  }

  summary() {
    const each = this.series.map(([column, label]) => {
      const values = this.points.map((point) => point[column]).filter((value) => value != null);
      if (!values.length) return `${label}: nothing measured`;
      const [now, least, most] = [values.at(-1), Math.min(...values), Math.max(...values)].map((value) => text(this.unit(value)));
      return `${label}: last ${now}, lowest ${least}, highest ${most}`;
    });
    const limit = this.limit == null ? "" : `; ${this.limitLabel} ${text(this.unit(this.limit))}`;
    return `${this.title}, last 15 minutes. ${each.join("; ")}${limit}.`;
  }

  paint() {
    this.width = this.plot.clientWidth;
    this.height = this.plot.clientHeight;
    if (!this.width || document.hidden) return;
    const values = this.points.flatMap((point) => this.series.map(([column]) => point[column])).filter((value) => value != null);
    this.axis = this.scale(values, this.limit);
    this.nothing.hidden = values.length > 0;
    const nodes = this.axes();
    if (this.limit != null) {
      const y = this.y(this.limit);
      nodes.push(draw("line", { class: "bound", x1: LEFT, x2: this.width - RIGHT, y1: y, y2: y }));
    }
    this.series.forEach(([column], i) => {
      const runs = this.runs(column);
      const line = runs.map((run) => `M${run.join("L")}h.01`).join("");
      if (this.series.length === 1) {
        const floor = this.height - BOTTOM;
        const under = runs.map((run) => `M${run[0][0]},${floor}L${run.join("L")}L${run.at(-1)[0]},${floor}Z`);
        nodes.push(draw("path", { class: "area", d: under.join("") }));
      }
      nodes.push(draw("path", { class: `line s${i}`, d: line }));
    });
    this.cursor = draw("g", {});
    this.svg.replaceChildren(...nodes, this.cursor);
    this.reading();
  }

  axes() {
    const nodes = [];
    for (const tick of this.axis.ticks) {
      const y = this.y(tick);
      nodes.push(draw("line", { class: "grid", x1: LEFT, x2: this.width - RIGHT, y1: y, y2: y }));
      nodes.push(draw("text", { x: LEFT - 8, y: y + 4, "text-anchor": "end" }, text(this.unit(tick))));
    }
    const end = this.points.at(-1)?.at ?? Date.now();
    const step = 5 * 60_000;
    for (let at = Math.floor(end / step) * step; at > end - PERIOD; at -= step) {
      const x = this.points.length ? this.x(at) : LEFT + (this.width - LEFT - RIGHT) * (1 - (end - at) / PERIOD);
      const anchor = x > this.width - RIGHT - 18 ? "end" : "middle";
      nodes.push(draw("line", { class: "grid", x1: x, x2: x, y1: TOP, y2: this.height - BOTTOM }));
      if (x > LEFT + 12) nodes.push(draw("text", { x: anchor === "end" ? this.width - RIGHT : x, y: this.height - 5, "text-anchor": anchor }, minute.format(at)));
    }
    return nodes;
  }

  // The points of a column, as [x, y], cut where nothing was measured.
  runs(column) {
    const runs = [];
    let before = null;
    for (const point of this.points) {
      if (point[column] == null) {
        before = null;
        continue;
      }
      if (before === null || point.at - before > 20_000) runs.push([]);
      runs.at(-1).push([this.x(point.at).toFixed(1), this.y(point[column]).toFixed(1)]);
      before = point.at;
    }
    return runs;
  }

  reading() {
    const point = this.read === null ? undefined : this.points.find((one) => one.at === this.read);
    this.tip.hidden = !point;
    this.cursor?.replaceChildren();
    if (!point || !this.cursor) return;
    this.slider.setAttribute("aria-valuetext", this.words(point));
    const x = this.x(point.at);
    this.cursor.append(draw("line", { class: "cursor", x1: x, x2: x, y1: TOP, y2: this.height - BOTTOM }));
    const rows = [make("p", "", clock.format(point.at))];
    this.series.forEach(([column, label], i) => {
      const row = make("div");
      row.append(make("span", `swatch s${i}`), `${label} `, make("b", "", text(this.unit(point[column]))));
      rows.push(row);
      if (point[column] != null) this.cursor.append(draw("circle", { class: `dot s${i}`, cx: x, cy: this.y(point[column]), r: 4.5 }));
    });
    this.tip.replaceChildren(...rows);
    const left = x > this.width / 2 ? x - 12 - this.tip.offsetWidth : x + 12;
    this.tip.style.transform = `translateX(${Math.max(left, 0)}px)`;
  }
}
