// The page of every text that users and operators read, docs/reference/messages.md: the gate's
// reasons from their table, all others from where source and chart write them. Rewrite it with
// `npm run messages`; a test holds it to the source.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ALL_REASONS } from '../gate/reasons.ts';
import { readArguments } from './arguments.ts';
import { cell, code, table } from './markdown.ts';
import {
  allTexts,
  constantsOf,
  nameOf,
  propertyOf,
  sourceOf,
  textsOf,
  walk,
  type Constants,
  type Node,
  type Source,
} from './texts.ts';

const ROOT = join(import.meta.dirname, '..');
export const PAGE = 'docs/reference/messages.md';
const TEMPLATES = 'deploy/chart/templates';

/** Where texts are that no table of its own has: title, what a reader should know, files. */
export const PLACES: readonly (readonly [title: string, about: string, files: readonly string[]])[] = [
  ['What is wrong with a pod’s annotations', 'In refusals, warnings and `explain`.', ['gate', 'core']],
  ['Answers of the webhook', 'To API servers, and in its log.', ['webhook']],
  ['Answers of the extender', 'To schedulers, which show them in `FailedScheduling`, and in its log.', ['extender']],
  ['explain', 'What `node main.ts explain` and `kubectl gpu-gate explain` print.', ['explain']],
  ['kubectl gpu-gate', 'What the plugin prints.', ['kubectl', 'app/kubectl-gpu_gate.ts']],
  ['Support bundle', 'What `support` prints and writes.', ['support']],
  ['Uninstall', 'What `node main.ts release` prints.', ['uninstall']],
  ['Parts of Events and conditions', 'Filled in above, or logged by the reconciler.', ['reconciler']],
  ['Certificates', 'In the log of the reconciler, as the reason of a step or a wait, and in `/readyz`.', ['certs']],
  [
    'Start, readiness and connections',
    'In logs, on stderr, and in answers to callers.',
    ['app', 'main.ts', 'platform'],
  ],
];

/** Files whose strings are programs, not texts. */
const PROGRAMS = ['kubectl/completion.ts', 'reconciler/manifests/driver.ts', 'reconciler/manifests/toolkit.ts'];
/** Strings with a space that nobody reads. */
const NOT_READ = new Set([
  '-----BEGIN CERTIFICATE-----',
  '-----END CERTIFICATE-----',
  'Bearer {bearer}',
  'text/plain; charset=utf-8',
  // Values that code compares.
  'not ours',
  'on its way',
  'by claim',
]);
/** Files whose texts have tables of their own, made from values. */
const TABLES = ['gate/reasons.ts'];

const filesIn = (place: string): readonly string[] =>
  place.endsWith('.ts')
    ? [place]
    : readdirSync(join(ROOT, place), { recursive: true, encoding: 'utf8' })
        .map((name) => `${place}/${name.replaceAll('\\', '/')}`)
        .toSorted();
const read = (file: string): string => readFileSync(join(ROOT, file), 'utf8');

interface Message {
  /** Reason or kind. */
  readonly key: string;
  readonly text: string;
  /** The expression that it was read from. */
  readonly at: Node;
}
const CAMEL = /^[A-Z][A-Za-z]+$/;

/**
 * Objects with a reason and a sentence beside it, and calls that are given both one after the
 * other.
 */
function* eventsOf({ program }: Source, constants: Constants): Generator<Message> {
  const reasonsOf = (node: Node | undefined): readonly string[] =>
    textsOf(node, constants).filter((text) => CAMEL.test(text));
  for (const node of walk(program)) {
    if (node.type === 'ObjectExpression') {
      const at = ['message', 'said', 'because'].map((name) => propertyOf(node, name)).find((one) => one !== undefined);
      if (at === undefined) continue;
      for (const key of reasonsOf(propertyOf(node, 'reason')))
        for (const text of textsOf(at, constants)) yield { key, text, at };
    }
    if (node.type !== 'CallExpression') continue;
    const given = node['arguments'] as Node[];
    for (const [i, argument] of given.entries()) {
      const at = given[i + 1];
      if (at === undefined) continue;
      for (const key of reasonsOf(argument))
        for (const text of textsOf(at, constants)) if (text.includes(' ')) yield { key, text, at };
    }
  }
}

