// The table of layers on the live page. Its cells are made once and written to, so that a selection survives a refresh.
"use strict";

const FULL_SCALE = 2; // evidence at the right end of a bar; the limit for a ticket, 1, is its middle

let drawnLayers = "";
const cells = new Map(); // "layer\npoint" -> the cells of that row

function layerState(layer, report) {
  if (layer.state === "blind") return ["blind", `blind: ${layer.reason}`];
  const seen = points(layer);
  if (seen.some((point) => point.nonfinite > 0))
    return ["nonfinite", `non-finite in ${plural(layer.nonfinite_forwards, "pass")}, first of all layers in ${integer.format(layer.first_nonfinite_forwards)}`];
  const fault = seen.map((point) => point.gross).find(Boolean);
  if (fault && report.verdict === "page" && !report.first_nonfinite) return ["gross", FAULT_STATES[fault]];
  if (report.drifting.includes(layer.layer)) return [seen.some((point) => point.alarm === "page") ? "driftpage" : "drift", driftState(layer, report)];
  const ahead = seen.map((point) => point.headroom).find((room) => room.alarm);
  if (ahead) return [ahead.alarm === "page" ? "overflowpage" : "overflow", `overflow ahead: ${decimal(ahead.bits, 1)} bits left`];
  if (seen.some((point) => point.parity?.fault)) return ["kernel", "kernel is not the declared one"];
  if (fault) return ["observed", `observed; ${FAULT_STATES[fault]}, as in the baseline`];
  if (layer.nonfinite_forwards) return ["observed", `observed; non-finite in ${plural(layer.nonfinite_forwards, "pass")} since attach`];
  if (layer.padding_nonfinite_forwards) return ["observed", "observed; non-finite in padding only, harmless"];
  return ["observed", "observed"];
}

function driftState(layer, report) {
  const began = onset(layer);
  const since = began === null ? "" : ` for ${duration(report.time - began)}`;
  return `${layer.layer === report.drifting[0] ? "first in drift" : "drifting"}${since}`;
}

// How the side that surprises most differs from the baseline, in figures.
function difference(layer) {
  const [most] = points(layer).filter((point) => point.panel && point.evidence !== null).sort((one, other) => other.evidence - one.evidence);
  if (!most) return "";
  const { mean_shift: moved, log_spread: spread, tails } = most.panel;
  return [
    moved === null ? "" : `mean ${moved < 0 ? "" : "+"}${decimal(moved, 2)} sd`,
    spread === null ? "" : `spread ×${decimal(Math.exp(spread), 2)}`,
    tails === null ? "" : `tails ${decimal(100 * tails, 1)} %`,
  ].filter(Boolean).join(", ");
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
  const page = element("s", "");
  const bar = element("span", "bar", fill, page);
  bar.setAttribute("aria-hidden", "true");
  return { meter: element("div", "meter", number, bar), number, fill, page };
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
    const sides = Object.keys(layer.points);
    const head = element("th", "", nameOf(layer.layer, names), element("span", "state"), element("span", "how"));
    head.scope = "rowgroup";
    head.setAttribute("role", "rowheader");
    head.rowSpan = sides.length;
    const rows = sides.map((point) => buildRow(layer.layer, point));
    rows[0].prepend(head);
    const body = element("tbody", "", ...rows);
    body.setAttribute("role", "rowgroup");
    return body;
  });
  const table = byId("layers");
  for (const body of [...table.tBodies]) body.remove();
  table.append(...bodies);
}

function drawPoint(made, point, blind, pageAt) {
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
  made.meter.dataset.over = point.alarm;
  made.page.hidden = !(pageAt <= FULL_SCALE);
  made.page.style.left = `${(100 * pageAt) / FULL_SCALE}%`;
  made.meter.dataset.beyond = point.evidence > FULL_SCALE;
  made.fill.style.width = `${Math.min(100, (100 * (point.evidence ?? 0)) / FULL_SCALE)}%`;
}

function drawLayers(report) {
  const key = JSON.stringify(report.layers.map((layer) => [layer.layer, Object.keys(layer.points)]));
  if (key !== drawnLayers) buildLayers(report.layers);
  drawnLayers = key;
  const table = byId("layers");
  table.hidden = !report.layers.length;
  const given = report.baseline?.certificate;
  const pageAt = given && given.page_limit !== null ? given.page_limit / given.ticket_limit : Infinity;
  report.layers.forEach((layer, place) => {
    const [state, words] = layerState(layer, report);
    table.tBodies[place].dataset.state = state;
    write(table.tBodies[place].querySelector(".state"), words);
    write(table.tBodies[place].querySelector(".how"), state.startsWith("drift") ? difference(layer) : "");
    for (const [point, seen] of Object.entries(layer.points))
      drawPoint(cells.get(`${layer.layer}\n${point}`), seen, layer.state === "blind", pageAt);
  });
}
