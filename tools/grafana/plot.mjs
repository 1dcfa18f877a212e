// Draws what has axes: lines over time or over a number, buckets over time, and states over time, as SVG.
import * as chromatic from 'd3-scale-chromatic';
import { grafana, THEME } from './frames.mjs';

export const esc = (text) => String(text ?? '').replace(/[&<>"]/g, (sign) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[sign]);
export const text = (field, value) => grafana.formattedValueToString(field.display(value));
export const colour = (name) => THEME.visualization.getColorByName(name);

const LEFT = 76;
const BOTTOM = 20;
const GREY = '#8e8e9a';
const finite = (values) => values.filter((value) => value !== null && Number.isFinite(value));
const label = (x, y, content, anchor) => `<text x="${x}" y="${y}" fill="${GREY}" font-size="11" text-anchor="${anchor}">${esc(content)}</text>`;

/** Returns about four round numbers between two. */
function ticks(low, high) {
  const step = 10 ** Math.floor(Math.log10((high - low) / 4));
  const wide = [1, 2, 5, 10].map((factor) => factor * step).find((size) => (high - low) / size <= 5);
  return Array.from({ length: Math.floor(high / wide) - Math.ceil(low / wide) + 1 }, (_, number) => (Math.ceil(low / wide) + number) * wide);
}

/** Returns a scale from [low, high] to [from, to], logarithmic if asked for. */
function scale([low, high], from, to, log) {
  const bend = log ? (value) => Math.log10(Math.max(value, 1e-12)) : (value) => value;
  return (value) => from + ((bend(value) - bend(low)) / (bend(high) - bend(low))) * (to - from);
}

/** Returns the range of an axis, as Grafana would choose it for some fields. */
function range(fields) {
  const { min, max, custom = {} } = fields[0].config;
  const values = finite(fields.flatMap((field) => field.values));
  const low = min ?? Math.min(...values, custom.axisSoftMin ?? Infinity);
  const high = max ?? Math.max(...values, custom.axisSoftMax ?? -Infinity);
  if (low < high) return [low, high];
  if (min === low) return [low, low + 1];
  return [low - Math.abs(low || 1) / 2, high + Math.abs(high || 1) / 2];
}

const clock = (at) => new Date(at).toISOString().slice(11, 16);

/** Returns the labels of a time axis, or of one of numbers. */
function below(x, [first, last], height, field) {
  return [0, 0.25, 0.5, 0.75, 1].map((part) => [part, first + part * (last - first)])
    .map(([part, at]) => label(x(at), height - 4, field.type === 'time' ? clock(at) : text(field, at), part === 1 ? 'end' : 'middle')).join('');
}

/** Returns lines of fields over a first one; axes on the right belong to the fields that ask for them. */
export function lines(pairs, width, height) {
  const axes = ['left', 'right'].map((side) => pairs.filter(([, y]) => (y.config.custom?.axisPlacement === 'right') === (side === 'right')));
  const named = axes.flatMap((some) => (some.length ? ticks(...range(some.map(([, y]) => y))).map((at) => text(some[0][1], at).length) : []));
  const edge = Math.max(LEFT, 7 * Math.max(...named) + 12);
  const right = width - (axes[1].length ? edge : 12);
  const across = [Math.min(...finite(pairs.flatMap(([x]) => x.values))), Math.max(...finite(pairs.flatMap(([x]) => x.values)))];
  const x = scale(across, edge, right);
  const drawn = axes.filter((some) => some.length).map((some) => {
    const side = some === axes[1];
    const fields = some.map(([, y]) => y);
    const { custom = {}, thresholds } = fields[0].config;
    const span = range(fields);
    const y = scale(span, height - BOTTOM, 8, custom.scaleDistribution?.type === 'log');
    const marks = custom.scaleDistribution?.type === 'log' ? [span[0], Math.sqrt(Math.max(span[0], 1e-12) * span[1]), span[1]] : ticks(...span);
    const grid = marks.map((at) => `<line x1="${edge}" x2="${right}" y1="${y(at)}" y2="${y(at)}" stroke="#2b2c33"/>${
      label(side ? right + 6 : edge - 6, y(at) + 4, text(fields[0], at), side ? 'start' : 'end')}`);
    const limits = (custom.thresholdsStyle?.mode ?? 'off') === 'off' ? [] : thresholds.steps.filter(({ value }) => Number.isFinite(value))
      .map((step) => `<line x1="${edge}" x2="${right}" y1="${y(step.value)}" y2="${y(step.value)}" stroke="${colour(step.color)}" stroke-dasharray="8 6"/>`);
    return [...grid, ...limits, ...some.map(([at, field]) => line(at, field, x, y, height))].join('');
  });
  return `<svg width="${width}" height="${height}">${drawn.join('')}${below(x, across, height, pairs[0][0])}</svg>`;
}

/** Returns one field's line, points, or both; where there is no value the line is broken unless told otherwise. */
function line(at, field, x, y, height) {
  const { drawStyle = 'line', lineWidth = 1, lineStyle, fillOpacity = 0, lineInterpolation, spanNulls } = field.config.custom ?? {};
  const stroke = field.display(finite(field.values).at(-1)).color;
  let path = '';
  let pen = false;
  const dots = [];
  field.values.forEach((value, place) => {
    if (value === null || !Number.isFinite(value)) { pen = pen && Boolean(spanNulls); return; }
    const [left, top] = [x(at.values[place]).toFixed(1), y(value).toFixed(1)];
    path += pen ? (lineInterpolation === 'stepAfter' ? `H${left}V${top}` : `L${left},${top}`) : `M${left},${top}`;
    pen = true;
    dots.push(`<circle cx="${left}" cy="${top}" r="2" fill="${stroke}"/>`);
  });
  const dash = lineStyle?.fill === 'dash' ? `stroke-dasharray="${(lineStyle.dash ?? [10, 10]).join(' ')}"` : '';
  const fill = fillOpacity && dots.length > 1 && !/M.*M/.test(path)
    ? `<path d="${path}V${height - BOTTOM}H${x(at.values[0])}Z" fill="${stroke}" fill-opacity="${fillOpacity / 100}"/>` : '';
  const points = drawStyle === 'points' || dots.length === 1 || field.config.custom?.showPoints === 'always' ? dots.join('') : '';
  return `${fill}${drawStyle === 'points' ? '' : `<path d="${path}" fill="none" stroke="${stroke}" stroke-width="${lineWidth}" ${dash}/>`}${points}`;
}

/** Returns buckets over time; each row is the bucket up to the bound that it is named for. */
export function heatmap({ fields: [time, ...rows] }, { color, filterValues, yAxis }, width, height) {
  const values = finite(rows.flatMap((row) => row.values));
  const [low, high] = [color.min ?? Math.min(...values), color.max ?? Math.max(...values)];
  const ramp = chromatic[`interpolate${color.scheme}`] ?? chromatic.interpolateOranges;
  const flipped = /^(Blues|Greens|Greys|Oranges|Purples|Reds|[A-Z][a-z][A-Z][a-z]([A-Z][a-z])?)$/.test(color.scheme) !== Boolean(color.reverse);
  const shade = (share) => ramp(flipped ? 1 - share : share);
  const across = [time.values[0], time.values.at(-1)];
  const x = scale(across, LEFT + 20, width - 12);
  const size = [Math.ceil((width - LEFT - 32) / time.values.length), (height - BOTTOM - 30) / rows.length];
  const every = Math.ceil(16 / size[1]);
  const cells = rows.flatMap((row, place) => {
    const top = height - BOTTOM - 22 - (place + 1) * size[1];
    const named = place % every ? '' : label(LEFT + 14, top + size[1] / 2 + 4, yAxis?.unit && yAxis.unit !== 'none' && Number.isFinite(Number(row.title))
      ? grafana.formattedValueToString(grafana.getValueFormat(yAxis.unit)(Number(row.title))) : row.title, 'end');
    return [named, ...row.values.map((value, when) => (value === null || value <= (filterValues?.le ?? 1e-9) ? '' :
      `<rect x="${x(time.values[when])}" y="${top}" width="${size[0]}" height="${size[1] - 1}" fill="${shade((value - low) / (high - low || 1))}"/>`))];
  });
  const legend = [0, 0.25, 0.5, 0.75, 1].map((share) => `<rect x="${LEFT + 20 + share * 150}" y="${height - 16}" width="37" height="8" fill="${shade(share)}"/>`);
  const ends = label(LEFT + 14, height - 8, text(rows[0], low), 'end') + label(LEFT + 214, height - 8, text(rows[0], high), 'start');
  return `<svg width="${width}" height="${height}">${cells.join('')}${below(x, across, height - 22, time)}${legend.join('')}${ends}</svg>`;
}

/** Returns one row of coloured spans for each field: neighbours of one value are one span, save in a status history. */
export function states(pairs, { showValue = 'auto', rowHeight = 0.9 }, width, height, merged) {
  const names = Math.min(260, Math.max(...pairs.map(([, field]) => field.title.length)) * 6.5 + 10);
  const across = [Math.min(...pairs.flatMap(([time]) => time.values)), Math.max(...pairs.flatMap(([time]) => time.values)) + 60000];
  const x = scale(across, names, width - 12);
  const size = (height - BOTTOM - 4) / pairs.length;
  const rows = pairs.map(([time, field], row) => {
    const spans = [];
    field.values.forEach((value, place) => {
      const last = spans.at(-1);
      if (merged && last && last.value === value) last.until = time.values[place] + 60000;
      else spans.push({ value, since: time.values[place], until: time.values[place] + 60000 });
    });
    return label(names - 6, row * size + size / 2 + 6, field.title, 'end') + spans.filter(({ value }) => value !== null).map(({ value, since, until }) => {
      const wide = x(until) - x(since) - (merged ? 1 : 2);
      const said = text(field, value);
      const fits = showValue !== 'never' && (showValue === 'always' || said.length * 7 < wide);
      return `<rect x="${x(since)}" y="${row * size + 4}" width="${Math.max(wide, 1)}" height="${size * rowHeight}" fill="${field.display(value).color}"/>${
        fits ? `<text x="${x(since) + wide / 2}" y="${row * size + size / 2 + 6}" font-size="11" fill="#111" text-anchor="middle">${esc(said)}</text>` : ''}`;
    }).join('');
  });
  return `<svg width="${width}" height="${height}">${rows.join('')}${below(x, across, height, pairs[0][0])}</svg>`;
}
