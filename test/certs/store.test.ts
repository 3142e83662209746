// The store against a server of the test's own on loopback: no write is sent, or sent again, once
// this replica does not lead. What an API server does with the writes is in
// control-plane/certificates.
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { certStore, WEBHOOK_SECRET, type CertStore, type Stored } from '../../certs/store.ts';
import { openKube } from '../../platform/kube.ts';
import { loopbackApi, type LoopbackApi } from '../support/loopback-api.ts';

let api: LoopbackApi;
let store: CertStore;
let leads = true;
/** Whether a ConfigMap is there to be read. */
let present = true;

const written = (): readonly string[] => api.calls.map(({ method }) => method).filter((method) => method !== 'GET');

beforeAll(async () => {
  // The server puts off every write, and the Lease is lost meanwhile.
  api = await loopbackApi(({ method, path }) => {
    if (method !== 'GET') {
      leads = false;
      return [429];
    }
    return path.includes('/configmaps/') && !present ? [404] : [200, { metadata: { resourceVersion: '1' } }];
  });
  const kube = await openKube({ kubeconfig: api.kubeconfig({ token: 't' }), userAgent: 'test' });
  store = certStore(kube, 'gpu-gate', () => leads);
});
beforeEach(() => {
  present = true;
  (api.calls as unknown[]).length = 0;
});
afterAll(() => api.stop());

const stored = (more: Partial<Stored>): Stored => ({
  resourceVersion: '1',
  type: 'kubernetes.io/tls',
  metadata: { uid: 'u', resourceVersion: '1' },
  data: {},
  ...more,
});
const secret = (more: Partial<Stored>) => () => store.writeSecret(WEBHOOK_SECRET, {}, stored(more));

describe.each<[what: string, first: string, write: () => Promise<unknown>]>([
  ['a new Secret', 'POST', secret({ resourceVersion: undefined, metadata: {} })],
  ['a Secret', 'PUT', secret({})],
  ['a Secret of another type', 'DELETE', secret({ type: 'Opaque' })],
  [
    'a new ConfigMap',
    'POST',
    () => {
      present = false;
      return store.writeConfigMap('ca', { a: 'b' });
    },
  ],
  ['a ConfigMap', 'PUT', () => store.writeConfigMap('ca', { a: 'b' })],
  ['the bundles', 'PUT', () => store.writeBundles('bundle', 'canary')],
])('%s', (_, first, write) => {
  it('is not written by a replica that does not lead', async () => {
    leads = false;
    await expect(write()).rejects.toThrow('not leading any more');
    expect(written()).toEqual([]);
  });
  it('is not sent again by a replica that lost the Lease while the server put the write off', async () => {
    leads = true;
    await expect(write()).rejects.toThrow('not leading any more');
    expect(written()).toEqual([first]);
  });
});
