// What may be a secret is taken out of a text, wherever it stands: a bundle goes to people who have
// no right to it. Pure. It rather takes out too much.
import { printable } from '../core/printable.ts';

const GONE = '[redacted]';
/** Longest text of a bundle, in characters. */
const LONGEST = 2000;

/** A text that ends within its limit is judged whole: no pattern goes over a cut. */
const PATTERNS: readonly (readonly [RegExp, string])[] = [
  // Keys and certificates, also where the end was cut off.
  [/-----BEGIN [A-Z ]{1,40}-----[^-]{0,20000}(?:-----END [A-Z ]{1,40}-----)?/g, GONE],
  // Tokens that are JSON, such as those of ServiceAccounts.
  [/\beyJ[\w-]{8,}(?:\.[\w-]{0,20000}){0,2}/g, GONE],
  // Tokens of well-known services.
  [/\b(?:gh[a-z]_|github_pat_|glpat-|xox[a-z]-|hf_|sk-|nvapi-|AKIA|ASIA|npm_)[\w-]{8,}/g, GONE],
  // HTTP's credentials.
  [/\b(bearer|basic)\s+[\w.~+/=-]{6,}/gi, `$1 ${GONE}`],
  // A user and a password in an address.
  [/:\/\/[^\s/@]{1,512}@/g, `://${GONE}@`],
  // name=value and "name": "value" of a telling name.
  [
    /((?:password|passwd|passphrase|pwd|secret|token|api[-_]?key|access[-_]?key|private[-_]?key|credentials?|authorization|cookie)[\w-]{0,64}["']?\s{0,4}[=:]\s{0,4})(?:"[^"]{1,4000}"|'[^']{1,4000}'|[^\s,;}&"']{1,4000})/gi,
    `$1${GONE}`,
  ],
];

/** Long runs of letters and digits. A digest is of small letters, a key of all kinds. */
const RUN = /[A-Za-z0-9+/_-]{40,}/g;
const isMixed = (run: string): boolean => /\d/.test(run) && /[A-Z]/.test(run) && /[a-z]/.test(run);

/** One line of text without secrets, of bounded length. */
export const redacted = (text: string): string => {
  let line = text.slice(0, 20_000);
  for (const [pattern, replacement] of PATTERNS) line = line.replace(pattern, replacement);
  return printable(
    line.replace(RUN, (run) => (isMixed(run) ? GONE : run)),
    LONGEST,
  );
};

/** Every text of a value, and every key. */
export const redactedDeep = (value: unknown): unknown =>
  typeof value === 'string'
    ? redacted(value)
    : Array.isArray(value)
      ? value.map(redactedDeep)
      : typeof value === 'object' && value !== null
        ? Object.fromEntries(Object.entries(value).map(([key, inner]) => [redacted(key), redactedDeep(inner)]))
        : value;
