import { Registry } from 'prom-client';
import { expect, it } from 'vitest';
import { STAGES } from '../../core/stages.ts';
import { newestProof } from '../../gate/node-proof.ts';
import { forgetCluster, reconcilerMetrics } from '../../reconciler/metrics.ts';
import { aNode } from '../builders/objects.ts';

it('the depth of the queue is read at the scrape', async () => {
  const registry = new Registry();
  let depth = 3;
  reconcilerMetrics(registry).readDepth(() => depth);
  expect(await registry.metrics()).toMatch(/^gpu_gate_queue_depth 3$/m);
  depth = 0;
  expect(await registry.metrics()).toMatch(/^gpu_gate_queue_depth 0$/m);
});

it('the pods that wait are counted at the scrape', async () => {
  const registry = new Registry();
  const metrics = reconcilerMetrics(registry);
  expect(await registry.metrics()).toMatch(/^gpu_gate_waiting_pods 0$/m);
  metrics.readWaiting(() => 7);
  expect(await registry.metrics()).toMatch(/^gpu_gate_waiting_pods 7$/m);
});

it('the time of each stage is there before its first walk, so that the first counts', async () => {
  const registry = new Registry();
  reconcilerMetrics(registry);
  const text = await registry.metrics();
  for (const stage of STAGES)
    expect(text).toMatch(new RegExp(`^gpu_gate_stage_seconds_count\\{stage="${stage}"\\} 0$`, 'm'));
});

it.each([
  ['reconcile_errors_total', 'kind="device-taint"'],
  ['writes_total', 'kind="evict-pod",result="error"'],
  ['rejected_pods_total', 'reason="UnexpectedAdmissionError"'],
  ['rejected_pods_total', 'reason="OutOfGPU"'],
  ['evictions_total', 'result="refused"'],
])('%s{%s} is 0 before its first event, so that an alert sees the increase', async (name, labels) => {
  const registry = new Registry();
  reconcilerMetrics(registry);
  expect(await registry.metrics()).toContain(`gpu_gate_${name}{${labels}} 0\n`);
});

it('a replica that no longer leads reports nothing about the cluster', async () => {
  const registry = new Registry();
  const metrics = reconcilerMetrics(registry);
  metrics.nodes.set({ state: 'failed', policy: 'default' }, 2);
  for (const gauge of [metrics.open, metrics.breaker, metrics.pendingGates]) gauge.set(4);
  forgetCluster(metrics);
  const text = await registry.metrics();
  expect(text).not.toContain('state="failed"');
  for (const name of ['open_nodes', 'breaker_tripped', 'gates_pending'])
    expect(text).toMatch(new RegExp(`^gpu_gate_${name} 0$`, 'm'));
});

it('the last validation is the newest proof', () => {
  const at = (time: string) =>
    aNode({ annotations: { 'gpu-gate.dev/proof': JSON.stringify({ node: 'n', boot: 'b', at: time }) } });
  expect(
    newestProof([
      at('2026-11-24T09:00:00Z'),
      at('2026-11-24T09:30:00Z'),
      aNode({ annotations: { 'gpu-gate.dev/proof': '' } }),
    ]),
  ).toBe(Date.parse('2026-11-24T09:30:00Z'));
  expect(newestProof([])).toBe(0);
});
