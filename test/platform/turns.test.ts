import { IncomingMessage } from 'node:http';
import { Socket } from 'node:net';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { readBody } from '../../platform/body.ts';
import { intake, setPlace } from '../../platform/intake.ts';
import { turns } from '../../platform/turns.ts';

it('one work in a turn of the event loop, in order, whatever one of them throws', async () => {
  const inTurn = turns();
  const seen: string[] = [];
  const thrown: unknown[] = [];
  const listeners = process.listeners('uncaughtException');
  process.removeAllListeners('uncaughtException');
  process.once('uncaughtException', (error) => thrown.push(error.message));
  inTurn(() => {
    seen.push('first');
    inTurn(() => void seen.push('last'));
    throw new Error('fault');
  });
  inTurn(() => void seen.push('second'));
  for (let turn = 1; turn <= 3; turn += 1) {
    await nextTurn();
    seen.push(`turn ${turn}`);
  }
  for (const listener of listeners) process.on('uncaughtException', listener);
  expect(thrown).toEqual(['fault']);
  expect(seen).toEqual(['first', 'turn 1', 'second', 'turn 2', 'last', 'turn 3']);
});

const callOf = (bytes: number): IncomingMessage => {
  const call = new IncomingMessage(new Socket());
  // As the parser sets it: a call that is not complete counts as one that was broken off.
  call.complete = true;
  call.push(Buffer.alloc(bytes));
  call.push(null);
  return call;
};
const LARGE = 1_000_000;

it('a small call that arrives while large ones wait is answered before the next of them', async () => {
  const answered: string[] = [];
  for (const name of ['large 1', 'large 2', 'large 3'])
    readBody(callOf(LARGE), 2 * LARGE, () => {
      answered.push(name);
      if (name === 'large 1') readBody(callOf(100), 2 * LARGE, () => void answered.push('small'));
    });
  for (let turn = 0; turn < 5; turn += 1) await nextTurn();
  expect(answered).toEqual(['large 1', 'small', 'large 2', 'large 3']);
});

it('a large call that is given up while it waits is answered once', async () => {
  const limited = intake({ calls: 10, bytes: 1.5 * LARGE });
  const answered: [string, boolean][] = [];
  for (const [name, bytes] of [
    ['large', LARGE],
    ['larger', 1.2 * LARGE],
  ] as const) {
    const call = callOf(bytes);
    const place = limited.admit(() => undefined);
    if (place !== undefined) setPlace(call, place);
    readBody(call, 2 * LARGE, ({ ok }) => void answered.push([name, ok]));
  }
  for (let turn = 0; turn < 5; turn += 1) await nextTurn();
  expect(answered).toEqual([
    ['larger', false],
    ['large', true],
  ]);
});