/** What the webhook says of a pod by these calls: argument by argument. */
const SAYS: Readonly<Record<string, readonly string[]>> = {
  refuse: ['', 'refused'],
  leave: ['', 'warning', 'warning'],
  skip: ['', '', 'left out', 'warning'],
  warn: ['', 'warning'],
};
function* warningsOf({ program }: Source, constants: Constants): Generator<Message> {
  for (const node of walk(program)) {
    if (node.type !== 'CallExpression') continue;
    const kinds = SAYS[nameOf(node['callee'])];
    for (const [i, at] of (node['arguments'] as Node[]).entries()) {
      const key = kinds?.[i] ?? '';
      if (key === '') continue;
      for (const text of textsOf(at, constants)) if (text.includes(' ')) yield { key, text, at };
    }
  }
}

interface Metric {
  readonly row: readonly [name: string, type: string, labels: string, help: string];
  readonly at: Node;
}
/** Value of a constant of the file, or the text itself. */
function nameIn(program: Node, node: Node | undefined, constants: Constants): string {
  if (node?.type !== 'Identifier') return textsOf(node, constants)[0] ?? '';
  for (const one of walk(program))
    if (one.type === 'VariableDeclarator' && nameOf(one['id']) === nameOf(node))
      return textsOf(one['init'], constants)[0] ?? '';
  return '';
}
const labelsOf = (list: Node | undefined, constants: Constants): string =>
  (list?.type === 'ArrayExpression' ? (list['elements'] as Node[]) : [])
    .flatMap((one) => textsOf(one, constants))
    .join(', ');

function* metricsOf({ program }: Source, constants: Constants): Generator<Metric> {
  for (const at of walk(program)) {
    const given = (at['arguments'] as Node[] | undefined) ?? [];
    const type = nameOf(at['callee']);
    if (at.type === 'NewExpression' && ['Counter', 'Gauge', 'Histogram'].includes(type)) {
      const [options] = given;
      if (options?.type !== 'ObjectExpression') continue;
      const name = nameIn(program, propertyOf(options, 'name'), constants);
      const help = textsOf(propertyOf(options, 'help'), constants)[0] ?? '';
      // A name that is filled in belongs to a helper, whose calls follow.
      if (!name.includes('{'))
        yield { row: [name, type.toLowerCase(), labelsOf(propertyOf(options, 'labelNames'), constants), help], at };
    }
    if (at.type !== 'CallExpression' || type !== 'gauge') continue;
    const [name = '', help = ''] = given.map((one) => textsOf(one, constants)[0] ?? '');
    yield { row: [`gpu_gate_${name}`, type, labelsOf(given[2], constants), help], at };
  }
}

/** Texts of a file that none of these expressions has. */
function otherTextsOf(source: Source, constants: Constants, taken: readonly Node[]): readonly string[] {
  return [...allTexts(source, constants)]
    .filter(({ start, end }) => !taken.some((node) => node.start <= start && end <= node.end))
    .map(({ text }) => text)
    .filter((text) => !NOT_READ.has(text));
}

