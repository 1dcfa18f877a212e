// Turns Prometheus' answers into what Grafana's panels are given, with Grafana's own code: its data source makes frames
// of them, its transformations change the frames, and its field settings say how each value reads and what colour it has.
//
// Run by itself it reads a JSON list of panels with `answers` (by refId, of Prometheus' HTTP API) from standard input,
// and writes the list of their frames.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

globalThis.navigator ??= { language: 'en-GB', languages: ['en-GB'] }; // formats of dates follow the browser's language
const require = createRequire(import.meta.url);
const Module = require('node:module');
const load = Module._load;
// The transformer asks Grafana's runtime for links of exemplars alone, which a dashboard of ours has not.
Module._load = (name, ...rest) => (name === '@grafana/runtime' ? { getDataSourceSrv: () => undefined } : load(name, ...rest));
const { transformV2 } = require(fileURLToPath(new URL('node_modules/@grafana/prometheus/dist/cjs/result_transformer.cjs', import.meta.url)));
export const grafana = require('@grafana/data');

globalThis.window = {}; // looked at by transformations; set only now, because libraries take one for a browser when they load

export const THEME = grafana.createTheme({ colors: { mode: 'dark' } });
grafana.standardTransformersRegistry.setInit(() => [...new Set(Object.values(grafana.standardTransformers))].map((transformation) => ({ id: transformation.id, transformation: () => transformation })));

// What each kind of panel sets for itself where a dashboard says nothing.
const COLOUR = { timeseries: 'palette-classic', trend: 'palette-classic', xychart: 'palette-classic', 'state-timeline': 'continuous-GrYlRd',
                 'status-history': 'continuous-GrYlRd' };

/** Returns the frame of one series, as Grafana's back end makes it of Prometheus' answer. */
function series({ refId, legendFormat, instant }, { metric, value, values = [value] }) {
  const name = (legendFormat || JSON.stringify(metric)).replace(/{{\s*(\w+)\s*}}/g, (_, label) => metric[label] ?? '');
  const { __name__, ...labels } = metric;
  return grafana.toDataFrame({
    refId,
    meta: { type: 'timeseries-multi', custom: { resultType: instant ? 'vector' : 'matrix' } },
    fields: [
      { name: 'Time', type: 'time', values: values.map(([at]) => at * 1000), config: { interval: 60000 } },
      { name: 'Value', type: 'number', values: values.map(([, number]) => Number(number.replace('Inf', 'Infinity'))), labels, config: { displayNameFromDS: name } },
    ],
  });
}

/** Returns a registry that knows the settings of fields that panels and their overrides use. */
function registry({ defaults, overrides }) {
  const names = ['color', ...Object.values(grafana.FieldConfigProperty), ...Object.keys(defaults.custom ?? {}).map((name) => `custom.${name}`),
                 ...overrides.flatMap(({ properties }) => properties.map(({ id }) => id))];
  const entry = (id) => ({ id, path: id.replace(/^custom\./, ''), isCustom: id.startsWith('custom.'), name: id, process: (value) => value, shouldApply: () => true });
  return new grafana.Registry(() => [...new Set(names)].map(entry));
}

/** Returns a panel's frames after the data source, the transformations and the field settings. */
export async function frames({ type, targets = [], answers, transformations = [], fieldConfig }) {
  const answered = targets.flatMap((target) => answers[target.refId].result.map((result) => series(target, result)));
  const { data } = transformV2({ data: answered }, { targets, app: 'dashboard' }, {});
  const transformed = await new Promise((resolve, reject) => {
    grafana.transformDataFrame(transformations, data).subscribe({ next: resolve, error: reject });
  });
  const defaults = { color: { mode: COLOUR[type] ?? 'thresholds' }, ...fieldConfig.defaults };
  const shown = grafana.applyFieldOverrides({ data: transformed, fieldConfig: { ...fieldConfig, defaults }, theme: THEME, timeZone: 'utc',
                                              replaceVariables: (text) => text, fieldConfigRegistry: registry(fieldConfig) });
  for (const frame of shown) for (const field of frame.fields) field.title = grafana.getFieldDisplayName(field, frame, shown);
  return shown;
}

/** Returns what a panel that reduces each field to one value shows. */
export function reduced({ fieldConfig, options: { reduceOptions } }, data) {
  return grafana.getFieldDisplayValues({ fieldConfig, reduceOptions, data, theme: THEME, replaceVariables: (text) => text, timeZone: 'utc' });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const written = [];
  for (const panel of JSON.parse(readFileSync(0, 'utf8'))) {
    const data = await frames(panel);
    written.push(data.map(({ meta, fields }) => ({ type: meta?.type, fields: fields.map(({ title, type, values }) => ({ title, type, values })) })));
  }
  process.stdout.write(JSON.stringify(written));
}
