// The page of one nearside. All it shows comes from the event stream `live`: once the last 15 minutes (`history`), then one
// message a second (`now`). What must hold:
// - Nothing that was heard becomes markup: text goes in by textContent, numbers by attributes and styles of their own.
// - What is shown as a rate is the difference of two totals of one and the same run of nearside.
// - Whoever listens with a screen reader hears of changes of the state, not of each second.

import { Chart, PERIOD, linear, logarithmic } from "./charts.js";
import { $, NONE, bytes, clock, date, make, many, meter, micros, perSecond, percent, say, short, show, span, text, whole } from "./figures.js";

// Rates are those of the last five seconds.
const WINDOW = 5_000;
// A stream that is silent for longer is lost, though nobody has closed it.
const SILENT = 4_000;
// A page that nobody sees stops listening after this.
const UNSEEN = 60_000;
const EVENTS = 100;

// ---- The lines

const most = (values, least) => values.reduce((one, other) => Math.max(one, other), least);
const charts = [
  new Chart($("charts"), {
    title: "Hit ratio", series: [["ratio", "hit ratio"]], unit: percent, nothing: "No reads yet",
    scale: () => ({ ticks: [0, 0.25, 0.5, 0.75, 1], at: (value) => value }),
  }),
  new Chart($("charts"), {
    title: "Requests", series: [["requests", "requests"]], unit: perSecond, nothing: "No requests yet",
    scale: (values) => linear(most(values, 4)),
  }),
  new Chart($("charts"), {
    title: "Latency",
    series: [["hit_p50", "hit p50"], ["hit_p99", "hit p99"], ["upstream_p50", "upstream p50"], ["upstream_p99", "upstream p99"]],
    unit: micros, nothing: "Nothing measured yet",
    scale: (values) => (values.length ? logarithmic(Math.min(...values), Math.max(...values)) : logarithmic(10, 10_000)),
  }),
  new Chart($("charts"), {
    title: "Proven freshness", series: [["staleness", "proven"]], unit: micros, limit: "bound", nothing: "Nothing proven yet",
    // What is far above the bound is as bad as what is above it.
    scale: (values, bound) => linear(Math.min(most(values, bound || 1e6), 3 * (bound || 1e6)) * 1.1),
  }),
];

// ---- What was heard

// Points of the lines, and messages of the last seconds.
let columns = [];
let samples = [];
let heard = [];
let events = [];

const ratio = (hits, misses) => (hits == null || misses == null || hits + misses <= 0 ? null : hits / (hits + misses));

function history(all) {
  columns = all.columns;
  samples = all.samples.map(point);
  heard = [];
  events = [];
}

function point(row) {
  const named = Object.fromEntries(columns.map((column, i) => [column, row[i]]));
  return { ...named, ratio: ratio(named.hits, named.misses) };
}

// What grew between two messages, per second; null if that is not known.
function rate(from, to, pick) {
  if (!from || to.at <= from.at) return null;
  const grown = (pick(to) ?? 0) - (pick(from) ?? 0);
  return grown < 0 ? null : (grown * 1000) / (to.at - from.at);
}

// What a sample of the time between two messages would be.
function sample(from, now) {
  const [hits, misses, requests] = [(m) => m.hits, (m) => m.misses, (m) => m.requests].map((pick) => rate(from, now, pick));
  const { hit, upstream } = now.latency;
  return {
    at: now.at, requests, hits, misses, ratio: ratio(hits, misses), staleness: now.staleness.active === false ? null : now.staleness.proven, bytes: now.memory.bytes,
    hit_p50: hit.p50, hit_p99: hit.p99, upstream_p50: upstream.p50, upstream_p99: upstream.p99,
  };
}

function hear(now) {
  // Another run of nearside counts from nothing.
  if (heard.length && now.uptime < heard.at(-1).uptime) heard = [];
  heard.push(now);
  while (heard.length > 2 && now.at - heard[1].at >= WINDOW) heard.shift();
  samples = [...samples, ...(now.samples ?? []).map(point)].filter(({ at }) => at > now.at - PERIOD);
  events = [...now.events].reverse().concat(events).slice(0, EVENTS);
}

// ---- The state

const sentence = (words) => `${words[0].toUpperCase()}${words.slice(1).replace(/[.\s]+$/, "")}.`;

