// Reflector and Lease election against a real API server.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openKube, type Kube } from '../../../platform/kube.ts';
import { leaseElection, type Leadership } from '../../../platform/lease.ts';
import { jsonLog } from '../../../platform/log.ts';
import { reflector, type Reflector } from '../../../platform/reflector.ts';
import { applier } from '../../../reconciler/apply.ts';
import { reconcilerMetrics } from '../../../reconciler/metrics.ts';
import { binariesFromEnvironment } from '../../../lab/cluster/cluster.ts';
import { startControlPlane, type ControlPlane } from '../../../lab/cluster/control-plane.ts';
import { until } from '../../../lab/cluster/gate.ts';
import { tcpProxy, type TcpProxy } from '../../support/tcp-proxy.ts';

const log = jsonLog('error', () => undefined);
const NAMESPACE = '/api/v1/namespaces/default';
let cp: ControlPlane;
let proxy: TcpProxy;
let proxied: Kube;
const stop = new AbortController();

beforeAll(async () => {
  cp = await startControlPlane({
    binaries: await binariesFromEnvironment(console.log),
    scheduler: false,
    controllerManager: false,
  });
  proxy = await tcpProxy(Number(new URL(cp.server).port));
  proxied = await openKube({ kubeconfig: cp.kubeconfig, server: `https://127.0.0.1:${proxy.port}`, userAgent: 'test' });
});
afterAll(async () => {
  stop.abort();
  await proxy.close();
  await cp.stop();
});

const put = (name: string, value: string): Promise<unknown> =>
  cp.admin.request('PATCH', `${NAMESPACE}/configmaps/${name}`, {
    contentType: 'application/apply-patch+yaml',
    query: { fieldManager: 'test', force: true },
    body: { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name }, data: { value } },
  });
interface RawConfigMap {
  metadata: { name: string };
  data?: { value?: string };
}
/** Follows the ConfigMaps whose names begin so: each test has names of its own. */
const follow = (prefix: string, more: object = {}): { watch: Reflector<string>; changes: string[] } => {
  const changes: string[] = [];
  const watch = reflector<string>({
    kube: proxied,
    log,
    path: `${NAMESPACE}/configmaps`,
    trim: (raw: RawConfigMap) => (raw.metadata.name.startsWith(prefix) ? (raw.data?.value ?? '') : undefined),
    onChange: (key, before, after) => changes.push(`${key.replace('default/', '')}:${before ?? '-'}>${after ?? '-'}`),
    ...more,
  });
  watch.start(stop.signal);
  return { watch, changes };
};

