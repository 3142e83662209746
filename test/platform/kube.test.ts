// The client against a server of the test's own on loopback: what is sent, what is sent again, and
// what is asked before that.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { openKube, type Kube } from '../../platform/kube.ts';
import { loopbackApi, type LoopbackApi } from '../support/loopback-api.ts';

let api: LoopbackApi;
let kube: Kube;
/** Of the next calls; 200 once they are used up. */
let statuses: number[] = [];

beforeAll(async () => {
  api = await loopbackApi(() => [statuses.shift() ?? 200]);
  kube = await openKube({ kubeconfig: api.kubeconfig({ token: 't' }), userAgent: 'test' });
});
afterAll(() => api.stop());

it('asks before each attempt, also before a retry after 429', async () => {
  statuses = [429, 429];
  const before = api.calls.length;
  let asked = 0;
  await kube.request('PATCH', '/x', { body: {}, beforeAttempt: () => void (asked += 1) });
  expect([asked, api.calls.length - before]).toEqual([3, 3]);
});

it('sends nothing again once that throws', async () => {
  statuses = [429, 429];
  const before = api.calls.length;
  const lost = new Error('not leading any more');
  const beforeAttempt = (): void => {
    if (api.calls.length > before) throw lost;
  };
  await expect(kube.request('PATCH', '/x', { body: {}, beforeAttempt })).rejects.toBe(lost);
  expect(api.calls.length - before).toBe(1);
});

it.each([
  ['in the kubeconfig', () => ({ token: 'secret\n' })],
  [
    'in a file of its own',
    () => ({ 'auth-provider': { name: 'tokenFile', config: { tokenFile: api.write('token', 'secret\n') } } }),
  ],
])('a token that ends with a newline %s is sent without it', async (_, user) => {
  statuses = [];
  const client = await openKube({ kubeconfig: api.kubeconfig(user()), userAgent: 'test' });
  await client.request('GET', '/x');
  expect(api.calls.at(-1)?.authorization).toBe('Bearer secret');
});
