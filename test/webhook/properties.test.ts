// Laws of the injection, over pods that no user would write.
import fc from 'fast-check';
import { posix } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { applyPatch as independently } from 'rfc6902';
import { expect, it } from 'vitest';
import { driverMounts } from '../../core/driver-mounts.ts';
import type { GpuPolicy } from '../../core/gpu-policy.ts';
import { askedOf, gpuKindsOf, requestOf, type RawContainer, type RawPod } from '../../gate/gpu-request.ts';
import type { AddOperation } from '../../webhook/patch.ts';
import { decide, type Facts, type RuntimeClassFacts } from '../../webhook/inject.ts';
import { applied } from '../support/applied.ts';
import { histories } from '../support/histories.ts';
import { DEVICES } from '../builders/devices.ts';
import { aPolicy } from '../builders/objects.ts';

const PODS = histories(3000, 10_000);
const INJECTED = 'gpu-gate.dev/injected';
const INJECTION = 'gpu-gate.dev/injection';

const policies = new Map<string, GpuPolicy>(
  [
    {
      name: 'default',
      injection: {
        schedulerName: 's',
        driverVolumes: [
          { name: 'driver', hostPath: '/run/nvidia/driver', mountPath: '/usr/local/nvidia' },
          { name: 'tools', hostPath: '/opt/tools', mountPath: '/tools/', readOnly: false },
        ],
        env: [
          { name: 'LD_LIBRARY_PATH', value: '/x' },
          { name: '__proto__', value: 'y' },
        ],
      },
    },
    {
      name: 'preset',
      injection: {
        driverVolumesPreset: 'Host',
        runtimeClassName: 'selector',
        tolerations: [{ key: 'nvidia.com/gpu', operator: 'Exists' }],
        claimPods: 'Full',
      },
    },
    { name: 'odd', injection: { driverVolumesPreset: 'GKE', runtimeClassName: 'absent', readinessGate: false } },
    { name: 'shown', injection: { driverVolumesPreset: 'GKE', hideUnrequestedGpus: false } },
  ].map(({ name, injection }) => [
    name,
    aPolicy({ injection, resources: ['nvidia.com/gpu', 'nvidia.com/mig-*'] }, { metadata: { name } }),
  ]),
);
const facts: Facts = {
  policies,
  runtimeClasses: new Map<string, RuntimeClassFacts>([
    ['nvidia', { nodeSelector: {} }],
    ['selector', { nodeSelector: { zone: 'a', constructor: 'c' } }],
  ]),
  devices: DEVICES,
  namespaceLabels: {},
  namespace: 'team',
  excludedNamespaces: new Set(),
};

const name = fc.oneof(
  { weight: 1, arbitrary: fc.string({ maxLength: 8 }) },
  {
    weight: 4,
    arbitrary: fc.constantFrom('a/b', 'a~b', '~1', '', '__proto__', 'constructor', 'driver', 'tools', '日本'),
  },
);
// Made once: what a JSON value holds is not the point, that it stays is.
const odd = fc.constantFrom<unknown>(...fc.sample(fc.jsonValue(), { numRuns: 200, seed: 1 }), null, [], {}, '');
const unknown = fc.dictionary(fc.constantFrom('futureField', 'toString', '__proto__', 'x/y'), odd, { maxKeys: 2 });
/** Adds unknown fields to those it has. */
const withUnknown = <T extends object>(known: fc.Arbitrary<T>): fc.Arbitrary<object> =>
  fc.tuple(unknown, known).map(([extra, base]) => ({ ...extra, ...base }));
const list = <T>(of: fc.Arbitrary<T>, maxLength: number): fc.Arbitrary<T[] | null> =>
  fc.oneof({ weight: 1, arbitrary: fc.constant(null) }, { weight: 6, arbitrary: fc.array(of, { maxLength }) });

