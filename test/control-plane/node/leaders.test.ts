// Two reconcilers, and the leader dies or stands still in the middle of walks: judged from the API
// server's audit log, where each process has a token of its own. GPU_GATE_TEST_ROUNDS sets the
// number of rounds.
import { randomInt } from 'node:crypto';
import { readFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { STATES } from '../../../core/stages.ts';
import { startCluster, type Cluster } from '../../../lab/cluster/cluster.ts';
import { freePort } from '../../../lab/cluster/control-plane.ts';
import { startGate, until } from '../../../lab/cluster/gate.ts';
import { untilReady, type Running } from '../../../lab/cluster/lifetime.ts';
import { viewOf } from '../../builders/view.ts';

const ROOT = join(import.meta.dirname, '../../..');
const ROUNDS = Number(process.env['GPU_GATE_TEST_ROUNDS'] ?? 5);
const NODES_A_ROUND = 2;
/**
 * The simulated states alone take longer than this from the label to validated, ms: the leader dies
 * within the walk.
 */
const WALK_MS = 6000;

let cluster: Cluster;
const { kubectl, validated } = viewOf(() => cluster);

interface Replica {
  readonly running: Running;
  /** What the audit log names its token by. */
  readonly token: string;
  leads(): Promise<boolean>;
}

let started = 0;
async function startReplica(): Promise<Replica> {
  started += 1;
  const kubeconfig = join(cluster.dir, `replica-${started}.kubeconfig`);
  renameSync(await cluster.serviceAccountKubeconfig('gpu-gate', 'gpu-gate-reconciler'), kubeconfig);
  const { users } = JSON.parse(readFileSync(kubeconfig, 'utf8')) as { users: { user: { token: string } }[] };
  const jwt = users[0]?.user.token ?? '';
  const claims = JSON.parse(Buffer.from(jwt.split('.')[1] ?? '', 'base64url').toString()) as { jti: string };
  const port = await freePort();
  const flags = ['--kubeconfig', kubeconfig, '--namespace', 'gpu-gate', '--bind-address', '127.0.0.1'];
  const running = cluster.lifetime.start(`replica-${started}`, process.execPath, [
    join(ROOT, 'main.ts'),
    'run',
    '--roles',
    'reconciler',
    '--metrics-port',
    String(port),
    '--lease-duration',
    '3s',
    ...flags,
  ]);
  await untilReady(running, async () => (await fetch(`http://127.0.0.1:${port}/readyz`)).ok);
  const token = `JTI=${claims.jti}`;
  tokens.add(token);
  return {
    running,
    token,
    async leads() {
      const answer = await fetch(`http://127.0.0.1:${port}/metrics`, { signal: AbortSignal.timeout(30_000) });
      return /^gpu_gate_leader 1$/m.test(await answer.text());
    },
  };
}

interface Round {
  readonly signal: 'SIGKILL' | 'SIGSTOP';
  readonly from: number;
  readonly old: string;
  readonly next: string;
}
const rounds: Round[] = [];
/** Credentials of every replica that ran: the chart's scheduler has an account of its own. */
const tokens = new Set<string>();
/** After this replicas stop one after the other, and the last one may lead again. */
let ended = Infinity;

interface Write {
  readonly at: number;
  readonly token: string;
  readonly verb: string;
  /** `resource/namespace/name`. */
  readonly object: string;
  readonly state: string | undefined;
}

/** What replicas wrote and the API server accepted, in the order of its log. */
function writes(): readonly Write[] {
  const lines = readFileSync(cluster.auditLog, 'utf8').trim().split('\n');
  return lines.flatMap((line) => {
    const event = JSON.parse(line) as {
      verb: string;
      requestReceivedTimestamp: string;
      user: { extra?: Record<string, string[]> };
      objectRef?: { resource?: string; namespace?: string; name?: string };
      responseStatus?: { code?: number };
      responseObject?: { metadata?: { labels?: Record<string, string> } };
    };
    const [token] = event.user.extra?.['authentication.kubernetes.io/credential-id'] ?? [];
    const code = event.responseStatus?.code ?? 0;
    if (token === undefined || !tokens.has(token) || code < 200 || code > 299) return [];
    const { resource = '', namespace = '', name = '' } = event.objectRef ?? {};
    return [
      {
        at: Date.parse(event.requestReceivedTimestamp),
        token,
        verb: event.verb,
        object: `${resource}/${namespace}/${name}`,
        state: event.responseObject?.metadata?.labels?.['gpu-gate.dev/state'],
      },
    ];
  });
}

beforeAll(async () => {
  cluster = await startCluster({ nodes: ROUNDS * NODES_A_ROUND, say: console.log });
  const gate = await startGate(cluster, { values: { policy: { spec: { bringUp: { maxConcurrent: '100%' } } } } });
  await gate.stopReconciler();
});
afterAll(async () => cluster?.stop());

/** A leader is killed, or stands still past its Lease and goes on, while nodes walk. */
beforeAll(
  async () => {
    const replicas = [await startReplica(), await startReplica()];
    for (let round = 0; round < ROUNDS; round += 1) {
      const old = await until('a leader', async () => {
        for (const replica of replicas) if (await replica.leads()) return replica;
        return undefined;
      });
      const next = replicas.find((replica) => replica !== old);
      if (next === undefined) throw new Error('one replica is missing');
      const names = Array.from({ length: NODES_A_ROUND }, (_, i) => `gpu-${round * NODES_A_ROUND + i}`);
      for (const name of names) await kubectl('label', 'node', name, 'gpu-gate.dev/managed=true');
      await sleep(randomInt(WALK_MS));
      const signal = round % 2 === 0 ? 'SIGSTOP' : 'SIGKILL';
      rounds.push({ signal, from: Date.now(), old: old.token, next: next.token });
      process.kill(old.running.pid, signal);
      await until('the other replica to lead', () => next.leads());
      if (signal === 'SIGSTOP') process.kill(old.running.pid, 'SIGCONT');
      else {
        await old.running.stop();
        replicas[replicas.indexOf(old)] = await startReplica();
      }
      for (const name of names) await validated(name);
    }
    ended = Date.now();
    for (const { running } of replicas) await running.stop();
  },
  600_000 + ROUNDS * 120_000,
);

it('no write of an old holder succeeded on an object that the new one had written', () => {
  const all = writes();
  let byNext = 0;
  for (const [i, { from, old, next, signal }] of rounds.entries()) {
    const end = rounds[i + 1]?.from ?? ended;
    const taken = new Set<string>();
    for (const write of all.filter(({ at }) => at >= from && at < end)) {
      if (write.token === next) {
        taken.add(write.object);
        byNext += 1;
      }
      if (write.token === old)
        expect(taken, `${signal} in round ${i}: ${write.verb} ${write.object}`).not.toContain(write.object);
    }
  }
  expect(byNext).toBeGreaterThan(ROUNDS);
});

it('no finished state was repeated', () => {
  const reached = new Map<string, number>();
  for (const { object, state } of writes()) {
    if (state === undefined || !object.startsWith('nodes/')) continue;
    const at = STATES.indexOf(state as (typeof STATES)[number]);
    expect(at, `${object} in ${state}`).toBeGreaterThanOrEqual(reached.get(object) ?? 0);
    reached.set(object, at);
  }
  expect(reached.size).toBe(ROUNDS * NODES_A_ROUND);
});

it('no validation pod was created twice', () => {
  const created = writes().flatMap(({ verb, object }) =>
    verb === 'create' && /^pods\/gpu-gate-operands\/.*validation/.test(object) ? [object] : [],
  );
  expect(created.length).toBe(ROUNDS * NODES_A_ROUND * 2);
  expect(new Set(created).size).toBe(created.length);
});
