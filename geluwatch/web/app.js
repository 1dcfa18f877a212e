// The live page: asks for the report every two seconds and writes it into the page. All text goes in as text, never as HTML.
"use strict";

const EVERY_MS = 2000;
const GIVE_UP_MS = 5000;
const STALE_SECONDS = 30;
const FULL_SCALE = 2; // evidence at the right end of a bar; the threshold, 1, is its middle

const WORDS = { ok: "OK", ticket: "Ticket", page: "Page", warming: "Warming", blind: "Blind" };

let previous = null; // the last report, for the rate
let rate = 0; // forward passes per second
let answered = null; // when the agent last answered, as a Date
let drawnLayers = "";
const cells = new Map(); // "layer\npoint" -> the cells of that row, reused so that a selection survives a refresh

const byId = (id) => document.getElementById(id);

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

// numbers and times

const DASH = "–";
const integer = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

function decimal(value, digits) {
  if (value === null || value === undefined) return DASH;
  const text = Math.abs(value) >= 1e5 ? value.toExponential(2) : value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

function interval(lower, upper) {
  if (lower === null || upper === null) return DASH;
  const [low, high] = [decimal(lower, 4), decimal(upper, 4)];
  return low === high ? low : `${low}–${high}`;
}

function share(part, whole) {
  if (!(whole > 0)) return DASH;
  const percent = (100 * part) / whole;
  return percent > 0 && percent < 0.01 ? "under 0.01 %" : `${percent.toFixed(2)} %`;
}

function duration(seconds) {
  if (seconds < 120) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

const clock = (date) => date.toLocaleTimeString("en-GB");
const day = (seconds) => new Date(seconds * 1000).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
const breakable = (layer) => layer.split(/(?<=\.)/).flatMap((part) => [part, document.createElement("wbr")]); // long names break at dots
const plural = (count, noun) => `${integer.format(count)} ${noun}${count === 1 ? "" : noun.endsWith("s") ? "es" : "s"}`;

// verdict

function reason(report) {
  const observed = report.layers.filter((layer) => layer.state === "observed").length;
  const blind = report.layers.length - observed;
  const code = (layer) => element("code", "", ...breakable(layer));
  switch (report.verdict) {
    case "page":
      return ["NaN or Inf in the activations. The first layer is ", code(report.first_nonfinite), "."];
    case "ticket":
      return [
        `${report.drifting.length} of ${plural(observed, "layer")} ${report.drifting.length === 1 ? "drifts" : "drift"} from baseline `,
        `${report.baseline.name}. The first is `, code(report.drifting[0]), ".",
      ];
    case "ok":
      return [`${plural(observed, "layer")} within baseline ${report.baseline.name}.`, blind ? ` ${plural(blind, "layer")} cannot be observed.` : ""];
    case "warming":
      return [
        report.baseline
          ? `Baseline ${report.baseline.name} is armed. Drift is judged from the first window with enough rows.`
          : "No baseline is armed, so drift is not judged yet. NaN and Inf are caught already.",
      ];
    default:
      return [report.layers.length ? `None of the ${plural(report.layers.length, "GELU")} can be observed.` : "The model shows no GELU."];
  }
}

function drawVerdict(report) {
  document.body.dataset.verdict = report.verdict;
  write(byId("verdict"), WORDS[report.verdict]);
  const why = element("span", "", ...reason(report));
  if (byId("reason").textContent !== why.textContent) byId("reason").replaceChildren(why); // a screen reader reads each change
  byId("runbook").hidden = !report.runbook;
  if (report.runbook) byId("runbook").href = report.runbook;
  document.title = `${WORDS[report.verdict]} · ${report.model} · geluwatch`;
  const colour = getComputedStyle(document.body).getPropertyValue("--tone").trim();
  const drawing = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><circle cx="8" cy="8" r="7" fill="${colour}"/></svg>`;
  byId("icon").href = `data:image/svg+xml,${encodeURIComponent(drawing)}`;
}

// facts

// Passes per second between the last two reports; after the first one, or a restart of the agent, since it attached.
function updateRate(report) {
  if (previous && report.time === previous.time) return;
  const follows = previous && report.attached === previous.attached;
  const [since, before] = follows ? [previous.time, previous.totals.forwards] : [report.attached, 0];
  rate = report.time > since ? (report.totals.forwards - before) / (report.time - since) : 0;
  previous = report;
}

function fact(name, value, detail, alarming) {
  const shown = element("dd", alarming ? "alarm" : "", value);
  if (detail) shown.append(element("small", "", detail));
  return element("div", "", element("dt", "", name), shown);
}

function drawFacts(report) {
  const labels = Object.entries(report.labels).map(([name, value]) => `${name}=${value}`);
  const { baseline, window: last, totals } = report;
  const observed = report.layers.filter((layer) => layer.state === "observed").length;
  const clean = observed ? "none" : "unknown";
  const since = observed ? "no NaN or Inf since attach" : "no layer is watched";
  byId("facts").replaceChildren(
    fact("Model", report.model, [`version ${report.model_version}`, ...labels].join(" · ")),
    fact("Baseline", baseline ? baseline.name : "none", baseline ? `recorded ${day(baseline.created)}` : ""),
    fact("Forward passes", `${decimal(rate, 1)} /s`, `${integer.format(totals.forwards)} in ${duration(report.time - report.attached)}`),
    fact(
      "First non-finite layer",
      report.first_nonfinite ? element("code", "", ...breakable(report.first_nonfinite)) : clean,
      totals.nonfinite_forwards ? `NaN or Inf in ${plural(totals.nonfinite_forwards, "pass")} since attach` : since,
      Boolean(report.first_nonfinite),
    ),
    fact(
      "Last window",
      last ? `${duration(report.time - last.ended)} ago` : "none closed yet",
      last ? `${duration(last.ended - last.started)} long, number ${integer.format(totals.windows)}` : "",
    ),
    fact("GELUs observed", `${observed} of ${report.layers.length}`, observed === report.layers.length ? "" : observed ? "the others are blind" : "all are blind"),
  );
}

// layers

function layerState(layer) {
  const points = Object.values(layer.points);
  if (layer.state === "blind") return ["blind", `blind: ${layer.reason}`];
  if (points.some((point) => point.nonfinite > 0))
    return ["nonfinite", `non-finite in ${plural(layer.nonfinite_forwards, "pass")}, first of all layers in ${integer.format(layer.first_nonfinite_forwards)}`];
  if (points.some((point) => point.drifting)) return ["drift", "drifting"];
  if (layer.nonfinite_forwards) return ["observed", `observed; non-finite in ${plural(layer.nonfinite_forwards, "pass")} since attach`];
  if (layer.padding_nonfinite_forwards) return ["observed", "observed; non-finite in padding only, harmless"];
  return ["observed", "observed"];
}

// What a name shares with every other is set in grey, so that the eye finds what differs.
function nameOf(layer, names) {
  const parts = layer.split(".");
  const split = names.map((name) => name.split("."));
  const shown = element("span", "name");
  parts.forEach((part, place) => {
    const same = names.length > 1 && split.every((other) => other.length === parts.length && other[place] === part);
    const dot = place + 1 < parts.length ? "." : "";
    shown.append(element("span", same ? "same" : "", part), element("span", "same", dot), element("wbr", ""));
  });
  return shown;
}

function cell(className, label) {
  const made = element("td", className);
  made.setAttribute("role", "cell");
  if (label) made.dataset.label = label;
  return made;
}

function meter() {
  const number = element("b", "");
  const fill = element("i", "");
  const bar = element("span", "bar", fill);
  bar.setAttribute("aria-hidden", "true");
  return { meter: element("div", "meter", number, bar), number, fill };
}

function buildRow(layer, point) {
  const row = element("tr", "");
  row.setAttribute("role", "row");
  const name = cell("point");
  name.textContent = point;
  const evidence = cell("evidence");
  const gauge = meter();
  evidence.append(gauge.meter);
  const made = {
    mean: cell("number", "mean"),
    std: cell("number", "std"),
    ks: cell("number", "KS"),
    nonfinite: cell("number", "non-finite"),
    ...gauge,
  };
  row.append(name, made.mean, made.std, made.ks, evidence, made.nonfinite);
  cells.set(`${layer}\n${point}`, made);
  return row;
}

function buildLayers(layers) {
  cells.clear();
  const names = layers.map((layer) => layer.layer);
  const bodies = layers.map((layer) => {
    const points = Object.keys(layer.points);
    const head = element("th", "", nameOf(layer.layer, names), element("span", "state"));
    head.scope = "rowgroup";
    head.setAttribute("role", "rowheader");
    head.rowSpan = points.length;
    const rows = points.map((point) => buildRow(layer.layer, point));
    rows[0].prepend(head);
    const body = element("tbody", "", ...rows);
    body.setAttribute("role", "rowgroup");
    return body;
  });
  const table = byId("layers");
  for (const body of [...table.tBodies]) body.remove();
  table.append(...bodies);
}

function write(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

function drawPoint(made, point, blind) {
  write(made.mean, decimal(point.mean, 3));
  write(made.std, decimal(point.std, 3));
  write(made.ks, interval(point.ks, point.ks_upper));
  write(made.nonfinite, blind ? DASH : integer.format(point.nonfinite));
  made.nonfinite.classList.toggle("bad", point.nonfinite > 0);
  made.nonfinite.classList.toggle("zero", point.nonfinite === 0);
  write(made.number, decimal(point.evidence, 2));
  for (const target of [made.mean, made.std, made.ks, made.nonfinite, made.number])
    target.classList.toggle("none", target.textContent === DASH);
  made.meter.dataset.empty = point.evidence === null;
  made.meter.dataset.over = point.drifting;
  made.meter.dataset.beyond = point.evidence > FULL_SCALE;
  made.fill.style.width = `${Math.min(100, (100 * (point.evidence ?? 0)) / FULL_SCALE)}%`;
}

function drawLayers(report) {
  const key = JSON.stringify(report.layers.map((layer) => [layer.layer, Object.keys(layer.points)]));
  if (key !== drawnLayers) buildLayers(report.layers);
  drawnLayers = key;
  const table = byId("layers");
  table.hidden = !report.layers.length;
  report.layers.forEach((layer, place) => {
    const [state, words] = layerState(layer);
    table.tBodies[place].dataset.state = state;
    write(table.tBodies[place].querySelector(".state"), words);
    for (const [point, seen] of Object.entries(layer.points))
      drawPoint(cells.get(`${layer.layer}\n${point}`), seen, layer.state === "blind");
  });
}

// foot

function drawAgent(report) {
  const { totals } = report;
  const wall = report.time - report.attached;
  const errors = Object.entries(totals.errors).filter(([, count]) => count > 0);
  const off = report.disabled.length ? element("span", "alarm", `Switched off: ${report.disabled.join(", ")}`) : element("span", "", "No part switched off");
  byId("agent").replaceChildren(
    element("span", "", `Row capture takes ${share(totals.hook_seconds, wall)} of wall time, background work ${share(totals.flush_seconds, wall)}`),
    element("span", "", errors.length ? `Errors caught: ${errors.map(([part, count]) => `${part} ${integer.format(count)}`).join(", ")}` : "No errors"),
    off,
    element("span", "", totals.dropped_rows ? `${plural(totals.dropped_rows, "row")} dropped` : "No rows dropped"),
    element("span", "", `geluwatch ${report.version}`),
    element("span", "", report.framework),
  );
}

// polling

function drawLife(silence) {
  document.body.dataset.live = String(!silence);
  byId("silence").hidden = !silence;
  write(byId("silence"), silence);
  byId("clock").textContent = silence ? "no news" : `live · ${clock(answered)}`;
}

function staleness(report, response) {
  const served = Date.parse(response.headers.get("Date")) / 1000; // the agent's own clock, which may differ from this one
  const age = served - report.time;
  return age > STALE_SECONDS ? `The agent answers, but its report is ${duration(age)} old: its background thread has stopped or hangs.` : "";
}

async function ask() {
  const response = await fetch("report.json", { cache: "no-store", signal: AbortSignal.timeout(GIVE_UP_MS) });
  if (!response.ok) throw new Error(`the agent answered ${response.status}`);
  return [await response.json(), response];
}

function draw(report) {
  updateRate(report);
  drawVerdict(report);
  drawFacts(report);
  drawLayers(report);
  drawAgent(report);
}

async function poll() {
  setTimeout(poll, EVERY_MS);
  let report, response;
  try {
    [report, response] = await ask();
  } catch {
    drawLife(answered ? `The agent has not answered since ${clock(answered)}. What is shown below is from then.` : "The agent does not answer.");
    return;
  }
  answered = new Date();
  draw(report);
  drawLife(staleness(report, response));
}

poll();
