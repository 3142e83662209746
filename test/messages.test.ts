import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { messagesPage, PAGE } from '../scripts/messages.ts';

const file = join(import.meta.dirname, '..', PAGE);
const page = messagesPage();

/** The part of the page under a heading of the second level. */
const section = (text: string, heading: string): string =>
  text.split('\n## ').find((part) => part.startsWith(heading)) ?? '';

it('the page has every reason of the extender; GPU_GATE_TEST_UPDATE=1 rewrites it', () => {
  if (process.env['GPU_GATE_TEST_UPDATE'] === '1') writeFileSync(file, page);
  const heading = 'Why a pod is kept off a node';
  expect(section(page, heading)).not.toBe('');
  expect(section(readFileSync(file, 'utf8'), heading)).toBe(section(page, heading));
});
it.each([
  ['a reason of the extender', '| GPU driver older than the pod requires | `driver-old` |'],
  ['an Event', '| `GPUPodPastGate` |'],
  ['a failure of a stage', '| `ImagePull` |'],
  ['a condition of a GPUPolicy', '| `NodesNotValidated` |'],
  ['a refusal of the webhook', '| `refused` | GPUPolicy'],
  ['a warning of the webhook', '| `warning` |'],
  ['a metric', '| `gpu_gate_verdicts_total` | counter | verdict, reason |'],
])('holds %s', (_, row) => expect(page).toContain(row));
