// The page of every message that users and operators read, docs/reference/messages.md: the gate's
// reasons from their table, all others from where the product's source writes them. Rewrite it with
// `npm run messages`; a test holds it to the source.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseSync } from 'vite';
import { ALL_REASONS } from '../gate/reasons.ts';
import { readArguments } from './arguments.ts';

const ROOT = join(import.meta.dirname, '..');
export const PAGE = 'docs/reference/messages.md';

interface Node {
  readonly type: string;
  readonly start: number;
  readonly end: number;
  readonly [key: string]: unknown;
}
const isNode = (value: unknown): value is Node => typeof value === 'object' && value !== null && 'type' in value;
const children = (node: Node): Node[] =>
  Object.values(node).flatMap((value) => (Array.isArray(value) ? value : [value]).filter(isNode));
function* walk(node: Node): Generator<Node> {
  yield node;
  for (const child of children(node)) yield* walk(child);
}

interface Source {
  readonly file: string;
  readonly text: string;
  readonly program: Node;
}
/** The product's files of one folder, in the order of their names. */
const sourcesIn = (folder: string): Source[] =>
  readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .toSorted()
    .map((name) => {
      const file = `${folder}/${name.replaceAll('\\', '/')}`;
      const text = readFileSync(join(ROOT, file), 'utf8');
      return { file, text, program: parseSync(file, text).program as unknown as Node };
    });

/** Texts that an expression may come to; what it fills in stands in braces. */
function textsOf(node: Node | undefined, source: string): string[] {
  if (node === undefined) return [];
  switch (node.type) {
    case 'Literal':
      return typeof node['value'] === 'string' ? [node['value']] : [];
    case 'TemplateLiteral': {
      const quasis = node['quasis'] as { value: { cooked: string } }[];
      const filled = node['expressions'] as Node[];
      return [
        quasis
          .map(({ value }, i) => value.cooked + (filled[i] === undefined ? '' : placeholder(filled[i], source)))
          .join(''),
      ];
    }
    case 'ConditionalExpression':
      return [...textsOf(node['consequent'] as Node, source), ...textsOf(node['alternate'] as Node, source)];
    case 'BinaryExpression':
      return textsOf(node['left'] as Node, source).flatMap((left) => {
        const right = textsOf(node['right'] as Node, source);
        return node['operator'] !== '+' ? [] : right.length === 0 ? [`${left}{…}`] : right.map((one) => left + one);
      });
    case 'ParenthesizedExpression':
      return textsOf(node['expression'] as Node, source);
    case 'ObjectExpression':
      // What is said, with its times beside it.
      return textsOf(propertyOf(node, 'text'), source);
    default:
      return [];
  }
}
const placeholder = (node: Node, source: string): string => {
  const name = /^(?:[\w$]+\??\.)*([\w$]+)$/.exec(source.slice(node.start, node.end))?.[1];
  return `{${name ?? '…'}}`;
};
const propertyOf = (object: Node, name: string): Node | undefined =>
  (object['properties'] as Node[]).find((p) => isNode(p['key']) && p['key']['name'] === name)?.['value'] as
    | Node
    | undefined;

interface Message {
  readonly reason: string;
  readonly text: string;
}
const CAMEL = /^[A-Z][A-Za-z]+$/;

/**
 * Objects with a reason and a sentence beside it, and calls that are given both one after the
 * other.
 */
function* messagesOf({ program, text }: Source): Generator<Message> {
  for (const node of walk(program)) {
    if (node.type === 'ObjectExpression') {
      const sentence = ['message', 'said', 'because']
        .map((name) => propertyOf(node, name))
        .find((one) => one !== undefined);
      for (const reason of textsOf(propertyOf(node, 'reason'), text))
        if (CAMEL.test(reason)) for (const one of textsOf(sentence, text)) yield { reason, text: one };
    }
    if (node.type !== 'CallExpression') continue;
    const given = node['arguments'] as Node[];
    for (const [i, argument] of given.entries())
      for (const reason of textsOf(argument, text))
        if (CAMEL.test(reason))
          for (const one of textsOf(given[i + 1], text)) if (one.includes(' ')) yield { reason, text: one };
  }
}

const nameOf = (node: unknown): string => (isNode(node) && typeof node['name'] === 'string' ? node['name'] : '');
const calleeOf = (node: Node): string => nameOf(node['callee']);

/**
 * What the webhook says of a pod: why it leaves or refuses it, what it leaves out, and what it
 * warns of.
 */
