// `npm run bench -- admission [--size KB] [--calls N] [--direct 100000]`: what each webhook adds to
// the creation of a pod on a real API server, in one run: none, ours, a Go author's, a bare express
// one. All are registered at once, and a pod's labels say which one is called. Then memory over
// many direct calls. On few cores the figures hold more of the API server and of the machine than
// of the webhooks, which `npm run bench -- webhook` measures alone.
import { writeFileSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { issueCa, issueLeaf } from '../certs/issue.ts';
import { WEBHOOK_CONFIGURATION } from '../core/keys.ts';
import { startCluster, type Cluster } from '../lab/cluster/cluster.ts';
import { freePort } from '../lab/cluster/control-plane.ts';
import { startGate, until, type Gate } from '../lab/cluster/gate.ts';
import { addPools } from '../lab/cluster/pools.ts';
import { untilReady, type Running } from '../lab/cluster/lifetime.ts';
import { cpuMs } from './reports/cpu.ts';
import { goProgram } from './reports/programs.ts';
import { blockQuantile, numberArg, quantile, type BenchContext, type Row } from './rows.ts';

const REFERENCE = join(import.meta.dirname, 'reference');
const CONFIGURATIONS = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations';
const VARIANTS = ['none', 'ours', 'go', 'express'] as const;
type Variant = (typeof VARIANTS)[number];
/**
 * KB of a pod, and the number of such pods that each cell creates. A p99 is meaningful only if tens
 * of calls lie above it.
 */
const SIZES: readonly (readonly [number, number])[] = [
  [2, 2560],
  [20, 1280],
  [200, 384],
];
const CONCURRENCY = [1, 8, 32];
/**
 * Calls of one turn. What else the machine does comes and goes within moments: many short turns let
 * all have the same share of it.
 */
const turnOf = (concurrency: number): number => Math.max(20, 4 * concurrency);
/** Calls of which a p99 is taken; several turns. */
const BLOCK = 256;
const RSS_BAR = 150 * 1024 * 1024;

/** A pod of about so many kilobytes, its weight in environment variables. */
const podOf = (variant: Variant, kilobytes: number): object => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: {
    generateName: 'bench-',
    annotations: { 'gpu-gate.dev/policy': 'bench' },
    labels: variant === 'ours' ? {} : { 'gpu-gate.dev/inject': 'false', bench: variant },
  },
  spec: {
    containers: [
      {
        name: 'c',
        image: 'x',
        resources: { limits: { 'nvidia.com/gpu': '1' } },
        env: Array.from({ length: Math.ceil(Math.max(1, kilobytes * 1024 - 700) / 130) }, (_, i) => ({
          name: `VARIABLE_${i}`,
          value: 'x'.repeat(96),
        })),
      },
    ],
  },
});

const gaugeOf = async (gate: Gate, name: string): Promise<number> => {
  const text = await (await fetch(gate.metricsUrls.requestPath)).text();
  return Number(
    text
      .split('\n')
      .find((line) => line.startsWith(`${name} `))
      ?.split(' ')[1],
  );
};

