// Blocks of the docs, and what of a transcript counts.
import { describe, expect, it } from 'vitest';
import { canonical, sectionsOf, transcriptsIn, withTranscripts } from '../../scripts/transcripts.ts';

const PAGE = 'a\n\n<!-- transcript: one -->\n```\nold\n```\n\n```\nnot one\n```\n<!-- transcript: two -->\n```\n```\n';

it('blocks are found by name and rewritten, and nothing else is', () => {
  expect([...transcriptsIn(PAGE)]).toEqual([
    ['one', 'old\n'],
    ['two', ''],
  ]);
  const page = withTranscripts(PAGE, new Map([['two', '$ x\ny\n']]));
  expect(page).toBe(PAGE.replace('```\n```\n', '```\n$ x\ny\n```\n'));
  expect(withTranscripts(page, new Map())).toBe(page);
});

describe('two runs of one thing are equal', () => {
  it.each([
    ['ages and the columns that they move', 'gpu-1  failed  9s  x', 'gpu-1  failed  12m  x'],
    ['times', 'since 2026-11-28T10:00:00Z (5s)', 'since 2026-11-29T11:00:00.123Z (17s)'],
    ['digests', 'driver-5f3a9c0d1e', 'driver-0123456789'],
    ['names that Kubernetes makes up', 'pod driver-5f3a9c0d1e-x2bcd', 'pod driver-5f3a9c0d1e-zzw7q'],
    ['counts of Events', 'FailedScheduling  5s (x2 over 9s)', 'FailedScheduling  5s'],
    ['the order of lines', 'a\nb', 'b\na'],
  ])('%s', (_, a, b) => expect(canonical(a)).toBe(canonical(b)));
  it.each([
    ['words', 'waiting for driver', 'waiting for toolkit'],
    ['figures', '1/3', '2/3'],
    ['a column', 'a  b  c', 'a  c'],
  ])('but not %s', (_, a, b) => expect(canonical(a)).not.toBe(canonical(b)));
});

it('parts of a description are taken by their heads', () =>
  expect(
    sectionsOf('Name:  a\nLabels:  x\n  y\nConditions:\n  Ready\nSpec:  z\nEvents:\n  E\n', ['Conditions', 'Events']),
  ).toBe('…\nConditions:\n  Ready\n…\nEvents:\n  E\n'));
