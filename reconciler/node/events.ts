// What is reported of a node's changes: each change of state, each new failure, GPUs lost. Events
// carry no times, because equal ones are counted as one.
import { CLOSED, MANAGED, PROOF, STARTUP_TAINT, STATE } from '../../core/keys.ts';
import { isMisspelt, strayOf } from '../../gate/node-proof.ts';
import type { Action } from '../actions.ts';
import type { NodeObject } from '../model.ts';
import type { Walk } from '../walk.ts';
import type { Desired } from './marks.ts';
import type { PodAction } from './states/state.ts';

type NodeEvent = Extract<Action, { readonly kind: 'event' }>;

export const nodeEvent = (
  node: NodeObject,
  type: 'Normal' | 'Warning',
  reason: string,
  message: string,
): NodeEvent => ({
  kind: 'event',
  about: { kind: 'Node', name: node.metadata.name, uid: node.metadata.uid },
  type,
  reason,
  message,
});

/**
 * Going from one state of a walk to the next is shown by label and condition; its begin, its end,
 * and its loss are reported.
 */
const isReported = (before: string | undefined, after: string | undefined): boolean =>
  before !== after && (before === undefined || before === 'validated' || after === 'validated');

/** What is started afresh without anybody's word, so that it is not taken for a crash. */
export const restartsOf = (node: NodeObject, discard: readonly PodAction[]): readonly NodeEvent[] =>
  discard.flatMap((action) =>
    action.kind === 'delete-pod'
      ? [nodeEvent(node, 'Normal', 'GPUOperandRestart', `pod ${action.name} is restarted: ${action.because}`)]
      : [],
  );

/** `before`: what the node remembered before this look. */
export function eventsOf(node: NodeObject, before: Walk | undefined, desired: Desired): readonly NodeEvent[] {
  return [...changesOf(node, before, desired), ...installerOf(node, before, desired)];
}

/** Another installer has come to a node on its way, or to one that is validated. */
function installerOf(node: NodeObject, before: Walk | undefined, { walk }: Desired): readonly NodeEvent[] {
  const installer = walk?.installer;
  if (installer === undefined || installer === before?.installer) return [];
  return [
    nodeEvent(
      node,
      'Warning',
      'GPUSecondInstaller',
      `a second installer (NVIDIA's GPU Operator) is to bring what gpu-gate runs here: remove these labels from the node, or set what it installs to mode: external in the GPUPolicy: ${installer}`,
    ),
  ];
}

function changesOf(node: NodeObject, before: Walk | undefined, desired: Desired): readonly NodeEvent[] {
  const { walk, condition, state, closed, proof } = desired;
  const { labels, annotations } = node.metadata;
  const text = condition?.said.text ?? '';
  if (walk?.failed !== undefined && walk.failed.at !== before?.failed?.at)
    return [nodeEvent(node, 'Warning', condition?.reason ?? 'Failed', `${walk.failed.stage}: ${walk.failed.message}`)];
  const moved = rollOutOf(node, before, desired);
  if (moved !== undefined) return [moved];
  const wasClosed = annotations?.[CLOSED];
  if (closed !== undefined && closed !== wasClosed) return [nodeEvent(node, 'Warning', 'GPUNodeClosed', text)];
  if (closed === undefined && wasClosed !== undefined && proof !== undefined)
    return [nodeEvent(node, 'Normal', 'GPUNodeOpen', text)];
  const isNewlyProven = proof !== undefined && annotations?.[PROOF] === undefined;
  if (isNewlyProven || isReported(labels?.[STATE], state))
    return [nodeEvent(node, 'Normal', state === 'validated' ? 'GPUValidated' : 'GPUStage', text)];
  const newlyOut = Object.keys(walk?.leftOut ?? {}).filter((id) => before?.leftOut?.[id] === undefined);
  if (newlyOut.length > 0) return [nodeEvent(node, 'Warning', 'GPUDeviceLeftOut', text)];
  const { lost } = walk ?? {};
  if (lost !== undefined && JSON.stringify(lost) !== JSON.stringify(before?.lost ?? {}))
    return [nodeEvent(node, 'Warning', 'GPUsLost', text)];
  return [];
}

/** The node's turn in a roll-out begins, or ended without a move. */
function rollOutOf(node: NodeObject, before: Walk | undefined, { walk, condition }: Desired): NodeEvent | undefined {
  if (walk === undefined || condition === undefined) return undefined;
  const { text } = condition.said;
  if (walk.rollOut !== undefined && before?.rollOut === undefined)
    return nodeEvent(node, 'Normal', 'GPURollOutBegun', text);
  if (walk.skipped !== undefined && walk.skipped.at !== before?.skipped?.at)
    return nodeEvent(node, 'Warning', 'GPURollOutDrainTimedOut', text);
  return undefined;
}

/** What would wait in vain for an opt-in that nobody made. */
export function strayEvents(node: NodeObject): readonly NodeEvent[] {
  if (strayOf(node) !== 'taint') return misspeltOf(node);
  const label = node.metadata.labels?.[MANAGED];
  const has = label === undefined ? 'has no label gpu-gate.dev/managed' : `has gpu-gate.dev/managed=${label}`;
  const message = `the taint ${STARTUP_TAINT} keeps pods off this node and stays, because the node ${has}: write exactly gpu-gate.dev/managed=true in the node's template and on the node, or take the taint away`;
  return [{ ...nodeEvent(node, 'Warning', 'GPUTaintWithoutOptIn', message), once: true }];
}

/** Who wrote `True` or `yes` means to opt in, and would wait for it in vain. */
export const misspeltOf = (node: NodeObject): readonly NodeEvent[] =>
  isMisspelt(node)
    ? [
        {
          ...nodeEvent(
            node,
            'Warning',
            'GPUNotOptedIn',
            `label gpu-gate.dev/managed=${node.metadata.labels?.[MANAGED] ?? ''} does not opt this node in: write exactly gpu-gate.dev/managed=true`,
          ),
          once: true,
        },
      ]
    : [];
