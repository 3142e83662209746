// What is not a review of a Pod is refused in one sentence of our own words, and nothing of a body
// reaches a log or an error.
import { NO_DEVICES } from '../../gate/devices.ts';
import fc from 'fast-check';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startServer, type RunningServer } from '../../platform/http.ts';
import { jsonLog } from '../../platform/log.ts';
import type { Facts } from '../../webhook/inject.ts';
import { webhookMetrics } from '../../webhook/metrics.ts';
import { decode } from '../../webhook/review.ts';
import { webhookApp } from '../../webhook/routes.ts';
import { aPod, aPolicy } from '../builders/objects.ts';

const review = (object: unknown, more: object = {}): object => ({
  apiVersion: 'admission.k8s.io/v1',
  kind: 'AdmissionReview',
  request: { uid: 'u', kind: { group: '', version: 'v1', kind: 'Pod' }, namespace: 'team', object, ...more },
});
const pod = (spec: object, metadata: object = {}): object => ({ metadata, spec });

describe('what decode takes', () => {
  it.each([
    ['the least pod', pod({})],
    ['null where nothing is', pod({ containers: null, volumes: null, nodeSelector: null }, { labels: null })],
    ['unknown fields', pod({ containers: [{ name: 'a', future: [1, { x: null }] }], future: 1 })],
    ['every field that the rules read', aPod({ gpus: '1', initGpus: '1', labels: {}, annotations: {} })],
  ])('%s', (_, object) => expect(decode(review(object))).toMatchObject({ ok: true, review: { namespace: 'team' } }));

  it('the namespace of the pod where the request has none', () => {
    expect(decode(review(aPod({ namespace: 'own' }), { namespace: '' }))).toMatchObject({
      review: { namespace: 'own' },
    });
    expect(decode(review(pod({}), { namespace: '' }))).toMatchObject({ review: { namespace: '' } });
  });
});

describe('what decode refuses', () => {
  const container = (more: object): object => pod({ containers: [{ name: 'ok' }, more] });
  it.each([
    ['no metadata', { spec: {} }, 'the Pod has no metadata'],
    ['metadata that is a list', { metadata: [], spec: {} }, 'the Pod has no metadata'],
    ['labels', pod({}, { labels: [] }), 'metadata.labels is not an object in the Pod'],
    ['a label', pod({}, { labels: { a: 1 } }), 'metadata.labels has a value that is not a string in the Pod'],
    ['an annotation', pod({}, { annotations: { a: {} } }), 'metadata.annotations has a value that is not a string'],
    ['containers', pod({ containers: {} }), 'spec.containers is not a list'],
    ['a container', pod({ containers: [null] }), 'spec.containers[0] is not an object'],
    ['an init container', pod({ initContainers: ['x'] }), 'spec.initContainers[0] is not an object'],
    ['env', container({ env: {} }), 'spec.containers[1].env is not a list'],
    ['a variable', container({ env: [{ name: 1 }] }), 'spec.containers[1].env[0].name is not a string'],
    ['limits', container({ resources: { limits: 'x' } }), 'spec.containers[1].resources.limits is not an object'],
    [
      'a mount',
      container({ volumeMounts: [{ mountPath: [] }] }),
      'spec.containers[1].volumeMounts[0].mountPath is not a string',
    ],
    ['a volume', pod({ volumes: [{ hostPath: 'x' }] }), 'spec.volumes[0].hostPath is not an object'],
    ['a gate', pod({ readinessGates: [1] }), 'spec.readinessGates[0] is not an object'],
    ['a class', pod({ runtimeClassName: {} }), 'spec.runtimeClassName is not a string'],
    ['hostUsers', pod({ hostUsers: 'no' }), 'spec.hostUsers is not true or false'],
    ['a toleration', pod({ tolerations: [[]] }), 'spec.tolerations[0] is not an object'],
  ])('%s', (_, object, sentence) => {
    const decoded = decode(review(object));
    expect(decoded).toEqual({ ok: false, because: expect.stringContaining(sentence) });
  });
  it('a uid that no API server writes', () => {
    expect(decode(review(pod({}), { uid: 'u'.repeat(200) }))).toMatchObject({ ok: false });
  });
});

const SECRET = 'hunter2-PLANTED-eyJhbGciOiJIUzI1NiJ9';
const secret = fc.constantFrom(SECRET, `${SECRET}"\\\n    at x (${SECRET}:1:1)`, 'eyJ'.repeat(3000) + SECRET);
const garbage = fc.oneof(
  secret,
  // A field that is null is as good as absent, wherever it is.
  fc.constant<unknown>(null),
  fc.constantFrom<unknown>(0, true, [], {}, ['x'], [null], { 'nvidia.com/gpu': '1' }),
  secret.map((text): unknown => [text, { [text]: text }]),
  secret.map((text): unknown => ({ name: text, [text]: [text] })),
);
const GOOD = {
  apiVersion: 'admission.k8s.io/v1',
  kind: 'AdmissionReview',
  request: {
    uid: 'u',
    kind: { group: '', version: 'v1', kind: 'Pod' },
    namespace: 'team',
    object: {
      metadata: { name: 'p', labels: { a: SECRET }, annotations: { b: SECRET } },
      spec: {
        containers: [
          {
            name: 'main',
            resources: { limits: { 'nvidia.com/gpu': '1' } },
            env: [{ name: 'PASSWORD', value: SECRET }],
            volumeMounts: [{ name: 'own', mountPath: '/usr/local/nvidia' }],
          },
          { name: 'beside', env: [{ name: 'TOKEN', value: SECRET }] },
        ],
        volumes: [{ name: 'own', hostPath: { path: '/x' } }],
        nodeSelector: { zone: 'a' },
      },
    },
  },
};
/** Every place of an object, as a list of keys. */
const placesIn = (value: unknown, at: readonly string[] = []): string[][] =>
  typeof value === 'object' && value !== null
    ? [[...at], ...Object.entries(value).flatMap(([key, inner]) => placesIn(inner, [...at, key]))]
    : [[...at]];
