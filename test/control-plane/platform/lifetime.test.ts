import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { until } from '../../../lab/cluster/gate.ts';
import { openLifetime } from '../../../lab/cluster/lifetime.ts';
import { service } from '../../../lab/cluster/service.ts';
import { commandLines } from '../../../lab/real-node/machine.ts';

it('a supervised process comes back when it ends, but not during the stop of its lifetime', async () => {
  const alive = (): number => commandLines().filter((line) => line === 'sleep 987321').length;
  const lifetime = openLifetime('service');
  // Stopped last, as what was started first: time enough for a supervisor to start another process.
  lifetime.onStop(() => sleep(1000));
  const sleeper = service(lifetime, 'sleeper', 'sleep', ['987321'], {});
  sleeper.start();
  await until('it to run', () => alive() === 1);
  await sleeper.end(1000);
  expect(alive()).toBe(0);
  await until('it to come back', () => alive() === 1);
  await lifetime.stop();
  expect(alive()).toBe(0);
});
