// What is reported of an object, with the times beside the text: Events are counted by equal texts
// and carry none, conditions carry all. Nobody has to read a time out of a sentence.

export interface Said {
  /** Carries no time. */
  readonly text: string;
  /** RFC 3339; since when it is so. */
  readonly at?: string;
  /** RFC 3339; when it is tried again without anybody's help. */
  readonly retryAt?: string;
  /** What a person can run so as not to wait for that. */
  readonly command?: string;
}

/** The whole sentence, as a condition shows it. */
export const withTimes = ({ text, at, retryAt, command }: Said): string =>
  [
    text,
    at === undefined ? '' : `, since ${at}`,
    retryAt === undefined ? '' : `; tried again after ${retryAt}`,
    command === undefined ? '' : `${retryAt === undefined ? '; ' : ', or '}now: ${command}`,
  ].join('');
