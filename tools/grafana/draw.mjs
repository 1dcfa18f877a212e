// Draws a dashboard with its answers as an HTML page, near enough to Grafana's dark look to judge what a reader sees.
//
// Which series there are, what they are called, how values read and what colours they have is Grafana's own code (see
// frames.mjs); shapes and places are drawn here. Reads {title, sections} as JSON from standard input, writes HTML.
import { readFileSync } from 'node:fs';
import { frames, grafana, reduced } from './frames.mjs';
import { colour, esc, heatmap, lines, states, text } from './plot.mjs';

const COLUMN = 66;
const ROW = 38;
const STYLE = `body{background:#111217;color:#ccccdc;font:13px Inter,Helvetica,Arial,sans-serif;margin:8px;width:${24 * COLUMN}px}
h1{font-size:18px;margin:4px 8px}h2{font-size:15px;font-weight:500;margin:10px 8px 6px}.section{position:relative}
.panel{position:absolute;box-sizing:border-box;background:#181b1f;border:1px solid #2b2c33;border-radius:3px;overflow:hidden;padding:2px 8px}
.title{font-weight:500;height:26px;line-height:26px;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}.title i{color:#6e9fff;font-style:normal;font-size:11px}
.legend{overflow:hidden;font-size:12px}.legend td{padding:0 10px 0 0;height:18px;white-space:nowrap}.key{display:inline-block;width:14px;height:4px;border-radius:2px;margin-right:6px;vertical-align:middle}
.more{position:absolute;right:8px;bottom:2px;background:#f2495c;color:#fff;font-size:11px;padding:0 5px;border-radius:3px}
.tiles{display:flex;gap:4px;height:100%}.tile{flex:1;display:flex;flex-direction:column;align-items:center;justify-content:center;border-radius:3px;overflow:hidden;text-align:center;min-width:0;min-height:0}
.none{display:flex;height:80%;align-items:center;justify-content:center;color:#8e8e9a;font-size:16px}
table.grid{border-collapse:collapse;width:100%;font-size:12px}.grid th{color:#6e9fff;text-align:left;font-weight:500}.grid th,.grid td{border-bottom:1px solid #2b2c33;padding:4px 8px;white-space:nowrap;overflow:hidden;max-width:420px;text-overflow:ellipsis}
.bar{display:flex;align-items:center;gap:8px;white-space:nowrap;overflow:hidden}.bar div{height:100%;border-radius:2px}`;

/** Returns [what it stands over, field] for every number of some frames. */
const pairs = (data) => data.flatMap(({ fields }) => {
  const over = fields.find((field) => field.type === 'time') ?? fields[0];
  return fields.filter((field) => field !== over && field.type !== 'time' && !field.config.custom?.hideFrom?.viz).map((field) => [over, field]);
});
const numbers = (data) => pairs(data).filter(([, field]) => field.type === 'number');
const nothing = (panel) => `<div class="none">${esc(panel.fieldConfig.defaults.noValue ?? 'No data')}</div>`;

/** Returns a legend as a list or a table, and how many of its lines do not fit; `high` is what it may take. */
function legend({ options }, fields, high) {
  const { displayMode, calcs = [], showLegend = true, placement, sortBy, sortDesc } = options.legend ?? {};
  if (!showLegend) return '';
  const entry = (field) => `<span class="key" style="background:${field.display(field.values.findLast((value) => value !== null)).color}"></span>${esc(field.title)}`;
  const number = (field, calc) => text(field, grafana.reduceField({ field, reducers: [calc] })[calc]);
  if (displayMode !== 'table') return `<div class="legend" style="max-height:${high}px">${fields.map((field) => `<span style="margin-right:14px">${entry(field)}</span>`).join(placement === 'right' ? '<br>' : '')}</div>`;
  const named = (calc) => grafana.fieldReducers.get(calc).name;
  const by = calcs.find((calc) => named(calc) === sortBy);
  const rank = (field) => grafana.reduceField({ field, reducers: [by] })[by];
  if (by) fields.sort((left, right) => (rank(left) - rank(right)) * (sortDesc ? -1 : 1));
  const body = fields.map((field) => `<tr><td>${entry(field)}</td>${calcs.map((calc) => `<td>${number(field, calc)}</td>`).join('')}</tr>`);
  const hidden = fields.length - Math.floor(high / 18) + 1;
  return `<div class="legend" style="height:${Math.min(high, 18 * fields.length + 18)}px"><table><tr><td></td>${calcs.map((calc) => `<td>${named(calc)}</td>`).join('')}</tr>${
    body.join('')}</table></div>${hidden > 0 ? `<span class="more">${hidden} of ${fields.length} series to scroll to</span>` : ''}`;
}

