// Counters whose labels take few known values.
import type { Counter } from 'prom-client';

/**
 * The counter with every one of these sets of labels at 0: Prometheus sees no increase from nothing
 * to the first event.
 */
export function fromZero<L extends string>(counter: Counter<L>, sets: Iterable<Record<L, string>>): Counter<L> {
  for (const labels of sets) counter.inc(labels, 0);
  return counter;
}