describe('a reflector', () => {
  it('reads a paged list whole, and only then is synced', async () => {
    await Promise.all(Array.from({ length: 25 }, (_, i) => put(`t-page-${i}`, 'x')));
    const { watch } = follow('t-page', { pageSize: 4 });
    expect(watch.synced).toBe(false);
    await watch.whenSynced();
    expect(watch.size).toBe(25);
    await Promise.all(
      Array.from({ length: 25 }, (_, i) => cp.admin.request('DELETE', `${NAMESPACE}/configmaps/t-page-${i}`)),
    );
    await until('the deletions', () => watch.size === 0);
  });
  it('misses nothing when its watch is cut, and tells each change once', async () => {
    const { watch, changes } = follow('t-cut');
    await watch.whenSynced();
    await put('t-cut', '1');
    await until('the first value', () => watch.get('default/t-cut') === '1');
    proxy.cut();
    await put('t-cut', '2');
    await until('the second value', () => watch.get('default/t-cut') === '2');
    await cp.admin.request('DELETE', `${NAMESPACE}/configmaps/t-cut`);
    await until('the deletion', () => watch.get('default/t-cut') === undefined);
    expect(changes.filter((change) => change.startsWith('t-cut'))).toEqual(['t-cut:->1', 't-cut:1>2', 't-cut:2>-']);
  });
  it('resumes after each cut of a quiet stream without listing again', async () => {
    let lists = 0;
    const opened: string[] = [];
    const kube: Kube = {
      ...proxied,
      request: (...call) => {
        lists += 1;
        return proxied.request(...call);
      },
      async stream(path, query, signal) {
        const stream = await proxied.stream(path, query, signal);
        opened.push(String(query['resourceVersion']));
        return stream;
      },
    };
    const { watch, changes } = follow('t-quiet', { kube });
    await watch.whenSynced();
    await until('the watch', () => opened.length === 1);
    for (let round = 1; round <= 4; round += 1) {
      // A stream that has lived for a second is a good one, whether it brought anything or not.
      await sleep(1200);
      proxy.cut();
      await until('the next watch', () => opened.length === 1 + round);
    }
    await put('t-quiet', '1');
    await until('a change after the cuts', () => watch.get('default/t-quiet') === '1');
    expect([lists, opened.length]).toEqual([1, 5]);
    await cp.admin.request('DELETE', `${NAMESPACE}/configmaps/t-quiet`);
    await until('the deletion', () => watch.get('default/t-quiet') === undefined);
    expect(changes.filter((change) => change.startsWith('t-quiet'))).toEqual(['t-quiet:->1', 't-quiet:1>-']);
  });
  it('reads an object whose text holds a line separator of Unicode', async () => {
    const { watch } = follow('t-line');
    await watch.whenSynced();
    await put('t-line', 'a\u2028b');
    await until('the text', () => watch.get('default/t-line') === 'a\u2028b');
    await cp.admin.request('DELETE', `${NAMESPACE}/configmaps/t-line`);
  });
  it('lists again after 410 without a moment of emptiness, and reports what is gone', async () => {
    await put('t-gone', '1');
    await put('t-stays', '1');
    // A server that has just started remembers no history, and etcd's is thrown away.
    await cp.compactEtcd();
    await cp.stopApiServer();
    await cp.startApiServer();
    const errors: unknown[] = [];
    let first = true;
    // The first watch asks the real server for a version that is compacted away; the server's own
    // 410 is what comes back.
    const kube: Kube = {
      ...proxied,
      async stream(path, query, signal) {
        const old = first;
        first = false;
        if (!old) return proxied.stream(path, query, signal);
        const lines = await proxied.stream(path, { ...query, resourceVersion: 1 }, signal).catch((error: unknown) => {
          errors.push(error);
          throw error;
        });
        return (async function* () {
          for await (const line of lines) {
            if (line.includes('"code":410')) errors.push(line);
            yield line;
          }
        })();
      },
    };
    const { watch, changes } = follow('t-', { kube });
    await watch.whenSynced();
    await cp.admin.request('DELETE', `${NAMESPACE}/configmaps/t-gone`);
    await until('the deletion', () => watch.get('default/t-gone') === undefined);
    expect(errors).toHaveLength(1);
    expect(watch.get('default/t-stays')).toBe('1');
    expect(changes.filter((change) => change.startsWith('t-stays'))).toEqual(['t-stays:->1']);
    await cp.admin.request('DELETE', `${NAMESPACE}/configmaps/t-stays`);
  });
  it('a server that goes on answering 410 is not listed in a tight loop', async () => {
    // The history before this is thrown away, so that every watch from version 1 gets the server's
    // own 410.
    await cp.compactEtcd();
    let lists = 0;
    const kube: Kube = {
      ...proxied,
      request: (...call) => {
        lists += 1;
        return proxied.request(...call);
      },
      stream: (path, query, signal) => proxied.stream(path, { ...query, resourceVersion: 1 }, signal),
    };
    const { watch } = follow('t-', { kube });
    await watch.whenSynced();
    await sleep(4000);
    expect(lists).toBeLessThan(12);
    await until('more lists', () => lists > 2);
  });
  it('an object that is not understood is left out alone, and taken once it is', async () => {
    const { watch } = follow('t-odd', {
      trim: ({ metadata: { name }, data }: RawConfigMap) => {
        if (data?.value === 'odd') throw new Error('odd');
        return name.startsWith('t-odd') ? data?.value : undefined;
      },
    });
    await put('t-odd', 'odd');
    await watch.whenSynced();
    await put('t-odd-not', '1');
    await until('the other one', () => watch.get('default/t-odd-not') === '1');
    expect(watch.get('default/t-odd')).toBeUndefined();
    await put('t-odd', '2');
    await until('the corrected one', () => watch.get('default/t-odd') === '2');
    await put('t-odd', 'odd');
    await until('it to be left out again', () => watch.get('default/t-odd') === undefined);
  });
  it('goes on after the API server was restarted', async () => {
    const { watch } = follow('t-restart');
    await watch.whenSynced();
    await cp.stopApiServer();
    const before = watch.lastContact();
    await cp.startApiServer();
    await put('t-restart', 'after');
    await until('the value after the restart', () => watch.get('default/t-restart') === 'after');
    expect(watch.lastContact()).toBeGreaterThan(before);
  });
  it('takes a kind that is not installed for an empty collection, until it is there', async () => {
    let absent = 0;
    const watch = reflector<string>({
      kube: proxied,
      log,
      path: '/apis/example.com/v1/things',
      optional: true,
      absentMs: 100,
      onAbsent: () => (absent += 1),
      trim: (raw: RawConfigMap) => raw.metadata.name,
    });
    watch.start(stop.signal);
    await watch.whenSynced();
    expect(watch.size).toBe(0);
    const version = { name: 'v1', served: true, storage: true, schema: { openAPIV3Schema: { type: 'object' } } };
    await cp.admin.request('POST', '/apis/apiextensions.k8s.io/v1/customresourcedefinitions', {
      body: {
        apiVersion: 'apiextensions.k8s.io/v1',
        kind: 'CustomResourceDefinition',
        metadata: { name: 'things.example.com' },
        spec: {
          group: 'example.com',
          names: { kind: 'Thing', plural: 'things' },
          scope: 'Cluster',
          versions: [version],
        },
      },
    });
    await until('the CRD to be served', () =>
      cp.admin.request('POST', '/apis/example.com/v1/things', {
        body: { apiVersion: 'example.com/v1', kind: 'Thing', metadata: { name: 'x' } },
      }),
    );
    await until('the thing', () => watch.get('x') === 'x');
    expect(absent).toBe(1);
  });
});

