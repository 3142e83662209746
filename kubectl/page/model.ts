// What the status page shows, as values: updates and what the user chose → rows. Pure: no DOM.
import { stateOrder, type Fleet, type NodeReport } from '../fleet.ts';
import type { Update } from '../updates.ts';

export type NodeState = NodeReport['state'];

/** All that the page knows. */
export interface Known {
  /** When it was read, RFC 3339; empty before the first update. */
  readonly at: string;
  readonly nodes: ReadonlyMap<string, NodeReport>;
  readonly rest: Omit<Fleet, 'nodes'>;
}

export const NOTHING: Known = {
  at: '',
  nodes: new Map(),
  rest: { policies: [], byState: {}, usual: {}, waiting: [], deployments: [], unread: [], problems: [] },
};

export function updated(known: Known, { at, whole, nodes, gone, rest }: Update): Known {
  if (whole) return { at, nodes: new Map(nodes.map((node) => [node.name, node])), rest };
  if (nodes.length === 0 && gone.length === 0) return { at, nodes: known.nodes, rest };
  const next = new Map(known.nodes);
  for (const name of gone) next.delete(name);
  for (const node of nodes) next.set(node.name, node);
  return { at, nodes: next, rest };
}

export type Tone = 'good' | 'busy' | 'bad' | 'quiet';

/** How a node stands, for its colour; the words beside it say the same. */
export const toneOf = ({ open, state }: NodeReport): Tone =>
  open ? 'good' : state === 'failed' ? 'bad' : state === 'unmanaged' ? 'quiet' : 'busy';

export interface Choice {
  /** Words that all occur in a node's name, policy, state, reason, message or driver. */
  readonly search: string;
  /** Empty: every state. */
  readonly states: ReadonlySet<NodeState>;
}

const textOf = ({ name, policy, state, reason, message, proof }: NodeReport): string =>
  [name, policy, state, reason, message, proof?.driver ?? ''].join('\n').toLowerCase();

const worst: Readonly<Record<Tone, number>> = { bad: 0, busy: 1, good: 2, quiet: 3 };
const byName = new Intl.Collator('en', { numeric: true }).compare;

/** Nodes of the choice: those that failed first, then those on their way, then by name. */
export function chosen(nodes: Iterable<NodeReport>, { search, states }: Choice): readonly NodeReport[] {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  return [...nodes]
    .filter((node) => states.size === 0 || states.has(node.state))
    .filter((node) => words.every((word) => textOf(node).includes(word)))
    .toSorted((a, b) => worst[toneOf(a)] - worst[toneOf(b)] || byName(a.name, b.name));
}

export interface StateCount {
  readonly state: NodeState;
  readonly count: number;
}

/** In the order of the walk. */
export const stateCounts = (byState: Fleet['byState']): readonly StateCount[] =>
  (Object.entries(byState) as [NodeState, number][])
    .map(([state, count]) => ({ state, count }))
    .toSorted((a, b) => stateOrder(a.state) - stateOrder(b.state));

/** Which of many rows of equal height are drawn: those in sight and some on each side. */
export function inSight(
  count: number,
  rowHeight: number,
  scrolled: number,
  height: number,
): { readonly from: number; readonly to: number } {
  const spare = 10;
  const from = Math.min(count, Math.max(0, Math.floor(scrolled / rowHeight) - spare));
  return { from, to: Math.min(count, Math.ceil((scrolled + height) / rowHeight) + spare) };
}

export const plural = (count: number, one: string, many = `${one}s`): string => `${count} ${count === 1 ? one : many}`;

/** The sentence at the top of the page. */
export function headline({ nodes, rest: { waiting, problems } }: Known): string {
  const managed = [...nodes.values()].filter(({ state }) => state !== 'unmanaged');
  const open = managed.filter((node) => node.open).length;
  return [
    problems.length === 0 ? 'no problem' : plural(problems.length, 'problem'),
    `${open} of ${plural(managed.length, 'GPU node')} open`,
    plural(waiting.length, 'pod waits', 'pods wait'),
  ].join(', ');
}

export interface Used {
  readonly used: number;
  readonly offered: number;
}
export const gpusOf = ({ gpus }: NodeReport): Used => ({
  used: gpus.reduce((sum, { used }) => sum + used, 0),
  offered: gpus.reduce((sum, { offered }) => sum + offered, 0),
});

/** What a row says in its last column, as `kubectl gpu-gate nodes` does. */
export const whatOf = (node: NodeReport): string =>
  node.open ? '' : node.state === 'unmanaged' || node.message === '' ? node.reason : node.message;

/** Pixels of a square of the overview, so that all of them fit below each other in 180. */
export function squareSize(count: number, width: number): number {
  const fits = (size: number): boolean => Math.ceil(count / columnsOf(width, size)) * size <= 180;
  return [11, 9, 7, 6, 5, 4].find(fits) ?? 3;
}
export const columnsOf = (width: number, size: number): number => Math.max(1, Math.floor(width / size));

/** The place of a square of the overview, in squares. */
export const squareAt = (index: number, columns: number): { readonly x: number; readonly y: number } => ({
  x: index % columns,
  y: Math.floor(index / columns),
});

/** The square at a point of the overview, in pixels; `undefined` outside. */
export function squareOf(x: number, y: number, size: number, columns: number, count: number): number | undefined {
  const column = Math.floor(x / size);
  const index = Math.floor(y / size) * columns + column;
  return column >= 0 && column < columns && index >= 0 && index < count ? index : undefined;
}
