import { expect, it } from 'vitest';
import { steadyClock } from '../../platform/clock.ts';

it('goes on by elapsed time alone, whatever the wall clock is set to', () => {
  let [wall, elapsed] = [1_000_000, 50];
  const now = steadyClock(
    () => wall,
    () => elapsed,
  );
  expect(now()).toBe(1_000_000);
  wall += 3_600_000;
  expect(now()).toBe(1_000_000);
  elapsed += 250;
  wall -= 7_200_000;
  expect(now()).toBe(1_000_250);
});
