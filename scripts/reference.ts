// `npm run reference`: the pages of docs/reference that repeat what a source states: every option,
// key, field of a GPUPolicy, and value of the chart. A test holds them to the sources. The messages
// have a script of their own.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { everyMetric } from '../app/metrics.ts';
import { LEVELS } from '../core/levels.ts';
import { STAGES, STATES } from '../core/stages.ts';
import { OPTIONS, variableOf } from '../app/options.ts';
import { readArguments } from './arguments.ts';
import { cell, code, table } from './markdown.ts';

const ROOT = join(import.meta.dirname, '..');
const text = (path: string): string => readFileSync(join(ROOT, path), 'utf8');

const page = (title: string, source: string, intro: string, body: string): string =>
  `# ${title}\n\nGenerated from \`${source}\` by \`npm run reference\`. ${intro}\n\n${body}\n`;

/** The parts of a JSON Schema that the pages show. */
export interface Schema {
  readonly type?: string;
  readonly description?: string;
  readonly default?: unknown;
  readonly enum?: readonly unknown[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly items?: Schema;
  readonly additionalProperties?: boolean | Schema;
  readonly 'x-kubernetes-int-or-string'?: boolean;
}

interface Field {
  readonly path: string;
  readonly schema: Schema;
  /** Of the chart; a CRD's default is part of its schema. */
  readonly value: unknown;
}

/** Every field below, in the schema's order; one of an object comes before what is in it. */
function* fields(schema: Schema, values: unknown, above = ''): Generator<Field> {
  for (const [name, below] of Object.entries(schema.properties ?? {})) {
    const path = above === '' ? name : `${above}.${name}`;
    const value = typeof values === 'object' && values !== null ? (values as Record<string, unknown>)[name] : undefined;
    yield { path, schema: below, value };
    yield* fields(below, value, path);
    if (below.items !== undefined) yield* fields(below.items, undefined, `${path}[]`);
  }
}

const typeOf = (schema: Schema): string =>
  schema.enum !== undefined
    ? schema.enum.map(String).join(', ')
    : schema['x-kubernetes-int-or-string'] === true
      ? 'number or percent'
      : (schema.type ?? '');
/** A default on one line; that of an object stands with its fields. */
const shown = (value: unknown): string =>
  value === undefined || (typeof value === 'object' && value !== null && !Array.isArray(value))
    ? ''
    : JSON.stringify(value);
/**
 * Folders of fields say nothing by themselves, and what a list holds in Kubernetes' own form is
 * described by Kubernetes.
 */
const speaks = ({ path, schema }: Field): boolean =>
  schema.description !== undefined || (schema.properties === undefined && !path.includes('[].'));

const optionsPage = (): string =>
  page(
    'Options',
    'app/options.ts',
    'The chart sets most of them by its values, and others by `env`.',
    table(
      ['Option', 'Environment variable', 'Default', 'What'],
      Object.values(OPTIONS).map(({ flag, otherwise, help }) => [
        code(`--${flag}`),
        code(variableOf(flag)),
        code(otherwise),
        cell(help),
      ]),
    ),
  );

const KEY = /\/\*\*((?:(?!\*\/)[^])*)\*\/\nexport const [A-Z_]+ =\s*'([^']+)';/g;
const keysPage = (): string =>
  page(
    'Labels, annotations, taints, conditions',
    'core/keys.ts',
    'Who writes each stands in its description.',
    table(
      ['Key', 'What'],
      [...text('core/keys.ts').matchAll(KEY)].map(([, comment = '', key = '']) => [
        code(key),
        cell(comment.replaceAll(/^\s*\*? ?/gm, '').trim()),
      ]),
    ),
  );

const policyPage = (): string => {
  const crd = parse(text('deploy/chart/crds/gpupolicies.yaml')) as {
    spec: { versions: { name: string; schema: { openAPIV3Schema: Schema } }[] };
  };
  const [version] = crd.spec.versions;
  const spec = version?.schema.openAPIV3Schema.properties?.['spec'] ?? {};
  return page(
    'GPUPolicy',
    'deploy/chart/crds/gpupolicies.yaml',
    `Fields of \`spec\`, version \`gpu-gate.dev/${version?.name ?? ''}\`. [What an edit of each does](../policy-edits.md).`,
    table(
      ['Field', 'Type', 'Default', 'What'],
      [...fields(spec, undefined)]
        .filter(speaks)
        .map(({ path, schema }) => [
          code(path),
          cell(typeOf(schema)),
          code(shown(schema.default)),
          cell(schema.description ?? ''),
        ]),
    ),
  );
};

