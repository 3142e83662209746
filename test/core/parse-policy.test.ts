import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { parseDuration, parsePolicy } from '../../core/parse-policy.ts';
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
  it.each(['', '5', 'm', '-1s', '5 m', '1d'])('%j is not a duration', (text) =>
    expect(parseDuration(text)).toBeUndefined(),
  );
});

describe('a GPUPolicy as the API serves it', () => {
  it.each([
    null,
    7,
    'x',
    [],
    { spec: [], metadata: 3 },
    { spec: { injection: { driverVolumes: [null, 7] }, components: 'x' } },
  ])('has every default where it is %j', (raw) => {
    const { spec } = parsePolicy(raw);
    expect({ ...spec, injection: { ...spec.injection, driverVolumes: [] } }).toEqual(aPolicy().spec);
  });
  it('keeps what is written', () => {
    const { spec } = parsePolicy({
      spec: {
        resources: ['nvidia.com/mig-*'],
        components: {
          toolkit: { image: 'r/t', version: 'v1', configPath: '/c', imagePullPolicy: 'Always', enabled: false },
          driver: { mode: 'external', podSelector: { matchLabels: { app: 'd' } }, resources: { limits: {} } },
        },
        validation: { interval: '1h', timeouts: { driver: 'x' } },
        injection: { driverVolumes: [{ name: 'v', hostPath: '/h', mountPath: '/m', readOnly: false }] },
      },
    });
    expect(spec.resources).toEqual(['nvidia.com/mig-*']);
    expect(spec.components.toolkit).toMatchObject({ image: 'r/t', configPath: '/c', enabled: false });
    expect(spec.components.driver).toMatchObject({ podSelector: { matchLabels: { app: 'd' } }, resources: {} });
    expect(spec.validation.interval).toBe(3_600_000);
    expect(spec.validation.timeouts.driver).toBe(30 * 60_000);
    expect(spec.injection.driverVolumes).toEqual([
      { name: 'v', hostPath: '/h', mountPath: '/m', type: 'Directory', readOnly: false },
    ]);
  });
  it.each([
    [5, '5'],
    ['5', '5'],
    ['20%', '20%'],
    [undefined, '10%'],
  ])('takes bringUp.maxConcurrent %j for %s', (maxConcurrent, expected) =>
    expect(aPolicy({ bringUp: { maxConcurrent } }).spec.bringUp.maxConcurrent).toBe(expected),
  );
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
              ['podSelector', 'window'].includes(key) || filled(inner) === undefined ? [] : [[key, filled(inner)]],
            ),
          );
    const fromCrd = parsePolicy({
      metadata: { name: 'x' },
      spec: filled(crd.spec.versions[0]?.schema.openAPIV3Schema.properties.spec),
    });
    expect(fromCrd.spec).toEqual(parsePolicy({ metadata: { name: 'x' }, spec: {} }).spec);
  });
});