const limits = fc.dictionary(
  fc.constantFrom(
    'nvidia.com/gpu',
    'nvidia.com/mig-1g.5gb',
    'cpu',
    'amd.com/gpu',
    'example.com/gpu',
    'deviceclass.resource.kubernetes.io/gpu.nvidia.com',
  ),
  fc.constantFrom('0', '1', 2, '1k', 'junk'),
  { maxKeys: 3 },
);
const path = fc.constantFrom(
  '/usr/local/nvidia',
  '//usr/local/./nvidia/',
  '/usr/local/nvidia/tools',
  '/usr/local',
  '/tools',
  '/data',
  '/usr/lib64/libcuda.so.1',
);
const mount = { name, mountPath: path, readOnly: fc.boolean(), subPath: fc.constantFrom('', 'lib64') };
const container = withUnknown(
  fc.record(
    {
      name,
      resources: withUnknown(
        fc.record(
          { limits, claims: fc.array(fc.record({ name: fc.constantFrom('one', 'two') }), { maxLength: 2 }) },
          { requiredKeys: [] },
        ),
      ),
      env: list(
        withUnknown(
          fc.record({
            name: fc.constantFrom('LD_LIBRARY_PATH', 'A', 'NVIDIA_VISIBLE_DEVICES'),
            value: fc.constantFrom('/x', ''),
          }),
        ),
        2,
      ),
      envFrom: list(fc.constant({ configMapRef: { name: 'c' } }), 1),
      volumeMounts: list(withUnknown(fc.record(mount, { requiredKeys: ['name', 'mountPath'] })), 3),
      volumeDevices: list(fc.record({ name, devicePath: path }), 1),
    },
    { requiredKeys: ['name'] },
  ),
);
const containers = fc.oneof(
  { weight: 30, arbitrary: fc.array(container, { maxLength: 3 }) },
  { weight: 1, arbitrary: fc.array(container, { maxLength: 40, size: 'max' }) },
);
const volume = withUnknown(
  fc.record(
    {
      name: fc.oneof(name, fc.constant('gpu-gate-libcuda-so-1')),
      hostPath: fc.record({
        path: fc.constantFrom('/run/nvidia/driver', '/etc', '/home/kubernetes/bin/nvidia', '/home/kubernetes/bin'),
      }),
    },
    { requiredKeys: ['name'] },
  ),
);
const long = 'x'.repeat(200);
const claim = withUnknown(
  fc.record(
    {
      name: fc.constantFrom('one', 'two'),
      resourceClaimName: fc.constantFrom('gpu', 'fpga', 'late', long),
      resourceClaimTemplateName: fc.constantFrom('gpu', 'fpga', 'late', long),
    },
    { requiredKeys: ['name'] },
  ),
);
const maps = (known: Record<string, fc.Arbitrary<string>>): fc.Arbitrary<object | null> =>
  fc.oneof(
    { weight: 1, arbitrary: fc.constant(null) },
    {
      weight: 8,
      arbitrary: fc
        .tuple(fc.dictionary(name, name, { maxKeys: 2 }), fc.record(known, { requiredKeys: [] }))
        .map(([others, ours]) => ({ ...others, ...ours })),
    },
  );
const often = <T>(usual: T, ...others: T[]): fc.Arbitrary<T> =>
  fc.oneof({ weight: 12, arbitrary: fc.constant(usual) }, { weight: 1, arbitrary: fc.constantFrom(...others) });
const pod = withUnknown(
  fc.record({
    metadata: withUnknown(
      fc.record(
        {
          name,
          labels: maps({
            [INJECTED]: fc.constantFrom('true', 'false', ''),
            'gpu-gate.dev/inject': often('true', 'false'),
          }),
          annotations: maps({
            [INJECTION]: fc.constantFrom(
              '{}',
              'junk',
              '{"policy":"nope"}',
              '{"policy":"default","injected":["runtimeClassName","env","driverVolumes","readinessGate"],"skipped":[]}',
            ),
            'gpu-gate.dev/policy': fc.oneof(
              { weight: 20, arbitrary: fc.constantFrom('default', 'preset', 'odd', 'shown') },
              { weight: 1, arbitrary: fc.constantFrom('nope', 'No Name', '__proto__', '/etc') },
            ),
            'gpu-gate.dev/min-driver': often('580', '/etc', ''),
          }),
        },
        { requiredKeys: [] },
      ),
    ),
    spec: withUnknown(
      fc.record(
        {
          containers,
          initContainers: list(container, 3),
          volumes: list(volume, 3),
          readinessGates: list(fc.record({ conditionType: fc.constantFrom('x/y', 'gpu-gate.dev/node-validated') }), 2),
          nodeSelector: fc.oneof(
            fc.constant(null),
            fc.dictionary(fc.constantFrom('zone', '__proto__', 'disk'), often('a', 'b'), { maxKeys: 2 }),
          ),
          runtimeClassName: fc.constantFrom('nvidia', 'kata', '', '', ''),
          tolerations: list(
            fc.record({ key: fc.constantFrom('a', 'nvidia.com/gpu'), operator: fc.constant('Exists') }),
            2,
          ),
          resourceClaims: list(claim, 2),
          schedulerName: fc.constantFrom('default-scheduler', 'mine', 's'),
        },
        { requiredKeys: ['containers'] },
      ),
    ),
  }),
);

