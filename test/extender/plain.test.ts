// Malformed calls are answers, not errors: what is wrong, in one sentence.
import { NO_DEVICES } from '../../gate/devices.ts';
import { describe, expect, it } from 'vitest';
import { plain } from '../../extender/plain.ts';
import type { View } from '../../extender/verbs.ts';
import { NOW } from '../builders/objects.ts';

const view: View = { nodes: new Map(), policies: new Map(), devices: NO_DEVICES, operandNamespace: 'o' };
const nested = `{"Pod":${'['.repeat(2000)}${']'.repeat(2000)},"NodeNames":[]}`;

describe.each([
  ['filter', (body: Buffer) => plain.filter(body, view)],
  ['prioritize', (body: Buffer) => plain.prioritize(body, view, NOW)],
  ['preempt', (body: Buffer) => plain.preempt(body, view)],
])('%s', (verb, answer) => {
  it.each([
    ['what is not JSON', '{', 'the body is not JSON: only a kube-scheduler should call this'],
    ['what nests deep', nested, 'the body nests deeper than 1000'],
    [
      'what is not a call',
      '[]',
      verb === 'preempt'
        ? 'the body is not an ExtenderPreemptionArgs with a Pod'
        : 'the body is not an ExtenderArgs object: only a kube-scheduler should call this',
    ],
  ])('names %s', (_, body, because) => expect(answer(Buffer.from(body))).toEqual({ ok: false, because }));
});
