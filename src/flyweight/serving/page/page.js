// Draws what /v1/status says and sends sample requests. All text comes into the page as text, never as markup.
import { drawChart } from "./chart.js";

const POLL_MS = 2500;
const find = (id) => document.getElementById(id);
const cards = new Map();
let token = sessionStorage.getItem("token") || "";

/** An element with attributes, and children that are elements or text. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

class Refused extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

/** The JSON of an answer; a Refused where it is none of success. */
async function ask(path, body) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const options = body === undefined ? { headers } : { method: "POST", headers, body };
  const answer = await fetch(path, { ...options, cache: "no-store" });
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, found.error || `The service answered ${answer.status}.`);
  return { found, timing: answer.headers.get("server-timing") };
}

const whole = (value) => Math.round(value).toLocaleString("en");
export function short(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1e6) return `${(value / 1e6).toFixed(1)} M`;
  return size >= 100 ? whole(value) : size >= 10 ? value.toFixed(1) : size === 0 ? "0" : value.toFixed(2);
}
function bytes(value) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 1000 && unit < 4) { value /= 1000; unit += 1; }
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}
const signed = (value) => value === null ? "unknown" : `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(4)}`;

function showTotals(status) {
  const ready = status.models.filter((model) => model.ready);
  find("release").textContent = status.flyweight;
  const names = status.models.length === 1 ? status.models[0].name : `${status.models.length} models`;
  find("headline").textContent = ready.length === status.models.length
    ? `Serving ${names}` : `Serving ${ready.length} of ${status.models.length} models`;
  document.title = `${find("headline").textContent} · Flyweight`;
  const last = status.models.map((model) => model.history.at(-1)).filter(Boolean);
  const sum = (key) => last.reduce((total, point) => total + point[key], 0);
  const facts = [
    ["requests a second", short(sum("requests"))], ["candidates a second", short(sum("candidates"))],
    [sum("errors") ? `refused a second, ${short(100 * sum("errors") / sum("requests"))} %` : "refused a second", short(sum("errors"))], [status.workers === 1 ? "worker" : "workers", whole(status.workers)],
    ["memory", status.memory.pss ? bytes(status.memory.pss) : "unknown"],
  ];
  find("totals").replaceChildren(...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

const nameOf = (metric) => /^g?auc$|^ndcg/i.test(metric) ? metric.toUpperCase() : metric[0].toUpperCase() + metric.slice(1);

function factsOf(version, refused) {
  const { drop, certificate, size } = version;
  const ratio = size.after ? size.before / size.after : 0;
  const range = drop.low === null || drop.high === null ? "no interval" : `[${signed(drop.low)}, ${signed(drop.high)}]`;
  const shift = version.drift
    ? [["Score drift", `PSI ${version.drift.psi.toFixed(2)}`, `${whole(version.drift.scores)} scores against those stored; noise ${version.drift.noise.toFixed(2)}`]] : [];
  return [
    [`${nameOf(certificate.metric)} drop`, signed(drop.value),
      `${range}, ${Math.round(certificate.confidence * 100)}%, n = ${whole(certificate.n)}`],
    ["Size", bytes(size.after), ratio > 1 ? `${bytes(size.before)} before, ${short(ratio)}× smaller` : "as before"],
    ["Engine", version.engine, version.latency
      ? `${version.latency.p50.toFixed(2)} ms for ${whole(version.latency.candidates)} candidates when it was built` : ""],
    ["Answered", whole(version.answered), refused ? `${whole(refused)} refused` : "none refused"],
    ...shift,
  ];
}

/** What a version is for: it answers, takes a part of the requests, is compared with what answers, or waits. */
function roleOf(model, version) {
  const { canary, shadow, before } = model;
  if (version === model.answering) return canary ? `answers ${+(100 - canary.percent).toFixed(2)} %` : "answers";
  if (version === canary?.version) return `canary, ${canary.percent} %${canary.field ? ` by ${canary.field}` : ""}`;
  if (version === shadow?.version) return `shadow, ${shadow.percent} %`;
  return before.includes(version) ? "answered before" : "held";
}

function versionTable(model) {
  const rows = model.versions.map((one) => make("tr", {},
    make("td", {}, one.version), make("td", {}, roleOf(model, one.version)),
    make("td", {}, one.engine), make("td", { class: "number" }, bytes(one.size.after)),
    make("td", { class: "number" }, signed(one.drop.value)), make("td", { class: "number" }, whole(one.answered))));
  const head = make("tr", {}, ...["Version", "Role", "Engine", "Size", "Drop", "Answered"].map((name, place) =>
    make("th", place > 2 ? { scope: "col", class: "number" } : { scope: "col" }, name)));
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Versions of ${model.name}` },
    make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
}

function badgeOf(certificate) {
  if (certificate.margin === null) return make("span", { class: "badge" }, "no budget given");
  return certificate.certified
    ? make("span", { class: "badge good" }, `certified within ${certificate.margin}`)
    : make("span", { class: "badge bad" }, `not certified within ${certificate.margin}`);
}

function showModel(model) {
  let card = cards.get(model.name);
  if (!card) {
    const title = make("div", { class: "title" }), about = make("p", { class: "about" }), facts = make("dl", { class: "facts" });
    const charts = make("div", { class: "charts" }), versions = make("div");
    const element = make("section", { class: "card", "aria-label": `Model ${model.name}` }, title, about, facts, charts, versions);
    card = { element, title, about, facts, versions, latency: drawChart(charts, "Latency", "ms", ["p50", "p95", "p99"]),
      load: drawChart(charts, "Throughput", "/s", ["requests", "errors"]) };
    cards.set(model.name, card);
    find("models").append(element);
  }
  const answering = model.versions.find((one) => one.version === model.answering);
  card.title.replaceChildren(make("h2", {}, model.name), ...(answering ? [badgeOf(answering.certificate)]
    : [make("span", { class: "badge bad" }, "not ready")]));
  card.about.textContent = answering ? `${answering.name}, version ${model.answering}` : model.reason;
  card.facts.replaceChildren(...(answering ? factsOf(answering, model.refused) : []).map(([name, value, more]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, value, make("small", {}, more)))));
  card.versions.replaceChildren(...(model.versions.length > 1 ? [versionTable(model)] : []));
  card.latency.show(model.history);
  card.load.show(model.history);
}

function showModels(status) {
  const names = status.models.map((model) => model.name);
  for (const [name, card] of cards) if (!names.includes(name)) { card.element.remove(); cards.delete(name); }
  status.models.forEach(showModel);
  const select = find("model");
  if ([...select.options].map((one) => one.value).join("\n") !== names.join("\n")) {
    const kept = select.value;
    select.replaceChildren(...names.map((name) => make("option", { value: name }, name)));
    if (names.includes(kept)) select.value = kept;
    else loadSamples();
  }
}

/** A request with one candidate, or one input, a line. */
function spell(body) {
  if (body.inputs) return `{\n  "inputs": [\n${body.inputs.map((one) => `    ${JSON.stringify(one)}`).join(",\n")}\n  ]\n}`;
  const lines = body.candidates.map((one) => `    ${JSON.stringify(one)}`).join(",\n");
  const { candidates, ...rest } = body;
  const head = Object.entries(rest).map(([key, value]) => `  ${JSON.stringify(key)}: ${JSON.stringify(value)}`).join(",\n");
  return `{\n${head},\n  "candidates": [\n${lines}\n  ]\n}`;
}

/** Put a request into the form, which gets as long as it. */
function fill(body) {
  const text = body ? spell(body) : "";
  find("body").value = text;
  find("body").rows = Math.min(Math.max(text.split("\n").length + 1, 8), 28);
}

let samples = [], route = "v1/rank";
async function loadSamples() {
  const model = find("model").value;
  try {
    const { found } = await ask(`v1/status/models/${encodeURIComponent(model)}/samples`);
    if (model !== find("model").value) return;
    ({ samples, route } = found);
    find("send").textContent = route === "v1/rank" ? "Rank the candidates" : "Send the request";
    find("sample").replaceChildren(...samples.map((_, place) => make("option", { value: place }, `${place + 1} of ${samples.length}`)));
    find("sample").disabled = samples.length < 2;
    fill(samples[0]);
    tell(samples.length ? "" : "The bundle stores no requests; write one.", false);
  } catch (error) { tell(error.message, true); }
  clearRanked();
}

function tell(words, bad) {
  find("outcome").textContent = words;
  find("outcome").classList.toggle("bad", bad);
}

function clearRanked() {
  find("bench").classList.remove("full");
  find("ranked").removeAttribute("tabindex");
  find("ranked").replaceChildren();
}

/** Names of the fields in which candidates differ. */
function differing(candidates) {
  const names = Object.keys(candidates[0] || {}).filter((name) => name !== "id");
  return names.filter((name) => new Set(candidates.map((one) => JSON.stringify(one[name]))).size > 1);
}

/** One row a candidate, with a bar as long as its score lies above the lowest. */
function showRanked(ranked, candidates) {
  const scores = ranked.map((one) => one.score);
  const low = Math.min(...scores), width = Math.max(...scores) - low;
  const telling = differing(candidates);
  const rows = ranked.map((one, place) => {
    const bar = make("span", { class: "bar", "aria-hidden": "true" });
    bar.style.width = `${width ? 4 + 96 * (one.score - low) / width : 100}%`;
    const shown = telling.map((name) => `${name} ${JSON.stringify(candidates[one.index][name])}`).join(", ");
    return make("tr", {}, make("td", {}, String(place + 1)),
      make("td", {}, make("div", {}, one.id === undefined ? `candidate ${one.index + 1}` : String(one.id)),
        make("div", { class: "fields", title: shown }, shown)),
      make("td", {}, one.score === null ? "–" : one.score.toPrecision(4), bar));
  });
  const head = make("tr", {}, make("th", { scope: "col", class: "place" }, "Rank"), make("th", { scope: "col" }, "Candidate"),
    make("th", { scope: "col", class: "score" }, "Score"));
  find("bench").classList.add("full");
  find("ranked").tabIndex = 0;
  find("ranked").replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
}

/** One row of the output a row, with its highest columns. */
function showOutput({ shape, data }) {
  const width = data.length / Math.max(shape[0], 1);
  const rows = Array.from({ length: shape[0] }, (_, row) => {
    const values = data.slice(row * width, (row + 1) * width).map((value, column) => [value, column]);
    const shown = values.sort((a, b) => b[0] - a[0]).slice(0, 5).map(([value, column]) =>
      (width > 1 ? `${column}: ${value.toPrecision(4)}` : value.toPrecision(4)));
    return make("tr", {}, make("td", {}, String(row + 1)), make("td", {}, shown.join(",  ")));
  });
  const head = make("tr", {}, make("th", { scope: "col", class: "place" }, "Row"),
    make("th", { scope: "col" }, width > 1 ? `Highest of ${width} columns, each with its score` : "Score"));
  find("ranked").replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
}

find("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  find("send").disabled = true;
  try {
    let body;
    try { body = JSON.parse(find("body").value); } catch (error) { throw new Refused(0, `The request is no JSON: ${error.message}`); }
    const started = performance.now();
    const { found } = await ask(route, JSON.stringify(body));
    const took = `${(performance.now() - started).toFixed(1)} ms to this page and back.`;
    if (route === "v1/rank") {
      showRanked(found.ranked, body.candidates);
      tell(`${found.ranked.length} of ${body.candidates.length} candidates, version ${found.version}, ${took}`, false);
    } else {
      showOutput(found.outputs[0]);
      tell(`Version ${found.model_version}, ${took}`, false);
    }
  } catch (error) {
    clearRanked();
    tell(error.message, true);
  }
  find("send").disabled = false;
});
find("model").addEventListener("change", loadSamples);
find("sample").addEventListener("change", () => {
  fill(samples[Number(find("sample").value)]);
  clearRanked();
  tell("", false);
});
find("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  token = find("token").value.trim();
  sessionStorage.setItem("token", token);
  look();
});

function showState(words, kind) {
  if (find("state").textContent !== words) find("state").textContent = words;
  find("state").className = `state ${kind}`;
}

async function look() {
  try {
    const { found } = await ask("v1/status");
    find("unlock").hidden = true;
    find("links").hidden = token !== "";  // a link cannot carry a token
    find("served").hidden = false;
    showTotals(found);
    showModels(found);
    showState(found.draining ? "Ending" : "Live", found.draining ? "lost" : "live");
  } catch (error) {
    const locked = error instanceof Refused && error.status === 401;
    if (locked) {
      find("unlock").hidden = false;
      find("served").hidden = true;
      find("unlock-why").textContent = token ? error.message : "This service answers only those who have one.";
    }
    showState(locked ? "Locked" : error instanceof Refused ? error.message : "Not reachable; trying again", locked ? "" : "lost");
  }
}

async function follow() {
  if (!document.hidden) await look();
  setTimeout(follow, POLL_MS);
}
document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
follow();