const ALLOWED =
  /^\/(metadata\/(labels|annotations)(\/gpu-gate\.dev~1(injected|injection))?|spec\/(runtimeClassName|schedulerName|(readinessGates|volumes|tolerations)(\/-)?|(containers|initContainers)\/\d+\/(env|volumeMounts)(\/-)?))$/;

const VOID = { name: 'NVIDIA_VISIBLE_DEVICES', value: 'void' };

/** Every value that a policy may put anywhere, as text, by the place's last name. */
const valuesOf = ({ spec, ...policy }: GpuPolicy): ReadonlySet<string> => {
  const { volumes, env } = driverMounts({ spec, ...policy });
  const places: readonly (readonly [string, unknown])[] = [
    ['runtimeClassName', spec.injection.runtimeClassName],
    ['schedulerName', spec.injection.schedulerName],
    ['readinessGates', { conditionType: 'gpu-gate.dev/node-validated' }],
    ...volumes.flatMap(({ name: of, hostPath, mountPath, type, readOnly }) => [
      ['volumes', { name: of, hostPath: { path: hostPath, type } }] as const,
      ['volumeMounts', { name: of, mountPath, readOnly }] as const,
    ]),
    ...env.map(({ name: of, value }) => ['env', { name: of, value }] as const),
    ...spec.injection.tolerations.map((toleration) => ['tolerations', toleration] as const),
    ...(spec.injection.hideUnrequestedGpus ? [['env', VOID] as const] : []),
  ];
  return new Set(places.map(([place, value]) => `${place} ${JSON.stringify(value)}`));
};
const VALUES = new Map([...policies].map(([of, policy]) => [of, valuesOf(policy)]));

type Json = Record<string, unknown>;
const partsOf = (pointer: string): string[] =>
  pointer
    .slice(1)
    .split('/')
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));

/**
 * Takes every addition out again, the last first. Only two things may have been there before: a
 * null in a list's or map's place, and what has the name of our label or our record. Whatever else
 * was overwritten is missing afterwards.
 */
function takenOut(after: object, operations: readonly AddOperation[], original: object): object {
  const result = structuredClone(after);
  for (const { path: pointer, value } of operations.toReversed()) {
    const parts = partsOf(pointer);
    const last = parts.pop() ?? '';
    const at = (root: unknown): unknown => parts.reduce<unknown>((node, part) => (node as Json)?.[part], root);
    const parent = at(result);
    if (last === '-') {
      if (!isDeepStrictEqual((parent as unknown[]).pop(), value)) throw new Error(`${pointer} is not at the end`);
      continue;
    }
    const before = at(original);
    const had =
      typeof before === 'object' && before !== null && Object.hasOwn(before, last) ? (before as Json)[last] : undefined;
    const back = had === null || last === INJECTED || last === INJECTION ? had : undefined;
    // An empty class or scheduler is none: it is what the API server makes of a field that is not
    // set.
    const none =
      (last === 'runtimeClassName' || last === 'schedulerName') && (had === '' || had === 'default-scheduler');
    if (back === undefined && !none) delete (parent as Json)[last];
    else (parent as Json)[last] = none ? had : back;
  }
  return result;
}

const asks = ({ resources }: RawContainer): boolean =>
  (resources?.claims ?? []).length > 0 ||
  [resources?.limits ?? {}, resources?.requests ?? {}].some((quantities) =>
    Object.entries(quantities).some(([of, quantity]) => /gpu|mig/.test(of) && /[1-9]/.test(String(quantity))),
  );

