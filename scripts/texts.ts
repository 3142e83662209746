// Every text that a source file writes for people, read from its syntax tree: what a string says,
// with names in braces for what is filled in, and alternatives in brackets.
import { parseSync } from 'vite';

export interface Node {
  readonly type: string;
  readonly start: number;
  readonly end: number;
  readonly [key: string]: unknown;
}
export const isNode = (value: unknown): value is Node => typeof value === 'object' && value !== null && 'type' in value;
const children = (node: Node): Node[] =>
  Object.values(node).flatMap((value) => (Array.isArray(value) ? value : [value]).filter(isNode));
export function* walk(node: Node): Generator<Node> {
  yield node;
  for (const child of children(node)) yield* walk(child);
}

export interface Source {
  readonly file: string;
  readonly text: string;
  readonly program: Node;
}
export const sourceOf = (file: string, text: string): Source => ({
  file,
  text,
  program: parseSync(file, text).program as unknown as Node,
});

/** Constants in capitals whose value is one string or number, by name: those are written out. */
export type Constants = ReadonlyMap<string, string>;
export function constantsOf(sources: readonly Source[]): Constants {
  const found = new Map<string, string>();
  for (const { program } of sources)
    for (const { type, id, init } of walk(program)) {
      if (type !== 'VariableDeclarator' || !isNode(init) || init.type !== 'Literal' || !/^[A-Z_]+$/.test(nameOf(id)))
        continue;
      const { value } = init;
      if (typeof value === 'string' || typeof value === 'number') found.set(nameOf(id), String(value));
    }
  return found;
}

export const nameOf = (node: unknown): string => (isNode(node) && typeof node['name'] === 'string' ? node['name'] : '');
export const propertyOf = (object: Node, name: string): Node | undefined =>
  (object['properties'] as Node[]).find((p) => nameOf(p['key']) === name)?.['value'] as Node | undefined;

/** The texts that an expression may come to; none if it is not a text. */
export function textsOf(node: unknown, constants: Constants): string[] {
  if (!isNode(node)) return [];
  switch (node.type) {
    case 'Literal':
      return typeof node['value'] === 'string' ? [node['value']] : [];
    case 'TemplateLiteral': {
      const quasis = node['quasis'] as { value: { cooked: string } }[];
      const filled = node['expressions'] as Node[];
      return [
        quasis.map(({ value }, i) => value.cooked + (i < filled.length ? part(filled[i], constants) : '')).join(''),
      ];
    }
    case 'ConditionalExpression':
      return [node['consequent'], node['alternate']].flatMap((one) => textsOf(one, constants));
    case 'BinaryExpression': {
      if (node['operator'] !== '+') return [];
      const [left, right] = [textsOf(node['left'], constants), textsOf(node['right'], constants)];
      if (left.length === 0 && right.length === 0) return [];
      return [part(node['left'], constants) + part(node['right'], constants)];
    }
    case 'LogicalExpression':
      return textsOf(node['right'], constants);
    case 'ParenthesizedExpression':
    case 'TSAsExpression':
      return textsOf(node['expression'], constants);
    case 'ObjectExpression':
      // What is reported, with its times beside it.
      return textsOf(propertyOf(node, 'text'), constants);
    default:
      return [];
  }
}

/** A part of a longer text. */
function part(node: unknown, constants: Constants): string {
  const [first, ...more] =
    node !== undefined && isNode(node) && node.type === 'LogicalExpression' ? [] : textsOf(node, constants);
  if (first === undefined) return constants.get(nameOf(node)) ?? `{${wordFor(node)}}`;
  if (more.length === 0) return first;
  return `[${[first, ...more].filter((one) => one !== '').join('|')}]`;
}

/** What an expression is called where it is filled in. */
function wordFor(node: unknown): string {
  if (!isNode(node)) return '…';
  switch (node.type) {
    case 'Identifier':
      return nameOf(node);
    case 'MemberExpression':
      return node['computed'] === true ? wordFor(node['object']) : nameOf(node['property']);
    case 'ChainExpression':
    case 'ParenthesizedExpression':
    case 'TSNonNullExpression':
    case 'TSAsExpression':
      return wordFor(node['expression']);
    case 'LogicalExpression':
      return wordFor(node['left']);
    case 'CallExpression': {
      const { callee } = node;
      const [given] = node['arguments'] as Node[];
      // What is listed, cut or written out is what counts, not how.
      if (
        isNode(callee) &&
        callee.type === 'MemberExpression' &&
        !/^(JSON|Math|Object)$/.test(nameOf(callee['object']))
      )
        return wordFor(callee['object']);
      return given === undefined ? nameOf(callee) : wordFor(given);
    }
    default:
      return '…';
  }
}

/** A text for people has a space, and a word that is not filled in. */
const isProse = (text: string): boolean =>
  text.trim().includes(' ') && /[a-z]{3}/i.test(text.replaceAll(/\{[^}]*\}/g, ''));

/** Calls that look for a text, or take one for a key, and show it to nobody. */
const LOOKING = new Set(['includes', 'startsWith', 'endsWith', 'split', 'replaceAll', 'names', 'count']);

/** Expressions whose texts are those of their parts. */
const WITHIN = new Set(['ObjectExpression', 'LogicalExpression', 'ParenthesizedExpression', 'TSAsExpression']);

export interface Text {
  /** Where in the file. */
  readonly start: number;
  readonly end: number;
  readonly text: string;
}

/** Every text of a file, the outermost expression of each. */
export function* allTexts({ program }: Source, constants: Constants): Generator<Text> {
  function* visit(node: Node): Generator<Text> {
    const { type } = node;
    if (
      type.startsWith('TS') &&
      type !== 'TSAsExpression' &&
      type !== 'TSSatisfiesExpression' &&
      type !== 'TSNonNullExpression'
    )
      return;
    if (type === 'ImportDeclaration') return;
    const { callee } = node;
    if (type === 'CallExpression' && isNode(callee) && LOOKING.has(nameOf(callee['property']) || nameOf(callee)))
      return yield* visit(callee);
    if (type === 'BinaryExpression' && node['operator'] !== '+') return;
    const texts = WITHIN.has(type) ? [] : textsOf(node, constants).filter(isProse);
    for (const text of texts) yield { start: node.start, end: node.end, text };
    for (const child of children(node)) {
      // A string in a text is in it already; one in what is filled in is a text of its own.
      if (texts.length > 0 && textsOf(child, constants).length > 0) yield* inFilled(child);
      else yield* visit(child);
    }
  }
  function* inFilled(node: Node): Generator<Text> {
    for (const child of children(node))
      if (textsOf(child, constants).length > 0) yield* inFilled(child);
      else yield* visit(child);
  }
  yield* visit(program);
}
