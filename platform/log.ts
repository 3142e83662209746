// Logs: one JSON object a line, a constant sentence plus fields. Every text is bounded and made
// printable, and private keys and tokens are taken out of it, each in one pass over the text.

export type LogFields = Readonly<Record<string, unknown>>;
export type LogLevel = 'debug' | 'info' | 'error';

export interface Log {
  debug(msg: string, fields?: LogFields): void;
  info(msg: string, fields?: LogFields): void;
  error(msg: string, fields?: LogFields): void;
  /** A log that adds the same fields to every line. */
  with(fields: LogFields): Log;
}

/** Makes foreign text safe to show, in at most `max` characters. */
export type Clean = (text: string, max: number) => string;

const ORDER: Readonly<Record<LogLevel, number>> = { debug: 0, info: 1, error: 2 };
/** Longest text of a field, in characters. */
const LONGEST_TEXT = 2048;
/** Longest line, in characters: a field may hold many texts. */
const LONGEST_LINE = 16_384;
const REDACTED = '[redacted]';

const cut: Clean = (text, max) => (text.length <= max ? text : `${text.slice(0, max - 1)}…`);

/** Index of the first character from `at` on that is not of `kind`. */
const runEnd = (text: string, at: number, kind: RegExp): number => {
  let end = at;
  while (end < text.length && kind.test(text.charAt(end))) end += 1;
  return end;
};

/**
 * A kind of secret: where one may begin, and where that one ends, or `undefined` if it is not one.
 */
interface Secret {
  readonly mark: string;
  readonly end: (text: string, at: number) => number | undefined;
}
const BASE64 = /[\w+/=-]/;
const TOKEN = /[\w.~+/=-]/;
const JWT = /[\w.-]/;
const PEM_END = '-----END ';
/** Longest name of a kind of key, such as `ENCRYPTED PRIVATE KEY`. */
const PEM_NAME = 40;
const SECRETS: readonly Secret[] = [
  {
    mark: '-----BEGIN ',
    end(text, at) {
      const name = text.slice(at, at + PEM_NAME);
      if (!name.includes('PRIVATE KEY-----')) return undefined;
      const end = text.indexOf(PEM_END, at);
      // A key that was cut short goes to the end of the text.
      const dashes = end < 0 ? -1 : text.indexOf('-----', end + PEM_END.length);
      return dashes < 0 ? text.length : dashes + 5;
    },
  },
  // The same in base64, as Secrets carry it. Certificates begin alike and go with it.
  { mark: 'LS0tLS1CRUdJTi', end: (text, at) => runEnd(text, at, BASE64) },
  { mark: 'Bearer ', end: (text, at) => runEnd(text, at, TOKEN) },
  {
    mark: 'eyJ',
    end(text, at) {
      const end = runEnd(text, at, JWT);
      const isWhole = text.slice(at, end).split('.', 3).length === 3;
      // A long one may have lost its last part where the text was cut.
      return isWhole || end - at > 512 ? end : undefined;
    },
  },
];

/** `text` without secrets of one kind. What was looked at is not looked at again. */
function without(text: string, { mark, end }: Secret): string {
  let kept = '';
  let done = 0;
  for (let at = text.indexOf(mark); at >= 0; at = text.indexOf(mark, done)) {
    const from = at + mark.length;
    const stop = end(text, from);
    // Not a secret: nothing up to the end of this run of characters begins one.
    const next = stop ?? Math.max(from, runEnd(text, from, JWT));
    kept += stop === undefined ? text.slice(done, next) : text.slice(done, at) + REDACTED;
    done = next;
  }
  return kept + text.slice(done);
}

/** Text without private keys, bearer tokens or JWTs. */
const redact = (text: string): string => SECRETS.reduce(without, text);

/** An error's message with those of its causes. It may quote what the error is about. */
export function explainError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  // Node's error has no message if a name has several addresses and none of them answered.
  const message =
    error instanceof AggregateError && error.message === '' ? error.errors.map(explainError).join(', ') : error.message;
  return error.cause === undefined ? message : `${message}: ${explainError(error.cause)}`;
}

/**
 * An error without its message: name, code and the place in the program that threw it. For errors
 * that may quote a caller's data, such as the body of a request.
 */
export function errorPlace(error: unknown): string {
  if (!(error instanceof Error)) return `a thrown ${typeof error}`;
  const { name, message, stack = '', code } = error as NodeJS.ErrnoException;
  // The stack repeats the message, whose lines may look like frames.
  const head = stack.indexOf(message);
  const frame = stack
    .slice(head < 0 ? stack.length : head + message.length)
    .split('\n', 2)
    .at(-1)
    ?.trim();
  const known = code === undefined ? '' : ` ${code}`;
  return `${cut(name, 40)}${cut(known, 40)}${frame?.startsWith('at ') === true ? ` ${cut(frame, 300)}` : ''}`;
}

/**
 * A Log that writes JSON lines of at least `level`; `clean` makes every text of a field printable.
 */
export function jsonLog(
  level: LogLevel,
  write: (line: string) => void,
  common: LogFields = {},
  clean: Clean = cut,
): Log {
  const shown = (value: unknown): unknown => {
    const text = value instanceof Error ? explainError(value) : value;
    // Twice the length is looked through: a secret must not escape by being cut in its middle.
    return typeof text === 'string' ? clean(redact(cut(text, 2 * LONGEST_TEXT)), LONGEST_TEXT) : text;
  };
  const at =
    (of: LogLevel) =>
    (msg: string, fields: LogFields = {}): void => {
      if (ORDER[of] < ORDER[level]) return;
      const head = { time: new Date().toISOString(), level: of, msg };
      // Each text by itself: a key that was cut short must not take the rest of the line with it.
      const line = JSON.stringify({ ...head, ...common, ...fields }, (_, value: unknown) => shown(value));
      write(line.length <= LONGEST_LINE ? line : JSON.stringify({ ...head, cut: shown(line) }));
    };
  return {
    debug: at('debug'),
    info: at('info'),
    error: at('error'),
    with: (fields) => jsonLog(level, write, { ...common, ...fields }, clean),
  };
}