async function startReferences(
  cluster: Cluster,
  say: (line: string) => void,
): Promise<Record<'go' | 'express', Running>> {
  const now = Date.now();
  const ca = await issueCa('bench', 86_400_000, now);
  const leaf = await issueLeaf(ca, { name: 'bench', sans: ['127.0.0.1'], usage: 'server', life: 86_400_000 }, now);
  const [key, cert] = [join(cluster.dir, 'bench.key'), join(cluster.dir, 'bench.crt')];
  writeFileSync(key, leaf.key, { mode: 0o600 });
  writeFileSync(cert, leaf.cert);
  const program = await goProgram('webhook-go', say);
  const ours = await cluster.admin.request<{ webhooks: { matchConditions: object[] }[] }>(
    'GET',
    `${CONFIGURATIONS}/${WEBHOOK_CONFIGURATION}`,
  );
  const start = async (
    name: 'go' | 'express',
    command: string,
    argsOf: (port: number) => string[],
  ): Promise<Running> => {
    const port = await freePort();
    const running = cluster.lifetime.start(`bench-${name}`, command, argsOf(port));
    await untilReady(
      running,
      () =>
        new Promise<boolean>((resolve) => {
          const socket = connect(port, '127.0.0.1', () => {
            socket.destroy();
            resolve(true);
          }).on('error', () => resolve(false));
        }),
    );
    await cluster.admin.request('POST', CONFIGURATIONS, {
      body: {
        apiVersion: 'admissionregistration.k8s.io/v1',
        kind: 'MutatingWebhookConfiguration',
        metadata: { name: `bench-${name}` },
        webhooks: [
          {
            name: `${name}.example.com`,
            admissionReviewVersions: ['v1'],
            sideEffects: 'None',
            failurePolicy: 'Fail',
            reinvocationPolicy: 'IfNeeded',
            clientConfig: {
              url: `https://127.0.0.1:${port}/mutate`,
              caBundle: Buffer.from(ca.cert).toString('base64'),
            },
            objectSelector: { matchLabels: { bench: name } },
            rules: [{ apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'] }],
            matchConditions: ours.webhooks[0]?.matchConditions,
          },
        ],
      },
    });
    return running;
  };
  return {
    go: await start('go', program, (port) => ['-address', `127.0.0.1:${port}`, '-cert', cert, '-key', key]),
    express: await start('express', process.execPath, (port) => [
      join(REFERENCE, 'webhook-express.ts'),
      String(port),
      key,
      cert,
    ]),
  };
}

interface Created {
  readonly spec: { readonly readinessGates?: readonly object[] };
}

async function latencies(cluster: Cluster, body: object, calls: number, concurrency: number): Promise<number[]> {
  const times: number[] = [];
  let left = calls;
  const worker = async (): Promise<void> => {
    while (left > 0) {
      left -= 1;
      const began = performance.now();
      await cluster.admin.request('POST', '/api/v1/namespaces/default/pods', { query: { dryRun: 'All' }, body });
      times.push(performance.now() - began);
    }
  };
  await Promise.all(Array.from({ length: concurrency }, worker));
  return times;
}

interface Caller {
  /** One call, straight to our webhook. */
  readonly one: () => Promise<void>;
  readonly close: () => void;
}

function caller(gate: Gate, connections: number): Caller {
  const agent = new Agent({ keepAlive: true, maxSockets: connections });
  const review = JSON.stringify({
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: {
      uid: 'u',
      kind: { group: '', version: 'v1', kind: 'Pod' },
      namespace: 'default',
      object: podOf('ours', 2),
    },
  });
  const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(review) };
  // Its certificate is not measured here.
  const target = { host: '127.0.0.1', port: gate.webhookPort, path: '/mutate', rejectUnauthorized: false };
  return {
    one: () =>
      new Promise((resolve, reject) => {
        request({ ...target, method: 'POST', agent, headers }, (response) => {
          response.resume();
          response.on('end', () =>
            response.statusCode === 200 ? resolve() : reject(new Error(`status ${response.statusCode}`)),
          );
        })
          .on('error', reject)
          .end(review);
      }),
    close: () => agent.destroy(),
  };
}

/** Resident memory at half of the direct calls and at their end, bytes. */
async function memory(gate: Gate, calls: number): Promise<{ readonly half: number; readonly end: number }> {
  const { one, close } = caller(gate, 16);
  const many = async (count: number): Promise<void> => {
    let left = count;
    await Promise.all(
      Array.from({ length: 16 }, async () => {
        for (; left > 0; left -= 1) await one();
      }),
    );
  };
  await many(calls / 2);
  const half = await gaugeOf(gate, 'process_resident_memory_bytes');
  await many(calls / 2);
  const end = await gaugeOf(gate, 'process_resident_memory_bytes');
  close();
  return { half, end };
}

/**
 * Does a call take longer in a cluster of 2,000 namespaces more? p50 of direct calls on one
 * connection, ms.
 */
async function growth(cluster: Cluster, gate: Gate): Promise<Row> {
  const { one, close } = caller(gate, 1);
  const p50 = async (): Promise<number> => {
    const times: number[] = [];
    for (let i = 0; i < 4000; i += 1) {
      const began = performance.now();
      await one();
      times.push(performance.now() - began);
    }
    return quantile(times, 0.5);
  };
  await p50();
  const before = await p50();
  const names = Array.from({ length: 2000 }, (_, i) => `team-${i}`).values();
  await Promise.all(
    Array.from({ length: 16 }, async () => {
      for (const name of names)
        await cluster.admin.request('POST', '/api/v1/namespaces', {
          body: { apiVersion: 'v1', kind: 'Namespace', metadata: { name } },
        });
    }),
  );
  await sleep(2000);
  const after = await p50();
  close();
  return {
    name: 'p50 of a direct call, 2,000 namespaces more',
    value: after,
    unit: 'ms',
    reference: { name: 'before', value: before },
    bar: 'no growth with the size of the cluster: at most 1.2 times',
    held: after <= 1.2 * before,
  };
}

async function cell(
  cluster: Cluster,
  cpu: (variant: Variant) => number,
  size: number,
  concurrency: number,
  calls: number,
): Promise<Row[]> {
  const times: Record<Variant, number[]> = { none: [], ours: [], go: [], express: [] };
  const used: Record<Variant, number> = { none: 0, ours: 0, go: 0, express: 0 };
  for (let round = 0; round * turnOf(concurrency) < calls; round += 1)
    // The order turns round, so that none always follows the same one, whose garbage the API server
    // then collects.
    for (const variant of round % 2 === 0 ? VARIANTS : VARIANTS.toReversed()) {
      const before = cpu(variant);
      times[variant].push(...(await latencies(cluster, podOf(variant, size), turnOf(concurrency), concurrency)));
      used[variant] += cpu(variant) - before;
    }
  const rows: Row[] = [];
  const bar = "at most 1.1 times the Go webhook's";
  const over = (what: string, of: (times: readonly number[]) => number, judged: boolean): void => {
    const added = (variant: Variant): number => of(times[variant]) - of(times.none);
    const name = `${what} added, ${size} KB, concurrency ${concurrency}`;
    const reference = { name: 'go', value: added('go') };
    const value = added('ours');
    const figure = { name: `${name}: ours`, value, unit: 'ms', reference };
    rows.push(judged ? { ...figure, bar, held: value <= 1.1 * reference.value } : figure, {
      name: `${name}: express`,
      value: added('express'),
      unit: 'ms',
      reference,
    });
  };
  over('p50', (all) => quantile(all, 0.5), true);
  over('p99', (all) => blockQuantile(all, 0.99, BLOCK), true);
  over('p99 of all calls', (all) => quantile(all, 0.99), false);
  // Where all cores are busy, an order of arrival that is kept raises the median and cuts the tail:
  // the mean tells both apart.
  const mean = (variant: Variant): number => times[variant].reduce((a, b) => a + b, 0) / times[variant].length;
  const addedMean = (variant: Variant): number => mean(variant) - mean('none');
  rows.push({
    name: `mean added, ${size} KB, concurrency ${concurrency}: ours`,
    value: addedMean('ours'),
    unit: 'ms',
    reference: { name: 'go', value: addedMean('go') },
  });
  const perCall = (variant: Variant): number => used[variant] / times[variant].length;
  const reference = { name: 'go', value: perCall('go') };
  const name = `CPU a call, ${size} KB, concurrency ${concurrency}`;
  rows.push(
    { name: `${name}: ours`, value: perCall('ours'), unit: 'ms', reference },
    { name: `${name}: express`, value: perCall('express'), unit: 'ms', reference },
  );
  return rows;
}

export const about = 'what each webhook adds to the creation of a pod on a real API server: none, ours, Go, express';
export const options = {
  '--size KB': 'pods of one size only',
  '--calls N': 'creations of each cell (by size)',
  '--direct N': 'direct calls whose memory is watched (100000)',
};

export async function run({ say, args }: BenchContext): Promise<readonly Row[]> {
  const calls = numberArg(args, 'calls', 0);
  const only = numberArg(args, 'size', 0);
  const direct = numberArg(args, 'direct', 100_000);
  const cluster = await startCluster({ nodes: 0, scheduler: false, say });
  try {
    const gate = await startGate(cluster, {
      scheduler: false,
      values: { policy: { spec: { nodeSelector: { pool: 'default' } } } },
    });
    await addPools(cluster, { bench: {} });
    const references = await startReferences(cluster, say);
    // Each must have been called before anything is measured, and know its code.
    for (const variant of VARIANTS)
      await until(`${variant} to take part`, async () => {
        const { spec } = await cluster.admin.request<Created>('POST', '/api/v1/namespaces/default/pods', {
          query: { dryRun: 'All' },
          body: podOf(variant, 2),
        });
        return (spec.readinessGates?.length ?? 0) === (variant === 'none' ? 0 : 1);
      });
    for (const variant of VARIANTS) await latencies(cluster, podOf(variant, 20), 400, 8);
    const pids = { ours: gate.requestPathPid(), go: references.go.pid, express: references.express.pid };
    const cpu = (variant: Variant): number => (variant === 'none' ? 0 : cpuMs(pids[variant]));
    const rows: Row[] = [];
    for (const [size, usual] of SIZES.filter(([kilobytes]) => only === 0 || kilobytes === only))
      for (const concurrency of CONCURRENCY) {
        say(`pods of ${size} KB, concurrency ${concurrency}`);
        rows.push(...(await cell(cluster, cpu, size, concurrency, calls === 0 ? usual : calls)));
      }
    // A life of its own: bodies of 200 KB at concurrency 32 leave the allocator's heap larger than
    // any day of a cluster does.
    const large = await gaugeOf(gate, 'process_resident_memory_bytes');
    await gate.stopRequestPath();
    await gate.startRequestPath();
    say(`${direct} direct calls`);
    const { half, end } = await memory(gate, direct);
    const grows = await growth(cluster, gate);
    const mib = (bytes: number): number => bytes / 1024 / 1024;
    return [
      ...rows,
      { name: 'RSS after the creations above, of up to 200 KB', value: mib(large), unit: 'MiB' },
      { name: `RSS after ${direct} calls`, value: mib(end), unit: 'MiB', bar: 'under 150 MiB', held: end < RSS_BAR },
      {
        name: 'RSS over the second half',
        value: mib(end),
        unit: 'MiB',
        reference: { name: 'at half', value: mib(half) },
        bar: 'flat: at most 1.1 times',
        held: end <= 1.1 * half,
      },
      grows,
    ];
  } finally {
    await cluster.stop();
  }
}
