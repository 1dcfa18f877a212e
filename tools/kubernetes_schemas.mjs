// Writes the JSON schemas of PrometheusRule and PodMonitor that an npm package carries as compiled validators.
//
//     npm install --prefix FOLDER @kubernetes-models/prometheus-operator@5.0.1
//     node tools/kubernetes_schemas.mjs FOLDER third_party/kubernetes-schemas
//
// The package no longer ships the schemas as data, so each validator is asked: what it says of a value of each type at
// a place is the schema of that place, and the fields it looks for in an object are those that the schema names. An
// object with named fields is written with `additionalProperties: false`: the compiled validators would let a misspelt
// field pass, an API server that validates fields strictly does not. Nor is null kept beside other types, with which the
// package marks what may be left out.

import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const KINDS = ["PrometheusRule", "PodMonitor"];
const UNDERSTOOD = new Set(["anyOf", "enum", "format", "maximum", "minLength", "minimum", "pattern", "required", "type"]);
const SAMPLES = { object: {}, array: [], string: "sample", boolean: true, null: null, integer: 1, number: 0.5 };
const TEXTS = ["", "\u0000"];
const NUMBERS = [-1e30, 1e30];
const ANY_KEY = "key";

/** Returns what a validator says at one place of a document when a value stands there. */
function objections(validate, path, value) {
  const place = path.map((step) => `/${step}`).join("");
  const document = path.reduceRight((inner, step) => (step === 0 ? [inner] : { [step]: inner }), value);
  return validate(document) ? [] : validate.errors.filter((error) => error.instancePath === place);
}

/** Returns the fields that a validator looks for in an object, and whether it goes through all that are there. */
function fields(validate, path) {
  const named = new Set();
  let all = false;
  const spy = new Proxy({}, {
    get: (_, name) => void (typeof name === "string" && named.add(name)),
    ownKeys: () => ((all = true), []),
  });
  objections(validate, path, spy);
  return { named: [...named].sort(), all };
}

function objectSchema(validate, path) {
  const { named, all } = fields(validate, path);
  if (all) return { additionalProperties: schemaAt(validate, [...path, ANY_KEY]) };
  if (named.length === 0) return {};
  const missing = objections(validate, path, {}).filter((error) => error.keyword === "required");
  return {
    properties: Object.fromEntries(named.map((name) => [name, schemaAt(validate, [...path, name])])),
    ...(missing.length ? { required: missing.map((error) => error.params.missingProperty).sort() } : {}),
    additionalProperties: false,
  };
}

/** Returns the limits that a validator names when it is shown values that break them. */
function limits(validate, path, values) {
  const found = {};
  for (const error of values.flatMap((value) => objections(validate, path, value))) {
    if (error.keyword === "enum") found.enum = error.params.allowedValues;
    else if (["minLength", "minimum", "maximum"].includes(error.keyword)) found[error.keyword] = error.params.limit;
    else if (["pattern", "format"].includes(error.keyword)) found[error.keyword] = error.params[error.keyword];
  }
  return found;
}

function schemaAt(validate, path) {
  const refused = (value) => objections(validate, path, value).some((error) => ["type", "anyOf"].includes(error.keyword));
  const types = Object.keys(SAMPLES).filter((type) => !refused(SAMPLES[type]));
  if (types.length === Object.keys(SAMPLES).length) return {};
  const has = (type) => types.includes(type);
  const kept = types.filter((type) => type !== "null" && !(type === "integer" && has("number")));
  return {
    type: kept.length === 1 ? kept[0] : kept,
    ...(has("object") ? objectSchema(validate, path) : {}),
    ...(has("array") ? { items: schemaAt(validate, [...path, 0]) } : {}),
    ...(has("string") ? limits(validate, path, TEXTS) : {}),
    ...(has("integer") ? limits(validate, path, NUMBERS) : {}),
  };
}

function refuseWhatIsNotUnderstood(source, file) {
  for (const [, keyword] of source.matchAll(/keyword:"(\w+)"/g)) {
    if (!UNDERSTOOD.has(keyword)) throw new Error(`${file} uses the keyword ${keyword}, which this script does not ask for`);
  }
}

const [folder, out] = process.argv.slice(2).map((path) => resolve(path));
const source = join(folder, "node_modules", "@kubernetes-models", "prometheus-operator");
for (const kind of KINDS) {
  const file = join(source, "_schemas", `MonitoringCoreosComV1${kind}.js`);
  refuseWhatIsNotUnderstood(readFileSync(file, "utf8"), file);
  const { validate } = await import(pathToFileURL(file));
  const schema = { $schema: "https://json-schema.org/draft/2020-12/schema", title: kind, ...schemaAt(validate, []) };
  writeFileSync(join(out, `${kind.toLowerCase()}.json`), `${JSON.stringify(schema, null, 2)}\n`);
}
copyFileSync(join(source, "LICENSE"), join(out, "LICENSE"));
