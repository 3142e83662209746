import { expect, it } from 'vitest';
import { load, measurements } from '../../bench/reports/measurements.ts';

it('there are the measurements that the documents name', () =>
  expect(measurements()).toEqual(expect.arrayContaining(['admission', 'churn', 'extender', 'scheduling', 'webhook'])));

// `npm run bench` without a name runs them all: one that cannot be run would end it.
it.each(measurements())('%s can be run', async (name) => expect(typeof (await load(name)).run).toBe('function'));
