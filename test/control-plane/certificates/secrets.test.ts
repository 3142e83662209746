// Every way in which the webhook's Secrets may be harmed, on a real API server with
// `failurePolicy: Fail` and a steady load of calls. What comes of it is in docs/certificates.md.
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { issueCa, issueLeaf } from '../../../certs/issue.ts';
import { readCert, type CertFacts, type KeyPair } from '../../../certs/cert.ts';
import { openKube } from '../../../platform/kube.ts';
import { until } from '../../../lab/cluster/gate.ts';
import {
  DAY,
  SANS,
  SECRETS,
  EXTENDER_CA,
  CONFIGURATION,
  cp,
  gate,
  leaderKube,
  logged,
  registries,
  keys,
  aKeeper,
  settled,
  tenCalls,
  secret,
  textOf,
  harm,
  remove,
  note,
  extenderCas,
  fails,
  expectSound,
  began,
  saidBy,
  metricsNow,
  restartBy,
  oneExtenderCa,
} from '../../builders/cert-world.ts';

describe('a Secret of the webhook', () => {
  it.each([
    ['deleted', () => remove('gpu-gate-webhook-tls')],
    ['corrupted', () => harm('gpu-gate-webhook-tls', { 'tls.key': 'AAAA' })],
    [
      'truncated',
      async () =>
        harm('gpu-gate-webhook-tls', { 'tls.crt': (await textOf('gpu-gate-webhook-tls', 'tls.crt')).slice(0, 400) }),
    ],
    [
      'with a wrong name',
      async () => {
        const ca = { cert: await textOf('gpu-gate-ca', 'tls.crt'), key: await textOf('gpu-gate-ca', 'tls.key') };
        const leaf = await issueLeaf(
          ca,
          { name: 'x', sans: ['elsewhere.svc'], usage: 'server', life: DAY },
          Date.now(),
        );
        return harm('gpu-gate-webhook-tls', { 'tls.crt': leaf.cert, 'tls.key': leaf.key });
      },
    ],
  ])('%s: it is issued again, the last good one is served meanwhile, and no call fails', async (_, doHarm) => {
    await doHarm();
    expect(await settled(aKeeper())).toEqual(['issue-leaf']);
    expect(fails(began)).toEqual([]);
    await expectSound();
  });

  it('of a foreign CA: replicas keep one that callers trust, it is issued again, and no call fails', async () => {
    const foreign = await issueCa('foreign', DAY, Date.now());
    const leaf = await issueLeaf(foreign, { name: 'x', sans: SANS, usage: 'server', life: DAY }, Date.now());
    const said = saidBy('gpu-gate', 'no CA of the webhook configuration signed it');
    const before = said();
    await harm('gpu-gate-webhook-tls', { 'tls.crt': leaf.cert, 'tls.key': leaf.key, 'ca.crt': foreign.cert });
    await until('the replica to say why not', () => said() > before);
    await tenCalls();
    expect(await settled(aKeeper())).toEqual(['issue-leaf']);
    expect(fails(began)).toEqual([]);
    await expectSound();
  });

  it('of a foreign CA that callers come to trust: taken then', async () => {
    const foreign = await issueCa('foreign', 400 * DAY, Date.now());
    const leaf = await issueLeaf(foreign, { name: 'x', sans: SANS, usage: 'server', life: 90 * DAY }, Date.now());
    const said = saidBy('gpu-gate', 'no CA of the webhook configuration signed it');
    const taken = saidBy('gpu-gate', 'certificate in use');
    const before = [said(), taken()] as const;
    await harm('gpu-gate-webhook-tls', { 'tls.crt': leaf.cert, 'tls.key': leaf.key });
    await until('the replica to say why not', () => said() > before[0]);
    await cp.admin.request('PATCH', CONFIGURATION, {
      contentType: 'application/json-patch+json',
      body: [
        { op: 'add', path: '/webhooks/0/clientConfig/caBundle', value: Buffer.from(foreign.cert).toString('base64') },
      ],
    });
    await until('the replica to take it', () => taken() > before[1]);
    await settled(aKeeper());
    await expectSound();
  });
});

