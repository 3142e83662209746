import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { isEnforcing, parseDuration, parsePolicy, policyFor } from '../../core/gpu-policy.ts';
import { aPolicy } from '../builders/objects.ts';

describe('durations', () => {
  it.each([
    ['5m', 300_000],
    ['1h30m', 5_400_000],
    ['500ms', 500],
    ['1.5s', 1500],
    ['0s', 0],
    ['0', 0],
  ])('%s is %d ms', (text, ms) => expect(parseDuration(text)).toBe(ms));
  it.each(['', '5', 'm', '-1s', '5 m', '1d'])('%j is none', (text) => expect(parseDuration(text)).toBeUndefined());
});

describe('a GPUPolicy', () => {
  it('enforces when it has begun to, unless suspended', () => {
    expect(isEnforcing(aPolicy())).toBe(true);
    expect(isEnforcing(aPolicy({ suspend: true }))).toBe(false);
    expect(isEnforcing(aPolicy({}, { status: {} }))).toBe(false);
  });
  it.each([
    [5, '5'],
    ['5', '5'],
    ['20%', '20%'],
    [undefined, '10%'],
  ])('takes bringUp.maxConcurrent %j for %s', (maxConcurrent, expected) =>
    expect(aPolicy({ bringUp: { maxConcurrent } }).spec.bringUp.maxConcurrent).toBe(expected),
  );
  it('of two that select a node the older has it', () => {
    const older = aPolicy({}, { metadata: { name: 'b', creationTimestamp: '2026-01-01T00:00:00Z' } });
    const younger = aPolicy(
      { nodeSelector: { pool: 'x' } },
      { metadata: { name: 'a', creationTimestamp: '2026-02-01T00:00:00Z' } },
    );
    expect(policyFor({ pool: 'x' }, [younger, older])?.name).toBe('b');
    expect(policyFor({}, [younger])).toBeUndefined();
  });
  it('has the defaults that the CRD shows', () => {
    interface Schema {
      default?: unknown;
      properties?: Record<string, Schema>;
    }
    const crd = parse(readFileSync(join(import.meta.dirname, '../../deploy/chart/crds/gpupolicies.yaml'), 'utf8')) as {
      spec: { versions: { schema: { openAPIV3Schema: { properties: { spec: Schema } } } }[] };
    };
    const filled = (schema: Schema | undefined): unknown =>
      schema?.properties === undefined
        ? schema?.default
        : Object.fromEntries(
            Object.entries(schema.properties).flatMap(([key, inner]) =>
              key === 'podSelector' || filled(inner) === undefined ? [] : [[key, filled(inner)]],
            ),
          );
    const fromCrd = parsePolicy({
      metadata: { name: 'x' },
      spec: filled(crd.spec.versions[0]?.schema.openAPIV3Schema.properties.spec),
    });
    expect(fromCrd.spec).toEqual(parsePolicy({ metadata: { name: 'x' }, spec: {} }).spec);
  });
});