describe('an Event', () => {
  it('reported again is counted and stays one Event', async () => {
    const { metadata } = await cp.admin.request<{ metadata: { name: string; uid: string } }>(
      'POST',
      `${NAMESPACE}/configmaps`,
      { body: { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'reported' } } },
    );
    let now = Date.now();
    const events = applier({
      kube: cp.admin,
      metrics: reconcilerMetrics(new Registry()),
      leads: () => true,
      now: () => now,
      instance: 'test',
      standing: () => undefined,
    });
    for (let i = 0; i < 3; i += 1) {
      await events.apply({
        kind: 'event',
        about: { kind: 'Pod', namespace: 'default', ...metadata },
        type: 'Normal',
        reason: 'Reported',
        message: 'x',
      });
      now += 60_000;
    }
    const { items } = await cp.admin.request<{
      items: { count: number; firstTimestamp: string; lastTimestamp: string }[];
    }>('GET', `${NAMESPACE}/events`, { query: { fieldSelector: 'reason=Reported' } });
    expect(items.map(({ count }) => count)).toEqual([3]);
    expect(Date.parse(items[0]?.lastTimestamp ?? '') - Date.parse(items[0]?.firstTimestamp ?? '')).toBe(120_000);
  });
});

describe('a Lease election', () => {
  const participant = (
    name: string,
    identity: string,
    more: object = {},
  ): { leader: Leadership; end: AbortController; ran: Promise<void> } => {
    const leader = leaseElection({
      kube: cp.admin,
      namespace: 'default',
      name,
      identity,
      durationMs: 1500,
      log,
      ...more,
    });
    const end = new AbortController();
    return { leader, end, ran: leader.run(end.signal) };
  };
  it('has one leader; when that one stops, the other takes over at once', async () => {
    // An hour would have to pass if the Lease was not given back.
    const durationMs = 3_600_000;
    const a = participant('one', 'a', { durationMs });
    await until('a to lead', () => a.leader.held);
    let looks = 0;
    const kube: Kube = { ...cp.admin, request: (...call) => ((looks += 1), cp.admin.request(...call)) };
    const b = participant('one', 'b', { kube });
    await until('b to look twice', () => looks > 1);
    expect([a.leader.held, b.leader.held]).toEqual([true, false]);
    a.end.abort();
    await a.ran;
    await until('b to lead', () => b.leader.held);
    b.end.abort();
    await b.ran;
  });
  it('who reads that it leads no more makes the others hear it, also where the next renewal is about to come', async () => {
    let ahead = 0;
    // Neither renewal nor watchdog comes within the hour.
    const durationMs = 3_600_000;
    const { leader, end, ran } = participant('late', 'a', { durationMs, now: () => Date.now() + ahead });
    const heard: boolean[] = [];
    leader.onChange((held) => heard.push(held));
    await until('a to lead', () => leader.held);
    ahead = durationMs;
    expect([leader.held, ...heard]).toEqual([false, true, false]);
    ahead = 0;
    expect([leader.held, ...heard]).toEqual([true, true, false, true]);
    end.abort();
    await ran;
  });
  it('a holder that was stopped past its lease and goes on knows at once that it leads no more', async () => {
    const child = spawn(process.execPath, [
      join(import.meta.dirname, '../../support/lease-holder.ts'),
      cp.kubeconfig,
      'two',
      'a',
    ]);
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
    await until('a to lead', () => output.includes('held true'));
    const b = participant('two', 'b');
    child.kill('SIGSTOP');
    await until('b to lead', () => b.leader.held);
    child.kill('SIGCONT');
    await until('a to say what it believes', () => output.includes('continued'));
    expect(output).toContain('continued false');
    expect(output).not.toContain('continued true');
    child.kill('SIGKILL');
    b.end.abort();
    await b.ran;
  });
  it('a leader that cannot reach the API server leads no more after its renewal deadline', async () => {
    const own = await tcpProxy(Number(new URL(cp.server).port));
    const a = participant('five', 'a', {
      kube: await openKube({ kubeconfig: cp.kubeconfig, server: `https://127.0.0.1:${own.port}`, userAgent: 'test' }),
    });
    await until('a to lead', () => a.leader.held);
    const lost = new Promise<boolean>((resolve) => a.leader.onChange(resolve));
    await own.close();
    expect(await lost).toBe(false);
    expect(a.leader.held).toBe(false);
    a.end.abort();
    await a.ran;
  });
  it('two that begin at once: never two leaders', async () => {
    let looks = 0;
    const kube: Kube = { ...cp.admin, request: (...call) => ((looks += 1), cp.admin.request(...call)) };
    const all = ['x', 'y', 'z'].map((identity) => participant('three', identity, { kube }));
    let most = 0;
    // Each has come around several times by then.
    await until('thirty calls and a leader', () => {
      most = Math.max(most, all.filter(({ leader }) => leader.held).length);
      return looks >= 30 && most > 0;
    });
    expect(most).toBe(1);
    for (const { end } of all) end.abort();
    await Promise.all(all.map(({ ran }) => ran));
  });
  const LEASES = '/apis/coordination.k8s.io/v1/namespaces/default/leases';
  const deadHolder = (name: string): Promise<unknown> =>
    cp.admin.request('POST', LEASES, {
      body: {
        apiVersion: 'coordination.k8s.io/v1',
        kind: 'Lease',
        metadata: { name, namespace: 'default' },
        spec: { holderIdentity: 'dead', leaseDurationSeconds: 1, renewTime: '2020-01-01T00:00:00.000000Z' },
      },
    });
  it('a clock set back does not prolong a claim', async () => {
    const own = await tcpProxy(Number(new URL(cp.server).port));
    let offset = 0;
    const a = participant('back', 'a', {
      kube: await openKube({ kubeconfig: cp.kubeconfig, server: `https://127.0.0.1:${own.port}`, userAgent: 'test' }),
      now: () => Date.now() + offset,
    });
    await until('a to lead', () => a.leader.held);
    await own.close();
    offset = -3_600_000;
    await until('a to lead no more', () => !a.leader.held);
    a.end.abort();
    await a.ran;
  });
  it('a clock set forward takes nothing over', async () => {
    let offset = 0;
    // An hour, which the other one's clock passes at every look.
    const a = participant('forward', 'a', { durationMs: 3_600_000 });
    await until('a to lead', () => a.leader.held);
    let looks = 0;
    const kube: Kube = {
      ...cp.admin,
      request: (...call) => ((looks += 1), (offset += 7_200_000), cp.admin.request(...call)),
    };
    const b = participant('forward', 'b', { kube, now: () => Date.now() + offset });
    const seen = new Set<string>();
    await until('ten looks', () => {
      seen.add(`${a.leader.held} ${b.leader.held}`);
      return looks >= 10;
    });
    expect([...seen]).toEqual(['true false']);
    for (const { end } of [a, b]) end.abort();
    await Promise.all([a.ran, b.ran]);
  });
  it('a holder with a longer duration is given it, as while the option is changed', async () => {
    const own = await tcpProxy(Number(new URL(cp.server).port));
    const a = participant('longer', 'a', {
      kube: await openKube({ kubeconfig: cp.kubeconfig, server: `https://127.0.0.1:${own.port}`, userAgent: 'test' }),
      durationMs: 6000,
    });
    await until('a to lead', () => a.leader.held);
    const b = participant('longer', 'b');
    await own.close();
    while (!b.leader.held) {
      await sleep(20);
      expect([a.leader.held, b.leader.held]).not.toEqual([true, true]);
    }
    for (const { end } of [a, b]) end.abort();
    await Promise.all([a.ran, b.ran]);
  });
  it('changes of a Lease that are no renewal do not prolong it', async () => {
    await deadHolder('touched');
    const a = participant('touched', 'a');
    let touches = 0;
    await until('a to lead', async () => {
      if (a.leader.held) return true;
      touches += 1;
      await cp.admin.request('PATCH', `${LEASES}/touched`, {
        contentType: 'application/merge-patch+json',
        body: { metadata: { annotations: { touched: String(touches) } } },
      });
      return false;
    });
    a.end.abort();
    await a.ran;
  });
  it('a dead holder is followed after its duration, by local observation', async () => {
    await deadHolder('four');
    const seen: string[] = [];
    const kube: Kube = { ...cp.admin, request: (...call) => (seen.push(call[0]), cp.admin.request(...call)) };
    const a = participant('four', 'a', { kube });
    await until('a to lead', () => a.leader.held);
    // It looked more than once before it wrote, though the record says that it ran out years ago.
    expect(seen.indexOf('PUT')).toBeGreaterThan(1);
    a.end.abort();
    await a.ran;
  });
});
