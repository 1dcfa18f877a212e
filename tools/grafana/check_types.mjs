// Type-checks dashboards, given as a JSON list on standard input, against the types that Grafana publishes for panels,
// their options and their fields. Prints one line for each complaint and exits with 1 if there are any.
//
// The JSON is written out as TypeScript literals, so the compiler tells of every key that a type does not have and of
// every value that it does not allow. What a type requires may be missing or null, because Grafana fills in its defaults.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

const HERE = dirname(fileURLToPath(import.meta.url));
const SCHEMAS = { 11: '@grafana/schema-11/dist/esm', 13: '@grafana/schema/dist/types' };
const OPTIONS = { noEmit: true, strict: true, skipLibCheck: true, moduleResolution: ts.ModuleResolutionKind.Bundler,
                  module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022, types: [] };

// A literal of JSON is no member of an enum, though its value is one: enums are read as their values.
const PLAIN = `
type Plain<T> = unknown extends T ? any : T extends string ? \`\${T}\` : T extends number | boolean ? T
  : T extends Array<infer Item> ? Plain<Item>[] : T extends object ? { [Key in keyof T]?: Plain<T[Key]> } : T;
type Panel<Options, Custom> = Omit<Plain<schema.Panel>, 'options' | 'fieldConfig'> & {
  options?: Plain<Options>; fieldConfig?: Omit<Plain<schema.FieldConfigSource>, 'defaults'> & { defaults: Field<Custom> } };
type Field<Custom> = Omit<Plain<schema.FieldConfig>, 'custom'> & { custom?: Plain<Custom> };
type Dashboard = Omit<Plain<schema.Dashboard>, 'panels' | 'annotations'> & { annotations: any };
`;

/** Returns the module that declares what is in a folder of a schema, the package's own layout being another in each version. */
function declared(schema, folder) {
  const path = join(HERE, 'node_modules', SCHEMAS[schema], 'raw', folder, 'x');
  return join(path, readdirSync(path).find((name) => name.endsWith('.d.ts'))).replace(/\.d\.ts$/, '');
}

/** Yields one statement for each part of a dashboard: what it is, its type, and its value. */
function* parts({ panels, ...dashboard }) {
  yield ['dashboard', 'Dashboard', dashboard];
  for (const panel of panels.flatMap(({ panels: inner = [], ...outer }) => [outer, ...inner])) {
    const where = `${panel.type} ${panel.title}`;
    if (panel.type === 'row') {
      yield [where, 'Plain<schema.RowPanel>', panel];
      continue;
    }
    const kind = panel.type.replaceAll('-', '');
    yield [where, `Panel<${kind}Options, ${kind}Custom>`, panel];
    for (const { id, value } of (panel.fieldConfig?.overrides ?? []).flatMap((override) => override.properties)) {
      const own = id.startsWith('custom.');
      yield [`${where} override ${id}`, own ? `Plain<${kind}Custom>` : `Field<${kind}Custom>`, { [id.replace(/^custom\./, '')]: value }];
    }
  }
}

/** Returns the TypeScript that imports a kind's types; a kind without settings of its own for fields may have none. */
function imported(schema, kind) {
  const path = declared(schema, `composable/${kind}/panelcfg`);
  const custom = /export (interface|type) FieldConfig\b/.test(readFileSync(`${path}.d.ts`, 'utf8'))
    ? `import type { FieldConfig as ${kind}Custom } from '${path}';`
    : `type ${kind}Custom = { [key: string]: never };`;
  return `import type { Options as ${kind}Options } from '${path}';\n${custom}`;
}

/** Returns the complaints of the compiler about dashboards, as one schema has it. */
function complaints(schema, dashboards) {
  const statements = dashboards.flatMap((dashboard) => [...parts(dashboard)].map((part) => [`${dashboard.uid}: ${part[0]}`, ...part.slice(1)]));
  const kinds = new Set(dashboards.flatMap(({ panels }) => panels.flatMap((panel) => [panel, ...(panel.panels ?? [])]))
    .map(({ type }) => type.replaceAll('-', '')).filter((kind) => kind !== 'row'));
  const head = [`import type * as schema from '${declared(schema, 'dashboard')}';`, ...[...kinds].map((kind) => imported(schema, kind)), PLAIN, ''].join('\n');
  const lines = statements.map(([, type, value], number) => `export const part${number}: ${type} = ${JSON.stringify(value, (_, inner) => inner ?? undefined)};`);
  const first = head.split('\n').length - 1;
  return compiled(join(HERE, `dashboards-${schema}.ts`), head + lines.join('\n')).map(({ file, start, messageText }) => {
    const line = file?.getLineAndCharacterOfPosition(start).line - first;
    return `${schema}: ${statements[line]?.[0] ?? file?.fileName}: ${ts.flattenDiagnosticMessageText(messageText, ' ')}`;
  });
}

/** Returns what the compiler says of a file that is nowhere on disk. */
function compiled(name, text) {
  const host = ts.createCompilerHost(OPTIONS);
  const { getSourceFile, fileExists } = host;
  host.fileExists = (path) => path === name || fileExists(path);
  host.getSourceFile = (path, ...rest) => (path === name ? ts.createSourceFile(path, text, OPTIONS.target) : getSourceFile(path, ...rest));
  return ts.getPreEmitDiagnostics(ts.createProgram([name], OPTIONS, host));
}

const dashboards = JSON.parse(readFileSync(0, 'utf8'));
const found = Object.keys(SCHEMAS).flatMap((schema) => complaints(schema, dashboards));
found.forEach((complaint) => console.log(complaint));
process.exit(found.length ? 1 : 0);
