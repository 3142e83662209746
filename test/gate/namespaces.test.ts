import { describe, expect, it } from 'vitest';
import { namespaceRule, optsOut } from '../../gate/namespaces.ts';

describe('a namespace', () => {
  it.each([
    ['team', false, 'inject'],
    ['team', true, 'opted-out'],
    ['kube-system', false, 'excluded'],
    ['kube-system', true, 'excluded'],
  ])('%s, opted out %j: %s', (name, optedOut, rule) =>
    expect(namespaceRule(name, optedOut, new Set(['kube-system']))).toBe(rule),
  );
  it.each([
    [undefined, false],
    [null, false],
    [{}, false],
    [{ 'gpu-gate.dev/inject': 'true' }, false],
    [{ 'gpu-gate.dev/inject': 'false' }, true],
  ])('labels %j opt out: %j', (labels, out) => expect(optsOut(labels)).toBe(out));
});