// Says how it stands: a tone, a word, a sentence.
function standing(now, reads, stales) {
  const down = now.nodes.filter((node) => node.feed !== "up").length;
  const nodes = now.nodes.length;
  if (now.state === "draining") {
    return ["warn", "Draining", `No new clients are taken; ${many(now.clients, "client")} still served.`];
  }
  if (now.state === "starting") return ["quiet", "Starting", "The upstream has not been reached yet."];
  if (now.state === "disconnected") {
    const why = now.why ? sentence(now.why) : "The upstream is not reachable.";
    const stale = stales > 0 ? "Reads are answered with what may be stale (stale-if-error)." : "Nothing can be proven fresh.";
    return ["bad", "Disconnected", `${why} ${stale}`];
  }
  if (nodes > 0 && down === nodes) {
    const which = nodes === 1 ? ` of ${now.nodes[0].address}` : "s of all nodes";
    return ["bad", "Feed lost", `The feed${which} is down, so nothing can be proven fresh: reads go past the cache.`];
  }
  if (down > 0) {
    return ["warn", "Partly fresh", `${down} of ${nodes} feeds are lost: what lies on those nodes is read from there.`];
  }
  if (nodes > 0 && now.nodes.every((node) => node.form === "none")) {
    return ["quiet", "Passing through", "The upstream tells of no changes, so nothing is kept."];
  }
  if (nodes > 0 && now.hits + now.misses === 0) {
    return ["good", "Ready", "Nobody has read yet. Point a Redis client at this nearside, and its figures appear here."];
  }
  const { proven, bound, active = reads > 0 } = now.staleness;
  if (bound === 0) return ["quiet", "Passing through", "max-staleness is 0: each read goes to the upstream."];
  if (proven != null && proven <= bound) {
    return ["good", "Fresh", `Each cached reply is proven to be no older than ${text(micros(bound))}.`];
  }
  if (!active) return ["quiet", "Idle", "Nobody reads. The next read proves freshness anew."];
  return ["bad", "Not proven", "The upstream does not prove in time that it is there: reads go past the cache."];
}

// What has been said; only another state is said again, for not each second is news.
let told = "connecting";

function state(name, tone, word, why) {
  document.body.dataset.state = name;
  document.body.dataset.tone = tone;
  say($("state"), word);
  say($("why-state"), why);
  document.title = tone === "good" ? "nearside" : `${word} – nearside`;
  if (told !== word) {
    told = word;
    say($("said"), `${word}. ${why}`);
  }
}

function freshness(now, lost) {
  const { proven, bound, active } = now.staleness;
  const old = lost || proven == null || (active === false && proven > bound);
  show("proven", old ? [NONE, ""] : micros(proven));
  say($("proven-note"), `${old ? "nothing proven" : "proven fresh"}, bound ${text(micros(bound))}`);
  meter("proven-meter", old ? null : proven, bound, old ? "nothing is proven" : `${text(micros(proven))} of ${text(micros(bound))}`, 2);
}

// ---- Tables

// Cells are words or [words, class]; rows and cells that are there are used again, so that a selection stays.
function fill(id, rows, nothing, options = {}) {
  const table = $(id);
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const empty = rows.length === 0;
  if (body.dataset.empty !== String(empty)) body.replaceChildren();
  body.dataset.empty = empty;
  if (empty) {
    const row = body.rows[0] ?? body.insertRow();
    const cell = row.cells[0] ?? row.insertCell();
    Object.assign(cell, { colSpan: heads.length, className: "none" });
    say(cell, nothing);
    return;
  }
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((cells, i) => fillRow(body.rows[i] ?? blank(body, heads, options.button), cells, heads, options.parts?.[i]));
  const scroll = table.parentElement;
  if (scroll.scrollHeight > scroll.clientHeight + 1) {
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "group");
    scroll.setAttribute("aria-label", table.caption.textContent);
  } else {
    for (const name of ["tabindex", "role", "aria-label"]) scroll.removeAttribute(name);
  }
}

function blank(body, heads, button) {
  const row = body.insertRow();
  heads.forEach((head, i) => {
    const cell = row.appendChild(make(i ? "td" : "th", head.className));
    if (!i) cell.scope = "row";
    if (!i && button) cell.append(Object.assign(make("button", "key"), { type: "button", title: "Why is it a hit, or not?" }));
  });
  return row;
}

function fillRow(row, cells, heads, part) {
  cells.forEach((content, i) => {
    const [words, kind] = Array.isArray(content) ? content : [content, ""];
    const cell = row.cells[i];
    say(cell.firstElementChild ?? cell, words);
    const name = `${heads[i].className} ${kind}`.trim();
    if (cell.className !== name) cell.className = name;
  });
  if (part !== undefined) row.cells[0].style.setProperty("--of", `${(part * 100).toFixed(1)}%`);
}