const valuesPage = (): string => {
  const schema = JSON.parse(text('deploy/chart/values.schema.json')) as Schema;
  return page(
    'Values of the chart',
    'deploy/chart/values.schema.json` and `values.yaml',
    '[What to set for what](../chart.md).',
    table(
      ['Value', 'Default', 'What'],
      [...fields(schema, parse(text('deploy/chart/values.yaml')))]
        .filter(speaks)
        .map(({ path, schema: { description }, value }) => [code(path), code(shown(value)), cell(description ?? '')]),
    ),
  );
};

const metricsPage = (): string =>
  page(
    'Metrics',
    'app/metrics.ts',
    'Every pod serves its own on port `metrics`, and those of Node.js beside them. What only a leader knows is 0 or absent on the other replicas. [Alerts](../alerts.md), [dashboard](../dashboard.md).',
    table(
      ['Metric', 'Type', 'Labels', 'Process', 'What'],
      everyMetric().map(({ name, type, labels, process, help }) => [
        code(name),
        type,
        code(labels.join(', ')),
        process,
        cell(help),
      ]),
    ),
  );

const INTERFACE =
  /(?:\/\*\*((?:(?!\*\/)[^])*)\*\/\n)?export interface (\w+)(?: extends (\w+))? \{\n((?:(?!\n\})[^])*)\n\}/g;
const MEMBER = /(?: {2}\/\*\*((?:(?!\*\/)[^])*)\*\/\n)? {2}readonly (\w+)(\??): ((?:(?!;\n)[^])*)(?:;|$)/g;
const plain = (comment = ''): string =>
  comment
    .replaceAll(/^\s*\*? ?/gm, ' ')
    .replaceAll(/\s+/g, ' ')
    .trim();

/** What the plugin prints by `-o json`, from the types that it is made of. */
const outputPage = (): string => {
  const printed = [
    'Fleet',
    'PolicyReport',
    'NodeReport',
    'ProofReport',
    'GpuCount',
    'WaitingPod',
    'DeploymentReport',
    'NodeStory',
  ];
  const shapes = ['kubectl/fleet.ts', 'kubectl/story.ts', 'kubectl/usual.ts', 'kubectl/progress.ts', 'core/unread.ts']
    .flatMap((file) => [...text(file).matchAll(INTERFACE)])
    .filter(([, , name = '']) => [...printed, 'EventView', 'Step', 'Progress', 'Unread'].includes(name));
  const parts = shapes.map(([, comment, name = '', base, body = '']) => {
    const rows = [...`${body}\n`.matchAll(MEMBER)].map(([, what, field = '', optional, type = '']) => [
      code(field),
      code(type.replaceAll('readonly ', '').replaceAll(/\s+/g, ' ')),
      cell(`${plain(what)}${optional === '?' && !/absent/i.test(what ?? '') ? ' May be absent.' : ''}`.trim()),
    ]);
    const intro = [plain(comment), base === undefined ? '' : `It has the fields of ${base} too.`]
      .filter(Boolean)
      .join(' ');
    return `## ${name}\n\n${intro === '' ? '' : `${intro}\n\n`}${table(['Field', 'Type', 'What'], rows)}`;
  });
  return page(
    'Output of kubectl gpu-gate',
    'kubectl/*.ts',
    `\`-o json\` and \`-o yaml\` print these objects: \`status\` a Fleet, \`nodes\` an object with \`nodes\` (NodeReport) and \`unread\`, \`node\` a NodeStory, \`wait\` a list of Progress. Times are RFC 3339, durations milliseconds. A Stage is ${STAGES.join(', ')}; a State is one of those or ${STATES.filter((state) => !STAGES.some((stage) => stage === state)).join(', ')}; a Level is ${LEVELS.join(' or ')}.`,
    parts.join('\n\n'),
  );
};

/** Every page by its path. */
export const referencePages = (): ReadonlyMap<string, string> =>
  new Map([
    ['docs/reference/options.md', optionsPage()],
    ['docs/reference/keys.md', keysPage()],
    ['docs/reference/gpupolicy.md', policyPage()],
    ['docs/reference/values.md', valuesPage()],
    ['docs/reference/output.md', outputPage()],
    ['docs/reference/metrics.md', metricsPage()],
  ]);

if (process.argv[1] === import.meta.filename) {
  readArguments('npm run reference                rewrites pages of docs/reference', { options: {} });
  for (const [path, content] of referencePages()) writeFileSync(join(ROOT, path), content);
}
