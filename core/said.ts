// What is reported of an object, with the times beside the text: Events are counted by equal texts
// and carry none, conditions carry all. Nobody has to read a time out of a sentence.
import { isObject } from './raw.ts';

export interface Said {
  /** Carries no time. */
  readonly text: string;
  /** RFC 3339; since when it is so. */
  readonly at?: string;
  /** RFC 3339; when it is retried by itself. */
  readonly retryAt?: string;
  /** What a person can run so as not to wait for that. */
  readonly command?: string;
}

/** The whole sentence, as a condition shows it. */
export const withTimes = ({ text, at, retryAt, command }: Said): string =>
  [
    text,
    at === undefined ? '' : `, since ${at}`,
    retryAt === undefined ? '' : `; retried after ${retryAt}`,
    command === undefined ? '' : `${retryAt === undefined ? '; ' : ', or '}now: ${command}`,
  ].join('');

/** For an Event or a comparison: the sentence alone. */
export const timeless = ({ text }: Said): string => text;

/** Reads what another process wrote; `undefined` if it is not of this shape. */
export function readSaid(value: unknown): Said | undefined {
  if (!isObject(value) || typeof value['text'] !== 'string') return undefined;
  const optional = (key: 'at' | 'retryAt' | 'command'): Partial<Said> =>
    typeof value[key] === 'string' ? { [key]: value[key] } : {};
  return { text: value['text'], ...optional('at'), ...optional('retryAt'), ...optional('command') };
}
