// Every field of the CRD is in the table of edits, the docs show the table, and the plan does what
// it says: each field is edited on a validated node.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { FOLLOWING } from '../../../core/components.ts';
import { DEPLOY_PREFIX } from '../../../core/keys.ts';
import { claimTemplate } from '../../../reconciler/manifests/claim-template.ts';
import { validationPod } from '../../../reconciler/manifests/validation-pod.ts';
import { EDITS, effectOf } from '../../../reconciler/node/edits.ts';
import { aPolicy } from '../../builders/objects.ts';
import { World } from './world.ts';

const ROOT = join(import.meta.dirname, '../../..');
interface Schema {
  readonly type?: string;
  readonly enum?: readonly string[];
  readonly properties?: Readonly<Record<string, Schema>>;
}
const crd = parse(readFileSync(join(ROOT, 'deploy/chart/crds/gpupolicies.yaml'), 'utf8')) as {
  spec: { versions: { schema: { openAPIV3Schema: { properties: { spec: Schema } } } }[] };
};
const spec = crd.spec.versions[0]?.schema.openAPIV3Schema.properties.spec ?? {};
const leaves = (schema: Schema, path: readonly string[] = []): readonly (readonly [string, Schema])[] =>
  schema.properties === undefined
    ? [[path.join('.'), schema]]
    : Object.entries(schema.properties).flatMap(([key, inner]) => leaves(inner, [...path, key]));
const FIELDS = leaves(spec);

const BASE = { components: { featureDiscovery: { enabled: true } }, validation: { command: [] as string[] } };
const base = aPolicy(BASE);
/** Fields of the DRA driver are edited where there is one. */
const startOf = (field: string): object =>
  field.startsWith('components.draDriver') ? { ...BASE, allocation: 'DRA' } : BASE;

/** Another value of the field than it has. */
function otherValue(field: string, schema: Schema): unknown {
  const before = field
    .split('.')
    .reduce<unknown>((at, key) => (at as Record<string, unknown> | undefined)?.[key], base.spec);
  if (schema.enum !== undefined) return schema.enum.find((value) => value !== before);
  if (schema.type === 'boolean') return before !== true;
  if (schema.type === 'integer') return 7;
  if (field.endsWith('.env')) return [{ name: 'X', value: 'y' }];
  if (field.endsWith('driverVolumes')) return [{ name: 'v', hostPath: '/opt/v', mountPath: '/opt/v' }];
  if (schema.type === 'array') return ['x'];
  if (schema.type === 'object') return { x: 'y' };
  if (/timeouts|backoff|interval|labelHold|silence|within/.test(field)) return '7m';
  return /\.(?:configPath|socketPath|installDir)$|^hostPaths/.test(field) ? '/opt/x' : 'x';
}
/** The policy with that one field edited. */
const edited = (field: string, value: unknown): ReturnType<typeof aPolicy> => {
  const copy = structuredClone(startOf(field)) as Record<string, unknown>;
  const keys = field.split('.');
  let at = copy;
  for (const key of keys.slice(0, -1)) at = (at[key] ??= {}) as Record<string, unknown>;
  at[keys.at(-1) ?? ''] = value;
  return aPolicy(copy);
};
const revisionsOf = (policy: ReturnType<typeof aPolicy>) => {
  const world = new World(policy);
  return JSON.stringify(world.input().revisions);
};
const rounds = (policy: ReturnType<typeof aPolicy>): string =>
  JSON.stringify(
    (['driver-validation', 'device-plugin-validation', 'dra-validation'] as const).map((kind) =>
      validationPod({
        kind,
        policy,
        namespace: 'n',
        node: { name: 'n', uid: 'u' },
        round: 'r',
        attempt: 1,
        claimTemplate: kind === 'dra-validation' ? (claimTemplate(policy, 'n', () => true)?.metadata.name ?? '') : '',
      }),
    ),
  );

describe('an edit of a GPUPolicy', () => {
  it('has an effect in the table for every field of the CRD, and no other', () => {
    expect(FIELDS.filter(([field]) => effectOf(field) === undefined)).toEqual([]);
    const all = FIELDS.map(([field]) => field);
    expect(
      Object.keys(EDITS).filter((key) => !all.some((field) => field === key || field.startsWith(`${key}.`))),
    ).toEqual([]);
  });
  it.each(FIELDS.filter(([field]) => effectOf(field) !== 'at once'))(
    'of %s changes a validated node as the table says',
    (field, schema) => {
      const start = aPolicy(startOf(field));
      const validated = new World(start).validated();
      const policy = edited(field, otherValue(field, schema));
      const world = new World(policy);
      world.node = validated.node;
      world.pods = new Map(validated.pods);
      world.daemonSets = new Map(validated.daemonSets);
      world.now = validated.now;
      world.reality();
      world.rollOut = { isFree: true, isStopped: false, isRendered: true };
      const touched = world
        .step()
        .flatMap((action) => (action.kind === 'patch-node' ? Object.keys(action.labels) : []));
      const gating = touched.filter(
        (key) => key.startsWith(DEPLOY_PREFIX) && !FOLLOWING.some((component) => key === DEPLOY_PREFIX + component),
      );
      const effect = effectOf(field);
      // Its turn in a roll-out begins with closing, and nothing else.
      expect([gating, world.trust]).toEqual([[], [true, effect !== 'roll-out']]);
      if (effect === 'roll-out' || effect === 'next opt-in') expect(revisionsOf(policy)).not.toBe(revisionsOf(start));
      else expect(revisionsOf(policy)).toBe(revisionsOf(start));
      if (effect === 'nothing') expect(rounds(policy)).toBe(rounds(start));
      if (effect === 'next round' && !/timeouts|backoff|schedulerName|injection.env/.test(field))
        expect(rounds(policy)).not.toBe(rounds(start));
    },
  );
  it('stands in the docs', () => {
    const docs = readFileSync(join(ROOT, 'docs/policy-edits.md'), 'utf8');
    for (const [field, effect] of Object.entries(EDITS)) expect(docs).toContain(`| \`${field}\` | ${effect} |`);
  });
});
