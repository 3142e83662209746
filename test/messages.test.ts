/// <reference types="vite/types/importMeta.d.ts" />
// The page of all texts, and how it finds them: a text that is written anywhere in the product is
// on it, so that nobody writes one that no reader of the page has seen.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { messagesPage, PAGE, PLACES } from '../scripts/messages.ts';
import { COMPONENTS } from '../scripts/pure-files.ts';
import { allTexts, constantsOf, sourceOf } from '../scripts/texts.ts';

// Never loaded: `--changed` runs this test where one of these files has changed.
import.meta.glob('../{core,gate,webhook,extender,explain,reconciler,certs,kubectl,platform,app}/**/*.ts');

const file = join(import.meta.dirname, '..', PAGE);
const page = messagesPage();

it('the page is that of the source; `npm run messages` or GPU_GATE_TEST_UPDATE=1 rewrites it', () => {
  if (process.env['GPU_GATE_TEST_UPDATE'] === '1') writeFileSync(file, page);
  expect(readFileSync(file, 'utf8')).toBe(page);
});

it('every folder of the product is read', () => {
  const read = PLACES.flatMap(([, , places]) => places);
  for (const folder of ['core', 'gate', ...COMPONENTS, 'platform', 'app', 'main.ts']) expect(read).toContain(folder);
});

it.each([
  ['a reason of the extender', '| GPU driver older than the pod requires | `driver-old` |'],
  ['an Event', '| `GPUPodPastGate` |'],
  ['a failure of a stage', '| `ImagePull` |'],
  ['a condition of a GPUPolicy', '| `NodesNotValidated` |'],
  ['a refusal of the webhook', '| `refused` | GPUPolicy'],
  ['a warning of the webhook', '| `warning` |'],
  ['an error of the extender', '| the call is larger than {MAX_BODY} bytes; set nodeCacheCapable: true'],
  ['an error of kubectl gpu-gate', '| name nodes, or give --all;'],
  ['a hint of explain', '| revalidation is automatic;'],
  ['a step of certificates', '| the new CA is trusted everywhere |'],
  ['an error of the start', 'is in use: choose another one with --'],
  ['an admission policy', '| the condition GPUValidated is written by gpu-gate, not by nodes |'],
  ['a rule of the CRD', '| write the name of a namespace, such as team-a |'],
  ['a refusal of the chart', '| webhook.url without webhook.canaryUrl'],
  ['an alert', '| No replica of gpu-gate-reconciler leads |'],
  ['a metric', '| `gpu_gate_verdicts_total` | counter | verdict, reason |'],
])('holds %s', (_, row) => expect(page).toContain(row));

describe('a text is found', () => {
  const found = (text: string): readonly string[] => {
    const source = sourceOf('planted.ts', text);
    return [...allTexts(source, constantsOf([source]))].map((one) => one.text);
  };
  it.each<[what: string, source: string, texts: readonly string[]]>([
    ['in an error', `throw new Error('it is gone')`, ['it is gone']],
    ['in a template', 'say(`node ${node.metadata.name} is gone`)', ['node {name} is gone']],
    [
      'with what a call fills in',
      "say(`gone: ${names.slice(0, 3).join(', ')} and ${Math.round(more)}`)",
      ['gone: {names} and {more}'],
    ],
    ['with a constant', "const KEY = 'a/b'; say(`annotation ${KEY} is malformed`)", ['annotation a/b is malformed']],
    ['with alternatives', "say(`it is ${x ? 'open' : 'closed'}${y ? `, ${y}` : ''}`)", ['it is [open|closed][, {y}]']],
    ['of two', "const why = x ? 'it is open' : 'it is closed'", ['it is open', 'it is closed']],
    ['that is put together', "say('the node is ' + x)", ['the node is {x}']],
    ['behind a default', "say(x ?? 'no reason given')", ['no reason given']],
    [
      'within a text',
      'say(`all: ${list.map((one) => `node ${one} waits`).join()}`)',
      ['all: {list}', 'node {one} waits'],
    ],
    ['as a value', "export const HELP = { text: 'what it does' } as const", ['what it does']],
  ])('%s', (_, source, texts) => expect(found(source)).toEqual(texts));
  it.each([
    ['a key', "map.get('key')"],
    ['a type', "type A = 'of two words'"],
    ['a comparison', "if (x === 'of two words') run()"],
    ['what is looked for', "text.includes('of two words')"],
    ['a pattern of values', 'const stamp = `${ino} ${size}`'],
  ])('and %s is none', (_, source) => expect(found(source)).toEqual([]));
});
