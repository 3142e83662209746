// What was read → the files of a bundle, each of a bounded size. Pure.
import type { Unread } from '../core/unread.ts';
import { redacted, redactedDeep } from './redact.ts';
import type { Raw } from '../core/raw.ts';

/** Largest file, in characters. Twelve files, so a bundle holds less than 50 MiB unpacked. */
const LARGEST = 4 << 20;

export interface File {
  readonly name: string;
  readonly text: string;
}

export interface Collected {
  /** RFC 3339 */
  readonly at: string;
  /** As `kubectl gpu-gate status` prints it. */
  readonly status: string;
  readonly failed: readonly {
    readonly name: string;
    readonly reason: string;
    readonly message: string;
    readonly next: string;
  }[];
  readonly versions: Raw;
  /** Objects by file name. */
  readonly lists: Readonly<Record<string, readonly unknown[]>>;
  /** Metrics by pod. */
  readonly metrics: Readonly<Record<string, readonly string[]>>;
  readonly unread: readonly Unread[];
}

/** One object a line, as many as there is room for; what is left out is said in the last line. */
function linesOf(objects: readonly unknown[], largest = LARGEST): string {
  const lines: string[] = [];
  let size = 0;
  for (const [i, object] of objects.entries()) {
    const line = JSON.stringify(redactedDeep(object));
    size += line.length + 1;
    if (size > largest) {
      lines.push(JSON.stringify({ leftOut: objects.length - i, because: 'the file would be too large' }));
      break;
    }
    lines.push(line);
  }
  return lines.map((line) => `${line}\n`).join('');
}

/** A metric's line is kept as it is, so that tools read it; its labels hold no secret of a pod. */
function metricsText(lines: readonly string[]): string {
  let size = 0;
  const kept = lines.filter((line) => (size += line.length + 1) <= LARGEST).map(redacted);
  return `${kept.join('\n')}\n`;
}

const summary = ({ at, status, failed, versions, lists, unread }: Collected): string =>
  [
    `gpu-gate support bundle of ${at}`,
    '',
    // Line by line: a redacted text is one line.
    ...status.trimEnd().split('\n').map(redacted),
    '',
    'FAILED NODES, WHY, AND THE NEXT STEP',
    ...(failed.length === 0
      ? ['none']
      : failed.flatMap(({ name, reason, message, next }) => [
          redacted(`${name}: ${reason}`),
          `  ${redacted(message)}`,
          ...(next === '' ? [] : [`  next: ${redacted(next)}`]),
        ])),
    '',
    'VERSIONS',
    ...Object.entries(versions).map(([name, version]) => redacted(`${name}: ${JSON.stringify(version)}`)),
    '',
    'FILES',
    ...Object.entries(lists).map(([name, objects]) => `${name}: ${objects.length}`),
    ...unread.map(({ what, because }) => redacted(`not read: ${what} (${because})`)),
    '',
    'No Secret was read. Variables of users’ pods are left out, and what looks like a secret in a text is replaced by [redacted].',
    '',
  ].join('\n');

/** All files, the summary first. */
export const filesOf = (collected: Collected): readonly File[] => [
  { name: 'summary.txt', text: summary(collected) },
  ...Object.entries(collected.lists).map(([name, objects]) => ({ name, text: linesOf(objects) })),
  ...Object.entries(collected.metrics).map(([pod, lines]) => ({
    name: `metrics/${pod}.txt`,
    text: metricsText(lines),
  })),
];
