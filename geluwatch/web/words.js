// The words of the live page: numbers, times, and the sentences that say what is wrong. All text goes in as text, never as HTML.
"use strict";

const byId = (id) => document.getElementById(id);

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function write(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

// numbers and times

const DASH = "–";
const integer = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

const round = (value) => new Intl.NumberFormat("en", { maximumSignificantDigits: 2 }).format(value);

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

const code = (layer) => element("code", "", ...breakable(layer));
const points = (layer) => Object.values(layer.points);

const FAULTS = { dead: "is dead: it always gives the same, or lets nothing through", impossible: "gives values that no GELU gives" };

const FAULT_STATES = { dead: "dead", impossible: "impossible values" };

const SCOPES = {
  traffic: " Most layers moved alike, so look at the traffic first.",
  model: " The others did not move alike, so look at the model at this layer first.",
  unknown: " The layers do not tell whether the traffic or the model changed.",
};

function onset(layer) {
  const began = points(layer).map((point) => point.onset).filter((time) => time !== null);
  return began.length ? Math.min(...began) : null;
}

function grossReason(faults) {
  const layers = new Set(faults.map((fault) => fault.layer));
  const more = layers.size - 1;
  const others = more ? ` ${plural(more, "more layer")} ${more === 1 ? "is" : "are"} grossly wrong.` : "";
  return ["Layer ", code(faults[0].layer), ` ${FAULTS[faults[0].fault]}.${others}`];
}

function overflowReason(ahead) {
  const [nearest] = [...ahead].sort((one, other) => (one.seconds ?? Infinity) - (other.seconds ?? Infinity) || one.bits - other.bits);
  const when = nearest.seconds === null ? "" : ` At the present rate they overflow in ${duration(nearest.seconds)}.`;
  return ["An overflow lies ahead. Layer ", code(nearest.layer), ` has ${decimal(nearest.bits, 1)} bits of headroom left.${when}`];
}

function kernelReason(kernels) {
  const more = kernels.length - 1;
  const others = more ? ` ${plural(more, "more layer")} ${more === 1 ? "is" : "are"} not as declared.` : "";
  return ["Kernel of layer ", code(kernels[0].layer), `: ${kernels[0].fault}.${others}`];
}

function driftReason(report, observed) {
  const first = report.layers.find((layer) => layer.layer === report.drifting[0]);
  const began = first ? onset(first) : null;
  return [
    `${report.drifting.length} of ${plural(observed, "layer")} ${report.drifting.length === 1 ? "drifts" : "drift"} from baseline `,
    `${report.baseline.name}. It began at `,
    code(report.drifting[0]),
    began === null ? "." : ` ${duration(report.time - began)} ago.`,
    SCOPES[report.scope] ?? "",
  ];
}

function modelReason(probe) {
  return ["The model is not the one that the baseline was recorded on, from layer ", code(probe.first), " on."];
}

function reason(report) {
  const observed = report.layers.filter((layer) => layer.state === "observed").length;
  const blind = report.layers.length - observed;
  switch (report.verdict) {
    case "page":
      if (report.first_nonfinite) return ["NaN or Inf in the activations. The first layer is ", code(report.first_nonfinite), "."];
      if (report.gross.length) return grossReason(report.gross);
    // fall through
    case "ticket":
      if (report.overflow.some((ahead) => ahead.alarm === report.verdict)) return overflowReason(report.overflow);
      if (report.drifting.length) return driftReason(report, observed);
      return report.probe?.moved ? modelReason(report.probe) : kernelReason(report.kernels);
    case "ok":
      return [`${plural(observed, "layer")} within baseline ${report.baseline.name}.`, blind ? ` ${plural(blind, "layer")} cannot be observed.` : ""];
    case "warming":
      return [
        report.baseline
          ? `Baseline ${report.baseline.name} is armed. Drift is judged from the first window with enough rows.`
          : "No baseline is armed, so drift is not judged yet. NaN, Inf and dead layers are caught already.",
      ];
    default:
      return [report.layers.length ? `None of the ${plural(report.layers.length, "GELU")} can be observed.` : "The model shows no GELU."];
  }
}
