import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Registry } from 'prom-client';
import { expect, it } from 'vitest';
import { REGISTERED } from '../../app/metrics.ts';

const rules = readFileSync(join(import.meta.dirname, '../../deploy/chart/templates/monitoring.yaml'), 'utf8');
const growing = [...rules.matchAll(/(?:increase|rate)\((gpu_gate_\w+_total)(?:\{([^}]*)\})?\[/g)].map(
  ([, name = '', labels = '']) => ({ name, labels }),
);

it('alerts ask for the growth of counters', () => expect(growing.length).toBeGreaterThan(4));

/** Its reasons are many and come from pods. The alert wants more than three failures of one. */
const OPEN = 'gpu_gate_stage_failures_total';
it.each(growing.filter(({ name }) => name !== OPEN))(
  '$name{$labels}, whose growth an alert asks for, is 0 before the first event',
  async ({ name, labels }) => {
    const registry = new Registry();
    REGISTERED['request path'](registry);
    REGISTERED.reconciler(registry);
    const samples = (await registry.metrics()).split('\n').filter((line) => line.split(/[{ ]/)[0] === name);
    expect(samples.filter((line) => line.includes(labels) && line.endsWith(' 0'))).not.toEqual([]);
  },
);
