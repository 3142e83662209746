// The last words of a program that ended: what matters of them, as one printable line.
import { printable } from '../../core/printable.ts';

/** Longer text than a kubelet keeps is cut, so that reading it stays cheap. */
const MOST = 4096;
const TELLING =
  /\b(?:errors?|fail(?:ed|ure|s)?|panic|fatal|cannot|can't|could not|couldn't|unable|denied|not found|no such)\b/i;

/**
 * The first line that reports an error or a failure, and the last line; the last alone if none
 * does.
 */
export function lastWords(text: string | undefined): string {
  const lines = (text ?? '')
    .slice(-MOST)
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
  const last = lines.at(-1);
  if (last === undefined) return '';
  const telling = lines.find((line) => TELLING.test(line));
  const shown = telling === undefined || telling === last ? [last] : [telling, last];
  return shown.map((line) => printable(line, 200)).join(' … ');
}
