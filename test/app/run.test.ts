// The life of a process: parts start in order and stop in reverse, and no part dies in silence.
import { Registry } from 'prom-client';
import { expect, it } from 'vitest';
import type { Part } from '../../app/part.ts';
import { runParts } from '../../app/run.ts';
import { freePort } from '../../lab/cluster/control-plane.ts';
import { jsonLog } from '../../platform/log.ts';

interface Played extends Part {
  die(error?: Error): void;
}

function world() {
  const happened: string[] = [];
  const part = (name: string, more: Partial<Part> = {}): Played => {
    const ended = Promise.withResolvers<void>();
    return {
      name,
      notReady: () => [],
      watchAges: () => ({ [`${name}-watch`]: 2000 }),
      drain: () => void happened.push(`drain ${name}`),
      async stop() {
        happened.push(`stop ${name}`);
        ended.resolve();
      },
      ended: ended.promise,
      die: (error) => (error === undefined ? ended.resolve() : ended.reject(error)),
      ...more,
    };
  };
  return { happened, part };
}

async function start(parts: readonly Part[], fail?: Error) {
  const metricsPort = await freePort();
  const stop = new AbortController();
  const logged: string[] = [];
  const ran = runParts(
    {
      options: { metricsPort, bindAddress: '127.0.0.1', drain: 0 },
      log: jsonLog('info', (line) => logged.push(line)),
      registry: new Registry(),
      stop: stop.signal,
      server: 'none',
    },
    async (add) => {
      for (const part of parts) add(part);
      if (fail !== undefined) throw fail;
    },
  );
  const get = async (path: string): Promise<readonly [number, string]> => {
    const response = await fetch(`http://127.0.0.1:${metricsPort}${path}`);
    return [response.status, await response.text()];
  };
  return { ran, stop, get, logged };
}

it('a stop drains all parts, then stops them in reverse', async () => {
  const { happened, part } = world();
  const { ran, stop, get } = await start([part('caches', {}), part('webhook')]);
  await expect.poll(() => get('/readyz')).toEqual([200, 'ok\n']);
  expect((await get('/metrics'))[1]).toContain('gpu_gate_watch_age_seconds{watch="webhook-watch"} 2');
  stop.abort();
  await ran;
  expect(happened).toEqual(['drain caches', 'drain webhook', 'stop webhook', 'stop caches']);
});

it('is not ready while a part is not, and says why', async () => {
  const { ran, stop, get } = await start([world().part('webhook', { notReady: () => ['no certificate yet'] })]);
  await expect.poll(() => get('/readyz')).toEqual([503, 'no certificate yet\n']);
  expect(await get('/healthz')).toEqual([200, 'ok\n']);
  stop.abort();
  await ran;
});

it.each([
  ['with an error', new Error('the loop broke'), 'the loop broke'],
  ['without one', undefined, 'the part leader died'],
])('a part that dies %s fails liveness, stops the others and rejects', async (_, error, says) => {
  const { happened, part } = world();
  const stopping = Promise.withResolvers<void>();
  const slow = part('webhook', { stop: () => stopping.promise });
  const leader = part('leader');
  const { ran, get, logged } = await start([slow, leader]);
  const ended = ran.then(
    () => 'in peace',
    (reason: unknown) => String(reason),
  );
  await expect.poll(() => get('/readyz')).toEqual([200, 'ok\n']);
  leader.die(error);
  await expect.poll(() => get('/healthz')).toEqual([500, 'the part leader died\n']);
  expect(await get('/readyz')).toEqual([503, 'stopping\n']);
  stopping.resolve();
  expect(await ended).toBe('Error: the part leader died');
  expect(happened).toEqual(['drain webhook', 'drain leader', 'stop leader']);
  expect(logged.join('')).toContain(says);
});

it('a part that does not start stops those that did, and rejects', async () => {
  const { happened, part } = world();
  const { ran } = await start([part('caches')], new Error('port 8443 is in use'));
  await expect(ran).rejects.toThrow('port 8443 is in use');
  expect(happened).toEqual(['stop caches']);
});
