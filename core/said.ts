// What is said of a node, with the times beside the sentence: conditions show them, Events and
// groups of nodes leave them out, and nobody parses a sentence to get rid of them.
import { isObject } from './raw.ts';

export interface Said {
  /** One sentence without a time, the same for as long as the situation is. */
  readonly text: string;
  /** RFC 3339, since when. */
  readonly at?: string;
  /** RFC 3339, when it is tried again by itself. */
  readonly retryAt?: string;
  /** The command that tries it again now. */
  readonly command?: string;
}

/** For a condition: the sentence, since when, and what is next. */
export const withTimes = ({ text, at, retryAt, command }: Said): string =>
  [
    at === undefined ? text : `${text}, since ${at}`,
    ...(retryAt === undefined
      ? []
      : [`retried after ${retryAt}${command === undefined ? '' : `, or now: ${command}`}`]),
  ].join('; ');

/** For an Event or a comparison: the sentence alone. */
export const timeless = ({ text }: Said): string => text;

/** Reads what another process wrote; `undefined` if it is not of this shape. */
export function readSaid(value: unknown): Said | undefined {
  if (!isObject(value) || typeof value['text'] !== 'string') return undefined;
  const optional = (key: 'at' | 'retryAt' | 'command'): Partial<Said> =>
    typeof value[key] === 'string' ? { [key]: value[key] } : {};
  return { text: value['text'], ...optional('at'), ...optional('retryAt'), ...optional('command') };
}
