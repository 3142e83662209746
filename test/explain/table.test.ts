import { NO_DEVICES } from '../../gate/devices.ts';
import { describe, expect, it } from 'vitest';
import { printableJson } from '../../core/printable.ts';
import { explanationText } from '../../explain/table.ts';
import { explainPod } from '../../explain/explanation.ts';
import { aNode, aPod, aPolicy } from '../builders/objects.ts';

const EVIL = '\u001B]0;owned\u0007\u001B[2J\u001B[1;1H\u001B[32mall nodes open\u001B[0m\u009B2J\u202E';

describe('explain: what others wrote', () => {
  // Every text that the author of a pod or a writer of a node's status can put before a reader.
  const record = { policy: EVIL, injected: [EVIL], skipped: [{ what: 'x\nNODE  STATE  VERDICT', because: EVIL }] };
  const pod = aPod({
    gpus: '1',
    annotations: { 'gpu-gate.dev/injection': JSON.stringify(record) },
    spec: { schedulerName: `x${EVIL}` },
    container: { env: [{ name: 'NVIDIA_REQUIRE_CUDA', value: `cuda>=${EVIL}` }] },
  });
  const node = aNode({ name: 'n1', annotations: { 'gpu-gate.dev/closed': EVIL } });
  const unready = {
    ...aNode({ name: 'n2' }),
    status: { ...node.status, conditions: [{ type: 'Ready', status: 'False', message: `${EVIL}\nsecond line` }] },
  };
  const explanation = explainPod({
    pod,
    nodes: [node, unready],
    policies: new Map([['default', aPolicy()]]),
    devices: NO_DEVICES,
    unread: [],
    operandNamespace: 'o',
    webhookWould: EVIL,
  });
  it.each([
    ['text', explanationText(explanation)],
    ['JSON', printableJson(explanation)],
  ])('cannot steer the terminal: %s', (_, text) => {
    expect(text.replaceAll('\n', '')).not.toMatch(/[\p{Cc}\p{Cf}]/u);
    expect(text).toContain('all nodes open');
  });
  it('makes no line of its own', () => expect(explanationText(explanation).match(/^NODE +STATE/gm)).toHaveLength(1));
});

it('at many nodes, one that nothing is like has a line of its own', () => {
  const alike = Array.from({ length: 30 }, (_, i) => aNode({ name: `gpu-${i}` }));
  const text = explanationText(
    explainPod({
      pod: aPod({ gpus: '1' }),
      nodes: [...alike, aNode({ name: 'cold', cordoned: true })],
      policies: new Map([['default', aPolicy()]]),
      devices: NO_DEVICES,
      unread: [],
      operandNamespace: 'o',
      webhookWould: 'nothing',
    }),
  );
  expect(text).toMatch(/^30 nodes, such as gpu-0 /m);
  expect(text).toMatch(/^cold +validated +refused +node cordoned +kubectl uncordon cold$/m);
});
