// The live page: asks for the report every two seconds and writes it into the page. All text goes in as text, never as HTML.
"use strict";

const EVERY_MS = 2000;
const GIVE_UP_MS = 5000;
const STALE_SECONDS = 30; // or three times what lies between two reports, where that is more

const WORDS = { ok: "OK", ticket: "Ticket", page: "Page", warming: "Warming", blind: "Blind" };

let previous = null; // the last report, for the rate
let rate = 0; // forward passes per second
let answered = null; // when the agent last answered, as a Date

function drawVerdict(report) {
  document.body.dataset.verdict = report.verdict;
  write(byId("verdict"), WORDS[report.verdict]);
  const why = element("span", "", ...reason(report));
  if (byId("reason").textContent !== why.textContent) byId("reason").replaceChildren(why); // a screen reader reads each change
  // The sentence above has named the layer already.
  const cause = report.first_nonfinite ? "" : report.cause.replace(`${report.drifting[0]}: `, "");
  byId("cause").hidden = !cause;
  write(byId("cause"), cause);
  byId("attribution").hidden = !report.attribution;
  write(byId("attribution"), report.attribution);
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

function fact(name, value, detail, tone = "") {
  const shown = element("dd", tone, value);
  if (detail) shown.append(element("small", "", detail));
  return element("div", "", element("dt", "", name), shown);
}

function baselineFact(report) {
  const { baseline } = report;
  if (!baseline) return fact("Baseline", "none", "");
  const given = baseline.certificate;
  const size = given ? ` · ${plural(given.windows, "window")}, worth ${integer.format(given.looks)} independent looks` : "";
  return fact("Baseline", baseline.name, `recorded ${day(baseline.created)}${size}`);
}

function limitsFact(report) {
  const given = report.baseline?.certificate;
  if (!given) return fact("Limits of surprise", "none", "no baseline is armed");
  const limits = `ticket ${decimal(given.ticket_limit, 1)}${given.page_limit === null ? "" : ` · page ${decimal(given.page_limit, 1)}`}`;
  const tickets = `for ${given.tickets_per_month} false tickets a month`;
  return fact("Limits of surprise", limits, given.paging ? `${tickets} and ${given.pages_per_quarter} false page in three months` : given.paging_reason || tickets);
}

// What each way of judging says of the layer with the largest surprise.
const FAMILIES = {
  level: "against the baseline",
  contrast: "against the other layers",
  shift: "all channels shifted one way",
  scale: "all channels scaled alike",
};

// The largest surprise of all, and how rare that is in calm traffic.
function surpriseFact(report) {
  const judged = report.layers.flatMap((layer) => points(layer).map((point) => ({ layer: layer.layer, ...point })));
  const most = judged.filter((point) => point.surprise !== null).sort((one, other) => other.surprise - one.surprise)[0];
  if (!most) return fact("Largest surprise", DASH, "nothing has been judged");
  const rare = most.surprise < 6 ? `once in ${round(10 ** most.surprise)} looks` : "less than once in a million looks";
  const against = FAMILIES[most.family] || FAMILIES.level;
  return fact("Largest surprise", decimal(most.surprise, 1), `calm traffic gives it ${rare}; ${against}, over ${plural(most.horizon, "window")}`);
}

function driftFact(report) {
  if (!report.drifting.length) return fact("First layer in drift", report.baseline ? "none" : DASH, "");
  const first = report.layers.find((layer) => layer.layer === report.drifting[0]);
  const began = first ? onset(first) : null;
  const details = [report.scope ? `scope ${report.scope}` : "", began === null ? "" : `since ${report.time - began < 43200 ? clock(new Date(began * 1000)) : day(began)}`];
  return fact("First layer in drift", code(report.drifting[0]), details.filter(Boolean).join(" · "), "warning");
}

function nonfiniteFact(report, observed) {
  const { totals } = report;
  const since = observed ? "no NaN or Inf since attach" : "no layer is watched";
  return fact(
    "First non-finite layer",
    report.first_nonfinite ? code(report.first_nonfinite) : observed ? "none" : "unknown",
    totals.nonfinite_forwards ? `NaN or Inf in ${plural(totals.nonfinite_forwards, "pass")} since attach` : since,
    report.first_nonfinite ? "alarm" : "",
  );
}

function drawFacts(report) {
  const labels = Object.entries(report.labels).map(([name, value]) => `${name}=${value}`);
  const { window: last, totals } = report;
  const observed = report.layers.filter((layer) => layer.state === "observed").length;
  byId("facts").replaceChildren(
    fact("Model", report.model, [`version ${report.model_version}`, ...labels].join(" · ")),
    fact("Forward passes", `${decimal(rate, 1)} /s`, `${integer.format(totals.forwards)} in ${duration(report.time - report.attached)}`),
    fact(
      "Last window",
      last ? `${duration(report.time - last.ended)} ago` : "none closed yet",
      last ? `${duration(last.ended - last.started)} long, number ${integer.format(totals.windows)}` : "",
    ),
    nonfiniteFact(report, observed),
    driftFact(report),
    surpriseFact(report),
    baselineFact(report),
    limitsFact(report),
    fact("GELUs observed", `${observed} of ${report.layers.length}`, observed === report.layers.length ? "" : observed ? "the others are blind" : "all are blind"),
  );
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
  const patience = Math.max(STALE_SECONDS, 3 * (report.report_seconds || 0)); // which other versions of the agent may not tell
  return age > patience ? `The agent answers, but its report is ${duration(age)} old: its background thread has stopped or hangs.` : "";
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
