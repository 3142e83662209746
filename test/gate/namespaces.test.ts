import { describe, expect, it } from 'vitest';
import { namespaceRule, namingRefused, optsOut } from '../../gate/namespaces.ts';
import { aPolicy } from '../builders/objects.ts';

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

describe('naming a policy', () => {
  it.each([
    ['is free where the policy lists no namespace', 'pool', [], true],
    ['is for the namespaces that it lists', 'pool', ['ops', 'team'], true],
    ['is not for others', 'pool', ['ops'], false],
    ['is not asked of a pod that names none', undefined, ['ops'], true],
  ])('%s', (_, named, allowedNamespaces, may) =>
    expect(namingRefused(named, 'team', aPolicy({ allowedNamespaces })) === undefined).toBe(may),
  );
});
