// The extender's certificates on a real API server: who is answered, what heals, and a change of
// its CA, which schedulers read once. What comes of each harm is in docs/certificates.md.
import { beforeAll, describe, expect, it } from 'vitest';
import { issueCa, issueLeaf } from '../../../certs/issue.ts';
import { readCert, type CertFacts } from '../../../certs/cert.ts';
import { startSecondScheduler, until } from '../../../lab/cluster/gate.ts';
import { named } from '../../support/schedulers.ts';
import {
  DAY,
  EXTENDER_CA,
  cp,
  gate,
  logged,
  aKeeper,
  settled,
  secret,
  textOf,
  harm,
  remove,
  extenderCas,
  fails,
  expectSound,
  ask,
  ANSWERED,
  schedulerClient,
  began,
  metricsNow,
  restartBy,
  oneExtenderCa,
} from '../../builders/cert-world.ts';

describe('the extender', () => {
  beforeAll(async () => {
    const resources = { cpu: '8', memory: '8Gi', pods: '10', 'nvidia.com/gpu': '8' };
    await cp.admin.request('POST', '/api/v1/nodes', {
      body: { metadata: { name: 'n' }, status: { allocatable: resources, capacity: resources } },
    });
  });

  it('serves only callers that have the client certificate of the Secret', async () => {
    const mine = await schedulerClient();
    const foreign = await issueLeaf(
      await issueCa('foreign', DAY, Date.now()),
      { name: 'gpu-gate-scheduler', sans: [], usage: 'client', life: DAY },
      Date.now(),
    );
    const extenderCa = {
      cert: await textOf('gpu-gate-ca', 'extender-ca.crt'),
      key: await textOf('gpu-gate-ca', 'extender-ca.key'),
    };
    const otherName = await issueLeaf(extenderCa, { name: 'other', sans: [], usage: 'client', life: DAY }, Date.now());
    expect(ANSWERED).toContain(await ask(mine));
    expect(await ask(otherName)).toBe(403);
    for (const client of [{}, foreign]) expect(await ask(client)).toMatch(/ECONNRESET|SSL|EPIPE|ALERT/);
  });

  it('is asked by the real scheduler with it', async () => {
    await cp.admin.request('POST', '/api/v1/namespaces/default/pods', {
      body: {
        metadata: { name: 'asks' },
        spec: {
          schedulerName: 'gpu-gate-scheduler',
          tolerations: [{ operator: 'Exists' }],
          containers: [{ name: 'c', image: 'x', resources: { limits: { 'nvidia.com/gpu': '1' } } }],
        },
      },
    });
    await until('the pod to be bound', async () => {
      const { spec } = await cp.admin.request<{ spec: { nodeName?: string } }>(
        'GET',
        '/api/v1/namespaces/default/pods/asks',
      );
      return spec.nodeName === 'n';
    });
    const asked = /gpu_gate_extender_calls_total\{[^}]*\} [1-9]/;
    expect(await gate.metrics()).toMatch(asked);
  });

  it('does not answer a real scheduler that has none: the pod waits, and says why', async () => {
    await startSecondScheduler(
      cp,
      gate.extenderPort,
      'no-certificate',
      named('no-certificate', ({ tlsConfig: { caFile, serverName }, ...extender }) => ({
        ...extender,
        tlsConfig: { caFile, serverName },
      })),
    );
    await cp.admin.request('POST', '/api/v1/namespaces/default/pods', {
      body: {
        metadata: { name: 'unheard' },
        spec: {
          schedulerName: 'no-certificate',
          tolerations: [{ operator: 'Exists' }],
          containers: [{ name: 'c', image: 'x', resources: { limits: { 'nvidia.com/gpu': '1' } } }],
        },
      },
    });
    const waits = await until('the refusal', async () => {
      const { spec, status } = await cp.admin.request<{
        spec: { nodeName?: string };
        status: { conditions?: { message?: string }[] };
      }>('GET', '/api/v1/namespaces/default/pods/unheard');
      expect(spec.nodeName).toBeUndefined();
      return status.conditions?.find(({ message }) => message?.includes('/filter'))?.message;
    });
    expect(waits).toMatch(/certificate required|bad certificate/);
  });
});

