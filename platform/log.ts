// Logs: one JSON object a line, a constant sentence plus fields. Whatever looks like a private key or a token is taken out.

export type LogFields = Readonly<Record<string, unknown>>;
export type LogLevel = 'debug' | 'info' | 'error';

export interface Log {
  debug(msg: string, fields?: LogFields): void;
  info(msg: string, fields?: LogFields): void;
  error(msg: string, fields?: LogFields): void;
  /** A log that adds the same fields to every line. */
  with(fields: LogFields): Log;
}

const ORDER: Readonly<Record<LogLevel, number>> = { debug: 0, info: 1, error: 2 };
const SECRETS = [
  /-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(-----END [A-Z ]*PRIVATE KEY-----|$)/g,
  // The same in base64, as Secrets carry it; certificates begin alike and go with it.
  /LS0tLS1CRUdJTi[\w+/=-]*/g,
  /Bearer [\w.~+/=-]+/g,
  /eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]+/g,
];

/** Text without private keys, bearer tokens or JWTs. */
const redact = (text: string): string => SECRETS.reduce((kept, pattern) => kept.replace(pattern, '[redacted]'), text);

/** An error's message with those of its causes. */
export function explainError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  // Node gives one without a message where a name has several addresses and none of them answered.
  const message =
    error instanceof AggregateError && error.message === '' ? error.errors.map(explainError).join(', ') : error.message;
  return error.cause === undefined ? message : `${message}: ${explainError(error.cause)}`;
}

/** A Log that writes JSON lines of at least `level`. */
export function jsonLog(level: LogLevel, write: (line: string) => void, common: LogFields = {}): Log {
  const at =
    (of: LogLevel) =>
    (msg: string, fields: LogFields = {}): void => {
      if (ORDER[of] < ORDER[level]) return;
      const line = { time: new Date().toISOString(), level: of, msg, ...common, ...fields };
      // Each text by itself: a key that was cut short must not take the rest of the line with it.
      write(
        JSON.stringify(line, (_, value: unknown) => {
          const told = value instanceof Error ? explainError(value) : value;
          return typeof told === 'string' ? redact(told) : told;
        }),
      );
    };
  return {
    debug: at('debug'),
    info: at('info'),
    error: at('error'),
    with: (fields) => jsonLog(level, write, { ...common, ...fields }),
  };
}
