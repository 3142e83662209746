// A call that has ended is gone with the next collection of young objects. What survives it is
// copied while every other call waits.
import type { IncomingMessage } from 'node:http';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, it } from 'vitest';
import { intake, placeOf, setPlace } from '../../platform/intake.ts';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as (how?: { readonly type: 'minor' }) => void;

const ROUNDS = 20;
const CALLS = 1000;
const NUMBERS = 100;

it('the place of a call that has ended keeps nothing of the call', () => {
  const limited = intake({ calls: 10, bytes: 1000 });
  const call = (n: number): void => {
    const request = { body: Array.from({ length: NUMBERS }, (_, i) => i + n + 0.5) } as unknown as IncomingMessage;
    const place = limited.admit(() => void request.destroy());
    if (place === undefined) throw new Error('the intake is full');
    setPlace(request, place);
    placeOf(request)?.hold(100);
    place.end();
  };
  const grows: number[] = [];
  collect();
  for (let round = 0; round < ROUNDS; round += 1) {
    const before = process.memoryUsage().heapUsed;
    for (let n = 0; n < CALLS; n += 1) call(n);
    // An object is young for two collections.
    collect({ type: 'minor' });
    collect({ type: 'minor' });
    grows.push(process.memoryUsage().heapUsed - before);
  }
  const median = grows.toSorted((a, b) => a - b)[ROUNDS / 2] ?? NaN;
  // Of 8 bytes for each number of each body.
  expect(median / (CALLS * NUMBERS * 8)).toBeLessThan(0.2);
});