const put = (value: unknown, [key, ...rest]: readonly string[], what: unknown): unknown => {
  if (key === undefined) return what;
  if (typeof value !== 'object' || value === null) return value;
  const copy = Array.isArray(value) ? [...(value as unknown[])] : { ...value };
  (copy as Record<string, unknown>)[key] = put((value as Record<string, unknown>)[key], rest, what);
  return copy;
};

describe('garbage with secrets in it', () => {
  let server: RunningServer;
  const logged: string[] = [];
  let broken: 'no' | 'facts' | 'decision' = 'no';
  const facts: Facts = {
    policies: {
      get(name) {
        // As a fault in the rules would: the message quotes what it stumbled on.
        if (broken === 'decision') throw new TypeError(`cannot read ${name} of ${SECRET}`);
        return aPolicy({ injection: { driverVolumesPreset: 'GKE' } });
      },
    },
    runtimeClasses: new Map([['nvidia', { nodeSelector: { zone: 'a' } }]]),
    devices: NO_DEVICES,
    namespaceLabels: {},
    namespace: 'team',
    excludedNamespaces: new Set(),
  };
  beforeAll(async () => {
    server = await startServer({
      port: 0,
      host: '127.0.0.1',
      portOption: 'webhook-port',
      handler: webhookApp({
        log: jsonLog('debug', (line) => logged.push(line)),
        metrics: webhookMetrics(new Registry()),
        facts: (namespace) => {
          if (broken === 'facts') throw new Error(`no namespace ${namespace} ${SECRET}`);
          return facts;
        },
      }),
    });
  });
  afterAll(() => server?.close(0));
  const post = async (body: string): Promise<{ status: number; text: string }> => {
    const response = await fetch(`http://127.0.0.1:${server.port}/mutate`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body,
    });
    return { status: response.status, text: await response.text() };
  };
  /** The answer with what it carries in base64. */
  const readable = (text: string): string => {
    const patch = /"patch":"([^"]*)"/.exec(text)?.[1] ?? '';
    return text + Buffer.from(patch, 'base64').toString();
  };

  const places = placesIn(GOOD);
  it('2,000 reviews with up to three places replaced: a log without a line, answers without a secret', async () => {
    const seen: Record<number, number> = {};
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.constantFrom(...places), garbage), { minLength: 1, maxLength: 3 }),
        fc.constantFrom('whole', 'whole', 'whole', 'whole', 'cut', 'doubled'),
        async (changes, how) => {
          const whole = JSON.stringify(
            changes.reduce<unknown>((value, [place, what]) => put(value, place, what), GOOD),
          );
          const body = how === 'whole' ? whole : how === 'cut' ? whole.slice(0, -9) : whole + whole;
          const { status, text } = await post(body);
          seen[status] = (seen[status] ?? 0) + 1;
          expect([200, 400]).toContain(status);
          if (status === 400) {
            expect(text).not.toContain('PLANTED');
            expect(text).toMatch(/^[ -~]{1,200}\n$/);
          }
          // What an author wrote into names and selectors may be repeated to him; values of
          // variables never are.
          else if (!changes.some(([place]) => /uid|name|mountPath|nodeSelector|policy/.test(place.join('.'))))
            expect(readable(text).replaceAll(/"(warnings|message)":(\[[^\]]*\]|"[^"]*")/g, '')).not.toContain(
              'PLANTED',
            );
          expect(logged).toEqual([]);
        },
      ),
      { numRuns: 2000 },
    );
    expect(seen[200]).toBeGreaterThan(50);
    expect(seen[400]).toBeGreaterThan(300);
  });

  it.each([
    ['facts', 500],
    ['decision', 200],
  ] as const)('a fault of ours in the %s: one line that says where, and quotes nothing', async (where, expected) => {
    broken = where;
    try {
      const { status, text } = await post(JSON.stringify(GOOD));
      expect(status).toBe(expected);
      expect(readable(text)).not.toContain('PLANTED');
      expect(logged).toHaveLength(1);
      expect(logged.join('')).not.toContain('PLANTED');
      expect(logged.join('')).toMatch(/"error":"(Type)?Error at [^"]*review\.test\.ts/);
    } finally {
      broken = 'no';
      logged.length = 0;
    }
  });
});