/** Which GPUs a container sees, and which mounts meet in it. */
function lawsOfContainers(before: RawPod, after: RawPod, policy: GpuPolicy): void {
  // A pod that may ask for another device is not touched beyond its scheduler.
  const isKnown = askedOf(requestOf(before, 'team'), gpuKindsOf(policy), DEVICES).kind === 'gpus';
  const hides =
    isKnown &&
    policy.spec.injection.hideUnrequestedGpus &&
    after.spec?.runtimeClassName === policy.spec.injection.runtimeClassName;
  for (const kind of ['containers', 'initContainers'] as const)
    for (const [i, container] of (after.spec?.[kind] ?? []).entries()) {
      const had = before.spec?.[kind]?.[i] ?? {};
      const isVoid = ({ env }: RawContainer): boolean =>
        (env ?? []).some((variable) => variable.name === VOID.name && variable.value === VOID.value);
      if (asks(had)) law(isVoid(container) === isVoid(had), 'GPUs are never hidden from a container that asks for one');
      else if (hides)
        law(
          (container.env ?? []).some(({ name: of }) => of === VOID.name),
          'the others see none by accident',
        );
      const plain = (mountPath: string | undefined): string =>
        `${posix.join('/', mountPath ?? '', '.')}/`.replace('//', '/');
      const own = (had.volumeMounts ?? []).map(({ mountPath }) => plain(mountPath));
      for (const { mountPath } of (container.volumeMounts ?? []).slice(own.length))
        law(
          own.every((each) => !each.startsWith(plain(mountPath)) && !plain(mountPath).startsWith(each)),
          'no mount of the policy is at, below or above one of the pod',
        );
    }
}

const law = (holds: boolean, what: string): void => {
  if (!holds) throw new Error(what);
};

it(`${PODS} generated pods: the laws of the injection`, () => {
  const seen = { inject: 0, leave: 0, refuse: 0, overOwn: 0 };
  fc.assert(
    fc.property(pod, (raw) => {
      const before = JSON.stringify(raw);
      const original = JSON.parse(before) as RawPod;
      const admission = decide(original, facts);
      seen[admission.kind] += 1;
      law(JSON.stringify(original) === before, 'deciding changes nothing');
      if (admission.kind === 'refuse') return;
      law(
        admission.warnings.every((warning) => warning.length < 120 && !warning.endsWith('…')),
        'warnings are short and whole',
      );
      if (admission.kind === 'leave') return;
      const { operations } = admission;
      const once = applied(original, operations);
      const other = JSON.parse(before) as RawPod;
      const errors = independently(other, structuredClone([...operations]));
      law(errors.every((error) => error === null) && isDeepStrictEqual(other, once), 'a second implementation agrees');
      law(
        operations.every(({ op, path: pointer }) => op === 'add' && ALLOWED.test(pointer)),
        'it adds, and in allowed places only',
      );
      lawsOfContainers(original, once, policies.get(admission.policy) ?? aPolicy());
      const again = decide(once, facts);
      law(again.kind === 'leave' && again.reason === 'already-injected', 'twice equals once');
      law(isDeepStrictEqual(takenOut(once, operations, original), original), 'nothing is removed or overwritten');
      const asked = original.metadata?.annotations?.['gpu-gate.dev/policy'];
      law(admission.policy === (asked ?? 'default'), 'the policy that the author names');
      const values = VALUES.get(admission.policy);
      for (const { path: pointer, value } of operations) {
        const place = partsOf(pointer).findLast((part) => part !== '-') ?? '';
        if (pointer.startsWith('/metadata/')) continue;
        for (const each of Array.isArray(value) ? value : [value])
          law(values?.has(`${place} ${JSON.stringify(each)}`) === true, `${place} is the policy's`);
      }
      if (Object.keys(original.metadata?.annotations ?? {}).includes(INJECTION)) seen.overOwn += 1;
    }),
    { numRuns: PODS },
  );
  law(Object.keys(Object.prototype).length === 0, 'no prototype is touched');
  console.log(`generated pods: ${JSON.stringify(seen)}`);
  expect(seen.inject).toBeGreaterThan(0.3 * PODS);
  expect(seen.overOwn).toBeGreaterThan(0.05 * PODS);
});