describe('what others do to a Secret', () => {
  it('labels and annotations of others survive a write', async () => {
    await harm('gpu-gate-webhook-tls', { 'tls.key': 'AAAA' });
    await cp.admin.request('PATCH', `${SECRETS}/gpu-gate-webhook-tls`, {
      contentType: 'application/merge-patch+json',
      body: { metadata: { labels: { theirs: 'a' }, annotations: { 'their.tool/note': 'b' } } },
    });
    expect(await settled(aKeeper())).toEqual(['issue-leaf']);
    const { metadata } = await secret('gpu-gate-webhook-tls');
    expect(metadata.labels).toMatchObject({ theirs: 'a', 'app.kubernetes.io/part-of': 'gpu-gate' });
    expect(metadata.annotations).toMatchObject({ 'their.tool/note': 'b' });
    await expectSound();
  });

  it('one of another type gets the standard one, labels of others with it', async () => {
    await remove('gpu-gate-webhook-tls');
    await cp.admin.request('POST', SECRETS, {
      body: { metadata: { name: 'gpu-gate-webhook-tls', labels: { theirs: 'a' } }, type: 'Opaque', data: {} },
    });
    expect(await settled(aKeeper())).toEqual(['issue-leaf']);
    const { type, metadata } = await secret('gpu-gate-webhook-tls');
    expect([type, metadata.labels?.['theirs']]).toEqual(['kubernetes.io/tls', 'a']);
    expect(fails(began)).toEqual([]);
    await expectSound();
  });
});

describe('the Secret of the CA', () => {
  const foreignCa = (): Promise<KeyPair> => issueCa('foreign', 5 * 365 * DAY, Date.now());
  it.each([
    ['deleted', () => remove('gpu-gate-ca')],
    ['corrupted', () => harm('gpu-gate-ca', { 'tls.crt': 'junk', 'tls.key': 'junk' })],
    ['without its key', () => harm('gpu-gate-ca', { 'tls.key': '' })],
    [
      'truncated',
      async () => harm('gpu-gate-ca', { 'tls.crt': (await textOf('gpu-gate-ca', 'tls.crt')).slice(0, 400) }),
    ],
    [
      'deleted together with that of the webhook',
      async () => {
        await remove('gpu-gate-ca');
        await remove('gpu-gate-webhook-tls');
      },
    ],
  ])('%s: a new CA, both trusted until nothing of the old one is served, no call fails', async (_, doHarm) => {
    await doHarm();
    const steps = await settled(aKeeper());
    expect(steps.filter((kind) => kind !== 'issue-canary')).toEqual([
      'make-ca',
      'publish',
      'confirm',
      'issue-leaf',
      'retire',
      'drop-old',
      'publish',
    ]);
    expect(fails(began)).toEqual([]);
    await expectSound();
  });

  it('deleted: schedulers that read the CA of the extender before go on', async () => {
    await oneExtenderCa();
    const [before] = await extenderCas();
    const served = await textOf('gpu-gate-extender-tls', 'tls.crt');
    await remove('gpu-gate-ca');
    // Also where the ConfigMap is lost with it: the CA is beside the certificate too.
    await cp.admin.request('DELETE', EXTENDER_CA);
    await settled(aKeeper());
    const after = await extenderCas();
    expect(after).toHaveLength(2);
    expect(after[1]?.fingerprint).toBe(before?.fingerprint);
    expect(await textOf('gpu-gate-extender-tls', 'tls.crt')).toBe(served);
    expect(readCert(served)?.signedBy(after[1] as CertFacts)).toBe(true);
    const shown = await metricsNow();
    expect(shown).toContain('gpu_gate_extender_ca_certificates 2');
    expect(shown).toMatch(/gpu_gate_certificate_left_seconds\{certificate="extender"\} 77\d{5}/);
    // Its key is lost with it: a day before the end of what is served.
    expect(restartBy(shown)).toBeCloseTo(((readCert(served)?.to ?? 0) - DAY) / 1000, -1);
  });

  it('replaced by a foreign CA: taken over as a change of CA, no call fails', async () => {
    const ca = await foreignCa();
    await harm('gpu-gate-ca', { 'tls.crt': ca.cert, 'tls.key': ca.key });
    const steps = await settled(aKeeper());
    expect(steps.filter((kind) => kind !== 'issue-canary')).toEqual([
      'adopt',
      'publish',
      'confirm',
      'issue-leaf',
      'retire',
      'drop-old',
      'publish',
    ]);
    expect(fails(began)).toEqual([]);
    expect(await textOf('gpu-gate-ca', 'tls.crt')).toBe(ca.cert);
    await expectSound();
  });
});

