import fc from 'fast-check';
import { applyPatch as independently } from 'rfc6902';
import { expect, it } from 'vitest';
import type { RawPod } from '../../core/gpu-request.ts';
import { decide, type Facts } from '../../webhook/inject.ts';
import { applied } from '../../webhook/patch.ts';
import { aPolicy } from '../support/objects.ts';

const name = fc.oneof(
  fc.string(),
  fc.constantFrom('a/b', 'a~b', '~1', '', '__proto__', 'constructor', 'driver', '日本'),
);
const unknown = fc.dictionary(fc.constantFrom('futureField', 'toString', '__proto__', 'x/y'), fc.jsonValue(), {
  maxKeys: 2,
});
const limits = fc.dictionary(
  fc.constantFrom('nvidia.com/gpu', 'nvidia.com/mig-1g.5gb', 'cpu', 'amd.com/gpu'),
  fc.constantFrom('0', '1', 2, '1k', 'junk'),
  { maxKeys: 3 },
);
const container = fc
  .record(
    {
      name,
      resources: fc.record({ limits }, { requiredKeys: [] }),
      env: fc.array(fc.record({ name: fc.constantFrom('LD_LIBRARY_PATH', 'A'), value: name }), { maxLength: 2 }),
      volumeMounts: fc.array(fc.record({ name, mountPath: fc.constantFrom('/usr/local/nvidia', '/data') }), {
        maxLength: 2,
      }),
    },
    { requiredKeys: ['name'] },
  )
  .chain((base) => unknown.map((extra) => ({ ...extra, ...base })));
const pod = fc
  .record({
    metadata: fc.record(
      {
        name,
        labels: fc.dictionary(name, name, { maxKeys: 3 }),
        annotations: fc.dictionary(name, name, { maxKeys: 3 }),
      },
      { requiredKeys: [] },
    ),
    spec: fc.record(
      {
        containers: fc.array(container, { maxLength: 40 }),
        initContainers: fc.array(container, { maxLength: 5 }),
        volumes: fc.array(fc.record({ name }), { maxLength: 3 }),
        readinessGates: fc.array(fc.record({ conditionType: fc.constantFrom('x/y', 'gpu-gate.dev/node-validated') }), {
          maxLength: 2,
        }),
        runtimeClassName: fc.constantFrom('nvidia', 'kata', ''),
        schedulerName: fc.constantFrom('default-scheduler', 'mine'),
      },
      { requiredKeys: ['containers'] },
    ),
  })
  .chain((base) => unknown.map((extra) => ({ ...extra, ...base })));

const facts: Facts = {
  policies: new Map([
    [
      'default',
      aPolicy({
        injection: {
          schedulerName: 's',
          driverVolumes: [{ name: 'driver', hostPath: '/run/nvidia/driver', mountPath: '/usr/local/nvidia' }],
          env: [{ name: 'LD_LIBRARY_PATH', value: '/x' }],
        },
        resources: ['nvidia.com/gpu', 'nvidia.com/mig-*'],
      }),
    ],
  ]),
  runtimeClasses: new Map([['nvidia', { nodeSelector: {} }]]),
  namespaceLabels: {},
  namespace: 'team',
  excludedNamespaces: new Set(),
};
const ALLOWED =
  /^\/(metadata\/(labels|annotations)(\/gpu-gate\.dev~1(injected|injection))?|spec\/(runtimeClassName|schedulerName|(readinessGates|volumes)(\/-)?|(containers|initContainers)\/\d+\/(env|volumeMounts)(\/-)?))$/;

it(
  '10,000 generated pods: twice equals once, a second implementation agrees, only allowed paths, nothing lost',
  { timeout: 120_000 },
  () => {
    let injected = 0;
    fc.assert(
      fc.property(pod, (raw) => {
        const original = JSON.parse(JSON.stringify(raw)) as RawPod;
        const before = JSON.stringify(original);
        const admission = decide(original, facts);
        if (admission.kind !== 'inject') return;
        injected += 1;
        const once = applied(original, admission.operations);
        expect(JSON.stringify(original)).toBe(before);
        const other = JSON.parse(before) as RawPod;
        expect(
          independently(
            other,
            admission.operations.map((operation) => ({ ...operation, value: structuredClone(operation.value) })),
          ).every((error) => error === null),
        ).toBe(true);
        expect(other).toEqual(once);
        for (const operation of admission.operations) {
          expect(operation.op).toBe('add');
          expect(operation.path).toMatch(ALLOWED);
        }
        const again = decide(once, facts);
        expect(again.kind === 'inject' ? applied(once, again.operations) : once).toEqual(once);
        expect(once).toMatchObject({ ...original, metadata: {}, spec: {} });
        expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
      }),
      { numRuns: 10_000 },
    );
    expect(injected).toBeGreaterThan(2000);
  },
);
