import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { referencePages } from '../scripts/reference.ts';

const pages = [...referencePages()];
const at = (path: string): string => join(import.meta.dirname, '..', path);

it.each(pages)('%s is what its source states; GPU_GATE_TEST_UPDATE=1 rewrites it', (path, content) => {
  if (process.env['GPU_GATE_TEST_UPDATE'] === '1') writeFileSync(at(path), content);
  expect(readFileSync(at(path), 'utf8')).toBe(content);
});

describe('a page has', () => {
  it.each([
    ['an option', 'options', '| `--webhook-port` | `GPU_GATE_WEBHOOK_PORT` | `8443` | port of /mutate |'],
    ['a key with who writes it', 'keys', '| `gpu-gate.dev/hold` | Node annotation, operator:'],
    [
      'a comment of several lines as one',
      'keys',
      '| `gpu-gate.dev/managed` | Node label, written by the operator: `true` opts the node in; removing it tears',
    ],
    ['a field with its default', 'gpupolicy', '| `validation.timeouts.driver` | string | `"30m"` |'],
    ['a field with its choices', 'gpupolicy', '| `unmanagedNodes` | Auto, '],
    ['a field in a list', 'gpupolicy', '| `injection.driverVolumes[].mountPath` | string |'],
    [
      'a field of what the plugin prints',
      'output',
      '| `usualMs` | `number` | How long that stage usually takes, ms; absent',
    ],
    ['a value with its default', 'values', '| `webhook.failurePolicy` | `"Ignore"` |'],
  ])('%s', (_, name, row) => expect(pages.find(([path]) => path.endsWith(`${name}.md`))?.[1]).toContain(row));
});

it('every value of the chart and every field of a GPUPolicy is described', () => {
  const undescribed = pages
    .filter(([path]) => /values|gpupolicy/.test(path))
    .flatMap(([, content]) => content.split('\n').filter((line) => line.startsWith('| `') && line.endsWith('|  |')));
  expect(undescribed).toEqual([]);
});