describe('secrets', () => {
  it('are of the standard type, and the request path cannot read those of the CA', async () => {
    await aKeeper().check();
    for (const name of ['ca', 'webhook-tls', 'canary-tls', 'extender-tls', 'scheduler-client']) {
      const { type, data } = await secret(`gpu-gate-${name}`);
      expect([type, Object.keys(data).includes('tls.crt'), Object.keys(data).includes('tls.key')]).toEqual([
        'kubernetes.io/tls',
        true,
        true,
      ]);
    }
    const requestPath = await openKube({
      kubeconfig: await cp.serviceAccountKubeconfig('gpu-gate', 'gpu-gate'),
      userAgent: 'test',
    });
    const own = { query: { fieldSelector: 'metadata.name=gpu-gate-webhook-tls' } };
    await requestPath.request('GET', SECRETS, own);
    for (const denied of ['gpu-gate-ca', 'gpu-gate-scheduler-client'])
      await expect(requestPath.request('GET', `${SECRETS}/${denied}`)).rejects.toThrow('forbidden');
    await expect(requestPath.request('GET', SECRETS)).rejects.toThrow('forbidden');
    await expect(leaderKube.request('GET', SECRETS)).rejects.toThrow('forbidden');
    await expect(leaderKube.request('DELETE', `${SECRETS}/gpu-gate-ca`)).rejects.toThrow('forbidden');
  });

  it('private keys are in no log, metric or event', async () => {
    // All keys but the CA's are made again, one after the other.
    const names = ['webhook-tls', 'canary-tls', 'extender-tls', 'scheduler-client'];
    const made = async (name: string): Promise<void> => {
      const keeper = aKeeper();
      await until(`${name} to be made again`, async () => {
        await keeper.check();
        return (await textOf(`gpu-gate-${name}`, 'tls.key')).includes('PRIVATE KEY');
      });
    };
    for (const name of names) {
      await remove(`gpu-gate-${name}`);
      await made(name);
    }
    await note();
    const events = await cp.admin.request('GET', '/api/v1/events');
    const shown = [
      ...logged,
      ...(await Promise.all(registries.map((registry) => registry.metrics()))),
      await gate.metrics(),
      JSON.stringify(events),
      ...['gpu-gate', 'gpu-gate-reconciler'].map((name) => readFileSync(`${cp.dir}/${name}.log`, 'utf8')),
    ].join('\n');
    expect(logged.length).toBeGreaterThan(0);
    // Each of the four was there twice.
    expect(keys.size).toBeGreaterThan(8);
    // Any one line of a key would be too much.
    const lines = [...keys].flatMap((key) => key.split('\n').filter((line) => line.length >= 60));
    // As a Secret carries them: any 64 characters of it.
    const encoded = [...keys].flatMap((key) => Buffer.from(key).toString('base64').match(/.{64}/g)?.slice(1) ?? []);
    expect(encoded.filter((piece) => shown.includes(piece))).toEqual([]);
    expect(lines.length).toBeGreaterThan(8);
    expect(lines.filter((line) => shown.includes(line))).toEqual([]);
    expect(shown).not.toContain('PRIVATE KEY');
  });
});