describe('the certificates beside it', () => {
  const truncate = async (name: string): Promise<unknown> =>
    harm(name, { 'tls.crt': (await textOf(name, 'tls.crt')).slice(0, 400) });
  it.each([
    ['the extender deleted', 'gpu-gate-extender-tls', () => remove('gpu-gate-extender-tls')],
    ['the extender corrupted', 'gpu-gate-extender-tls', () => harm('gpu-gate-extender-tls', { 'tls.key': 'AAAA' })],
    ['the extender truncated', 'gpu-gate-extender-tls', () => truncate('gpu-gate-extender-tls')],
    [
      'the extender of a foreign CA',
      'gpu-gate-extender-tls',
      async () => {
        const foreign = await issueCa('foreign', DAY, Date.now());
        const sans = ['gpu-gate-extender.gpu-gate.svc', '127.0.0.1'];
        const leaf = await issueLeaf(foreign, { name: 'x', sans, usage: 'server', life: DAY }, Date.now());
        return harm('gpu-gate-extender-tls', { 'tls.crt': leaf.cert, 'tls.key': leaf.key, 'ca.crt': foreign.cert });
      },
    ],
    ['the client of the scheduler deleted', 'gpu-gate-scheduler-client', () => remove('gpu-gate-scheduler-client')],
    ['the canary deleted', 'gpu-gate-canary-tls', () => remove('gpu-gate-canary-tls')],
  ])('%s: it is issued again by the known CA, and no call fails', async (_, name, doHarm) => {
    const cas = (await extenderCas()).map(({ fingerprint }) => fingerprint);
    await doHarm();
    expect(await settled(aKeeper())).toEqual(name === 'gpu-gate-canary-tls' ? ['issue-canary'] : []);
    expect((await extenderCas()).map(({ fingerprint }) => fingerprint)).toEqual(cas);
    await until('the extender to serve', async () => ANSWERED.includes(Number(await ask(await schedulerClient()))));
    expect(fails(began)).toEqual([]);
    await expectSound();
  });

  it('the ConfigMap with the CA of the extender deleted: the same CA again', async () => {
    const before = (await extenderCas()).map(({ fingerprint }) => fingerprint);
    await cp.admin.request('DELETE', EXTENDER_CA);
    await aKeeper().check();
    expect((await extenderCas()).map(({ fingerprint }) => fingerprint)).toEqual(before);
    await expectSound();
  });
});

describe('the CA of the extender', () => {
  it('due: the previous CA signs until the stated day, then the new CA; callers are served all the time', async () => {
    await oneExtenderCa();
    const made = Date.now() - 300 * DAY;
    const old = await issueCa('aged', 400 * DAY, made);
    const sans = ['gpu-gate-extender.gpu-gate.svc', '127.0.0.1'];
    const serving = await issueLeaf(old, { name: 'e', sans, usage: 'server', life: 90 * DAY }, Date.now());
    const request_ = { name: 'gpu-gate-scheduler', sans: [], usage: 'client', life: 90 * DAY } as const;
    const client = await issueLeaf(old, request_, Date.now());
    await cp.admin.request('PATCH', EXTENDER_CA, {
      contentType: 'application/merge-patch+json',
      body: { data: { 'ca.crt': old.cert } },
    });
    await harm('gpu-gate-ca', { 'extender-ca.crt': old.cert, 'extender-ca.key': old.key });
    const put = { 'tls.crt': serving.cert, 'tls.key': serving.key, 'ca.crt': old.cert };
    await harm('gpu-gate-extender-tls', put);
    await harm('gpu-gate-scheduler-client', { 'tls.crt': client.cert, 'tls.key': client.key, 'ca.crt': old.cert });
    await until('the old one to be served', async () => ANSWERED.includes(Number(await ask(client))));

    const oldCa = readCert(old.cert) as CertFacts;
    const servedBy = async (ca: CertFacts): Promise<boolean> =>
      readCert(await textOf('gpu-gate-extender-tls', 'tls.crt'))?.signedBy(ca) === true;
    const clientBy = async (ca: CertFacts): Promise<boolean> =>
      readCert(await textOf('gpu-gate-scheduler-client', 'tls.crt'))?.signedBy(ca) === true;
    await aKeeper({ caGrace: DAY }).check();
    const [newCa, ...before] = await extenderCas();
    expect(before.map(({ fingerprint }) => fingerprint)).toEqual([oldCa.fingerprint]);
    if (newCa === undefined) throw new Error('no CA');
    expect([await servedBy(oldCa), await clientBy(oldCa)]).toEqual([true, true]);
    expect(restartBy(await metricsNow())).toBeCloseTo(Date.now() / 1000 + 60 * 86_400, -4);
    expect(await metricsNow()).toContain('gpu_gate_certificate_not_after_seconds{certificate="extender-ca-previous"}');
    expect(logged.some((line) => line.includes('restart every scheduler that asks it'))).toBe(true);

    // A certificate that is lost meanwhile is issued again by the CA that schedulers know.
    await remove('gpu-gate-extender-tls');
    await aKeeper({ caGrace: DAY }).check();
    expect(await servedBy(oldCa)).toBe(true);

    // The client certificate follows after the grace time, and the previous one goes on being
    // served.
    const follows = aKeeper();
    await until('a client certificate of the new CA', async () => {
      await follows.check();
      return clientBy(newCa);
    });
    await until('both to be served', async () =>
      (await Promise.all([ask(client), ask(await schedulerClient())])).every((status) =>
        ANSWERED.includes(Number(status)),
      ),
    );
    await aKeeper().check();
    expect([await servedBy(oldCa), (await extenderCas()).length]).toEqual([true, 2]);

    // The day has come.
    const ends = aKeeper({ extenderCaOverlap: 0 });
    await until('the CA of before to be dropped', async () => {
      await ends.check();
      return (await extenderCas()).length === 1;
    });
    await aKeeper().check();
    expect(await servedBy(newCa)).toBe(true);
    expect(Object.keys((await secret('gpu-gate-ca')).data).filter((key) => key.startsWith('extender-ca-'))).toEqual([]);
    expect(restartBy(await metricsNow())).toBeNaN();
    expect(await metricsNow()).not.toContain('extender-ca-previous');
    await until('the old client to be refused', async () => !ANSWERED.includes(Number(await ask(client))));
    expect(ANSWERED).toContain(await ask(await schedulerClient()));
    await expectSound();
  });
});