/** One YAML scalar as the API server or Helm shows it, its templates in braces. */
const scalar = (raw: string): string =>
  raw
    .replaceAll(/\{\{-? ?if[^}]*\}\}(.*?)\{\{-? ?else[^}]*\}\}(.*?)\{\{-? ?end ?-?\}\}/g, '[$1|$2]')
    .replaceAll(/\{\{ ?`(.*)` \| quote ?\}\}/g, '$1')
    .replace(/^\{\{-? ?printf ("(?:[^"\\]|\\.)*").*$/, '$1')
    .replaceAll(/\{\{-?[^}]*?([\w]+)[^\w}]*(?:\| ?\w+ ?)?\}\}/g, '{$1}')
    .replace(/^(["'])(.*)\1$/, '$2');
const chartTexts = (pattern: RegExp, ...places: readonly string[]): readonly string[] =>
  places
    .flatMap((place) => (place.endsWith('.yaml') ? [place] : filesIn(place)))
    .filter((file) => /\.(yaml|tpl)$/.test(file))
    .flatMap((file) => [...read(file).matchAll(pattern)].map((match) => scalar(match[1] ?? '')));

const unique = (rows: readonly (readonly string[])[]): readonly (readonly string[])[] =>
  [...new Map(rows.map((row) => [row.join('\n'), row])).values()].toSorted((a, b) =>
    a.join('\n') < b.join('\n') ? -1 : 1,
  );
const keyed = (messages: readonly Message[], what: string): string =>
  table([what, 'Text'], unique(messages.map(({ key, text }) => [code(key), cell(text)])));
const listed = (texts: readonly string[]): string => table(['Text'], unique(texts.map((text) => [cell(text)])));

/** What one file writes, by the table that has it. */
function messagesOf(source: Source, constants: Constants) {
  const { file, program } = source;
  const events = file.startsWith('reconciler/') ? [...eventsOf(source, constants)] : [];
  const warnings = file.startsWith('webhook/') ? [...warningsOf(source, constants)] : [];
  const metrics = [...metricsOf(source, constants)];
  const options =
    file === 'app/options.ts' ? [...walk(program)].filter(({ callee }) => nameOf(callee) === 'option') : [];
  const taken = [...[...events, ...warnings, ...metrics].map(({ at }) => at), ...options];
  return {
    file,
    events,
    warnings,
    metrics,
    others: TABLES.includes(file) ? [] : otherTextsOf(source, constants, taken),
  };
}

/** The whole page. */
export function messagesPage(): string {
  const sources = PLACES.flatMap(([, , places]) => places)
    .flatMap(filesIn)
    .filter((file) => file.endsWith('.ts') && !PROGRAMS.includes(file))
    .map((file) => sourceOf(file, read(file)));
  const constants = constantsOf(sources);
  const all = [...new Map(sources.map((source) => [source.file, messagesOf(source, constants)])).values()];
  const isBlock = (text: string): boolean => text.trim().split('\n').length > 2;
  const sections = PLACES.map(([title, about, places]) => {
    const files = places.flatMap(filesIn);
    const texts = all.filter(({ file }) => files.includes(file)).flatMap(({ others }) => others);
    return `## ${title}\n\n${about}\n\n${listed(texts.filter((text) => !isBlock(text)))}`;
  });
  const blocks = all.flatMap(({ others }) => others.filter(isBlock));
  return `# Messages

Every text that users and operators read. Generated from source and chart by \`npm run messages\`; a text that is not here fails
a test. Braces hold what is filled in, brackets hold alternatives. [options.md](options.md) has the options' help.

## Why a pod is kept off a node

The extender's reasons, as the Event \`FailedScheduling\` shows them. \`Kind\` is what \`explain -o json\` says, \`Label\` the label
\`reason\` of \`gpu_gate_verdicts_total\`.

${table(
  ['Reason', 'Kind', 'Label'],
  ALL_REASONS.map(({ sentence, kind, label }) => [
    cell(sentence),
    code(kind),
    label === sentence ? 'the reason' : cell(label),
  ]),
)}

## Events and conditions

Of nodes, pods and GPUPolicies, written by the reconciler. A stage's failure is the condition's reason
\`<Stage>Failed<Reason>\`.

${keyed(
  all.flatMap(({ events }) => events),
  'Reason',
)}

## Webhook

What the author of a pod reads as a refusal or a warning, and what the annotation \`gpu-gate.dev/injection\` records as left out.

${keyed(
  all.flatMap(({ warnings }) => warnings),
  'Kind',
)}

${sections.join('\n\n')}

## Help

${blocks.map((block) => `\`\`\`text\n${block.trimEnd()}\n\`\`\``).join('\n\n')}

## Refusals by the API server

Of the CRD's rules and the chart's admission policies.

${listed(chartTexts(/^ *(?:- )?message: (.*)$/gm, TEMPLATES, 'deploy/chart/crds'))}

## Refusals by the chart

Of \`helm install\` and \`helm upgrade\`, before anything is sent.

${listed(chartTexts(/fail \(?(?:printf )?("(?:[^"\\]|\\.)*")/g, TEMPLATES))}

## Alerts

${listed(chartTexts(/^ *(?:summary|description): (.*)$/gm, `${TEMPLATES}/monitoring.yaml`))}

## Metrics

${table(
  ['Metric', 'Type', 'Labels', 'Help'],
  unique(
    all
      .flatMap(({ metrics }) => metrics)
      .map(({ row: [name, type, labels, help] }) => [code(name), type, labels, cell(help)]),
  ),
)}
`;
}

if (process.argv[1] === import.meta.filename) {
  readArguments(`npm run messages                 rewrites ${PAGE}`, { options: {} });
  writeFileSync(join(ROOT, PAGE), messagesPage());
}
