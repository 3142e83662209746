// Each operand by itself: what the API server says to one must not keep the others, nor the garbage, waiting.
import { expect, it } from 'vitest';
import { KubeError } from '../../../platform/kube.ts';
import { jsonLog } from '../../../platform/log.ts';
import type { Action } from '../../../reconciler/actions.ts';
import type { Outcome } from '../../../reconciler/apply.ts';
import type { DaemonSetView } from '../../../reconciler/model.ts';
import { operandController } from '../../../reconciler/operands/controller.ts';
import { cachesOf, OPERANDS } from '../../builders/caches.ts';
import { aNode, aPolicy, NOW } from '../../builders/objects.ts';

const old: DaemonSetView = {
  name: 'driver-old',
  uid: 'ds-old',
  generation: 1,
  rendered: 'x',
  ours: true,
  foreign: false,
};

function world(answer: (name: string, action: Action) => Outcome | Error, present: readonly DaemonSetView[] = [old]) {
  const done: string[] = [];
  const again: number[] = [];
  const policy = aPolicy();
  let at = NOW;
  const work = operandController({
    caches: cachesOf({ nodes: [aNode()], policies: [policy], daemonSets: present }),
    log: jsonLog('error', () => undefined),
    now: () => at,
    operandNamespace: OPERANDS,
    turns: {
      add: ({ kind }) => void done.push(kind === 'policies' ? 'changed' : kind),
      addAfter: (_, ms) => void again.push(ms),
    },
    apply: {
      apply: async (action) => {
        const name = action.kind === 'apply-daemonset' ? action.manifest.metadata.name.replace(/-\w+$/, '') : '';
        const outcome = answer(name, action);
        if (outcome instanceof Error) throw new Error('apply-daemonset', { cause: outcome });
        if (action.kind === 'apply-daemonset') done.push(`${action.wholeAt === undefined ? '' : 'whole '}${name}`);
        else done.push(action.kind === 'event' ? action.reason : action.kind);
        return outcome;
      },
    },
  });
  return { work, done, again, policy, later: (ms: number) => (at += ms) };
}
const fine: Outcome = { kind: 'done', generation: 1, resourceVersion: '5' };
const OTHERS = ['container-toolkit', 'device-plugin', 'dcgm-exporter'];

it('one that is refused stops no other and no garbage collection, is told, and tried again later', async () => {
  const { work, done, again, policy, later } = world((name) =>
    name === 'driver' ? new KubeError(422, 'Invalid', 'PATCH /apis/x: it is invalid') : fine,
  );
  expect(work.refusals(policy)).toBeUndefined();
  await work.handlers.operands('');
  expect(done).toEqual([
    'container-toolkit',
    'OperandRefused',
    'device-plugin',
    'dcgm-exporter',
    'delete-daemonset',
    'changed',
  ]);
  expect(work.refusals(policy)).toEqual([expect.stringMatching(/^DaemonSet driver-\w+: it is invalid$/)]);
  expect(again).toEqual([60_000]);
  done.length = 0;
  await work.handlers.operands('');
  expect(done).not.toContain('OperandRefused');
  later(61_000);
  await work.handlers.operands('');
  expect(done).toContain('OperandRefused');
});

it.each([
  [422, 'DaemonSet.apps "d" is invalid: spec.x: Invalid value', true],
  [500, 'failed to create typed patch object (d): .spec.limitz: field not declared in schema', true],
  [500, 'failed to convert new object (d) to proper version: quantities must match', true],
  [500, 'etcdserver: request timed out', false],
  [429, 'too many requests', false],
])('%i %s: refused for good is %j', async (status, sentence, forGood) => {
  const { work, policy } = world((name) =>
    name === 'driver' ? new KubeError(status, '', `PATCH /apis/x: ${sentence}`) : fine,
  );
  await work.handlers.operands('').catch(() => undefined);
  expect(work.refusals(policy)).toEqual(forGood ? [expect.stringContaining(`: ${sentence}`)] : []);
});

it('one that could not be sent stops no other either, and is tried again at once', async () => {
  const { work, done, policy } = world((name) => (name === 'driver' ? new KubeError(503, '', 'busy') : fine));
  await expect(work.handlers.operands('')).rejects.toThrow('apply-daemonset');
  expect(done).toEqual([...OTHERS, 'delete-daemonset', 'changed']);
  expect(work.refusals(policy)).toEqual([]);
});

it('one with fields of others is written whole, and that is told; our own is not', async () => {
  const { work, done } = world((name, action) =>
    name === 'driver' && action.kind === 'apply-daemonset' && action.wholeAt === undefined
      ? { ...fine, foreign: true }
      : fine,
  );
  await work.handlers.operands('');
  expect(done.filter((what) => what !== 'delete-daemonset')).toEqual([
    'container-toolkit',
    'driver',
    'whole driver',
    'OperandPutBack',
    'device-plugin',
    'dcgm-exporter',
    'changed',
  ]);
});
