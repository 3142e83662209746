// NVIDIA_REQUIRE_CUDA and its like, read and judged as the container toolkit documents them: a
// space is OR, a comma AND, and all variables of that prefix must hold. Authors write the text and
// the gate compares it with nodes, so its size is bounded here.
import { isObject } from '../core/raw.ts';
import { compareVersions } from './versions.ts';

interface Limit {
  readonly what: 'cuda' | 'driver';
  readonly operator: string;
  readonly version: string;
}

/** What one variable requires: one of the alternatives must hold, in it all limits. Never empty. */
export type CudaRequirement = readonly (readonly Limit[])[];

/** Versions that a node brings, `undefined` where they are not known. */
export interface Versions {
  readonly driver: string | undefined;
  readonly cuda: string | undefined;
}

/**
 * One variable of a container, as it was written; `text` is `undefined` if it is too long to be
 * judged.
 */
export interface RequireVariable {
  readonly name: string;
  readonly text: string | undefined;
}

/** A part of a variable that is not judged, and why. */
export interface Unjudged {
  readonly name: string;
  /** Quotes the author's text. */
  readonly because: string;
}

/** NVIDIA's images come with some 2,500 characters and 60 alternatives. */
export const MAX_TEXT = 16 * 1024;
export const MAX_ALTERNATIVES = 256;
/** Characters of all different texts of one pod. */
export const MAX_TEXTS = 64 * 1024;
/** So many parts that are not judged are named. */
const MAX_UNJUDGED = 20;

const PREFIX = 'NVIDIA_REQUIRE_';
/** The toolkit reads it for Jetson boards alone. */
const JETPACK = 'NVIDIA_REQUIRE_JETPACK';
const DISABLE = 'NVIDIA_DISABLE_REQUIRE';

/**
 * The variables of one container that the toolkit would judge. An image may carry more of them,
 * which cannot be seen before it runs.
 */
export function requireVariables(env: unknown): readonly RequireVariable[] {
  if (!Array.isArray(env)) return [];
  const values = new Map<string, string>();
  for (const variable of env) {
    if (!isObject(variable)) continue;
    const { name, value } = variable;
    if (typeof name !== 'string' || (name !== DISABLE && !name.startsWith(PREFIX))) continue;
    // The last of several wins, also where its value is not in the pod.
    values.set(name, typeof value === 'string' ? value : '');
  }
  if (/^(true|t|1)$/i.test(values.get(DISABLE)?.slice(0, 8) ?? '')) return [];
  return [...values].flatMap(([name, value]) =>
    name === DISABLE || name.startsWith(JETPACK) || value.trim() === ''
      ? []
      : [{ name, text: value.length > MAX_TEXT ? undefined : value }],
  );
}

/** `unread`: alternatives that are not judged, because something in them cannot be read. */
export function parseRequireCuda(text: string): { readonly requirement: CudaRequirement; readonly unread: string[] } {
  const unread: string[] = [];
  const requirement = text
    .split(/\s+/)
    .filter((alternative) => alternative !== '')
    .flatMap((alternative) => {
      const limits = alternative.split(',').map(limitOf);
      if (!limits.includes('unreadable')) return [limits.filter((limit) => typeof limit === 'object')];
      // Drop the whole alternative. Keeping it without the unreadable limit would make it hold
      // always and mask the other alternatives.
      unread.push(alternative);
      return [];
    });
  return { requirement, unread };
}

const limitOf = (text: string): Limit | 'not ours' | 'unreadable' => {
  // Brand and architecture are the toolkit's to check.
  if (/^(brand|arch)(>=|<=|!=|=|>|<)[^=<>!]+$/.test(text)) return 'not ours';
  const match = /^(cuda|driver)(>=|<=|!=|=|>|<)(\d{1,5}(?:\.\d{1,5})*)$/.exec(text);
  return match === null
    ? 'unreadable'
    : { what: match[1] as 'cuda' | 'driver', operator: match[2] ?? '', version: match[3] ?? '' };
};

/** What a pod's variables require together, each text once, within the bounds. */
export function requirementsOf(variables: Iterable<RequireVariable>): {
  readonly requirements: readonly CudaRequirement[];
  readonly unjudged: readonly Unjudged[];
} {
  const seen = new Set<string>();
  const requirements: CudaRequirement[] = [];
  const unjudged: Unjudged[] = [];
  let characters = 0;
  const leave = (name: string, because: string): void => {
    if (unjudged.length < MAX_UNJUDGED) unjudged.push({ name, because });
  };
  for (const { name, text } of variables) {
    if (text === undefined) {
      leave(name, `is longer than ${MAX_TEXT} characters and is not judged`);
      continue;
    }
    if (seen.has(text)) continue;
    if (characters + text.length > MAX_TEXTS) {
      leave(name, `is not judged: the pod's variables of that kind have more than ${MAX_TEXTS} characters`);
      continue;
    }
    characters += text.length;
    seen.add(text);
    const { requirement, unread } = parseRequireCuda(text);
    if (requirement.length + unread.length > MAX_ALTERNATIVES) {
      leave(name, `has more than ${MAX_ALTERNATIVES} alternatives and is not judged`);
      continue;
    }
    for (const part of unread)
      leave(name, `${JSON.stringify(cut(part))} cannot be read and is not judged; write one such as "cuda>=12.4"`);
    if (requirement.length > 0) requirements.push(requirement);
  }
  return { requirements, unjudged };
}

const cut = (text: string): string => (text.length > 80 ? `${text.slice(0, 80)}…` : text);

/** Does the node meet every requirement? */
export function meets(requirements: readonly CudaRequirement[], node: Versions): boolean {
  return requirements.every((alternatives) =>
    alternatives.some((limits) => limits.every((limit) => holds(limit, node))),
  );
}

/** An unknown version cannot be held against the pod: the toolkit checks it again at start. */
function holds({ what, operator, version }: Limit, node: Versions): boolean {
  const present = node[what];
  if (present === undefined) return true;
  const comparison = compareVersions(present, version);
  switch (operator) {
    case '>=':
      return comparison >= 0;
    case '<=':
      return comparison <= 0;
    case '>':
      return comparison > 0;
    case '<':
      return comparison < 0;
    case '=':
      return comparison === 0;
    default:
      return comparison !== 0;
  }
}