// Totals by reason, the most first, those of nothing left out.
function reasons(id, now, before, nothing) {
  const rows = Object.entries(now[id]).filter(([, total]) => total > 0).sort((a, b) => b[1] - a[1]);
  const top = rows[0]?.[1];
  const cells = rows.map(([reason, total]) => {
    const grown = rate(before, now, (message) => message[id][reason]);
    return [reason, whole.format(total), grown ? text(perSecond(grown)) : ["0 /s", "info"]];
  });
  fill(id, cells, nothing, { parts: rows.map(([, total]) => total / top) });
}

// What is acknowledged by nearside and not upstream yet.
function unflushed({ dirty, oldest, conflicts, open }) {
  const waiting = dirty ? `${many(dirty, "key")} not flushed, for ${text(micros(oldest))}` : "all is flushed";
  const stopped = { "journal-fails": "the journal fails: writes go through", closing: "no more writes are taken" }[open];
  return [waiting, conflicts && many(conflicts, "conflict"), stopped].filter(Boolean).join(", ");
}

function tables(now, before) {
  const nodes = now.nodes.map(({ address, feed, form, links, proven }) => {
    const up = feed === "up";
    const how = `${address}\n${up ? `${form}, ` : ""}${many(links, "link")}`;
    return [how, up ? ["up", "up"] : ["down", "down"], text(micros(up ? proven : null))];
  });
  fill("nodes", nodes, "No node is known yet.");
  const namespaces = now.namespaces.map(({ name, tracking, hits, misses, bytes: size, back }) => [
    back ? [`${name}\n${unflushed(back)}`, back.open === "yes" ? "" : "warn"] : name, tracking, text(percent(ratio(hits, misses))), short(hits), short(misses), text(bytes(size)),
  ]);
  fill("namespaces", namespaces, "None is configured: all keys are treated alike.");
  const hidden = now.hot === null;
  // What was just written is hot, and not cached until it is read again.
  const hot = (now.hot ?? []).map(({ key, hits, bytes: size }) => [key, whole.format(hits), text(bytes(size || null))]);
  const top = now.hot?.[0]?.hits || 1;
  const none = hidden ? "Keys are hidden (admin-keys = off)." : "No key has been hit yet.";
  fill("hot", hot, none, { button: true, parts: (now.hot ?? []).map((key) => key.hits / top) });
  [...$("hot").querySelectorAll("button")].forEach((button, i) => (button.dataset.query = now.hot[i].query));
  reasons("dropped", now, before, "Nothing has left the cache.");
  reasons("bypasses", now, before, "No read went past the cache.");
  hide(hidden);
  const today = new Date().toDateString();
  const lines = events.map(({ at, level, text: words }) => {
    const when = new Date(at);
    const day = when.toDateString() === today ? "" : `${date.format(when)} `;
    return [day + clock.format(when), [level, ["warn", "error"].includes(level) ? level : "info"], words];
  });
  fill("events", lines, "Nothing notable has happened.");
}

// ---- All of it, once a second

function render() {
  const now = heard.at(-1);
  const before = heard.length > 1 ? heard[0] : undefined;
  // A single message has totals alone: what was before it tells the rates.
  const recent = before ? sample(before, now) : { ...samples.at(-1) };
  const reads = (recent.hits ?? 0) + (recent.misses ?? 0);
  const [tone, word, why] = standing(now, reads, rate(before, now, (message) => message.stale_hits));
  state(now.state, tone, word, why);
  freshness(now, tone === "bad" || now.state === "starting");
  say($("about"), `${now.version} · up ${span(now.uptime)} · ${many(now.clients, "client")}`);

  show("ratio", percent(recent.ratio));
  const ever = ratio(now.hits, now.misses);
  const since = ever === null ? "no reads yet" : `${text(percent(ever))} since the start`;
  say($("ratio-note"), now.stale_hits ? `${since}, ${whole.format(now.stale_hits)} stale` : since);
  show("requests", perSecond(recent.requests));
  say($("requests-note"), `${whole.format(now.requests)} since the start`);
  for (const kind of ["hit", "upstream"]) {
    const latest = heard.findLast(({ latency }) => latency[kind].p50 != null) ?? now;
    for (const part of ["p50", "p99"]) show(`${kind}-${part}`, micros(latest.latency[kind][part]));
  }
  const { bytes: used, max, entries } = now.memory;
  show("memory", bytes(used));
  say($("memory-note"), `of ${text(bytes(max))}, ${many(entries, "key")}`);
  meter("memory-meter", used, max, `${text(bytes(used))} of ${text(bytes(max))}`);

  tables(now, before);
  // The line ends in what is now.
  const points = before && recent.at > (samples.at(-1)?.at ?? 0) ? [...samples, recent] : samples;
  for (const chart of charts) chart.set(points, now.staleness.bound);
}