/** Returns lines above their legend, which takes a third of the height at most. */
function chart(panel, shown, width, height) {
  if (!shown.length) return nothing(panel);
  const { showLegend = true, displayMode } = panel.options.legend ?? {};
  const listed = shown.map(([, field]) => field).filter((field) => !field.config.custom?.hideFrom?.legend);
  const wanted = showLegend ? (displayMode === 'table' ? 18 * listed.length + 18 : 20) : 0;
  const high = Math.min(wanted, height * 0.35);
  return lines(shown, width, height - high) + legend(panel, listed, high);
}

/** Returns a tile for each value. */
function tiles(panel, data, width, height) {
  const shown = reduced(panel, data);
  if (!data.length) return nothing(panel);
  const { colorMode = 'value', textMode = 'auto', orientation } = panel.options;
  const across = orientation === 'vertical' || (orientation !== 'horizontal' && width > height);
  const size = Math.max(12, Math.min(38, (height / (across ? 1 : shown.length)) * 0.42, ((width / (across ? shown.length : 1)) / 8) * 1.4));
  const tile = ({ display }) => {
    const titled = textMode === 'value_and_name' || (textMode === 'auto' && shown.length > 1) || textMode === 'name';
    const style = colorMode.startsWith('background') ? `background:${display.color};color:#fff` : colorMode === 'value' ? `color:${display.color}` : '';
    return `<div class="tile" style="${style}">${titled ? `<div style="color:${style.startsWith('background') ? '#fff' : '#ccccdc'};font-size:${Math.max(11, size / 2.2)}px">${esc(display.title)}</div>` : ''}${
      textMode === 'name' || textMode === 'none' ? '' : `<div style="font-size:${size}px">${esc(grafana.formattedValueToString(display))}</div>`}</div>`;
  };
  return `<div class="tiles" style="height:${height}px;flex-direction:${across ? 'row' : 'column'}">${shown.map(tile).join('')}</div>`;
}

/** Returns a bar for each value, lying or standing. */
function bars(panel, data, width, height) {
  const shown = reduced(panel, data);
  if (!data.length) return nothing(panel);
  const size = Math.max(panel.options.minVizHeight ?? 16, Math.min(60, height / shown.length - 4));
  const font = Math.max(9, Math.min(15, size * 0.7));
  const names = Math.min(width / 2, Math.max(...shown.map(({ display }) => display.title.length)) * font * 0.6);
  const filled = ({ display }) => Math.max(0, Math.min(1, display.percent ?? 0)) * (width - names - 90);
  const bar = (value) => `<div class="bar" style="height:${size}px;margin-bottom:4px;font-size:${font}px"><span style="flex:none;width:${names}px;text-align:right">${
    esc(value.display.title)}</span><div style="flex:none;width:${filled(value)}px;background:${value.display.color}"></div><span style="color:${value.display.color}">${
    esc(grafana.formattedValueToString(value.display))}</span></div>`;
  const hidden = shown.length - Math.floor(height / (size + 4));
  return shown.map(bar).join('') + (hidden > 0 ? `<span class="more">${hidden} of ${shown.length} bars to scroll to</span>` : '');
}

