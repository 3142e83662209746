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
  return error.cause === undefined ? error.message : `${error.message}: ${explainError(error.cause)}`;
}

/** A Log that writes JSON lines of at least `level`. */
export function jsonLog(level: LogLevel, write: (line: string) => void, common: LogFields = {}): Log {
  const at =
    (of: LogLevel) =>
    (msg: string, fields: LogFields = {}): void => {
      if (ORDER[of] < ORDER[level]) return;
      const line = { time: new Date().toISOString(), level: of, msg, ...common, ...fields };
      write(
        redact(JSON.stringify(line, (_, value: unknown) => (value instanceof Error ? explainError(value) : value))),
      );
    };
  return {
    debug: at('debug'),
    info: at('info'),
    error: at('error'),
    with: (fields) => jsonLog(level, write, { ...common, ...fields }),
  };
}