// ---- The stream

let stream = null;
let last = 0;
let tries = 0;
let again = 0;

function connect() {
  clearTimeout(again);
  stream?.close();
  last = Date.now();
  const mine = (stream = new EventSource("live"));
  const taking = (act) => (event) => {
    if (mine !== stream) return;
    last = Date.now();
    tries = 0;
    act(JSON.parse(event.data));
  };
  mine.addEventListener("history", taking(history));
  mine.addEventListener("now", taking((now) => {
    hear(now);
    if (!document.hidden) render();
  }));
  mine.addEventListener("error", () => {
    if (mine === stream) lose(mine.readyState === EventSource.CLOSED);
  });
}

// Tries again, later each time: after one second, two, four, and then every eight.
function lose(refused) {
  stream.close();
  stream = null;
  const since = heard.length ? `What is shown is of ${clock.format(heard.at(-1).at)}.` : "Nothing has been heard yet.";
  state("lost", "bad", "Connection to nearside lost", `${since} Trying again …`);
  show("proven", [NONE, ""]);
  meter("proven-meter", null, 1, "not known");
  if (refused) explain(since);
  clearTimeout(again);
  again = setTimeout(connect, Math.min(1000 * 2 ** tries++, 8000));
}

// An event stream does not tell why it was refused.
async function explain(since) {
  const enough = new AbortController();
  try {
    const response = await fetch("live", { signal: enough.signal });
    if (response.ok || stream) return;
    const why = (await response.text()).trim().slice(0, 200);
    if (!stream) say($("why-state"), `${since} nearside answers ${response.status}: ${why}`);
  } catch {
    // It is away: that is what is said already.
  } finally {
    enough.abort();
  }
}

setInterval(() => {
  if (stream && Date.now() - last > SILENT) lose(false);
}, 500);

let unseen = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(unseen);
  if (document.hidden) {
    unseen = setTimeout(() => {
      clearTimeout(again);
      stream?.close();
      stream = null;
    }, UNSEEN);
  } else if (!stream) {
    connect();
  } else if (heard.length) {
    render();
  }
});

// ---- Why

// The bytes of a key as it was typed. In double quotes, as redis-cli shows what is not plain text, it may have escapes.
function typed(words) {
  const utf8 = new TextEncoder();
  if (!/^".*"$/s.test(words) || words.length < 2) return [...utf8.encode(words)];
  const plain = { n: 10, r: 13, t: 9, a: 7, b: 8 };
  const parts = words.slice(1, -1).match(/\\x[0-9a-f]{2}|\\.|[^\\]+|\\$/gis) ?? [];
  return parts.flatMap((part) => {
    if (/^\\x../i.test(part)) return [parseInt(part.slice(2), 16)];
    if (part.length === 2 && part[0] === "\\") return plain[part[1]] ?? [...utf8.encode(part[1])];
    return [...utf8.encode(part)];
  });
}

let asked = 0;

function hide(hidden) {
  for (const element of $("ask").elements) element.disabled = hidden;
  if (hidden) say($("answer"), "Keys are hidden (admin-keys = off).");
  $("ask-note").hidden = hidden;
}

const encoded = (words) => typed(words).map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join("");

async function ask(query) {
  const mine = ++asked;
  let lines;
  try {
    const response = await fetch(`why?key=${query}`, { signal: AbortSignal.timeout(5000) });
    const body = await response.text();
    lines = response.ok ? body.trimEnd().split("\n") : [`nearside answers ${response.status}: ${body.trim().slice(0, 300)}`];
  } catch {
    lines = ["nearside does not answer."];
  }
  if (mine !== asked) return;
  $("answer").replaceChildren(...lines.map((line) => {
    const at = line.indexOf(": ");
    const row = make("p");
    row.append(...(at < 0 ? [line] : [make("b", "", line.slice(0, at)), line.slice(at)]));
    return row;
  }));
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask(encoded($("key").value));
});

$("hot").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const shown = button.textContent;
  $("key").value = /[\\"]/.test(shown) ? `"${shown}"` : shown;
  ask(button.dataset.query);
  $("key").focus();
});

connect();