function* webhookMessagesOf({ program, text }: Source): Generator<Message> {
  const KINDS: Readonly<Record<string, readonly string[]>> = {
    refuse: ['', 'refused'],
    leave: ['', 'warning', 'warning'],
    skip: ['', '', 'left out', 'warning'],
    warn: ['', 'warning'],
  };
  for (const node of walk(program)) {
    if (node.type !== 'CallExpression') continue;
    const kinds = KINDS[calleeOf(node)];
    for (const [i, argument] of (node['arguments'] as Node[]).entries())
      for (const one of textsOf(argument, text)) {
        const kind = kinds?.[i] ?? '';
        if (kind !== '' && one.includes(' ')) yield { reason: kind, text: one };
      }
  }
}

interface Metric {
  readonly name: string;
  readonly type: string;
  readonly labels: string;
  readonly help: string;
}
/** Value of a constant of the file, or the text itself. */
function nameIn(program: Node, node: Node | undefined, source: string): string {
  if (node?.type !== 'Identifier') return textsOf(node, source)[0] ?? '';
  for (const one of walk(program))
    if (one.type === 'VariableDeclarator' && isNode(one['id']) && one['id']['name'] === node['name'])
      return textsOf(one['init'] as Node, source)[0] ?? '';
  return '';
}

const labelsOf = (list: Node | undefined, source: string): string =>
  (list?.type === 'ArrayExpression' ? (list['elements'] as Node[]) : [])
    .flatMap((one) => textsOf(one, source))
    .join(', ');

function* metricsOf({ program, text }: Source): Generator<Metric> {
  for (const node of walk(program)) {
    const given = (node['arguments'] as Node[] | undefined) ?? [];
    const type = calleeOf(node);
    if (node.type === 'NewExpression' && ['Counter', 'Gauge', 'Histogram'].includes(type)) {
      const [options] = given;
      if (options?.type !== 'ObjectExpression') continue;
      const name = nameIn(program, propertyOf(options, 'name'), text);
      const help = textsOf(propertyOf(options, 'help'), text)[0] ?? '';
      // A name that is filled in belongs to a helper, whose calls follow.
      if (!name.includes('{'))
        yield { name, type: type.toLowerCase(), labels: labelsOf(propertyOf(options, 'labelNames'), text), help };
    }
    if (node.type !== 'CallExpression' || type !== 'gauge') continue;
    const [name = '', help = ''] = given.map((one) => textsOf(one, text)[0] ?? '');
    yield { name: `gpu_gate_${name}`, type, labels: labelsOf(given[2], text), help };
  }
}

const cell = (text: string): string => text.replaceAll('|', String.raw`\|`).replaceAll('\n', ' ');
const code = (text: string): string => (text === '' ? '' : `\`${cell(text)}\``);
const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [head, head.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n');
const unique = (rows: readonly (readonly string[])[]): readonly (readonly string[])[] =>
  [...new Map(rows.map((row) => [row.join('\n'), row])).values()].toSorted((a, b) =>
    a.join('\n') < b.join('\n') ? -1 : 1,
  );
const messageTable = (messages: Iterable<Message>, what: string): string =>
  table([what, 'Text'], unique([...messages].map(({ reason, text }) => [code(reason), cell(text)])));

/** The whole page. */
export function messagesPage(): string {
  const reconciler = sourcesIn('reconciler');
  const webhook = sourcesIn('webhook');
  const all = [
    ...webhook,
    ...sourcesIn('extender'),
    ...reconciler,
    ...sourcesIn('certs'),
    ...sourcesIn('app'),
    ...sourcesIn('platform'),
  ];
  return `# Messages

Generated from the source by \`npm run messages\`. Names in braces are filled in.

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

${messageTable(
  reconciler.flatMap((source) => [...messagesOf(source)]),
  'Reason',
)}

## Webhook

What the author of a pod reads as a refusal or a warning, and what the annotation \`gpu-gate.dev/injection\` records as left out.

${messageTable(
  webhook.flatMap((source) => [...webhookMessagesOf(source)]),
  'Kind',
)}

## Metrics

${table(
  ['Metric', 'Type', 'Labels', 'Help'],
  unique(
    all
      .flatMap((source) => [...metricsOf(source)])
      .map(({ name, type, labels, help }) => [code(name), type, labels, cell(help)]),
  ),
)}
`;
}

if (process.argv[1] === import.meta.filename) {
  readArguments(`npm run messages                 rewrites ${PAGE}`, { options: {} });
  writeFileSync(join(ROOT, PAGE), messagesPage());
}
