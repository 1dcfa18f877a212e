// Prints the names that Grafana 13 knows and its types leave open, as JSON lists by what they name.
import { grafana } from './frames.mjs';

const named = (registry) => registry.list().map(({ id }) => id);
console.log(JSON.stringify({
  units: grafana.getValueFormats().flatMap(({ submenu }) => submenu.map(({ value }) => value)),
  transformations: named(grafana.standardTransformersRegistry),
  reducers: named(grafana.fieldReducers),
  matchers: named(grafana.fieldMatchers),
  colours: named(grafana.fieldColorModeRegistry),
}));