/** Returns the first frame as a table, which is what Grafana shows of several. */
function table(panel, data, _, height) {
  if (!data[0]?.length) return nothing(panel);
  const columns = data[0].fields.filter(({ config: { custom = {} } }) => !custom.hidden && !custom.hideFrom?.viz);
  const [{ displayName, desc } = {}] = panel.options.sortBy ?? [];
  const by = columns.find((field) => field.title === displayName)?.values;
  const order = Array.from({ length: data[0].length }, (_, row) => row);
  if (by) order.sort((left, right) => (by[left] > by[right] ? 1 : -1) * (desc ? -1 : 1));
  const cell = (field, row) => {
    const display = field.display(field.values[row]);
    const kind = field.config.custom?.cellOptions?.type;
    const style = kind === 'color-background' ? `background:${display.color};color:#fff` : kind === 'color-text' ? `color:${display.color}` : '';
    return `<td style="${style}">${esc(grafana.formattedValueToString(display))}</td>`;
  };
  const hidden = order.length + 1 - Math.floor(height / 25);
  return `<table class="grid"><tr>${columns.map((field) => `<th>${esc(field.title)}</th>`).join('')}</tr>${
    order.map((row) => `<tr>${columns.map((field) => cell(field, row)).join('')}</tr>`).join('')}</table>${
    hidden > 0 ? `<span class="more">${hidden} of ${order.length} rows to scroll to</span>` : ''}${data.length > 1 ? `<span class="more">1 of ${data.length} frames shown</span>` : ''}`;
}

/** Returns points or lines over the first number, or over the field that is named for it. */
function overNumber(panel, data, width, height) {
  const over = (fields) => fields.find((field) => field.title === panel.options.xField) ?? fields.find((field) => field.type === 'number');
  const shown = data.flatMap(({ fields }) => fields.filter((field) => field.type === 'number' && field !== over(fields)).map((field) => [over(fields), field]));
  return chart(panel, shown, width, height);
}

/** Returns spans of states, or what there is to say without any. */
function timeline(panel, data, width, height) {
  const shown = pairs(data);
  return shown.length ? states(shown, panel.options, width, height, panel.type === 'state-timeline') : nothing(panel);
}

const KINDS = {
  timeseries: (panel, data, ...size) => chart(panel, numbers(data), ...size),
  trend: overNumber,
  xychart: overNumber,
  stat: tiles,
  bargauge: bars,
  table,
  heatmap: (panel, data, ...size) => (data.length ? heatmap(data[0], panel.options, ...size) : nothing(panel)),
  'state-timeline': timeline,
  'status-history': timeline,
  text: (panel) => `<pre style="white-space:pre-wrap;font:inherit">${esc(panel.options.content)}</pre>`,
};

/** Returns a panel in its place. */
async function drawn(panel) {
  const { x, y, w, h } = panel.gridPos;
  const data = panel.targets?.length ? (await frames(panel)).filter((frame) => frame.length) : [];
  const body = (KINDS[panel.type] ?? (() => `no drawing for ${panel.type}`))(panel, data, w * COLUMN - 26, h * ROW - 44);
  const links = (panel.links ?? []).map((link) => ` <i>[${esc(link.title)}]</i>`).join('');
  return `<div class="panel" style="left:${x * COLUMN}px;top:${y * ROW}px;width:${w * COLUMN - 8}px;height:${h * ROW - 8}px"><div class="title">${esc(panel.title)}${links}</div>${body}</div>`;
}

const { title, sections } = JSON.parse(readFileSync(0, 'utf8'));
let page = `<!doctype html><meta charset="utf-8"><title>${esc(title)}</title><style>${STYLE}</style><h1>${esc(title)}</h1>`;
for (const section of sections) {
  const height = Math.max(...section.panels.map(({ gridPos }) => gridPos.y + gridPos.h)) * ROW;
  page += `<h2>${section.collapsed ? '&#9654;' : '&#9660;'} ${esc(section.title)}</h2><div class="section" style="height:${height}px">`;
  for (const panel of section.panels) page += await drawn(panel);
  page += '</div>';
}
process.stdout.write(page);
